"""What a charge does to a counter: no window ever holds more than its limit, and what clears, clears in time."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailward.model.limits import Charge, Charging, CounterKey, Force, Kind, Outcome, Window
from mailward.policy import ratelimit
from mailward.policy.ratelimit import BUCKETS, MAX_AMOUNT, MAX_ITEMS, counters_of, is_known, item_of, known_of
from tests.support.limit_dialogues import DIALOGUES, Paper, charge, read

START = 1767225600.0
KEY = CounterKey("sasl_username=alice", "limit")
SOON = 0.001  # after the stated time: what rounding may take

SECONDS = st.sampled_from([0.5, 1.0, 10 / 3, 7.0, 60.0, 600.0, 3600.0, 86400.0, 2592000.0])
WINDOWS = st.lists(
    st.builds(Window, st.integers(0, 12), SECONDS), min_size=1, max_size=3, unique_by=lambda w: w.seconds
)
PARTS = st.sampled_from([0.0, 1e-6, 0.01, 0.5, 1.0, 29.0, 29.999, 30.0, 30.999, 31.0]) | st.floats(0.0, 40.0)
STEPS = st.tuples(st.integers(0, 2), PARTS)  # which window, and how many thirtieths of it
STEPS_BACK = st.sampled_from([0.0, 0.0, 0.0, 0.0, 0.1, 5.0, 100.0, 4000.0, 1e5, 1e8])
STREAMS = st.lists(st.tuples(STEPS, st.integers(1, 5)), max_size=40)
MOST = settings(max_examples=150)


class Counted:
    """Counters that are charged, and a log of what was granted, by a clock that never steps."""

    def __init__(self, windows: list[Window], kind: Kind = Kind.AMOUNT) -> None:
        self.windows = tuple(windows)
        self.kind = kind
        self.paper = Paper()
        self.now = self.real = START
        self.log: list[tuple[float, int, bytes]] = []

    def advance(self, step: tuple[int, float]) -> None:
        which, parts = step
        seconds = self.windows[which % len(self.windows)].seconds / BUCKETS * parts
        self.now += seconds
        self.real += seconds

    def charge(self, cost: int = 1, item: bytes = b"") -> Outcome:
        outcome = self.paper.charge(self.charging(cost, item), self.now)
        if outcome.is_charged:
            self.log.append((self.real, cost, item))
        return outcome

    def charging(self, cost: int, item: bytes = b"") -> Charging:
        return Charging((Charge(KEY, self.windows, cost, self.kind, item),))

    def within(self, seconds: float) -> Iterator[tuple[int, bytes]]:
        """Yield the costs and items of what was granted less than so many seconds ago."""
        return ((cost, item) for at, cost, item in self.log if at > self.real - seconds)

    def is_granted_later(self, seconds: float, cost: int = 1, item: bytes = b"") -> bool:
        values = {key: kept.value for key, kept in self.paper.kept.items()}
        return ratelimit.charge(self.charging(cost, item), values, self.now + seconds)[0].is_charged


@MOST
@given(WINDOWS, STREAMS)
def test_no_window_ever_holds_more_than_its_limit(
    windows: list[Window], stream: list[tuple[tuple[int, float], int]]
) -> None:
    counted = Counted(windows)
    for step, cost in stream:
        counted.advance(step)
        (reading,) = counted.charge(cost).readings
        for window, total in zip(windows, reading.totals, strict=True):
            exact = sum(cost for cost, _ in counted.within(window.seconds))
            older = sum(cost for cost, _ in counted.within(window.seconds * (1 + 1 / BUCKETS) + SOON))
            assert exact <= total <= older
            assert exact <= window.most


@MOST
@given(WINDOWS, st.lists(st.tuples(STEPS, st.integers(1, 5), STEPS_BACK), max_size=40))
def test_nor_where_the_clock_is_set_back(
    windows: list[Window], stream: list[tuple[tuple[int, float], int, float]]
) -> None:
    counted = Counted(windows)
    for step, cost, seconds_back in stream:
        counted.advance(step)
        counted.now -= seconds_back
        counted.charge(cost)
        for window in windows:
            assert sum(cost for cost, _ in counted.within(window.seconds)) <= window.most


@pytest.mark.parametrize("kind", [Kind.AMOUNT, Kind.FIRST_TIME], ids=lambda kind: kind.value)
@MOST
@given(windows=WINDOWS, stream=st.lists(st.tuples(STEPS, st.integers(1, 5), STEPS_BACK), max_size=30))
def test_what_clears_clears_by_the_stated_time(
    kind: Kind, windows: list[Window], stream: list[tuple[tuple[int, float], int, float]]
) -> None:
    counted = Counted(windows, kind)
    for number, (step, cost, seconds_back) in enumerate(stream):
        counted.advance(step)
        counted.now -= seconds_back
        item = item_of(str(number))
        (reading,) = counted.charge(cost, item).readings
        if not reading.is_over:
            assert reading.clears_in == 0.0
        elif math.isinf(reading.clears_in):
            assert cost > min(window.most for window in windows)
        else:
            longest = max(window.seconds for window in windows)
            assert 0 <= reading.clears_in <= longest * (1 + 1 / BUCKETS) + SOON
            assert counted.is_granted_later(reading.clears_in + SOON, cost, item)
            assert not counted.is_granted_later(reading.clears_in - 2 * SOON - longest / BUCKETS / 1000, cost, item)


ITEMS = st.sampled_from([item_of(letter) for letter in "abcdefgh"])


@MOST
@given(WINDOWS, st.lists(st.tuples(STEPS, ITEMS, STEPS_BACK), max_size=40))
def test_no_window_ever_holds_more_different_items(
    windows: list[Window], stream: list[tuple[tuple[int, float], bytes, float]]
) -> None:
    counted, has_stepped_back = Counted(windows, Kind.DISTINCT), False
    for step, item, seconds_back in stream:
        counted.advance(step)
        counted.now -= seconds_back
        has_stepped_back = has_stepped_back or bool(seconds_back)
        (reading,) = counted.charge(1, item).readings
        for window, total in zip(windows, reading.totals, strict=True):
            exact = {item for _, item in counted.within(window.seconds)}
            assert len(exact) <= total
            if not has_stepped_back:  # by which an item that had left may be back, and is seen again
                assert len(exact) <= window.most
                # The second in which it came counts in full.
                assert total <= len({item for _, item in counted.within(window.seconds + 1)})
        if reading.is_over and not math.isinf(reading.clears_in):
            assert counted.is_granted_later(reading.clears_in + SOON, 1, item)


@MOST
@given(WINDOWS, st.lists(st.tuples(STEPS, ITEMS), max_size=40))
def test_of_items_only_new_ones_are_charged(
    windows: list[Window], stream: list[tuple[tuple[int, float], bytes]]
) -> None:
    counted, known = Counted(windows, Kind.FIRST_TIME), set()
    for step, item in stream:
        counted.advance(step)
        before = dict(counted.paper.kept)
        outcome = counted.charge(1, item)
        (reading,) = outcome.readings
        assert reading.is_known == (item in known)
        if reading.is_known:
            assert outcome.is_charged
            assert counted.paper.kept == before
        elif outcome.is_charged:
            known.add(item)
        assert counted.paper.of(KEY.owner).get(known_of(KEY), b"") == b"".join(dict.fromkeys(_granted(counted)))


def _granted(counted: Counted) -> Iterator[bytes]:
    return (item for _, _, item in counted.log)


KINDS = st.sampled_from(Kind)
FORCES = st.sampled_from(Force)
CHARGES = st.lists(
    st.builds(
        Charge,
        st.builds(
            CounterKey, st.sampled_from(["a", "b"]), st.sampled_from(["x", "y", "z"]), st.sampled_from(["", "r"])
        ),
        WINDOWS.map(tuple),
        st.integers(0, 4),
        KINDS,
        ITEMS,
        FORCES,
    ),
    max_size=5,
    unique_by=lambda charge: charge.key,
)


@MOST
@given(st.lists(st.tuples(st.floats(0.0, 3000.0), CHARGES), max_size=12))
def test_all_of_a_request_are_charged_or_none(stream: list[tuple[float, list[Charge]]]) -> None:
    values: dict[CounterKey, bytes] = {}
    now = START
    for seconds, charges in stream:
        now += seconds
        charging = Charging(tuple(charges))
        outcome, changes = ratelimit.charge(charging, values, now)
        refusing = [
            reading.is_over and each.force is Force.ENFORCED
            for each, reading in zip(charges, outcome.readings, strict=True)
        ]
        assert outcome.is_charged == (not any(refusing))
        assert set(changes) <= set(counters_of(charging))
        if not outcome.is_charged:
            assert changes == {}
        for each, reading in zip(charges, outcome.readings, strict=True):
            is_counted = each.cost and not reading.is_known and (not reading.is_over or each.force is Force.FORCED)
            if outcome.is_charged and (
                is_counted or (each.kind is Kind.DISTINCT and each.cost and not reading.is_over)
            ):
                assert each.key in changes
                look = Charging((each._replace(cost=0, force=Force.ENFORCED),))
                changed = {key: kept.value for key, kept in changes.items()}
                assert ratelimit.charge(look, changed, now)[0].readings[0].totals == reading.totals
            elif not is_counted and each.kind is not Kind.DISTINCT:
                assert each.key not in changes
        values |= {key: kept.value for key, kept in changes.items()}
        for key, kept in changes.items():
            assert len(kept.value) <= max(MAX_ITEMS * 8, 3 * (2 + 2 * (BUCKETS + 1)) * 8), key
            assert now <= kept.expires < math.inf


@MOST
@given(WINDOWS, STREAMS)
def test_what_has_expired_counts_for_nothing(
    windows: list[Window], stream: list[tuple[tuple[int, float], int]]
) -> None:
    for kind in (Kind.AMOUNT, Kind.DISTINCT):
        counted = Counted(windows, kind)
        for number, (step, cost) in enumerate(stream):
            counted.advance(step)
            counted.charge(cost, item_of(str(number)))
        for key, kept in counted.paper.kept.items():
            look = counted.charging(0, item_of("another"))
            (reading,) = ratelimit.charge(look, {key: kept.value}, kept.expires + SOON)[0].readings
            assert set(reading.totals) == {0}


@pytest.mark.parametrize("dialogue", DIALOGUES.values(), ids=DIALOGUES.keys())
def test_dialogues(dialogue: str) -> None:
    paper = Paper()
    for line in read(dialogue):
        assert paper.charge(line.charging, START + line.at).is_charged is line.is_charged, line


def test_a_clock_that_is_set_back_far_is_believed_once() -> None:
    """Else what it had counted before would be as of now at every request, and would never clear."""
    paper, full = Paper(), Charging((charge("alice/hour=5"), charge("alice/different=0@a")))
    year = 366 * 86400.0
    assert paper.charge(full, START + year).is_charged
    refused = paper.charge(full, START)
    assert not refused.is_charged
    for part in (0.25, 0.5, 0.75):
        assert not paper.charge(full, START + part * refused.readings[0].clears_in).is_charged
    assert paper.charge(full, START + refused.readings[0].clears_in).is_charged


@given(st.binary(max_size=60).map(lambda octets: octets[: len(octets) // 4 * 4]), st.binary(min_size=4, max_size=4))
def test_an_item_is_known_where_it_stands_alone(known: bytes, item: bytes) -> None:
    kept = [known[at : at + 4] for at in range(0, len(known), 4)]
    assert is_known(known, item) == (item in kept)
    assert all(is_known(known, each) for each in kept)


@given(
    st.lists(st.sampled_from([b"aaaa", b"aaab", b"abaa", b"baaa"]), max_size=12), st.sampled_from([b"aaaa", b"aaba"])
)
def test_an_item_is_not_found_across_two_others(kept: list[bytes], item: bytes) -> None:
    assert is_known(b"".join(kept), item) == (item in kept)


DOUBLES = st.lists(st.floats() | st.integers(0, 32).map(float) | st.just(3600.0), max_size=70)
BROKEN = st.binary(max_size=300) | DOUBLES.map(lambda numbers: struct.pack(f"<{len(numbers)}d", *numbers))


@settings(max_examples=400)
@given(BROKEN, BROKEN, KINDS, FORCES, st.integers(0, 3))
def test_a_broken_value_raises_nothing(value: bytes, known: bytes, kind: Kind, force: Force, cost: int) -> None:
    one = Charge(KEY, (Window(5, 3600.0), Window(10, 86400.0)), cost, kind, item_of("a"), force)
    values = {KEY: value, known_of(KEY): known}
    for now in (START, START + 1, START - 1e6, START + 1e6):
        outcome, changes = ratelimit.charge(Charging((one,)), values, now)
        assert len(outcome.readings[0].totals) == 2
        assert all(math.isfinite(kept.expires) for kept in changes.values())
        values |= {key: kept.value for key, kept in changes.items()}


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", range(6), ids=["seconds", "length", "bucket", "amount", "bucket-2", "amount-2"])
def test_a_number_that_is_none_makes_no_counter_full_for_ever(place: int, broken: float) -> None:
    bucket = START // 120
    numbers = [3600.0, 2.0, bucket - 1, 1.0, bucket, 1.0]
    numbers[place] = broken
    one = Charging((charge("alice/hour=5"),))
    key = one.charges[0].key
    outcome, _ = ratelimit.charge(one, {key: struct.pack("<6d", *numbers)}, START)
    assert outcome.is_charged


def test_amounts_stay_what_a_double_holds() -> None:
    paper, huge = Paper(), Charging((charge("alice/hour!")._replace(cost=MAX_AMOUNT),))
    for _ in range(50):
        paper.charge(huge, START)
    look = paper.charge(Charging((charge("alice/hour=0"),)), START)
    assert look.readings[0].totals == (MAX_AMOUNT,)


@given(st.text())
def test_an_item_is_four_octets_of_any_text(text: str) -> None:
    assert len(item_of(text)) == 4
    assert item_of(text) == item_of(text)


def test_items_differ() -> None:
    assert len({item_of(f"{number}@example.org") for number in range(2000)}) >= 1998
