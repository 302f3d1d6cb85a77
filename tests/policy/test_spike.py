"""A spike of deferrals: what raises the alert, what does not, when it is over."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailward.policy.spike import SpikeRules, SpikeWatch

INTERVAL = SpikeRules().interval
DAY = 86400


def watched(counts: list[float], watch: SpikeWatch | None = None) -> tuple[SpikeWatch, list[bool]]:
    """Step once an interval."""
    watch, alerts = watch or SpikeWatch(), []
    begin = watch.seen_at or 1_800_000_000.0
    for number, count in enumerate(counts, 1):
        watch, alert = watch.step(count, begin + number * INTERVAL)
        alerts.append(alert)
    return watch, alerts


def after_days_of(count: float, days: float = 7) -> SpikeWatch:
    watch, alerts = watched([count] * int(days * DAY / INTERVAL))
    assert not any(alerts)
    return watch


@pytest.mark.parametrize(
    ("usual", "now", "is_spike"),
    [
        pytest.param(20, 20, False, id="as usual"),
        pytest.param(20, 199, False, id="nearly ten times as many"),
        pytest.param(20, 201, True, id="ten times as many"),
        pytest.param(20, 100_000, True, id="a botnet's run"),
        pytest.param(0, 99, False, id="where there is nothing usually, a few are no spike"),
        pytest.param(0, 100, True, id="a hundred are"),
        pytest.param(1, 99, False, id="ten times next to nothing is next to nothing"),
        pytest.param(500, 4_900, False, id="a busy machine is used to much"),
        pytest.param(500, 5_100, True, id="and has spikes, too"),
        pytest.param(500, 0, False, id="silence is no spike"),
    ],
)
def test_a_spike_is_many_times_what_is_usual(usual: float, now: float, is_spike: bool) -> None:
    assert watched([now], after_days_of(usual))[1] == [is_spike]


def test_an_alert_is_raised_once_a_spike() -> None:
    assert watched([300, 300, 150, 300], after_days_of(20))[1] == [True, False, False, False]


def test_it_is_over_below_half_of_what_makes_one() -> None:
    watch, _alerts = watched([300], after_days_of(20))
    assert watched([110], watch)[0].is_spike
    assert not watched([90], watch)[0].is_spike


def test_the_next_spike_raises_the_next_alert() -> None:
    assert watched([300, 20, 300], after_days_of(20))[1] == [True, False, True]


def test_the_first_count_only_teaches() -> None:
    watch, alerts = watched([5_000, 5_000, 5_000])
    assert alerts == [False, False, False]
    assert watch.usual == pytest.approx(5_000)


def test_a_run_does_not_teach_that_runs_are_usual() -> None:
    hour_long, _alerts = watched([100_000] * 12, after_days_of(20))
    assert hour_long.usual < 50
    assert watched([20, 100_000], hour_long)[1] == [False, True]


def test_what_lasts_for_days_becomes_usual() -> None:
    watch, _alerts = watched([1_000] * int(3 * DAY / INTERVAL), after_days_of(20))
    assert not watch.is_spike
    assert watched([1_000], watch)[1] == [False]


def test_stepping_more_often_teaches_no_faster() -> None:
    often = rarely = after_days_of(20)
    begin = often.seen_at
    for second in range(0, 3601, 10):
        often, _alert = often.step(60, begin + second)
    for second in range(0, 3601, 300):
        rarely, _alert = rarely.step(60, begin + second)
    assert often.usual == pytest.approx(rarely.usual, rel=0.01)


def test_a_clock_set_back_raises_nothing_and_forgets_nothing() -> None:
    watch = after_days_of(20)
    back, alert = watch.step(300, watch.seen_at - 3600)
    assert not alert
    assert back.usual == watch.usual
    assert watched([300], back)[1] == [True]


@given(st.lists(st.tuples(st.floats(-10, 1e12), st.floats(-1e6, 1e6)), max_size=50))
def test_whatever_is_counted_the_watch_stays_sane(steps: list[tuple[float, float]]) -> None:
    watch, now = SpikeWatch(), 1_800_000_000.0
    for count, seconds in steps:
        now += seconds
        before = watch
        watch, alert = watch.step(count, now)
        assert math.isfinite(watch.usual)
        assert 0 <= watch.usual <= 1e12 * 1.0001
        assert alert <= watch.is_spike
        assert not (alert and before.is_spike)
