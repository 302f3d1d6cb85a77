"""The two milters of port 25 together, in the order in which the shipped master.cf has them."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.mail.conftest import stop_like_ctrl_c
from tests.mail.greylisting import EXAMPLE, POOL, QUICK, Client, Greylisting, values
from tests.mail.inbound import EXAMPLE as VERIFIER_EXAMPLE
from tests.mail.inbound import SHIPPED_SOCKET as VERIFIER_SOCKET
from tests.mail.inbound import read_main_cf
from tests.support.greylister import AUTHSERV_ID
from tests.support.processes import open_folder
from tests.support.verifier import Verifier

SENDER = "news@pool.example"
FORGED_FIELD = b"Authentication-Results: " + AUTHSERV_ID.encode() + b"; spf=pass (forged)\r\n"
MESSAGE = FORGED_FIELD + b"From: news@pool.example\r\nSubject: hello\r\n\r\nHello.\r\n"


@pytest.fixture(scope="module")
def world() -> Iterator[Greylisting]:
    with ExitStack() as stack:
        before = signal.signal(signal.SIGTERM, stop_like_ctrl_c)
        stack.callback(signal.signal, signal.SIGTERM, before)
        folder = stack.enter_context(open_folder())
        verifier_socket = folder / "auth-verify.sock"
        verifier_milter = read_main_cf(VERIFIER_EXAMPLE)["mailward_auth_verify"]
        settings = {"mailward_auth_verify": verifier_milter.replace(VERIFIER_SOCKET, f"unix:{verifier_socket}")}
        world = stack.enter_context(Greylisting(folder, {"quick": QUICK}, milters=shipped_milters(), settings=settings))
        verifier = Verifier(folder, nameservers=[world.nameserver.endpoint], authserv_id=AUTHSERV_ID)
        assert verifier.socket_path == str(verifier_socket)
        stack.callback(verifier.stop)
        verifier.start()
        yield world


def shipped_milters() -> str:
    """Return the list of milters that the shipped master.cf gives to port 25."""
    master_cf = EXAMPLE.with_name("greylist.master.cf").read_text()
    (service,) = re.findall(r"^smtp +inet .*\n((?:  -o .*\n)+)", master_cf, re.MULTILINE)
    (milters,) = re.findall(r"-o smtpd_milters=(\S+)", service)
    return str(milters)


def test_stranger_is_put_off_and_the_retry_is_judged_and_delivered(world: Greylisting) -> None:
    client, recipient = Client(POOL[0]), world.new_recipient()
    assert world.attempt(client, SENDER, recipient, message=MESSAGE).is_greylisted
    assert world.retry(client, SENDER, recipient, message=MESSAGE).is_accepted
    message = world.arrived(recipient)
    (delay,) = values(message, b"X-Greylist")
    (result,) = values(message, b"Authentication-Results")
    assert delay.startswith(b"delayed ")
    assert result.startswith(AUTHSERV_ID.encode())
    assert b"forged" not in message
    assert b"spf=pass" in message


def test_null_sender_is_put_off_at_data_before_it_is_judged(world: Greylisting) -> None:
    client, recipient = world.new_client(), world.new_recipient()
    attempt = world.attempt(client, "", recipient)
    assert attempt.ending is not None
    assert attempt.ending.code == 450
    assert world.retry(client, "", recipient).is_accepted
    assert len(values(world.arrived(recipient), b"Authentication-Results")) == 1
