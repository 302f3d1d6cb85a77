"""The breaker before greylisting's store: what is away costs nobody anything, and comes back by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from mailward.adapters.guarded_greylist import GuardedGreylist
from mailward.adapters.memory_greylist import MemoryGreylist
from mailward.adapters.store_breaker import FAILURES, OPENED
from mailward.model.errors import StoreError, StoreFailure
from mailward.model.greylist import Memory, Sighting, Triplet, Windows
from mailward.model.ports import TripletStore
from tests.support.processes import wait_until
from tests.support.told import Told

TRIPLET = Triplet("192.0.2.0/24", "a@example.com", "b@example.net")
WINDOWS = Windows()
BUDGET = 0.2


class OddStore:
    """A store that fails, or takes its time, as it is told; `asked` counts what reached it."""

    def __init__(self) -> None:
        self._store = MemoryGreylist()
        self.failure: StoreFailure | None = None
        self.seconds = 0.0
        self.asked = 0
        self.probes = 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._store, name)

        def called(*arguments: Any, **named: Any) -> Any:
            self.asked += 1
            self.probes += name == "probe"
            time.sleep(self.seconds)
            if self.failure is not None:
                raise StoreError(self.failure, "as told")
            return method(*arguments, **named)

        return called


@pytest.fixture
def store() -> OddStore:
    return OddStore()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def guarded(store: OddStore, told: Told) -> GuardedGreylist:
    return GuardedGreylist(cast(TripletStore, store), BUDGET, told, told)


def sight(guarded: GuardedGreylist) -> Sighting | None:
    return guarded.sight(TRIPLET, WINDOWS)


def test_what_the_store_says_is_passed_on(guarded: GuardedGreylist) -> None:
    sighting = sight(guarded)
    assert sighting is not None
    assert sighting.memory is Memory.NEW
    assert guarded.recalls(TRIPLET, WINDOWS) is False


@pytest.mark.parametrize("failure", StoreFailure, ids=lambda failure: failure.value)
def test_two_failures_in_a_row_open_it_and_then_nobody_asks(
    guarded: GuardedGreylist, store: OddStore, told: Told, failure: StoreFailure
) -> None:
    store.failure = failure
    assert sight(guarded) is None
    assert not guarded.is_open
    assert sight(guarded) is None
    assert guarded.is_open
    asked = store.asked
    assert [sight(guarded) for _ in range(100)] == [None] * 100
    assert guarded.recalls(TRIPLET, WINDOWS) is False
    assert store.asked == asked
    assert told.counts[FAILURES, failure.value] == 2
    assert told.counts[OPENED, ""] == 1
    assert told.events.count(("error", "store-away")) == 1


def test_a_single_failure_is_forgotten_with_the_next_thing_written(guarded: GuardedGreylist, store: OddStore) -> None:
    for number in range(5):
        triplet = replace(TRIPLET, rcpt_to=f"{number}@example.net")
        store.failure = StoreFailure.TIMEOUT
        assert guarded.sight(triplet, WINDOWS) is None
        store.failure = None
        assert guarded.sight(triplet, WINDOWS) is not None
    assert not guarded.is_open


def test_what_can_be_read_does_not_hide_that_nothing_can_be_written(guarded: GuardedGreylist, store: OddStore) -> None:
    """As in a locked file: strangers wait in vain, while known triplets and the watching thread are answered."""
    sight(guarded)
    for number in range(2):
        store.failure = StoreFailure.TIMEOUT
        assert guarded.sight(replace(TRIPLET, rcpt_to=f"{number}@example.net"), WINDOWS) is None
        store.failure = None
        sight(guarded)
        guarded.consult(store.orders)
        guarded.look_after()
    assert guarded.is_open


def test_answers_slower_than_the_budget_count_and_open_it(guarded: GuardedGreylist, store: OddStore) -> None:
    store.seconds = BUDGET * 1.2
    assert sight(guarded) is not None  # it is an answer all the same
    assert sight(guarded) is not None
    assert guarded.is_open


def test_it_closes_by_itself_once_a_probe_has_written(guarded: GuardedGreylist, store: OddStore, told: Told) -> None:
    store.failure = StoreFailure.AWAY
    sight(guarded)
    sight(guarded)
    began = time.monotonic()
    while time.monotonic() - began < 1.5:
        guarded.look_after()
        time.sleep(0.05)
    assert guarded.is_open
    assert store.probes < 4  # the waits between them grow
    store.failure = None

    def is_back() -> bool:
        guarded.look_after()
        return not guarded.is_open

    wait_until(is_back, "the breaker closing")
    assert told.events[-1] == ("info", "store-back")
    assert sight(guarded) is not None


def test_housekeeping_that_is_slow_or_fails_is_told_once_and_takes_nothing_away(
    guarded: GuardedGreylist, store: OddStore, told: Told
) -> None:
    store.seconds = BUDGET * 1.2
    guarded.look_after()
    guarded.look_after()
    store.seconds, store.failure = 0.0, StoreFailure.FULL
    guarded.look_after()
    guarded.look_after()
    assert not guarded.is_open
    assert told.events == [("error", "store-housekeeping-failed")]
    assert told.counts[FAILURES, "full"] == 2


def test_housekeeping_goes_on_while_the_store_is_left_alone(guarded: GuardedGreylist, store: OddStore) -> None:
    store.failure = StoreFailure.FULL
    sight(guarded)
    sight(guarded)
    asked = store.asked
    guarded.look_after()
    assert store.asked == asked + 1


@pytest.mark.parametrize(
    ("failure", "opens"),
    [
        (StoreFailure.AWAY, True),
        (StoreFailure.TIMEOUT, True),
        (StoreFailure.DAMAGED, False),
        (StoreFailure.REFUSED, False),
    ],
    ids=lambda value: value.value if isinstance(value, StoreFailure) else "",
)
def test_what_no_message_waits_for_opens_it_only_where_nobody_answers(
    guarded: GuardedGreylist, store: OddStore, told: Told, failure: StoreFailure, opens: bool
) -> None:
    store.failure = failure
    assert [guarded.consult(store.orders) for _ in range(3)] == [None] * 3
    assert guarded.is_open is opens
    assert [event for _, event in told.events] == (["store-away"] if opens else ["store-read-failed"])


def test_a_probe_that_succeeds_where_messages_fail_makes_no_flapping(
    guarded: GuardedGreylist, store: OddStore, told: Told
) -> None:
    """Each time it opens again soon it is left alone for longer, and the log has it once."""
    waits = []
    for _ in range(3):
        store.failure = StoreFailure.REFUSED
        while not guarded.is_open:
            sight(guarded)
        began = time.monotonic()
        store.failure = None

        def is_back() -> bool:
            guarded.look_after()
            return not guarded.is_open

        wait_until(is_back, "the breaker closing")
        waits.append(time.monotonic() - began)
    assert waits[0] < waits[1] < waits[2]
    assert told.events == [("error", "store-away"), ("info", "store-back")]


def test_a_slow_probe_does_not_close_it(guarded: GuardedGreylist, store: OddStore) -> None:
    store.failure = StoreFailure.AWAY
    sight(guarded)
    sight(guarded)
    store.failure, store.seconds = None, BUDGET * 1.5
    began = time.monotonic()
    while time.monotonic() - began < 1.5:
        guarded.look_after()
        time.sleep(0.05)
    assert guarded.is_open


def test_a_damaged_store_is_told_at_once(guarded: GuardedGreylist, store: OddStore, told: Told) -> None:
    store.failure = StoreFailure.DAMAGED
    sight(guarded)
    assert told.events == [("critical", "store-damaged")]


def test_a_bug_of_the_store_is_no_failure_of_it(guarded: GuardedGreylist, store: OddStore) -> None:
    with pytest.raises(TypeError):
        guarded.consult(lambda: cast(None, len(3)))  # type: ignore[arg-type]
    assert not guarded.is_open
