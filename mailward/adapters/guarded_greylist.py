"""Greylisting's store behind its breaker: the one place where a store that is away becomes a value.

Two failures in a row open it, be it an error or an answer slower than the budget; then nobody waits for the store any more
than for a look at a flag, until a probe has written something again.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from mailward.model.errors import StoreError, StoreFailure
from mailward.model.greylist import Memory, Sighting, Triplet, Windows
from mailward.model.ports import Counts, OnEvent, TripletStore
from mailward.policy.breaker import Breaker

# The counters; the daemon describes them.
FAILURES, OPENED = "store_failures", "store_breaker_opened"

# What no store says without having written it down.
_WRITTEN = frozenset({Memory.NEW, Memory.LATE, Memory.RETRIED})

STEADY_SECONDS = 60.0  # closed for so long, the breaker forgets that it was open
TELL_AGAIN_SECONDS = 3600.0  # what goes on failing in the same way; the counters have every time

T = TypeVar("T")


def _never(_answer: object) -> bool:
    return False


class GuardedGreylist:
    """A TripletStore that answers None, or False, where it cannot answer in time."""

    def __init__(self, store: TripletStore, budget_seconds: float, counts: Counts, on_event: OnEvent) -> None:
        self._store = store
        self._budget_seconds = budget_seconds
        self._counts = counts
        self._on_event = on_event
        self._breaker = Breaker()
        self._closed_at = 0.0
        self._told_at: dict[tuple[str, StoreFailure], float] = {}
        self._is_away_told = False
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether the store is being left alone."""
        return not self._breaker.is_closed

    def sight(self, triplet: Triplet, windows: Windows, *, correspondent: str = "") -> Sighting | None:
        """Remember a sighting and say what was known; None where that cannot be.

        Only what was written makes up for a failure before it. A file that somebody has locked, or a full disk, can be read,
        and each stranger would wait for it while known clients keep the breaker closed.
        """
        return self._attempt(lambda: self._store.sight(triplet, windows, correspondent=correspondent), _has_written)

    def recalls(self, triplet: Triplet, windows: Windows) -> bool:
        """Say whether a sighting would pass; False where nobody knows."""
        return bool(self._attempt(lambda: self._store.recalls(triplet, windows)))

    def consult(self, read: Callable[[], T]) -> T | None:
        """Read something that no message waits for: that it makes no sense, or is forbidden, takes nobody's greylisting away."""
        if not self._breaker.is_closed:
            return None
        try:
            return read()
        except StoreError as error:
            if error.failure in (StoreFailure.AWAY, StoreFailure.TIMEOUT):
                self._failed(error)
            else:
                self._odd("store-read-failed", error)
            return None

    def look_after(self) -> None:
        """Do the store's housekeeping, and find out whether it is back; called several times a second by one thread.

        Housekeeping goes on while the store is left alone: what is full has to be emptied. How long it takes says
        nothing, since it waits for the disk, and nobody for it.
        """
        try:
            self._store.tend()
        except StoreError as error:
            self._odd("store-housekeeping-failed", error)
        with self._lock:
            half_open = self._breaker.probe(time.monotonic())
            if half_open is None:
                return
            self._breaker = half_open
        began = time.monotonic()
        try:
            self._store.probe()
        except StoreError as error:
            self._failed(error)
            return
        seconds = time.monotonic() - began
        if seconds > self._budget_seconds:
            self._failed(_slow(seconds))
        else:
            self._succeeded()

    def _attempt(self, act: Callable[[], T], shows_health: Callable[[T], bool] = _never) -> T | None:
        """Ask the store something, unless it is being left alone; `shows_health` says which answers make up for a failure."""
        if not self._breaker.is_closed:
            return None
        began = time.monotonic()
        try:
            result = act()
        except StoreError as error:
            self._failed(error)
            return None
        seconds = time.monotonic() - began
        if seconds > self._budget_seconds:  # the answer counts all the same
            self._failed(_slow(seconds))
        elif self._breaker.failures and shows_health(result):
            self._succeeded()
        return result

    def _failed(self, error: StoreError) -> None:
        now = time.monotonic()
        with self._lock:
            was_closed = self._breaker.is_closed
            if was_closed and now - self._closed_at > STEADY_SECONDS:
                self._breaker = replace(self._breaker, wait=0.0)
            self._breaker = self._breaker.failed(now, random.random())
            has_opened = was_closed and not self._breaker.is_closed
        self._counts.count(FAILURES, error.failure.value)
        if error.failure in (StoreFailure.DAMAGED, StoreFailure.SCHEMA):
            self._tell("critical", "store-damaged", error)
        if has_opened:
            self._counts.count(OPENED)
            self._is_away_told = self._tell("error", "store-away", error)

    def _succeeded(self) -> None:
        with self._lock:
            was_closed = self._breaker.is_closed
            # It keeps its wait: what opens again at once, since probes go well and messages do not, is left alone for longer.
            self._breaker = replace(self._breaker.succeeded(), wait=self._breaker.wait)
            if not was_closed:
                self._closed_at = time.monotonic()
        if not was_closed and self._is_away_told:
            self._on_event("info", "store-back")

    def _odd(self, event: str, error: StoreError) -> None:
        """Count and tell what goes wrong beside the messages."""
        self._counts.count(FAILURES, error.failure.value)
        self._tell("critical" if error.failure is StoreFailure.DAMAGED else "error", event, error)

    def _tell(self, level: str, event: str, error: StoreError) -> bool:
        """Tell an event, once an hour for each kind of failure; say whether it was told."""
        key, now = (event, error.failure), time.monotonic()
        told_at = self._told_at.get(key)
        if told_at is not None and now - told_at < TELL_AGAIN_SECONDS:
            return False
        self._told_at[key] = now
        self._on_event(level, event, reason=error.failure.value, detail=error.detail)
        return True


def _slow(seconds: float) -> StoreError:
    return StoreError(StoreFailure.TIMEOUT, f"an answer after {seconds:.3f} s")


def _has_written(sighting: Sighting) -> bool:
    return sighting.memory in _WRITTEN
