"""What a worker of the greylister knows of how things stand: orders, what is away, and who comes back no more."""

from __future__ import annotations

import math
import re
import time
from typing import cast

import pytest

from mailward.adapters.guarded_greylist import GuardedGreylist
from mailward.adapters.memory_greylist import MemoryGreylist
from mailward.adapters.resolver import Resolver
from mailward.daemon import log
from mailward.daemon.metrics import Metrics
from mailward.daemon.state_size import TELL_SECONDS
from mailward.inbound.greylisting import Aside
from mailward.model.errors import StoreError, StoreFailure
from mailward.model.greylist import Entry, EntryKind, Orders, ReturnCount, Triplet, Windows
from mailward.model.state import StateSize
from mailward.policy.exemptions import Exemption, Exemptions
from milters.greylist.filter import METRICS
from milters.greylist.watch import COUNT_SECONDS, RETURNS_SECONDS, Watch


class Resolving:
    """A resolver of which only one thing matters."""

    is_away = False


class Returning(MemoryGreylist):
    """A store whose counts of returns are given."""

    counts: tuple[ReturnCount, ...] = ()
    octets: StateSize | None = None

    def returns(self, now: float | None = None) -> tuple[ReturnCount, ...]:
        return self.counts

    def size(self) -> StateSize | None:
        return self.octets


class Noted:
    """What a worker tells."""

    def __init__(self) -> None:
        self.told: dict[str, str] = {}

    def note(self, key: str, value: str) -> None:
        self.told[key] = value

    suggest = note

    def known(self, key: str) -> str:
        return self.told.get(key, "")


class World:
    """A watch, stepped by hand."""

    def __init__(self) -> None:
        log.configure()
        self.metrics = Metrics("mailward_greylist", METRICS)
        self.store, self.resolver, self.notes = Returning(), Resolving(), Noted()
        row, logger = self.metrics.row(0), log.get("greylist")
        self.guarded = GuardedGreylist(self.store, 0.5, row, lambda *_arguments, **_fields: None)
        resolver = cast(Resolver, self.resolver)
        self.watch = Watch(Exemptions(), Windows(), self.store, self.guarded, resolver, row, self.notes, logger)
        self.now = 1000.0

    def step(self, seconds: float = RETURNS_SECONDS) -> Aside | None:
        self.now += seconds
        self.watch.step(self.now)
        return self.watch.conditions().aside

    def shown(self) -> dict[str, float]:
        families = {family.name: family for family in self.metrics.collect()}
        samples = families["mailward_greylist_breakers_open"].samples
        return {sample.labels["breaker"]: sample.value for sample in samples if sample.value}

    def spikes(self) -> float:
        families = {family.name: family for family in self.metrics.collect()}
        return float(families["mailward_greylist_deferral_spike"].samples[0].value)


@pytest.fixture
def world() -> World:
    return World()


def test_when_all_is_well_everybody_is_greylisted(world: World) -> None:
    assert world.step() is None
    assert world.shown() == {}


