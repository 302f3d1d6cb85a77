"""Greylisting's own breaker: what opens it, what cannot, how it closes by itself; judged tick by tick as a daemon would."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailward.model.greylist import RETURN_BUCKET_SECONDS, ReturnCount, Triplet, Windows
from mailward.policy.breaker import BreakerState
from mailward.policy.returns import TRIAL_SECONDS, ReturnBreaker, ReturnRules, rules_for
from tests.support.greylist_dialogues import Paper

START = 1_800_000_000.0  # begins a bucket
BUCKETS_AN_HOUR = 3600 // RETURN_BUCKET_SECONDS
HOUR = 3600.0
DAY = 24 * HOUR
CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN

Stretch = tuple[float, int, int]  # hours, and expected and returned in each bucket of them


def counted(*stretches: Stretch) -> tuple[list[ReturnCount], float]:
    """Return the buckets, and the moment when the last of them is over."""
    counts, start = [], START
    for hours, expected, returned in stretches:
        for _ in range(round(hours * BUCKETS_AN_HOUR)):
            if expected:
                counts.append(ReturnCount(start, expected, returned))
            start += RETURN_BUCKET_SECONDS
    return counts, start


def judged(*stretches: Stretch, rules: ReturnRules | None = None) -> ReturnBreaker:
    counts, now = counted(*stretches)
    return ReturnBreaker(rules or ReturnRules()).step(counts, now)


@pytest.mark.parametrize(
    ("stretches", "is_closed"),
    [
        pytest.param([], True, id="nothing is known"),
        pytest.param([(36, 10, 9)], True, id="nearly all come back"),
        pytest.param([(36, 10, 5)], True, id="half of them mass mailers that give up"),
        pytest.param([(36, 10, 2)], True, id="from the beginning only a fifth come back"),
        pytest.param([(36, 10, 8), (0.5, 10, 0)], True, id="those of the last half hour are not back yet"),
        pytest.param([(36, 10, 8), (0.8, 10, 0)], True, id="too soon to say"),
        pytest.param([(36, 10, 8), (1, 10, 0)], False, id="common: a collapse is noticed after an hour"),
        pytest.param([(36, 10, 8), (2, 10, 1)], False, id="a few that come back do not hide it"),
        pytest.param([(36, 10, 8), (6, 10, 4)], True, id="half as many as usual come back"),
        pytest.param([(36, 1, 1), (3, 1, 0)], True, id="six an hour, after three hours"),
        pytest.param([(36, 1, 1), (4, 1, 0)], False, id="six an hour, after four hours"),
        pytest.param([*[(0.5, 1, 1), (0.5, 0, 0)] * 36, (11, 1, 0)], True, id="three an hour: nothing is usual"),
        pytest.param([(36, 10, 8), (6, 0, 0)], True, id="no mail at all"),
        pytest.param([(36, 10, 0)], True, id="never any came back"),
        pytest.param([(20, 10, 8), (3, 10, 0)], True, id="the first day"),
        pytest.param([(24, 10, 8), (0.5, 10, 0), (0.5, 0, 0)], False, id="the last thing that is known"),
    ],
)
def test_what_opens_it(stretches: list[Stretch], is_closed: bool) -> None:
    assert judged(*stretches).is_closed is is_closed


EVENINGS = [(10, 10, 8), (14, 0, 0)]  # by night nobody comes back


@pytest.mark.parametrize(
    ("stretches", "is_closed"),
    [
        pytest.param([(36, 10, 8), (2, 500, 8)], True, id="thousands of origins are given up, and the usual come back"),
        pytest.param([(36, 10, 8), (2, 500, 4)], True, id="and half of the usual stay away"),
        pytest.param([(36, 0, 0), (1, 9, 0)], True, id="where nobody else is: within half an hour"),
        pytest.param([(36, 0, 0), (6, 500, 0)], True, id="where nobody else is: as many as he likes"),
        pytest.param([(47, 1, 0)], True, id="where nobody else is: one after the other, for two days"),
        pytest.param([(47, 2, 1)], True, id="one after the other, where as many others come back"),
        pytest.param([*EVENINGS, *EVENINGS[:1], (4, 50, 0)], True, id="in the evening, when the others go"),
        pytest.param([*EVENINGS, *EVENINGS[:1], (10, 0, 0), (4, 50, 0)], True, id="by night"),
        pytest.param([(10, 10, 8), (38, 50, 0)], True, id="when a weekend begins"),
        pytest.param([(36, 0, 0), (1, 9, 9), (1, 9, 0)], True, id="he comes back himself, and then stops"),
        pytest.param(
            [(12, 4, 4), (0.5, 13, 13), (23, 4, 4), (0.5, 13, 13), (1, 13, 4)],
            True,
            id="the same where others come back",
        ),
        # What is left to him, as mailward.policy.returns says.
        pytest.param([(12, 0, 0), (0.5, 9, 9), (23, 0, 0), (0.5, 9, 9), (1, 9, 0)], False, id="yesterday and today"),
        pytest.param([(36, 10, 8), (1, 9, 0)], False, id="the others are cut off, and he is not"),
    ],
)
def test_what_a_stranger_can_do(stretches: list[Stretch], is_closed: bool) -> None:
    """Each count is an origin that passed twice, an hour apart, and was not asked for six hours."""
    assert judged(*stretches).is_closed is is_closed


@pytest.mark.parametrize("honest", [0, 2, 5, 7, 20, 100])
@pytest.mark.parametrize(
    ("seconds", "comes_back"),
    [
        pytest.param(0.01, False, id="burst"),
        pytest.param(60, False, id="over an hour"),
        pytest.param(1200, False, id="over the day"),
        pytest.param(0.01, True, id="came back an hour ago"),
    ],
)
def test_one_machine_with_sixty_names_does_not_open_it(honest: int, seconds: float, comes_back: bool) -> None:
    """Of which each has passed twice, by a wildcard in the DNS or as a network of its own, and now gives up what it sends."""
    paper, windows, lot = Paper(), Windows(), random.Random(honest)
    attack = START + 30 * HOUR
    sightings: list[tuple[float, Triplet]] = []

    def send(origin: str, at: float, *, is_given_up: bool = False) -> None:
        triplet = Triplet(origin, f"ann@{origin}", f"{at}@our.example")
        sightings.extend([(at, triplet)] if is_given_up else [(at, triplet), (at + 300, triplet)])

    for number in range(honest * 50):
        at = START + lot.uniform(0, 50) * HOUR
        for before in (-7 * HOUR, -3 * HOUR, 0):
            send(f"{number}.honest.example", at + before)
    for number in range(60):
        origin, at = f"{number}.evil.example", attack + number * seconds
        for before in (-3 * HOUR, -2 * HOUR):
            send(origin, at + before)
        send(origin, at - HOUR if comes_back and number < 30 else at, is_given_up=not comes_back or number >= 30)
    breaker, now = ReturnBreaker(), START
    for at, triplet in sorted(sightings, key=lambda each: each[0]):
        while now < at:
            now += RETURN_BUCKET_SECONDS
            breaker = breaker.step(paper.returns(now), now) if now > attack else breaker
            assert breaker.is_closed
        paper.sight(triplet, windows, at)
    assert sum(each.expected for each in paper.returns(attack + DAY)) >= 60


def test_strangers_and_busy_networks_are_few_voices() -> None:
    """A run of a botnet: thousands of networks that never passed, and one with a mail server in it."""
    paper, windows = Paper(), Windows()
    for hour, recipient in ((0, "bob1"), (2, "bob2")):
        mixed = Triplet("192.0.2.0/24", "ann@example.com", recipient)
        paper.sight(mixed, windows, START + hour * HOUR)
        paper.sight(mixed, windows, START + hour * HOUR + 60)
    for number in range(5000):
        now = START + 3 * HOUR + number
        paper.sight(Triplet(f"{number}.example", "eve", "bob"), windows, now)
        paper.sight(Triplet("192.0.2.0/24", f"eve{number}", "bob"), windows, now)
    now = START + 6 * HOUR
    assert sum(each.expected for each in paper.returns(now)) == 1
    assert ReturnBreaker().step(paper.returns(now), now).is_closed


def test_it_is_open_for_ten_minutes_and_then_tries_some() -> None:
    counts, now = counted((36, 10, 8), (1, 10, 0))
    breaker = ReturnBreaker().step(counts, now)
    assert (breaker.state, breaker.changed_at) == (OPEN, now)
    assert (breaker.expected, breaker.returned) == (30, 0)
    assert breaker.step(counts, now + 599).state is OPEN
    assert breaker.step(counts, now + 600).state is HALF_OPEN


@pytest.mark.parametrize(
    ("trial", "state"),
    [
        pytest.param([(0.5, 1, 1)], HALF_OPEN, id="too few were tried to say"),
        pytest.param([(1, 1, 1)], CLOSED, id="those that were tried come back"),
        pytest.param([(0.5, 2, 1)], CLOSED, id="half of them are enough"),
        pytest.param([(0.5, 3, 1)], OPEN, id="a third is not"),
        pytest.param([(0.5, 5, 0)], OPEN, id="none comes back"),
        pytest.param([(6, 0, 0)], HALF_OPEN, id="nobody was there to be tried"),
    ],
)
def test_the_trial_decides(trial: list[Stretch], state: BreakerState) -> None:
    pause = (1 / 6, 0, 0)  # open
    counts, over = counted((36, 10, 8), (1, 10, 0), pause, *trial)
    states = [ReturnBreaker().step(counts, over + minutes * 60).state for minutes in (0, 10, 20, 30)]
    assert next((each for each in states if each is not HALF_OPEN), HALF_OPEN) is state


def test_trials_that_fail_come_less_and_less_often() -> None:
    world = World(rate=200, chance=lambda hour: 0.8 if hour < 30 else 0.0)
    world.run(hours=48)
    waits = [then - at for (at, before), (then, after) in world.changes() if (before, after) == (OPEN, HALF_OPEN)]
    assert waits[:5] == [600.0, 1200.0, 2400.0, 4800.0, 7200.0]
    assert set(waits[5:]) == {7200.0}


def test_closed_again_it_is_not_opened_by_what_opened_it() -> None:
    counts, over = counted((36, 10, 8), (2, 10, 0), (1, 3, 3))
    assert ReturnBreaker().step(counts, over + 1800).is_closed
    for minutes in range(30, 600, 10):
        assert ReturnBreaker().step(counts, over + minutes * 60).is_closed


def test_after_a_day_without_evidence_it_closes() -> None:
    counts, over = counted((36, 10, 8), (1, 10, 0))
    assert not ReturnBreaker().step(counts, over + 12 * HOUR).is_closed
    assert ReturnBreaker().step(counts, over + DAY).is_closed


def test_who_starts_now_knows_what_the_others_know() -> None:
    world = World(rate=60, chance=lambda hour: 0.8 if hour < 26 or hour > 29 else 0.0)
    world.run(hours=25)
    breaker = ReturnBreaker()
    for _ in range(12 * BUCKETS_AN_HOUR):
        world.run(hours=1 / BUCKETS_AN_HOUR)
        breaker = breaker.step(world.counts(), world.now)
        assert breaker == ReturnBreaker().step(world.counts(), world.now)
        shuffled = random.Random(4).sample(world.counts(), len(world.counts()))
        assert breaker == ReturnBreaker().step(shuffled, world.now)
    assert len({state for _at, state in world.history}) == 3


def test_clocks_that_differ_by_seconds_agree_but_for_these_seconds() -> None:
    counts, now = counted((36, 10, 8), (1, 10, 0))
    assert ReturnBreaker().step(counts, now - 1).is_closed
    assert {ReturnBreaker().step(counts, now + seconds).state for seconds in range(0, 600, 7)} == {OPEN}


def test_who_comes_late_mends_the_past() -> None:
    world = World(rate=60, chance=lambda hour: 0.9, longest_wait=2 * HOUR)  # a third come within the patience
    world.run(hours=48)
    assert {state for _at, state in world.history} == {CLOSED}


def test_a_long_delay_is_waited_for() -> None:
    stretches: list[Stretch] = [(36, 10, 8), (1.5, 10, 0)]
    assert not judged(*stretches).is_closed
    assert judged(*stretches, rules=rules_for(Windows(delay=HOUR))).is_closed
    assert not judged(*stretches, (1, 10, 0), rules=rules_for(Windows(delay=HOUR))).is_closed


def test_a_delay_of_days_leaves_something_to_judge() -> None:
    assert not judged((30, 10, 8), (13, 10, 0), rules=rules_for(Windows(delay=2 * DAY))).is_closed


@pytest.mark.parametrize(
    "counts",
    [
        pytest.param([ReturnCount(START + 30 * DAY, 1000, 0)], id="in the future"),
        pytest.param([ReturnCount(START - 30 * DAY, 1000, 0)], id="long ago"),
        pytest.param([ReturnCount(START, -1000, -1000)], id="fewer than none"),
        pytest.param([ReturnCount(START, 10, 10**30), ReturnCount(START + 600, 20, 0)], id="more than all"),
    ],
)
def test_counts_that_make_no_sense_open_nothing(counts: list[ReturnCount]) -> None:
    assert ReturnBreaker().step(counts, START + 3 * HOUR).is_closed


TRIPLETS = [Triplet(f"{number}.example", "ann@example.com", "bob@here.example") for number in range(4000)]


def picked(breaker: ReturnBreaker, triplets: Sequence[Triplet] = TRIPLETS) -> set[Triplet]:
    return {each for each in triplets if breaker.is_tried(each)}


def test_closed_all_are_greylisted_and_open_none() -> None:
    assert picked(ReturnBreaker(state=CLOSED)) == set(TRIPLETS)
    assert picked(ReturnBreaker(state=OPEN)) == set()


def test_half_open_one_in_twenty_is_and_on_every_machine_the_same() -> None:
    found = picked(ReturnBreaker(state=HALF_OPEN, trial=7))
    assert 150 <= len(found) <= 250
    assert found == picked(ReturnBreaker(state=HALF_OPEN, trial=7, changed_at=5.0, wait=6.0, expected=9))
    # Of a digest, not of Python's hash(), which differs from process to process.
    assert Triplet("286.example", "ann@example.com", "bob@here.example") in found


def test_nobody_is_tried_for_ever() -> None:
    """Where retries are not recognized, whoever is tried is deferred for as long as that lasts."""
    pending = set(TRIPLETS)
    for trial in range(6):
        pending &= picked(ReturnBreaker(state=HALF_OPEN, trial=trial))
    assert not pending
    counts, now = counted((36, 10, 8), (1, 10, 0))
    trials = {ReturnBreaker().step(counts, now + HOUR + part * TRIAL_SECONDS).trial for part in (0, 0.5, 1, 1.5)}
    assert 2 <= len(trials) <= 3


def test_a_triplet_of_any_text_is_tried_or_not() -> None:
    assert isinstance(ReturnBreaker(state=HALF_OPEN).is_tried(Triplet("", "\udcff", "\0\x7f")), bool)


@pytest.mark.parametrize("rate", [4, 20, 100, 1000])
def test_where_clients_come_back_it_stays_closed(rate: float) -> None:
    world = World(rate=rate, chance=lambda hour: 0.75, by_night=0.2)
    world.run(hours=3 * 24)
    assert {state for _at, state in world.history} == {CLOSED}


@pytest.mark.parametrize(
    ("rate", "noticed_hours", "back_hours"),
    [
        pytest.param(1000, 1.5, 4.5, id="a thousand such clients an hour"),
        pytest.param(100, 1.5, 6, id="a hundred"),
        pytest.param(20, 3, 12, id="twenty"),
        pytest.param(10, 5, 20, id="ten"),
    ],
)
def test_a_collapse_is_noticed_and_its_end_too(rate: float, noticed_hours: float, back_hours: float) -> None:
    world = World(rate=rate, chance=lambda hour: 0.8 if hour < 30 or hour >= 40 else 0.0)
    world.run(hours=30)
    assert {state for _at, state in world.history} == {CLOSED}
    world.run(hours=noticed_hours)
    assert world.breaker.state is not CLOSED
    world.run(hours=10 - noticed_hours + back_hours)
    assert world.breaker.state is CLOSED
    world.run(hours=24)
    assert {state for at, state in world.history if at > START + (40 + back_hours) * HOUR} == {CLOSED}


def test_a_fault_that_lasts_is_known_for_most_of_a_day() -> None:
    world = World(rate=100, chance=lambda hour: 0.8 if hour < 30 else 0.0)
    world.run(hours=30 + 48)
    seconds = Counter[BreakerState]()
    for at, state in world.history:
        if START + 30 * HOUR < at <= START + 54 * HOUR:
            seconds[state] += RETURN_BUCKET_SECONDS
    assert seconds[OPEN] + seconds[HALF_OPEN] > 21 * HOUR
    # After that nothing tells it from strangers; and it never goes to and fro.
    assert [after for _before, (_at, after) in world.changes()][-1] is CLOSED
    assert sum(before is CLOSED for (_at, before), _after in world.changes()) == 1


@given(
    st.lists(
        st.tuples(st.integers(-200, 200), st.integers(-5, 10**6), st.integers(-5, 10**6)),
        max_size=100,
    ),
    st.floats(0, 2 * DAY),
)
def test_whatever_was_counted_a_day_later_it_is_closed(raw: list[tuple[int, int, int]], later: float) -> None:
    counts = [ReturnCount(START + index * RETURN_BUCKET_SECONDS, *numbers) for index, *numbers in raw]
    breaker = ReturnBreaker().step(counts, START + later)
    assert breaker.changed_at <= START + later
    assert breaker.returned <= breaker.expected or not breaker.expected
    assert ReturnBreaker().step(counts, START + 200 * RETURN_BUCKET_SECONDS + 2 * DAY).is_closed


@dataclass
class World:
    """Clients that are known to retry, `rate` an hour, of which `chance(hour)` come back; greylisted as the breaker says."""

    rate: float
    chance: Callable[[float], float]
    longest_wait: float = 0.9 * HOUR
    by_night: float = 1.0
    now: float = START
    breaker: ReturnBreaker = field(default_factory=ReturnBreaker)
    history: list[tuple[float, BreakerState]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(round(self.rate))
        self._expected: Counter[float] = Counter()
        self._returned: Counter[float] = Counter()
        self._on_their_way: list[tuple[float, float]] = []

    def counts(self) -> list[ReturnCount]:
        starts = [start for start in sorted(self._expected) if start > self.now - 2 * DAY]
        return [ReturnCount(start, self._expected[start], self._returned[start]) for start in starts]

    def changes(self) -> list[tuple[tuple[float, BreakerState], tuple[float, BreakerState]]]:
        kept = [
            each for number, each in enumerate(self.history) if not number or self.history[number - 1][1] != each[1]
        ]
        return list(pairwise(kept))

    def run(self, hours: float) -> None:
        for _ in range(round(hours * BUCKETS_AN_HOUR)):
            self._live_a_bucket()

    def _live_a_bucket(self) -> None:
        hour = (self.now - START) / HOUR
        part = {CLOSED: 1.0, OPEN: 0.0, HALF_OPEN: 1 / self.breaker.rules.one_in}[self.breaker.state]
        mean = self.rate / BUCKETS_AN_HOUR * part * (self.by_night if hour % 24 < 8 else 1.0)
        for _ in range(self._how_many(mean)):
            self._expected[self.now] += 1
            if self._random.random() < self.chance(hour):
                seconds = self._random.uniform(0, RETURN_BUCKET_SECONDS) + self._random.triangular(
                    60, self.longest_wait, 60
                )
                self._on_their_way.append((self.now + seconds, self.now))
        self.now += RETURN_BUCKET_SECONDS
        waiting = self._on_their_way
        self._returned.update(start for at, start in waiting if at <= self.now)
        self._on_their_way = [(at, start) for at, start in waiting if at > self.now]
        self.breaker = self.breaker.step(self.counts(), self.now)
        self.history.append((self.now, self.breaker.state))

    def _how_many(self, mean: float) -> int:
        slots = max(20, round(3 * mean))
        return sum(self._random.random() < mean / slots for _ in range(slots))
