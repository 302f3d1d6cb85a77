"""Every store in any order of requests: what becomes of them is what the definition says, and so is what is kept."""

from __future__ import annotations

import time

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from mailward.model.limits import KNOWN, Charge, Charging, CounterKey, Sent
from mailward.model.ports import LimitRecords
from tests.adapters.stores_support import Place
from tests.support.limit_dialogues import Paper, charge, moment, same

START = time.time() // 86400 * 86400 + 86400
NAMES = ("alice", "bob")

AMOUNTS = st.builds("{}={}".format, st.sampled_from(["hour", "hour-and-day", "pair", "pair/b"]), st.integers(0, 6))
ITEMS = st.builds(
    "{}@{}".format, st.sampled_from(["new", "surge", "different", "different-too"]), st.sampled_from("abcdef")
)
CHARGES = st.builds("{}/{}{}".format, st.sampled_from(NAMES), AMOUNTS | ITEMS, st.sampled_from(["", "", "", "?", "!"]))
SENDERS = st.sampled_from(["", *NAMES])
STEPS = st.sampled_from(["0.01s", "1s", "20s", "59.5s", "2m", "10m", "58m", "1h", "1h+2m", "6h", "1d", "2d"])
STEPS_BACK = st.sampled_from(["0.5s", "1s", "25s", "5m", "3h", "2d"])


REQUESTS = st.tuples(st.lists(CHARGES.map(charge), max_size=4), SENDERS)


class AnyOrder(RuleBasedStateMachine):
    """A store, and the definition on paper; both are told the same."""

    place: Place

    def __init__(self) -> None:
        super().__init__()
        self.place.clear()
        self.store: LimitRecords = self.place.open_limits()
        self.paper = Paper()
        self.now = self.latest = START
        self.tended_at = 0.0
        self.noted = 0

    def teardown(self) -> None:
        self.store.close()

    @rule(requests=st.lists(REQUESTS, min_size=1, max_size=4))
    def charge(self, requests: list[tuple[list[Charge], str]]) -> None:
        chargings = [self.charging(*request) for request in requests]
        expected = [same(self.paper.charge(each, self.now)) for each in chargings]
        assert self.store.charge(chargings, self.now) == expected

    def charging(self, charges: list[Charge], sender: str) -> Charging:
        if self.place.is_divided:  # what it says of several owners while others charge, nobody knows
            charges = [each for each in charges if each.key.owner == charges[0].key.owner]
        self.noted += 1
        sent = Sent(sender, f"4bXyz{self.noted}") if sender else None
        return Charging(tuple({each.key: each for each in charges}.values()), sent)

    @rule(step=STEPS)
    def advance(self, step: str) -> None:
        self.now += moment(step)
        self.latest = max(self.latest, self.now)

    @rule(step=STEPS_BACK)
    def set_back(self, step: str) -> None:
        """Set the clock back, but not so far that what had expired, and may be gone, would count again."""
        expired = (kept.expires for kept in self.paper.kept.values() if kept.expires <= self.latest)
        self.now = max([self.now - moment(step), self.tended_at, *expired])

    @rule(name=st.sampled_from(NAMES))
    def reset(self, name: str) -> None:
        owner = f"sasl_username={name}"
        keys = [key for key in self.paper.of(owner) if key.limit != KNOWN]
        alive = sum(self.paper.kept.pop(key).expires > self.now for key in keys)
        assert alive <= self.store.reset(owner) <= len(keys)

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
            self.store = self.place.open_limits()

    @invariant()
    def what_is_kept_is_what_was_charged(self) -> None:
        """Of what has expired nobody asks."""
        expected = {key: kept.value for key, kept in self.paper.kept.items() if kept.expires > self.now}
        assert self.alive(*(f"sasl_username={name}" for name in NAMES)) == expected

    def alive(self, *owners: str) -> dict[CounterKey, bytes]:
        records = (record for owner in owners for record in self.store.counters(owner))
        kept = {record.key: record.value for record in records}
        return {key: value for key, value in kept.items() if key in self.paper.kept and self.is_alive(key)}

    def is_alive(self, key: CounterKey) -> bool:
        return self.paper.kept[key].expires > self.now

    @invariant()
    def what_was_sent_is_known(self) -> None:
        for name in NAMES:
            sent = [(at, each) for at, each in self.paper.sent if each.account == name]
            expected = {each.queue_id for at, each in sent if at > self.latest - moment("5d") + 1}
            found = {queue_id for _, queue_id in self.store.sent(name, self.now)}
            assert expected <= found <= {each.queue_id for _, each in sent}


def test_in_any_order(place: Place) -> None:
    run_state_machine_as_test(
        type("AnyOrderHere", (AnyOrder,), {"place": place}),
        settings=settings(
            max_examples=min(place.examples, 100),
            stateful_step_count=25,
            phases=[Phase.generate],  # a failure of Redis's would be made smaller for minutes
        ),
    )