def test_the_switch_is_obeyed_shown_and_ends_by_itself(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    world.store.switch_off(time.time() + 0.3)
    assert world.step() is Aside.SWITCHED_OFF
    assert world.shown() == {"switched-off": 1}
    assert "event=switched" in capfd.readouterr().err
    time.sleep(0.3)
    assert world.step() is None
    assert world.shown() == {}


def test_a_switch_that_is_taken_back_ends_at_once(world: World) -> None:
    world.store.switch_off(time.time() + 3600)
    assert world.step() is Aside.SWITCHED_OFF
    world.store.switch_off(0.0)
    assert world.step() is None


def test_a_switch_is_in_force_for_as_long_as_the_stores_clock_says(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Orders:
        raise StoreError(StoreFailure.REFUSED)

    for ours, while_unread in ((-3600.0, None), (3600.0, Aside.SWITCHED_OFF)):
        orders = Orders((), time.time() + ours)
        monkeypatch.setattr(world.store, "orders", lambda orders=orders: orders)
        assert world.step() is Aside.SWITCHED_OFF
        monkeypatch.setattr(world.store, "orders", fail)
        assert world.step() is while_unread, "by our own clock"
    monkeypatch.setattr(world.store, "orders", Orders)
    assert world.step() is None


def test_a_switch_is_told_with_a_time_that_can_be_read(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    for until, told in ((4102444800.0, r"(2099|2100)-\d\d-\d\dT\d\d:\d\d:00[+-]\d{4}"), (math.inf, "inf"), (0.0, "on")):
        world.store.switch_off(until)
        world.step()
        assert re.search(f"event=switched until={told}$", capfd.readouterr().err, re.MULTILINE)


def test_entries_of_the_operators_come_and_go(world: World) -> None:
    entry = Entry(EntryKind.NETWORK, "192.0.2.0/24", True, 0.0)
    world.store.set_entry(entry)
    world.step()
    found = world.watch.conditions().exemptions.find("192.0.2.1", "unknown", b"a@b.example", b"c@d.example")
    assert found.exemption is Exemption.ALLOWED
    world.store.remove_entry(entry)
    world.step()
    found = world.watch.conditions().exemptions.find("192.0.2.1", "unknown", b"a@b.example", b"c@d.example")
    assert found.exemption is None


def test_a_dns_that_is_away_sets_greylisting_aside_for_as_long(world: World) -> None:
    world.resolver.is_away = True
    assert world.step() is Aside.DNS
    assert world.shown() == {"dns-away": 1}
    world.resolver.is_away = False
    assert world.step() is None
    assert world.shown() == {}


def test_an_entry_that_makes_no_sense_is_told_once(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    world.store.set_entry(Entry(EntryKind.NETWORK, "no network", False, 0.0))
    world.step()
    world.store.set_entry(Entry(EntryKind.NETWORK, "192.0.2.0/24", True, 0.0))
    world.step()
    assert capfd.readouterr().err.count("event=entry-unreadable") == 1


def collapse(returned: int) -> tuple[ReturnCount, ...]:
    """Return the counts of more than a day, of which the last two hours are no longer as usual."""
    newest = time.time() // 600 * 600
    return tuple(
        ReturnCount(newest - 600 * number, 30, 30 if number > 15 else returned) for number in range(200, 3, -1)
    )


def test_where_clients_known_to_retry_come_back_no_more_greylisting_steps_aside(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    world.store.counts = collapse(30)
    assert world.step() is None
    world.store.counts = collapse(0)
    world.step()
    assert world.shown() == {"nobody-returns": 1}
    conditions = world.watch.conditions()
    tried = [conditions.is_tried(Triplet("o", "a@b.example", f"{n}@d.example")) for n in range(2000)]
    assert conditions.aside is Aside.RETURNS or 0 < sum(tried) < 300
    assert capfd.readouterr().err.count("event=returns-fail") == 1
    world.store.counts = ()
    assert world.step() is None
    assert world.shown() == {}
    assert "event=returns-back" in capfd.readouterr().err


def test_a_spike_of_strangers_is_an_alert_and_nothing_else(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    world.step(COUNT_SECONDS)
    for _ in range(500):
        world.watch.count_stranger()
    assert world.step(COUNT_SECONDS) is None
    assert world.spikes() == 1
    assert capfd.readouterr().err.count("event=deferral-spike") == 1
    for _ in range(6):
        world.step(COUNT_SECONDS)
    assert world.spikes() == 0


def test_a_list_that_refuses_is_told_once(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        world.watch.tell_refused("black.example")
    assert capfd.readouterr().err.count("event=dns-list-refused") == 1


def test_the_size_of_the_state_is_told_once_a_minute(world: World) -> None:
    world.store.octets = StateSize(8192, 0.25)
    world.step()
    assert world.notes.told == {"state_bytes": "8192", "state_fill_ratio": "0.2500"}
    world.store.octets = StateSize(16384, 0.5)
    world.step(TELL_SECONDS - 1)
    assert world.notes.told["state_bytes"] == "8192"
    world.step(1)
    assert world.notes.told["state_bytes"] == "16384"


def test_of_a_store_that_is_elsewhere_no_size_is_told(world: World) -> None:
    world.step()
    assert world.notes.told == {}
