"""The policy server never becomes the outage: while it is away mail goes on, and the limits are back with it.

The example that is shipped decides what Postfix does then: timeout=3s, try_limit=1, request_limit=1, default_action=DUNNO.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.mail.conftest import stop_like_ctrl_c
from tests.mail.limiting import ALICE, Lane, Limiting
from tests.support.policy_server import PolicyServer
from tests.support.processes import open_folder, wait_until

MODE = "counting"
LIMIT = """
[[policyd.limit]]
name = "messages"
per = "sasl_username"
count = "messages"
limit = "1000/1h"
"""
OWNER = f"sasl_username={ALICE}"
TRIES = 4


@pytest.fixture(scope="module")
def world() -> Iterator[Limiting]:
    with open_folder() as folder:
        before = signal.signal(signal.SIGTERM, stop_like_ctrl_c)
        with Limiting(folder, {"fresh": "", MODE: LIMIT}) as started:
            yield started
        signal.signal(signal.SIGTERM, before)


def answers_nothing(server: PolicyServer) -> AbstractContextManager[None]:
    return server.stopped()


@contextmanager
def ended(server: PolicyServer) -> Iterator[None]:
    server.stop()
    try:
        yield
    finally:
        server.start()


@contextmanager
def killed(server: PolicyServer) -> Iterator[None]:
    """Have it killed, so that its socket stays and nobody listens there."""
    server.kill()
    assert server.socket_path.exists()
    try:
        yield
    finally:
        server.start()


AWAY = {"answers-nothing": answers_nothing, "ended": ended, "killed": killed}


@pytest.mark.parametrize("away", AWAY)
def test_mail_goes_on_while_it_is_away_and_is_counted_again_afterwards(world: Limiting, away: str) -> None:
    server = world.servers[MODE]
    before, during = world.new_recipients(1), world.new_recipients(2)
    assert world.send(ALICE, *before, mode=MODE).code == 250
    assert server.amounts(OWNER)["messages"] > 0
    with AWAY[away](server):
        assert world.send(ALICE, *during, mode=MODE).code == 250
        world.wait_for_mail([*before, *during])
    wait_until(server.is_serving, "it to be back")
    counted = server.amounts(OWNER)["messages"]
    (recipient,) = world.new_recipients(1)

    def is_counted() -> bool:
        assert world.send(ALICE, recipient, mode=MODE).code == 250
        return server.amounts(OWNER)["messages"] > counted

    wait_until(is_counted, "messages to be counted again")


@pytest.mark.parametrize("away", ["ended", "killed"])
def test_a_session_that_was_open_over_a_restart_is_counted_on(world: Limiting, away: str) -> None:
    # A question that takes longer than 3 s, as it may on a busy machine, is the end of it for a session: the next one is tried.
    assert any(is_counted_on(world, away) for _ in range(TRIES))


def is_counted_on(world: Limiting, away: str) -> bool:
    """Say whether the policy server counts a session again, once it is back."""
    server = world.servers[MODE]
    with world.submission(ALICE, mode=MODE) as session:
        lane = Lane(session, ALICE)
        assert lane.send(*world.new_recipients(1)).code == 250
        counted = server.amounts(OWNER)["messages"]
        with AWAY[away](server):
            assert lane.send(*world.new_recipients(1)).code == 250
        assert lane.send(*world.new_recipients(1)).code == 250
        return server.amounts(OWNER)["messages"] == counted + 1


def test_postfix_complained_of_nobody_else(world: Limiting) -> None:
    warnings = world.postfix.warnings()
    assert warnings
    assert [line for line in warnings if "policyd-counting.sock" not in line] == []
