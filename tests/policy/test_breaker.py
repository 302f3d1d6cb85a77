"""The breaker's circle: what opens it, how long it stays open, who may probe, what closes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailward.policy.breaker import Breaker, BreakerRules, BreakerState

RULES = BreakerRules(failures_to_open=2, first_wait=0.5, longest_wait=5.0)
MIDDLE = 0.5  # jitter that changes nothing


def opened(now: float = 0.0, jitter: float = MIDDLE) -> Breaker:
    return Breaker(RULES).failed(now, jitter).failed(now, jitter)


def half_open(breaker: Breaker) -> Breaker:
    probing = breaker.probe(breaker.retry_at)
    assert probing is not None
    return probing


def test_it_begins_closed() -> None:
    assert Breaker().is_closed


def test_one_failure_does_not_open_it() -> None:
    assert Breaker(RULES).failed(0.0, MIDDLE).is_closed


def test_failures_in_a_row_open_it() -> None:
    assert opened().state is BreakerState.OPEN


def test_failures_with_a_success_between_do_not() -> None:
    assert Breaker(RULES).failed(0.0, MIDDLE).succeeded().failed(0.0, MIDDLE).is_closed


def test_nobody_probes_a_closed_one() -> None:
    assert Breaker(RULES).probe(1e9) is None


def test_nobody_probes_before_its_time() -> None:
    breaker = opened(now=100.0)
    assert breaker.retry_at == 100.5
    assert breaker.probe(100.4) is None
    assert breaker.probe(100.5) is not None


def test_one_probe_at_a_time() -> None:
    assert half_open(opened()).probe(1e9) is None


def test_a_half_open_one_is_not_in_use() -> None:
    assert not half_open(opened()).is_closed


def test_a_probe_that_succeeds_closes_it_and_forgets() -> None:
    assert half_open(opened()).succeeded() == Breaker(RULES)


def test_one_probe_that_fails_is_enough_to_open_it_again() -> None:
    assert half_open(opened()).failed(9.0, MIDDLE).state is BreakerState.OPEN


def test_the_wait_doubles_up_to_its_limit() -> None:
    breaker, waits = opened(), []
    for _ in range(6):
        waits.append(breaker.retry_at)
        breaker = half_open(breaker).failed(0.0, MIDDLE)
    assert waits == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


@pytest.mark.parametrize(
    ("jitter", "retry_at"),
    [
        pytest.param(0.0, 100.375, id="a quarter sooner"),
        pytest.param(1.0, 100.625, id="a quarter later"),
    ],
)
def test_processes_do_not_probe_in_step(jitter: float, retry_at: float) -> None:
    assert opened(now=100.0, jitter=jitter).retry_at == retry_at


@given(
    st.lists(st.tuples(st.sampled_from(["fail", "succeed", "probe"]), st.floats(0, 20), st.floats(0, 1)), max_size=60)
)
def test_whatever_happens_what_is_back_is_probed_within_ten_seconds(events: list[tuple[str, float, float]]) -> None:
    breaker, now = Breaker(), 0.0
    for event, seconds, jitter in events:
        now += seconds
        if event == "fail":
            breaker = breaker.failed(now, jitter)
        elif event == "succeed":
            breaker = breaker.succeeded()
            assert breaker.is_closed
        else:
            breaker = breaker.probe(now) or breaker
        if breaker.state is BreakerState.OPEN:
            assert breaker.retry_at <= now + 10
