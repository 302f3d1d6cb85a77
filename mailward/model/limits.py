"""What is counted, and against which limits; values that rules, stores and the command share.

Those that are made for every request are named tuples: a frozen dataclass takes three times as long to make, which is some
8 us for a request that three limits count.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

KNOWN = "known"  # the name, in place of a limit's, under which an owner's known items are kept


class Kind(Enum):
    """What a counter counts."""

    AMOUNT = "amount"  # messages, recipients, octets, failures: costs are added up
    FIRST_TIME = "first-time"  # of the items only those that the owner's set of known ones does not have
    DISTINCT = "distinct"  # how many different items there were in the window


class Force(Enum):
    """What it means for a charge that its limit is reached."""

    ENFORCED = "enforced"  # nothing of the request is charged
    SHADOW = "shadow"  # this one is not charged, and stops nothing
    FORCED = "forced"  # it is charged all the same


@dataclass(frozen=True, slots=True)
class Window:
    """At most `most` within any `seconds`."""

    most: int
    seconds: float


class CounterKey(NamedTuple):
    """Which counter: of whom, for which limit, and where the limit counts pairs of things, the rest of the pair.

    `owner` says what it is: "sasl_username=alice@example.com", "client_address=192.0.2.0/24", "login=alice", "all". Printable
    ASCII without spaces, at most 340 characters; so is `rest` ("recipient_domain=example.org"). Counters of one owner are changed
    together in one step, whatever the store; of several owners, in all stores but a Redis Cluster.
    """

    owner: str
    limit: str
    rest: str = ""


class Charge(NamedTuple):
    """What one request costs one counter. A cost of 0 only looks.

    `item` is what FIRST_TIME and DISTINCT compare: 4 octets, a digest of the recipient or network (mailward.policy.ratelimit).
    """

    key: CounterKey
    windows: tuple[Window, ...]
    cost: int = 1
    kind: Kind = Kind.AMOUNT
    item: bytes = b""
    force: Force = Force.ENFORCED


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that an account hands to Postfix: so that its part of the queue can be found."""

    account: str
    queue_id: str


class Charging(NamedTuple):
    """All that one request costs: charged together, or not at all. No two charges have the same key.

    `sent` is noted where nothing refuses.
    """

    charges: tuple[Charge, ...]
    sent: Sent | None = None


class Reading(NamedTuple):
    """How one charge's counter stands.

    `totals` are the windows' amounts, as they are after the charge or, where it is over, without it (where another charge of the
    request refuses, they are what they would have been). `is_over`: its limit is reached; `clears_in` is then after how many
    seconds it would be granted, infinite if never. `is_known`: the item was there before.
    """

    totals: tuple[int, ...]
    is_over: bool = False
    clears_in: float = 0.0
    is_known: bool = False


class Outcome(NamedTuple):
    """What became of a request: a reading for each of its charges. `is_charged` is false where an enforced one was over."""

    is_charged: bool
    readings: tuple[Reading, ...]


@dataclass(frozen=True, slots=True)
class CounterRecord:
    """A counter as it is kept: `value` is what mailward.policy.ratelimit makes and reads."""

    key: CounterKey
    value: bytes
    expires: float
