"""One SQLite file that several processes and their threads read and change at once; the only import of sqlite3.

* Connections are made at the first use, in the process that uses them, and wander from thread to thread.
* Writers of one process queue for a lock of their own; for those of other processes they ask again every few hundred
  microseconds. SQLite's own waiting sleeps longer and longer, up to 100 ms at a time. Nobody waits beyond the budget.
* A file that is damaged is set aside, once, and a fresh one begun: StoreError(DAMAGED) tells the one who did it. A file that
  was renamed or removed under us is noticed at the next call, and opened or begun anew. A file is never set aside for a
  lock, for an error of the disk's, or because a newer program wrote it.

No user functions and no progress handlers: what calls back into Python from a thread of libmilter's may find no state there.
"""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from mailward.adapters.sqlite_place import FilePlace, Identity
from mailward.model.errors import StoreError, StoreFailure
from mailward.model.state import Durability

MAX_CONNECTIONS = 4  # of a process: one that writes, and some that read beside it
FIRST_WAIT, LONGEST_WAIT = 0.00005, 0.001  # seconds between two tries at a lock of another process

CACHE_KIB = 512  # a connection; the kernel has the file in its memory anyway, and other processes' writes void ours
# Whoever tends the file empties the log when it has some hundred pages. This is for when nobody does: 32 MB.
LAST_RESORT_PAGES = 8000
LOG_KEPT_OCTETS = 16 * 1024 * 1024  # what stays of a log that once was longer

SETTINGS = (
    f"PRAGMA cache_size = -{CACHE_KIB}",
    f"PRAGMA wal_autocheckpoint = {LAST_RESORT_PAGES}",
    f"PRAGMA journal_size_limit = {LOG_KEPT_OCTETS}",
    "PRAGMA secure_delete = OFF",  # Debian's default writes zeros over all that is forgotten
    "PRAGMA cell_size_check = ON",  # so that a damaged page is noticed where it is read
    "PRAGMA trusted_schema = OFF",
    "PRAGMA temp_store = MEMORY",
)
SYNCHRONOUS = {Durability.PROCESS: "NORMAL", Durability.POWER: "FULL"}

