"""Limits as the operator writes them, and what is left of their windows for one account at one time. Pure.

    the limit's windows -> an override's in their place -> no more than a warm-up allows -> raised -> tightened

Overrides, raises and tightening are an account's: they change the limits that count per login, and an override of a domain
those that count per login's domain as well.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from mailward.model.accounts import Account, Raise
from mailward.model.limits import Window
from mailward.policy.matching import EVERYTHING, Match
from mailward.policy.owners import domain_of_account
from mailward.policy.ratelimit import MAX_ITEMS

MAX_LIMITS = 16  # as many as have a label of their own in the metrics
MAX_WINDOWS = 5
SUBJECTS = (
    "sasl_username",
    "sasl_domain",
    "sender",
    "sender_domain",
    "client_address",
    "client_network",
    "recipient_domain",
)
ALL = "all"  # the subject that everything has in common
EVERY_LIMIT = "*"

_MAX_DOUBLINGS = 60


class Count(Enum):
    """What a limit counts."""

    MESSAGES = "messages"
    RECIPIENTS = "recipients"
    BYTES = "bytes"
    FIRST_TIME = "first-time-recipients"
    DISTINCT = "distinct-recipients"


class Act(Enum):
    """What happens where a limit is reached."""

    DEFER = "defer"
    REJECT = "reject"
    HOLD = "hold"  # the message is taken, and waits in the queue for an operator
    LOG = "log"


OF_ITEMS = (Count.FIRST_TIME, Count.DISTINCT)

# Where each kind can count. The recipients of a message come one by one, at RCPT alone.
_ALL_STAGES = frozenset({"RCPT", "DATA", "END-OF-MESSAGE"})
STAGES: Mapping[Count, frozenset[str]] = {
    count: frozenset({"RCPT"}) if count in OF_ITEMS else _ALL_STAGES for count in Count
}


@dataclass(frozen=True, slots=True)
class WarmUp:
    """A limit that grows: `first` in a window from `start` on, twice as much after each `double_seconds`."""

    start: float
    first: int
    double_seconds: float


@dataclass(frozen=True, slots=True)
class Limit:
    """At most so much in each of `windows` (the shortest first), for each `per` that a request has.

    `suspend_after` so many messages that it refused the account is suspended; 0: never.
    """

    name: str
    per: tuple[str, ...]
    count: Count
    windows: tuple[Window, ...]
    act: Act = Act.DEFER
    text: str = ""
    is_shadow: bool = False
    suspend_after: int = 0
    warm_up: WarmUp | None = None
    match: Match = EVERYTHING

    @property
    def is_of_accounts(self) -> bool:
        """Whether it counts what one account does."""
        return "sasl_username" in self.per

    @property
    def needs_login(self) -> bool:
        """Whether it counts only what is sent with a login."""
        return any(subject.startswith("sasl_") for subject in self.per)

    @property
    def is_of_recipients(self) -> bool:
        """Whether it wants to see the recipient."""
        return self.count in OF_ITEMS or "recipient_domain" in self.per or self.match.needs("recipient")

    @property
    def stages(self) -> frozenset[str]:
        """Where it can count."""
        return frozenset(stage for stage in STAGES[self.count] if self.match.allows("protocol_state", stage))


DEFAULT_LIMITS = (
    Limit(
        "account-recipients",
        ("sasl_username",),
        Count.RECIPIENTS,
        (Window(200, 3600.0), Window(1000, 86400.0)),
        suspend_after=50,
    ),
    Limit("account-first-time", ("sasl_username",), Count.FIRST_TIME, (Window(200, 86400.0),), suspend_after=50),
    Limit("account-surge", ("sasl_username",), Count.FIRST_TIME, (Window(100, 600.0),), suspend_after=20),
)

# By a limit's name or EVERY_LIMIT: what holds in place of its windows; none of them: it is without limit.
Overriding = Mapping[str, tuple[Window, ...]]


@dataclass(frozen=True, slots=True)
class Overrides:
    """Who has limits of their own.

    The most specific one wins: the login's, its class's (one by login before one by domain), its domain's; in each, the one that
    names the limit.
    """

    of_login: Mapping[str, Overriding] = field(default_factory=dict)
    of_class: Mapping[str, Overriding] = field(default_factory=dict)
    of_domain: Mapping[str, Overriding] = field(default_factory=dict)
    class_of_login: Mapping[str, str] = field(default_factory=dict)
    class_of_domain: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether nobody has any."""
        return not (self.of_login or self.of_class or self.of_domain)


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All that the rules of `[policyd]` say."""

    limits: tuple[Limit, ...] = DEFAULT_LIMITS
    overrides: Overrides = Overrides()
    exempt: Match | None = None
    tighten: float = 0.25
    defers_on_store_error: bool = False
    records_correspondents: bool = True


def base_windows(limit: Limit, overrides: Overrides, account: str) -> tuple[Window, ...]:
    """Return what the configuration gives an account, or where the limit counts a domain, its domain; empty: no limit."""
    found: tuple[Window, ...] | None = None
    for overriding in _applicable(limit, overrides, account):
        found = overriding.get(limit.name)
        if found is None and EVERY_LIMIT in overriding:
            found = _of_every_limit(limit, overriding[EVERY_LIMIT])
        if found is not None:
            break
    windows = limit.windows if found is None else found
    if limit.count in OF_ITEMS and any(window.most > MAX_ITEMS for window in windows):
        return tuple(Window(min(window.most, MAX_ITEMS), window.seconds) for window in windows)
    return windows


def _applicable(limit: Limit, overrides: Overrides, account: str) -> list[Overriding]:
    if not (limit.is_of_accounts or "sasl_domain" in limit.per):
        return []
    domain = domain_of_account(account)
    classes = [overrides.class_of_login.get(account, "")] if limit.is_of_accounts else []
    classes.append(overrides.class_of_domain.get(domain, ""))
    found = [overrides.of_login.get(account)] if limit.is_of_accounts else []
    found += [overrides.of_class.get(name) for name in classes]
    found.append(overrides.of_domain.get(domain))
    return [overriding for overriding in found if overriding is not None]


def _of_every_limit(limit: Limit, windows: tuple[Window, ...]) -> tuple[Window, ...] | None:
    """Leave limits of octets alone: a number of messages is none of octets."""
    return None if windows and limit.count is Count.BYTES else windows


def effective_windows(
    limit: Limit, base: tuple[Window, ...], account: Account | None, tighten: float, now: float
) -> tuple[Window, ...]:
    """Return what holds now, of what `base_windows` gave; empty: no limit. `account` None: nothing is known of it."""
    windows = base
    if not windows:
        return windows
    if limit.warm_up is not None:
        windows = _capped(windows, warm_up_allows(limit.warm_up, now))
    if account is None or not limit.is_of_accounts:
        return windows
    for raised in account.raises:
        if _concerns(raised, limit, now):
            windows = _raised(windows, raised, MAX_ITEMS if limit.count in OF_ITEMS else None)
    if account.is_tightened:
        windows = tuple(Window(_part(window.most, tighten), window.seconds) for window in windows)
    return windows


def warm_up_allows(warm_up: WarmUp, now: float) -> int:
    """Return how much a warm-up allows now; before its start, as much as at first.

    >>> [warm_up_allows(WarmUp(0.0, 50, 86400.0), day * 86400.0) for day in (-1, 0, 0.9, 1, 3)]
    [50, 50, 50, 100, 400]
    """
    doublings = math.floor(max(0.0, now - warm_up.start) / warm_up.double_seconds)
    return warm_up.first << min(doublings, _MAX_DOUBLINGS)


@functools.lru_cache(maxsize=256)
def _capped(windows: tuple[Window, ...], most: int) -> tuple[Window, ...]:
    return tuple(Window(min(window.most, most), window.seconds) for window in windows)


def _concerns(raised: Raise, limit: Limit, now: float) -> bool:
    return raised.until > now and is_raise_of(raised, limit.name, limit.count)


def is_raise_of(raised: Raise, name: str, count: Count) -> bool:
    """Say whether a raise is of the limit of that name: the one it names, or any but those of octets."""
    return raised.limit == name if raised.limit else count is not Count.BYTES


def _raised(windows: tuple[Window, ...], raised: Raise, most: int | None) -> tuple[Window, ...]:
    """Give every window of the raise's length and longer at least as much; shorter ones stay."""
    least = raised.most if most is None else min(raised.most, most)
    return tuple(
        Window(max(window.most, least), window.seconds) if window.seconds >= raised.seconds else window
        for window in windows
    )


