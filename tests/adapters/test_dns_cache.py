"""What is kept and for how long, what goes first, and that no flood of names makes it grow."""

from __future__ import annotations

import gc
import threading
import tracemalloc

import pytest

from mailward.adapters.dns_cache import MAX_FAILURES, AnswerCache, FailureCache
from mailward.model.dns import Answer, AnswerStatus, Failure, Question, RecordType, failed

DAY = 86400


def question(name: str = "a.example") -> Question:
    return Question(name, RecordType.TXT)


def answer(text: str = "x", ttl: int = 300) -> Answer:
    return Answer(AnswerStatus.FOUND, (text.encode(),), ttl)


def looked_up(cache: AnswerCache, name: str, now: float = 0.0) -> Answer | None:
    """Look up as the resolver does."""
    entry = cache.entries.get(question(name))
    if entry is None or entry.expires <= now:
        return None
    entry.is_used = True
    return entry.answer


def test_an_answer_is_kept_for_its_time() -> None:
    cache = AnswerCache(10, 100_000)
    cache.keep(question(), answer(ttl=300), 1000.0)
    kept = looked_up(cache, "a.example", 1299.9)
    assert kept is not None
    assert (kept.records, kept.is_cached, kept.is_stale) == ((b"x",), True, False)
    assert looked_up(cache, "a.example", 1300.0) is None


@pytest.mark.parametrize("status", [AnswerStatus.NXDOMAIN, AnswerStatus.NODATA])
def test_nothing_is_kept_as_well(status: AnswerStatus) -> None:
    cache = AnswerCache(10, 100_000)
    cache.keep(question(), Answer(status, ttl=60), 0.0)
    kept = looked_up(cache, "a.example", 59.0)
    assert kept is not None
    assert kept.status is status


def test_an_answer_without_time_is_not_kept_and_drives_out_what_it_contradicts() -> None:
    cache = AnswerCache(10, 100_000)
    cache.keep(question(), answer("old"), 0.0)
    cache.keep(question(), answer("new", ttl=0), 1.0)
    assert looked_up(cache, "a.example", 2.0) is None
    assert cache.find_stale(question(), 2.0) is None


@pytest.mark.parametrize(
    ("now", "is_found"),
    [(100.0, True), (300.0, True), (299.0 + DAY, True), (300.0 + DAY, False)],
    ids=["fresh", "just over", "nearly a day over", "a day over"],
)
def test_a_stale_answer_is_to_be_had_for_a_day(now: float, is_found: bool) -> None:
    cache = AnswerCache(10, 100_000)
    cache.keep(question(), answer(ttl=300), 0.0)
    stale = cache.find_stale(question(), now)
    assert (stale is not None) is is_found
    assert stale is None or stale.is_stale


def test_the_oldest_goes_first() -> None:
    cache = AnswerCache(3, 100_000)
    for name in ("a", "b", "c", "d"):
        cache.keep(question(name), answer(), 0.0)
    assert [name.name for name in cache.entries] == ["b", "c", "d"]


def test_what_is_asked_for_outlives_a_flood_of_what_is_not() -> None:
    cache = AnswerCache(50, 1_000_000)
    cache.keep(question("popular"), answer(), 0.0)
    for number in range(2000):
        cache.keep(question(f"flood{number}"), answer(), 0.0)
        if number % 20 == 0:
            assert looked_up(cache, "popular") is not None
    assert len(cache.entries) == 50


def test_octets_are_bounded_as_well() -> None:
    cache = AnswerCache(10**6, 200_000)
    for number in range(2000):
        cache.keep(question(f"flood{number}"), answer("x" * 2000), 0.0)
    assert 50 <= len(cache.entries) <= 100


def test_one_answer_cannot_drive_out_all_others() -> None:
    cache = AnswerCache(1000, 1_000_000)
    cache.keep(question("small"), answer(), 0.0)
    cache.keep(question("huge"), answer("x" * 60_000), 0.0)
    assert [name.name for name in cache.entries] == ["small"]


@pytest.mark.parametrize(
    "records",
    [
        pytest.param((), id="nothing"),
        pytest.param((b"x" * 400,), id="a key record"),
        pytest.param(tuple(b"10 mx%d.example." % number for number in range(20)), id="many small records"),
    ],
)
def test_what_is_counted_is_what_is_used(records: tuple[bytes, ...]) -> None:
    cache, count = AnswerCache(10**6, 10**9), 2000
    gc.collect()
    tracemalloc.start()
    for number in range(count):
        fresh = tuple(bytes(bytearray(record)) for record in records)
        cache.keep(question(f"name{number}.example"), Answer(AnswerStatus.FOUND, fresh, 300), 0.0)
    gc.collect()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    counted = sum(entry.octets for entry in cache.entries.values())
    assert 0.5 * counted < used < 1.1 * counted


def test_threads_leave_it_whole() -> None:
    cache = AnswerCache(20, 10_000_000)

    def use(start: int) -> None:
        for number in range(3000):
            cache.keep(question(f"n{(start + number) % 60}"), answer(), 0.0)
            looked_up(cache, f"n{number % 60}")

    threads = [threading.Thread(target=use, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache.entries) == 20
    assert all(entry.answer.records == (b"x",) for entry in cache.entries.values())


TIMEOUT = failed(Failure.TIMEOUT)


def test_a_failure_is_remembered_ever_longer() -> None:
    failures, now, waits = FailureCache(), 0.0, []
    for _ in range(5):
        failures.keep(question(), TIMEOUT, now)
        wait = 0
        while failures.find(question(), now + wait) is not None:
            wait += 1
        waits.append(wait)
        now += wait
    assert waits == [5, 10, 20, 30, 30]


def test_a_failure_that_is_remembered_says_so() -> None:
    failures = FailureCache()
    failures.keep(question(), TIMEOUT, 0.0)
    found = failures.find(question(), 1.0)
    assert found is not None
    assert (found.status, found.failure, found.is_cached) == (AnswerStatus.TEMPFAIL, Failure.TIMEOUT, True)


def test_a_question_that_is_answered_starts_over() -> None:
    failures = FailureCache()
    failures.keep(question(), TIMEOUT, 0.0)
    failures.keep(question(), TIMEOUT, 5.0)
    failures.forget(question())
    assert failures.find(question(), 5.0) is None
    failures.keep(question(), TIMEOUT, 6.0)
    assert failures.find(question(), 10.9) is not None
    assert failures.find(question(), 11.0) is None


def test_all_is_forgotten_when_a_nameserver_is_back() -> None:
    failures = FailureCache()
    for name in ("a", "b"):
        failures.keep(question(name), TIMEOUT, 0.0)
    failures.clear()
    assert failures.find(question("a"), 1.0) is failures.find(question("b"), 1.0) is None


def test_failures_are_bounded_and_the_oldest_goes() -> None:
    failures = FailureCache()
    for number in range(MAX_FAILURES + 1):
        failures.keep(question(f"n{number}"), TIMEOUT, 0.0)
    assert failures.find(question("n0"), 1.0) is None
    assert failures.find(question("n1"), 1.0) is not None
