"""No sender can make the verifier lose the DNS: mail of a thousand silent domains, and everybody else's beside it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from mailward.model.dns import AnswerStatus, Question, RecordType
from tests.inbound import mail
from tests.support.milter_client import MilterSession, Outcome
from tests.support.odd_nameserver import OddNameserver
from tests.support.processes import open_folder, wait_until
from tests.support.verifier import Verifier
from tests.support.zone import Zone

SILENT_DOMAINS = 1000
SESSIONS = 200  # at once
HONEST = 30


class Outside:
    """The DNS as a resolver shows it: the honest domain's records, and not a word about names below silent.example."""

    def __init__(self) -> None:
        self._zone = Zone(mail.ZONE)
        self.asked_of_silent_ones = 0

    def __call__(self, question: dns.message.Message) -> bytes | None:
        (asked,) = question.question
        name = asked.name.to_text(omit_final_dot=True).lower()
        if name.endswith("silent.example"):
            self.asked_of_silent_ones += 1
            return None
        response = dns.message.make_response(question)
        answer = self._zone(Question(name, RecordType(dns.rdatatype.to_text(asked.rdtype))))
        if answer.status is AnswerStatus.NXDOMAIN:
            response.set_rcode(dns.rcode.NXDOMAIN)
        for record in answer.records:
            text = record.decode()
            shown = f'"{text}"' if asked.rdtype == dns.rdatatype.TXT else text
            response.answer.append(dns.rrset.from_text(asked.name, 300, "IN", asked.rdtype, shown))
        return response.to_wire()


@pytest.fixture(scope="module")
def outside() -> Outside:
    return Outside()


@pytest.fixture(scope="module")
def verifier(outside: Outside) -> Iterator[Verifier]:
    with open_folder() as folder, OddNameserver(outside) as nameserver:
        daemon = Verifier(
            folder,
            'enforce = "reject"',
            nameservers=[f"127.0.0.1:{nameserver.address[1]}"],
            authserv_id="mx.our.example",
            dns='deadline = "4s"',
            timeout="10s",  # half of it is for the control question, on a machine this busy
            workers=2,
        )
        daemon.start()
        try:
            yield daemon
        finally:
            daemon.stop()


def send_from_silent_domain(verifier: Verifier, number: int) -> Outcome:
    domain = f"d{number}.silent.example".encode()
    return send(verifier, mail.STRANGER, domain, [(b"From", b" x@" + domain), (b"Subject", b" hello")])


def send_honest(verifier: Verifier) -> Outcome:
    fields = [(field.name, field.raw_value.replace(b"\r\n", b"\n")) for field in mail.signed()]
    return send(verifier, mail.CLIENT, b"bank.example", fields)


def send_forged(verifier: Verifier) -> Outcome:
    return send(verifier, mail.STRANGER, b"bank.example", [(b"From", b" ceo@bank.example")])


def send(verifier: Verifier, client: str, domain: bytes, fields: list[tuple[bytes, bytes]]) -> Outcome:
    session = MilterSession(verifier.socket_path, timeout=60)
    try:
        session.connect(client)
        session.helo(b"mx." + domain)
        return session.message(fields, mail.BODY, mail_from=b"x@" + domain)
    finally:
        session.close()


def results(outcome: Outcome) -> dict[str, str]:
    """Return the result of each method in our field; of SPF the MAIL FROM's."""
    (field,) = outcome.inserted("Authentication-Results")
    words = [part.split()[0].partition("=") for part in field.decode().split(";")[1:]]
    return {method: result for method, _, result in reversed(words)}


def test_a_thousand_silent_domains_change_nothing_for_everybody_else(
    verifier: Verifier, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail, "NOW", int(time.time()))
    with ThreadPoolExecutor(SESSIONS + 1) as pool:
        silent = [pool.submit(send_from_silent_domain, verifier, number) for number in range(SILENT_DOMAINS)]
        wait_until(lambda: outside.asked_of_silent_ones > SESSIONS, "the silent domains to be asked about", seconds=30)
        for _ in range(HONEST):
            honest = send_honest(verifier)
            assert (honest.reply, results(honest)["dkim"]) == ("a", "pass")
            assert results(honest)["dmarc"] == "pass"
            forged = send_forged(verifier)
            assert forged.reply == "y", forged
        outcomes = [future.result() for future in silent]
    assert {outcome.reply for outcome in outcomes} == {"a"}
    assert {results(outcome)["dmarc"] for outcome in outcomes} == {"temperror"}
    assert not verifier.log_lines("nameserver-away")
    metrics = verifier.metrics()
    assert sum(value for name, value in metrics.items() if name.startswith("dns_breaker_opened_total")) == 0
    assert metrics['decisions_total{reason="dmarc-temperror"}'] == SILENT_DOMAINS
