"""One contract for every store of what limits count: the same dialogues, in memory, in a file, in Redis."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from mailward.model.limits import KNOWN, Charge, Charging, CounterKey, Kind, Sent, Window
from mailward.model.ports import LimitRecords
from mailward.policy.ratelimit import MAX_ITEMS, item_of
from tests.adapters.stores_support import Place
from tests.support.limit_dialogues import DIALOGUES, Paper, charge, moment, read, same
from tests.support.processes import wait_until

# Dialogues play in the future: nothing that counts real time, too, ends before they do.
START = time.time() // 86400 * 86400 + 86400
THREADS = 8
HOUR = (Window(5, 3600.0),)
ALICE, BOB, CAROL = "sasl_username=alice", "sasl_username=bob", "sasl_username=carol"


@pytest.fixture
def store(place: Place) -> Iterator[LimitRecords]:
    place.clear()
    opened = place.open_limits()
    yield opened
    opened.close()


@pytest.fixture
def other(place: Place, store: LimitRecords) -> Iterator[LimitRecords]:
    """Another store on the same state, as another process would have it."""
    opened = place.open_limits()
    yield opened
    opened.close()


def charging(*charges: str, sent: Sent | None = None) -> Charging:
    return Charging(tuple(map(charge, charges)), sent)


def charge_one(store: LimitRecords, *charges: str, at: str = "0s") -> bool:
    return store.charge([charging(*charges)], START + moment(at))[0].is_charged


def totals(store: LimitRecords, looked_at: str, at: str = "0s") -> tuple[int, ...]:
    look = charge(looked_at)._replace(cost=0)
    return store.charge([Charging((look,))], START + moment(at))[0].readings[0].totals


def kept(store: LimitRecords, *owners: str) -> dict[CounterKey, bytes]:
    records = [record for owner in owners for record in store.counters(owner)]
    assert len({record.key for record in records}) == len(records)
    return {record.key: record.value for record in records}


def in_threads(act: Callable[[int], object]) -> Counter[object]:
    start = threading.Barrier(THREADS)

    def run(number: int) -> object:
        start.wait()
        return act(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return Counter(pool.map(run, range(THREADS)))


@pytest.mark.parametrize("dialogue", DIALOGUES.values(), ids=DIALOGUES.keys())
def test_charges(store: LimitRecords, dialogue: str) -> None:
    paper = Paper()
    for line in read(dialogue):
        now = START + line.at
        (outcome,) = store.charge([line.charging], now)
        assert outcome == same(paper.charge(line.charging, now)), line
        assert outcome.is_charged is line.is_charged, line
    for owner in (ALICE, BOB, CAROL):
        assert kept(store, owner) == paper.of(owner)


@pytest.mark.parametrize("dialogue", DIALOGUES.values(), ids=DIALOGUES.keys())
def test_what_one_store_charges_another_sees(store: LimitRecords, other: LimitRecords, dialogue: str) -> None:
    for number, line in enumerate(read(dialogue)):
        asked = (store, other)[number % 2]
        assert asked.charge([line.charging], START + line.at)[0].is_charged is line.is_charged, line
    assert kept(store, ALICE, BOB, CAROL) == kept(other, ALICE, BOB, CAROL)


def test_requests_of_one_call_are_charged_one_after_the_other(store: LimitRecords) -> None:
    requests = [
        charging("alice/hour=3"),
        charging("alice/hour=3", "alice/pair"),
        charging("bob/hour=5", "alice/hour"),
        charging("alice/new@a", "alice/surge@a"),
        charging("alice/new@a", "alice/surge@a"),
        charging("bob/hour"),
        charging("alice/hour"),
        charging("alice/hour"),
    ]
    paper = Paper()
    outcomes = store.charge(requests, START)
    assert outcomes == [same(paper.charge(each, START)) for each in requests]
    assert [outcome.is_charged for outcome in outcomes] == [True, False, True, True, True, False, True, False]
    assert kept(store, ALICE, BOB) == paper.of(ALICE) | paper.of(BOB)


def test_many_requests_of_one_call(store: LimitRecords) -> None:
    requests = [charging(f"a{number % 50}/hour", "all/hour?") for number in range(300)]
    outcomes = store.charge(requests, START)
    assert [outcome.is_charged for outcome in outcomes] == [True] * 250 + [False] * 50
    assert totals(store, "all/hour") == (5,)


def test_nothing_is_charged_of_nothing(store: LimitRecords) -> None:
    assert store.charge([]) == []
    (outcome,) = store.charge([Charging(())])
    assert outcome.is_charged
    assert outcome.readings == ()
    assert list(store.all_counters()) == []


STRANGE = [
    *(
        "all",
        "a",
        "A",
        "a:b",
        "a|b",
        "{a}",
        "{a",
        "a}",
        "}a{",
        "{}",
        "{}a",
        "a,b",
        "a=b=c",
        "'; DROP TABLE counters; --",
    ),
    *('"', "\\", "\\x00%s%n", "*", "?", "[a-z]", "nil", "1", "1.0", "0x1", "$1", "a" * 340, "a" * 339, "~!@#$%^&*()"),
]


def test_no_counter_is_taken_for_another(store: LimitRecords) -> None:
    keys = [CounterKey(owner.replace(" ", "_"), limit, "") for owner in STRANGE for limit in ("hour", "h", "hou")]
    keys += [CounterKey("all", "hour", rest.replace(" ", "_")) for rest in STRANGE]
    for key in keys:
        (outcome,) = store.charge([Charging((Charge(key, HOUR, 5),))], START)
        assert outcome.is_charged, key
    for key in keys:
        (outcome,) = store.charge([Charging((Charge(key, HOUR, 1),))], START)
        assert not outcome.is_charged, key
    assert Counter(record.key for record in store.all_counters()) == Counter(keys)
    for key in keys:
        assert key in {record.key for record in store.counters(key.owner)}


@pytest.mark.parametrize("octets", [b"\0\0\0\0", b"\n\r\0\xff", b"    ", b"''\"\"", b"\xff\xff\xff\xff"], ids=repr)
@pytest.mark.parametrize("kind", [Kind.FIRST_TIME, Kind.DISTINCT], ids=lambda kind: kind.value)
def test_items_of_any_octets(store: LimitRecords, kind: Kind, octets: bytes) -> None:
    key = CounterKey(ALICE, "items")
    requests = [Charging((Charge(key, HOUR, 1, kind, item),)) for item in (octets, octets, item_of("a"), octets)]
    paper = Paper()
    assert store.charge(requests, START) == [same(paper.charge(each, START)) for each in requests]
    assert kept(store, ALICE) == paper.of(ALICE)


def test_an_item_is_not_found_across_two_others(store: LimitRecords) -> None:
    key = CounterKey(ALICE, "items")
    items = (b"abcd", b"efgh", b"cdef", b"defg", b"bcde", b"efgh")
    requests = [Charging((Charge(key, HOUR, 1, Kind.FIRST_TIME, item),)) for item in items]
    known = [outcome.readings[0].is_known for outcome in store.charge(requests, START)]
    assert known == [False] * 5 + [True]


@pytest.mark.parametrize(
    ("kind", "limit", "octets"),
    [(Kind.FIRST_TIME, KNOWN, 4), (Kind.DISTINCT, "items", 8)],
    ids=["first-time", "distinct"],
)
def test_in_a_full_set_the_oldest_makes_room(store: LimitRecords, kind: Kind, limit: str, octets: int) -> None:
    key, windows = CounterKey(ALICE, "items"), (Window(5000, 3600.0),)
    items = [item_of(str(number)) for number in range(MAX_ITEMS + 10)]
    requests = [Charging((Charge(key, windows, 1, kind, item),)) for item in items]
    for first in range(0, len(requests), 300):
        outcomes = store.charge(requests[first : first + 300], START)
        assert all(outcome.is_charged for outcome in outcomes)
    value = kept(store, ALICE)[CounterKey(ALICE, limit)]
    assert [value[at : at + 4] for at in range(0, len(value), octets)] == items[-MAX_ITEMS:]


def test_the_stores_own_clock(store: LimitRecords) -> None:
    key, windows = CounterKey(ALICE, "short"), (Window(1, 1.5),)
    request = Charging((Charge(key, windows),))
    assert store.charge([request])[0].is_charged
    refused = store.charge([request])[0]
    if not refused.is_charged:  # unless the machine slept meanwhile
        assert 0 < refused.readings[0].clears_in <= 1.55
    wait_until(lambda: store.charge([request])[0].is_charged, "the window is over")


def test_a_probe_leaves_nothing_behind(store: LimitRecords) -> None:
    store.probe()
    store.probe()
    assert list(store.all_counters()) == []
    assert dict(store.accounts()) == {}
    assert list(store.audit_log()) == []
    assert dict(store.notes()) == {}


def test_tending_an_empty_store(store: LimitRecords) -> None:
    store.tend()
    store.tend(START)
    assert list(store.all_counters()) == []


def test_tending_changes_no_count(store: LimitRecords) -> None:
    """Of what has expired nobody can tell whether it is there; of what has not, everybody."""
    for number in range(300):
        assert charge_one(store, f"a{number}/hour=5")
    assert charge_one(store, "alice/hour=5", "alice/new@a", "alice/different@a", at="3h")
    assert charge_one(store, "alice/pair", at="3h")
    before = kept(store, ALICE)
    for _step in range(20):
        store.tend(START + moment("3h+30m"))
    assert kept(store, ALICE) == before
    assert not charge_one(store, "alice/hour", at="3h+30m")
    assert charge_one(store, "a7/hour=5", at="3h+30m")


def test_all_counters_are_yielded_once_but_for_known_items(store: LimitRecords) -> None:
    for first in range(0, 1500, 100):
        numbers = range(first, first + 100)
        store.charge([charging(f"a{number}/hour", f"a{number}/new@x") for number in numbers], START)
    found = Counter(record.key for record in store.all_counters())
    assert set(found.values()) == {1}
    assert len(found) == 3000
    assert KNOWN not in {key.limit for key in found}


def test_a_record_says_when_it_may_be_forgotten(store: LimitRecords) -> None:
    paper = Paper()
    request = charging("alice/hour", "alice/pair/example.org", "alice/different@a")
    store.charge([request], START)
    paper.charge(request, START)
    for record in (*store.counters(ALICE), *store.all_counters()):
        assert record.expires >= paper.kept[record.key].expires


def test_reading_while_others_charge(store: LimitRecords, other: LimitRecords) -> None:
    requests = [charging(f"a{number}/hour") for number in range(1200)]
    for first in range(0, 1200, 100):
        store.charge(requests[first : first + 100], START)
    seen: Counter[CounterKey] = Counter()
    for number, record in enumerate(store.all_counters()):
        seen[record.key] += 1
        if number % 50 == 0 and number < 1000:  # a reader that is slow, and daemons that go on
            assert charge_one(other, f"new{number}/hour=5")
            assert not charge_one(store, f"new{number}/hour")
    assert all(seen[each.charges[0].key] == 1 for each in requests)


def test_a_reader_that_stops_halfway_locks_nobody_out(store: LimitRecords, other: LimitRecords) -> None:
    store.charge([charging(f"a{number}/hour") for number in range(100)], START)
    reading = store.all_counters()
    next(reading)
    assert charge_one(other, "alice/hour=5")
    del reading
    assert not charge_one(store, "alice/hour")


def test_a_reset_forgets_what_is_counted_but_not_whom_the_owner_knows(store: LimitRecords, other: LimitRecords) -> None:
    charges = ("alice/hour=5", "alice/pair/example.org=2", "alice/new@a", "alice/surge@a", "alice/different@a")
    assert charge_one(store, *charges)
    assert charge_one(store, "bob/hour=5")
    assert other.reset(ALICE) == 5
    assert {key.limit for key in kept(store, ALICE)} == {KNOWN}
    assert other.reset(ALICE) == 0
    assert store.charge([charging("alice/new@a")], START)[0].readings[0].is_known
    assert charge_one(store, "alice/hour=5", "alice/pair/example.org=2")
    assert not charge_one(store, "bob/hour")


def test_a_reset_of_nobody(store: LimitRecords) -> None:
    assert store.reset("sasl_username=nobody") == 0


def test_what_was_sent_is_noted_where_nothing_refuses(store: LimitRecords, other: LimitRecords) -> None:
    requests = [
        ("0s", charging("alice/hour=4", sent=Sent("alice", "4bXyz1"))),
        ("1s", charging("alice/hour=2", sent=Sent("alice", "refused"))),
        ("2s", charging("alice/hour=2?", sent=Sent("alice", "4bXyz2"))),
        ("2s", charging("bob/hour", sent=Sent("bob", "ABCDEF"))),
        ("3s", charging(sent=Sent("alice", "4bXyz3"))),
    ]
    for at, request in requests:
        store.charge([request], START + moment(at))
    assert [queue_id for _, queue_id in other.sent("alice", START + 5)] == ["4bXyz3", "4bXyz2", "4bXyz1"]
    assert [at for at, _ in store.sent("alice", START + 5)] == pytest.approx([START + 3, START + 2, START], abs=0.01)
    assert [queue_id for _, queue_id in store.sent("bob", START + 5)] == ["ABCDEF"]
    assert list(store.sent("carol", START + 5)) == []


def test_what_was_sent_is_forgotten_after_five_days(store: LimitRecords) -> None:
    for day in (0, 1, 4):
        store.charge([charging(sent=Sent("alice", f"day{day}"))], START + moment(f"{day}d"))
    assert [queue_id for _, queue_id in store.sent("alice", START + moment("5d-1s"))] == ["day4", "day1", "day0"]
    assert [queue_id for _, queue_id in store.sent("alice", START + moment("5d+1s"))] == ["day4", "day1"]
    assert list(store.sent("alice", START + moment("10d"))) == []


def test_of_much_that_was_sent_the_newest_is_known(store: LimitRecords) -> None:
    for first in range(0, 5200, 400):
        numbers = range(first, first + 400)
        store.charge([charging(sent=Sent("alice", f"{number:05}")) for number in numbers], START + first)
    found = [queue_id for _, queue_id in store.sent("alice", START + 5200)]
    assert len(found) <= 5000
    assert set(found) >= {f"{number:05}" for number in range(400, 5200)}


@pytest.mark.parametrize("stores", ["one store", "two stores"])
def test_many_threads_at_one_limit(store: LimitRecords, other: LimitRecords, stores: str) -> None:
    both = (store, other) if stores == "two stores" else (store, store)
    key, windows = CounterKey(ALICE, "busy"), (Window(100, 3600.0), Window(1000, 86400.0))
    request = Charging((Charge(key, windows), charge("alice/octets=7")))

    def charge_often(number: int) -> int:
        calls = [both[number % 2].charge([request] * 5, START) for _ in range(5)]
        return sum(outcome.is_charged for call in calls for outcome in call)

    granted = in_threads(charge_often)
    assert sum(int(str(count)) * times for count, times in granted.items()) == 100
    assert totals(store, "alice/octets") == (700,)


def test_many_threads_at_limits_of_several_owners(store: LimitRecords, other: LimitRecords) -> None:
    """Of what one of them refuses nothing stays with the others."""
    both = (store, other)

    def charge_all(number: int) -> int:
        return sum(
            charge_one(both[number % 2], f"t{number}/octets", "alice/hour", f"u{number}/octets") for _ in range(3)
        )

    granted = sum(int(str(count)) * times for count, times in in_threads(charge_all).items())
    assert granted == 5
    assert totals(store, "alice/hour") == (granted,)
    for name in ("t", "u"):
        assert sum(totals(store, f"{name}{number}/octets")[0] for number in range(THREADS)) == granted


def test_what_was_charged_is_there_when_it_is_opened_again(place: Place, store: LimitRecords) -> None:
    request = charging("alice/hour=5", "alice/new@a", "alice/different@a", sent=Sent("alice", "4bXyz1"))
    store.charge([request], START)
    before = kept(store, ALICE)
    store.close()
    again = place.open_limits()
    try:
        assert kept(again, ALICE) == before
        assert not charge_one(again, "alice/hour")
        assert [queue_id for _, queue_id in again.sent("alice", START)] == ["4bXyz1"]
    finally:
        again.close()
