"""What the tests of incidents share: a clock that is set, a store that can be away, channels and kickers that can fail."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import pytest

import policyd.keeper
import policyd.kicking
import policyd.telling
from mailward.adapters.memory_counters import MemoryLimits
from mailward.model.accounts import Account, AuditEntry, Incident, Suspension
from mailward.model.errors import StoreError, StoreFailure
from mailward.model.ports import AccountStore
from policyd.doveadm import Kicked, KickError
from policyd.keeper import Keeper, KeeperRules
from policyd.kicking import Kicker
from policyd.notice import News, Notice
from policyd.notify import Channel, NotifyError
from policyd.store_threads import StoreThreads

ALICE = "alice@example.com"
START = 1_800_000_000.0
GUARD_SECONDS = 60.0


class Clock:
    """Stands in for the module `time` where it is put; both of its clocks go on together, when they are told to."""

    def __init__(self) -> None:
        self.now = START

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (policyd.keeper, policyd.telling, policyd.kicking):
            monkeypatch.setattr(module, "time", self)


class Store(MemoryLimits):
    """Accounts that somebody may take away for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.is_away = False
        self.failure = StoreError(StoreFailure.AWAY)
        self.unwritable = ""
        self.meanwhile: Callable[[], None] | None = None  # what happens while it is asked for an account

    def _answer(self) -> None:
        if self.is_away:
            raise self.failure

    def accounts_version(self) -> str:
        self._answer()
        return super().accounts_version()

    def accounts(self) -> Mapping[str, Account]:
        self._answer()
        return super().accounts()

    def account(self, name: str) -> Account:
        if self.meanwhile is not None:
            self.meanwhile()
        self._answer()
        if name == self.unwritable:
            raise ValueError("surrogates not allowed")
        return super().account(name)

    def swap(self, old: Account, new: Account, entries: Sequence[AuditEntry] = ()) -> bool:
        self._answer()
        return super().swap(old, new, entries)

    def actions(self, account: str = ALICE) -> list[str]:
        """Return what the audit log says was done, the oldest first."""
        return [entry.action for entry in reversed(self.audit_log(account))]


class Numbers(Counter[tuple[str, str]]):
    """Counts."""

    def count(self, name: str, value: str = "", amount: float = 1.0) -> None:  # type: ignore[override]
        self[name, value] += amount  # type: ignore[assignment]


class Events(list[tuple[str, str, dict[str, object]]]):
    """OnEvent."""

    def __call__(self, level: str, event: str, **fields: object) -> None:
        self.append((level, event, fields))

    def names(self) -> list[str]:
        return [event for _, event, _ in self]


class Told:
    """A channel: remembers what it was given, and fails as often as it is told to. `gate` holds up whoever sends."""

    def __init__(self, name: str = "mail") -> None:
        self.name = name
        self.notices: list[Notice] = []
        self.failures = 0
        self.asked = 0
        self.gate: asyncio.Event | None = None

    async def send(self, notice: Notice) -> None:
        self.asked += 1
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise NotifyError("out of order")
        self.notices.append(notice)
        if self.gate is not None:
            await self.gate.wait()

    def news(self) -> list[News]:
        return [notice.news for notice in self.notices]


class Kicks:
    """A kicker, likewise."""

    def __init__(self) -> None:
        self.kicked: list[str] = []
        self.failures = 0
        self.result = Kicked.KICKED

    async def kick(self, account: str) -> Kicked:
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise KickError("away")
        self.kicked.append(account)
        return self.result


class Machine:
    """One keeper with what it reports to."""

    def __init__(
        self, store: AccountStore, *channels: Channel, kickers: Sequence[Kicker] = (), settle: float = 10.0
    ) -> None:
        self.store = store
        self.numbers = Numbers()
        self.events = Events()
        rules = KeeperRules(quiet_seconds=3600.0, settle_seconds=settle, machine="mx.example.net", turn_seconds=0.01)
        self.failures: list[StoreError] = []
        threads = StoreThreads(self.failures.append)
        self.keeper = Keeper(store, rules, channels, kickers, self.numbers, self.events, threads)


async def turns(*machines: Machine, rounds: int = 3) -> None:
    """Have every machine do what is due, all at the same time, and what that has begun."""
    for _ in range(rounds):
        await asyncio.gather(*(machine.keeper.turn() for machine in machines))
        await settle()


async def settle() -> None:
    """Let tasks that need nothing from outside come to their ends; a change in the store goes through a thread."""
    for _ in range(20):
        await asyncio.sleep(0.0005)


async def until(is_so: Callable[[], bool], *machines: Machine) -> None:
    """Have the machines turn until it is so."""
    deadline = time.monotonic() + GUARD_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "waited in vain"
        await turns(*machines, rounds=1)


def notice(
    account: str = ALICE, news: News = News.OPENED, *, suspended: Suspension | None = None, cause: str = "account-surge"
) -> Notice:
    """Return a notice of an incident that opened at START."""
    closed_at = START + 7200 if news is News.CLOSED else 0.0
    incident = Incident(START, cause, 51, START + 30, closed_at)
    return Notice(news, account, incident, suspended, is_tightened=False, machine="mx.example.net")
