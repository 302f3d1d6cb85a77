"""One contract for every store of greylisting's: the same dialogues, the same records, in memory, in a file, in Redis."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from mailward.model.greylist import (
    RETURN_BUCKET_SECONDS,
    Entry,
    EntryKind,
    Memory,
    Orders,
    OriginRecord,
    ReturnCount,
    Sighting,
    Triplet,
    TripletRecord,
    Windows,
)
from mailward.model.ports import GreylistRecords
from tests.adapters.stores_support import Place
from tests.support.greylist_dialogues import (
    CORRESPONDENT_LIFETIME,
    DIALOGUES,
    FIVE_PASSES,
    RETURNS,
    TWO_PASSES,
    Paper,
    moment,
    read,
    triplet,
)
from tests.support.processes import wait_until

WINDOWS = Windows()
# Dialogues play from now on into the future: nothing that counts real time, too, ends before they do.
START = time.time() // RETURN_BUCKET_SECONDS * RETURN_BUCKET_SECONDS
THREADS = 8
A1, A2, B1 = triplet("A1"), triplet("A2"), triplet("B1")
LATER = moment("200d")  # when everything has expired


@pytest.fixture
def store(place: Place) -> Iterator[GreylistRecords]:
    place.clear()
    opened = place.open()
    yield opened
    opened.close()


@pytest.fixture
def other(place: Place, store: GreylistRecords) -> Iterator[GreylistRecords]:
    """Another store on the same state, as another process would have it."""
    opened = place.open()
    yield opened
    opened.close()


def play(store: GreylistRecords, dialogue: str, windows: Windows = WINDOWS) -> Paper:
    """Hold the dialogue with the store, and on paper."""
    paper = Paper()
    for line in read(dialogue):
        now = START + line.at
        if line.memory is None:
            store.record([line.triplet.mail_from], CORRESPONDENT_LIFETIME, now)
            paper.record(line.triplet.mail_from, CORRESPONDENT_LIFETIME, now)
            continue
        sighting = store.sight(line.triplet, windows, correspondent=line.correspondent, now=now)
        assert sighting.memory is line.memory, line
        assert sighting == paper.sight(line.triplet, windows, now, correspondent=line.correspondent), line
    return paper


def kept_triplets(store: GreylistRecords) -> dict[Triplet, TripletRecord]:
    return {record.triplet: record for record in store.triplets()}


def kept_origins(store: GreylistRecords) -> dict[str, OriginRecord]:
    return {record.origin: record for record in store.origins()}


def in_threads(act: Callable[[int], Sighting]) -> Counter[Memory]:
    """Let many threads do it at once, and count what they were told."""
    start = threading.Barrier(THREADS)

    def run(number: int) -> Memory:
        start.wait()
        return act(number).memory

    with ThreadPoolExecutor(THREADS) as pool:
        return Counter(pool.map(run, range(THREADS)))


@pytest.mark.parametrize("dialogue", DIALOGUES.values(), ids=DIALOGUES.keys())
def test_sightings(store: GreylistRecords, dialogue: str) -> None:
    paper = play(store, dialogue)
    assert kept_triplets(store) == paper.triplets
    assert kept_origins(store) == paper.origins
    assert dict(store.correspondents()) == paper.correspondents


@pytest.mark.parametrize(("dialogue", "buckets"), RETURNS.values(), ids=RETURNS.keys())
def test_returns(store: GreylistRecords, dialogue: str, buckets: list[tuple[str, int, int]]) -> None:
    play(store, dialogue)
    last = START + max(line.at for line in read(dialogue))
    assert store.returns(last) == tuple(
        ReturnCount(START + moment(start), expected, returned) for start, expected, returned in buckets
    )


@pytest.mark.parametrize("dialogue", DIALOGUES.values(), ids=DIALOGUES.keys())
def test_what_one_store_writes_another_reads(store: GreylistRecords, other: GreylistRecords, dialogue: str) -> None:
    for number, line in enumerate(read(dialogue)):
        asked, now = (store, other)[number % 2], START + line.at
        if line.memory is None:
            asked.record([line.triplet.mail_from], CORRESPONDENT_LIFETIME, now)
        else:
            assert asked.sight(line.triplet, WINDOWS, correspondent=line.correspondent, now=now).memory is line.memory
    assert kept_triplets(store) == kept_triplets(other)


def test_with_other_windows(store: GreylistRecords) -> None:
    windows = Windows(delay=0.25, retry_window=7.5, remember=100.5, passes_to_whitelist=2, pass_interval=10.5)
    play(
        store,
        """
        0s   A1 first-sighting
        8s   A1 late-retry
        9s   A1 retried
        20s  A2 first-sighting
        21s  A2 retried
        22s  A3 whitelisted-origin
        109s A2 whitelisted-origin
        209s A3 whitelisted-origin
        310s A1 first-sighting
        """,
        windows,
    )


def test_a_whitelist_of_nobody(store: GreylistRecords) -> None:
    play(store, f"{FIVE_PASSES}\n 10h A6 first-sighting", replace(WINDOWS, passes_to_whitelist=0))


def test_no_delay_at_all_still_wants_a_retry(store: GreylistRecords) -> None:
    play(store, "0s A1 first-sighting\n 0s A1 retried\n 0s A1 passed-before", replace(WINDOWS, delay=0.0))


def test_parts_of_a_second_are_kept(store: GreylistRecords) -> None:
    first_seen = START + 0.123456
    store.sight(A1, WINDOWS, now=first_seen)
    early = store.sight(A1, WINDOWS, now=first_seen + 59.999)
    assert early.memory is Memory.EARLY
    assert early.first_seen == pytest.approx(first_seen, abs=1e-5)


def test_the_stores_own_clock(store: GreylistRecords) -> None:
    windows = replace(WINDOWS, delay=0.5)
    first = store.sight(A1, windows)
    assert first.memory is Memory.NEW
    assert first.now == pytest.approx(time.time(), abs=60)
    assert first.first_seen == first.now
    met = []

    def has_passed() -> bool:
        met.append(store.sight(A1, windows))
        return met[-1].memory is not Memory.EARLY

    wait_until(has_passed, "the delay is over")
    assert met[-1].memory is Memory.RETRIED
    assert met[-1].first_seen == first.first_seen
    assert met[-1].now - first.first_seen >= 0.5


@pytest.mark.parametrize(
    "strange",
    [
        pytest.param(Triplet("a:b", "c", "d"), id="colons"),
        pytest.param(Triplet("a", "b:c", "d"), id="colons, elsewhere"),
        pytest.param(Triplet("a", "b", "c:d"), id="colons, elsewhere again"),
        pytest.param(Triplet("a|b", "c", "d"), id="bars"),
        pytest.param(Triplet("a", "b|c", "d"), id="bars, elsewhere"),
        pytest.param(Triplet("{a}", "b", "d"), id="braces"),
        pytest.param(Triplet("{a", "}b", "d"), id="braces, torn"),
        pytest.param(Triplet("a", "", "b"), id="the null sender"),
        pytest.param(Triplet("a", "b", ""), id="no recipient"),
        pytest.param(Triplet("'; DROP TABLE triplets; --", "'", '"'), id="quotes"),
        pytest.param(Triplet("\\", "\\'", "\\x00%s%n"), id="backslashes and percents"),
        pytest.param(Triplet("*", "?", "[a-z]"), id="patterns"),
        pytest.param(Triplet("a" * 320, "b" * 320, "c" * 320), id="as long as may be"),
        pytest.param(Triplet("a" * 320, "b" * 320, "c" * 319), id="one less"),
        pytest.param(Triplet("1", "2", "3"), id="digits"),
        pytest.param(Triplet("1.0", "2e0", "0x3"), id="what may be read as numbers"),
        pytest.param(Triplet("nil", "null", "None"), id="words for nothing"),
    ],
)
def test_any_text_is_kept_as_it_is(store: GreylistRecords, strange: Triplet) -> None:
    """Origins of strangers' making; that none is taken for another, the next test says."""
    address = strange.mail_from or "nobody"
    store.record([address], 60.0, START)
    assert store.sight(strange, WINDOWS, now=START).memory is Memory.NEW
    assert store.sight(strange, WINDOWS, correspondent=address, now=START).memory is Memory.CORRESPONDENT
    assert store.sight(strange, WINDOWS, now=START + 60).memory is Memory.RETRIED
    assert [record.triplet for record in store.triplets()] == [strange]
    assert [record.origin for record in store.origins()] == [strange.origin]
    assert [recorded for recorded, _ in store.correspondents()] == [address]
    assert store.forget_triplet(strange)
    assert store.forget_origin(strange.origin)
    assert not kept_triplets(store)
    assert not kept_origins(store)


