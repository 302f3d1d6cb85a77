"""The minutes of the last day: what was counted when, never more than a day, never more memory than it may have."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from mailward.daemon.history import DAY, HOUR, MAX_RINGS, MINUTE, History

COUNTER, GAUGE, QUIET = 0, 1, 2
START = 1000.0


def history() -> History:
    return History(3, {GAUGE}, START)


def test_where_nothing_was_counted_every_minute_is_empty_and_none_is_kept() -> None:
    one = history()
    one.take([0.0, 0.0, 0.0], START + 5 * MINUTE)
    assert one.minutes(COUNTER) == [0.0] * DAY
    assert not one.knows(COUNTER)


def test_what_was_counted_just_now_shows_at_once() -> None:
    one = history()
    one.take([3.0, 0.0, 0.0], START + 1)
    assert one.minutes(COUNTER, HOUR) == [0.0] * 59 + [3.0]
    one.take([5.0, 0.0, 0.0], START + 2)
    assert one.grown(COUNTER, 1) == 5.0


def test_each_minute_has_what_was_counted_in_it() -> None:
    one = history()
    for minute, total in enumerate([2.0, 2.0, 9.0]):
        one.take([total, 0.0, 0.0], START + minute * MINUTE + 30)
    assert one.minutes(COUNTER, 4) == [0.0, 2.0, 0.0, 7.0]


def test_a_gauge_shows_its_highest_in_each_minute() -> None:
    one = history()
    for second, value in [(1, 1.0), (11, 4.0), (21, 0.0), (61, 0.0), (71, 2.0), (121, 0.0)]:
        one.take([0.0, value, 0.0], START + second)
    assert one.minutes(GAUGE, 3) == [4.0, 2.0, 0.0]


def test_what_no_look_was_taken_at_for_minutes_counts_for_the_last_of_them() -> None:
    one = history()
    one.take([1.0, 0.0, 0.0], START + 1)
    one.take([8.0, 0.0, 0.0], START + 10 * MINUTE + 1)
    assert one.minutes(COUNTER, 12) == [0.0, 1.0] + [0.0] * 9 + [7.0]


def test_what_is_a_day_old_is_forgotten() -> None:
    one = history()
    one.take([4.0, 0.0, 0.0], START)
    one.take([4.0, 0.0, 0.0], START + (DAY - 1) * MINUTE)
    assert one.grown(COUNTER, DAY) == 4.0
    one.take([4.0, 0.0, 0.0], START + DAY * MINUTE)
    assert one.grown(COUNTER, DAY) == 0.0


def test_after_days_without_a_look_nothing_old_is_left() -> None:
    one = history()
    one.take([4.0, 6.0, 0.0], START)
    one.take([5.0, 0.0, 0.0], START + 3.5 * DAY * MINUTE)
    assert one.grown(COUNTER, DAY) == 1.0
    assert one.minutes(GAUGE) == [0.0] * DAY


def test_it_takes_less_than_a_megabyte_whatever_there_is_to_count() -> None:
    assert MAX_RINGS * DAY * 4 < 1_000_000
    numbers = MAX_RINGS + 20
    one = History(numbers, (), START)
    one.take([1.0] * numbers, START)
    assert [one.grown(number, 1) for number in range(numbers)] == [1.0] * MAX_RINGS + [0.0] * 20


def test_a_look_costs_microseconds() -> None:
    import time

    one = History(MAX_RINGS, (), START)
    chance = random.Random(1)
    started = time.process_time()
    for minute in range(200):
        one.take([chance.random() + minute for _ in range(MAX_RINGS)], START + minute * MINUTE)
    assert (time.process_time() - started) / 200 < 0.02  # it takes a tenth of a millisecond


@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 50)), max_size=60),
    st.integers(1, DAY),
)
def test_the_minutes_are_those_of_a_list_of_everything(steps: list[tuple[int, int]], count: int) -> None:
    one, now, total = history(), START, 0.0
    counted: dict[int, float] = {}
    for seconds, more in steps:
        now += seconds
        total += more
        minute = int((now - START) // MINUTE)
        counted[minute] = counted.get(minute, 0.0) + more
        one.take([total, 0.0, 0.0], now)
    last = int((now - START) // MINUTE)
    expected = [counted.get(minute, 0.0) for minute in range(last - count + 1, last + 1)]
    assert one.minutes(COUNTER, count) == expected
