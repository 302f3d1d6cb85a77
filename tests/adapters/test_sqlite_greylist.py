"""Greylisting's SQLite files beside other processes: who waits for whom, what survives KILL, and that they stay small.

What it answers is in test_stores.py, for every store alike; what happens to the file in test_sqlite_file.py.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from mailward.adapters import sqlite_rows
from mailward.adapters.sqlite_greylist import SqliteGreylist
from mailward.model.errors import StoreError, StoreFailure
from mailward.model.greylist import Entry, EntryKind, Memory, OriginRecord, Triplet, TripletRecord
from mailward.model.state import Durability
from tests.adapters.sqlite_sightings import (
    GENEROUS,
    START,
    WINDOWS,
    open_store,
    put_expired,
    sight,
    triplet,
)
from tests.adapters.sqlite_support import in_a_fork, locked_by_another_process
from tests.support.processes import wait_until

BUDGET = 0.3


@pytest.fixture
def store(folder: Path) -> Iterator[SqliteGreylist]:
    opened = open_store(folder)
    yield opened
    opened.close()


# Who waits for whom.


def test_what_changes_nothing_waits_for_no_writer(folder: Path) -> None:
    store = open_store(folder, BUDGET)
    sight(store, 1, 0)
    sight(store, 2, 0)
    sight(store, 2, 60)
    store.put_origins([OriginRecord("3.example", 5, START, START + 36 * 86400)])
    store.record(["ann@4.example"], 1e6, START)
    store.set_entry(Entry(EntryKind.SENDER, "eve@example", False, START))
    with locked_by_another_process(folder / "greylist.sqlite"):
        assert sight(store, 1, 30) is Memory.EARLY
        assert sight(store, 2, 90) is Memory.PASSED
        assert sight(store, 3, 90) is Memory.ORIGIN
        assert sight(store, 4, 90, is_vouched=True) is Memory.CORRESPONDENT
        assert store.recalls(triplet(2), WINDOWS, START + 90)
        assert store.orders(START).entries
        assert store.returns(START) == ()
        assert len(list(store.triplets())) == store.count_triplets() == 2
        assert len(list(store.origins())) == 2
        for number, at in ((1, 60), (2, 20 * 86400), (3, 20 * 86400), (5, 0)):
            with pytest.raises(StoreError) as caught:
                sight(store, number, at)
            assert caught.value.failure is StoreFailure.TIMEOUT
        with pytest.raises(StoreError, match="time-out"):
            store.probe()
    assert sight(store, 1, 60) is Memory.RETRIED
    assert sight(store, 5, 0) is Memory.NEW
    store.close()


def test_a_refused_sighting_changed_nothing(folder: Path) -> None:
    store = open_store(folder, BUDGET)
    sight(store, 1, 0)
    with locked_by_another_process(folder / "greylist.sqlite"), pytest.raises(StoreError):
        sight(store, 1, 60)
    assert [record.passed_at for record in store.triplets()] == [0.0]
    assert list(store.origins()) == []
    store.close()


def test_a_writer_of_correspondents_keeps_no_decision_waiting(folder: Path) -> None:
    store = open_store(folder, BUDGET)
    store.record(["ann@1.example"], 1e6, START)
    with locked_by_another_process(folder / "correspondents.sqlite"):
        assert sight(store, 1, 0, is_vouched=True) is Memory.CORRESPONDENT
        assert sight(store, 2, 0, is_vouched=True) is Memory.NEW
        store.tend(START)
        with pytest.raises(StoreError, match="time-out"):
            store.record(["ann@2.example"], 1e6, START)
    store.close()


def test_many_records_are_written_while_others_decide(folder: Path, store: SqliteGreylist) -> None:
    other = open_store(folder)
    slowest = 0.0

    def put() -> None:
        put_expired(store, range(10_000, 20_000))

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(put)
        number = 0
        while not writing.done():
            began = time.monotonic()
            assert sight(other, number, 0) is Memory.NEW
            slowest = max(slowest, time.monotonic() - began)
            number += 1
        writing.result()
    assert number > 50
    assert slowest < GENEROUS / 3
    assert store.count_triplets() == pytest.approx(10_000 + number, rel=0.2)
    assert len(list(store.triplets())) == 10_000 + number
    other.close()


def test_the_correspondents_file_is_not_made_by_those_who_read(folder: Path, store: SqliteGreylist) -> None:
    assert sight(store, 1, 0, is_vouched=True) is Memory.NEW
    store.tend(START)
    assert list(store.correspondents()) == []
    assert not (folder / "correspondents.sqlite").exists()


def test_another_process_records_correspondents(folder: Path, store: SqliteGreylist) -> None:
    assert sight(store, 1, 0, is_vouched=True) is Memory.NEW

    def record() -> str:
        open_store(folder).record(["ann@1.example"], 1e6, START)
        return "recorded"

    assert in_a_fork(record) == "recorded"
    assert sight(store, 1, 1) is Memory.EARLY
    wait_until(lambda: sight(store, 1, 1, is_vouched=True) is Memory.CORRESPONDENT, "the new file is noticed")


# What survives.


@pytest.mark.parametrize("durability", Durability)
def test_killed_at_any_moment_nothing_that_was_answered_is_lost(folder: Path, durability: Durability) -> None:
    answered: dict[int, float] = {}
    writers: list[Writer] = [Writer(folder, durability, number) for number in range(3)]
    randomness = random.Random(11)
    for turn in range(12):
        time.sleep(randomness.random() * 0.05)
        victim = turn % 3
        writers[victim].await_answers(4)
        answered.update(writers[victim].kill())
        writers[victim] = Writer(folder, durability, 3 + turn)
    for writer in writers:
        answered.update(writer.kill())
    store = open_store(folder)
    kept = {record.triplet: record for record in store.triplets()}
    assert len(answered) > 20
    for number, passed_at in answered.items():
        assert kept[triplet(number)].passed_at >= passed_at  # more than was answered may have happened
    assert {record.origin for record in store.origins()} >= {triplet(n).origin for n in answered if answered[n]}
    assert store._file.query("PRAGMA integrity_check") == [("ok",)]
    assert not list(folder.glob("*.damaged-*"))
    store.close()


class Writer:
    """A process that sights new triplets, then sights them again, and says each answer before it asks for the next."""

    def __init__(self, folder: Path, durability: Durability, number: int) -> None:
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(reading)
                self._write(open_store(folder, durability=durability), number * 1_000_000, writing)
            finally:
                os._exit(1)
        os.close(writing)
        self._answers = os.fdopen(reading)
        self._lines: list[str] = []

    @staticmethod
    def _write(store: SqliteGreylist, first: int, answers: int) -> None:
        for number in range(first, first + 1_000_000):
            for at, memory, passed_at in ((0.0, Memory.NEW, 0.0), (60.0, Memory.RETRIED, START + 60)):
                assert sight(store, number, at) is memory
                os.write(answers, f"{number} {passed_at}\n".encode())
            store.tend(START)

    def await_answers(self, number: int) -> None:
        """Wait until it was given so many: two for each triplet."""
        while len(self._lines) < number:
            self._lines.append(self._answers.readline())
            assert self._lines[-1], "the writer has ended"

    def kill(self) -> dict[int, float]:
        """End it at once; return what it was answered."""
        os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        assert os.WIFSIGNALED(status)
        with self._answers as answers:
            lines = self._lines + [line for line in answers if line.endswith("\n")]
        return {int(number): float(passed_at) for number, passed_at in map(str.split, lines)}


# Rows.


def test_many_triplets_are_counted_by_a_sample(store: SqliteGreylist, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_rows, "SAMPLE", 500)
    put_expired(store, range(6000))
    assert store.count_triplets() == pytest.approx(6000, rel=0.25)


def test_two_triplets_with_one_hash_take_turns(store: SqliteGreylist, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_rows, "key_of", lambda *texts: len(texts))
    assert sight(store, 1, 0) is Memory.NEW
    assert sight(store, 1, 60) is Memory.RETRIED
    assert sight(store, 2, 60) is Memory.NEW
    assert sight(store, 2, 61) is Memory.EARLY
    assert sight(store, 2, 120) is Memory.RETRIED
    assert sight(store, 1, 130) is Memory.NEW
    assert [record.triplet for record in store.triplets()] == [triplet(1)]
    assert [(record.origin, record.passes) for record in store.origins()] == [("2.example", 1)]
    store.record(["ann@1.example"], 1e6, START)
    store.record(["ann@2.example"], 1e6, START)
    assert sight(store, 1, 131, is_vouched=True) is Memory.EARLY
    assert sight(store, 2, 131, is_vouched=True) is Memory.CORRESPONDENT


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param("\udcff\udcfe", id="octets that are no text"),
        pytest.param("müller@例え.example", id="other scripts"),
        pytest.param("a\0b", id="a zero octet"),
        pytest.param("x" * 5000, id="too long"),
        pytest.param("ü" * 5000, id="too long, in other letters"),
        pytest.param("\r\n\t\x1b[31m", id="control characters"),
    ],
)
def test_texts_that_nobody_promised_do_no_harm(store: SqliteGreylist, odd: str) -> None:
    strange = Triplet(odd, odd, odd)
    store.record([odd], 1e6, START)
    assert store.sight(strange, WINDOWS, now=START).memory is Memory.NEW
    assert store.sight(strange, WINDOWS, correspondent=strange.mail_from, now=START + 1).memory is Memory.CORRESPONDENT
    assert store.sight(strange, WINDOWS, now=START + 60).memory is Memory.RETRIED
    (record,) = store.triplets()
    assert len(record.triplet.origin) <= sqlite_rows.MAX_TEXT
    store.put_triplets([record])
    assert store.recalls(strange, WINDOWS, START + 61)
    store.set_entry(Entry(EntryKind.SENDER, odd, True, START, note=odd))
    assert store.remove_entry(Entry(EntryKind.SENDER, odd, True, START))
    assert store.forget_triplet(strange)
    assert store.forget_origin(odd)
    assert store.count_triplets() == 0


def test_numbers_that_are_none_are_refused(store: SqliteGreylist) -> None:
    good = TripletRecord(triplet(1), START, 0.0, START + 60)
    with pytest.raises(StoreError, match="other"):
        store.put_triplets([good, replace(good, triplet=triplet(2), expires=float("nan"))])
    with pytest.raises(StoreError, match="other"):
        store.sight(triplet(3), WINDOWS, now=float("nan"))
    store.put_origins([OriginRecord("1.example", 10**30, START, START + 60)])
    assert sight(store, 4, 0) is Memory.NEW
