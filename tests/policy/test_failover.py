"""Whom to ask next, played without a network: a table of what happens, and the dialogue that follows from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailward.policy.failover import (
    LEAST_DELAY,
    Action,
    Latency,
    Race,
    SignsOfLife,
    Step,
    hedge_delay,
    observe,
    present_first,
)

TIMEOUT = 2.0
NEVER: dict[float, int] = {}


def play(race: Race, until: float = 60.0, fails: dict[float, int] | None = None) -> list[tuple[float, str, int]]:
    """Let time pass; return when each thing but waiting was to be done. `fails` says which server fails when."""
    fails, now = dict(fails or {}), 0.0
    done: list[tuple[float, str, int]] = []
    for _ in range(1000):
        step = race.next(now)
        if step.action is Action.END:
            return [*done, (round(now, 3), "end", -1)]
        if step.action is Action.WAIT:
            soonest = min([step.until, *fails])
            if soonest in fails:
                race.failed(fails.pop(soonest))
            now = soonest
        elif step.action is not Action.LATE:
            done.append((round(now, 3), step.action.value, step.server))
        if now > until:
            return done
    raise AssertionError("the race never ends")


@pytest.mark.parametrize(
    ("delays", "fails", "expected"),
    [
        pytest.param([], NEVER, [(0, "end", -1)], id="nobody to ask"),
        pytest.param(
            [0.5],
            NEVER,
            [(0, "ask", 0), (1, "ask again", 0), (2, "time-out", 0), (2, "end", -1)],
            id="one server is asked twice, for the datagram may be lost",
        ),
        pytest.param([0.5], {0.2: 0}, [(0, "ask", 0), (0.2, "end", -1)], id="one that fails is not asked again"),
        pytest.param(
            [0.1, 0.3],
            NEVER,
            [
                (0, "ask", 0),
                (0.1, "hedge", 1),
                (1, "ask again", 0),
                (1.1, "ask again", 1),
                (2, "time-out", 0),
                (2.1, "time-out", 1),
                (2.1, "end", -1),
            ],
            id="a late first is overtaken; two silent ones cost one time-out and the delay",
        ),
        pytest.param(
            [0.1, 0.3],
            {0.05: 0},
            [(0, "ask", 0), (0.05, "ask", 1), (1.05, "ask again", 1), (2.05, "time-out", 1), (2.05, "end", -1)],
            id="a first that fails is followed at once",
        ),
        pytest.param(
            [0.1, 0.3],
            {0.05: 0, 0.06: 1},
            [(0, "ask", 0), (0.05, "ask", 1), (0.06, "end", -1)],
            id="all fail at once: it is over at once",
        ),
        pytest.param(
            [0.1, 0.3],
            {0.2: 1},
            [(0, "ask", 0), (0.1, "hedge", 1), (1, "ask again", 0), (2, "time-out", 0), (2, "end", -1)],
            id="the second fails: the late first may still answer",
        ),
        pytest.param(
            [0.1, 0.3, 0.1],
            NEVER,
            [
                (0, "ask", 0),
                (0.1, "hedge", 1),
                (0.4, "hedge", 2),
                (1, "ask again", 0),
                (1.1, "ask again", 1),
                (1.4, "ask again", 2),
                (2, "time-out", 0),
                (2.1, "time-out", 1),
                (2.4, "time-out", 2),
                (2.4, "end", -1),
            ],
            id="each server has its own delay",
        ),
    ],
)
def test_the_way_of_a_question(
    delays: list[float], fails: dict[float, int], expected: list[tuple[float, str, int]]
) -> None:
    assert play(Race(delays, TIMEOUT), fails=fails) == expected


def test_a_late_server_is_told_once_and_then_the_next_is_asked() -> None:
    race = Race([0.25, 0.25], TIMEOUT)
    steps = [race.next(now) for now in (0.0, 0.25, 0.25, 0.5, 0.5)]
    assert [step.asked_at for step in steps if step.action is Action.LATE] == [0.0, 0.25]
    assert [(step.action, step.server) for step in steps] == [
        (Action.ASK, 0),
        (Action.LATE, 0),
        (Action.HEDGE, 1),
        (Action.LATE, 1),
        (Action.WAIT, -1),
    ]


def test_the_only_server_is_late_as_well() -> None:
    race = Race([0.1], TIMEOUT)
    assert [race.next(now) for now in (0.0, 0.0, 0.1, 0.1)] == [
        Step(Action.ASK, 0),
        Step(Action.WAIT, until=0.1),
        Step(Action.LATE, 0),
        Step(Action.WAIT, until=1.0),
    ]


def test_one_that_is_to_answer_in_another_form_has_all_its_time_anew() -> None:
    race = Race([0.1], TIMEOUT)
    race.next(0.0)
    race.restart(0, 1.5)
    assert race.next(1.5) == Step(Action.WAIT, until=3.5)
    assert race.next(3.5) == Step(Action.TIME_OUT, 0)
    assert race.next(3.5) == Step(Action.END)


@given(
    st.lists(st.floats(0.01, 1.0), max_size=5),
    st.lists(
        st.tuples(st.floats(0.0, 1.0), st.sampled_from(["next", "fail", "restart"]), st.integers(0, 4)), max_size=40
    ),
)
def test_any_race_ends_and_asks_nobody_more_than_twice(
    delays: list[float], events: list[tuple[float, str, int]]
) -> None:
    race, now, sent = Race(delays, TIMEOUT), 0.0, [0] * 5
    awaited: set[int] = set()
    for seconds, event, server in [*events, *[(3.0, "next", 0)] * 60]:
        now += seconds
        if event == "fail":
            race.failed(server)
            awaited.discard(server)
        elif event == "restart" and server in awaited:
            race.restart(server, now)
        else:
            step = race.next(now)
            if step.action in (Action.ASK, Action.HEDGE, Action.ASK_AGAIN):
                sent[step.server] += 1
                awaited.add(step.server)
            elif step.action is Action.TIME_OUT:
                awaited.discard(step.server)
            assert step.action is not Action.WAIT or step.until > now
    assert step.action is Action.END
    assert max(sent) <= 2


@pytest.mark.parametrize(
    ("latency", "delay"),
    [
        pytest.param(None, 0.5, id="nothing known: a quarter of the time-out"),
        pytest.param(Latency(0.0001, 0.0001), LEAST_DELAY, id="never less than a hiccup of ours"),
        pytest.param(Latency(0.05, 0.01), 0.09, id="as long as usual and four deviations"),
        pytest.param(Latency(5.0, 5.0), 0.5, id="a sender's slow name cannot stretch it further"),
    ],
)
def test_the_hedge_delay(latency: Latency | None, delay: float) -> None:
    assert hedge_delay(latency, TIMEOUT) == pytest.approx(delay)


def test_the_usual_latency_follows_what_is_measured() -> None:
    latency = observe(None, 0.1)
    assert latency == Latency(0.1, 0.05)
    for _ in range(60):
        latency = observe(latency, 0.01)
    assert latency.smoothed == pytest.approx(0.01, rel=0.1)
    assert latency.deviation < 0.002


# ---- who is asked first ----

Sign = tuple[str, float]  # "seen" when, or "missed" since when


def signs_of(*signs: Sign) -> SignsOfLife:
    made = SignsOfLife()
    for kind, seconds in signs:
        (made.seen if kind == "seen" else made.missed)(seconds)
    return made


@pytest.mark.parametrize(
    ("signs", "is_missing"),
    [
        pytest.param([], True, id="nothing has ever come"),
        pytest.param([("seen", 1.0)], False, id="it has been heard"),
        pytest.param([("seen", 1.0), ("missed", 2.0)], True, id="silent since a question that is late"),
        pytest.param([("seen", 1.0), ("missed", 0.5)], False, id="late, but another answer has come since"),
        pytest.param([("seen", 1.0), ("missed", 2.0), ("seen", 3.0)], False, id="heard again"),
        pytest.param([("seen", 1.0), ("missed", 2.0), ("missed", 0.5)], True, id="late twice, told out of order"),
        pytest.param([("seen", 1.0), ("missed", 2.0), ("seen", 3.0), ("missed", 2.5)], False, id="told too late"),
        pytest.param([("seen", 1.0), ("missed", 2.0), ("seen", 3.0), ("missed", 4.0)], True, id="silent once more"),
    ],
)
def test_a_server_is_missing_while_nothing_comes_after_a_late_question(signs: list[Sign], is_missing: bool) -> None:
    assert signs_of(*signs).is_missing is is_missing


SEEN, MISSED = signs_of(("seen", 1.0)), signs_of(("seen", 1.0), ("missed", 2.0))


@pytest.mark.parametrize(
    ("signs", "order"),
    [
        pytest.param([], [], id="nobody"),
        pytest.param([SEEN, SEEN, SEEN], [0, 1, 2], id="as configured"),
        pytest.param([MISSED, SEEN, SEEN], [1, 2, 0], id="the missing one last"),
        pytest.param([SEEN, MISSED, SEEN], [0, 2, 1], id="the others keep their order"),
        pytest.param([MISSED, SEEN, MISSED], [1, 0, 2], id="so do two that are missing"),
        pytest.param([MISSED, MISSED, MISSED], [0, 1, 2], id="all missing, by a silent name: as configured"),
        pytest.param([SignsOfLife(), SEEN], [1, 0], id="at the start, whoever has answered first"),
    ],
)
def test_whoever_is_missing_is_asked_last_and_never_left_out(signs: list[SignsOfLife], order: list[int]) -> None:
    assert present_first(range(len(signs)), lambda server: signs[server]) == order


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0.001, 1.0), st.floats(0.001, 1.0)), max_size=60))
def test_silent_names_change_nothing_where_others_are_answered_meanwhile(names: list[tuple[int, float, float]]) -> None:
    now, signs = 1.0, [signs_of(("seen", 0.5)), signs_of(("seen", 0.5))]
    for server, until_answer, until_late in names:
        asked_at = now
        signs[server].seen(asked_at + until_answer)  # somebody else's answer
        now = asked_at + until_answer + until_late
        signs[server].missed(asked_at)
        assert present_first((0, 1), lambda number: signs[number]) == [0, 1]
