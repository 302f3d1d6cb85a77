"""Keeping a SQLite file small beside those who use it: what has expired is forgotten, and the log emptied into the file.

Of all processes one does it, that which holds `<file>.tend`. There is no index by which what expires could be found, as it
would have to be written at every decision: all rows are walked through instead, once an hour at most, from anywhere on,
and in steps that look at some hundred rows without a lock and delete those that have expired in some milliseconds.
SQLite fills the pages that become free again; nothing is ever rewritten as a whole (VACUUM).

Anybody who can connect can make rows, a thousand a second. Where the file comes near its bound, or the disk near its end, what
only waits is therefore forgotten sooner and sooner, and one walk follows the other. What has passed stays.
"""

from __future__ import annotations

import math
import os
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from mailward.adapters.sqlite_file import SqliteFile
from mailward.adapters.sqlite_link import PAGE_OCTETS, Change
from mailward.adapters.sqlite_place import open_owned, try_lock
from mailward.adapters.sqlite_rows import HIGHEST_KEY, LOWEST_KEY, fitting

ROUND_SECONDS = 3600.0  # between the beginnings of two walks through all rows
STEP_SECONDS = 0.005
FIRST_STEP, SMALLEST_STEP, LARGEST_STEP = 300, 50, 20_000  # rows
ELECTION_SECONDS = 1.0  # between two tries to become the one who tends

# The log is emptied when it may have grown to this. More at once is a longer write, less is more often a wait for the disk.
LOG_PAGES = 1000
# While several processes write without a pause, there is always something in the log that has not been copied yet, and it
# grows by a hundred megabytes a second or two. From this on they are kept from it for the moment that the rest takes.
LONG_LOG_PAGES = 1500
SHORTEST_WAIT, LONGEST_WAIT = 0.2, 2.0  # seconds

# How full the file is, and how long from then on what only waits is kept: most senders try again within some minutes, and
# nearly all within an hour.
PATIENCE = ((0.90, 900.0), (0.85, 3600.0), (0.80, 4 * 3600.0), (0.75, 12 * 3600.0))

LOOK = (
    "SELECT count(*), max(key), sum(gone)"
    " FROM (SELECT key, {gone} AS gone FROM {name} WHERE key BETWEEN ?3 AND ?4 ORDER BY key LIMIT ?5)"
)
FORGET = "DELETE FROM {name} WHERE key BETWEEN ?3 AND ?4 AND ({gone})"


