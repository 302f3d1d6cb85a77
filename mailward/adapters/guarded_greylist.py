"""Greylisting's store behind its breaker: what it cannot say in time is None."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from mailward.adapters.store_breaker import StoreBreaker
from mailward.model.errors import StoreError, StoreFailure
from mailward.model.greylist import Memory, Sighting, Triplet, Windows
from mailward.model.ports import Counts, OnEvent, TripletStore

# What no store says without having written it down.
_WRITTEN = frozenset({Memory.NEW, Memory.LATE, Memory.RETRIED})

T = TypeVar("T")


class GuardedGreylist:
    """A TripletStore that answers None, or False, where it cannot answer in time."""

    def __init__(self, store: TripletStore, budget_seconds: float, counts: Counts, on_event: OnEvent) -> None:
        self._store = store
        self._breaker = StoreBreaker(store, budget_seconds, counts, on_event)

    @property
    def is_open(self) -> bool:
        """Whether the store is being left alone."""
        return self._breaker.is_open

    def sight(self, triplet: Triplet, windows: Windows, *, correspondent: str = "") -> Sighting | None:
        """Remember a sighting and say what was known; None where that cannot be.

        Only what was written makes up for a failure before it. A file that somebody has locked, or a full disk, can be read,
        and each stranger would wait for it while known clients keep the breaker closed.
        """
        return self._breaker.attempt(
            lambda: self._store.sight(triplet, windows, correspondent=correspondent), _has_written
        )

    def recalls(self, triplet: Triplet, windows: Windows) -> bool:
        """Say whether a sighting would pass; False where nobody knows."""
        return bool(self._breaker.attempt(lambda: self._store.recalls(triplet, windows)))

    def consult(self, read: Callable[[], T]) -> T | None:
        """Read something that no message waits for: that it makes no sense, or is forbidden, takes nobody's greylisting away."""
        if self._breaker.is_open:
            return None
        try:
            return read()
        except StoreError as error:
            if error.failure in (StoreFailure.AWAY, StoreFailure.TIMEOUT):
                self._breaker.failed(error)
            else:
                self._breaker.odd("store-read-failed", error)
            return None

    def look_after(self) -> None:
        """Do the store's housekeeping, and find out whether it is back; called several times a second by one thread."""
        self._breaker.look_after()


def _has_written(sighting: Sighting) -> bool:
    return sighting.memory in _WRITTEN
