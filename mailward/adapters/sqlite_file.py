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

import contextlib
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

MAX_CONNECTIONS = 3  # of a process: one that writes, one that empties the log, and one that reads meanwhile
FIRST_WAIT, LONGEST_WAIT = 0.00005, 0.001  # seconds between two tries at a lock of another process

CACHE_KIB = 256  # a connection; the kernel has the file in its memory anyway, and other processes' writes void ours

# The file never gets larger than this, whatever happens; whoever tends it sees to it that it does not come near. Two gibibytes
# are fifteen million triplets, half as many again as the busiest servers have. Room is needed for that, and for the log.
MAX_OCTETS = 2 * 1024**3
PAGE_OCTETS = 4096  # unless the schema says otherwise; numbers of pages mean pages of this size
# Whoever tends the file empties the log when it has some hundred pages. This is for when nobody does: 32 MB. At four
# thousand new rows a second the log stays below 16 MB; what has 64 MB beside the file has room for more than comes by mail.
LAST_RESORT_PAGES = 8000
RESTART_MILLISECONDS = 50  # how long a moment is waited for in which nobody writes
LOG_KEPT_OCTETS = 8 * 1024 * 1024  # what stays of a log that once was longer: on a full disk, the room to forget in

SETTINGS = (
    f"PRAGMA journal_size_limit = {LOG_KEPT_OCTETS}",
    "PRAGMA secure_delete = OFF",  # Debian's default writes zeros over all that is forgotten
    "PRAGMA cell_size_check = ON",  # so that a damaged page is noticed where it is read
    "PRAGMA trusted_schema = OFF",
    "PRAGMA temp_store = MEMORY",
)
SYNCHRONOUS = {Durability.PROCESS: "NORMAL", Durability.POWER: "FULL"}

Row = tuple[Any, ...]
Connection = sqlite3.Connection
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Schema:
    """What a program's file holds. `application_id` is in the file's header, so that no program takes another's for its own.

    `migrations` are lists of statements: the first makes version 1 of nothing, the next version 2 of it, and so on.
    `page_octets` is what a change writes at least.
    """

    application_id: int
    migrations: tuple[tuple[str, ...], ...]
    page_octets: int = PAGE_OCTETS


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


class _NoRoom(Exception):
    """Every connection that may be is in use."""