def test_no_triplet_is_taken_for_another(store: GreylistRecords) -> None:
    parts = ("", "a", "b", "ab", "a:", ":b", "a|b", "{a}", "a b", "1", "1.0", "A")
    triplets = [Triplet(one, two, three) for one in parts for two in parts for three in parts]
    for each in triplets:
        assert store.sight(each, WINDOWS, now=START).memory is Memory.NEW
    assert set(kept_triplets(store)) == set(triplets)


def test_recalling_says_whether_a_sighting_would_pass(store: GreylistRecords) -> None:
    assert not store.recalls(A1, WINDOWS, START)
    play(store, "0s A1 first-sighting")
    assert not store.recalls(A1, WINDOWS, START + 59.9)
    assert store.recalls(A1, WINDOWS, START + 60)
    assert not store.recalls(A1, WINDOWS, START + WINDOWS.retry_window)
    assert [record.passed_at for record in store.triplets()] == [0.0]
    play(store, "60s B1 first-sighting\n 120s B1 retried")
    assert store.recalls(B1, WINDOWS, START + 121)
    assert store.recalls(B1, WINDOWS, START + 119 + WINDOWS.remember)
    assert not store.recalls(B1, WINDOWS, START + 120 + WINDOWS.remember)


def test_a_whitelisted_origin_is_recalled(store: GreylistRecords) -> None:
    play(store, FIVE_PASSES)
    assert store.recalls(triplet("A9"), WINDOWS, START + moment("9h"))
    assert not store.recalls(triplet("A9"), replace(WINDOWS, passes_to_whitelist=6), START + moment("9h"))
    assert not store.recalls(triplet("A9"), WINDOWS, START + moment("50d"))


