"""The store of counters behind its breaker: while it is away, limits are held by what is counted here.

Each process counts for itself then, from nothing on: a stolen account gets its limits once more, and no more. Only the limits
of first-time recipients refuse nothing meanwhile, since whom an account knows is in the store: everybody who writes to many
would be taken for a thief. They see it all once the store is back: what was counted here is charged to it then, and what of
that had been charged before the store went away, without an answer, is charged twice rather than not at all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from mailward.adapters.memory_counters import MemoryLimits
from mailward.adapters.owed_charges import MAX_OWED, OwedCharges
from mailward.adapters.store_breaker import FAILURES, OPENED, StoreBreaker
from mailward.model.errors import StoreError
from mailward.model.limits import Charge, Charging, Force, Kind, Outcome, Reading
from mailward.model.ports import CounterStore, Counts, OnEvent

__all__ = ["COUNTED_HERE", "FAILURES", "OPENED", "GuardedCounters"]

COUNTED_HERE = "store_counted_here"  # requests; the daemon describes it

PORTION = 32  # charges in one call: the store is not to be slow because of what it missed
MAX_PORTIONS = 2 * MAX_OWED // PORTION  # at once: what goes on being counted meanwhile is charged later


class GuardedCounters:
    """A CounterStore that answers within its budget, or counts here; None where not even that is possible.

    charge() is for one thread, look_after() for another. No more than two calls in a row wait for a store that is away.
    """

    def __init__(
        self,
        store: CounterStore,
        budget_seconds: float,
        counts: Counts,
        on_event: OnEvent,
        local: CounterStore | None = None,
    ) -> None:
        self._store = store
        self._local = local if local is not None else MemoryLimits()
        self._counts = counts
        self._breaker = StoreBreaker(store, budget_seconds, counts, on_event)
        self._owed = OwedCharges()
        self._lock = threading.Lock()  # of what is owed; never held while somebody waits for the store

    @property
    def is_open(self) -> bool:
        """Whether the store is being left alone."""
        return self._breaker.is_open

    def charge(self, chargings: Sequence[Charging]) -> list[Outcome] | None:
        """Charge requests one after the other; where the store cannot, count them here."""
        outcomes = self._breaker.attempt(
            lambda: self._store.charge(chargings),
            # A file that somebody has locked, or a full disk, can be read: that something is refused shows nothing.
            lambda outcomes: any(map(_has_written, chargings, outcomes)),
        )
        return outcomes if outcomes is not None else self._charge_here(chargings)

    def met(self, error: StoreError) -> None:
        """Count a failure of the store's that somebody else has met, and tell where somebody must look at it. Any thread."""
        self._breaker.met(error)

    def look_after(self) -> None:
        """Do the housekeeping, find out whether the store is back, and charge to it what was counted here."""
        self._local.tend()
        self._breaker.look_after(before_closing=self._charge_what_is_owed)
        if not self._breaker.is_open:  # a single failure opens nothing
            try:
                self._charge_what_is_owed()
            except StoreError as error:
                self._breaker.failed(error)

    def _charge_here(self, chargings: Sequence[Charging]) -> list[Outcome] | None:
        self._counts.count(COUNTED_HERE, amount=len(chargings))
        now = time.time()
        try:
            outcomes = self._local.charge([_as_here(charging) for charging in chargings], now)
        except StoreError as error:
            self._breaker.odd("counting-here-failed", error)
            return None
        with self._lock:
            for charging, outcome in zip(chargings, outcomes, strict=True):
                self._owed.add(charging, outcome, now)
        return [_as_answered(*pair) for pair in zip(chargings, outcomes, strict=True)]

    def _charge_what_is_owed(self) -> None:
        """Charge it, portion by portion. Raises StoreError; what was not charged then is owed still."""
        for _ in range(MAX_PORTIONS):
            with self._lock:
                if not self._owed:
                    return
                portion = self._owed.take(PORTION)
            now = time.time()
            try:
                self._store.charge(portion.chargings(now))
            except StoreError:
                with self._lock:
                    self._owed.put_back(portion, now)
                raise


def _has_written(charging: Charging, outcome: Outcome) -> bool:
    return outcome.is_charged and any(charge.cost for charge in charging.charges)


def _as_here(charging: Charging) -> Charging:
    return Charging(tuple(map(_shadowed_if_first_time, charging.charges)))


def _shadowed_if_first_time(charge: Charge) -> Charge:
    is_enforced = charge.kind is Kind.FIRST_TIME and charge.force is Force.ENFORCED
    return charge._replace(force=Force.SHADOW) if is_enforced else charge


def _as_answered(charging: Charging, outcome: Outcome) -> Outcome:
    """Say of no first-time recipient that it was one too many."""
    readings = (
        Reading(reading.totals, is_known=reading.is_known) if charge.kind is Kind.FIRST_TIME else reading
        for charge, reading in zip(charging.charges, outcome.readings, strict=True)
    )
    return Outcome(outcome.is_charged, tuple(readings))
