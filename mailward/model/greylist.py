"""What greylisting remembers (RFC 6647): triplets, origins, and what the operator has ordered while it runs.

Times are seconds since 1970 of the store's clock; 0.0 where something has not happened.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

RETURN_BUCKET_SECONDS = 600  # how finely returns are counted


@dataclass(frozen=True, slots=True)
class Triplet:
    """Origin, sender and recipient as they are compared and kept.

    `origin` is the client's network ("192.0.2.0/24"), or the domain ("example.com") that SPF says the client may send for:
    the retry of a pool comes from another network. `mail_from` is empty for the null sender. All three are printable ASCII
    without spaces, at most 320 characters each (mailward.policy.greylist_key makes them so).
    """

    origin: str
    mail_from: str
    rcpt_to: str


@dataclass(frozen=True, slots=True)
class Windows:
    """How long things take and last, in seconds.

    A triplet passes from `delay` after its first sighting on, if it is sighted before `retry_window` is over; then it is
    remembered for `remember` since its last sighting. An origin whose triplets passed `passes_to_whitelist` times, no two
    counted within `pass_interval`, passes without a look at the triplet, for `remember` since its last sighting.
    `passes_to_whitelist` 0: never.
    """

    delay: float = 60.0
    retry_window: float = 2 * 86400.0
    remember: float = 36 * 86400.0
    passes_to_whitelist: int = 5
    pass_interval: float = 3600.0


@dataclass(frozen=True, slots=True)
class TripletRecord:
    """What is kept of a triplet. `is_expected`: its origin is known to retry, so that a return is expected.

    mailward.policy.greylist.is_return_expected says when.
    """

    triplet: Triplet
    first_seen: float
    passed_at: float
    expires: float
    is_expected: bool = False


@dataclass(frozen=True, slots=True)
class OriginRecord:
    """What is kept of an origin: how often triplets of it passed, and when that was counted last.

    `expected_at`: when a return was expected of it last.
    """

    origin: str
    passes: int
    counted_at: float
    expires: float
    expected_at: float = 0.0


class Memory(Enum):
    """Why a sighted triplet may pass, or may not yet."""

    ORIGIN = "whitelisted-origin"
    CORRESPONDENT = "correspondent"
    PASSED = "passed-before"
    RETRIED = "retried"  # it passes now, for the first time
    EARLY = "too-early"
    NEW = "first-sighting"
    LATE = "late-retry"  # it was sighted before, and its time was over: it starts over


@dataclass(frozen=True, slots=True)
class Sighting:
    """What the store knew when a triplet was sighted, and keeps now. `first_seen` is 0.0 where no triplet was looked at."""

    memory: Memory
    now: float
    first_seen: float = 0.0


@dataclass(frozen=True, slots=True)
class ReturnCount:
    """Of the triplets deferred in one bucket of time whose origins are known to retry: how many, and how many came back."""

    start: float
    expected: int
    returned: int


class EntryKind(Enum):
    """What an entry of the operator's speaks of."""

    NETWORK = "network"  # a client's address or network
    NAME = "name"  # a client's confirmed name, and what is below it
    SENDER = "sender"  # an address, or a domain and what is below it
    RECIPIENT = "recipient"  # an address or a domain


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the list that `mailward greylist allow` and `deny` keep: passes at once, or never without a delay.

    `until` 0.0 is for good.
    """

    kind: EntryKind
    subject: str
    is_allowed: bool
    added_at: float
    until: float = 0.0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Orders:
    """What the operator has ordered while the daemons run. `off_until`: greylisting is switched off until then."""

    entries: tuple[Entry, ...] = ()
    off_until: float = 0.0
