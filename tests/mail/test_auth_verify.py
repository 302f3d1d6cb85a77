"""mailward-auth-verify in real mail: good, forged, forwarded, listed and broken senders, and what arrives where.

Every message goes through Postfix with the daemon as its milter, and by LMTP into Dovecot, where the shipped Sieve script
files it.
"""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from tests.attacks import chains, controls
from tests.attacks.messages import message, replaced, sign, with_field
from tests.attacks.row import ATTACKER, AUTHSERV_ID, BANK, BY_ATTACKER, BY_BANK, BY_FORWARDER, BY_LIST, Origin
from tests.attacks.zones import BANK_KEY, LIST_KEY, NOT_LIST_KEY
from tests.mail.inbound import CUSTOMER, INBOX, JUNK, PASSWORD, RECEIVER, Arrived, Inbound
from tests.support.processes import require_binary, run, wait_until
from tests.support.results_field import MethodResult, ResultsField, read_results_field

GOOD, FORGED = controls.SIGNED, controls.PLAIN
RECOVERY_SECONDS = 30.0


def results(arrived: Arrived) -> ResultsField:
    """Return our field, which must be the only one that claims to be ours."""
    ours = [value for value in arrived.values(b"Authentication-Results") if AUTHSERV_ID.encode() in value]
    assert len(ours) == 1
    return read_results_field(ours[0])


def dmarc(arrived: Arrived) -> MethodResult:
    (result,) = results(arrived).of("dmarc")
    return result


def test_good_mail_is_delivered_with_every_result(inbound: Inbound) -> None:
    arrived = inbound.deliver(GOOD)
    field = results(arrived)
    assert arrived.mailbox == INBOX
    assert [(each.method, each.result) for each in field.results] == [
        ("dkim", "pass"),
        ("spf", "pass"),
        ("spf", "pass"),
        ("dmarc", "pass"),
        ("arc", "none"),
        ("iprev", "pass"),
    ]
    mail_from, helo = field.of("spf")
    assert mail_from.properties == {"smtp.mailfrom": "bank.example"}
    assert helo.properties == {"smtp.helo": "mail.bank.example"}
    assert field.of("dkim")[0].properties["header.d"] == "bank.example"
    assert dmarc(arrived).properties == {"header.from": "bank.example", "policy.dmarc": "reject"}
    assert field.of("iprev")[0].properties == {"policy.iprev": BANK}


def test_what_was_sent_arrives_unchanged_below_what_we_added(inbound: Inbound) -> None:
    assert inbound.deliver(GOOD).octets.endswith(b"\r\n" + GOOD)


def test_forged_mail_is_filed_into_junk_by_the_shipped_script(inbound: Inbound) -> None:
    arrived = inbound.deliver(FORGED, BY_ATTACKER)
    assert arrived.mailbox == JUNK
    assert arrived.values(b"X-Mailward-Quarantine") == [b" dmarc"]
    assert dmarc(arrived).result == "fail"


def test_forged_mail_is_refused_where_the_operator_says_so(inbound: Inbound) -> None:
    owner, reply = inbound.send(FORGED, BY_ATTACKER, mode="reject")
    assert (reply.code, reply.text) == (550, "5.7.1 Email rejected per DMARC policy for bank.example")
    assert not inbound.has_mail(owner)


def test_forwarded_mail_passes_by_its_signature(inbound: Inbound) -> None:
    arrived = inbound.deliver(
        with_field(GOOD, b"Received: from mail.bank.example by out.forwarder.example"), BY_FORWARDER
    )
    assert arrived.mailbox == INBOX
    assert dmarc(arrived).result == "pass"
    assert results(arrived).of("spf")[0].properties == {"smtp.mailfrom": "forwarder.example"}


def test_changed_mail_of_a_trusted_sealer_is_delivered_and_the_field_says_why(inbound: Inbound) -> None:
    arrived = inbound.deliver(chains.SEALED, BY_FORWARDER)
    assert arrived.mailbox == INBOX
    assert dmarc(arrived).result == "fail"
    assert "trusted-sealer: forwarder.example" in dmarc(arrived).reason
    assert results(arrived).words("arc") == ("pass",)


def test_changed_mail_of_a_forwarder_nobody_named_is_quarantined_and_never_refused(inbound: Inbound) -> None:
    for mode in ("quarantine", "reject"):
        arrived = inbound.deliver(chains.FOOTER, BY_FORWARDER, mode=mode)
        assert arrived.mailbox == JUNK
        assert results(arrived).words("dkim") == ("fail",)


