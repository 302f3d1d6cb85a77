"""What was counted here while the store was away, and what of it is still to be charged to the store when it is back.

The store counts it as of the moment it is told. So of each counter what is owed is what its shortest window still holds: of
several windows the longer ones miss what is older, and no honest account finds an hour filled with what it sent in a day.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice

from mailward.model.limits import Charge, Charging, CounterKey, Force, Kind, Outcome, Sent
from mailward.policy import ratelimit

MAX_OWED = 50_000  # counters, and items of them; what was counted longest ago makes room
MAX_SENT = 20_000

_Place = tuple[CounterKey, bytes]


@dataclass(frozen=True, slots=True)
class _Owed:
    """A charge that is still to be made; of amounts `value` has them all, of items `at` is when this one came last."""

    charge: Charge
    at: float
    value: bytes = b""


@dataclass(frozen=True, slots=True)
class Portion:
    """Some of what is owed, taken out to be charged."""

    owed: tuple[_Owed, ...]
    sent: tuple[Sent, ...]

    def chargings(self, now: float) -> list[Charging]:
        """Return what the store is to charge: forced, and without what would have cleared by now."""
        charges = [charge for one in self.owed if (charge := _due(one, now)) is not None]
        return [Charging((charge,)) for charge in charges] + [Charging((), sent) for sent in self.sent]


class OwedCharges:
    """Gathers what was charged here; bounded. Not for several threads."""

    def __init__(self, max_owed: int = MAX_OWED, max_sent: int = MAX_SENT) -> None:
        self._max_owed = max_owed
        self._owed: dict[_Place, _Owed] = {}  # what was counted longest ago first
        self._sent: deque[Sent] = deque(maxlen=max_sent)

    def __bool__(self) -> bool:
        return bool(self._owed or self._sent)

    def add(self, charging: Charging, outcome: Outcome, now: float) -> None:
        """Note what a request was charged here."""
        if not outcome.is_charged:
            return
        for charge, reading in zip(charging.charges, outcome.readings, strict=True):
            if charge.cost and not (reading.is_over and charge.force is Force.SHADOW):
                self._add(charge._replace(force=Force.FORCED), now)
        if charging.sent is not None:
            self._sent.append(charging.sent)

    def take(self, most: int) -> Portion:
        """Take out at most so many of the charges, and of the messages sent."""
        places = list(islice(self._owed, most))
        sent = tuple(self._sent.popleft() for _ in range(min(most, len(self._sent))))
        return Portion(tuple(self._owed.pop(place) for place in places), sent)

    def put_back(self, portion: Portion, now: float) -> None:
        """Owe a portion again that could not be charged."""
        for one in portion.owed:
            if _place(one.charge) not in self._owed:
                self._keep(one)
            elif one.charge.kind is Kind.AMOUNT and (due := _due(one, now)) is not None:
                self._add(due, now)
        self._sent.extendleft(reversed(portion.sent[: self._room_for_sent()]))

    def _room_for_sent(self) -> int:
        return (self._sent.maxlen or 0) - len(self._sent)

    def _add(self, charge: Charge, now: float) -> None:
        if charge.kind is not Kind.AMOUNT:
            self._keep(_Owed(charge, now))
            return
        before = self._owed.get(_place(charge))
        values = {charge.key: before.value} if before is not None else {}
        _, changes = ratelimit.charge(Charging((charge,)), values, now)
        self._keep(_Owed(charge, now, changes[charge.key].value))

    def _keep(self, one: _Owed) -> None:
        place = _place(one.charge)
        self._owed.pop(place, None)
        self._owed[place] = one
        if len(self._owed) > self._max_owed:
            del self._owed[next(iter(self._owed))]


def _place(charge: Charge) -> _Place:
    return charge.key, b"" if charge.kind is Kind.AMOUNT else charge.item


def _due(one: _Owed, now: float) -> Charge | None:
    """Return what is to be charged now, if anything."""
    charge = one.charge
    if charge.kind is Kind.AMOUNT:
        outcome, _ = ratelimit.charge(Charging((charge._replace(cost=0),)), {charge.key: one.value}, now)
        cost = min(outcome.readings[0].totals, default=0)
        return charge._replace(cost=cost) if cost else None
    if now - one.at < min((window.seconds for window in charge.windows), default=0.0):
        return charge
    # Whom an account knows is worth knowing for longer than a window.
    return charge._replace(windows=()) if charge.kind is Kind.FIRST_TIME else None
