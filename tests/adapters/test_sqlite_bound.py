"""SQLite files that strangers would fill stay below their bound, and greylisting goes on; so it does without some files."""

from __future__ import annotations

import mmap
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from mailward.adapters import sqlite_correspondents, sqlite_upkeep
from mailward.adapters.sqlite_greylist import SqliteGreylist
from mailward.model.errors import StoreError, StoreFailure
from mailward.model.greylist import Memory, OriginRecord, TripletRecord, Windows
from mailward.model.state import Durability
from tests.adapters.sqlite_sightings import (
    GENEROUS,
    PAGE,
    START,
    open_store,
    sight,
    size_of,
    triplet,
)
from tests.adapters.sqlite_support import (
    LOCKING_THE_PLACE,
    in_a_fork,
    locked_by_another_process,
    small_file_system,
)
from tests.support.processes import wait_until

BOUND = 1024 * 1024  # some seven thousand triplets
MINUTE = 60.0
STEPS = 15  # of housekeeping in which a file that small is walked through
BUDGET = 1.0


@pytest.fixture
def store(folder: Path) -> Iterator[SqliteGreylist]:
    opened = SqliteGreylist(folder, Durability.PROCESS, GENEROUS, BOUND)
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a step go as far on a busy machine as on an idle one."""
    monkeypatch.setattr(sqlite_upkeep, "STEP_SECONDS", 60.0)


def tend(store: SqliteGreylist, at: float, steps: int = STEPS) -> None:
    for _ in range(steps):
        store.tend(START + at)


def remembered(store: SqliteGreylist) -> set[str]:
    return {record.triplet.origin for record in store.triplets()}


def flood_until_full(store: SqliteGreylist, at: float) -> int:
    """Sight new triplets until the file takes no more; return how many it took."""
    for number in range(1_000_000, 1_000_000 + 10 * BOUND // 100):
        try:
            sight(store, number, at)
        except StoreError as error:
            if error.failure is not StoreFailure.FULL:
                raise
            return number - 1_000_000
    raise AssertionError("there is no bound")


# The bound.


def test_a_flood_of_new_triplets_stays_below_the_bound_and_greylisting_goes_on(
    folder: Path, store: SqliteGreylist
) -> None:
    """Three times what the file may hold comes in ten hours; the file is tended meanwhile, and no decision ever fails."""
    passed = [TripletRecord(triplet(number), START, START + 60, START + 9e6) for number in range(1000)]
    store.put_triplets(passed)
    store.put_origins(OriginRecord(f"{number}.example", 2, START, START + 9e6) for number in range(300))
    store.record(["ann@1.example"], 9e6, START)
    for turn in range(60):
        at = turn * 10 * MINUTE
        for number in range(350):
            assert sight(store, 10_000 + turn * 1000 + number, at) is Memory.NEW
        tend(store, at)
        retried = 10_000 + turn * 1000 + 7
        assert sight(store, retried, at + 5 * MINUTE) is Memory.RETRIED, "who comes again passes"
        assert sight(store, retried, at + 6 * MINUTE) is Memory.PASSED
        assert size_of(folder / "greylist.sqlite") <= BOUND
        assert store._file.fill() < 0.95
    kept = remembered(store)
    assert {record.triplet.origin for record in passed} <= kept, "what had passed stays"
    assert {triplet(10_000 + turn * 1000 + 7).origin for turn in range(60)} <= kept, "and what has passed since"
    assert {f"{number}.example" for number in range(300)} <= {record.origin for record in store.origins()}
    assert sight(store, 1, 700 * MINUTE, is_vouched=True) in (Memory.PASSED, Memory.CORRESPONDENT)


def test_where_there_is_room_nothing_is_forgotten_early(store: SqliteGreylist) -> None:
    sight(store, 1, 0)
    tend(store, 47 * 60 * MINUTE)
    assert remembered(store) == {triplet(1).origin}


@pytest.mark.parametrize(
    ("fill", "kept_minutes"),
    [(0.5, 40 * 60), (0.76, 11 * 60), (0.81, 200), (0.86, 55), (0.91, 14), (1.5, 14)],
    ids=["half full", "three quarters", "four fifths", "more", "nine tenths", "larger than its bound"],
)
def test_the_fuller_the_shorter_is_waited(
    store: SqliteGreylist, monkeypatch: pytest.MonkeyPatch, fill: float, kept_minutes: int
) -> None:
    now = 41 * 60 * MINUTE
    ages = (14, 55, 200, 11 * 60, 40 * 60)
    for age in ages:
        sight(store, age, now - age * MINUTE)
    monkeypatch.setattr(store._file, "fill", lambda: fill)
    tend(store, now)
    assert remembered(store) == {triplet(age).origin for age in ages if age <= kept_minutes}


def test_nothing_is_forgotten_before_it_could_have_passed(
    store: SqliteGreylist, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = Windows(delay=60 * MINUTE)
    monkeypatch.setattr(store._file, "fill", lambda: 0.99)
    store.sight(triplet(1), patient, now=START)
    tend(store, 3 * 60 * MINUTE)
    assert store.sight(triplet(1), patient, now=START + 3 * 60 * MINUTE).memory is Memory.RETRIED


def test_a_triplet_whose_return_is_expected_is_not_forgotten_early(
    store: SqliteGreylist, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a flood would look as if nobody came back, and greylisting would step aside."""
    store.put_origins([OriginRecord("1.example", 2, START, START + 9e6)])
    monkeypatch.setattr(store._file, "fill", lambda: 0.99)
    sight(store, 1, 0)
    sight(store, 2, 0)
    tend(store, 60 * MINUTE)
    assert remembered(store) == {"1.example"}
    assert sight(store, 1, 61 * MINUTE) is Memory.RETRIED
    assert [(count.expected, count.returned) for count in store.returns(START + 61 * MINUTE)] == [(1, 1)]


