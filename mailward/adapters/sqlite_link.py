"""One connection to an SQLite file of ours: opened, set up, brought to our tables' version; and the steps done on it.

The only import of sqlite3: what its errors mean is said here, and other rooms see a few words of it (SqliteError, Connection).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

from mailward.adapters.sqlite_place import FilePlace, Identity
from mailward.model.errors import StoreError, StoreFailure
from mailward.model.state import Durability

CACHE_KIB = 256  # a connection; the kernel has the file in its memory anyway, and other processes' writes void ours

# The file never gets larger than this, whatever happens; whoever tends it sees to it that it does not come near. Two gibibytes
# are fifteen million triplets, half as many again as the busiest servers have. Room is needed for that, and for the log.
MAX_OCTETS = 2 * 1024**3
PAGE_OCTETS = 4096  # unless the schema says otherwise; numbers of pages mean pages of this size
# Whoever tends the file empties the log when it has some hundred pages. This is for when nobody does: 32 MB. At four
# thousand new rows a second the log stays below 16 MB; what has 64 MB beside the file has room for more than comes by mail.
LAST_RESORT_PAGES = 8000
RESTART_MILLISECONDS = 50  # how long a moment is waited for in which nobody writes
RESTART_WAIT = 0.00005  # seconds between two tries at it
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
SqliteError = sqlite3.Error
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
class Link:
    """A connection, and which file it is to: one that is set aside or removed keeps its connections."""

    connection: Connection
    identity: Identity
    is_read_only: bool


class Damaged(Exception):
    """SQLite says that a file is not what it wrote."""

    def __init__(self, identity: Identity, words: str) -> None:
        super().__init__(words)
        self.identity = identity


class Opener:
    """Opens connections to the file at a place; where there is none it makes one."""

    def __init__(
        self, place: FilePlace, schema: Schema, durability: Durability, max_octets: int, cache_kib: int
    ) -> None:
        self._place = place
        self._schema = schema
        self._durability = durability
        self._max_octets = max_octets
        self._cache_kib = cache_kib

    def open(self, deadline: float, *, is_write: bool) -> Link:
        """Return a new connection. Raises StoreError, SqliteError, Damaged."""
        with self._place.locked(deadline):
            self._place.make()
            identity = self._place.identity() or (0, 0)  # removed just now: the next call will find another
            is_read_only = not self._place.is_writable
            if is_write and is_read_only:
                raise StoreError(StoreFailure.READ_ONLY, f"{self._place.path} or its folder cannot be written")
            connection = self._connect(is_read_only=is_read_only)
            try:
                self._prepare(connection)
            except BaseException as error:
                connection.close()
                if isinstance(error, SqliteError) and is_damage(error):
                    raise Damaged(identity, str(error)) from None
                raise
            return Link(connection, identity, is_read_only)

    def _connect(self, *, is_read_only: bool) -> Connection:
        mode = "mode=rw"
        if is_read_only:
            # In a folder that cannot be written, SQLite reads a file that has no log only if told that nobody changes it.
            mode = "immutable=1" if self._place.is_at_rest else "mode=ro"
        address = f"file:{quote(self._place.path)}?{mode}"
        return sqlite3.connect(address, uri=True, timeout=0, isolation_level=None, check_same_thread=False)

    def _prepare(self, connection: Connection) -> None:
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
            raise StoreError(StoreFailure.OTHER, f"{self._place.path}: no write-ahead log on this file system")
        connection.execute("BEGIN IMMEDIATE")
        for statements in self._schema.migrations[self._version_of(connection) :]:  # read again: under the lock
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {self._schema.application_id}")
        connection.execute(f"PRAGMA user_version = {len(self._schema.migrations)}")
        connection.execute("COMMIT")

    def _version_of(self, connection: Connection) -> int:
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if (application_id, version, tables) == (0, 0, 0):
            return 0
        if application_id != self._schema.application_id:
            raise StoreError(StoreFailure.SCHEMA, f"{self._place.path} is not a file of ours")
        if version > (known := len(self._schema.migrations)):
            raise StoreError(StoreFailure.SCHEMA, f"{self._place.path} is of version {version}; we know up to {known}")
        return int(version)


# ---- what an error means ----

BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
UNCLEAR = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})
FAILURES = {
    sqlite3.SQLITE_FULL: StoreFailure.FULL,
    sqlite3.SQLITE_READONLY: StoreFailure.READ_ONLY,
}


def is_busy(error: SqliteError) -> bool:
    """Say whether another process was in the way, and the same may succeed in a moment."""
    return _code(error) in BUSY


def is_damage(error: SqliteError) -> bool:
    """Say whether the file is not what SQLite wrote."""
    return _code(error) in DAMAGED


def meaning(error: SqliteError, place: FilePlace) -> StoreError:
    """Say in our words what any other error means."""
    code = _code(error)
    if code in UNCLEAR:
        return place.diagnosed(str(error))
    return StoreError(FAILURES.get(code, StoreFailure.OTHER), f"{place.path}: {error}")


def _code(error: SqliteError) -> int:
    """Return the primary result code; the upper bits are SQLite's details. 0 where the module itself complains."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


# ---- steps: each is one transaction, and fit to be done again ----


def make_changes(connection: Connection, changes: Sequence[Change]) -> bool:
    """Make all the changes or none; say which."""
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


def change_rows(connection: Connection, statement: str, rows: Sequence[Row]) -> None:
    """Run one statement for each of the rows."""
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(statement, rows)
    connection.execute("COMMIT")


def transact(connection: Connection, work: Callable[[Connection], T]) -> T:
    """Do any work; where it raises the transaction is left open, for whoever has the connection to roll back."""
    connection.execute("BEGIN IMMEDIATE")
    result = work(connection)
    connection.execute("COMMIT")
    return result


def copy_log(connection: Connection) -> Row:
    """Copy the log's pages into the file, in nobody's way; return (whether busy, pages in the log, pages copied)."""
    row: Row = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return row


def restart_log(connection: Connection) -> Row:
    """Likewise, keeping others from writing until the log can begin from its start; that is waited for a moment."""
    connection.execute(f"PRAGMA busy_timeout = {RESTART_MILLISECONDS}")
    deadline = time.monotonic() + RESTART_MILLISECONDS / 1000
    while True:
        row: Row = connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        if not row[0] or time.monotonic() >= deadline:
            break
        time.sleep(RESTART_WAIT)  # somebody else empties it just now, which SQLite does not wait for
    connection.execute("PRAGMA busy_timeout = 0")
    return row
