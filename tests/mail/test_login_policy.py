"""A real Dovecot asks our auth-policy server, configured as examples/dovecot says: what comes of it for who logs in over IMAP."""

from __future__ import annotations

import asyncio
import base64
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailward.model.limits import Charging, Outcome, Window
from mailward.policy.logins import DENIED_TEXT, SUSPENDED_TEXT, Attempt, Cause, LoginRules, Result, report
from policyd import dovecot
from tests.policyd.login_server import API_KEY, LoginServer, ServerThread
from tests.support.dovecot_imap import ImapDovecot
from tests.support.processes import free_port, open_folder, wait_until

ALICE, BOB = "alice@example.com", "bob@example.com"
RIGHT = "correct-horse"
HOME, ELSEWHERE = "192.0.2.7", "198.51.100.7"
RULES = LoginRules(failures=(Window(4, 3600.0),), networks=(Window(2, 3600.0),), tarpit=1)


class World:
    """A Dovecot for all tests of this file, and before each of them a server that remembers nothing."""

    def __init__(self, imap: ImapDovecot, port: int) -> None:
        self.imap = imap
        self.thread = ServerThread(LoginServer(RULES), port)

    @property
    def server(self) -> LoginServer:
        return self.thread.server

    def log_in(self, login: str, password: str, client: str) -> str:
        """Try to log in; return what Dovecot says where it refuses, once its report has come."""
        before = self.reports()
        said = self.imap.login(login, password, client)
        wait_until(lambda: self.reports() > before, "Dovecot's report of a login", seconds=60)
        return said

    def reports(self, *results: Result) -> int:
        numbers = self.server.numbers.of
        return sum(numbers[dovecot.REPORTS, result.value] for result in results or Result)

    def answered(self, cause: Cause) -> int:
        return self.server.numbers.of[dovecot.ANSWERS, cause.value]


@contextmanager
def dovecot_on(port: int, *, reject_on_fail: bool = False) -> Iterator[ImapDovecot]:
    with open_folder() as folder:
        imap = ImapDovecot(
            folder / "dovecot", dict.fromkeys((ALICE, BOB), RIGHT), port, API_KEY, reject_on_fail=reject_on_fail
        )
        imap.start()
        try:
            yield imap
        finally:
            imap.stop()


@pytest.fixture(scope="module")
def imap_and_port() -> Iterator[tuple[ImapDovecot, int]]:
    port = free_port()
    with dovecot_on(port) as imap:
        yield imap, port


@pytest.fixture
def world(imap_and_port: tuple[ImapDovecot, int]) -> Iterator[World]:
    world = World(*imap_and_port)
    world.thread.start()
    try:
        yield world
    finally:
        world.thread.stop()


def test_brute_force_is_slowed_then_denied_while_the_owner_logs_in_from_where_she_has_been(world: World) -> None:
    assert world.log_in(ALICE, RIGHT, HOME) == ""
    said, seconds = [], []
    for number in range(5):
        began = time.monotonic()
        said.append(world.log_in(ALICE, f"guess {number}", ELSEWHERE))
        seconds.append(time.monotonic() - began)
    assert [DENIED_TEXT in each for each in said] == [False] * 4 + [True]
    assert world.answered(Cause.SLOWED) == 2
    assert min(seconds[2:4]) >= 0.9, "Dovecot waits as long as it was told to"
    assert world.reports(Result.REFUSED) == 1, "what was denied is known to be our doing"
    assert DENIED_TEXT in world.log_in(ALICE, RIGHT, ELSEWHERE), "a guess that would be right is not even compared"
    assert world.log_in(ALICE, RIGHT, HOME) == ""


def test_a_suspended_account_cannot_log_in_until_it_is_resumed(world: World) -> None:
    world.server.keeper.suspend(ALICE)
    assert SUSPENDED_TEXT in world.log_in(ALICE, RIGHT, HOME)
    assert SUSPENDED_TEXT in world.log_in("Alice@Example.COM", RIGHT, HOME)
    assert world.log_in(BOB, RIGHT, HOME) == ""
    world.server.keeper.accounts.clear()
    assert world.log_in(ALICE, RIGHT, HOME) == ""


def test_a_phone_with_an_old_password_denies_nobody_anything(world: World) -> None:
    for _ in range(6):
        assert world.log_in(ALICE, "the old one", ELSEWHERE)
    assert world.reports(Result.FAILED) == 6
    assert world.log_in(ALICE, RIGHT, ELSEWHERE) == ""
    assert world.log_in(BOB, RIGHT, ELSEWHERE) == ""
    assert world.answered(Cause.SLOWED) == 0


def test_a_login_from_more_networks_than_one_person_has_is_told(world: World) -> None:
    for client in (HOME, ELSEWHERE, "2001:db8::7"):
        assert world.log_in(ALICE, RIGHT, client) == ""
    assert world.server.keeper.told == [(ALICE, 3)]


def test_dovecot_brings_the_key(world: World) -> None:
    assert world.log_in(ALICE, RIGHT, HOME) == ""
    world.server.api_key = "another"
    assert world.imap.login(ALICE, RIGHT, HOME) == ""
    assert world.server.numbers.of[dovecot.REFUSED, "key"] > 0


def test_while_policyd_is_away_dovecot_decides_alone(world: World) -> None:
    world.server.keeper.suspend(ALICE)
    world.thread.stop()
    assert world.imap.login(ALICE, RIGHT, ELSEWHERE) == ""
    assert "AUTHENTICATIONFAILED" in world.imap.login(ALICE, "wrong", ELSEWHERE)
    world.thread.start()
    # Dovecot tries a server that was away less and less often: it may be a minute until it asks again.
    wait_until(lambda: SUSPENDED_TEXT in world.imap.login(ALICE, RIGHT, ELSEWHERE), "Dovecot asking again", seconds=150)


def test_while_policyd_is_slow_dovecot_decides_alone(world: World) -> None:
    async def slow(charging: Charging) -> Outcome | None:
        await asyncio.sleep(4)
        return world.server.store.charge([charging])[0]

    failures = [report(Attempt(ALICE, str(number), ELSEWHERE), Result.FAILED, RULES) for number in range(4)]
    world.server.store.charge(failures)
    assert DENIED_TEXT in world.log_in(ALICE, RIGHT, ELSEWHERE)
    world.server.charge = slow
    assert world.imap.login(ALICE, RIGHT, ELSEWHERE) == ""


def test_with_reject_on_fail_nobody_logs_in_while_policyd_is_away() -> None:
    with dovecot_on(free_port(), reject_on_fail=True) as imap:
        assert "AUTHENTICATIONFAILED" in imap.login(ALICE, RIGHT, HOME)


def test_the_shipped_configuration_opens_the_api_that_ends_sessions(world: World) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{world.imap.doveadm_port}/doveadm/v1", method="GET")
    request.add_header("Authorization", "X-Dovecot-API " + base64.b64encode(b"k" * 32).decode())
    with urllib.request.urlopen(request, timeout=60) as reply:
        assert b"kick" in reply.read()


def test_both_versions_say_the_same() -> None:
    folder = Path(__file__).parents[2] / "examples" / "dovecot"
    old, new = ((folder / f"auth-policy-{version}.conf").read_text() for version in ("2.3", "2.4"))
    for setting in ("auth_policy_server_url", "auth_policy_reject_on_fail", "!include_try"):
        (one,) = [line for line in old.splitlines() if line.startswith(setting)]
        (other,) = [line for line in new.splitlines() if line.startswith(setting)]
        assert one == other
