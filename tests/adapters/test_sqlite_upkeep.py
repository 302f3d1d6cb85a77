"""Keeping SQLite files small: what has expired is forgotten by one process at a time, and the log emptied into the file."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailward.adapters import sqlite_link, sqlite_rows, sqlite_upkeep
from mailward.adapters.sqlite_greylist import SqliteGreylist
from mailward.model.greylist import TripletRecord
from mailward.model.state import Durability
from tests.adapters.sqlite_sightings import (
    PAGE,
    START,
    open_store,
    put_expired,
    sight,
    size_of,
    triplet,
)
from tests.adapters.sqlite_support import in_a_fork
from tests.support.processes import wait_until


@pytest.fixture
def store(folder: Path) -> Iterator[SqliteGreylist]:
    opened = open_store(folder)
    yield opened
    opened.close()


def tend_until(store: SqliteGreylist, now: float, count: int) -> None:
    def step() -> bool:
        store.tend(now)
        return len(list(store.triplets())) == count

    wait_until(step, f"{count} triplets are left")


def test_the_file_does_not_grow_when_it_is_filled_again_and_again(folder: Path, store: SqliteGreylist) -> None:
    sizes = []
    for turn in range(5):
        put_expired(store, range(turn * 3000, turn * 3000 + 3000))
        tend_until(store, START + (turn + 1) * 7200, 0)
        store._file.empty_log()
        sizes.append(size_of(folder / "greylist.sqlite"))
    assert sizes[0] > 50 * PAGE
    assert max(sizes[1:]) <= sizes[0] * 1.1


def test_one_process_tends_and_another_when_it_has_died(folder: Path, store: SqliteGreylist) -> None:
    put_expired(store, range(10))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        open_store(folder).tend(START)
        os.write(writing, b"!")
        signal.pause()
    os.read(reading, 1)
    for _ in range(20):
        store.tend(START + 7200)
    assert len(list(store.triplets())) == 10, "it leaves that to the other"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    tend_until(store, START + 7200, 0)


def test_who_closes_lets_another_tend(folder: Path, store: SqliteGreylist) -> None:
    put_expired(store, range(10))
    other = open_store(folder)
    other.tend(START)
    other.close()
    tend_until(store, START + 7200, 0)


def test_a_fork_of_who_tends_does_not_tend(folder: Path, store: SqliteGreylist) -> None:
    put_expired(store, range(10))
    store.tend(START)

    def tend_in_the_child() -> str:
        for _ in range(20):
            store.tend(START + 7200)
        return str(len(list(store.triplets())))

    assert in_a_fork(tend_in_the_child) == "10"
    tend_until(store, START + 7200, 0)


def test_all_rows_are_looked_at_in_every_round(store: SqliteGreylist) -> None:
    """The walk begins anywhere, and must come to what lies before it too; what is alive stays."""
    put_expired(store, range(5000))
    store.put_triplets(TripletRecord(triplet(number), START, 0.0, START + 1e9) for number in range(5000, 7000))
    tend_until(store, START + 3600, 2000)
    put_expired(store, range(100))
    for _ in range(50):
        store.tend(START + 3700)
    assert len(list(store.triplets())) == 2100, "it rests until an hour is over"
    tend_until(store, START + 7300, 2000)


def test_a_clock_that_was_set_back_stops_no_housekeeping(store: SqliteGreylist) -> None:
    tend_until(store, START + 1e8, 0)
    put_expired(store, range(10))
    tend_until(store, START + 100, 0)


def test_tending_empties_the_log(folder: Path, store: SqliteGreylist) -> None:
    store.probe()
    for number in range(300):
        sight(store, number, 0)
    before = size_of(folder / "greylist.sqlite")

    def step() -> bool:
        store.tend(START)
        return size_of(folder / "greylist.sqlite") > before + 5 * PAGE

    wait_until(step, "the log is in the file")
    written = size_of(folder / "greylist.sqlite-wal")
    for number in range(300):
        sight(store, number, 0)
    assert size_of(folder / "greylist.sqlite-wal") == written, "it is begun again from its start"


def test_the_log_is_bounded_where_nobody_tends(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_link, "SETTINGS", (*sqlite_link.SETTINGS, "PRAGMA wal_autocheckpoint = 100"))
    store = open_store(folder)
    for number in range(1500):
        sight(store, number, 0)
    assert size_of(folder / "greylist.sqlite-wal") < 300 * PAGE
    store.close()


def test_every_connection_is_set_up_to_keep_the_log_small(store: SqliteGreylist) -> None:
    assert store._file.query("PRAGMA wal_autocheckpoint") == [(sqlite_link.LAST_RESORT_PAGES,)]
    assert store._file.query("PRAGMA journal_size_limit") == [(sqlite_link.LOG_KEPT_OCTETS,)]
    assert store._file.query("PRAGMA journal_mode") == [("wal",)]


@pytest.mark.parametrize(("durability", "level"), [(Durability.PROCESS, 1), (Durability.POWER, 2)])
def test_durability_is_how_often_the_disk_is_waited_for(folder: Path, durability: Durability, level: int) -> None:
    store = open_store(folder, durability=durability)
    assert store._file.query("PRAGMA synchronous") == [(level,)]
    store.close()


def test_a_step_of_the_walk_takes_some_milliseconds(store: SqliteGreylist) -> None:
    """Its size follows the time it took, whatever the disk: no more than doubled from step to step, and never stuck."""
    sizes = [sqlite_upkeep.FIRST_STEP]
    for seconds in (0.0001, 0.0001, 0.1, 5.0, 5.0, 0.0001):
        sizes.append(sqlite_rows.fitting(sizes[-1], seconds, sqlite_upkeep.STEP_SECONDS, 50, 20_000))
    assert sizes == [300, 600, 1200, 60, 50, 50, 100]
