"""Greylisting's memory in dictionaries: for tests, and for trying things out. It ends with the process, and nobody shares it.

Bounded by MAX_KEPT of each kind: where there is no more room, what was written longest ago makes it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from mailward.model.greylist import (
    Entry,
    EntryKind,
    Orders,
    OriginRecord,
    ReturnCount,
    Sighting,
    Triplet,
    TripletRecord,
    Windows,
)
from mailward.model.state import StateSize
from mailward.policy import greylist
from mailward.policy.greylist import Remembered

MAX_KEPT = 200_000  # about 100 MB of triplets: nobody's memory shall fill because somebody tries this with real mail
STEP_OF_TENDING = 500  # rows looked at in one step: less than a millisecond
RETURNS_KEPT = 2 * 86400.0

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(slots=True)
class _Returns:
    expected: int = 0
    returned: int = 0


class MemoryGreylist:
    """A GreylistRecords over dictionaries and one lock; the definition in mailward.policy.greylist does all the thinking."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._triplets: dict[Triplet, TripletRecord] = {}
        self._origins: dict[str, OriginRecord] = {}
        self._correspondents: dict[str, float] = {}
        self._returns: dict[float, _Returns] = {}
        self._entries: dict[tuple[EntryKind, str], Entry] = {}
        self._off_until = 0.0

    def sight(
        self, triplet: Triplet, windows: Windows, *, correspondent: str = "", now: float | None = None
    ) -> Sighting:
        """Remember that a triplet was sighted, and say what was known."""
        with self._lock:
            now = _clock(now)
            is_correspondent = bool(correspondent) and self._correspondents.get(correspondent, 0.0) > now
            known = Remembered(self._triplets.get(triplet), self._origins.get(triplet.origin))
            sighting, kept = greylist.sight(triplet, known, windows, now, is_correspondent=is_correspondent)
            if kept.triplet is not None and kept.triplet is not known.triplet:
                _put(self._triplets, triplet, kept.triplet)
                self._count_return(sighting, kept.triplet, now)
            if kept.origin is not None and kept.origin is not known.origin:
                _put(self._origins, triplet.origin, kept.origin)
            return sighting

    def _count_return(self, sighting: Sighting, record: TripletRecord, now: float) -> None:
        expected = greylist.expected_in(sighting.memory, record)
        returned = greylist.returned_in(sighting.memory, record)
        if expected is not None:
            for start in [start for start in self._returns if start <= now - RETURNS_KEPT]:
                del self._returns[start]
            self._returns.setdefault(expected, _Returns()).expected += 1
        elif returned is not None and returned in self._returns:
            self._returns[returned].returned += 1

    def recalls(self, triplet: Triplet, windows: Windows, now: float | None = None) -> bool:
        """Say whether a sighting would pass by what is remembered, and change nothing."""
        with self._lock:
            known = Remembered(self._triplets.get(triplet), self._origins.get(triplet.origin))
            return greylist.would_pass(known, windows, _clock(now))

    def returns(self, now: float | None = None) -> tuple[ReturnCount, ...]:
        """Return the buckets of the last two days in which returns were expected, the oldest first."""
        since = _clock(now) - RETURNS_KEPT
        with self._lock:
            counts = sorted(self._returns.items())
            return tuple(ReturnCount(start, each.expected, each.returned) for start, each in counts if start > since)

    def orders(self, now: float | None = None) -> Orders:
        """Return what the operator has ordered and is in force."""
        now = _clock(now)
        with self._lock:
            entries = tuple(entry for entry in self._entries.values() if not entry.until or entry.until > now)
            return Orders(entries, self._off_until if self._off_until > now else 0.0)

    def probe(self) -> None:
        """Do nothing: a dictionary is always there."""

    def size(self) -> StateSize | None:
        """Say nothing: there is no file."""
        return None

    def tend(self, now: float | None = None) -> None:
        """Forget what has expired among the rows written longest ago; the others go to the end of the queue."""
        now = _clock(now)
        with self._lock:
            for triplet, record in _first(self._triplets):
                _keep_or_forget(self._triplets, triplet, is_kept=record.expires > now)
            for name, origin in _first(self._origins):
                _keep_or_forget(self._origins, name, is_kept=origin.expires > now)
            for address, expires in _first(self._correspondents):
                _keep_or_forget(self._correspondents, address, is_kept=expires > now)
            for key, entry in _first(self._entries):
                _keep_or_forget(self._entries, key, is_kept=not entry.until or entry.until > now)

    def close(self) -> None:
        """Do nothing: the memory goes with its last owner."""

    def record(self, addresses: Iterable[str], lifetime: float, now: float | None = None) -> None:
        """Remember addresses that somebody here has written to."""
        expires = _clock(now) + lifetime
        with self._lock:
            for address in addresses:
                _put(self._correspondents, address, max(expires, self._correspondents.get(address, 0.0)))

    def triplets(self) -> Iterator[TripletRecord]:
        """Yield every triplet as it is now."""
        with self._lock:
            records = list(self._triplets.values())
        return iter(records)

    def origins(self) -> Iterator[OriginRecord]:
        """Yield every origin as it is now."""
        with self._lock:
            records = list(self._origins.values())
        return iter(records)

    def correspondents(self) -> Iterator[tuple[str, float]]:
        """Yield every correspondent and when it expires, as it is now."""
        with self._lock:
            pairs = list(self._correspondents.items())
        return iter(pairs)

    def count_triplets(self) -> int:
        """Return how many triplets there are."""
        return len(self._triplets)

    def put_triplets(self, records: Iterable[TripletRecord]) -> None:
        """Write triplets as they are, over what is there."""
        for record in records:
            with self._lock:
                _put(self._triplets, record.triplet, record)

    def put_origins(self, records: Iterable[OriginRecord]) -> None:
        """Write origins likewise."""
        for record in records:
            with self._lock:
                _put(self._origins, record.origin, record)

    def forget_triplet(self, triplet: Triplet) -> bool:
        """Forget one triplet; say whether it was there."""
        with self._lock:
            return self._triplets.pop(triplet, None) is not None

    def forget_origin(self, origin: str) -> bool:
        """Forget what an origin has earned; its triplets stay."""
        with self._lock:
            return self._origins.pop(origin, None) is not None

    def set_entry(self, entry: Entry) -> None:
        """Add an entry, in place of one for the same kind and subject."""
        with self._lock:
            _put(self._entries, (entry.kind, entry.subject), entry)

    def remove_entry(self, entry: Entry) -> bool:
        """Remove the entry for the same kind and subject; say whether it was there."""
        with self._lock:
            return self._entries.pop((entry.kind, entry.subject), None) is not None

    def switch_off(self, until: float) -> None:
        """Order that greylisting is off until then; 0.0: on."""
        with self._lock:
            self._off_until = until


def _clock(now: float | None) -> float:
    return time.time() if now is None else now


def _put(kept: dict[Key, Value], key: Key, value: Value) -> None:
    kept.pop(key, None)  # so that the dictionary's order is that of writing
    kept[key] = value
    if len(kept) > MAX_KEPT:
        del kept[next(iter(kept))]


def _first(kept: dict[Key, Value]) -> list[tuple[Key, Value]]:
    return list(islice(kept.items(), STEP_OF_TENDING))


def _keep_or_forget(kept: dict[Key, Value], key: Key, *, is_kept: bool) -> None:
    value = kept.pop(key)
    if is_kept:
        kept[key] = value
