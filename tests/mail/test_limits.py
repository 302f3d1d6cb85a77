"""mailward-policyd in real mail: a stolen account is stopped within its limit, told of once, and can be given back.

Postfix asks as the shipped example has it, Dovecot as its example does; the first policyd has the limits of a fresh install.
"""

from __future__ import annotations

import imaplib
import signal
import smtplib
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.mail.conftest import stop_like_ctrl_c
from tests.mail.limiting import ALICE, BOB, CAROL, DAVE, DOMAIN, MESSAGE, Lane, Limiting, Tally
from tests.support.processes import open_folder, wait_until

MESSAGES, LANES = 5000, 8
SURGE = 100  # the shipped limit of recipients in ten minutes that an account never wrote to
NEIGHBOURS_MESSAGES = 30
SETTLE = 'settle = "1s"'
CLOSE_SECONDS = 60.0  # for what is done about once a second
DEFERRED, REJECTED, ACCEPTED = "450 4.7.1", "554 5.7.1", "250 2.0.0"

FRESH, COUNTING = "fresh", "counting"
EVERYTHING = """
[[policyd.limit]]
name = "messages"
per = "sasl_username"
count = "messages"
limit = "1000/1h"

[[policyd.limit]]
name = "recipients"
per = "sasl_username"
count = "recipients"
limit = "1000/1h"

[[policyd.limit]]
name = "octets"
per = "sasl_username"
count = "bytes"
limit = "100000000/1h"

[[policyd.limit]]
name = "few"
per = ["sasl_username", "recipient_domain"]
match = { recipient = "@example.com" }
count = "recipients"
limit = "2/1h"
action = "reject"
text = "no more than two"
"""


@pytest.fixture(scope="module")
def world() -> Iterator[Limiting]:
    with open_folder() as folder:
        before = signal.signal(signal.SIGTERM, stop_like_ctrl_c)
        modes = {FRESH: "", COUNTING: EVERYTHING}
        with Limiting(folder, modes, incidents=SETTLE, asks_at_data=(COUNTING,)) as started:
            yield started
        signal.signal(signal.SIGTERM, before)


@dataclass(frozen=True, slots=True)
class Stolen:
    """What became of the mail of a stolen account and of its neighbour's; a session of each kind that it had open before."""

    spam: Tally
    neighbours: Tally
    open_submission: Lane
    open_imap: imaplib.IMAP4


@pytest.fixture(scope="module")
def stolen(world: Limiting) -> Iterator[Stolen]:
    assert world.can_log_in(ALICE)
    with ExitStack() as stack:
        open_submission = Lane(stack.enter_context(world.submission(ALICE, mode=FRESH)), ALICE)
        open_imap = stack.enter_context(world.imap(ALICE))
        neighbours = Tally()
        neighbour = threading.Thread(
            target=lambda: neighbours.add(world.send_many(BOB, NEIGHBOURS_MESSAGES, mode=FRESH))
        )
        neighbour.start()
        spam = world.send_many(ALICE, MESSAGES, mode=FRESH, lanes=LANES)
        neighbour.join()
        wait_until(lambda: world.first.account(ALICE).suspension is not None, "the suspension", seconds=CLOSE_SECONDS)
        yield Stolen(spam, neighbours, open_submission, open_imap)


def test_of_5000_messages_of_a_stolen_account_no_more_go_out_than_its_limit(stolen: Stolen) -> None:
    assert stolen.spam.total == MESSAGES
    # Those that had got past RCPT when the account was suspended are refused at the end.
    assert SURGE - LANES <= len(stolen.spam.accepted) <= SURGE
    assert set(stolen.spam.replies) <= {ACCEPTED, DEFERRED, REJECTED}


def test_what_was_accepted_is_delivered_and_nothing_else(world: Limiting, stolen: Stolen) -> None:
    accepted = [*stolen.spam.accepted, *stolen.neighbours.accepted]
    world.wait_for_mail(accepted)
    assert world.postfix.queue_ids() == []
    arrived = world.arrived()
    assert {recipient: arrived[recipient] for recipient in accepted} == dict.fromkeys(accepted, 1)
    assert {recipient for recipient in arrived if recipient.startswith("box")} == set(accepted)


def test_the_neighbours_mail_flows_meanwhile(world: Limiting, stolen: Stolen) -> None:
    assert stolen.neighbours.replies == {ACCEPTED: NEIGHBOURS_MESSAGES}
    assert world.first.account(BOB).is_plain
    assert world.can_log_in(BOB)


def test_a_session_that_was_open_before_is_refused_too(world: Limiting, stolen: Stolen) -> None:
    reply = stolen.open_submission.send(*world.new_recipients(1))
    assert f"{reply.code} {reply.text[:5]}" == REJECTED


def test_its_next_login_is_denied_over_imap_and_over_submission(world: Limiting, stolen: Stolen) -> None:
    wait_until(lambda: not world.can_log_in(ALICE), "the login to be denied", seconds=CLOSE_SECONDS)
    with pytest.raises(smtplib.SMTPAuthenticationError), world.submission(ALICE, mode=FRESH):
        pass


