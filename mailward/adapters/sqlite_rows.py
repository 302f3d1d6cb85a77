"""The rows of greylisting's SQLite files: how they are made, found, changed where they are as they were, and walked through."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import islice

from mailward.adapters.sqlite_file import SqliteFile
from mailward.adapters.sqlite_link import Change, Row, Schema
from mailward.model.greylist import OriginRecord, Sighting, Triplet, TripletRecord
from mailward.policy.greylist import Remembered, expected_in, returned_in

LOWEST_KEY, HIGHEST_KEY = -(2**63), 2**63 - 1
MAX_TEXT = 1000  # octets; the texts of a triplet have 320 at most, and what somebody imports is cut to this
MAX_PASSES = 2**31

BATCH = 500  # rows read at once where all are walked through: about a millisecond
SAMPLE = 4000  # rows whose keys tell how many there are, within some percent
FIRST_STEP, SMALLEST_STEP, LARGEST_STEP = 100, 20, 2000  # rows written at once where many are
STEP_SECONDS = 0.005  # how long many rows' writer may lock out the others
PAUSE_SECONDS = 0.002  # and how long it lets them in between two steps

# Of PRIMARY KEYs that are integers SQLite makes the table's own tree, so that there is one tree a table, and no index.
SCHEMA = Schema(
    application_id=0x6D776731,  # "mwg1"
    migrations=(
        (
            "CREATE TABLE triplets (key INTEGER PRIMARY KEY, origin TEXT NOT NULL, mail_from TEXT NOT NULL,"
            " rcpt_to TEXT NOT NULL, first_seen REAL NOT NULL, passed_at REAL NOT NULL, expires REAL NOT NULL,"
            " is_expected INTEGER NOT NULL)",
            "CREATE TABLE origins (key INTEGER PRIMARY KEY, origin TEXT NOT NULL, passes INTEGER NOT NULL,"
            " counted_at REAL NOT NULL, expires REAL NOT NULL, expected_at REAL NOT NULL)",
            "CREATE TABLE returns (start INTEGER PRIMARY KEY, expected INTEGER NOT NULL, returned INTEGER NOT NULL)",
            "CREATE TABLE entries (kind TEXT NOT NULL CHECK (kind IN ('network', 'name', 'sender', 'recipient')),"
            " subject TEXT NOT NULL, is_allowed INTEGER NOT NULL, added_at REAL NOT NULL, until REAL NOT NULL,"
            " note TEXT NOT NULL, PRIMARY KEY (kind, subject)) WITHOUT ROWID",
            "CREATE TABLE switch (key INTEGER PRIMARY KEY, off_until REAL NOT NULL)",
            "CREATE TABLE probes (key INTEGER PRIMARY KEY, written_at REAL NOT NULL)",
        ),
    ),
)

# One statement for both, hence one look at the file; the first column says of which table a row is.
FIND = (
    "SELECT 't', origin, mail_from, rcpt_to, first_seen, passed_at, expires, is_expected FROM triplets WHERE key = ?"
    " UNION ALL SELECT 'o', origin, passes, counted_at, expires, expected_at, NULL, NULL FROM origins WHERE key = ?"
)
PUT_TRIPLET = "INSERT OR REPLACE INTO triplets VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
PUT_ORIGIN = "INSERT OR REPLACE INTO origins VALUES (?, ?, ?, ?, ?, ?)"
# What was not there may have come meanwhile, and what was there may have changed: then nothing is written.
ADD_TRIPLET = "INSERT INTO triplets VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING"
ADD_ORIGIN = "INSERT INTO origins VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING"
CHANGE_TRIPLET = (
    "UPDATE triplets SET key = ?, origin = ?, mail_from = ?, rcpt_to = ?, first_seen = ?, passed_at = ?, expires = ?,"
    " is_expected = ? WHERE key = ? AND first_seen = ? AND passed_at = ? AND expires = ?"
)
CHANGE_ORIGIN = (
    "UPDATE origins SET key = ?, origin = ?, passes = ?, counted_at = ?, expires = ?, expected_at = ?"
    " WHERE key = ? AND passes = ? AND counted_at = ? AND expires = ? AND expected_at = ?"
)
EXPECT = "INSERT INTO returns VALUES (?, 1, 0) ON CONFLICT (start) DO UPDATE SET expected = expected + 1"
RETURN = "UPDATE returns SET returned = returned + 1 WHERE start = ?"


@dataclass(frozen=True, slots=True)
class Found:
    """What is remembered, and the rows' values by which they are found again; None where there is no row.

    A row may be there and not be known: another triplet's, whose hash is the same. It makes room.
    """

    keys: tuple[int, int]  # of the triplet and of its origin
    known: Remembered
    triplet_row: Row | None
    origin_row: Row | None


def key_of(*texts: str) -> int:
    """Return the key of what these texts name."""
    digest = blake2b("\0".join(texts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def clean(text: str) -> str:
    """Return a text as it is kept: itself, if it is what the others promise; never anything SQLite or a hash would refuse."""
    if text.isascii() and len(text) <= MAX_TEXT:
        return text
    return text.encode("utf-8", "backslashreplace")[:MAX_TEXT].decode("utf-8", "ignore")


def as_kept(triplet: Triplet) -> Triplet:
    """Return a triplet with its texts as they are kept."""
    texts = (triplet.origin, triplet.mail_from, triplet.rcpt_to)
    cleaned = tuple(map(clean, texts))
    return triplet if cleaned == texts else Triplet(*cleaned)


def found(triplet: Triplet, keys: tuple[int, int], rows: Sequence[Row]) -> Found:
    """Return what the rows of FIND say."""
    record = origin = triplet_row = origin_row = None
    for table, name, *values in rows:
        if table == "t":
            mail_from, rcpt_to, first_seen, passed_at, expires, is_expected = values
            triplet_row = (keys[0], first_seen, passed_at, expires)
            if name == triplet.origin and mail_from == triplet.mail_from and rcpt_to == triplet.rcpt_to:
                record = TripletRecord(triplet, first_seen, passed_at, expires, bool(is_expected))
        else:
            passes, counted_at, expires, expected_at = values[:4]
            origin_row = (keys[1], passes, counted_at, expires, expected_at)
            if name == triplet.origin:
                origin = OriginRecord(name, passes, counted_at, expires, expected_at)
    return Found(keys, Remembered(record, origin), triplet_row, origin_row)


def changes(found: Found, kept: Remembered, sighting: Sighting) -> list[Change]:
    """Return what has to be written so that what was found becomes what is kept."""
    made = []
    triplet_key, origin_key = found.keys
    if kept.triplet is not None and kept.triplet != found.known.triplet:
        made.append(_change(ADD_TRIPLET, CHANGE_TRIPLET, _triplet_row(triplet_key, kept.triplet), found.triplet_row))
        if (start := expected_in(sighting.memory, kept.triplet)) is not None:
            made.append(Change(EXPECT, (start,)))
        if (start := returned_in(sighting.memory, kept.triplet)) is not None:
            made.append(Change(RETURN, (start,), is_vital=False))
    if kept.origin is not None and kept.origin != found.known.origin:
        made.append(_change(ADD_ORIGIN, CHANGE_ORIGIN, _origin_row(origin_key, kept.origin), found.origin_row))
    return made


def _change(add: str, change: str, row: Row, before: Row | None) -> Change:
    return Change(add, row) if before is None else Change(change, (*row, *before))


def triplet_row(record: TripletRecord) -> Row:
    """Return a triplet's row."""
    triplet = as_kept(record.triplet)
    key = key_of(triplet.origin, triplet.mail_from, triplet.rcpt_to)
    return _triplet_row(key, replace(record, triplet=triplet))


