"""One keeper for a process's life: what it knows and has begun outlives a reload, and its end counts nothing twice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from mailward.model.accounts import Account, AuditEntry
from mailward.model.errors import StoreError, StoreFailure
from policyd.doveadm import Doveadm, Kicked
from policyd.keeper import ACCOUNTS_SUSPENDED, INCIDENTS_OPEN, KeeperRules
from policyd.kicking import Kicker
from policyd.notice import News
from policyd.notify import Channel, Command
from policyd.telling import NOTIFICATIONS
from tests.policyd.incident_support import (
    ALICE,
    GUARD_SECONDS,
    Clock,
    Events,
    Kicks,
    Machine,
    Store,
    Told,
    notice,
    turns,
    until,
)
from tests.policyd.incident_support import settle as settled
from tests.policyd.test_keeper import order, play

BOB = "bob@example.com"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    made.install(monkeypatch)
    return made


class SlowStore(Store):
    """Commits, and is slow to say so: until `answers` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.has_committed = threading.Event()
        self.answers = threading.Event()

    def swap(self, old: Account, new: Account, entries: Sequence[AuditEntry] = ()) -> bool:
        is_swapped = super().swap(old, new, entries)
        self.has_committed.set()
        assert self.answers.wait(GUARD_SECONDS)
        return is_swapped


async def until_set(event: threading.Event) -> None:
    while not event.is_set():
        await asyncio.sleep(0.005)


def configure(
    machine: Machine, *channels: Channel, kickers: Sequence[Kicker] = (), quiet: float = 3600.0, settle: float = 10.0
) -> None:
    rules = KeeperRules(quiet, settle, machine="mx.example.net", turn_seconds=0.01)
    machine.keeper.configure(rules, channels, kickers)


@pytest.mark.parametrize("is_cancelled", [True, False], ids=["its turns are cancelled", "it is closed"])
def test_hits_whose_commit_is_not_answered_yet_are_counted_once(is_cancelled: bool) -> None:
    async def dialogue() -> None:
        store = SlowStore()
        machine = Machine(store)
        running = asyncio.create_task(machine.keeper.run())
        machine.keeper.hit(ALICE, "account-recipients", 50, hits=30)
        await until_set(store.has_committed)
        if is_cancelled:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        closing = asyncio.create_task(machine.keeper.close())
        await settled()
        store.answers.set()
        await closing
        await asyncio.gather(running, return_exceptions=True)
        alice = store.account(ALICE)
        assert alice.incident is not None
        assert alice.incident.hits == 30
        assert alice.suspension is None
        assert machine.events.names() == ["incident-opened"]

    play(dialogue())


def test_hits_that_come_while_the_last_turn_ends_are_written() -> None:
    async def dialogue() -> None:
        store = SlowStore()
        machine = Machine(store)
        running = asyncio.create_task(machine.keeper.run())
        machine.keeper.hit(ALICE, "account-recipients", 0)
        await until_set(store.has_committed)
        machine.keeper.hit(BOB, "account-recipients", 0)
        closing = asyncio.create_task(machine.keeper.close())
        await settled()
        store.answers.set()
        await closing
        await running
        assert set(store.accounts()) == {ALICE, BOB}

    play(dialogue())


def test_a_store_that_hangs_at_the_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def dialogue() -> None:
        monkeypatch.setattr("policyd.keeper.WRITE_SECONDS", 0.1)
        store = SlowStore()
        machine = Machine(store)
        machine.keeper.hit(ALICE, "account-recipients", 0)
        machine.keeper.hit(BOB, "account-recipients", 0)
        await machine.keeper.close()
        assert ("error", "hits-lost", {"hits": 1, "reason": "time-out"}) in machine.events
        store.answers.set()
        await settled()

    play(dialogue())


def test_the_gauges_stay_right_over_reloads(clock: Clock) -> None:
    async def dialogue() -> None:
        store = Store()
        machine = Machine(store)
        order(store, "suspend")
        machine.keeper.hit(BOB, "account-recipients", 0)
        for _ in range(3):
            configure(machine)
            await turns(machine)
        assert (machine.numbers[INCIDENTS_OPEN, ""], machine.numbers[ACCOUNTS_SUSPENDED, ""]) == (1, 1)
        order(store, "resume")
        await turns(machine)
        assert machine.numbers[ACCOUNTS_SUSPENDED, ""] == 0

    play(dialogue())


def test_a_reload_begins_with_the_next_turn_and_the_last_of_several_holds(clock: Clock) -> None:
    async def dialogue() -> None:
        store, old, skipped, new = Store(), Told(), Told(), Told()
        machine = Machine(store, old)
        machine.keeper.hit(ALICE, "account-recipients", 0)
        configure(machine, skipped, settle=0.0)
        configure(machine, new, settle=0.0, quiet=60.0)
        await turns(machine)
        assert (old.asked, skipped.asked, new.news()) == (0, 0, [News.OPENED])
        clock.now += 61
        await until(lambda: not machine.keeper.accounts, machine)
        assert new.news() == [News.OPENED, News.CLOSED]

    play(dialogue())


