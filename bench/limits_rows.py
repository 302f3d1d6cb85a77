"""The counters of a million accounts, filled in a minute, as they lie on the disk after some months; and what charges them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from random import getrandbits

from mailward.adapters.sqlite_charging import Counters
from mailward.adapters.sqlite_counters import FILE, SqliteLimits
from mailward.adapters.sqlite_link import Row
from mailward.model.limits import Charge, Charging, CounterKey, Window
from mailward.model.state import Durability

WINDOWS = (Window(10**6, 3600.0), Window(10**7, 86400.0))
LIMITS = ("account-recipients", "account-messages", "account-bytes")
HOURS = 6  # in which each account has sent something before
SORT_KIB = 200_000
PUT = "INSERT OR IGNORE INTO {} VALUES (?, ?, ?, ?, ?)"
FILLER = -1  # in a column that has times


def request(number: int) -> Charging:
    """Return what a request of an account costs: three counters of two windows each."""
    owner = f"sasl_username=user{number}@mail{number % 977}.example.com"
    return Charging(tuple(Charge(CounterKey(owner, limit), WINDOWS) for limit in LIMITS))


def filled(folder: Path, count: int, now: float) -> None:
    """Make a store that knows so many accounts; the pages have as much room in them as where rows come and go.

    For that a third more is written, and taken out again.
    """
    store = SqliteLimits(folder, Durability.PROCESS, 30.0)
    store.probe()
    store.close()
    connection = sqlite3.connect(folder / FILE, isolation_level=None)
    for setting in ("journal_mode = OFF", "synchronous = OFF", "secure_delete = OFF", f"cache_size = -{SORT_KIB}"):
        connection.execute(f"PRAGMA {setting}")
    connection.execute("CREATE TEMP TABLE unsorted AS SELECT * FROM counters")
    connection.execute("BEGIN")
    connection.executemany(PUT.format("unsorted"), chain(rows(count, now), fillers(count * len(LIMITS) // 3, now)))
    connection.execute("INSERT OR IGNORE INTO counters SELECT * FROM unsorted ORDER BY key")
    connection.execute("COMMIT")
    connection.execute("DELETE FROM counters WHERE written_at = ?", (FILLER,))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()


def rows(count: int, now: float) -> Iterator[Row]:
    """Yield the rows of so many accounts' counters: all with the same history."""
    value = history(now)
    for number in range(count):
        for name, key in Counters([request(number)]).keys.items():
            yield (key, int(now), now + 86400.0, name, value)


def fillers(count: int, now: float) -> Iterator[Row]:
    """Yield rows of the others' size."""
    name, value = next(iter(Counters([request(1_000_000)]).keys)), history(now)
    for _ in range(count):
        yield (getrandbits(64) - 2**63, FILLER, now + 86400.0, name, value)


def history(now: float) -> bytes:
    """Return what is kept of a counter that was charged once an hour."""
    kept: dict[str, bytes] = {}
    for hour in range(HOURS, 0, -1):
        counters = Counters([request(0)])
        counters.kept.update(kept)
        counters.charge(0, request(0), now - hour * 3600.0)
        kept = counters.kept
    return next(iter(kept.values()))