def _part(most: int, tighten: float) -> int:
    return min(most, max(1, math.floor(most * tighten)))


def misplaced(limits: Sequence[Limit], stages_seen: frozenset[str] | set[str]) -> list[tuple[Limit, str]]:
    """Return the limits that never count, or miss something, where Postfix calls us, each with why.

    `stages_seen` are the protocol_states at which requests came, with "+login" where one came with a login. A limit that cannot
    see what it counts wherever Postfix calls is told even where none has come yet.
    """
    found = []
    for limit in limits:
        why = _why_misplaced(limit, stages_seen)
        if why:
            found.append((limit, why))
    return found


def _why_misplaced(limit: Limit, stages_seen: frozenset[str] | set[str]) -> str:
    if limit.count is Count.BYTES and limit.is_of_recipients:
        return (
            "Postfix tells a message's size at END-OF-MESSAGE, and there no recipient where it has several: it counts"
            " messages to one recipient, and what a client may announce; count messages or recipients, or leave the"
            " recipient out of per and match"
        )
    if not stages_seen:
        return ""
    seen = {stage.removesuffix("+login") for stage in stages_seen if not limit.needs_login or stage.endswith("+login")}
    called_at = f"Postfix calls at {', '.join(sorted(seen))} only"
    if not seen:
        return (
            "it counts what is sent with a login, and no request came with one: call from the submission services, too"
        )
    if not limit.stages & seen:
        return f"it counts at {', '.join(sorted(limit.stages))}, and {called_at}"
    if limit.is_of_recipients and "RCPT" not in seen:
        return f"it sees a recipient of several at RCPT only, and {called_at}"
    if limit.count is Count.BYTES and "END-OF-MESSAGE" not in seen:
        return f"before END-OF-MESSAGE it knows only the size that a client may announce, and {called_at}"
    return ""