def test_a_full_file_is_read_and_tended_and_takes_new_triplets_again(folder: Path, store: SqliteGreylist) -> None:
    """Nobody tended it; and the probe does not say that it is well as long as a new triplet may find no room."""
    sight(store, 1, 0)
    sight(store, 1, MINUTE)
    assert flood_until_full(store, 0) > 1000
    store._file.empty_log()
    assert size_of(folder / "greylist.sqlite") <= BOUND
    assert sight(store, 1, 2 * MINUTE) is Memory.PASSED
    tend(store, 10 * MINUTE)
    with pytest.raises(StoreError, match="full"):
        store.probe()
    tend(store, 20 * MINUTE, 3 * STEPS)
    store.probe()
    assert sight(store, 2_000_000, 20 * MINUTE) is Memory.NEW
    assert sight(store, 1, 20 * MINUTE) is Memory.PASSED
    assert flood_until_full(store, 20 * MINUTE) > 1000, "the room is used again"


def test_a_file_that_is_larger_than_its_bound_does_not_grow(folder: Path) -> None:
    before = open_store(folder)
    before.put_triplets(TripletRecord(triplet(number), START, 0.0, START + 9e6) for number in range(20_000))
    before.close()
    size = size_of(folder / "greylist.sqlite")
    assert size > 1.2 * BOUND
    store = SqliteGreylist(folder, Durability.PROCESS, GENEROUS, BOUND)
    flood_until_full(store, MINUTE)
    store._file.empty_log()
    assert size_of(folder / "greylist.sqlite") == size
    tend(store, 30 * MINUTE, 4 * STEPS)
    store.probe()
    store.close()


def test_a_disk_with_little_room_is_a_bound_too(folder: Path) -> None:
    with small_file_system(folder, 8 * 1024 * 1024) as small:
        store = open_store(small)
        store.put_triplets(TripletRecord(triplet(number), START, 0.0, START + 9e6) for number in range(5000))
        store._file.empty_log()
        assert store._file.fill() < 0.5
        (small / "ballast").write_bytes(b"x" * (store._file.place.free_octets() - 200 * 1024))
        assert store._file.fill() > 0.75
        tend(store, 24 * 60 * MINUTE, 3 * STEPS)
        assert len(remembered(store)) < 5000
        assert store._file.fill() < 0.75, "as much was forgotten as is needed, and no more"
        (small / "ballast").unlink()
        store.close()


def test_the_last_room_of_a_disk_is_left_to_others(folder: Path) -> None:
    with small_file_system(folder, 8 * 1024 * 1024) as small:
        store = open_store(small)
        sight(store, 1, 0)
        sight(store, 1, MINUTE)
        store.tend(START)
        assert sight(store, 2, 0) is Memory.NEW
        (small / "ballast").write_bytes(b"x" * (store._file.place.free_octets() - 300 * 1024))
        store.tend(START)
        assert sight(store, 1, 2 * MINUTE) is Memory.PASSED, "what is known is read"
        for act in (lambda: sight(store, 3, 0), store.probe):
            with pytest.raises(StoreError, match="full"):
                act()
        assert store._file.place.free_octets() > 200 * 1024
        (small / "ballast").unlink()
        store.probe()
        assert sight(store, 3, 0) is Memory.NEW
        store.close()


# The log.


def test_a_log_that_grows_fast_is_emptied_before_its_time(
    folder: Path, store: SqliteGreylist, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_upkeep, "SHORTEST_WAIT", 1e6)
    monkeypatch.setattr(sqlite_upkeep, "LONGEST_WAIT", 1e6)
    store.upkeep._log_wait = 1e6
    tend(store, 0, 2)
    before = size_of(folder / "greylist.sqlite")
    for number in range(100):
        sight(store, number, 0)
    tend(store, 0, 2)
    assert size_of(folder / "greylist.sqlite") == before, "its time has not come"
    for number in range(100, 1500):
        sight(store, number, 0)
    tend(store, 0, 1)
    assert size_of(folder / "greylist.sqlite") > before + 20 * PAGE


