"""Incidents as several machines with one store see them: opened, told once, suspended, kicked, closed, told again."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

import policyd.keeper
from mailward.adapters.account_changes import change_account
from mailward.model.accounts import AUTOMATIC, Account, Raise
from mailward.policy import incidents
from mailward.policy.incidents import LOGIN_NETWORKS, TELLING_SECONDS
from policyd.doveadm import Kicked
from policyd.keeper import ACCOUNTS_SUSPENDED, INCIDENTS_OPEN, INCIDENTS_OPENED
from policyd.kicking import AGAIN_SECONDS, KICKS
from policyd.notice import News
from policyd.telling import MAX_TRIES, NOTIFICATIONS
from tests.policyd.incident_support import ALICE, START, Clock, Kicks, Machine, Store, Told, settle, turns, until

QUIET = 3601.0  # longer than the rules say


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    made.install(monkeypatch)
    return made


def play(dialogue: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(dialogue, 120))


def order(store: Store, what: str, name: str = ALICE, at: float = START) -> None:
    """Do what `mailward limits suspend` and `resume` do."""
    change = incidents.suspend if what == "suspend" else incidents.resume
    change_account(store, name, lambda account: change(account, "root", "stolen", at))


def test_an_incident_is_told_when_it_opens_and_when_it_closes_and_once_each(clock: Clock) -> None:
    async def dialogue() -> None:
        store, mail = Store(), Told()
        machine = Machine(store, mail)
        machine.keeper.hit(ALICE, "account-recipients", 50)
        await turns(machine)
        assert store.actions() == ["incident-opened"]
        assert machine.numbers[INCIDENTS_OPENED, ""] == machine.numbers[INCIDENTS_OPEN, ""] == 1
        assert not mail.notices, "it settles first"
        for _ in range(40):
            clock.now += 1
            machine.keeper.hit(ALICE, "account-recipients", 50)
            await turns(machine, rounds=1)
        assert mail.news() == [News.OPENED]
        assert mail.notices[0].incident.cause == "account-recipients"
        clock.now += QUIET
        await until(lambda: not machine.keeper.accounts, machine)
        await turns(machine)
        assert mail.news() == [News.OPENED, News.CLOSED]
        assert mail.notices[1].incident.hits == 41
        assert store.accounts() == {}
        assert machine.numbers[INCIDENTS_OPEN, ""] == 0
        assert machine.numbers[NOTIFICATIONS, "sent"] == 2

    play(dialogue())


def test_of_many_machines_one_tells(clock: Clock) -> None:
    async def dialogue() -> None:
        store, mail = Store(), Told()
        machines = [Machine(store, mail) for _ in range(5)]
        for machine in machines:
            machine.keeper.hit(ALICE, "account-recipients", 0)
        await turns(*machines)
        clock.now += 11
        await until(lambda: bool(mail.notices), *machines)
        await turns(*machines, rounds=10)
        assert mail.news() == [News.OPENED]
        assert store.account(ALICE).incident is not None
        clock.now += QUIET
        await until(lambda: len(mail.notices) > 1, *machines)
        await turns(*machines, rounds=10)
        assert mail.news() == [News.OPENED, News.CLOSED]
        assert store.actions() == ["incident-opened", "incident-closed"]
        assert sum(machine.numbers[INCIDENTS_OPENED, ""] for machine in machines) == 1
        assert mail.notices[1].incident.hits == 5

    play(dialogue())


def test_a_suspension_within_seconds_is_told_with_the_opening(clock: Clock) -> None:
    async def dialogue() -> None:
        store, mail = Store(), Told()
        machine = Machine(store, mail)
        machine.keeper.hit(ALICE, "account-surge", 2)
        await turns(machine)
        clock.now += 2
        machine.keeper.hit(ALICE, "account-surge", 2)
        await until(lambda: bool(mail.notices), machine)
        clock.now += 60
        await turns(machine)
        assert mail.news() == [News.OPENED]
        suspension = mail.notices[0].suspension
        assert suspension is not None
        assert suspension.by == AUTOMATIC
        assert machine.numbers[ACCOUNTS_SUSPENDED, ""] == 1
        assert ("critical", "suspend") in [(level, event) for level, event, _ in machine.events]

    play(dialogue())


def test_a_suspension_that_comes_later_is_told_and_so_is_the_next_one(clock: Clock) -> None:
    async def dialogue() -> None:
        store, mail = Store(), Told()
        machine = Machine(store, mail)
        machine.keeper.hit(ALICE, "account-recipients", 2)
        await turns(machine)
        clock.now += 11
        await until(lambda: len(mail.notices) == 1, machine)
        machine.keeper.hit(ALICE, "account-recipients", 2)
        await until(lambda: len(mail.notices) == 2, machine)
        clock.now += 2 * QUIET
        await turns(machine)
        assert mail.news() == [News.OPENED, News.SUSPENDED], "it stays open for as long as it is suspended"
        order(store, "resume", at=clock.now)
        await turns(machine)
        machine.keeper.hit(ALICE, "account-recipients", 2, hits=2)
        await until(lambda: len(mail.notices) == 3, machine)
        assert mail.news()[2] is News.SUSPENDED
        order(store, "resume", at=clock.now)
        clock.now += QUIET
        await until(lambda: len(mail.notices) == 4, machine)
        assert mail.news()[3] is News.CLOSED

    play(dialogue())


def test_what_fails_is_tried_again_by_whoever_has_taken_it(clock: Clock) -> None:
    async def dialogue() -> None:
        store, broken, works = Store(), Told(), Told()
        broken.failures = 3
        first, second = Machine(store, broken), Machine(store, works)
        first.keeper.hit(ALICE, "account-recipients", 0)
        await turns(first)
        clock.now += 11
        await until(lambda: broken.asked == 1, first)
        for _ in range(60):
            clock.now += 2
            await turns(first, second, rounds=1)
        assert broken.news() == [News.OPENED]
        assert not works.notices
        assert first.numbers[NOTIFICATIONS, "failed"] == 3
        assert first.events.names().count("notification-failed") == 3

    play(dialogue())


def test_who_dies_while_telling_leaves_it_to_the_others(clock: Clock) -> None:
    async def dialogue() -> None:
        store, stuck, works = Store(), Told(), Told()
        stuck.gate = asyncio.Event()
        first, second = Machine(store, stuck), Machine(store, works)
        first.keeper.hit(ALICE, "account-recipients", 0)
        await turns(first)
        clock.now += 11
        await until(lambda: bool(stuck.notices), first)
        await first.keeper._telling.close(0)  # it has sent, and not noted
        clock.now += TELLING_SECONDS - 5
        await turns(second)
        assert not works.notices
        clock.now += 10
        await until(lambda: bool(works.notices), second)
        await turns(second)
        assert works.news() == [News.OPENED]

    play(dialogue())


def test_a_broken_way_keeps_no_other_from_telling_and_is_given_up(clock: Clock) -> None:
    async def dialogue() -> None:
        store, mail, webhook = Store(), Told(), Told("webhook")
        webhook.failures = 10_000
        machine = Machine(store, mail, webhook)
        machine.keeper.hit(ALICE, "account-recipients", 0)
        await turns(machine)
        for _ in range(400):
            clock.now += 30
            machine.keeper.hit(ALICE, "account-recipients", 0)
            await turns(machine, rounds=1)
            if machine.numbers[NOTIFICATIONS, "given-up"]:
                break
        assert mail.news() == [News.OPENED]
        assert webhook.asked == MAX_TRIES
        clock.now += QUIET
        await until(lambda: len(mail.notices) == 2, machine)
        assert mail.news() == [News.OPENED, News.CLOSED]

    play(dialogue())


def test_while_one_way_is_tried_again_the_others_hear_what_comes_next(clock: Clock) -> None:
    async def dialogue() -> None:
        store, mail, webhook = Store(), Told(), Told("webhook")
        webhook.failures = 1
        machine = Machine(store, mail, webhook)
        machine.keeper.hit(ALICE, "account-recipients", 2)
        await turns(machine)
        clock.now += 11
        await until(lambda: webhook.asked == 1, machine)
        machine.keeper.hit(ALICE, "account-recipients", 2)
        await until(lambda: len(mail.notices) == 2, machine)
        await turns(machine)
        assert mail.news() == [News.OPENED, News.SUSPENDED]
        assert webhook.news() == [News.SUSPENDED]

    play(dialogue())


def test_where_nobody_can_be_told_the_opening_waits_and_comes_before_the_closing(clock: Clock) -> None:
    async def dialogue() -> None:
        store, mail = Store(), Told()
        mail.failures = 20
        machine = Machine(store, mail)
        machine.keeper.hit(ALICE, "account-recipients", 0)
        for _ in range(300):
            clock.now += 60
            await turns(machine, rounds=1)
            if not machine.keeper.accounts:
                break
        assert mail.news() == [News.OPENED, News.CLOSED]
        assert machine.numbers[NOTIFICATIONS, "given-up"] == 0

    play(dialogue())


def test_an_incident_that_opens_again_while_its_closing_is_told_is_told_to_be_open(clock: Clock) -> None:
    async def dialogue() -> None:
        store, mail = Store(), Told()
        machine = Machine(store, mail)
        machine.keeper.hit(ALICE, "account-recipients", 0)
        await turns(machine)
        clock.now += 11
        await until(lambda: len(mail.notices) == 1, machine)
        await turns(machine)
        mail.gate = asyncio.Event()
        clock.now += QUIET
        await until(lambda: len(mail.notices) == 2, machine)
        machine.keeper.hit(ALICE, "account-recipients", 0)
        await turns(machine)
        mail.gate.set()
        await settle()
        clock.now += 11
        await until(lambda: len(mail.notices) == 3, machine)
        assert mail.news() == [News.OPENED, News.CLOSED, News.OPENED]

    play(dialogue())


def test_without_anybody_to_tell_incidents_open_suspend_and_close(clock: Clock) -> None:
    async def dialogue() -> None:
        store = Store()
        machine = Machine(store)
        machine.keeper.hit(ALICE, "account-surge", 1)
        await turns(machine)
        assert machine.keeper.accounts[ALICE].suspension is not None
        order(store, "resume")
        clock.now += QUIET
        await until(lambda: not machine.keeper.accounts, machine)
        assert store.actions() == ["incident-opened", "suspend", "resume", "incident-closed"]
        assert machine.numbers[NOTIFICATIONS, "sent"] == 0

    play(dialogue())


def test_who_is_suspended_is_kicked_through_every_way_and_once(clock: Clock) -> None:
    async def dialogue() -> None:
        store, here, there = Store(), Kicks(), Kicks()
        there.result = Kicked.NOBODY
        machine = Machine(store, kickers=[here, there])
        await turns(machine)
        order(store, "suspend")
        await until(lambda: bool(here.kicked and there.kicked), machine)
        clock.now += AGAIN_SECONDS / 2
        await turns(machine, rounds=10)
        assert (here.kicked, there.kicked) == ([ALICE], [ALICE])
        assert machine.numbers[KICKS, "kicked"] == machine.numbers[KICKS, "nobody"] == 1
        assert store.actions() == ["suspend", "kick"]
        order(store, "resume")
        await turns(machine)
        machine.keeper.hit(ALICE, "account-surge", 1)
        await until(lambda: len(here.kicked) == 2, machine)

    play(dialogue())


def test_who_came_in_while_dovecot_did_not_ask_yet_is_kicked_a_minute_after_the_start(clock: Clock) -> None:
    async def dialogue() -> None:
        store, kicks = Store(), Kicks()
        order(store, "suspend")
        machine = Machine(store, kickers=[kicks])
        await until(lambda: bool(kicks.kicked), machine)
        for seconds, times in ((AGAIN_SECONDS - 1, 1), (1, 2), (1000, 2)):
            clock.now += seconds
            await turns(machine, rounds=10)
            assert len(kicks.kicked) == times

    play(dialogue())


def test_a_kick_that_fails_is_tried_again_through_that_way(clock: Clock) -> None:
    async def dialogue() -> None:
        store, away, works = Store(), Kicks(), Kicks()
        away.failures = 5
        machine = Machine(store, kickers=[away, works])
        order(store, "suspend")
        for _ in range(int(AGAIN_SECONDS) - 5):
            await turns(machine, rounds=1)
            clock.now += 1
        assert (away.kicked, works.kicked) == ([ALICE], [ALICE])
        assert machine.numbers[KICKS, "failed"] == 5
        assert machine.events.names().count("kick-failed") == 1, "the rest is counted"

    play(dialogue())


def test_a_name_that_means_others_is_kicked_by_nobody_and_an_operator_is_told(clock: Clock) -> None:
    async def dialogue() -> None:
        store, kicks = Store(), Kicks()
        kicks.result = Kicked.REFUSED
        machine = Machine(store, kickers=[kicks])
        order(store, "suspend", "*")
        await until(lambda: bool(kicks.kicked), machine)
        await turns(machine)
        assert ("critical", "kick-refused") in [(level, event) for level, event, _ in machine.events]
        assert machine.numbers[KICKS, "refused"] == 1

    play(dialogue())


def test_after_a_restart_the_gauges_are_right_and_the_suspended_are_kicked(clock: Clock) -> None:
    async def dialogue() -> None:
        store = Store()
        before = Machine(store)
        before.keeper.hit(ALICE, "account-surge", 1)
        before.keeper.hit("bob@example.com", "account-recipients", 0)
        await turns(before)
        order(store, "suspend", "carol@example.com")
        kicks = Kicks()
        after = Machine(store, kickers=[kicks])
        await after.keeper.turn()
        assert after.numbers[INCIDENTS_OPEN, ""] == 2
        assert after.numbers[ACCOUNTS_SUSPENDED, ""] == 2
        assert after.keeper.accounts["carol@example.com"].suspension is not None
        await until(lambda: len(kicks.kicked) == 2, after)
        assert sorted(kicks.kicked) == [ALICE, "carol@example.com"]
        order(store, "resume", "carol@example.com")
        await turns(after)
        assert after.numbers[ACCOUNTS_SUSPENDED, ""] == 1

    play(dialogue())


def test_while_the_store_is_away_hits_wait_and_what_was_known_holds(clock: Clock) -> None:
    async def dialogue() -> None:
        store = Store()
        machine = Machine(store)
        order(store, "suspend", "carol@example.com")
        await turns(machine)
        store.is_away = True
        for _ in range(10):
            machine.keeper.hit(ALICE, "account-recipients", 0)
            machine.keeper.many_networks(ALICE, 12)
            await turns(machine, rounds=1)
        assert list(machine.keeper.accounts) == ["carol@example.com"]
        store.is_away = False
        await turns(machine)
        alice = store.account(ALICE)
        assert alice.incident is not None
        assert alice.incident.hits == 10
        assert alice.is_tightened
        assert machine.events.names().count("accounts-away") == machine.events.names().count("accounts-back") == 1

    play(dialogue())


def test_hits_that_come_while_others_are_not_taken_are_added_to_them(clock: Clock) -> None:
    async def dialogue() -> None:
        store = Store()
        machine = Machine(store)
        machine.keeper.hit(ALICE, "account-recipients", 0)
        store.is_away = True
        store.meanwhile = lambda: machine.keeper.hit(ALICE, "account-recipients", 0, hits=10)
        await turns(machine, rounds=1)
        store.is_away, store.meanwhile = False, None
        await turns(machine)
        incident = store.account(ALICE).incident
        assert incident is not None
        assert incident.hits == 11

    play(dialogue())


def test_hits_that_wait_are_bounded_and_those_beyond_are_told(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    async def dialogue() -> None:
        monkeypatch.setattr(policyd.keeper, "MAX_GATHERED", 100)
        store = Store()
        machine = Machine(store)
        for number in range(300):
            machine.keeper.hit(f"u{number}@example.com", "account-recipients", 0)
            machine.keeper.hit("u0@example.com", "account-recipients", 0)
        await turns(machine)
        assert len(store.accounts()) == 100
        first = store.account("u0@example.com").incident
        assert first is not None
        assert first.hits == 301
        assert ("error", "hits-dropped", {"hits": 200}) in machine.events

    play(dialogue())


def test_a_name_that_the_store_cannot_take_holds_up_nobody(clock: Clock) -> None:
    async def dialogue() -> None:
        store = Store()
        store.unwritable = "\udcff@example.com"
        machine = Machine(store)
        machine.keeper.hit(store.unwritable, "account-recipients", 0)
        machine.keeper.hit(ALICE, "account-recipients", 0)
        await turns(machine, rounds=1)
        assert list(machine.keeper.accounts) == [ALICE]
        assert machine.events.names().count("hits-lost") == 1

    play(dialogue())


def test_raises_end_when_their_time_is_over(clock: Clock) -> None:
    async def dialogue() -> None:
        store = Store()
        machine = Machine(store)
        raised = Raise(1000, 3600.0, START + 100)
        change_account(store, ALICE, lambda account: incidents.raise_limit(account, raised, "root", "mailing", START))
        await turns(machine)
        assert machine.keeper.accounts[ALICE].raises == (raised,)
        clock.now += 101
        await turns(machine)
        assert store.account(ALICE) == Account(ALICE)
        assert store.actions() == ["raise", "raise-ended"]
        assert not machine.keeper.accounts

    play(dialogue())


def test_logins_from_many_networks_open_an_incident_and_tighten_until_it_is_over(clock: Clock) -> None:
    async def dialogue() -> None:
        store, mail = Store(), Told()
        machine = Machine(store, mail)
        machine.keeper.many_networks(ALICE, 11)
        await turns(machine)
        assert machine.keeper.accounts[ALICE].is_tightened
        clock.now += 11
        await until(lambda: bool(mail.notices), machine)
        assert mail.notices[0].incident.cause == LOGIN_NETWORKS
        assert mail.notices[0].is_tightened
        clock.now += QUIET
        await until(lambda: not machine.keeper.accounts, machine)
        assert store.actions() == ["incident-opened", "tighten", "incident-closed"]

    play(dialogue())


def test_the_last_hits_are_written_at_the_end() -> None:
    async def dialogue() -> None:
        store = Store()
        machine = Machine(store)
        machine.keeper.hit(ALICE, "account-surge", 1)
        await machine.keeper.close()
        assert store.account(ALICE).suspension is not None

    play(dialogue())


def test_it_all_happens_by_itself_while_it_runs() -> None:
    async def dialogue() -> None:
        store, mail, kicks = Store(), Told(), Kicks()
        machine = Machine(store, mail, kickers=[kicks], settle=0.0)
        running = asyncio.create_task(machine.keeper.run())
        machine.keeper.hit(ALICE, "account-surge", 1)
        while not (mail.notices and kicks.kicked):
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await machine.keeper.close()
        assert mail.news() == [News.OPENED]
        assert kicks.kicked == [ALICE]

    play(dialogue())


def test_an_account_that_cannot_be_told_of_holds_up_nobody(clock: Clock) -> None:
    async def dialogue() -> None:
        store, mail = Store(), Told()
        machine = Machine(store, mail)
        machine.keeper.hit("odd@example.com", "account-recipients", 0)
        machine.keeper.hit(ALICE, "account-recipients", 0)
        await turns(machine)
        store.unwritable = "odd@example.com"
        clock.now += 11
        await until(lambda: bool(mail.notices), machine)
        await turns(machine, rounds=10)
        assert [notice.account for notice in mail.notices] == [ALICE]
        assert machine.events.names().count("telling-failed") == 1

    play(dialogue())


@pytest.mark.parametrize("minutes", [-600, 600], ids=["went-back", "went-on"])
def test_a_clock_that_was_wrong_keeps_no_incident_untold_or_open(clock: Clock, minutes: int) -> None:
    async def dialogue() -> None:
        store, mail = Store(), Told()
        machine = Machine(store, mail)
        machine.keeper.hit(ALICE, "account-recipients", 0)
        await turns(machine)
        clock.now += 60 * minutes
        after = Machine(store, mail)
        await until(lambda: not store.accounts(), after)
        assert mail.news() == [News.OPENED, News.CLOSED]

    play(dialogue())