def test_recalling_changes_nothing(store: GreylistRecords) -> None:
    paper = play(store, TWO_PASSES)
    for name in ("A1", "A3", "B1"):
        store.recalls(triplet(name), WINDOWS, START + moment("10d"))
    assert kept_triplets(store) == paper.triplets
    assert kept_origins(store) == paper.origins


def test_a_probe_leaves_nothing_behind(store: GreylistRecords) -> None:
    store.probe()
    store.probe()
    assert not kept_triplets(store)
    assert not kept_origins(store)
    assert not dict(store.correspondents())
    assert store.returns(START) == ()
    assert store.orders(START) == Orders()
    assert store.count_triplets() == 0


def tend_until(store: GreylistRecords, is_done: Callable[[], bool], now: float) -> None:
    def step() -> bool:
        store.tend(now)
        return is_done()

    wait_until(step, "what has expired is gone")


def test_tending_forgets_what_has_expired_and_nothing_else(store: GreylistRecords) -> None:
    old = [Triplet(f"{number}.example", "ann@example", "bob@here") for number in range(1500)]
    store.put_triplets(TripletRecord(each, START, 0.0, START + 60) for each in old)
    store.put_origins(OriginRecord(each.origin, 1, START, START + 60) for each in old)
    store.record((each.origin for each in old), 60.0, START)
    paper = play(store, "30s A1 first-sighting\n 90s A1 retried\n 0s writes A1")
    store.set_entry(Entry(EntryKind.SENDER, "ann@example", True, START, until=START + 60))
    store.set_entry(Entry(EntryKind.SENDER, "eve@example", False, START))
    tend_until(
        store,
        lambda: len(kept_triplets(store)) + len(kept_origins(store)) + len(dict(store.correspondents())) == 3,
        START + 100,
    )
    assert kept_triplets(store) == paper.triplets
    assert kept_origins(store) == paper.origins
    assert dict(store.correspondents()) == paper.correspondents
    assert [entry.subject for entry in store.orders(START + 100).entries] == ["eve@example"]
    assert store.sight(A1, WINDOWS, now=START + 100).memory is Memory.PASSED


