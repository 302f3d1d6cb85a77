"""mailward-greylist and DNS lists that do not say what they should."""

from __future__ import annotations

import pytest

from tests.programs.test_greylist import GREYLISTED
from tests.support.greylister import Greylister
from tests.support.milter_client import MilterSession
from tests.support.odd_nameserver import Datagrams, Message, OddNameserver, Reply, denied, response
from tests.support.processes import open_folder, wait_until

REFUSED, LISTED = "127.255.255.254", "127.0.0.2"
AS_DNSBL = 'mode = "suspicious"\ndnsbl = ["list.example"]'
AS_DNSWL = 'dnswl = ["list.example=127.0.0.[1..3]"]'


def answering(address: str) -> Reply:
    """Return what answers each question to the list with one address, even that for whom no list may have."""
    denies = denied()

    def reply(question: Message) -> Datagrams:
        is_list = str(question.question[0].name).endswith("list.example.")
        return response(question, f"@ 60 A {address}").to_wire() if is_list else denies(question)

    return reply


@pytest.mark.parametrize(
    ("settings", "address", "failure", "is_deferred"),
    [
        pytest.param(AS_DNSBL, REFUSED, "refused", False, id="a block list that refuses us suspects nobody"),
        pytest.param(AS_DNSWL, REFUSED, "refused", True, id="a white list that refuses us vouches for nobody"),
        pytest.param(AS_DNSBL, LISTED, "lists-all", False, id="a block list that lists everybody lists nobody"),
        pytest.param(AS_DNSWL, LISTED, "lists-all", True, id="a white list that lists everybody vouches for nobody"),
    ],
)
def test_a_list_that_says_nothing_of_the_client(settings: str, address: str, failure: str, is_deferred: bool) -> None:
    with open_folder() as folder, OddNameserver(answering(address)) as nameserver:
        endpoint = f"127.0.0.1:{nameserver.address[1]}"
        greylister = Greylister(folder, settings, nameservers=[endpoint], workers=1)
        greylister.start()
        try:
            session = MilterSession(greylister.socket_path)
            session.connect("192.0.2.10", b"mail.good.example")
            session.helo(b"mail.good.example")
            session.mail(b"a@b.example")
            outcome = session.recipient(b"c@d.example")
            session.close()
            assert bool(GREYLISTED.fullmatch(outcome.text)) is is_deferred
            counted = f'dns_list_failures_total{{reason="{failure}"}}'
            wait_until(lambda: greylister.metrics()[counted] == 1, "the failure being counted")
            assert greylister.metrics()['messages_total{verdict="own-bug"}'] == 0
            assert bool(greylister.log_lines("dns-list-refused")) is (failure == "refused")
        finally:
            greylister.stop()
