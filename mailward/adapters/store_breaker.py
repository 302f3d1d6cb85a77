"""What stands between a daemon and its store: the one place where a store that is away becomes a value.

Two failures in a row open it, be it an error or an answer slower than the budget; then nobody waits for the store any more
than for a look at a flag, until a probe has written something again.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypeVar

from mailward.model.errors import StoreError, StoreFailure
from mailward.model.ports import Counts, OnEvent
from mailward.policy.breaker import Breaker

# The counters; the daemon describes them.
FAILURES, OPENED = "store_failures", "store_breaker_opened"

STEADY_SECONDS = 60.0  # closed for so long, the breaker forgets that it was open
TELL_AGAIN_SECONDS = 3600.0  # what goes on failing in the same way; the counters have every time
MAX_TOLD = 1000  # kinds of failures that are remembered as told

DAMAGES = (StoreFailure.DAMAGED, StoreFailure.SCHEMA)  # somebody must look at the file

T = TypeVar("T")


class _Tended(Protocol):
    def probe(self) -> None:
        """Write something that nobody reads."""

    def tend(self) -> None:
        """Do a small step of housekeeping."""


def _never(_answer: object) -> bool:
    return False


def _nothing() -> None:
    pass


class StoreBreaker:
    """A breaker, and what it counts and tells; used from many threads at once."""

    def __init__(self, store: _Tended, budget_seconds: float, counts: Counts, on_event: OnEvent) -> None:
        self._store = store
        self._budget_seconds = budget_seconds
        self._counts = counts
        self._on_event = on_event
        self._breaker = Breaker()
        self._closed_at = 0.0
        self._told_at: dict[tuple[str, StoreFailure, str], float] = {}
        self._is_away_told = False
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether the store is being left alone."""
        return not self._breaker.is_closed

    def attempt(self, act: Callable[[], T], shows_health: Callable[[T], bool] = _never) -> T | None:
        """Ask the store something, unless it is being left alone; `shows_health` says which answers make up for a failure."""
        if not self._breaker.is_closed:
            return None
        began = time.monotonic()
        try:
            result = act()
        except StoreError as error:
            self.failed(error)
            return None
        seconds = time.monotonic() - began
        if seconds > self._budget_seconds:  # the answer counts all the same
            self.failed(_slow(seconds))
        elif self._breaker.failures and shows_health(result):
            self._succeeded()
        return result

    def look_after(self, before_closing: Callable[[], None] = _nothing) -> None:
        """Do the store's housekeeping, and find out whether it is back; called several times a second by one thread.

        Housekeeping goes on while the store is left alone: what is full has to be emptied. How long it takes says
        nothing, since it waits for the disk, and nobody for it. `before_closing` is done once the store is back and before
        anybody else uses it; where it raises StoreError, the store is not back.
        """
        try:
            self._store.tend()
        except StoreError as error:
            self.odd("store-housekeeping-failed", error)
        with self._lock:
            half_open = self._breaker.probe(time.monotonic())
            if half_open is None:
                return
            self._breaker = half_open
        failure: StoreError | None = StoreError(StoreFailure.OTHER, "the probe raised something else")
        try:
            failure = self._probe()
            if failure is None:
                before_closing()
        except StoreError as error:
            failure = error
        finally:  # after a bug of ours, too: nobody would ever probe again what stays half-open
            if failure is None:
                self._succeeded()
            else:
                self.failed(failure)

    def _probe(self) -> StoreError | None:
        """Write something; return what was wrong with it."""
        began = time.monotonic()
        try:
            self._store.probe()
        except StoreError as error:
            return error
        seconds = time.monotonic() - began
        return _slow(seconds) if seconds > self._budget_seconds else None

    def failed(self, error: StoreError) -> None:
        """Count a failure of the store's; where it is the second one in a row, leave the store alone."""
        now = time.monotonic()
        with self._lock:
            was_closed = self._breaker.is_closed
            if was_closed and now - self._closed_at > STEADY_SECONDS:
                self._breaker = replace(self._breaker, wait=0.0)
            self._breaker = self._breaker.failed(now, random.random())
            has_opened = was_closed and not self._breaker.is_closed
        self.met(error)
        if has_opened:
            self._counts.count(OPENED)
            self._is_away_told = self._tell("error", "store-away", error)

    def odd(self, event: str, error: StoreError) -> None:
        """Count and tell what goes wrong beside the messages."""
        self._counts.count(FAILURES, error.failure.value)
        self._tell("critical" if error.failure in DAMAGES else "error", event, error)

    def met(self, error: StoreError) -> None:
        """Count a failure, whoever has met it; where somebody must look at the file, tell so."""
        self._counts.count(FAILURES, error.failure.value)
        if error.failure in DAMAGES:
            self._tell("critical", "store-damaged", error)

    def _succeeded(self) -> None:
        with self._lock:
            was_closed = self._breaker.is_closed
            # It keeps its wait: what opens again at once, since probes go well and messages do not, is left alone for longer.
            self._breaker = replace(self._breaker.succeeded(), wait=self._breaker.wait)
            if not was_closed:
                self._closed_at = time.monotonic()
        if not was_closed and self._is_away_told:
            self._on_event("info", "store-back")

    def _tell(self, level: str, event: str, error: StoreError) -> bool:
        """Tell an event, once an hour for each kind of failure; say whether it was told.

        Damage is told once, whichever way it was met, and again where it is another: each file that is set aside is news.
        """
        now = time.monotonic()
        key = ("", error.failure, error.detail) if level == "critical" else (event, error.failure, "")
        with self._lock:
            told_at = self._told_at.get(key)
            if told_at is not None and now - told_at < TELL_AGAIN_SECONDS:
                return False
            if len(self._told_at) >= MAX_TOLD:
                self._told_at.clear()
            self._told_at[key] = now
        self._on_event(level, event, reason=error.failure.value, detail=error.detail)
        return True


def _slow(seconds: float) -> StoreError:
    return StoreError(StoreFailure.TIMEOUT, f"an answer after {seconds:.3f} s")
