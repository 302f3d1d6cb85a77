"""One delivery attempt, counted once over its calls: Postfix asks at RCPT for each recipient, at DATA and at END-OF-MESSAGE.

Its `instance` ties the calls of an attempt together. Kept is what has been charged for it: a message once, octets up to their
real number, each recipient once however often and with whatever extension it is named. What was refused is not kept, and is
judged anew when it comes again. Bounded: the attempt that was charged longest ago is forgotten first, and what comes of it later
is counted in full. Several processes do not share this: Postfix's smtpd stays on one connection as a rule.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from mailward.model.limits import Charging, Force, Outcome

MAX_ATTEMPTS = 5_000  # sessions at once of some dozen Postfix machines; an attempt of one recipient takes 0.7 kB
MAX_THINGS = 300_000  # that all attempts remember together, for each recipient as many as there are limits: some 40 MB
MAX_THINGS_OF_ONE = 100_000  # an attempt; smtpd_recipient_limit is 1,000
MAX_INSTANCE = 128  # characters; Postfix's have about 25

# What was charged under: a limit's name, or where the limit looks at the recipient's domain, its name and that domain.
Slot = str | tuple[str, str]


class Booking(NamedTuple):
    """What one charge is kept as: under which slot, how much, and a hash of slot and recipient, 0 where it is of no recipient."""

    slot: Slot
    cost: int
    seen: int = 0


class Booked(Protocol):
    """What is needed of a plan: `bookings` are its charges', in their order; `repeats` were recipients named once more."""

    @property
    def instance(self) -> str: ...

    @property
    def charging(self) -> Charging: ...

    @property
    def bookings(self) -> Sequence[Booking]: ...

    @property
    def repeats(self) -> Sequence[Slot]: ...


class Attempt:
    """What has been charged for one attempt.

    `amounts`: how much by slot. `seen`: a hash for each slot and recipient; of Python's keyed ones, which nobody outside can
    make collide. `repeated`: how many recipients by slot were named once more.
    """

    __slots__ = ("amounts", "has_sent", "repeated", "seen")

    def __init__(self) -> None:
        self.amounts: dict[Slot, int] = {}
        self.seen: set[int] = set()
        self.repeated: dict[Slot, int] = {}
        self.has_sent = False

    @property
    def size(self) -> int:
        """How many things it remembers."""
        return len(self.amounts) + len(self.seen) + len(self.repeated)

    def left_of(self, slot: Slot, recipient_count: int) -> int:
        """Return how many of a message's recipients have not been charged; each repeated one is among those that were."""
        return max(0, recipient_count - self.amounts.get(slot, 0) - self.repeated.get(slot, 0))


class Attempts:
    """The attempts of one process, by their instance."""

    def __init__(self, most: int = MAX_ATTEMPTS, most_things: int = MAX_THINGS) -> None:
        self._attempts: OrderedDict[str, Attempt] = OrderedDict()
        self._most = most
        self._most_things = most_things
        self._things = 0

    def __len__(self) -> int:
        return len(self._attempts)

    def find(self, instance: str) -> Attempt | None:
        """Return what is known of an attempt; None where nothing has been charged for it."""
        return self._attempts.get(instance)

    def charged(self, plan: Booked, outcome: Outcome) -> None:
        """Keep what has been charged of a plan; nothing, where the store refused it."""
        if not outcome.is_charged or not plan.instance or len(plan.instance) > MAX_INSTANCE:
            return
        if not plan.bookings and not plan.repeats and plan.charging.sent is None:
            return
        attempt = self._attempts.get(plan.instance)
        if attempt is None:
            attempt = self._attempts[plan.instance] = Attempt()
        else:
            self._attempts.move_to_end(plan.instance)
        before = attempt.size
        if before < MAX_THINGS_OF_ONE:
            _keep(attempt, plan, outcome)
        self._things += attempt.size - before
        while len(self._attempts) > self._most or (self._things > self._most_things and len(self._attempts) > 1):
            _, oldest = self._attempts.popitem(last=False)
            self._things -= oldest.size


def _keep(attempt: Attempt, plan: Booked, outcome: Outcome) -> None:
    if plan.charging.sent is not None:
        attempt.has_sent = True
    amounts = attempt.amounts
    for charge, booking, reading in zip(plan.charging.charges, plan.bookings, outcome.readings, strict=True):
        if reading.is_over and charge.force is not Force.FORCED:
            continue
        slot, cost, seen = booking
        amounts[slot] = amounts.get(slot, 0) + cost
        if seen:
            attempt.seen.add(seen)
    for slot in plan.repeats:
        attempt.repeated[slot] = attempt.repeated.get(slot, 0) + 1