def _triplet_row(key: int, record: TripletRecord) -> Row:
    triplet, numbers = record.triplet, (record.first_seen, record.passed_at, record.expires, record.is_expected)
    return (key, triplet.origin, triplet.mail_from, triplet.rcpt_to, *numbers)


def triplet_record(row: Row) -> TripletRecord:
    """Return what a triplet's row holds."""
    _, origin, mail_from, rcpt_to, first_seen, passed_at, expires, is_expected = row
    return TripletRecord(Triplet(origin, mail_from, rcpt_to), first_seen, passed_at, expires, bool(is_expected))


def origin_row(record: OriginRecord) -> Row:
    """Return an origin's row."""
    name = clean(record.origin)
    return _origin_row(key_of(name), replace(record, origin=name))


def _origin_row(key: int, record: OriginRecord) -> Row:
    passes = min(record.passes, MAX_PASSES)
    return (key, record.origin, passes, record.counted_at, record.expires, record.expected_at)


def origin_record(row: Row) -> OriginRecord:
    """Return what an origin's row holds."""
    return OriginRecord(*row[1:])


def batches(file: SqliteFile, table: str) -> Iterator[Row]:
    """Yield the rows of a table in the order of their keys."""
    lowest = LOWEST_KEY
    batch = f"SELECT * FROM {table} WHERE key >= ? ORDER BY key LIMIT {BATCH}"  # noqa: S608 - the table's name is ours
    while rows := file.query_if_there(batch, (lowest,)):
        yield from rows
        last = rows[-1][0]
        if last == HIGHEST_KEY:
            return
        lowest = last + 1


def count(file: SqliteFile, table: str) -> int:
    """Return how many rows there are, if they are few; of many, by how close together the lowest keys lie.

    The keys are hashes, hence evenly spread; of ten million rows SQLite's own count(*) would read every page.
    """
    lowest = f"SELECT key FROM {table} ORDER BY key LIMIT {SAMPLE}"  # noqa: S608 - the table's name is ours
    seen, highest = file.query(f"SELECT count(*), max(key) FROM ({lowest})")[0]  # noqa: S608
    if seen < SAMPLE:
        return int(seen)
    return max(SAMPLE, int(SAMPLE * 2**64 / (highest - LOWEST_KEY + 1)))


def put(file: SqliteFile, statement: str, rows: Iterable[Row]) -> None:
    """Write many rows, in steps as large as may lock others out, and let them in between."""
    rows = iter(rows)
    size = FIRST_STEP
    while step := list(islice(rows, size)):
        began = time.monotonic()
        file.change_rows(statement, step)
        size = fitting(size, time.monotonic() - began, STEP_SECONDS, SMALLEST_STEP, LARGEST_STEP)
        time.sleep(PAUSE_SECONDS)


def fitting(size: int, seconds: float, wanted_seconds: float, smallest: int, largest: int) -> int:
    """Return the size of the next step, when one of `size` has taken so long; at most twice the last.

    >>> fitting(100, 0.001, 0.005, 20, 2000), fitting(100, 0.010, 0.005, 20, 2000), fitting(30, 9.0, 0.005, 20, 2000)
    (200, 50, 20)
    """
    wanted = size * min(2.0, wanted_seconds / max(seconds, 1e-6))
    return max(smallest, min(largest, round(wanted)))
