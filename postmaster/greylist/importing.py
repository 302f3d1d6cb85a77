"""Taking records into the state, beside running daemons: in batches, never lowering what is known.

What is known is read once for each batch, and written after that: what a daemon learns in between may be replaced by
something older. That defers nobody: what replaces it passes, or has waited longer.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import click

from mailward.model.greylist import Entry, EntryKind, OriginRecord, Triplet, TripletRecord
from postmaster.explain.layout import printable
from postmaster.greylist.entries import MAX_ENTRIES
from postmaster.greylist.merging import EXPIRED, better_origin, better_triplet, usable_origin, usable_triplet
from postmaster.greylist.opening import Greylist
from postmaster.greylist.records import Correspondent, Item, Kind, Skipped

BATCH = 50_000  # of a kind: some 30 MB
LIFETIME_STEP = 3600.0  # correspondents that expire in the same hour are written in one go

KNOWN = "known already, as well or better"
TWICE = "of the same as another one in the file"
TOO_MANY = f"beyond the {MAX_ENTRIES} that there may be: put them into the configuration"

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(slots=True)
class Tally:
    """How many records of each kind were taken, and why others were not."""

    taken: Counter[Kind] = field(default_factory=Counter)
    skipped: Counter[tuple[Kind, str]] = field(default_factory=Counter)

    @property
    def is_file_whole(self) -> bool:
        """Whether the file itself was as it should be."""
        return not any(kind is Kind.FILE for kind, _ in self.skipped)

    def show(self) -> None:
        """Print the numbers."""
        for kind in Kind:
            reasons = {reason: number for (other, reason), number in self.skipped.items() if other is kind}
            if not self.taken[kind] and not reasons:
                continue
            click.echo(f"{kind.value:<14}  {self.taken[kind]} taken, {sum(reasons.values())} skipped")
            for reason, number in sorted(reasons.items()):
                click.echo(f"{'':<14}  {number:>8}  {printable(reason)}")


def take(greylist: Greylist, items: Iterable[Item], tally: Tally) -> None:
    """Write the items into the state. Interrupted, some are there, each of them whole; begun anew, the rest follows."""
    triplets, origins, correspondents = _batches(greylist, tally)
    entries = {(entry.kind, entry.subject) for entry in greylist.store.orders().entries}
    for item in items:
        match item:
            case Skipped():
                tally.skipped[item.kind, item.reason] += 1
            case TripletRecord():
                triplets.add(item.triplet, usable_triplet(item, greylist.windows, greylist.now))
            case OriginRecord():
                origins.add(item.origin, usable_origin(item, greylist.windows, greylist.now))
            case Correspondent():
                until = min(item.expires, greylist.now + greylist.windows.remember)
                correspondents.add(item.address, until if until > greylist.now else EXPIRED)
            case Entry():
                _take_entry(greylist, item, entries, tally)
    for batch in (origins, correspondents, triplets):
        batch.write()


class _Batch(Generic[Key, Value]):
    """Records of one kind that are written together."""

    def __init__(
        self,
        kind: Kind,
        tally: Tally,
        known: Callable[[], Iterable[tuple[Key, Value]]],
        better: Callable[[Value | None, Value], Value],
        put: Callable[[list[tuple[Key, Value]]], None],
    ) -> None:
        self._kind = kind
        self._tally = tally
        self._known = known
        self._better = better
        self._put = put
        self._pending: dict[Key, Value] = {}

    def add(self, key: Key, value: Value | str) -> None:
        """Take a record, or count the reason why it is none."""
        if isinstance(value, str):
            self._skip(value)
            return
        before = self._pending.get(key)
        if before is not None:
            self._skip(TWICE)
        self._pending[key] = self._better(before, value)
        if len(self._pending) >= BATCH:
            self.write()

    def write(self) -> None:
        """Write those that are better than what is known."""
        pending, self._pending = self._pending, {}
        if not pending:
            return
        known = {key: value for key, value in self._known() if key in pending}
        gained = []
        for key, offered in pending.items():
            before = known.get(key)
            kept = self._better(before, offered)
            if kept is before:
                self._skip(KNOWN)
            else:
                gained.append((key, kept))
        self._put(gained)
        self._tally.taken[self._kind] += len(gained)

    def _skip(self, reason: str) -> None:
        self._tally.skipped[self._kind, reason] += 1


def _batches(
    greylist: Greylist, tally: Tally
) -> tuple[_Batch[Triplet, TripletRecord], _Batch[str, OriginRecord], _Batch[str, float]]:
    store, now = greylist.store, greylist.now
    return (
        _Batch(
            Kind.TRIPLET,
            tally,
            lambda: ((record.triplet, record) for record in store.triplets()),
            lambda known, offered: better_triplet(known, offered, now),
            lambda gained: store.put_triplets(record for _, record in gained),
        ),
        _Batch(
            Kind.ORIGIN,
            tally,
            lambda: ((record.origin, record) for record in store.origins()),
            lambda known, offered: better_origin(known, offered, now),
            lambda gained: store.put_origins(record for _, record in gained),
        ),
        _Batch(
            Kind.CORRESPONDENT,
            tally,
            store.correspondents,
            # What is recorded was cut to whole hours; a second import shall find it as it is.
            lambda known, offered: known if known is not None and known > offered - LIFETIME_STEP else offered,
            lambda gained: _record_correspondents(greylist, gained),
        ),
    )


def _record_correspondents(greylist: Greylist, gained: list[tuple[str, float]]) -> None:
    of_lifetime: defaultdict[float, list[str]] = defaultdict(list)
    for address, expires in gained:
        left = expires - greylist.now
        of_lifetime[left // LIFETIME_STEP * LIFETIME_STEP or left].append(address)
    for lifetime, addresses in of_lifetime.items():
        greylist.store.record(addresses, lifetime, greylist.now)


def _take_entry(greylist: Greylist, entry: Entry, known: set[tuple[EntryKind, str]], tally: Tally) -> None:
    """Order an entry, unless the operator has said something of the same already."""
    if entry.until and entry.until <= greylist.now:
        tally.skipped[Kind.ENTRY, EXPIRED] += 1
    elif (entry.kind, entry.subject) in known:
        tally.skipped[Kind.ENTRY, "there already"] += 1
    elif len(known) >= MAX_ENTRIES:
        tally.skipped[Kind.ENTRY, TOO_MANY] += 1
    else:
        greylist.store.set_entry(entry)
        known.add((entry.kind, entry.subject))
        tally.taken[Kind.ENTRY] += 1
