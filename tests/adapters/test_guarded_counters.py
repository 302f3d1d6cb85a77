"""The breaker before the counters' store: while it is away limits are held here, and what was counted is not lost."""

from __future__ import annotations

import time
from typing import cast

import pytest

from mailward.adapters.guarded_counters import COUNTED_HERE, FAILURES, OPENED, PORTION, GuardedCounters
from mailward.adapters.memory_counters import COUNTER_OCTETS, MemoryLimits
from mailward.adapters.owed_charges import OwedCharges
from mailward.model.errors import StoreError, StoreFailure
from mailward.model.limits import KNOWN, Charge, Charging, CounterKey, Force, Kind, Outcome, Sent, Window
from mailward.model.ports import CounterStore
from mailward.policy.ratelimit import item_of
from tests.support.limit_dialogues import Paper, charge, moment
from tests.support.processes import wait_until
from tests.support.told import Told

BUDGET = 0.2
ALICE = "sasl_username=alice"


class OddStore:
    """A store that fails, or takes its time, as it is told; `charged` and `probes` count what reached it."""

    def __init__(self) -> None:
        self.kept = MemoryLimits()
        self.failure: StoreFailure | None = None
        self.seconds = 0.0
        self.charged = 0
        self.probes = 0
        self.longest_call = 0
        self.bug: Exception | None = None

    def charge(self, chargings: list[Charging], now: float | None = None) -> list[Outcome]:
        self.charged += 1
        self.longest_call = max(self.longest_call, len(chargings))
        self._do()
        return self.kept.charge(chargings, now)

    def probe(self) -> None:
        self.probes += 1
        self._do()

    def tend(self, now: float | None = None) -> None:
        self._do()

    def close(self) -> None:
        pass

    def _do(self) -> None:
        time.sleep(self.seconds)
        if self.bug is not None:
            raise self.bug
        if self.failure is not None:
            raise StoreError(self.failure, "as told")


@pytest.fixture
def store() -> OddStore:
    return OddStore()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def guarded(store: OddStore, told: Told) -> GuardedCounters:
    return GuardedCounters(cast(CounterStore, store), BUDGET, told, told)


def charging(*charges: str, sent: Sent | None = None) -> Charging:
    return Charging(tuple(map(charge, charges)), sent)


def is_charged(guarded: GuardedCounters, *charges: str) -> bool:
    outcomes = guarded.charge([charging(*charges)])
    assert outcomes is not None
    return outcomes[0].is_charged


def totals(store: OddStore, looked_at: str) -> tuple[int, ...]:
    return store.kept.charge([charging(looked_at)])[0].readings[0].totals


def send_away(guarded: GuardedCounters, store: OddStore, failure: StoreFailure = StoreFailure.AWAY) -> None:
    """Let it fail twice; nothing is charged for that."""
    store.failure = failure
    while not guarded.is_open:
        guarded.charge([charging("nobody/hour=0")])


def bring_back(guarded: GuardedCounters, store: OddStore) -> None:
    store.failure = None

    def is_back() -> bool:
        guarded.look_after()
        return not guarded.is_open

    wait_until(is_back, "the breaker closing")


def test_what_the_store_says_is_passed_on(guarded: GuardedCounters, store: OddStore, told: Told) -> None:
    requests = [charging("alice/hour=4"), charging("alice/hour=2"), charging("alice/hour", "alice/new@a")]
    paper, now = Paper(), time.time()
    outcomes = guarded.charge(requests)
    assert outcomes is not None
    expected = [paper.charge(each, now).is_charged for each in requests]
    assert [outcome.is_charged for outcome in outcomes] == expected == [True, False, True]
    assert guarded.charge([]) == []
    assert totals(store, "alice/hour=0") == (5,)
    assert told.counts == {}


@pytest.mark.parametrize("failure", StoreFailure, ids=lambda failure: failure.value)
def test_two_failures_in_a_row_open_it_and_then_nobody_asks(
    guarded: GuardedCounters, store: OddStore, told: Told, failure: StoreFailure
) -> None:
    store.failure = failure
    assert is_charged(guarded, "alice/hour")
    assert not guarded.is_open
    assert is_charged(guarded, "alice/hour")
    assert guarded.is_open
    assert [is_charged(guarded, "alice/hour") for _ in range(50)] == [True] * 3 + [False] * 47
    assert store.charged == 2
    assert told.counts == {(FAILURES, failure.value): 2, (OPENED, ""): 1, (COUNTED_HERE, ""): 52}
    assert told.events.count(("error", "store-away")) == 1


