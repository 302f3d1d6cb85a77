"""The table of attacks through a real Postfix: what arrives, in which mailbox, or how it is refused.

All rows are sent first, over a few connections at a time; then each is looked at. What Postfix refuses or changes by itself
is in the row (`postfix=`), and must be so: a row that Postfix takes over from us would show nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.attacks.expected import OURS, assert_cleaned, assert_results, read_own_field
from tests.attacks.messages import Fields, split
from tests.attacks.row import FORGED, Attack, Fate
from tests.attacks.table import ATTACKS
from tests.mail.inbound import INBOX, JUNK, Arrived, Inbound
from tests.support.smtp_client import SmtpReply

SESSIONS = 4
MAILBOXES = {Fate.ACCEPTED: INBOX, Fate.QUARANTINED: JUNK}
Answers = dict[str, tuple[str, SmtpReply]]


@pytest.fixture(scope="module")
def answers(inbound: Inbound) -> Iterator[Answers]:
    """Send every row; return the mailbox's owner and Postfix's answer by the row's id."""

    def send(attack: Attack) -> tuple[str, SmtpReply]:
        return inbound.send(attack.message, attack.origin, mode="reject")

    with ThreadPoolExecutor(SESSIONS) as pool:
        yield dict(zip((attack.id for attack in ATTACKS), pool.map(send, ATTACKS), strict=True))


@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.id for attack in ATTACKS])
def test_attack(inbound: Inbound, answers: Answers, attack: Attack) -> None:
    owner, reply = answers[attack.id]
    by_postfix = attack.postfix
    if by_postfix and by_postfix.act == "refuses":
        assert reply.command != "data"
        assert 500 <= reply.code < 600
        assert not inbound.has_mail(owner)
        return
    fate = by_postfix.fate if by_postfix and by_postfix.fate else attack.fate
    if fate is Fate.REFUSED:
        assert reply.code == 550, reply
        assert reply.text.startswith("5.7.1 Email rejected per DMARC policy for "), reply
        assert not inbound.has_mail(owner)
        return
    if fate is Fate.DEFERRED:
        assert (reply.code, reply.text.partition(" ")[0]) == (451, "4.4.3"), reply
        assert not inbound.has_mail(owner)
        return
    assert reply.code == 250, reply
    arrived = inbound.arrived(owner)
    assert arrived.mailbox == MAILBOXES[fate]
    assert_on_top(arrived)
    field = read_own_field(arrived.values(b"Authentication-Results")[0])
    if by_postfix and by_postfix.dmarc:
        assert_results(attack, field, dmarc=by_postfix.dmarc, author=by_postfix.author)
    else:
        assert_results(attack, field)
    fields, _ = split(attack.message)
    assert_cleaned(fields, arrived.fields)
    assert is_as_sent(attack, arrived) == (by_postfix is None)


def assert_on_top(arrived: Arrived) -> None:
    """Our field stands above what Postfix wrote when it took the message, and so above all that came with it."""
    names = [name.lower() for name, _ in arrived.fields]
    ours = names.index(b"authentication-results")
    # Dovecot's own Received field, of the delivery, is above ours; Postfix's is below.
    assert names[:ours].count(b"received") == 1
    assert b"received" in names[ours:]


def is_as_sent(attack: Attack, arrived: Arrived) -> bool:
    """Say whether what arrived ends in the very octets that were sent, but for the forged fields."""
    fields, body = split(attack.message)
    kept: Fields = [(name, value) for name, value in fields if not (is_ours(name) and FORGED in value)]
    ended = body if body.endswith(b"\r\n") or not body else body + b"\r\n"
    return (arrived.fields[-len(kept) :] == kept or not kept) and arrived.body == ended


def is_ours(name: bytes) -> bool:
    return name.strip().lower() in OURS


def test_nothing_went_wrong_on_the_way(inbound: Inbound, answers: Answers) -> None:
    verifier = inbound.verifiers["reject"]
    assert verifier.log_lines("own-bug") == []
    assert not [line for line in inbound.postfix.warnings() if "milter" in line]