def test_a_log_that_is_written_without_a_pause_is_begun_again_all_the_same(folder: Path) -> None:
    store = open_store(folder)
    store.probe()
    tended = mmap.mmap(
        -1, 1
    )  # changes at each turn of the housekeeping, which a busy machine may keep from running at all

    def write(first: int) -> None:
        writer, untended = open_store(folder), 0
        for number in range(first, first + 8000):
            before = tended[0]
            sight(writer, number, 0)
            untended = untended + 1 if tended[0] == before else 0
            if untended == 500:
                wait_until(partial(_differs, tended, before), "housekeeping", seconds=120.0)

    writers = []
    for first in (0, 1_000_000):
        child = os.fork()
        if child == 0:
            try:
                write(first)
            finally:
                os._exit(0)
        writers.append(child)
    largest = 0

    def have_ended() -> bool:
        nonlocal largest
        store.tend(START)
        tended[0] = (tended[0] + 1) % 256
        largest = max(largest, size_of(folder / "greylist.sqlite-wal"))
        writers[:] = [pid for pid in writers if os.waitpid(pid, os.WNOHANG) == (0, 0)]
        return not writers

    wait_until(have_ended, "all is written", seconds=120.0)
    assert len(list(store.triplets())) == 16_000
    assert largest < 16_000 * PAGE / 2
    store.close()


def _differs(shared: mmap.mmap, before: int) -> bool:
    return shared[0] != before


# Files that may be missing.


def newer_version(path: Path) -> None:
    def make() -> str:
        connection = sqlite3.connect(path, isolation_level=None)
        for statement in ("journal_mode = WAL", f"application_id = {0x6D776331}", "user_version = 2"):
            connection.execute(f"PRAGMA {statement}")
        connection.execute("CREATE TABLE later (key INTEGER PRIMARY KEY)")
        connection.close()
        return "made"

    assert in_a_fork(make) == "made"


def damaged(path: Path) -> None:
    path.write_bytes(b"nonsense" * 1000)


@pytest.mark.parametrize(
    ("spoil", "failure"),
    [
        pytest.param(newer_version, StoreFailure.SCHEMA, id="of a newer version"),
        pytest.param(Path.mkdir, StoreFailure.OTHER, id="a folder"),
        pytest.param(damaged, StoreFailure.DAMAGED, id="damaged"),
    ],
)
def test_a_correspondents_file_that_is_broken_knows_nobody_and_is_told_once(
    folder: Path, store: SqliteGreylist, spoil: Callable[[Path], None], failure: StoreFailure
) -> None:
    spoil(folder / "correspondents.sqlite")
    assert sight(store, 1, 0, is_vouched=True) is Memory.NEW
    assert told_by_tending(store) == [failure]
    assert sight(store, 1, 60, is_vouched=True) is Memory.RETRIED
    assert sight(store, 2, 60, is_vouched=True) is Memory.NEW
    assert told_by_tending(store) == []


def told_by_tending(store: SqliteGreylist) -> list[StoreFailure]:
    told = []
    for _ in range(STEPS):
        try:
            store.tend(START)
        except StoreError as error:
            told.append(error.failure)
    return told


def test_a_correspondents_file_that_is_mended_is_read_again(
    folder: Path, store: SqliteGreylist, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_correspondents, "REST_SECONDS", 0.05)
    (folder / "correspondents.sqlite").mkdir()
    assert sight(store, 1, 0, is_vouched=True) is Memory.NEW
    assert told_by_tending(store) == [StoreFailure.OTHER]
    (folder / "correspondents.sqlite").rmdir()
    store.record(["ann@1.example"], 1e6, START)
    wait_until(lambda: sight(store, 1, 0, is_vouched=True) is Memory.CORRESPONDENT, "it is read again")
    assert told_by_tending(store) == []
    for each in folder.glob("correspondents.sqlite*"):
        each.unlink()
    damaged(folder / "correspondents.sqlite")
    wait_until(lambda: sight(store, 1, 0, is_vouched=True) is Memory.EARLY, "it is damaged")
    assert told_by_tending(store) == [StoreFailure.DAMAGED], "what is new is told"


def test_where_nobody_can_be_chosen_to_tend_decisions_go_on_and_it_is_told_once(
    folder: Path, store: SqliteGreylist, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_upkeep, "ELECTION_SECONDS", 0.0)
    (folder / "greylist.sqlite.tend").mkdir()
    sight(store, 1, 0)
    assert told_by_tending(store) == [StoreFailure.OTHER]
    assert sight(store, 1, 60) is Memory.RETRIED
    (folder / "greylist.sqlite.tend").rmdir()
    tend(store, 9e6)
    assert remembered(store) == set()


# One budget.


@contextmanager
def everything_locked(folder: Path) -> Iterator[None]:
    with (
        locked_by_another_process(folder / "greylist.sqlite"),
        locked_by_another_process(folder / "correspondents.sqlite", LOCKING_THE_PLACE),
    ):
        yield


def test_a_sighting_has_one_budget_for_all_that_it_does(folder: Path) -> None:
    other = open_store(folder)
    other.record(["ann@1.example"], 1e6, START)
    store = open_store(folder, BUDGET)
    store.probe()
    with everything_locked(folder):
        began = time.monotonic()
        with pytest.raises(StoreError, match="time-out"):
            sight(store, 1, 0, is_vouched=True)
        assert time.monotonic() - began < 1.45 * BUDGET
    other.close()
    store.close()
