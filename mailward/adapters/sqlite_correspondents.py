"""Whom somebody here has written to: a SQLite file of its own, since one program writes it and another reads it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from mailward.adapters import sqlite_rows as rows
from mailward.adapters.sqlite_file import Schema, SqliteFile
from mailward.adapters.sqlite_upkeep import Upkeep
from mailward.model.state import Durability

FILE = "correspondents.sqlite"
SCHEMA = Schema(
    application_id=0x6D776331,  # "mwc1"
    migrations=(
        ("CREATE TABLE correspondents (key INTEGER PRIMARY KEY, address TEXT NOT NULL, expires REAL NOT NULL)",),
    ),
)
KNOWN = "SELECT address FROM correspondents WHERE key = ? AND expires > ?"
# Who is remembered longer already stays so; the other text of an equal hash makes room.
RECORD = (
    "INSERT INTO correspondents VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE"
    " SET address = excluded.address, expires = max(expires, excluded.expires)"
)


class SqliteCorrespondents:
    """A CorrespondentStore over `<folder>/correspondents.sqlite`. Who only reads does well without the file."""

    def __init__(self, folder: Path, durability: Durability, timeout: float) -> None:
        self._file = SqliteFile(folder / FILE, SCHEMA, durability, timeout)
        self._upkeep = Upkeep(self._file, ("correspondents",))

    def record(self, addresses: Iterable[str], lifetime: float, now: float | None = None) -> None:
        """Remember addresses for `lifetime` seconds from now on."""
        expires = (time.time() if now is None else now) + lifetime
        cleaned = map(rows.clean, addresses)
        rows.put(self._file, RECORD, ((rows.key_of(address), address, expires) for address in cleaned))

    def knows(self, address: str, now: float) -> bool:
        """Say whether somebody here has written to this address, as far as is remembered."""
        address = rows.clean(address)
        return self._file.query_if_there(KNOWN, (rows.key_of(address), now)) == [(address,)]

    def all(self) -> Iterator[tuple[str, float]]:
        """Yield every correspondent and when it expires."""
        for _, address, expires in rows.batches(self._file, "correspondents"):
            yield address, expires

    def tend(self, now: float) -> None:
        """Do a small step of housekeeping, if there is a file."""
        if self._file.place.identity() is not None:
            self._upkeep.step(now)

    def close(self) -> None:
        """Let go of the file."""
        self._upkeep.close()
        self._file.close()