def test_tended_for_long_nothing_is_left(store: GreylistRecords) -> None:
    play(store, f"{FIVE_PASSES}\n 0s writes A1\n 20h B1 first-sighting")
    tend_until(
        store,
        lambda: not (kept_triplets(store) or kept_origins(store) or dict(store.correspondents())),
        START + LATER,
    )
    assert store.returns(START + LATER) == ()


def test_tending_an_empty_store(store: GreylistRecords) -> None:
    store.tend()
    store.tend(START)
    assert store.count_triplets() == 0


ANN = Entry(EntryKind.SENDER, "ann@example.com", True, START)


@pytest.mark.parametrize("kind", EntryKind)
def test_entries_of_every_kind(store: GreylistRecords, kind: EntryKind) -> None:
    entries = [
        Entry(kind, "192.0.2.0/24", True, START, note="our other office: 'quoted', \"twice\" {and} so|on"),
        Entry(kind, "example.com", False, START + 1.5, until=START + 60),
    ]
    for entry in entries:
        store.set_entry(entry)
    assert set(store.orders(START + 2).entries) == set(entries)
    assert set(store.orders(START + 59.5).entries) == set(entries)
    assert set(store.orders(START + 60).entries) == {entries[0]}


def test_an_entry_takes_the_place_of_one_for_the_same(store: GreylistRecords) -> None:
    store.set_entry(replace(ANN, until=START + 60, note="for a minute"))
    store.set_entry(replace(ANN, is_allowed=False, note="no, never"))
    store.set_entry(replace(ANN, kind=EntryKind.RECIPIENT))
    assert set(store.orders(START).entries) == {
        replace(ANN, is_allowed=False, note="no, never"),
        replace(ANN, kind=EntryKind.RECIPIENT),
    }


def test_an_entry_is_removed_by_kind_and_subject(store: GreylistRecords) -> None:
    store.set_entry(ANN)
    assert not store.remove_entry(replace(ANN, kind=EntryKind.NAME))
    assert not store.remove_entry(replace(ANN, subject="bob@example.com"))
    assert store.remove_entry(replace(ANN, is_allowed=False, added_at=0.0, note="another"))
    assert not store.remove_entry(ANN)
    assert store.orders(START).entries == ()


def test_an_entry_for_a_time_is_removed_too(store: GreylistRecords) -> None:
    store.set_entry(replace(ANN, until=START + 3600))
    assert store.remove_entry(ANN)
    assert store.orders(START).entries == ()


def test_many_entries(store: GreylistRecords) -> None:
    entries = {Entry(EntryKind.NETWORK, f"192.0.{number}.0/24", number % 2 == 0, START) for number in range(200)}
    for entry in entries:
        store.set_entry(entry)
    assert set(store.orders(START).entries) == entries


def test_the_switch(store: GreylistRecords, other: GreylistRecords) -> None:
    assert store.orders(START).off_until == 0.0
    store.switch_off(START + 7200.5)
    assert other.orders(START).off_until == START + 7200.5
    assert other.orders(START + 7200).off_until == START + 7200.5
    assert other.orders(START + 7201).off_until == 0.0
    other.switch_off(0.0)
    assert store.orders(START).off_until == 0.0


def test_the_switch_again(store: GreylistRecords) -> None:
    store.switch_off(START + 7200)
    store.switch_off(START + 60)
    assert store.orders(START).off_until == START + 60


def test_records_are_written_as_they_are(store: GreylistRecords) -> None:
    triplets = [
        TripletRecord(A1, START, 0.0, START + 100),
        TripletRecord(A2, START, START + 60.25, START + 3000.5, is_expected=True),
        TripletRecord(B1, START - 1000, 0.0, START - 10),
    ]
    origins = [
        OriginRecord("a.example", 3, START + 60.25, START + 3000.5, expected_at=START + 1.5),
        OriginRecord("192.0.2.0/24", 5, START, START + 3000),
    ]
    store.put_triplets(triplets)
    store.put_origins(origins)
    assert set(store.triplets()) == set(triplets)
    assert set(store.origins()) == set(origins)


def test_records_are_written_over_what_is_there(store: GreylistRecords) -> None:
    play(store, FIVE_PASSES)
    record = TripletRecord(A1, START, START + 60, START + moment("50d"))
    origin = OriginRecord("a.example", 1, START, START + moment("50d"))
    store.put_triplets([record])
    store.put_origins([origin])
    assert kept_triplets(store)[A1] == record
    assert kept_origins(store) == {"a.example": origin}
    assert store.sight(triplet("A9"), WINDOWS, now=START + moment("9h")).memory is Memory.NEW


