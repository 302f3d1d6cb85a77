"""Greylisting's memory filled with millions of triplets in a minute, as it lies on the disk after some months."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from random import getrandbits

from mailward.adapters.sqlite_greylist import FILE, SqliteGreylist
from mailward.adapters.sqlite_link import Row
from mailward.adapters.sqlite_rows import key_of
from mailward.model.greylist import Triplet
from mailward.model.state import Durability

LIFETIME = 10 * 86400.0
SORT_KIB = 200_000
FILLER = 9  # in a column where there are 0 and 1


def filled(folder: Path, count: int, expired: int, now: float) -> None:
    """Make a store of `count` triplets, of which `expired` are, in no order that matters.

    Rows that are written in the order of their keys leave no page with room in it; those of a store that lives have
    some, as each row comes at a place of its own and others go. So a third more is written, and taken out again.
    """
    store = SqliteGreylist(folder, Durability.PROCESS, 30.0)
    store.probe()
    store.close()
    connection = sqlite3.connect(folder / FILE, isolation_level=None)
    for setting in ("journal_mode = OFF", "synchronous = OFF", "secure_delete = OFF", f"cache_size = -{SORT_KIB}"):
        connection.execute(f"PRAGMA {setting}")
    connection.execute("CREATE TEMP TABLE unsorted AS SELECT * FROM triplets")
    connection.execute("BEGIN")
    all_rows = chain(rows(count, count // expired if expired else 0, now), fillers(count // 3))
    connection.executemany("INSERT INTO unsorted VALUES (?, ?, ?, ?, ?, ?, ?, ?)", all_rows)
    connection.execute("INSERT INTO triplets SELECT * FROM unsorted ORDER BY key")
    connection.execute("COMMIT")
    connection.execute("DELETE FROM triplets WHERE is_expected = ?", (FILLER,))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()


def rows(count: int, one_expired_in: int, now: float) -> Iterator[Row]:
    """Yield rows of triplets; one in `one_expired_in` has expired, 0 is none."""
    for number in range(count):
        it = triplet("old", number)
        is_old = one_expired_in and number % one_expired_in == 0
        texts = (it.origin, it.mail_from, it.rcpt_to)
        yield (key_of(*texts), *texts, now - 60.0, 0.0, now - 1.0 if is_old else now + LIFETIME, 0)


def fillers(count: int) -> Iterator[Row]:
    """Yield rows of the others' size."""
    it = triplet("old", 1_000_000)
    for _ in range(count):
        yield (getrandbits(64) - 2**63, it.origin, it.mail_from, it.rcpt_to, 0.5, 0.0, 0.5, FILLER)


def triplet(kind: str, number: int) -> Triplet:
    """Return a triplet as they are: a /24, a sender of some length, one of a thousand recipients."""
    origin = f"{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}.0/24"
    return Triplet(origin, f"{kind}.{number}@mail{number % 977}.example.com", f"person{number % 1000}@example.net")
