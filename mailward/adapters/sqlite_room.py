"""Whether a SQLite file may take more: it has a bound, and the little room that a disk has left is Postfix's."""

from __future__ import annotations

import time

from mailward.adapters.sqlite_file import SqliteFile
from mailward.adapters.sqlite_link import Change
from mailward.model.errors import StoreError, StoreFailure
from mailward.model.state import StateSize

# Of what the file may be. A probe that only wrote one small row would find room where others do not, and the breaker would flap.
FULL_FROM = 0.95


class Room:
    """What is known of one file's room. The file has a table `probes (key, written_at)`."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self._is_short = False

    def look(self) -> None:
        """Find out how much room the disk has."""
        self._is_short = self._file.place.is_short_of_room()

    def require(self) -> None:
        """Raise StoreError FULL where the disk was short of room when it was looked at last."""
        if self._is_short:
            raise StoreError(
                StoreFailure.FULL, f"{self._file.place.name} leaves the little room that the disk has to others"
            )

    def size(self) -> StateSize:
        """Return how large the file is, and how full. Raises StoreError."""
        return StateSize(self._file.place.octets(), self._file.fill())

    def probe(self) -> None:
        """Write something that nobody reads. Raises StoreError, FULL too where only that little fits."""
        self._file.change(Change("INSERT OR REPLACE INTO probes VALUES (1, ?)", (time.time(),)))
        self.look()
        self.require()
        if (fill := self._file.fill()) > FULL_FROM:
            raise StoreError(StoreFailure.FULL, f"{self._file.place.name} has {fill:.0%} of the room that it may have")
