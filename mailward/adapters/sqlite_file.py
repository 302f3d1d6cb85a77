"""One SQLite file that several processes and their threads read and change at once.

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
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from mailward.adapters.sqlite_link import (
    CACHE_KIB,
    MAX_OCTETS,
    PAGE_OCTETS,
    Change,
    Connection,
    Damaged,
    Link,
    Opener,
    Row,
    Schema,
    SqliteError,
    change_rows,
    copy_log,
    is_busy,
    is_damage,
    make_changes,
    meaning,
    restart_log,
    transact,
)
from mailward.adapters.sqlite_place import FilePlace
from mailward.model.errors import StoreError, StoreFailure
from mailward.model.state import Durability

MAX_CONNECTIONS = 3  # of a process: one that writes, one that empties the log, and one that reads meanwhile
FIRST_WAIT, LONGEST_WAIT = 0.00005, 0.001  # seconds between two tries at a lock of another process

T = TypeVar("T")


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
        self._opener = Opener(self.place, schema, durability, max_octets, cache_kib)
        self._page_octets = schema.page_octets
        self._max_octets = max_octets
        self._timeout = timeout
        self._idle: list[Link] = []
        self._lost: list[list[Link]] = []
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
        return self._write(lambda connection: make_changes(connection, changes), deadline)

    def change_rows(self, statement: str, rows: Sequence[Row]) -> None:
        """Run one statement for each of the rows, in one step."""
        self._write(lambda connection: change_rows(connection, statement, rows))

    def transact(self, work: Callable[[Connection], T], deadline: float = 0.0) -> T:
        """Read and write in one step: nobody else writes from before the first reading on. Nothing is written if `work` raises.

        `work` is begun again where another process was in the way.
        """
        return self._write(lambda connection: transact(connection, work), deadline)

    def empty_log(self, *, is_locking: bool = False) -> tuple[int, int]:
        """Copy the log's pages into the file; return how many it holds, and how many are copied; (-1, -1): others are at it.

        That locks out nobody, but what others write meanwhile stays in the log, which then only ever grows. `is_locking` keeps
        them from it, if they let it come to that; after it the log is begun again from its start.
        """
        _, pages, copied = self._run(restart_log if is_locking else copy_log)
        size = self._page_octets
        return (int(pages) * size // PAGE_OCTETS, int(copied) * size // PAGE_OCTETS) if pages >= 0 else (-1, -1)

    def fill(self) -> float:
        """Return which part is in use of what the file may be; of less, where the disk has no room for that.

        Half of what is free on the disk is for others: what it is shared with may be Postfix's queue.
        """
        pages, unused = self.query("SELECT page_count, freelist_count FROM pragma_page_count, pragma_freelist_count")[0]
        size = self._page_octets
        limit = min(self._max_octets, pages * size + self.place.free_octets() / 2)
        return float((pages - unused) * size / max(size, limit))

    def close(self) -> None:
        """Close what nobody uses just now; a later call opens it again."""
        if self._process_id != os.getpid():
            self._start_over()
        while (link := self._idle_link()) is not None:
            self._close(link)

    def _write(self, work: Callable[[Connection], T], deadline: float = 0.0) -> T:
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

    def _run(self, work: Callable[[Connection], T], deadline: float = 0.0, *, is_write: bool = False) -> T:
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
            except SqliteError as error:
                if not is_busy(error):
                    raise meaning(error, self.place) from error
            except Damaged as damaged:
                if (aside := self.place.set_aside(damaged.identity, deadline)) is not None:
                    words = f"{self.place.name}: {damaged}; set aside as {aside}, and a fresh one is begun"
                    raise StoreError(StoreFailure.DAMAGED, words, is_begun_anew=True) from None
            if time.monotonic() >= deadline:
                raise StoreError(StoreFailure.TIMEOUT, f"{self.place.name} {reason}")
            time.sleep(wait * (0.5 + random.random()))
            wait = min(LONGEST_WAIT, wait * 2)

    def _try(self, work: Callable[[Connection], T], deadline: float, *, is_write: bool) -> T:
        link = self._take(deadline, is_write=is_write)
        try:
            result = work(link.connection)
        except BaseException as error:
            failure = error if isinstance(error, SqliteError) else None
            self._give_back(link, is_sound=failure is not None and is_busy(failure))
            if failure is not None and is_damage(failure):
                raise Damaged(link.identity, str(error)) from None
            raise
        if link.is_read_only:
            self._close(link)  # and open anew each time: the folder may be writable again
        else:
            self._idle.append(link)
        return result

    def _take(self, deadline: float, *, is_write: bool) -> Link:
        """Return a connection to the file that is there now."""
        identity = self.place.lately()
        while (link := self._idle_link()) is not None:
            if link.identity == identity:
                return link
            self._close(link)  # the file has been set aside or removed
        return self._open_one_more(deadline, is_write=is_write)

    def _idle_link(self) -> Link | None:
        try:
            return self._idle.pop()  # the last one used: most of the file's upper pages are still in its cache
        except IndexError:
            return None

    def _give_back(self, link: Link, *, is_sound: bool) -> None:
        """Keep a connection whose work has failed, if it could do other work."""
        if is_sound and not link.is_read_only:
            with contextlib.suppress(SqliteError):
                if link.connection.in_transaction:
                    link.connection.execute("ROLLBACK")
                self._idle.append(link)
                return
        self._close(link)

    def _close(self, link: Link) -> None:
        try:
            link.connection.close()
        finally:
            with self._counting:
                self._links -= 1

    def _open_one_more(self, deadline: float, *, is_write: bool) -> Link:
        with self._counting:
            if self._links >= MAX_CONNECTIONS:
                raise _NoRoom
            self._links += 1
        try:
            return self._opener.open(deadline, is_write=is_write)
        except BaseException:
            with self._counting:
                self._links -= 1
            raise
