"""Keeping a SQLite file small beside those who use it: what has expired is forgotten, and the log emptied into the file.

Of all processes one does it, that which holds `<file>.tend`. There is no index by which what expires could be found, as it
would have to be written at every decision: all rows are walked through instead, once an hour at most, from anywhere on,
and in steps that look at some hundred rows without a lock and delete those that have expired in some milliseconds.
SQLite fills the pages that become free again; nothing is ever rewritten as a whole (VACUUM).
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from mailward.adapters.sqlite_file import Change, SqliteFile
from mailward.adapters.sqlite_place import open_owned, try_lock
from mailward.adapters.sqlite_rows import HIGHEST_KEY, LOWEST_KEY, fitting

ROUND_SECONDS = 3600.0  # between the beginnings of two walks through all rows
STEP_SECONDS = 0.005
FIRST_STEP, SMALLEST_STEP, LARGEST_STEP = 300, 50, 20_000  # rows
ELECTION_SECONDS = 1.0  # between two tries to become the one who tends

# The log is emptied when it may have grown to this. More at once is a longer write, less is more often a wait for the disk.
LOG_PAGES = 1000
SHORTEST_WAIT, LONGEST_WAIT = 0.2, 2.0  # seconds

LOOK = (
    "SELECT count(*), max(key), sum(expires <= ?)"
    " FROM (SELECT key, expires FROM {} WHERE key BETWEEN ? AND ? ORDER BY key LIMIT ?)"
)
FORGET = "DELETE FROM {} WHERE key BETWEEN ? AND ? AND expires <= ?"


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Keys of one table that are still to be walked through."""

    table: str
    lowest: int
    highest: int


class Upkeep:
    """The housekeeping of one file: of its tables that have a `key` and `expires`, and of small ones.

    These are swept once a round by statements that take the time now as their one value.
    """

    def __init__(self, file: SqliteFile, tables: Sequence[str], sweeps: Sequence[Change] = ()) -> None:
        self._file = file
        self._tables = tuple(tables)
        self._sweeps = tuple(sweeps)
        self._stepping = threading.Lock()
        self._elected: int | None = None  # the descriptor that holds the lock
        self._process_id = 0
        self._election_at = 0.0
        self._ahead: list[_Stretch] = []
        self._round_began = float("-inf")
        self._size = FIRST_STEP
        self._log_due = 0.0
        self._log_wait = SHORTEST_WAIT
        self._log_copied = 0

    def step(self, now: float) -> None:
        """Do one step, if this process is the one; `now` is the clock by which things expire."""
        if not self._stepping.acquire(blocking=False):
            return
        try:
            if not self._is_elected():
                return
            if time.monotonic() >= self._log_due:
                self._empty_log()
            elif self._ahead:
                self._walk(now)
            elif not 0 <= now - self._round_began < ROUND_SECONDS:
                self._begin_round(now)
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
            raise place.failed(error) from None
        if try_lock(descriptor):
            self._elected = descriptor
            return True
        os.close(descriptor)
        return False

    def _resign(self) -> None:
        if self._elected is not None:
            os.close(self._elected)
            self._elected = None

    def _empty_log(self) -> None:
        """Copy the log into the file, and find out how long to wait until the next time."""
        pages, copied = self._file.empty_log()
        fresh = (
            pages - self._log_copied if pages >= self._log_copied else pages
        )  # else it was begun again from its start
        if fresh > LOG_PAGES:
            self._log_wait = max(SHORTEST_WAIT, self._log_wait / 2)
        elif fresh < LOG_PAGES / 4:
            self._log_wait = min(LONGEST_WAIT, self._log_wait * 2)
        self._log_copied = copied
        self._log_due = time.monotonic() + self._log_wait

    def _begin_round(self, now: float) -> None:
        """Start somewhere, so that daemons which are restarted all the time get everywhere, too."""
        self._round_began = now
        for sweep in self._sweeps:
            self._file.change(Change(sweep.statement, (now,), is_vital=False))
        start = random.randrange(LOWEST_KEY + 1, HIGHEST_KEY)
        self._ahead = [_Stretch(table, LOWEST_KEY, start - 1) for table in self._tables]
        self._ahead += [_Stretch(table, start, HIGHEST_KEY) for table in self._tables]

    def _walk(self, now: float) -> None:
        """Go some rows further, and forget those that have expired."""
        stretch, size = self._ahead[-1], self._size
        began = time.monotonic()
        seen, highest, expired = self._file.query(
            LOOK.format(stretch.table), (now, stretch.lowest, stretch.highest, size)
        )[0]
        if expired:
            values = (stretch.lowest, highest, now)
            self._file.change(Change(FORGET.format(stretch.table), values, is_vital=False))
        if seen < size or highest >= stretch.highest:
            self._ahead.pop()
        else:
            self._ahead[-1] = _Stretch(stretch.table, highest + 1, stretch.highest)
        self._size = fitting(size, time.monotonic() - began, STEP_SECONDS, SMALLEST_STEP, LARGEST_STEP)
