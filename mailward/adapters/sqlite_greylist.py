"""Greylisting's memory in a SQLite file, shared by the processes of one machine (mailward.model.ports.GreylistRecords).

A decision reads what is remembered in one statement, lets mailward.policy.greylist say what follows, and writes only what has
changed, in one statement that finds the rows as they were read, or else nothing happens and all is done again. So mail that
passes waits for no writer, and a writer holds the file's lock for some ten microseconds.

A row's key is a hash of its texts: short, so that even ten million triplets lie three pages below the root, and without a
second index to be written.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from mailward.adapters import sqlite_rows as rows
from mailward.adapters.sqlite_correspondents import SqliteCorrespondents
from mailward.adapters.sqlite_file import SqliteFile
from mailward.adapters.sqlite_link import MAX_OCTETS, Change
from mailward.adapters.sqlite_room import Room
from mailward.adapters.sqlite_rows import SCHEMA, Found
from mailward.adapters.sqlite_upkeep import Table, Upkeep
from mailward.model.errors import StoreError, StoreFailure
from mailward.model.greylist import (
    Entry,
    EntryKind,
    Memory,
    Orders,
    OriginRecord,
    ReturnCount,
    Sighting,
    Triplet,
    TripletRecord,
    Windows,
)
from mailward.model.state import Durability, StateSize
from mailward.policy import greylist

FILE = "greylist.sqlite"
RETURNS_KEPT = 2 * 86400.0
# Where room is short, what only waits goes. Not a triplet whose return is expected: those are few, and were they forgotten, it
# would look as if senders did not come back.
TRIPLET_GONE = "expires <= ?1 OR first_seen <= ?2 AND passed_at = 0 AND NOT is_expected"
SPARED_DELAYS = 4.0  # but not before it could have passed, and for a while after that


class SqliteGreylist:
    """A GreylistRecords over `<folder>/greylist.sqlite`, and the correspondents' file beside it, without which it does well.

    The file is kept below `max_octets`. What says FULL may be tended all the same: that makes room.
    """

    def __init__(self, folder: Path, durability: Durability, timeout: float, max_octets: int = MAX_OCTETS) -> None:
        self._file = SqliteFile(folder / FILE, SCHEMA, durability, timeout, max_octets)
        self._spared_seconds = 0.0
        self._room = Room(self._file)
        self._correspondents = SqliteCorrespondents(folder, durability, timeout)
        self.upkeep = Upkeep(
            self._file,
            (Table("triplets", TRIPLET_GONE), Table("origins")),
            (
                Change("DELETE FROM returns WHERE start <= ?1 - 172800"),
                Change("DELETE FROM entries WHERE until > 0 AND until <= ?1"),
            ),
        )

    def sight(
        self, triplet: Triplet, windows: Windows, *, correspondent: str = "", now: float | None = None
    ) -> Sighting:
        """Remember that a triplet was sighted, and say what was known."""
        now = _clock(now)
        triplet = rows.as_kept(triplet)
        self._spared_seconds = SPARED_DELAYS * windows.delay
        deadline = self._file.deadline()
        while True:
            found = self._find(triplet, deadline)
            sighting, kept = greylist.sight(triplet, found.known, windows, now)
            is_asked = correspondent and sighting.memory is not Memory.ORIGIN
            if is_asked and self._correspondents.knows(correspondent, now, deadline):
                return Sighting(Memory.CORRESPONDENT, now)
            changes = rows.changes(found, kept, sighting)
            if changes:
                self._room.require()
            if not changes or self._file.change(*changes, deadline=deadline):
                return sighting
            if time.monotonic() > deadline:  # each time somebody else has got further: no more than a guard
                raise StoreError(StoreFailure.TIMEOUT, "others change the same rows all the time")

    def _find(self, triplet: Triplet, deadline: float = 0.0) -> Found:
        keys = (rows.key_of(triplet.origin, triplet.mail_from, triplet.rcpt_to), rows.key_of(triplet.origin))
        return rows.found(triplet, keys, self._file.query(rows.FIND, keys, deadline))

    def recalls(self, triplet: Triplet, windows: Windows, now: float | None = None) -> bool:
        """Say whether a sighting would pass by what is remembered, and change nothing."""
        return greylist.would_pass(self._find(rows.as_kept(triplet)).known, windows, _clock(now))

    def returns(self, now: float | None = None) -> tuple[ReturnCount, ...]:
        """Return the buckets of the last two days in which returns were expected, the oldest first."""
        since = _clock(now) - RETURNS_KEPT
        counts = self._file.query(
            "SELECT start, expected, returned FROM returns WHERE start > ? ORDER BY start", (since,)
        )
        return tuple(ReturnCount(float(start), expected, returned) for start, expected, returned in counts)

    def orders(self, now: float | None = None) -> Orders:
        """Return what the operator has ordered and is in force."""
        now = _clock(now)
        entries = self._file.query(
            "SELECT kind, subject, is_allowed, added_at, until, note FROM entries WHERE until = 0 OR until > ?"
            " ORDER BY kind, subject",
            (now,),
        )
        switches = self._file.query("SELECT off_until FROM switch WHERE off_until > ?", (now,))
        return Orders(
            tuple(
                Entry(EntryKind(kind), subject, bool(is_allowed), *rest) for kind, subject, is_allowed, *rest in entries
            ),
            switches[0][0] if switches else 0.0,
        )

    def probe(self) -> None:
        """Write something that nobody reads, as a sighting would."""
        self._room.probe()

    def size(self) -> StateSize | None:
        """Return how large the file is."""
        return self._room.size()

    def tend(self, now: float | None = None) -> None:
        """Do a small step of housekeeping: of all processes, one does it.

        Here it is told, once, what is wrong with the files that may be missing: the correspondents', and that of the lock by
        which one process is chosen. Decisions go on.
        """
        now = _clock(now)
        self._room.look()
        self.upkeep.step(now, self._spared_seconds)
        self._correspondents.tend(now)

    def close(self) -> None:
        """Let go of files; a later call opens them again."""
        self.upkeep.close()
        self._correspondents.close()
        self._file.close()

    def record(self, addresses: Iterable[str], lifetime: float, now: float | None = None) -> None:
        """Remember addresses that somebody here has written to."""
        self._correspondents.record(addresses, lifetime, now)

    def triplets(self) -> Iterator[TripletRecord]:
        """Yield every triplet, a batch at a time: nothing is locked, and no old pages are kept for us, in between."""
        for row in rows.batches(self._file, "triplets"):
            yield rows.triplet_record(row)

    def origins(self) -> Iterator[OriginRecord]:
        """Yield every origin likewise."""
        for row in rows.batches(self._file, "origins"):
            yield rows.origin_record(row)

    def correspondents(self) -> Iterator[tuple[str, float]]:
        """Yield every correspondent and when it expires, likewise."""
        return self._correspondents.all()

    def count_triplets(self) -> int:
        """Return how many triplets there are: of many, about so many."""
        return rows.count(self._file, "triplets")

    def put_triplets(self, records: Iterable[TripletRecord]) -> None:
        """Write triplets as they are, over what is there."""
        rows.put(self._file, rows.PUT_TRIPLET, map(rows.triplet_row, records))

    def put_origins(self, records: Iterable[OriginRecord]) -> None:
        """Write origins likewise."""
        rows.put(self._file, rows.PUT_ORIGIN, map(rows.origin_row, records))

    def forget_triplet(self, triplet: Triplet) -> bool:
        """Forget one triplet; say whether it was there."""
        triplet = rows.as_kept(triplet)
        key = rows.key_of(triplet.origin, triplet.mail_from, triplet.rcpt_to)
        return self._file.change(Change("DELETE FROM triplets WHERE key = ?", (key,)))

    def forget_origin(self, origin: str) -> bool:
        """Forget what an origin has earned; its triplets stay."""
        return self._file.change(Change("DELETE FROM origins WHERE key = ?", (rows.key_of(rows.clean(origin)),)))

    def set_entry(self, entry: Entry) -> None:
        """Add an entry, in place of one for the same kind and subject."""
        values = (entry.kind.value, rows.clean(entry.subject), entry.is_allowed, entry.added_at, entry.until)
        self._file.change(
            Change("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?)", (*values, rows.clean(entry.note)))
        )

    def remove_entry(self, entry: Entry) -> bool:
        """Remove the entry for the same kind and subject; say whether it was there."""
        values = (entry.kind.value, rows.clean(entry.subject))
        return self._file.change(Change("DELETE FROM entries WHERE kind = ? AND subject = ?", values))

    def switch_off(self, until: float) -> None:
        """Order that greylisting is off until then; 0.0: on."""
        self._file.change(Change("INSERT OR REPLACE INTO switch VALUES (1, ?)", (until,)))


def _clock(now: float | None) -> float:
    return time.time() if now is None else now