def test_mail_of_a_named_list_is_delivered_and_the_field_says_why(inbound: Inbound) -> None:
    arrived = inbound.deliver(sign(with_field(chains.FOOTER, chains.LIST_ID), LIST_KEY), BY_LIST)
    assert arrived.mailbox == INBOX
    assert dmarc(arrived).result == "fail"
    assert "mailing-list: list.example" in dmarc(arrived).reason


def test_mail_of_another_list_is_quarantined_and_never_refused(inbound: Inbound) -> None:
    octets = sign(with_field(chains.FOOTER, chains.LIST_ID), NOT_LIST_KEY)
    for mode in ("quarantine", "reject"):
        assert inbound.deliver(octets, BY_LIST, mode=mode).mailbox == JUNK


@pytest.mark.parametrize(
    ("author", "word"),
    [
        pytest.param(b"norecord.example", "none", id="no-policy-record"),
        pytest.param(b"double.example", "none", id="two-policy-records"),
        pytest.param(b"silent.example", "temperror", id="silent-nameservers"),
        pytest.param(b"invalid.example", "fail", id="invalid-policy"),
        pytest.param(b"monitor.example", "fail", id="policy-none"),
    ],
)
def test_senders_with_a_broken_setup_are_delivered_even_where_others_are_refused(
    inbound: Inbound, author: bytes, word: str
) -> None:
    arrived = inbound.deliver(message(b"From: a@" + author), BY_ATTACKER, mode="reject")
    assert arrived.mailbox == INBOX
    assert dmarc(arrived).result == word


def test_five_forged_fields_are_removed_and_foreign_ones_keep_their_order(inbound: Inbound) -> None:
    octets = GOOD
    for number in range(5):
        octets = with_field(octets, b"Authentication-Results: mx.receiver.example; dmarc=pass (forged %d)" % number)
        octets = with_field(octets, b"Authentication-Results: mx%d.other.example; spf=none" % number)
    arrived = inbound.deliver(octets)
    first, *others = arrived.values(b"Authentication-Results")
    assert first.startswith(b" mx.receiver.example;")
    assert others == [b" mx%d.other.example; spf=none" % number for number in (4, 3, 2, 1, 0)]
    assert b"forged" not in arrived.octets


def test_quarantine_can_mean_the_hold_queue_from_which_mail_is_released(inbound: Inbound) -> None:
    owner, reply = inbound.send(FORGED, BY_ATTACKER, mode="hold")
    assert reply.code == 250
    queue_id = reply.text.split()[-1]
    wait_until(lambda: f"{queue_id}: milter-hold" in inbound.postfix.log(), "Postfix to hold the message")
    assert not inbound.has_mail(owner)
    run([require_binary("postsuper", "postfix"), "-c", str(inbound.postfix.etc), "-H", queue_id])
    inbound.postfix.flush()
    arrived = inbound.arrived(owner)
    assert dmarc(arrived).result == "fail"
    assert arrived.values(b"X-Mailward-Quarantine") == []


def test_a_customer_who_logged_in_is_labelled_and_not_judged(inbound: Inbound) -> None:
    owner = inbound.new_owner()
    octets = with_field(FORGED, b"Authentication-Results: mx.receiver.example; dmarc=pass (forged)")
    with smtp_session(inbound.submission_port, ATTACKER) as session:
        session.login(CUSTOMER, PASSWORD)
        session.sendmail(CUSTOMER, [f"{owner}@{RECEIVER}"], octets)
    arrived = inbound.arrived(owner)
    (result,) = results(arrived).results
    assert arrived.mailbox == INBOX
    assert (result.method, result.result) == ("auth", "pass")
    assert result.properties["smtp.auth"] == CUSTOMER
    assert b"forged" not in arrived.octets


def test_a_listed_network_is_labelled_and_not_judged(inbound: Inbound) -> None:
    arrived = inbound.deliver(FORGED, replace(BY_BANK, client="127.0.0.1"), mode="reject")
    assert arrived.mailbox == INBOX
    assert results(arrived).results == ()


def test_shadow_mode_says_what_would_be_done_and_does_nothing(inbound: Inbound) -> None:
    verifier = inbound.verifiers["shadow"]
    before = verifier.metrics()['shadow_total{verdict="reject"}']
    arrived = inbound.deliver(FORGED, BY_ATTACKER, mode="shadow")
    assert arrived.mailbox == INBOX
    assert arrived.values(b"X-Mailward-Quarantine") == []
    assert "would be reject" in dmarc(arrived).reason
    assert verifier.metrics()['shadow_total{verdict="reject"}'] == before + 1


