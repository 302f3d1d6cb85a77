"""One delivery attempt, counted once over its calls: Postfix asks at RCPT for each recipient, at DATA and at END-OF-MESSAGE.

Its `instance` ties the calls of an attempt together. Kept is what has been charged for it: a message once, octets up to their
real number, each recipient once. It may be named again, in the same words as often as restriction lists ask of it, and with
other extensions as often as one person's mail does; more than that is counted, for it may only look like a repetition. What was
refused is not kept, and is judged anew when it comes again. Bounded: the attempt that was charged longest ago is forgotten first,
and what comes of it later is counted in full. Several processes do not share this: Postfix's smtpd stays on one connection as a
rule.
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
# Times that one recipient is asked of in the same words and counted once: by several restriction lists, or it stands in To and
# Cc. Not more: with another ORCPT each time, which nobody asks us of, Postfix sends one recipient a thousand copies.
MAX_ASKED = 4
# Recipients of one attempt that are others but for their extension, and counted as those: more than one mail to lists of one
# person needs. Not more: what is an extension here may be a name of its own where the mail goes to.
MAX_EXTENDED = 10

# What was charged under: a limit's name, or where the limit looks at the recipient's domain, its name and that domain.
Slot = str | tuple[str, str]


class Booking(NamedTuple):
    """What one charge is kept as: under which slot, how much, and hashes of slot and recipient; none where it is of no recipient.

    They are of the recipient as it was written, and if that is another, of it without its extension. `is_of_its_own`: it is
    counted though one like it was.
    """

    slot: Slot
    cost: int
    seen: tuple[int, ...] = ()
    is_of_its_own: bool = False


class Repeat(NamedTuple):
    """A recipient named once more, which costs nothing: under which slot, and a hash of slot and recipient as it was written."""

    slot: Slot
    seen: int


class Booked(Protocol):
    """What is needed of a plan: `bookings` are its charges', in their order; `repeats` were recipients named once more."""

    @property
    def instance(self) -> str: ...

    @property
    def charging(self) -> Charging: ...

    @property
    def bookings(self) -> Sequence[Booking]: ...

    @property
    def repeats(self) -> Sequence[Repeat]: ...


class Attempt:
    """What has been charged for one attempt.

    `amounts`: how much by slot. `seen`: how often each slot's recipients were asked of, by a hash of both; of Python's keyed
    ones, which nobody outside can make collide. `repeated`: how many recipients by slot were named once more, and counted as one
    of those before; `extended`: how many of these with an extension that was another.
    """

    __slots__ = ("amounts", "extended", "has_hit", "has_sent", "repeated", "seen")

    def __init__(self) -> None:
        self.amounts: dict[Slot, int] = {}
        self.seen: dict[int, int] = {}
        self.repeated: dict[Slot, int] = {}
        self.extended: dict[Slot, int] = {}
        self.has_sent = False
        self.has_hit = False

    @property
    def size(self) -> int:
        """How many things it remembers."""
        return len(self.amounts) + len(self.seen) + len(self.repeated) + len(self.extended)

    def is_repeat(self, slot: Slot, written: int, plain: int) -> bool:
        """Say whether a recipient is one that was counted; by hashes of slot and recipient, as written and without extension."""
        asked = self.seen.get(written, 0)
        if asked:
            return asked < MAX_ASKED
        return plain in self.seen and self.extended.get(slot, 0) < MAX_EXTENDED

    def left_of(self, slot: Slot, recipient_count: int) -> int:
        """Return how many of a message's recipients have not been charged.

        Postfix's number has those that were named twice, twice: each repeated one is among those that were charged.
        """
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
        attempt = self._newest(plan.instance)
        before = attempt.size
        if before < MAX_THINGS_OF_ONE:
            _keep(attempt, plan, outcome)
        self._things += attempt.size - before
        self._forget_oldest()

    def is_first_hit(self, instance: str) -> bool:
        """Note that an attempt has reached a limit; say whether it is the first time.

        A person's message to too many is one hit, however many of its recipients are refused.
        """
        if not instance or len(instance) > MAX_INSTANCE:
            return True
        attempt = self._newest(instance)
        was_hit, attempt.has_hit = attempt.has_hit, True
        self._forget_oldest()
        return not was_hit

    def _newest(self, instance: str) -> Attempt:
        """Return an attempt, which is now the one that is forgotten last."""
        attempt = self._attempts.get(instance)
        if attempt is None:
            attempt = self._attempts[instance] = Attempt()
        else:
            self._attempts.move_to_end(instance)
        return attempt

    def _forget_oldest(self) -> None:
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
        slot, cost, seen, _ = booking
        amounts[slot] = amounts.get(slot, 0) + cost
        for one in seen:
            attempt.seen[one] = attempt.seen.get(one, 0) + 1
    for slot, written in plan.repeats:
        if written not in attempt.seen:
            attempt.extended[slot] = attempt.extended.get(slot, 0) + 1
        attempt.seen[written] = attempt.seen.get(written, 0) + 1
        attempt.repeated[slot] = attempt.repeated.get(slot, 0) + 1
