"""Whom authenticated users write to is recorded for greylisting: gathered here, written beside the mail, never in its way."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable

from mailward.model.errors import StoreError
from mailward.model.ports import CorrespondentStore, Counts, OnEvent

RECORDED, DROPPED = "correspondents_recorded", "correspondents_dropped"

STEP_SECONDS = 1.0
FAILED_SECONDS = 10.0
MAX_WAITING = 20_000  # addresses, some 2 MB, while the store is away
MAX_FRESH = 20_000  # addresses that need not be written again
FRESH_PART = 0.1  # of the lifetime: who is written to again within it is not written anew
BATCH = 500


class CorrespondentRecorder:
    """Takes addresses in the event loop, and writes them in a thread."""

    def __init__(self, store: CorrespondentStore, lifetime_seconds: float, metrics: Counts, on_event: OnEvent) -> None:
        """`lifetime_seconds` 0: nobody is recorded."""
        self.lifetime_seconds = lifetime_seconds
        self._store = store
        self._metrics = metrics
        self._on_event = on_event
        self._waiting: dict[str, None] = {}
        self._fresh: OrderedDict[str, float] = OrderedDict()  # address -> until when (monotonic) it is
        self._is_failing = False

    def add(self, addresses: Iterable[str], now: float) -> None:
        """Take note of recipients (as mailward.policy.greylist_key.correspondent makes them); `now` is monotonic."""
        if not self.lifetime_seconds:
            return
        for address in addresses:
            if self._fresh.get(address, 0.0) > now:
                continue
            if len(self._waiting) >= MAX_WAITING:
                self._metrics.count(DROPPED)
                continue
            self._waiting[address] = None
            self._fresh[address] = now + self.lifetime_seconds * FRESH_PART
            self._fresh.move_to_end(address)
            if len(self._fresh) > MAX_FRESH:
                self._fresh.popitem(last=False)

    async def run(self) -> None:
        """Write what has come, again and again."""
        while True:
            await asyncio.sleep(STEP_SECONDS if await self.write() else FAILED_SECONDS)

    async def write(self) -> bool:
        """Write what has come; False where the store does not take it, which is tried again later."""
        while self._waiting:
            batch = list(self._waiting)[:BATCH]
            try:
                await asyncio.to_thread(self._store.record, batch, self.lifetime_seconds)
            except StoreError as error:
                if not self._is_failing:
                    self._on_event(
                        "error", "correspondents-not-recorded", reason=error.failure.value, detail=error.detail
                    )
                self._is_failing = True
                return False
            for address in batch:
                self._waiting.pop(address, None)
            self._metrics.count(RECORDED, amount=len(batch))
        if self._is_failing:
            self._is_failing = False
            self._on_event("info", "correspondents-recorded-again")
        return True