def test_written_records_count(store: GreylistRecords) -> None:
    store.put_triplets([TripletRecord(A1, START, START + 60, START + moment("9d"))])
    store.put_origins([OriginRecord("b.example", 5, START, START + moment("9d"))])
    assert store.sight(A1, WINDOWS, now=START + moment("8d")).memory is Memory.PASSED
    assert store.sight(B1, WINDOWS, now=START + moment("8d")).memory is Memory.ORIGIN


def test_nothing_is_written_of_nothing(store: GreylistRecords) -> None:
    store.put_triplets([])
    store.put_origins([])
    store.record([], 60.0)
    assert store.count_triplets() == 0


def test_forgetting_a_triplet(store: GreylistRecords) -> None:
    play(store, TWO_PASSES)
    assert store.forget_triplet(A1)
    assert not store.forget_triplet(A1)
    assert set(kept_triplets(store)) == {A2}
    assert kept_origins(store)["a.example"].passes == 2
    assert store.sight(A1, WINDOWS, now=START + 7200).memory is Memory.NEW


def test_forgetting_an_origin_leaves_its_triplets(store: GreylistRecords) -> None:
    play(store, FIVE_PASSES)
    assert store.forget_origin("a.example")
    assert not store.forget_origin("a.example")
    assert not kept_origins(store)
    assert len(kept_triplets(store)) == 5
    assert store.sight(triplet("A9"), WINDOWS, now=START + moment("9h")).memory is Memory.NEW
    assert store.sight(A1, WINDOWS, now=START + moment("9h")).memory is Memory.PASSED


def test_correspondents(store: GreylistRecords) -> None:
    addresses = [f"ann{number}@example.com" for number in range(1200)]
    store.record(iter(addresses), 60.5, START)
    store.record(["ann7@example.com", "ann7@example.com"], 3600.0, START)
    found = dict(store.correspondents())
    assert len(found) == len(addresses)
    assert found["ann6@example.com"] == START + 60.5
    assert found["ann7@example.com"] == START + 3600


def test_what_is_remembered_longer_is_not_cut_short(store: GreylistRecords) -> None:
    store.record(["ann@example.com"], 3600.0, START)
    store.record(["ann@example.com"], 60.0, START)
    assert dict(store.correspondents()) == {"ann@example.com": START + 3600}


def test_counting(store: GreylistRecords) -> None:
    store.put_triplets(
        TripletRecord(Triplet(f"{number}.example", "ann@example", "bob@here"), START, 0.0, START + 1e6)
        for number in range(2500)
    )
    assert store.count_triplets() == pytest.approx(2500, rel=0.2)
    assert len(list(store.triplets())) == 2500


def test_reading_while_others_write(store: GreylistRecords, other: GreylistRecords) -> None:
    stays = {Triplet(f"{number}.example", "ann@example", "bob@here") for number in range(1200)}
    store.put_triplets(TripletRecord(each, START, 0.0, START + 1e6) for each in stays)
    store.put_origins(OriginRecord(each.origin, 1, START, START + 1e6) for each in stays)
    seen: Counter[Triplet] = Counter()
    for number, record in enumerate(store.triplets()):
        seen[record.triplet] += 1
        if number % 3 == 0 and number < 300:  # a reader that is slow, and daemons that go on
            fresh = Triplet(f"new{number}.example", "ann@example", "bob@here")
            assert other.sight(fresh, WINDOWS, now=START).memory is Memory.NEW
            assert store.sight(fresh, WINDOWS, now=START + 60).memory is Memory.RETRIED
            assert other.forget_triplet(fresh)
    assert stays <= set(seen)
    assert all(seen[each] == 1 for each in stays)
    for number, _origin in enumerate(store.origins()):
        if number % 3 == 0 and number < 300:
            other.forget_origin(f"{number}.example")


