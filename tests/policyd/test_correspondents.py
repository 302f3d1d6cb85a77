"""Whom authenticated users write to reaches the store, once in a while, and never stands in the mail's way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from mailward.model.errors import StoreError, StoreFailure
from policyd.correspondents import DROPPED, FRESH_PART, MAX_WAITING, RECORDED, CorrespondentRecorder

DAY = 86400.0


class Store:
    """A CorrespondentStore that may be away."""

    def __init__(self) -> None:
        self.recorded: list[str] = []
        self.lifetimes: set[float] = set()
        self.is_away = False

    def record(self, addresses: Iterable[str], lifetime: float, now: float | None = None) -> None:
        if self.is_away:
            raise StoreError(StoreFailure.AWAY)
        self.recorded += addresses
        self.lifetimes.add(lifetime)


class Told:
    """Counts, and remembers events."""

    def __init__(self) -> None:
        self.counted: dict[str, float] = {}
        self.events: list[str] = []

    def count(self, name: str, value: str = "", amount: float = 1.0) -> None:
        self.counted[name] = self.counted.get(name, 0.0) + amount

    def __call__(self, level: str, event: str, **fields: object) -> None:
        self.events.append(event)


def recorder(store: Store, lifetime: float = 60 * DAY) -> tuple[CorrespondentRecorder, Told]:
    told = Told()
    return CorrespondentRecorder(store, lifetime, told, told), told


def test_addresses_are_recorded_with_the_lifetime() -> None:
    store = Store()
    it, told = recorder(store)
    it.add(["bob@example.org", "eve@example.org"], now=0.0)
    assert asyncio.run(it.write())
    assert (store.recorded, store.lifetimes) == (["bob@example.org", "eve@example.org"], {60 * DAY})
    assert told.counted == {RECORDED: 2.0}


def test_who_is_written_to_again_soon_is_recorded_once() -> None:
    store = Store()
    it, _ = recorder(store)
    for now in (0.0, 1.0, 60 * DAY * FRESH_PART - 1):
        it.add(["bob@example.org"], now)
        asyncio.run(it.write())
    assert store.recorded == ["bob@example.org"]
    it.add(["bob@example.org"], 60 * DAY * FRESH_PART + 1)
    asyncio.run(it.write())
    assert store.recorded == ["bob@example.org"] * 2


def test_a_lifetime_of_nothing_records_nobody() -> None:
    store = Store()
    it, _ = recorder(store, 0.0)
    it.add(["bob@example.org"], now=0.0)
    assert asyncio.run(it.write())
    assert store.recorded == []


def test_what_a_store_that_is_away_did_not_take_it_gets_later_and_that_is_told_once() -> None:
    store = Store()
    it, told = recorder(store)
    store.is_away = True
    it.add(["bob@example.org"], now=0.0)
    assert not asyncio.run(it.write())
    assert not asyncio.run(it.write())
    store.is_away = False
    assert asyncio.run(it.write())
    assert store.recorded == ["bob@example.org"]
    assert told.events == ["correspondents-not-recorded", "correspondents-recorded-again"]


def test_while_the_store_is_away_what_waits_is_bounded() -> None:
    store = Store()
    it, told = recorder(store)
    it.add((f"{number}@example.org" for number in range(MAX_WAITING + 7)), now=0.0)
    asyncio.run(it.write())
    assert len(store.recorded) == MAX_WAITING
    assert told.counted[DROPPED] == 7