Row = tuple[Any, ...]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Schema:
    """What a program's file holds. `application_id` is in the file's header, so that no program takes another's for its own.

    `migrations` are lists of statements: the first makes version 1 of nothing, the next version 2 of it, and so on.
    """

    application_id: int
    migrations: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One statement that writes. `is_vital`: unless it changes a row, nothing of what it is part of shall happen."""

    statement: str
    values: Row = ()
    is_vital: bool = True


@dataclass(slots=True)
class _Link:
    connection: sqlite3.Connection
    identity: Identity
    is_read_only: bool


class _Damaged(Exception):
    """SQLite says that a file is not what it wrote."""

    def __init__(self, identity: Identity, words: str) -> None:
        super().__init__(words)
        self.identity = identity


class SqliteFile:
    """One file of a program's, in WAL mode. Every method raises StoreError, after about `timeout` seconds at the latest."""

    def __init__(self, path: Path, schema: Schema, durability: Durability, timeout: float) -> None:
        self.place = FilePlace(path)
        self._schema = schema
        self._durability = durability
        self._timeout = timeout
        self._idle: list[_Link] = []
        self._lost: list[list[_Link]] = []
        self._start_over()

    def _start_over(self) -> None:
        """Begin without connections. After a fork there are the parent's, which must neither be used nor closed here."""
        self._lost.append(self._idle)
        self._idle = []
        self._writing = threading.Lock()
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._process_id = os.getpid()

    def query(self, statement: str, values: Row = ()) -> list[Row]:
        """Return the rows of a statement that only reads: no lock of a writer's is waited for."""
        return self._run(lambda connection: connection.execute(statement, values).fetchall())

    def query_if_there(self, statement: str, values: Row = ()) -> list[Row]:
        """Return the rows likewise; none, and make no file, where there is no file."""
        return [] if self.place.identity() is None else self.query(statement, values)

    def change(self, *changes: Change) -> bool:
        """Make all the changes or none, in one step; False if none, as a vital one found no row to change."""
        return self._write(lambda connection: _make_changes(connection, changes))

    def change_rows(self, statement: str, rows: Sequence[Row]) -> None:
        """Run one statement for each of the rows, in one step."""
        self._write(lambda connection: _change_rows(connection, statement, rows))

    def empty_log(self) -> tuple[int, int]:
        """Copy the log's pages into the file, locking out nobody; return how many it holds, and how many are copied."""
        _, pages, copied = self.query("PRAGMA wal_checkpoint(PASSIVE)")[0]
        return pages, copied

    def close(self) -> None:
        """Close what nobody uses just now; a later call opens it again."""
        while self._idle:
            self._idle.pop().connection.close()

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._process_id != os.getpid():
            self._start_over()
        deadline = time.monotonic() + self._timeout
        writing = self._writing
        if not writing.acquire(timeout=self._timeout):
            raise StoreError(StoreFailure.TIMEOUT, "another thread of this process is writing")
        try:
            return self._run(work, deadline, is_write=True)
        finally:
            writing.release()

    def _run(self, work: Callable[[sqlite3.Connection], T], deadline: float = 0.0, *, is_write: bool = False) -> T:
        """Do the work on a connection, again where another process was in the way; it must be fit to be done again."""
        if self._process_id != os.getpid():
            self._start_over()
        deadline = deadline or time.monotonic() + self._timeout
        places = self._places
        if not places.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise StoreError(StoreFailure.TIMEOUT, "every connection is in use")
        try:
            wait = FIRST_WAIT
            while True:
                try:
                    return self._try(work, deadline, is_write=is_write)
                except sqlite3.Error as error:
                    if _code(error) not in BUSY:
                        raise self._meaning(error) from error
                except _Damaged as damaged:
                    if (aside := self.place.set_aside(damaged.identity, deadline)) is not None:
                        words = f"{self.place.name}: {damaged}; set aside as {aside}, and a fresh one is begun"
                        raise StoreError(StoreFailure.DAMAGED, words) from None
                if time.monotonic() >= deadline:
                    raise StoreError(StoreFailure.TIMEOUT, f"{self.place.name} is locked by another process")
                time.sleep(wait * (0.5 + random.random()))
                wait = min(LONGEST_WAIT, wait * 2)
        finally:
            places.release()

    def _try(self, work: Callable[[sqlite3.Connection], T], deadline: float, *, is_write: bool) -> T:
        link = self._take(deadline, is_write=is_write)
        is_sound = False
        try:
            result = work(link.connection)
            is_sound = True
            return result
        except sqlite3.Error as error:
            is_sound = _code(error) in BUSY
            if _code(error) in DAMAGED:
                raise _Damaged(link.identity, str(error)) from None
            raise
        finally:
            self._give_back(link, is_sound=is_sound)

    def _take(self, deadline: float, *, is_write: bool) -> _Link:
        """Return a connection to the file that is there now."""
        identity = self.place.identity()
        while True:
            try:
                link = self._idle.pop()  # the last one used: most of the file's upper pages are still in its cache
            except IndexError:
                return self._open(deadline, is_write=is_write)
            if link.identity == identity:
                return link
            link.connection.close()  # the file has been set aside or removed

    def _give_back(self, link: _Link, *, is_sound: bool) -> None:
        if is_sound and not link.is_read_only:
            if link.connection.in_transaction:
                link.connection.execute("ROLLBACK")
            self._idle.append(link)
        else:
            # What can only read is opened anew each time: the folder may be writable again.
            link.connection.close()

    def _open(self, deadline: float, *, is_write: bool) -> _Link:
        with self.place.locked(deadline):
            self.place.make()
            identity = self.place.identity() or (0, 0)  # removed just now: the next call will find another
            is_read_only = not self.place.is_writable
            if is_write and is_read_only:
                raise StoreError(StoreFailure.READ_ONLY, f"{self.place.path} or its folder cannot be written")
            connection = self._connect(is_read_only=is_read_only)
            try:
                self._prepare(connection)
            except BaseException as error:
                connection.close()
                if isinstance(error, sqlite3.Error) and _code(error) in DAMAGED:
                    raise _Damaged(identity, str(error)) from None
                raise
            return _Link(connection, identity, is_read_only)

    def _connect(self, *, is_read_only: bool) -> sqlite3.Connection:
        mode = "mode=rw"
        if is_read_only:
            # In a folder that cannot be written, SQLite reads a file that has no log only if told that nobody changes it.
            mode = "immutable=1" if self.place.is_at_rest else "mode=ro"
        address = f"file:{quote(self.place.path)}?{mode}"
        return sqlite3.connect(address, uri=True, timeout=0, isolation_level=None, check_same_thread=False)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Set up a connection, and bring the file to our version."""
        for setting in SETTINGS:
            connection.execute(setting)
        connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS[self._durability]}")
        if self._version_of(connection) == len(self._schema.migrations):
            return
        if connection.execute("PRAGMA journal_mode = WAL").fetchall() != [("wal",)]:
            raise StoreError(StoreFailure.OTHER, f"{self.place.path}: no write-ahead log on this file system")
        connection.execute("BEGIN IMMEDIATE")
        for statements in self._schema.migrations[self._version_of(connection) :]:  # read again: under the lock
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {self._schema.application_id}")
        connection.execute(f"PRAGMA user_version = {len(self._schema.migrations)}")
        connection.execute("COMMIT")

    def _version_of(self, connection: sqlite3.Connection) -> int:
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if (application_id, version, tables) == (0, 0, 0):
            return 0
        if application_id != self._schema.application_id:
            raise StoreError(StoreFailure.SCHEMA, f"{self.place.path} is not a file of ours")
        if version > (known := len(self._schema.migrations)):
            raise StoreError(StoreFailure.SCHEMA, f"{self.place.path} is of version {version}; we know up to {known}")
        return int(version)

    def _meaning(self, error: sqlite3.Error) -> StoreError:
        code = _code(error)
        if code in UNCLEAR:
            return self.place.diagnosed(str(error))
        return StoreError(FAILURES.get(code, StoreFailure.OTHER), f"{self.place.path}: {error}")


BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
UNCLEAR = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})
FAILURES = {
    sqlite3.SQLITE_FULL: StoreFailure.FULL,
    sqlite3.SQLITE_READONLY: StoreFailure.READ_ONLY,
}


def _code(error: sqlite3.Error) -> int:
    """Return the primary result code; the upper bits are SQLite's details. 0 where the module itself complains."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _make_changes(connection: sqlite3.Connection, changes: Sequence[Change]) -> bool:
    if len(changes) == 1:  # the lock is taken and given back within one call, in which Python's own is not needed
        (change,) = changes
        return connection.execute(change.statement, change.values).rowcount > 0 or not change.is_vital
    connection.execute("BEGIN IMMEDIATE")
    for change in changes:
        if connection.execute(change.statement, change.values).rowcount <= 0 and change.is_vital:
            connection.execute("ROLLBACK")
            return False
    connection.execute("COMMIT")
    return True


def _change_rows(connection: sqlite3.Connection, statement: str, rows: Sequence[Row]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(statement, rows)
    connection.execute("COMMIT")
