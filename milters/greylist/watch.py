"""How things stand with greylisting in this worker: what the operator orders, and what is away.

A thread of the worker asks; whoever judges a message reads the last answer and never waits.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from mailward.adapters.guarded_greylist import GuardedGreylist
from mailward.adapters.resolver import Resolver
from mailward.daemon.log import Log, time_of
from mailward.daemon.metrics import Row
from mailward.daemon.program import Notes
from mailward.daemon.state_size import TELL_SECONDS, tell_size
from mailward.inbound.greylisting import Aside, Conditions
from mailward.model.greylist import Entry, Orders, Windows
from mailward.model.ports import TripletStore
from mailward.policy.breaker import BreakerState
from mailward.policy.exemptions import Exemptions
from mailward.policy.returns import ReturnBreaker, rules_for
from mailward.policy.spike import SpikeRules, SpikeWatch

STEP_SECONDS = 0.25
ORDERS_SECONDS = 2.0  # how long an order of the operator's may take to be known
RETURNS_SECONDS = 30.0
MAX_UNREADABLE = 20  # entries of somebody else's making that are told at once
COUNT_SECONDS = 60.0  # how often strangers are counted


@dataclass(slots=True)
class _Due:
    """When something is to be done the next time, in monotonic seconds."""

    every: float
    at: float = 0.0

    def take(self, now: float) -> bool:
        """Say whether it is time, and set the next time."""
        if now < self.at:
            return False
        self.at = now + self.every
        return True


class Watch:
    """Keeps the Conditions up to date."""

    def __init__(
        self,
        exemptions: Exemptions,
        windows: Windows,
        store: TripletStore,
        guarded: GuardedGreylist,
        resolver: Resolver,
        metrics: Row,
        notes: Notes,
        log: Log,
    ) -> None:
        self._configured = self._exemptions = exemptions
        self._unreadable: set[Entry] = set()
        self._store = store
        self._guarded = guarded
        self._resolver = resolver
        self._metrics = metrics
        self._notes = notes
        self._log = log
        self._orders = Orders()
        self._is_order_fresh = False  # the last question for them was answered
        self._returns = ReturnBreaker(rules_for(windows))
        self._spike = SpikeWatch()
        self._strangers = 0
        self._refusing: set[str] = set()
        self._shown: frozenset[Aside] = frozenset()
        self._lately: deque[int] = deque(maxlen=int(SpikeRules().interval // COUNT_SECONDS))
        self._conditions: dict[Aside | None, Conditions] = {}
        self._dues = {
            self._read_orders: _Due(ORDERS_SECONDS),
            self._read_returns: _Due(RETURNS_SECONDS),
            self._look_for_spike: _Due(COUNT_SECONDS),
            self._tell_size: _Due(TELL_SECONDS),
        }
        self._make_conditions()

    def start(self) -> None:
        """Begin to watch; called in a worker, after the fork. What has been ordered is known before the first message."""
        self._step_safely()
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def conditions(self) -> Conditions:
        """Return how things stand."""
        return self._conditions[self._aside()]

    def count_stranger(self) -> None:
        """Take note that somebody who has never been seen before was deferred."""
        self._strangers += 1  # threads may lose one now and then: it is compared with hundreds

    def tell_refused(self, zone: str) -> None:
        """Say once that a DNS list does not answer us; the configuration bounds how many there are."""
        if zone not in self._refusing:
            self._refusing.add(zone)
            self._log.warning(
                "dns-list-refused", list=zone, advice="a resolver of your own, or the list's terms of use"
            )

    def _aside(self) -> Aside | None:
        """Return why greylisting stands aside, if it does."""
        return next(self._away(), Aside.RETURNS if self._returns.state is BreakerState.OPEN else None)

    def _away(self) -> Iterator[Aside]:
        """Yield what has been ordered and what is away."""
        if self._is_switched_off():
            yield Aside.SWITCHED_OFF
        if self._guarded.is_open:
            yield Aside.STORE
        if self._resolver.is_away:
            yield Aside.DNS

    def _is_switched_off(self) -> bool:
        """Say whether the switch is in force: by the store's clock, which all machines share; by ours while it does not tell."""
        until = self._orders.off_until
        return bool(until) and (self._is_order_fresh or until > time.time())

    def _run(self) -> None:
        """Ask and look, several times a second. A thread's whole life."""
        while True:
            self._step_safely()
            time.sleep(STEP_SECONDS)

    def _step_safely(self) -> None:
        try:
            self.step(time.monotonic())
        except Exception:  # noqa: BLE001 - without this thread what is away would stay away for ever
            self._log.exception("watch-failed")
            time.sleep(1.0)

    def step(self, now: float) -> None:
        """Do what is due."""
        self._guarded.look_after()
        for act, due in self._dues.items():
            if due.take(now):
                act()
        self._show()

    def _read_orders(self) -> None:
        orders = self._guarded.consult(self._store.orders)
        self._is_order_fresh = orders is not None
        if orders is None or orders == self._orders:
            return
        if orders.off_until != self._orders.off_until:
            self._log.warning("switched", until=_moment(orders.off_until) if orders.off_until else "on")
        self._orders = orders
        self._exemptions = self._configured.with_entries(orders.entries)
        for entry in [*set(self._exemptions.unreadable) - self._unreadable][:MAX_UNREADABLE]:
            self._log.warning("entry-unreadable", kind=entry.kind.value, subject=entry.subject)
        self._unreadable = set(self._exemptions.unreadable)
        self._make_conditions()

    def _read_returns(self) -> None:
        counts = self._guarded.consult(self._store.returns)
        if counts is None:
            return
        old, self._returns = self._returns, self._returns.step(counts, time.time())
        if old != self._returns:  # which triplets are tried may have changed, too
            self._make_conditions()
        found = self._returns
        if old.is_closed and not found.is_closed:
            self._log.error("returns-fail", expected=found.expected, returned=found.returned)
        elif found.is_closed and not old.is_closed:  # open and half-open take turns while trials fail
            self._log.info("returns-back", expected=found.expected, returned=found.returned)

    def _make_conditions(self) -> None:
        """Make the conditions of every case beforehand: a message picks one of them."""
        exemptions, is_trying = self._exemptions, self._returns.state is BreakerState.HALF_OPEN
        conditions: dict[Aside | None, Conditions] = {aside: Conditions(exemptions, aside) for aside in Aside}
        conditions[None] = Conditions(exemptions, None, self._returns.is_tried) if is_trying else Conditions(exemptions)
        self._conditions = conditions

    def _look_for_spike(self) -> None:
        counted, self._strangers = self._strangers, 0
        self._lately.append(counted)
        was_spike = self._spike.is_spike
        self._spike, has_begun = self._spike.step(sum(self._lately), time.monotonic())
        if has_begun:
            self._log.warning("deferral-spike", deferred=sum(self._lately), seconds=self._spike.rules.interval)
        if self._spike.is_spike is not was_spike:
            self._metrics.count("deferral_spike", amount=-1 if was_spike else 1)

    def _tell_size(self) -> None:
        size = self._guarded.consult(self._store.size)
        if size is not None:
            tell_size(self._notes, size)

    def _show(self) -> None:
        """Show in the gauges what stands aside."""
        returns = [] if self._returns.is_closed else [Aside.RETURNS]
        shown = frozenset([*self._away(), *returns])
        for aside in shown ^ self._shown:
            self._metrics.count("breakers_open", aside.value, 1 if aside in shown else -1)
        self._shown = shown


def _moment(seconds: float) -> str:
    """Return a time as the log writes its own; a store holds what was written into it."""
    try:
        return time_of(int(seconds))
    except (ValueError, OverflowError, OSError):
        return str(seconds)