@pytest.mark.parametrize("failure", [StoreFailure.DAMAGED, StoreFailure.SCHEMA], ids=lambda failure: failure.value)
def test_a_store_that_somebody_must_look_at_is_told_once_whoever_has_met_it(
    guarded: GuardedCounters, store: OddStore, told: Told, failure: StoreFailure
) -> None:
    guarded.met(StoreError(failure, "as told"))
    store.failure = failure
    for _ in range(3):
        guarded.look_after()
        guarded.charge([charging("alice/hour")])
        guarded.met(StoreError(failure, "as told"))
    critical = [event for level, event in told.events if level == "critical"]
    assert critical == ["store-damaged"]
    guarded.met(StoreError(failure, "another file"))
    assert told.events[-1] == ("critical", "store-damaged")


def test_other_failures_that_somebody_else_has_met_are_counted_and_open_nothing(
    guarded: GuardedCounters, told: Told
) -> None:
    for _ in range(5):
        guarded.met(StoreError(StoreFailure.AWAY))
    assert not guarded.is_open
    assert (told.events, told.counts) == ([], {(FAILURES, "away"): 5})


def test_no_more_than_two_calls_wait_for_a_store_that_is_away(guarded: GuardedCounters, store: OddStore) -> None:
    store.seconds, store.failure = 0.05, StoreFailure.TIMEOUT
    for number in range(500):
        assert is_charged(guarded, f"a{number}/hour")
    assert store.charged == 2


def test_answers_slower_than_the_budget_count_and_open_it(guarded: GuardedCounters, store: OddStore) -> None:
    store.seconds = BUDGET * 1.2
    assert is_charged(guarded, "alice/hour")
    assert is_charged(guarded, "alice/hour")
    assert guarded.is_open
    assert totals(store, "alice/hour=0") == (2,)


def test_a_single_failure_is_forgotten_with_the_next_thing_charged(guarded: GuardedCounters, store: OddStore) -> None:
    for number in range(5):
        store.failure = StoreFailure.TIMEOUT
        assert is_charged(guarded, f"a{number}/hour")
        store.failure = None
        assert is_charged(guarded, f"b{number}/hour")
    assert not guarded.is_open


@pytest.mark.parametrize("request_", ["alice/hour", "bob/hour=0"], ids=["a refusal", "a look"])
def test_what_writes_nothing_does_not_hide_that_nothing_can_be_written(
    guarded: GuardedCounters, store: OddStore, request_: str
) -> None:
    is_charged(guarded, "alice/hour=5")
    for number in range(2):
        store.failure = StoreFailure.FULL
        is_charged(guarded, f"a{number}/hour")
        store.failure = None
        is_charged(guarded, request_)
    assert guarded.is_open


def test_a_stolen_account_is_limited_while_the_store_is_away(guarded: GuardedCounters, store: OddStore) -> None:
    send_away(guarded, store)
    sent = [is_charged(guarded, "alice/hour-and-day", f"alice/new@r{number}") for number in range(500)]
    assert sent == [True] * 5 + [False] * 495
    assert is_charged(guarded, "bob/hour-and-day", "bob/new@a")


def test_nobody_is_taken_for_a_thief_for_writing_to_those_he_knows(guarded: GuardedCounters, store: OddStore) -> None:
    """Whom an account knows is in the store: without it everybody is a first-time recipient."""
    known = [f"alice/surge@r{number}" for number in range(20)]
    store.kept.charge([charging(f"{each}!") for each in known])
    send_away(guarded, store)
    outcomes = guarded.charge([charging(each) for each in known])
    assert outcomes is not None
    assert all(outcome.is_charged for outcome in outcomes)
    assert not any(reading.is_over for outcome in outcomes for reading in outcome.readings)


def test_what_was_counted_here_is_charged_when_the_store_is_back(
    guarded: GuardedCounters, store: OddStore, told: Told
) -> None:
    store.kept.charge([charging("alice/hour=3", "alice/new@a")])
    send_away(guarded, store)
    requests = [
        charging("alice/hour=2", "alice/pair/example.org", "alice/new@a"),
        charging("alice/hour=2", "alice/new@b", "bob/different@a", sent=Sent("alice", "4bXyz1")),
        charging("alice/hour=2", "alice/new@c", sent=Sent("alice", "refused")),
        charging("bob/hour=4?", "alice/new@d"),
        charging("bob/hour=4?", "bob/different@b"),
    ]
    outcomes = guarded.charge(requests)
    assert outcomes is not None
    assert [outcome.is_charged for outcome in outcomes] == [True, True, False, True, True]
    assert totals(store, "alice/hour=0") == (3,)
    bring_back(guarded, store)
    assert totals(store, "alice/hour=0") == (7,)
    assert totals(store, "alice/pair/example.org=0") == (1,)
    assert totals(store, "alice/new=0@z") == (3,)
    assert totals(store, "bob/hour=0") == (4,)
    assert totals(store, "bob/different=0@z") == (2,)
    assert [queue_id for _, queue_id in store.kept.sent("alice")] == ["4bXyz1"]
    assert not is_charged(guarded, "alice/hour")
    assert is_charged(guarded, "alice/new@d")
    assert ("info", "store-back") in told.events


