"""A real Dovecot ends a suspended account's sessions, and forgets what it remembers of its password."""

from __future__ import annotations

import asyncio
import imaplib
from collections.abc import Iterator
from contextlib import suppress

import pytest

from mailward.adapters.account_changes import change_account
from mailward.policy import incidents
from policyd.doveadm import Doveadm, Kicked, KickError
from policyd.kicking import KICKS
from tests.policyd.incident_support import ALICE, START, Machine, Store
from tests.support.dovecot_doveadm import DoveadmDovecot
from tests.support.processes import open_folder, wait_until

BOB = "bob@example.com"
KEY = "a key, with: odd characters"
PASSWORDS = {ALICE: "pass", BOB: "bob's"}


@pytest.fixture(scope="module")
def dovecot() -> Iterator[DoveadmDovecot]:
    with open_folder() as folder:
        started = DoveadmDovecot(folder / "dovecot", PASSWORDS, KEY)
        started.program.start()
        try:
            yield started
        finally:
            started.program.stop()


def is_open(session: imaplib.IMAP4) -> bool:
    try:
        return session.noop()[0] == "OK"
    except (imaplib.IMAP4.error, OSError):
        return False


def close(*sessions: imaplib.IMAP4) -> None:
    for session in sessions:
        with suppress(OSError):
            session.shutdown()


def kick(dovecot: DoveadmDovecot, account: str) -> Kicked:
    return asyncio.run(Doveadm(dovecot.url, KEY, seconds=60).kick(account))


def test_every_session_of_the_account_ends_and_no_others(dovecot: DoveadmDovecot) -> None:
    alice = [dovecot.session(ALICE, "pass"), dovecot.session(ALICE, "pass")]
    bob = dovecot.session(BOB, "bob's")
    assert all(map(is_open, [*alice, bob]))
    assert kick(dovecot, ALICE) is Kicked.KICKED
    wait_until(lambda: not any(map(is_open, alice)), f"the sessions end\n{dovecot.log()}", seconds=60)
    assert is_open(bob)
    close(*alice, bob)


def test_who_has_no_session_is_no_error(dovecot: DoveadmDovecot) -> None:
    assert kick(dovecot, "nobody@example.com") is Kicked.NOBODY


def test_what_dovecot_remembers_of_the_password_is_forgotten_where_the_api_can_do_it(dovecot: DoveadmDovecot) -> None:
    before = dovecot.log().count("auth cache flush")
    assert kick(dovecot, BOB) is Kicked.NOBODY
    if dovecot.version < (2, 4):
        wait_until(lambda: dovecot.log().count("auth cache flush") > before, "it is in the log", seconds=60)
    assert "Panic" not in dovecot.log()


@pytest.mark.parametrize("name", ["*", "?lice@example.com", "127.0.0.1", "0.0.0.0/0", "127.1", "0/0"])
def test_a_name_that_means_others_ends_nobodys_session(dovecot: DoveadmDovecot, name: str) -> None:
    session = dovecot.session(BOB, "bob's")
    assert kick(dovecot, name) is Kicked.REFUSED
    assert is_open(session)
    close(session)


def test_another_key_is_refused(dovecot: DoveadmDovecot) -> None:
    session = dovecot.session(BOB, "bob's")
    with pytest.raises(KickError, match="doveadm_api_key"):
        asyncio.run(Doveadm(dovecot.url, "another", seconds=2).kick(BOB))
    assert is_open(session)
    close(session)


def test_an_operators_suspension_ends_the_sessions_once_dovecot_is_back(dovecot: DoveadmDovecot) -> None:
    """What `mailward limits suspend` writes is seen in the store; a Dovecot that is away is asked again."""
    store = Store()
    machine = Machine(store, kickers=[Doveadm(dovecot.url, KEY, seconds=60)])
    dovecot.program.stop()

    async def dialogue() -> None:
        running = asyncio.create_task(machine.keeper.run())
        change_account(store, ALICE, lambda account: incidents.suspend(account, "root", "stolen", START))
        while not machine.numbers[KICKS, "failed"]:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(dovecot.program.start)
        session = await asyncio.to_thread(dovecot.session, ALICE, "pass")
        while await asyncio.to_thread(is_open, session):
            await asyncio.sleep(0.05)
        close(session)
        while "kick" not in store.actions():
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await machine.keeper.close()

    asyncio.run(asyncio.wait_for(dialogue(), 120))
    assert store.actions() == ["suspend", "kick"]
    assert machine.numbers[KICKS, "kicked"] == 1