def test_a_reader_that_stops_halfway_locks_nobody_out(store: GreylistRecords, other: GreylistRecords) -> None:
    store.put_triplets(
        TripletRecord(Triplet(f"{number}.example", "ann@example", "bob@here"), START, 0.0, START + 1e6)
        for number in range(1200)
    )
    reading = store.triplets()
    next(reading)
    assert other.sight(A1, WINDOWS, now=START).memory is Memory.NEW
    assert store.sight(A1, WINDOWS, now=START + 60).memory is Memory.RETRIED
    del reading
    assert other.sight(A1, WINDOWS, now=START + 61).memory is Memory.PASSED


@pytest.mark.parametrize("stores", ["one store", "two stores"])
def test_many_threads_with_one_triplet(store: GreylistRecords, other: GreylistRecords, stores: str) -> None:
    both = (store, other) if stores == "two stores" else (store, store)

    def sight(number: int, at: float) -> Sighting:
        return both[number % 2].sight(A1, WINDOWS, now=START + at + number * 0.001)

    assert in_threads(lambda number: sight(number, 0)) == {Memory.NEW: 1, Memory.EARLY: THREADS - 1}
    assert in_threads(lambda number: sight(number, 61)) == {Memory.RETRIED: 1, Memory.PASSED: THREADS - 1}
    assert kept_origins(store)["a.example"].passes == 1


def test_many_threads_by_the_stores_own_clock(store: GreylistRecords) -> None:
    met = in_threads(lambda _number: store.sight(A1, WINDOWS))
    assert met == {Memory.NEW: 1, Memory.EARLY: THREADS - 1}


def test_many_threads_with_triplets_of_one_origin(store: GreylistRecords, other: GreylistRecords) -> None:
    both = (store, other)

    def sight(number: int, at: float) -> Sighting:
        sighted = Triplet("a.example", "ann@a.example", f"bob{number}@here")
        return both[number % 2].sight(sighted, WINDOWS, now=START + at + number * 0.001)

    play(store, TWO_PASSES)
    later = moment("3h")
    assert in_threads(lambda number: sight(number, later)) == {Memory.NEW: THREADS}
    assert [(each.expected, each.returned) for each in store.returns(START + later)] == [(1, 0)]
    assert in_threads(lambda number: sight(number, later + 61)) == {Memory.RETRIED: THREADS}
    assert [(each.expected, each.returned) for each in store.returns(START + later)] == [(1, 1)]
    assert kept_origins(store)["a.example"].passes == 3


def test_many_threads_doing_everything(store: GreylistRecords, other: GreylistRecords) -> None:
    both = (store, other)

    def live(number: int) -> Sighting:
        mine, origin = both[number % 2], f"{number}.example"
        for turn in range(5):
            now = START + moment("2h") * turn
            sighted = Triplet(origin, f"ann@{origin}", f"bob{turn}@here")
            mine.record([f"carl{turn}@{origin}"], 1e7, now)
            assert mine.sight(sighted, WINDOWS, correspondent=sighted.mail_from, now=now).memory is Memory.NEW
            assert not mine.recalls(sighted, WINDOWS, now)
            mine.tend(now)
            assert mine.sight(sighted, WINDOWS, correspondent=sighted.mail_from, now=now + 60).memory is Memory.RETRIED
            mine.set_entry(replace(ANN, subject=f"{turn}@{origin}"))
            mine.orders(now)
        return mine.sight(Triplet(origin, "x", "y"), WINDOWS, now=START + moment("10h"))

    assert in_threads(live) == {Memory.ORIGIN: THREADS}
    assert {record.passes for record in store.origins()} == {5}
    assert len(kept_triplets(store)) == 5 * THREADS
    assert len(dict(store.correspondents())) == 5 * THREADS
    assert len(store.orders(START).entries) == 5 * THREADS


def test_what_was_kept_is_there_when_it_is_opened_again(place: Place, store: GreylistRecords) -> None:
    paper = play(store, f"{FIVE_PASSES}\n 9h writes B1")
    store.set_entry(ANN)
    store.switch_off(START + 100)
    returns = store.returns(START + moment("9h"))
    store.close()
    again = place.open()
    try:
        assert kept_triplets(again) == paper.triplets
        assert kept_origins(again) == paper.origins
        assert dict(again.correspondents()) == paper.correspondents
        assert again.orders(START) == Orders((ANN,), START + 100)
        assert again.returns(START + moment("9h")) == returns
    finally:
        again.close()