class SqliteFile:
    """One file of a program's, in WAL mode. Every method raises StoreError, after about `timeout` seconds at the latest."""

    def __init__(
        self,
        path: Path,
        schema: Schema,
        durability: Durability,
        timeout: float,
        max_octets: int = MAX_OCTETS,
        cache_kib: int = CACHE_KIB,
    ) -> None:
        self.place = FilePlace(path)
        self._cache_kib = cache_kib
        self._max_octets = max_octets
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
        self._counting = threading.Lock()
        self._links = 0  # connections there are, idle or in use
        self._process_id = os.getpid()

    def deadline(self) -> float:
        """Return until when (monotonic seconds) what begins now may take; for who does several things within one budget."""
        return time.monotonic() + self._timeout

    def query(self, statement: str, values: Row = (), deadline: float = 0.0) -> list[Row]:
        """Return the rows of a statement that only reads: no lock of a writer's is waited for."""
        return self._run(lambda connection: connection.execute(statement, values).fetchall(), deadline)

    def query_if_there(self, statement: str, values: Row = (), deadline: float = 0.0) -> list[Row]:
        """Return the rows likewise; none, and make no file, where there is no file."""
        return [] if self.place.lately() is None else self.query(statement, values, deadline)

    def change(self, *changes: Change, deadline: float = 0.0) -> bool:
        """Make all the changes or none, in one step; False if none, as a vital one found no row to change."""
        return self._write(lambda connection: _make_changes(connection, changes), deadline)

    def change_rows(self, statement: str, rows: Sequence[Row]) -> None:
        """Run one statement for each of the rows, in one step."""
        self._write(lambda connection: _change_rows(connection, statement, rows))

    def transact(self, work: Callable[[Connection], T], deadline: float = 0.0) -> T:
        """Read and write in one step: nobody else writes from before the first reading on. Nothing is written if `work` raises.

        `work` is begun again where another process was in the way.
        """
        return self._write(lambda connection: _transact(connection, work), deadline)

    def empty_log(self, *, is_locking: bool = False) -> tuple[int, int]:
        """Copy the log's pages into the file; return how many it holds, and how many are copied; (-1, -1): others are at it.

        That locks out nobody, but what others write meanwhile stays in the log, which then only ever grows. `is_locking` keeps
        them from it, if they let it come to that; after it the log is begun again from its start.
        """
        _, pages, copied = self._run(_restart_log if is_locking else _copy_log)
        size = self._schema.page_octets
        return (int(pages) * size // PAGE_OCTETS, int(copied) * size // PAGE_OCTETS) if pages >= 0 else (-1, -1)

    def fill(self) -> float:
        """Return which part is in use of what the file may be; of less, where the disk has no room for that.

        Half of what is free on the disk is for others: what it is shared with may be Postfix's queue.
        """
        pages, unused = self.query("SELECT page_count, freelist_count FROM pragma_page_count, pragma_freelist_count")[0]
        size = self._schema.page_octets
        limit = min(self._max_octets, pages * size + self.place.free_octets() / 2)
        return float((pages - unused) * size / max(size, limit))

    def close(self) -> None:
        """Close what nobody uses just now; a later call opens it again."""
        if self._process_id != os.getpid():
            self._start_over()
        while (link := self._idle_link()) is not None:
            self._close(link)

    def _write(self, work: Callable[[sqlite3.Connection], T], deadline: float = 0.0) -> T:
        if self._process_id != os.getpid():
            self._start_over()
        now = time.monotonic()
        deadline = deadline or now + self._timeout
        writing = self._writing
        if not writing.acquire(timeout=max(0.0, deadline - now)):
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
        wait, reason = FIRST_WAIT, "is locked by another process"
        while True:
            try:
                return self._try(work, deadline, is_write=is_write)
            except _NoRoom:
                reason = "has every connection in use"
            except sqlite3.Error as error:
                if _code(error) not in BUSY:
                    raise self._meaning(error) from error
            except _Damaged as damaged:
                if (aside := self.place.set_aside(damaged.identity, deadline)) is not None:
                    words = f"{self.place.name}: {damaged}; set aside as {aside}, and a fresh one is begun"
                    raise StoreError(StoreFailure.DAMAGED, words) from None
            if time.monotonic() >= deadline:
                raise StoreError(StoreFailure.TIMEOUT, f"{self.place.name} {reason}")
            time.sleep(wait * (0.5 + random.random()))
            wait = min(LONGEST_WAIT, wait * 2)

    def _try(self, work: Callable[[sqlite3.Connection], T], deadline: float, *, is_write: bool) -> T:
        link = self._take(deadline, is_write=is_write)
        try:
            result = work(link.connection)
        except BaseException as error:
            code = _code(error) if isinstance(error, sqlite3.Error) else 0
            self._give_back(link, is_sound=code in BUSY)
            if code in DAMAGED:
                raise _Damaged(link.identity, str(error)) from None
            raise
        if link.is_read_only:
            self._close(link)  # and open anew each time: the folder may be writable again
        else:
            self._idle.append(link)
        return result

    def _take(self, deadline: float, *, is_write: bool) -> _Link:
        """Return a connection to the file that is there now."""
        identity = self.place.lately()
        while (link := self._idle_link()) is not None:
            if link.identity == identity:
                return link
            self._close(link)  # the file has been set aside or removed
        return self._open_one_more(deadline, is_write=is_write)

    def _idle_link(self) -> _Link | None:
        try:
            return self._idle.pop()  # the last one used: most of the file's upper pages are still in its cache
        except IndexError:
            return None

    def _give_back(self, link: _Link, *, is_sound: bool) -> None:
        """Keep a connection whose work has failed, if it could do other work."""
        if is_sound and not link.is_read_only:
            with contextlib.suppress(sqlite3.Error):
                if link.connection.in_transaction:
                    link.connection.execute("ROLLBACK")
                self._idle.append(link)
                return
        self._close(link)

    def _close(self, link: _Link) -> None:
        try:
            link.connection.close()
        finally:
            with self._counting:
                self._links -= 1

    def _open_one_more(self, deadline: float, *, is_write: bool) -> _Link:
        with self._counting:
            if self._links >= MAX_CONNECTIONS:
                raise _NoRoom
            self._links += 1
        try:
            return self._open(deadline, is_write=is_write)
        except BaseException:
            with self._counting:
                self._links -= 1
            raise

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
        page_octets = self._schema.page_octets
        connection.execute(f"PRAGMA page_size = {page_octets}")  # of a file that is made now
        connection.execute(f"PRAGMA wal_autocheckpoint = {LAST_RESORT_PAGES * PAGE_OCTETS // page_octets}")
        for setting in SETTINGS:
            connection.execute(setting)
        connection.execute(f"PRAGMA cache_size = -{self._cache_kib}")
        connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS[self._durability]}")
        connection.execute(f"PRAGMA max_page_count = {self._max_octets // page_octets}")
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


def _transact(connection: Connection, work: Callable[[Connection], T]) -> T:
    connection.execute("BEGIN IMMEDIATE")
    result = work(connection)
    connection.execute("COMMIT")
    return result


def _copy_log(connection: sqlite3.Connection) -> Row:
    row: Row = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return row


def _restart_log(connection: sqlite3.Connection) -> Row:
    connection.execute(f"PRAGMA busy_timeout = {RESTART_MILLISECONDS}")
    deadline = time.monotonic() + RESTART_MILLISECONDS / 1000
    while True:
        row: Row = connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        if not row[0] or time.monotonic() >= deadline:
            break
        time.sleep(FIRST_WAIT)  # somebody else empties it just now, which SQLite does not wait for
    connection.execute("PRAGMA busy_timeout = 0")
    return row


def _change_rows(connection: sqlite3.Connection, statement: str, rows: Sequence[Row]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(statement, rows)
    connection.execute("COMMIT")
