"""Every store in any order of events: what it says is what the definition says, and nobody passes too soon or never."""

from __future__ import annotations

import time

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from mailward.model.greylist import RETURN_BUCKET_SECONDS, Memory, Sighting, Triplet, Windows
from mailward.model.ports import GreylistRecords
from mailward.policy.greylist import PASSES
from tests.adapters.stores_support import Place
from tests.support.greylist_dialogues import Paper, moment, triplet

START = time.time() // RETURN_BUCKET_SECONDS * RETURN_BUCKET_SECONDS
WINDOWS = Windows()

TRIPLETS = st.sampled_from([triplet(name) for name in ("A1", "A2", "A7", "B1", "B7")])
STEPS = st.sampled_from(["1s", "30s", "59s", "60s", "61s", "10m", "1h-1s", "1h", "6h", "1d", "2d", "35d", "40d"])
STEPS_BACK = st.sampled_from(["1s", "9s", "11s", "2m"])


class AnyOrder(RuleBasedStateMachine):
    """A store, and the definition on paper; both are told the same."""

    place: Place

    def __init__(self) -> None:
        super().__init__()
        self.place.clear()
        self.store: GreylistRecords = self.place.open()
        self.paper = Paper()
        self.now = self.latest = START
        self.tended_at = 0.0
        self.waiting_since: dict[Triplet, float] = {}

    def teardown(self) -> None:
        self.store.close()

    @rule(sighted=TRIPLETS, is_vouched=st.booleans())
    def sight(self, sighted: Triplet, is_vouched: bool) -> None:
        self.sighting_of(sighted, is_vouched)

    def sighting_of(self, sighted: Triplet, is_vouched: bool) -> Sighting:
        recalled = self.store.recalls(sighted, WINDOWS, self.now)
        correspondent = sighted.mail_from if is_vouched else ""
        sighting = self.store.sight(sighted, WINDOWS, correspondent=correspondent, now=self.now)
        expected = self.paper.sight(sighted, WINDOWS, self.now, correspondent=correspondent)
        if self.tended_at and expected.memory is Memory.LATE:
            # What has expired may be gone, and is then new: who tends when is the store's affair.
            assert sighting.memory in (Memory.LATE, Memory.NEW)
            assert sighting.first_seen == expected.first_seen
        else:
            assert sighting == expected
        assert recalled == (sighting.memory in PASSES) or sighting.memory is Memory.CORRESPONDENT
        self.nobody_passes_too_soon(sighted, sighting)
        return sighting

    def nobody_passes_too_soon(self, sighted: Triplet, sighting: Sighting) -> None:
        """Hold what is said against nothing but the times at which this triplet was sighted."""
        if sighting.memory in (Memory.NEW, Memory.LATE):
            self.waiting_since[sighted] = self.now
        elif sighting.memory in (Memory.EARLY, Memory.RETRIED):
            waited = self.now - self.waiting_since[sighted]
            assert (waited >= WINDOWS.delay) == (sighting.memory is Memory.RETRIED)
            assert waited < WINDOWS.retry_window
        elif sighting.memory is Memory.PASSED:
            assert self.now - self.waiting_since[sighted] >= WINDOWS.delay or self.has_clock_gone_back(sighted)

    def has_clock_gone_back(self, sighted: Triplet) -> bool:
        return self.paper.triplets[sighted].passed_at > self.now

    @rule(sighted=TRIPLETS, pause=st.sampled_from(["59s", "60s", "5m", "4h"]), is_vouched=st.booleans())
    def insist(self, sighted: Triplet, pause: str, is_vouched: bool) -> None:
        """Who retries within the window passes in the end, whatever was before."""
        for _try in range(3):
            if self.sighting_of(sighted, is_vouched).memory in PASSES:
                return
            self.advance(pause)
        raise AssertionError("deferred for ever")

    @rule(origin=st.sampled_from("AB"), passes=st.integers(2, 5))
    def earn(self, origin: str, passes: int) -> None:
        """Pass as often as it takes for a return to be expected, or for the origin to be whitelisted."""
        for recipient in range(1, passes + 1):
            self.insist(triplet(f"{origin}{recipient}"), "60s", False)
            self.advance("1h")

    @rule(step=STEPS)
    def advance(self, step: str) -> None:
        self.now += moment(step)
        self.latest = max(self.latest, self.now)

    @rule(step=STEPS_BACK)
    def set_back(self, step: str) -> None:
        self.now = max(self.tended_at, self.now - moment(step))  # what tending has thrown away stays away

    @rule(writes_to=TRIPLETS, lifetime=st.sampled_from(["1h", "90d"]))
    def record(self, writes_to: Triplet, lifetime: str) -> None:
        self.store.record([writes_to.mail_from], moment(lifetime), self.now)
        self.paper.record(writes_to.mail_from, moment(lifetime), self.now)

    @rule(forgotten=TRIPLETS)
    def forget(self, forgotten: Triplet) -> None:
        record = self.paper.triplets.pop(forgotten, None)
        origin = self.paper.origins.pop(forgotten.origin, None)
        # What has expired, and was tended since, may be there or not.
        if record is None or record.expires > self.tended_at:
            assert self.store.forget_triplet(forgotten) == (record is not None)
        if origin is None or origin.expires > self.tended_at:
            assert self.store.forget_origin(forgotten.origin) == (origin is not None)
        self.store.forget_triplet(forgotten)
        self.store.forget_origin(forgotten.origin)

    @rule(what=st.sampled_from(["probe", "tend", "reopen"]))
    def keep_house(self, what: str) -> None:
        if what == "probe":
            self.store.probe()
        elif what == "tend":
            self.tended_at = max(self.tended_at, self.now)
            for _step in range(3):
                self.store.tend(self.now)
        else:
            self.store.close()
            self.store = self.place.open()

    @precondition(lambda self: self.paper.triplets or self.paper.origins or self.paper.correspondents)
    @invariant()
    def what_is_kept_is_what_was_written(self) -> None:
        """Of what has expired, and was tended since, nobody asks."""
        since = self.tended_at
        kept = {record.triplet: record for record in self.store.triplets() if record.expires > since}
        assert kept == {key: record for key, record in self.paper.triplets.items() if record.expires > since}
        origins = {record.origin: record for record in self.store.origins() if record.expires > since}
        assert origins == {key: record for key, record in self.paper.origins.items() if record.expires > since}
        known = {address: expires for address, expires in self.store.correspondents() if expires > since}
        assert known == {key: expires for key, expires in self.paper.correspondents.items() if expires > since}

    @invariant()
    def returns_are_counted(self) -> None:
        assert self.store.returns(self.latest) == self.paper.returns(self.latest)


def test_in_any_order(place: Place) -> None:
    run_state_machine_as_test(
        type("AnyOrderHere", (AnyOrder,), {"place": place}),
        settings=settings(max_examples=place.examples, stateful_step_count=30),
    )
