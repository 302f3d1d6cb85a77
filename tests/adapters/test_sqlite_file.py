"""One SQLite file under everything that happens to files: locks, full and read-only disks, damage, removal, other versions."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mailward.adapters import sqlite_file
from mailward.adapters.sqlite_link import Change
from mailward.model.errors import StoreFailure
from tests.adapters.sqlite_notes import (
    GENEROUS,
    Opener,
    aside,
    failure_of,
    fill,
    names,
    note,
    notes,
    opening,
)
from tests.adapters.sqlite_support import (
    LOCKING_THE_PLACE,
    NOBODY,
    in_a_fork,
    locked_by_another_process,
    read_only_mount,
    small_file_system,
)
from tests.support.processes import run, wait_until

BUDGET = 0.3


@pytest.fixture
def opened() -> Iterator[Opener]:
    with opening() as opener:
        yield opener


# What happens at once.


def test_changes_that_belong_together_happen_together_or_not_at_all(folder: Path, opened: Opener) -> None:
    file = opened(folder / "file")
    assert note(file, 1)
    missing = Change("UPDATE notes SET text = 'changed' WHERE key = 5")
    assert not file.change(Change("INSERT INTO notes VALUES (2, 'two')"), missing)
    assert notes(file) == [1]
    assert file.change(Change("INSERT INTO notes VALUES (2, 'two')"), Change(missing.statement, is_vital=False))
    assert notes(file) == [1, 2]


def test_a_change_that_fails_leaves_nothing_behind(folder: Path, opened: Opener) -> None:
    file = opened(folder / "file")
    wrong = Change("INSERT INTO notes VALUES (2, NULL)")
    assert failure_of(lambda: file.change(Change("INSERT INTO notes VALUES (1, 'one')"), wrong)) is StoreFailure.OTHER
    assert notes(file) == []
    assert note(file, 1)


def test_many_threads_share_few_connections(folder: Path, opened: Opener) -> None:
    file = opened(folder / "file", timeout=60.0)

    def work(number: int) -> None:
        for turn in range(20):
            note(file, number * 100 + turn)
            assert number * 100 + turn in notes(file)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(work, range(12)))
    assert len(notes(file)) == 240
    assert len([name for name in os.listdir("/proc/self/fd") if leads_to(name, folder / "file")]) <= (
        sqlite_file.MAX_CONNECTIONS
    )


def leads_to(descriptor: str, path: Path) -> bool:
    try:
        return Path(f"/proc/self/fd/{descriptor}").readlink() == path
    except FileNotFoundError:
        return False


def test_a_fork_makes_connections_of_its_own(folder: Path, opened: Opener) -> None:
    file = opened(folder / "file")
    note(file, 1)

    def in_the_child() -> str:
        note(file, 2)
        return str(notes(file))

    assert in_a_fork(in_the_child) == "[1, 2]"
    note(file, 3)
    assert notes(file) == [1, 2, 3]


def test_a_fork_while_another_thread_writes(folder: Path, opened: Opener) -> None:
    file = opened(folder / "file")
    note(file, 1)
    with file._writing:  # as that thread has it
        assert in_a_fork(lambda: str(note(file, 2))) == "True"
    assert notes(file) == [1, 2]


def test_closed_it_opens_again(folder: Path, opened: Opener) -> None:
    file = opened(folder / "file")
    note(file, 1)
    file.close()
    file.close()
    assert names(folder) == {"file", "file.lock"}
    assert notes(file) == [1]


def test_what_only_asks_does_not_make_a_file(folder: Path, opened: Opener) -> None:
    file = opened(folder / "file")
    assert file.query_if_there("SELECT key FROM notes") == []
    assert names(folder) == set()
    other = opened(folder / "file")
    note(other, 1)
    wait_until(lambda: file.query_if_there("SELECT key FROM notes") == [(1,)], "what another has made is noticed")


def test_files_that_root_makes_belong_to_the_folders_owner(folder: Path, opened: Opener) -> None:
    os.chown(folder, NOBODY, NOBODY)
    file = opened(folder / "file")
    note(file, 1)
    assert {name: (folder / name).stat().st_uid for name in names(folder)} == {
        "file": NOBODY,
        "file-wal": NOBODY,
        "file-shm": NOBODY,
        "file.lock": NOBODY,
    }


# Locks.


def test_a_lock_of_another_process_is_waited_for_within_the_budget_alone(folder: Path, opened: Opener) -> None:
    file = opened(folder / "file", timeout=BUDGET)
    note(file, 1)
    with locked_by_another_process(folder / "file"):
        began = time.monotonic()
        assert failure_of(lambda: note(file, 2)) is StoreFailure.TIMEOUT
        assert time.monotonic() - began >= BUDGET
        assert notes(file) == [1], "reading waits for no writer"
    assert note(file, 3)
    assert notes(file) == [1, 3]


def test_a_lock_of_a_stopped_process_likewise(folder: Path, opened: Opener) -> None:
    file = opened(folder / "file", timeout=BUDGET)
    note(file, 1)
    with locked_by_another_process(folder / "file") as pid:
        os.kill(pid, signal.SIGSTOP)
        assert failure_of(lambda: note(file, 2)) is StoreFailure.TIMEOUT
        assert notes(file) == [1]
    assert note(file, 3)


def test_many_threads_behind_a_lock_wait_no_longer_than_one(folder: Path, opened: Opener) -> None:
    file = opened(folder / "file", timeout=BUDGET)
    note(file, 1)
    with locked_by_another_process(folder / "file"), ThreadPoolExecutor(20) as pool:
        failures = pool.map(lambda key: failure_of(lambda: note(file, key)), range(20))
        assert set(failures) == {StoreFailure.TIMEOUT}
        assert notes(file) == [1]
    assert note(file, 3)


def test_a_lock_given_back_within_the_budget_is_no_failure(folder: Path, opened: Opener) -> None:
    file = opened(folder / "file")
    note(file, 1)
    with ThreadPoolExecutor(1) as pool:
        with locked_by_another_process(folder / "file"):
            writing = pool.submit(note, file, 2)
            time.sleep(0.1)  # the writer waits meanwhile, and that it does is the point
            assert not writing.done()
        assert writing.result(GENEROUS)
    assert notes(file) == [1, 2]


def test_somebody_who_hangs_while_opening_keeps_only_newcomers_out(folder: Path, opened: Opener) -> None:
    file, late = opened(folder / "file"), opened(folder / "file", timeout=BUDGET)
    note(file, 1)
    with locked_by_another_process(folder / "file", LOCKING_THE_PLACE):
        assert note(file, 2)
        assert failure_of(lambda: notes(late)) is StoreFailure.TIMEOUT
    assert notes(late) == [1, 2]


# No room, no rights, no folder.


def test_a_full_disk(folder: Path, opened: Opener) -> None:
    with small_file_system(folder, 2 * 1024 * 1024) as small:
        file = opened(small / "file")
        ballast = small / "ballast"
        note(file, 0)
        ballast.write_bytes(b"x" * (1400 * 1024))
        assert failure_of(lambda: fill(file)) is StoreFailure.FULL
        assert failure_of(lambda: fill(file)) is StoreFailure.FULL
        assert notes(file) == [0], "what was there can be read"
        ballast.unlink()
        assert note(file, 1), "as soon as there is room again"
        assert aside(small) == []
        file.close()


def test_a_disk_that_is_full_from_the_beginning(folder: Path, opened: Opener) -> None:
    with small_file_system(folder, 64 * 1024) as small:
        ballast = small / "ballast"
        ballast.write_bytes(b"x" * (64 * 1024))
        file = opened(small / "file")
        assert failure_of(lambda: note(file, 1)) is StoreFailure.FULL
        ballast.unlink()
        assert note(file, 1)
        file.close()


@pytest.mark.parametrize("has_writer", [True, False], ids=["in use elsewhere", "at rest"])
def test_a_read_only_mount(folder: Path, opened: Opener, has_writer: bool) -> None:
    state = folder / "state"
    state.mkdir()
    writer = opened(state / "file")
    note(writer, 1)
    if not has_writer:
        writer.close()
    with read_only_mount(state) as mounted:
        file = opened(mounted / "file")
        assert notes(file) == [1]
        assert failure_of(lambda: note(file, 2)) is StoreFailure.READ_ONLY
        assert notes(file) == [1]
        assert aside(state) == []
        note(writer, 3)
        assert notes(file) == [1, 3], "what others write is seen all the same"
        file.close()


def test_a_mount_that_becomes_writable_again(folder: Path, opened: Opener) -> None:
    state = folder / "state"
    state.mkdir()
    writer = opened(state / "file")
    note(writer, 1)
    writer.close()
    with read_only_mount(state) as mounted:
        file = opened(mounted / "file")
        assert failure_of(lambda: note(file, 2)) is StoreFailure.READ_ONLY
        run(["mount", "-o", "remount,bind,rw", str(mounted)])
        assert note(file, 2)
        assert notes(file) == [1, 2]
        file.close()


@pytest.mark.parametrize(
    ("folder_mode", "file_mode", "reads", "writes"),
    [
        pytest.param(0o555, 0o444, "[1]", "READ_ONLY", id="neither folder nor file may be written"),
        pytest.param(0o555, 0o666, "[1]", "READ_ONLY", id="the folder may not be written"),
        pytest.param(0o777, 0o444, "[1]", "READ_ONLY", id="the file may not be written"),
        pytest.param(0o777, 0o000, "REFUSED", "READ_ONLY", id="the file may not be read"),
        pytest.param(0o000, 0o666, "REFUSED", "REFUSED", id="the folder may not be entered"),
        pytest.param(0o777, 0o666, "[1]", "True", id="all is allowed"),
    ],
)
def test_another_account(
    folder: Path, opened: Opener, folder_mode: int, file_mode: int, reads: str, writes: str
) -> None:
    state = folder / "state"
    state.mkdir()
    first = opened(state / "file")
    note(first, 1)
    first.close()
    (state / "file.lock").chmod(0o666)
    (state / "file").chmod(file_mode)
    state.chmod(folder_mode)
    file = opened(state / "file")
    assert in_a_fork(lambda: str(notes(file)), account=NOBODY) == reads
    assert in_a_fork(lambda: str(note(file, 2)), account=NOBODY) == writes
    assert aside(state) == []


def test_no_file_where_none_may_be_made(folder: Path, opened: Opener) -> None:
    file = opened(folder / "file")
    assert in_a_fork(lambda: str(note(file, 1)), account=NOBODY) == "READ_ONLY"


def test_no_folder(folder: Path, opened: Opener) -> None:
    file = opened(folder / "state" / "file")
    assert failure_of(lambda: note(file, 1)) is StoreFailure.AWAY
    (folder / "state").mkdir()
    assert note(file, 1)


def test_a_file_in_the_folders_place(folder: Path, opened: Opener) -> None:
    (folder / "state").touch()
    file = opened(folder / "state" / "file")
    assert failure_of(lambda: note(file, 1)) is StoreFailure.AWAY


def test_a_folder_in_the_files_place(folder: Path, opened: Opener) -> None:
    (folder / "file").mkdir()
    assert failure_of(lambda: note(opened(folder / "file"), 1)) is StoreFailure.OTHER
    assert aside(folder) == []
