"""A small SQLite file to try things out on: its versions, what is written into it and how it fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailward.adapters.sqlite_file import SqliteFile
from mailward.adapters.sqlite_link import Change, Schema
from mailward.model.errors import StoreError, StoreFailure
from mailward.model.state import Durability

FIRST = ("CREATE TABLE notes (key INTEGER PRIMARY KEY, text TEXT NOT NULL)",)
SECOND = ("ALTER TABLE notes ADD COLUMN colour TEXT NOT NULL DEFAULT 'white'", "UPDATE notes SET text = upper(text)")
ONE = Schema(7, (FIRST,))
TWO = Schema(7, (FIRST, SECOND))
GENEROUS = 10.0  # seconds within which anything must be over on a busy machine
ROWS = 4000  # of 200 octets: 800 kB, some two hundred pages

Opener = Callable[..., SqliteFile]


@contextmanager
def opening() -> Iterator[Opener]:
    """Yield what opens files; close them afterwards."""
    files = []

    def opener(path: Path, schema: Schema = ONE, timeout: float = GENEROUS) -> SqliteFile:
        file = SqliteFile(path, schema, Durability.PROCESS, timeout)
        files.append(file)
        return file

    yield opener
    for file in files:
        file.close()


def note(file: SqliteFile, key: int, text: str = "hello") -> bool:
    return file.change(Change("INSERT OR REPLACE INTO notes (key, text) VALUES (?, ?)", (key, text)))


def notes(file: SqliteFile) -> list[int]:
    return [key for (key,) in file.query("SELECT key FROM notes ORDER BY key")]


def fill(file: SqliteFile) -> None:
    file.change_rows(
        "INSERT OR REPLACE INTO notes (key, text) VALUES (?, ?)", [(key, "x" * 200) for key in range(ROWS)]
    )


def failure_of(act: Callable[[], object]) -> StoreFailure:
    """Return why it fails, which must be soon."""
    began = time.monotonic()
    with pytest.raises(StoreError) as caught:
        act()
    assert time.monotonic() - began < GENEROUS
    return caught.value.failure


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def aside(folder: Path) -> list[str]:
    return sorted(name for name in names(folder) if ".damaged-" in name and not name.endswith(("-wal", "-shm")))