def test_hits_that_are_not_written_outlive_a_reload(clock: Clock) -> None:
    async def dialogue() -> None:
        store = Store()
        machine = Machine(store)
        store.is_away = True
        machine.keeper.hit(ALICE, "account-recipients", 0)
        await turns(machine)
        configure(machine)
        machine.keeper.hit(ALICE, "account-recipients", 0)
        await turns(machine)
        store.is_away = False
        await turns(machine)
        incident = store.account(ALICE).incident
        assert incident is not None
        assert incident.hits == 2

    play(dialogue())


def test_who_was_told_is_not_told_again_after_a_reload_and_who_was_not_is(clock: Clock) -> None:
    async def dialogue() -> None:
        store, mail, webhook = Store(), Told(), Told("webhook")
        webhook.failures = 10_000
        machine = Machine(store, mail, webhook, settle=0.0)
        machine.keeper.hit(ALICE, "account-recipients", 0)
        await until(lambda: webhook.asked == 1, machine)
        mail_again, webhook_mended = Told(), Told("webhook")
        configure(machine, mail_again, webhook_mended, settle=0.0)
        await until(lambda: bool(webhook_mended.notices), machine)
        for _ in range(20):
            clock.now += 60
            await turns(machine, rounds=1)
        assert (mail.news(), mail_again.news(), webhook_mended.news()) == ([News.OPENED], [], [News.OPENED])
        assert machine.numbers[NOTIFICATIONS, "sent"] == 2

    play(dialogue())


def test_who_was_kicked_is_kicked_again_after_a_reload_through_another_way_only(clock: Clock) -> None:
    async def dialogue() -> None:
        store, same, other = Store(), Kicks(), Kicks()
        machine = Machine(store, kickers=[same])
        order(store, "suspend")
        await until(lambda: bool(same.kicked), machine)
        configure(machine, kickers=[same, other])
        await until(lambda: bool(other.kicked), machine)
        await turns(machine, rounds=10)
        assert (same.kicked, other.kicked) == ([ALICE], [ALICE])

    play(dialogue())


def test_a_kick_that_failed_is_tried_at_once_through_a_way_that_was_mended(clock: Clock) -> None:
    async def dialogue() -> None:
        store, broken, mended = Store(), Kicks(), Kicks()
        broken.failures, mended.result = 10_000, Kicked.NOBODY
        machine = Machine(store, kickers=[broken])
        order(store, "suspend")
        await until(lambda: broken.failures < 10_000, machine)
        configure(machine, kickers=[mended])
        await until(lambda: bool(mended.kicked), machine)

    play(dialogue())


def test_the_same_doveadm_read_again_is_the_same_way() -> None:
    assert Doveadm("http://127.0.0.1:8080/", "key") == Doveadm("http://127.0.0.1:8080/", "key")


def blocked(work: Callable[[threading.Event], object]) -> None:
    """Run a dialogue whose event loop has lent its only thread to somebody who waits for the event."""
    is_over = threading.Event()

    async def dialogue() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        hanging = loop.run_in_executor(None, is_over.wait, GUARD_SECONDS)
        try:
            await work(is_over)  # type: ignore[misc]
        finally:
            is_over.set()
            await hanging

    play(dialogue())


def test_whoever_hangs_in_other_threads_delays_no_suspension() -> None:
    async def suspend(is_over: threading.Event) -> None:
        store = Store()
        machine = Machine(store)
        machine.keeper.hit(ALICE, "account-surge", 1)
        await machine.keeper.turn()
        assert machine.keeper.accounts[ALICE].suspension is not None
        assert not is_over.is_set()

    blocked(suspend)


def test_notices_are_told_in_threads_of_their_own() -> None:
    async def tell(is_over: threading.Event) -> None:
        await Command(("/bin/true",), Events()).send(notice())
        assert not is_over.is_set()

    blocked(tell)


def test_a_failure_is_met_even_where_it_is_swallowed(clock: Clock) -> None:
    async def dialogue() -> None:
        store, mail, kicks = Store(), Told(), Kicks()
        machine = Machine(store, mail, kickers=[kicks], settle=0.0)
        machine.keeper.hit(ALICE, "account-recipients", 0)
        await machine.keeper.turn()  # what it begins has yet to ask the store
        store.failure = StoreError(StoreFailure.DAMAGED, "set aside")
        store.is_away = True
        await settled()
        assert [error.detail for error in machine.failures] == ["set aside"]

    play(dialogue())