@dataclass(frozen=True, slots=True)
class Table:
    """A table that has a `key`. `gone` is the condition of what is forgotten: ?1 is the time now.

    ?2 is when what only waits must have been written to be kept; long ago where there is room.
    """

    name: str
    gone: str = "expires <= ?1"


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Keys of one table that are still to be walked through."""

    table: Table
    lowest: int
    highest: int


class Upkeep:
    """The housekeeping of one file: of its large tables, and of small ones.

    These are swept once a round by statements that take the time now as their one value.
    """

    def __init__(self, file: SqliteFile, tables: Sequence[Table], sweeps: Sequence[Change] = ()) -> None:
        self._file = file
        self._tables = tuple(tables)
        self._sweeps = tuple(sweeps)
        self._stepping = threading.Lock()
        self._elected: int | None = None  # the descriptor that holds the lock
        self._is_barred = False  # nobody can be elected here, and that has been told
        self._process_id = 0
        self._election_at = 0.0
        self._ahead: list[_Stretch] = []
        self._round_began = float("-inf")
        self._size = FIRST_STEP
        self._log_due = 0.0
        self._log_wait = SHORTEST_WAIT
        self._log_copied = 0
        self._log_octets = 0

    def step(self, now: float, spared_seconds: float = 0.0) -> None:
        """Do one step, if this process is the one; `now` is the clock by which things expire.

        What has waited for less than `spared_seconds` is never forgotten for want of room. Raises StoreError once where
        nobody can be elected.
        """
        if not self._stepping.acquire(blocking=False):
            return
        try:
            if not self._is_elected():
                return
            try:
                self._look_after_log()
            finally:  # where the log cannot be emptied as the disk is full, forgetting makes room
                self._look_after_rows(now, spared_seconds)
        finally:
            self._stepping.release()

    @property
    def is_at_rest(self) -> bool:
        """Whether the last round has come to its end."""
        return not self._ahead

    def close(self) -> None:
        """Let another process tend."""
        with self._stepping:
            self._resign()

    def _is_elected(self) -> bool:
        if self._process_id != os.getpid():
            self._resign()  # a descriptor from before the fork holds the lock for the parent
            self._process_id = os.getpid()
        if self._elected is not None:
            return True
        if time.monotonic() < self._election_at:
            return False
        self._election_at = time.monotonic() + ELECTION_SECONDS
        place = self._file.place
        try:
            descriptor = open_owned(f"{place.path}.tend", place.folder)
        except OSError as error:
            if self._is_barred:
                return False
            self._is_barred = True
            raise place.failed(error) from None
        self._is_barred = False
        if try_lock(descriptor):
            self._elected = descriptor
            return True
        os.close(descriptor)
        return False

    def _resign(self) -> None:
        if self._elected is not None:
            os.close(self._elected)
            self._elected = None

    def _look_after_log(self) -> None:
        octets = self._file.place.octets_of_log()
        self._log_octets = min(octets, self._log_octets)
        if time.monotonic() >= self._log_due or octets - self._log_octets > LOG_PAGES * PAGE_OCTETS:
            self._log_octets = octets
            self._empty_log()

    def _empty_log(self) -> None:
        """Copy the log into the file, and find out how long to wait until the next time."""
        self._log_due = time.monotonic() + self._log_wait  # if that fails, too
        pages, copied = self._file.empty_log()
        if pages < 0 or pages > LONG_LOG_PAGES:  # others never stop writing; what is left to copy is little
            pages, copied = self._file.empty_log(is_locking=True)
        if pages < 0:
            self._log_wait, self._log_copied, self._log_due = SHORTEST_WAIT, 0, 0.0
            return
        fresh = (
            pages - self._log_copied if pages >= self._log_copied else pages
        )  # else it was begun again from its start
        if fresh > LOG_PAGES:
            self._log_wait = max(SHORTEST_WAIT, self._log_wait / 2)
        elif fresh < LOG_PAGES / 4:
            self._log_wait = min(LONGEST_WAIT, self._log_wait * 2)
        self._log_copied = copied
        self._log_due = time.monotonic() + self._log_wait

    def _look_after_rows(self, now: float, spared_seconds: float) -> None:
        patience = self._patience()
        if not self.is_at_rest:
            self._walk(now, now - max(patience, spared_seconds))
        elif patience < math.inf or not 0 <= now - self._round_began < ROUND_SECONDS:
            self._begin_round(now)

    def _patience(self) -> float:
        """Return how many seconds what only waits is kept; without end where there is room."""
        fill = self._file.fill()
        return next((seconds for part, seconds in PATIENCE if fill >= part), math.inf)

    def _begin_round(self, now: float) -> None:
        """Start somewhere, so that daemons which are restarted all the time get everywhere, too."""
        self._round_began = now
        for sweep in self._sweeps:
            self._file.change(Change(sweep.statement, (now,), is_vital=False))
        start = random.randrange(LOWEST_KEY + 1, HIGHEST_KEY)
        self._ahead = [_Stretch(table, LOWEST_KEY, start - 1) for table in self._tables]
        self._ahead += [_Stretch(table, start, HIGHEST_KEY) for table in self._tables]

    def _walk(self, now: float, since: float) -> None:
        """Go some rows further, and forget those that have expired, or have waited since before `since`."""
        stretch, size = self._ahead[-1], self._size
        table = stretch.table
        began = time.monotonic()
        look, forget = (text.format(name=table.name, gone=table.gone) for text in (LOOK, FORGET))
        seen, highest, gone = self._file.query(look, (now, since, stretch.lowest, stretch.highest, size))[0]
        if gone:
            self._file.change(Change(forget, (now, since, stretch.lowest, highest), is_vital=False))
        if seen < size or highest >= stretch.highest:
            self._ahead.pop()
        else:
            self._ahead[-1] = _Stretch(table, highest + 1, stretch.highest)
        self._size = fitting(size, time.monotonic() - began, STEP_SECONDS, SMALLEST_STEP, LARGEST_STEP)
