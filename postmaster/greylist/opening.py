"""Greylisting's state, opened for the postmaster beside the daemons."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from mailward.adapters import stores
from mailward.model.greylist import TripletRecord, Windows
from mailward.model.ports import GreylistRecords
from mailward.model.state import Durability
from mailward.settings.greylist import Settings
from postmaster.opening import STORE_SECONDS, opened_store
from postmaster.progress import counted, progress


@dataclass(frozen=True, slots=True)
class Greylist:
    """The opened state, how things are compared and how long they last, and the time of this command."""

    store: GreylistRecords
    windows: Windows
    ipv4_prefix: int
    ipv6_prefix: int
    now: float

    def triplets(self) -> Iterator[TripletRecord]:
        """Yield every triplet, with a progress bar where there are many; print nothing meanwhile."""
        with progress(self.store.count_triplets(), "triplets") as advance:
            yield from counted(self.store.triplets(), advance)


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[Greylist]:
    """Yield greylisting's state; leave the program with a line on stderr where it is away."""
    state, own = settings.state.state, settings.greylist

    def open_store() -> GreylistRecords:
        return stores.open_greylist(state, Durability(settings.durability), STORE_SECONDS)

    with opened_store(state, open_store, "mailward-greylist", "greylisting learns anew") as store:
        yield Greylist(store, own.windows(), own.ipv4_prefix, own.ipv6_prefix, time.time())
