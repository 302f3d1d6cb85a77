"""SQLite files that are damaged, removed, replaced, or of another version: what is kept, and what is begun anew."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mailward.adapters.sqlite_link import Schema
from mailward.model.errors import StoreError, StoreFailure
from tests.adapters.sqlite_notes import (
    FIRST,
    ONE,
    ROWS,
    SECOND,
    TWO,
    Opener,
    aside,
    failure_of,
    fill,
    note,
    notes,
    opening,
)
from tests.adapters.sqlite_support import (
    in_a_fork,
    overwrite,
    read_only_mount,
)
from tests.support.processes import wait_until


@pytest.fixture
def opened() -> Iterator[Opener]:
    with opening() as opener:
        yield opener


# Damage, and files that go.

DAMAGES = {
    "its header overwritten": lambda path: overwrite(path, 0, 100),
    "its first page overwritten": lambda path: overwrite(path, 0, 4096),
    "its middle overwritten": lambda path: overwrite(path, 3 * 4096, 100 * 4096),
    "nonsense from beginning to end": overwrite,
    "cut in the middle": lambda path: os.truncate(path, 50 * 4096 + 100),
    "cut to one page": lambda path: os.truncate(path, 4096),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize("is_open", [True, False], ids=["in use", "at rest"])
def test_a_damaged_file_is_set_aside_once(
    folder: Path, opened: Opener, damage: Callable[[Path], None], is_open: bool
) -> None:
    file, other = opened(folder / "file"), opened(folder / "file")
    fill(file)
    file.empty_log()
    assert len(notes(other)) == ROWS
    if not is_open:
        file.close()
        other.close()
    damage(folder / "file")
    if is_open:
        note(other, ROWS)  # so that nobody's cache holds the file as it was
    with pytest.raises(StoreError, match=r"set aside as file\.damaged-") as caught:
        len(file.query("SELECT sum(length(text)) FROM notes"))
    assert caught.value.failure is StoreFailure.DAMAGED
    assert notes(file) == []
    assert note(file, 1)
    wait_until(lambda: notes(other) == [1], "others notice, and go on with the fresh one")
    assert note(other, 2)
    file.close()
    other.close()
    assert notes(file) == [1, 2]
    assert len(aside(folder)) == 1
    assert aside(folder)[0] in str(caught.value)


def test_nonsense_in_the_log_of_a_dead_process_is_passed_over(folder: Path, opened: Opener) -> None:
    file = opened(folder / "file")
    note(file, 1)
    file.close()
    in_a_fork(lambda: str(note(opened(folder / "file"), 2)))  # it ends without closing anything
    overwrite(folder / "file-wal")
    assert notes(file) == [1]
    assert note(file, 3)
    assert aside(folder) == []


def test_nonsense_in_a_log_that_is_in_use(folder: Path, opened: Opener) -> None:
    file, other = opened(folder / "file"), opened(folder / "file")
    fill(file)
    overwrite(folder / "file-wal", 4096)
    assert failure_of(lambda: other.query("SELECT sum(length(text)) FROM notes")) is StoreFailure.DAMAGED
    assert notes(file) == []
    assert note(file, 1)
    assert notes(other) == [1]


def test_damage_that_cannot_be_set_aside_is_told_each_time(folder: Path, opened: Opener) -> None:
    state = folder / "state"
    state.mkdir()
    writer = opened(state / "file")
    note(writer, 1)
    writer.close()
    overwrite(state / "file")
    with read_only_mount(state) as mounted:
        file = opened(mounted / "file")
        assert failure_of(lambda: notes(file)) is StoreFailure.DAMAGED
        assert failure_of(lambda: notes(file)) is StoreFailure.DAMAGED
        file.close()
    assert aside(state) == []


def test_of_many_damaged_files_the_last_ones_are_kept(folder: Path, opened: Opener) -> None:
    file = opened(folder / "file")
    kept = []
    for _ in range(5):
        note(file, 1)
        file.close()
        overwrite(folder / "file")
        assert failure_of(lambda: notes(file)) is StoreFailure.DAMAGED
        kept.append(aside(folder)[-1])
    assert aside(folder) == kept[-3:]


def test_many_threads_meet_damage_and_one_tells(folder: Path, opened: Opener) -> None:
    files = [opened(folder / "file", timeout=60.0) for _ in range(4)]
    fill(files[0])
    for file in files:
        file.close()
    overwrite(folder / "file", 0, 8192)
    told = []
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        for turn in range(5):
            try:
                note(files[number % 4], number * 10 + turn)
            except StoreError as error:
                told.append(error.failure)
                note(files[number % 4], number * 10 + turn)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert told == [StoreFailure.DAMAGED]
    assert len(notes(files[0])) == 40
    assert len(aside(folder)) == 1


@pytest.mark.parametrize("what", [("file",), ("file", "file-wal", "file-shm")], ids=["alone", "with its log"])
def test_a_file_that_is_removed_is_begun_anew(folder: Path, opened: Opener, what: tuple[str, ...]) -> None:
    file, other = opened(folder / "file"), opened(folder / "file")
    note(file, 1)
    assert notes(other) == [1]
    for name in what:
        (folder / name).unlink()
    wait_until(lambda: notes(file) == [], "that it is gone is noticed")
    assert note(file, 2)
    wait_until(lambda: notes(other) == [2], "and by others")
    assert note(other, 3)
    assert notes(file) == [2, 3]
    file.close()
    other.close()
    assert notes(opened(folder / "file")) == [2, 3]


def test_a_file_that_is_replaced_is_opened_anew(folder: Path, opened: Opener) -> None:
    file, spare = opened(folder / "file"), opened(folder / "spare")
    note(file, 1)
    note(spare, 2)
    spare.close()
    for name in ("file-wal", "file-shm"):
        (folder / name).unlink()
    (folder / "spare").rename(folder / "file")
    wait_until(lambda: notes(file) == [2], "the other file is noticed")


# Other versions.


def test_an_older_version_is_brought_to_ours(folder: Path, opened: Opener) -> None:
    old = opened(folder / "file", ONE)
    note(old, 1, "hello")
    old.close()
    new = opened(folder / "file", TWO)
    assert new.query("SELECT key, text, colour FROM notes") == [(1, "HELLO", "white")]
    new.close()
    assert opened(folder / "file", TWO).query("SELECT text FROM notes") == [("HELLO",)], "and only once"


def test_an_older_version_in_use_is_brought_to_ours(folder: Path, opened: Opener) -> None:
    old = opened(folder / "file", ONE)
    note(old, 1, "hello")
    new = opened(folder / "file", TWO)
    assert new.query("SELECT text, colour FROM notes") == [("HELLO", "white")]


def test_many_bring_an_older_version_to_ours_at_once(folder: Path, opened: Opener) -> None:
    old = opened(folder / "file", ONE)
    note(old, 1, "hello")
    old.close()
    files = [opened(folder / "file", TWO, 60.0) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        seen = list(pool.map(lambda file: file.query("SELECT text, colour FROM notes"), files))
    assert seen == [[("HELLO", "white")]] * 6


def test_a_step_that_fails_changes_nothing(folder: Path, opened: Opener) -> None:
    old = opened(folder / "file", ONE)
    note(old, 1, "hello")
    old.close()
    broken = Schema(7, (FIRST, (*SECOND, "INSERT INTO nowhere VALUES (1)")))
    assert failure_of(lambda: notes(opened(folder / "file", broken))) is StoreFailure.OTHER
    assert opened(folder / "file", ONE).query("SELECT * FROM notes") == [(1, "hello")]


def test_a_newer_version_is_left_alone(folder: Path, opened: Opener) -> None:
    new = opened(folder / "file", TWO)
    note(new, 1)
    new.close()
    old = opened(folder / "file", ONE)
    assert failure_of(lambda: notes(old)) is StoreFailure.SCHEMA
    assert failure_of(lambda: note(old, 2)) is StoreFailure.SCHEMA
    assert notes(new) == [1]
    assert aside(folder) == []


def test_another_programs_file_is_left_alone(folder: Path, opened: Opener) -> None:
    theirs = opened(folder / "file", Schema(8, (("CREATE TABLE theirs (key INTEGER PRIMARY KEY)",),)))
    theirs.query("SELECT * FROM theirs")
    theirs.close()
    assert failure_of(lambda: notes(opened(folder / "file"))) is StoreFailure.SCHEMA
    assert theirs.query("SELECT * FROM theirs") == []
    assert aside(folder) == []