def test_it_is_charged_once(guarded: GuardedCounters, store: OddStore) -> None:
    for turn in range(1, 3):
        send_away(guarded, store)
        assert is_charged(guarded, "alice/hour=2", "alice/different@a")
        bring_back(guarded, store)
        for _ in range(3):
            guarded.look_after()
        assert totals(store, "alice/hour=0") == (2 * turn,)


def test_after_a_single_failure_too(guarded: GuardedCounters, store: OddStore) -> None:
    store.failure = StoreFailure.AWAY
    assert is_charged(guarded, "alice/hour=2")
    store.failure = None
    guarded.look_after()
    assert not guarded.is_open
    assert totals(store, "alice/hour=0") == (2,)


def test_what_cannot_be_charged_yet_is_owed_still(guarded: GuardedCounters, store: OddStore) -> None:
    send_away(guarded, store)
    for number in range(PORTION + 8):
        assert is_charged(guarded, f"a{number}/hour=3", f"a{number}/new@x")
    real = store.charge

    def fail_after_one(chargings: list[Charging], now: float | None = None) -> list[Outcome]:
        if store.charged == 3:
            store.charge = real  # type: ignore[method-assign]
            raise StoreError(StoreFailure.AWAY, "again")
        return real(chargings, now)

    store.charge = fail_after_one  # type: ignore[method-assign]
    bring_back(guarded, store)
    for number in range(PORTION + 8):
        assert totals(store, f"a{number}/hour=0") == (3,)
        assert totals(store, f"a{number}/new=0@z") == (1,)


def test_what_is_owed_is_charged_in_portions(guarded: GuardedCounters, store: OddStore) -> None:
    send_away(guarded, store)
    requests = [charging(f"a{number}/hour", sent=Sent("alice", f"{number:04}")) for number in range(1000)]
    assert guarded.charge(requests) is not None
    store.longest_call = 0
    bring_back(guarded, store)
    assert store.longest_call <= 2 * PORTION
    assert len(list(store.kept.all_counters())) == 1000
    assert [queue_id for _, queue_id in store.kept.sent("alice")] == [f"{number:04}" for number in range(999, -1, -1)]


def test_limits_go_on_from_what_was_counted_here_before(guarded: GuardedCounters, store: OddStore) -> None:
    """A store that comes and goes gives nobody his limits anew each time."""
    send_away(guarded, store)
    assert is_charged(guarded, "alice/hour=5")
    bring_back(guarded, store)
    send_away(guarded, store)
    assert not is_charged(guarded, "alice/hour")


def test_where_even_counting_here_fails_nobody_knows(store: OddStore, told: Told) -> None:
    local = OddStore()
    guarded = GuardedCounters(cast(CounterStore, store), BUDGET, told, told, cast(CounterStore, local))
    store.failure = local.failure = StoreFailure.OTHER
    assert guarded.charge([charging("alice/hour")]) is None
    assert ("error", "counting-here-failed") in told.events


def test_a_slow_probe_does_not_close_it(guarded: GuardedCounters, store: OddStore) -> None:
    send_away(guarded, store)
    store.failure, store.seconds = None, BUDGET * 1.5

    def has_probed() -> bool:
        guarded.look_after()
        return store.probes > 1

    wait_until(has_probed, "two probes")
    assert guarded.is_open


def test_a_bug_met_while_probing_does_not_leave_the_store_alone_for_ever(
    guarded: GuardedCounters, store: OddStore
) -> None:
    send_away(guarded, store)
    store.failure = None
    real = store.probe

    def stumble() -> None:
        store.probe = real  # type: ignore[method-assign]
        raise ZeroDivisionError

    store.probe = stumble  # type: ignore[method-assign]

    def has_stumbled() -> bool:
        try:
            guarded.look_after()
        except ZeroDivisionError:
            return True
        return False

    wait_until(has_stumbled, "the bug")
    assert guarded.is_open
    bring_back(guarded, store)