def test_messages_of_one_session_are_judged_each_for_itself(inbound: Inbound) -> None:
    owners = [inbound.new_owner() for _ in range(3)]
    with smtp_session(inbound.ports["quarantine"], ATTACKER) as session:
        for owner, octets in zip(owners, (GOOD, FORGED, GOOD), strict=True):
            session.sendmail("x@attacker.example", [f"{owner}@{RECEIVER}"], octets)
            session.rset()
    assert [inbound.arrived(owner).mailbox for owner in owners] == [INBOX, JUNK, INBOX]


def test_the_log_tells_of_a_message_what_its_field_tells(inbound: Inbound) -> None:
    _, reply = inbound.send(FORGED, BY_ATTACKER)
    queue_id = reply.text.split()[-1]
    lines = inbound.verifiers["quarantine"].log_lines("message")
    (line,) = [line for line in lines if line["queue_id"] == queue_id]
    assert line["verdict"] == "quarantine"
    assert line["reason"] == "dmarc-fail"
    assert line["client"] == ATTACKER
    assert line["author_domain"] == "bank.example"
    assert line["spf"] == "pass:attacker.example"


def test_while_the_daemon_is_away_mail_waits(inbound: Inbound) -> None:
    verifier = inbound.verifiers["shadow"]
    verifier.stop()
    try:
        owner, reply = inbound.send(GOOD, mode="shadow")
        assert 400 <= reply.code < 500
        assert not inbound.has_mail(owner)
    finally:
        verifier.start()
    assert dmarc(inbound.deliver(GOOD, mode="shadow")).result == "pass"


def test_while_the_dns_is_away_mail_is_delivered_with_temperror_and_judged_again_afterwards(inbound: Inbound) -> None:
    late = message(b"From: a@late.example")
    assert dmarc(inbound.deliver(GOOD, mode="reject")).result == "pass"
    with inbound.without_dns():
        for mode in ("quarantine", "reject"):
            arrived = inbound.deliver(late, BY_ATTACKER, mode=mode)
            assert arrived.mailbox == INBOX
            assert dmarc(arrived).result == "temperror"
        _, reply = inbound.send(late, BY_ATTACKER, mode="later")
        assert (reply.code, reply.text) == (451, "4.4.3 DMARC of late.example cannot be judged now; try again later")
        # What was known before still is: the answers have not expired.
        assert dmarc(inbound.deliver(GOOD, mode="reject")).result == "pass"
    # Each verifier finds out by itself that the DNS is back.
    wait_until(lambda: is_refused(inbound, late), "forgeries to be refused again", seconds=RECOVERY_SECONDS)
    wait_until(lambda: is_marked(inbound, late), "forgeries to be marked again", seconds=RECOVERY_SECONDS)
    by_late = replace(BY_BANK, mail_from=b"a@late.example")
    wait_until(lambda: is_accepted(inbound, late, by_late), "no more to be put off", seconds=RECOVERY_SECONDS)
    assert dmarc(inbound.deliver(late, by_late, mode="later")).result == "pass"


def is_accepted(inbound: Inbound, octets: bytes, origin: Origin) -> bool:
    return inbound.send(octets, origin, mode="later")[1].code == 250


def is_marked(inbound: Inbound, octets: bytes) -> bool:
    return inbound.deliver(octets, BY_ATTACKER, mode="quarantine").mailbox == JUNK


def is_refused(inbound: Inbound, octets: bytes) -> bool:
    return inbound.send(octets, BY_ATTACKER, mode="reject")[1].code == 550


@contextmanager
def smtp_session(port: int, client: str) -> Iterator[smtplib.SMTP]:
    """Open a session as if from that address."""
    with smtplib.SMTP("127.0.0.1", port, local_hostname="client.example", timeout=60) as session:
        session.ehlo()
        code, text = session.docmd("XCLIENT", f"ADDR={client} NAME=[UNAVAILABLE]")
        assert code == 220, text
        session.ehlo()
        yield session


def test_a_signature_that_is_replayed_from_elsewhere_still_names_its_signer(inbound: Inbound) -> None:
    """DKIM does not bind the recipient: a replay passes, and the field says whose signature it was and who sent it."""
    arrived = inbound.deliver(sign(message(b"From: ceo@bank.example"), BANK_KEY), BY_ATTACKER)
    assert dmarc(arrived).result == "pass"
    assert results(arrived).of("spf")[0].properties == {"smtp.mailfrom": "attacker.example"}


def test_a_tampered_copy_is_no_replay(inbound: Inbound) -> None:
    assert inbound.deliver(replaced(GOOD, b"at once", b"at evil.example"), BY_ATTACKER).mailbox == JUNK
