"""Whom somebody here has written to: a SQLite file of its own, since one program writes it and another reads it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from mailward.adapters import sqlite_rows as rows
from mailward.adapters.sqlite_file import SqliteFile
from mailward.adapters.sqlite_link import Schema
from mailward.adapters.sqlite_upkeep import Table, Upkeep
from mailward.model.errors import StoreError, StoreFailure
from mailward.model.state import Durability

FILE = "correspondents.sqlite"
MAX_OCTETS = 512 * 1024**2  # some millions; only our own users add to them
REST_SECONDS = 10.0  # of a file that could not be read
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
        self._file = SqliteFile(folder / FILE, SCHEMA, durability, timeout, MAX_OCTETS)
        self._upkeep = Upkeep(self._file, (Table("correspondents"),))
        self._rests_until = 0.0  # monotonic seconds
        self._failed: StoreError | None = None  # what knows() has met, and tend() has to tell
        self._told: StoreFailure | None = None

    def record(self, addresses: Iterable[str], lifetime: float, now: float | None = None) -> None:
        """Remember addresses for `lifetime` seconds from now on."""
        expires = (time.time() if now is None else now) + lifetime
        cleaned = map(rows.clean, addresses)
        rows.put(self._file, RECORD, ((rows.key_of(address), address, expires) for address in cleaned))

    def knows(self, address: str, now: float, deadline: float) -> bool:
        """Say whether somebody here has written to this address, as far as is remembered; never raises.

        A file that cannot be read knows nobody, and is left alone for a while: mail waits for greylisting's own. What is
        wrong is told by tend().
        """
        began = time.monotonic()
        if began < self._rests_until:
            return False
        address = rows.clean(address)
        try:
            # Half of what is left, so that the other half is there for what the sighting has to write.
            found = self._file.query_if_there(KNOWN, (rows.key_of(address), now), began + (deadline - began) / 2)
        except StoreError as error:
            self._rests_until = began + REST_SECONDS
            self._failed = error
            return False
        return found == [(address,)]

    def all(self) -> Iterator[tuple[str, float]]:
        """Yield every correspondent and when it expires."""
        for _, address, expires in rows.batches(self._file, "correspondents"):
            yield address, expires

    def tend(self, now: float) -> None:
        """Do a small step of housekeeping, if there is a file. Raises StoreError for what is wrong: once, until all is well."""
        failed, self._failed = self._failed, None
        try:
            if failed is not None:
                raise failed
            if self._file.place.identity() is not None:
                self._upkeep.step(now)
        except StoreError as error:
            if error.failure is self._told:
                return
            self._told = error.failure
            raise
        if time.monotonic() >= self._rests_until:
            self._told = None

    def close(self) -> None:
        """Let go of the file."""
        self._upkeep.close()
        self._file.close()