# ---- what is owed ----

START = 1767225600.0


def owed(charges: list[tuple[str, str]], now: str) -> list[Charge]:
    """Return what is charged at last, of charges that were made at these times."""
    gathered, paper = OwedCharges(), Paper()
    for at, text in charges:
        request = charging(text)
        gathered.add(request, paper.charge(request, START + moment(at)), START + moment(at))
    due = gathered.take(100).chargings(START + moment(now))
    assert not gathered
    assert all(each.force is Force.FORCED for one in due for each in one.charges)
    return [each for one in due for each in one.charges]


@pytest.mark.parametrize(
    ("charges", "now", "costs"),
    [
        pytest.param([("0s", "alice/hour=2"), ("30m", "alice/hour=3")], "40m", [5], id="amounts are added up"),
        pytest.param([("0s", "alice/hour=2"), ("30m", "alice/hour=3")], "80m", [3], id="without what has cleared"),
        pytest.param([("0s", "alice/hour=2")], "2h", [], id="nothing, where all has"),
        pytest.param(
            [("0s", "alice/hour-and-day=2"), ("3h", "alice/hour-and-day=1")], "3h", [1], id="of the shortest window"
        ),
        pytest.param([("0s", "alice/hour=6"), ("0s", "alice/hour=0")], "0s", [], id="nothing refused, no look"),
        pytest.param([("0s", "alice/hour=4?"), ("0s", "alice/hour=4?")], "0s", [4], id="no shadow beyond its limit"),
    ],
)
def test_of_amounts_is_owed(charges: list[tuple[str, str]], now: str, costs: list[int]) -> None:
    assert [each.cost for each in owed(charges, now)] == costs


def test_of_items_is_owed_each_once_and_whom_an_account_knows_for_longer() -> None:
    charges = [("0s", "alice/new@a"), ("1s", "alice/new@a"), ("2s", "alice/new@b"), ("3s", "alice/different@a")]
    assert [(each.kind, each.item) for each in owed(charges, "10s")] == [
        (Kind.FIRST_TIME, item_of("a")),
        (Kind.FIRST_TIME, item_of("b")),
        (Kind.DISTINCT, item_of("a")),
    ]
    learned = owed(charges, "2d")
    assert [(each.item, each.windows) for each in learned] == [(item_of("a"), ()), (item_of("b"), ())]


def test_what_is_owed_is_bounded() -> None:
    gathered, paper = OwedCharges(max_owed=10, max_sent=10), Paper()
    for number in range(100):
        request = charging(f"a{number}/hour", sent=Sent("alice", str(number)))
        gathered.add(request, paper.charge(request, START), START)
    portion = gathered.take(1000)
    assert [each.key.owner for one in portion.owed for each in [one.charge]] == [
        f"sasl_username=a{number}" for number in range(90, 100)
    ]
    assert [sent.queue_id for sent in portion.sent] == [str(number) for number in range(90, 100)]
    gathered.put_back(portion, START)
    gathered.put_back(portion, START)
    assert len(gathered.take(1000).owed) == 10


# ---- the memory's bounds ----


def test_in_a_full_memory_those_who_go_on_are_limited_still() -> None:
    limits = MemoryLimits(max_octets=100 * (COUNTER_OCTETS + 100))
    one = Charge(CounterKey(ALICE, "hour"), (Window(5, 3600.0),))
    for number in range(2000):
        limits.charge([Charging((one._replace(key=CounterKey(f"client_address={number}", "hour")),))], START)
        if number % 50 == 0:
            limits.charge([Charging((one,))], START)
    assert len(list(limits.all_counters())) < 120
    assert not limits.charge([Charging((one,))], START)[0].is_charged


def test_in_the_memory_tending_leaves_nothing_of_what_has_expired() -> None:
    limits = MemoryLimits()
    for number in range(1200):
        limits.charge([charging(f"a{number}/hour", f"a{number}/new@x", sent=Sent(f"a{number}", "id"))], START)
    limits.charge([charging("alice/hour=5", "alice/new@a")], START + 200 * 86400.0)
    for _ in range(20):
        limits.tend(START + 200 * 86400.0)
    assert {record.key.owner for record in limits.all_counters()} == {ALICE}
    assert {record.key.limit for record in limits.counters(ALICE)} == {"hour", "new", KNOWN}
    assert limits.counters("sasl_username=a7") == []
    assert limits.sent("a7", START) == []
