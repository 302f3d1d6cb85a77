"""Greylisting's store behind its breaker: the one place where a store that is away becomes a value.

Two failures in a row open it, be it an error or an answer slower than the budget; then nobody waits for the store any more
than for a look at a flag, until a probe has written something again.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from mailward.model.errors import StoreError, StoreFailure
from mailward.model.greylist import Memory, Sighting, Triplet, Windows
from mailward.model.ports import TripletStore
from mailward.policy.breaker import Breaker

# The counters; the daemon describes them.
FAILURES, OPENED = "store_failures", "store_breaker_opened"

# What no store says without having written it down.
_WRITTEN = frozenset({Memory.NEW, Memory.LATE, Memory.RETRIED})

T = TypeVar("T")


class Counts(Protocol):
    """Where numbers go; a worker's row of metrics is one."""

    def count(self, name: str, value: str = "", amount: float = 1.0) -> None:
        """Add to the number `name`, of which there is one for each `value`."""


class OnEvent(Protocol):
    """Where transitions are told; `level` and `event` are words of the log."""

    def __call__(self, level: str, event: str, **fields: object) -> None:
        """Tell one event."""


class GuardedGreylist:
    """A TripletStore that answers None, or False, where it cannot answer in time."""

    def __init__(self, store: TripletStore, budget_seconds: float, counts: Counts, on_event: OnEvent) -> None:
        self._store = store
        self._budget_seconds = budget_seconds
        self._counts = counts
        self._on_event = on_event
        self._breaker = Breaker()
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether the store is being left alone."""
        return not self._breaker.is_closed

    def sight(self, triplet: Triplet, windows: Windows, *, correspondent: str = "") -> Sighting | None:
        """Remember a sighting and say what was known; None where that cannot be."""
        return self.attempt(lambda: self._store.sight(triplet, windows, correspondent=correspondent), _has_written)

    def recalls(self, triplet: Triplet, windows: Windows) -> bool:
        """Say whether a sighting would pass; False where nobody knows."""
        return bool(self.attempt(lambda: self._store.recalls(triplet, windows)))

    def attempt(self, act: Callable[[], T], shows_health: Callable[[T], bool] | None = None) -> T | None:
        """Ask the store something, unless it is being left alone.

        `shows_health` says of an answer that it makes up for a failure before it. Reading does not: a file that somebody has
        locked, or a full disk, can be read, and each stranger would wait for it while known clients and our own thread
        keep the breaker closed.
        """
        if not self._breaker.is_closed:
            return None
        began = time.monotonic()
        try:
            result = act()
        except StoreError as error:
            self._failed(error.failure, error.detail)
            return None
        seconds = time.monotonic() - began
        if seconds > self._budget_seconds:  # the answer counts all the same
            self._failed(StoreFailure.TIMEOUT, f"an answer after {seconds:.3f} s")
        elif self._breaker.failures and shows_health is not None and shows_health(result):
            self._succeeded()
        return result

    def look_after(self) -> None:
        """Do the store's housekeeping, or find out whether it is back; called several times a second by one thread."""
        now = time.monotonic()
        if self._breaker.is_closed:
            try:
                self._store.tend()
            except StoreError as error:  # how long it took says nothing: it waits for the disk, and nobody for it
                self._failed(error.failure, error.detail)
            return
        with self._lock:
            half_open = self._breaker.probe(now)
            if half_open is None:
                return
            self._breaker = half_open
        try:
            self._store.probe()
        except StoreError as error:
            self._failed(error.failure, error.detail)
        else:
            if time.monotonic() - now > self._budget_seconds:
                self._failed(StoreFailure.TIMEOUT, "slow")
            else:
                self._succeeded()

    def _failed(self, failure: StoreFailure, detail: str) -> None:
        with self._lock:
            was_closed = self._breaker.is_closed
            self._breaker = self._breaker.failed(time.monotonic(), random.random())
            has_opened = was_closed and not self._breaker.is_closed
        self._counts.count(FAILURES, failure.value)
        if failure in (StoreFailure.DAMAGED, StoreFailure.SCHEMA):  # once each, and nobody else will say so
            self._on_event("critical", "store-damaged", reason=failure.value, detail=detail)
        if has_opened:
            self._counts.count(OPENED)
            self._on_event("error", "store-away", reason=failure.value, detail=detail)

    def _succeeded(self) -> None:
        with self._lock:
            was_closed = self._breaker.is_closed
            self._breaker = self._breaker.succeeded()
        if not was_closed:
            self._on_event("info", "store-back")


def _has_written(sighting: Sighting) -> bool:
    return sighting.memory in _WRITTEN
