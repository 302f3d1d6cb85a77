"""Two policy servers on one Redis: what one has counted the other knows, a limit holds over both, and one of them tells."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from tests.mail.conftest import stop_like_ctrl_c
from tests.mail.limiting import ALICE, BOB, Limiting, Tally
from tests.support.processes import open_folder, wait_until
from tests.support.redis import Redis

ONE, TWO = MODES = ("one", "two")
MOST, MESSAGES, LANES = 50, 300, 4  # messages and lanes are each one's
LIMITS = f"""
[[policyd.limit]]
name = "small"
per = "sasl_username"
count = "recipients"
limit = ["{MOST}/1h", "10000/1d"]
suspend_after = 50

[[policyd.limit]]
name = "large"
per = "sasl_username"
count = "messages"
limit = "10000/1h"
"""
KNOWN_SECONDS = 60.0  # for what each asks the store about once a second


@pytest.fixture(scope="module")
def world() -> Iterator[Limiting]:
    with open_folder() as folder, Redis(folder) as redis:
        before = signal.signal(signal.SIGTERM, stop_like_ctrl_c)
        modes, states = dict.fromkeys(MODES, LIMITS), dict.fromkeys(MODES, redis.address)
        with Limiting(folder, modes, states, incidents='settle = "1s"') as started:
            yield started
        signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def tallies(world: Limiting) -> dict[str, Tally]:
    """Send through both at once; return what became of each one's messages."""
    found: dict[str, Tally] = {}

    def send(mode: str) -> None:
        found[mode] = world.send_many(ALICE, MESSAGES, mode=mode, lanes=LANES)

    threads = [threading.Thread(target=send, args=(mode,)) for mode in MODES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_the_limit_holds_over_both(world: Limiting, tallies: dict[str, Tally]) -> None:
    assert {mode: tally.total for mode, tally in tallies.items()} == dict.fromkeys(MODES, MESSAGES)
    accepted = [recipient for tally in tallies.values() for recipient in tally.accepted]
    # Those that had got past RCPT when the account was suspended are refused at the end.
    assert MOST - len(MODES) * LANES <= len(accepted) <= MOST
    assert world.servers[ONE].amounts(f"sasl_username={ALICE}")["small"] == MOST
    world.wait_for_mail(accepted)


def test_both_refuse_what_was_too_much_through_the_two_of_them(tallies: dict[str, Tally]) -> None:
    assert all(tally.total - len(tally.accepted) > MESSAGES - MOST - 1 for tally in tallies.values())


def test_the_suspension_is_told_once_by_one_of_them(world: Limiting, tallies: dict[str, Tally]) -> None:
    wait_until(
        lambda: is_refused(world, ALICE, ONE) and is_refused(world, ALICE, TWO), "both to know of the suspension"
    )
    wait_until(lambda: bool(world.notifications()), "the notification", seconds=KNOWN_SECONDS)
    later = world.new_recipients(2)
    for mode, recipient in zip(MODES, later, strict=True):
        assert world.send(BOB, recipient, mode=mode).code == 250
    world.wait_for_mail(later)
    (notification,) = world.notifications()
    assert ALICE in notification


def test_what_an_operator_does_at_one_holds_at_the_other(world: Limiting) -> None:
    world.servers[ONE].order("suspend", BOB, "--why", "on leave")
    wait_until(lambda: is_refused(world, BOB, TWO), "the suspension to hold", seconds=KNOWN_SECONDS)
    world.servers[TWO].order("resume", BOB, "--why", "is back")
    wait_until(lambda: not is_refused(world, BOB, ONE), "the return to hold", seconds=KNOWN_SECONDS)


def is_refused(world: Limiting, login: str, mode: str) -> bool:
    """Ask whether a recipient of this login's would be refused for good."""
    asked = {"sasl_username": login, "sender": login, "recipient": "somebody@elsewhere.example"}
    return world.servers[mode].ask(**asked).startswith("REJECT")
