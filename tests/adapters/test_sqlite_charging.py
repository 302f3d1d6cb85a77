"""How SQLite keeps counters: what is charged as it is kept is charged as mailward.policy.ratelimit does it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailward.adapters import sqlite_rings as rings
from mailward.adapters.sqlite_charging import Counters, name_of, next_key, owner_key_of, record_of, rest_key_of
from mailward.adapters.sqlite_rows import HIGHEST_KEY, LOWEST_KEY
from mailward.model.limits import Charge, Charging, CounterKey, Force, Kind, Outcome, Window
from mailward.policy import ratelimit

START = 1_700_000_000.0
HOUR, DAY = Window(20, 3600.0), Window(40, 86400.0)
SETS = ((HOUR, DAY), (HOUR,), (DAY, HOUR), (Window(7, 60.0), Window(9, 10.0)), (Window(5, 90.5),), (), (HOUR,) * 5)
KEYS = tuple(CounterKey("sasl_username=ann", name) for name in ("one", "two", "three"))


class Both:
    """Counters as SQLite keeps them, and as the definition does; what one says the other must say."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.values: dict[CounterKey, bytes] = {}
        self.expires: dict[str, float] = {}

    def charge(self, charging: Charging, now: float) -> Outcome:
        counters = Counters([charging])
        counters.kept.update({name: self.kept[name] for name in counters.keys if name in self.kept})
        outcome = counters.charge(0, charging, now)
        expected, changes = ratelimit.charge(charging, self.values, now)
        assert outcome == expected
        assert counters.changed == {name_of(key): kept.expires for key, kept in changes.items()}
        self.kept.update({name: counters.kept[name] for name in counters.changed})
        self.values.update({key: kept.value for key, kept in changes.items()})
        assert {key: rings.value_of(self.kept[name_of(key)]) for key in changes} == {
            key: kept.value for key, kept in changes.items()
        }
        return outcome


@st.composite
def chargings(draw: st.DrawFn) -> Charging:
    charges = [
        Charge(
            key,
            draw(st.sampled_from(SETS)),
            draw(st.sampled_from([1, 1, 1, 0, 3, 25, 2**31, 2**60])),
            draw(st.sampled_from([Kind.AMOUNT, Kind.AMOUNT, Kind.FIRST_TIME])) if key is not KEYS[2] else Kind.DISTINCT,
            draw(st.sampled_from([b"aaaa", b"bbbb", b"aabb"])),
            draw(st.sampled_from([Force.ENFORCED, *Force])),
        )
        for key in draw(st.lists(st.sampled_from(KEYS), unique=True, min_size=1))
    ]
    return Charging(tuple(charges))


STEPS = st.one_of(st.sampled_from([0.0, 0.5, 59.0, 121.0, 3600.0, 86400.0 * 40, -1.0, -7200.0]), st.floats(0, 4000))


@given(st.lists(st.tuples(STEPS, chargings()), max_size=25))
@example([(0.0, Charging((Charge(KEYS[0], (HOUR, DAY)),)))] * 22)
@example([(3600 / 30, Charging((Charge(KEYS[0], (HOUR, DAY)),)))] * 70)
@settings(max_examples=150)
def test_requests_are_charged_as_the_definition_does_it(steps: list[tuple[float, Charging]]) -> None:
    both, now = Both(), START
    for seconds, charging in steps:
        now += seconds
        both.charge(charging, now)


@pytest.mark.parametrize("windows", [(HOUR, DAY), (Window(10**6, 60.0),)], ids=["an hour and a day", "a minute"])
def test_what_is_kept_is_short_and_charged_without_the_definition(
    windows: tuple[Window, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = tuple(replace(window, most=10**6) for window in windows)
    charging = Charging((Charge(KEYS[0], windows), Charge(KEYS[1], windows, kind=Kind.FIRST_TIME, item=b"aaaa")))
    both = Both()
    for number in range(200):
        both.charge(charging, START + number * windows[0].seconds / 40)
    kept, value = both.kept[name_of(KEYS[0])], both.values[KEYS[0]]
    assert len(kept) < len(value) / 2.5
    monkeypatch.delattr(ratelimit, "charge")
    counters = Counters([charging])
    counters.kept.update(both.kept)
    assert counters.charge(0, charging, START + 6 * windows[0].seconds).is_charged


def test_some_counters_are_kept_as_the_definition_makes_them() -> None:
    both = Both()
    for amount in (2**40, 1):
        both.charge(Charging((Charge(KEYS[0], (Window(2**50, 3600.0),), amount),)), START)
    assert both.kept[name_of(KEYS[0])][:1] == rings.PLAIN


@given(st.binary(max_size=120), st.sampled_from([0, 1, 2, 3, 4, 5, 255]), chargings())
@settings(max_examples=150)
def test_octets_that_are_not_ours_do_no_harm(octets: bytes, first: int, charging: Charging) -> None:
    counters = Counters([charging])
    counters.kept.update(dict.fromkeys(counters.keys, bytes([first]) + octets))
    assert len(counters.charge(0, charging, START).readings) == len(charging.charges)
    for name, kept in counters.kept.items():
        assert isinstance(record_of(name, kept, START).value, bytes)


def test_an_owners_rows_lie_side_by_side() -> None:
    keys = Counters([Charging(tuple(Charge(key, (HOUR,)) for key in KEYS))]).keys
    lowest = owner_key_of("sasl_username=ann")
    assert all(lowest <= key <= lowest + 2**24 - 1 for key in keys.values())
    assert len(set(keys.values())) == len(KEYS)
    for owner in ("", "all", "\udcff", "x" * 10_000, "sender=müller"):
        assert LOWEST_KEY <= owner_key_of(owner) + rest_key_of(owner, owner) <= HIGHEST_KEY


def test_the_place_behind_the_last_is_the_owners_first() -> None:
    lowest = owner_key_of("all")
    assert next_key(lowest) == lowest + 1
    assert next_key(lowest + 2**24 - 1) == lowest