def test_an_imap_session_that_was_open_before_is_ended(stolen: Stolen) -> None:
    def is_ended() -> bool:
        try:
            stolen.open_imap.noop()
        except (imaplib.IMAP4.abort, OSError):
            return True
        return False

    wait_until(is_ended, "the open session to be ended", seconds=CLOSE_SECONDS)


def test_one_notification_goes_out_for_all_of_it(world: Limiting, stolen: Stolen) -> None:
    wait_until(lambda: bool(world.notifications()), "the notification", seconds=CLOSE_SECONDS)
    for recipient in world.new_recipients(20):
        assert stolen.open_submission.send(recipient).code != 250
    later = world.new_recipients(1)
    assert world.send(BOB, *later, mode=FRESH).code == 250
    world.wait_for_mail(later)
    (notification,) = world.notifications()
    assert ALICE in notification
    assert "account-surge" in notification


def test_the_audit_log_says_what_happened_and_that_nobody_did_it_by_hand(world: Limiting, stolen: Stolen) -> None:
    with world.first.records() as records:
        entries = records.audit_log(ALICE)
    assert [entry.action for entry in reversed(entries)][:2] == ["incident-opened", "suspend"]
    assert {entry.who for entry in entries} == {"mailward-policyd"}
    assert "account-surge" in entries[-1].why


def test_the_operator_sees_it_and_gives_it_back(world: Limiting, stolen: Stolen) -> None:
    assert "suspended" in world.first.order("show", ALICE)
    assert ALICE in world.first.order("incidents")
    world.first.order("resume", ALICE, "--why", "password changed")
    wait_until(lambda: world.can_log_in(ALICE), "the login to be let in again", seconds=CLOSE_SECONDS)
    (recipient,) = world.new_recipients(1)
    wait_until(
        lambda: world.send(ALICE, recipient, mode=FRESH).code == 250, "mail to go out again", seconds=CLOSE_SECONDS
    )
    world.wait_for_mail([recipient])
    assert world.first.account(ALICE).suspension is None


def test_a_message_is_counted_once_over_rcpt_data_and_end_of_message(world: Limiting) -> None:
    server = world.servers[COUNTING]
    before = server.metrics()
    recipients = world.new_recipients(3)
    assert world.send(CAROL, *recipients, mode=COUNTING).code == 250
    after = server.metrics()
    asked = {
        stage: after[f'requests_total{{state="{stage}"}}'] - before[f'requests_total{{state="{stage}"}}']
        for stage in ("rcpt", "data", "end-of-message")
    }
    assert asked == {"rcpt": 3, "data": 1, "end-of-message": 1}
    world.wait_for_mail(recipients)
    amounts = server.amounts(f"sasl_username={CAROL}")
    assert (amounts["messages"], amounts["recipients"]) == (1, 3)
    assert amounts["octets"] == len(MESSAGE.format(sender=CAROL, recipient=recipients[0]))


def test_a_recipient_beyond_a_limit_is_refused_alone_and_costs_no_other_limit_anything(world: Limiting) -> None:
    owner, server = f"sasl_username={DAVE}", world.servers[COUNTING]
    few = [f"{name}@{DOMAIN}" for name in ("one", "two", "three")]
    others = world.new_recipients(2)
    with world.submission(DAVE, mode=COUNTING) as session:
        refused = session.sendmail(DAVE, [*few, *others], b"Subject: to many\r\n\r\nHello.\r\n")
    assert list(refused) == [few[2]]
    code, text = refused[few[2]]
    assert (code, text.startswith(b"5.7.1 "), b"no more than two" in text) == (554, True, True)
    world.wait_for_mail([*few[:2], *others])
    amounts = server.amounts(owner)
    assert (amounts["few"], amounts["recipients"], amounts["messages"]) == (2, 4, 1)


def test_port_25_asks_and_still_relays_for_nobody(world: Limiting) -> None:
    before = world.first.metrics()['requests_total{state="rcpt"}']
    with smtplib.SMTP("127.0.0.1", world.port_25, local_hostname="client.example", timeout=60) as session:
        session.ehlo()
        assert session.docmd("XCLIENT", "ADDR=198.51.100.7 NAME=stranger.example")[0] == 220
        session.ehlo()
        session.mail("somebody@sender.example")
        assert session.rcpt(f"new@{DOMAIN}")[0] == 250
        code, text = session.rcpt("somebody@elsewhere.example")
    assert (code, b"Relay access denied" in text) == (454, True)
    assert world.first.metrics()['requests_total{state="rcpt"}'] == before + 1


def test_postfix_had_nothing_to_complain_about_but_the_denied_login(world: Limiting, stolen: Stolen) -> None:
    denied = "SASL PLAIN authentication failed: This account is suspended"
    warnings = world.postfix.warnings()
    assert [line for line in warnings if denied not in line] == []
    assert len(warnings) == 1
