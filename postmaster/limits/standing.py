"""How an account's counters stand: what is used of what is allowed, and when more is. No I/O.

A counter is read by a charge that costs nothing, so that there is one definition of what is in a window.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mailward.model.limits import KNOWN, Charge, Charging, CounterKey, CounterRecord, Force, Kind, Reading, Window
from mailward.policy import ratelimit
from mailward.policy.logins import FAILURES, NETWORKS, LoginRules
from postmaster.limits.allowances import Allowance

SASL_USERNAME = "sasl_username="


@dataclass(frozen=True, slots=True)
class Gauge:
    """How one window of one counter stands.

    `owner` and `rest` are of what it is; `usual` is allowed where nothing is raised or tightened. `clears_in`: after how many
    seconds one more is allowed: 0 at once, infinite never.
    """

    limit: str
    count: str
    owner: str
    rest: str
    seconds: float
    used: int
    allowed: int
    usual: int
    clears_in: float

    @property
    def fraction(self) -> float:
        """How much of what is allowed is used; where nothing is allowed, all of it."""
        return _fraction(self.used, self.allowed)


def owners_of(account: str) -> tuple[str, str]:
    """Return whose counters are an account's: of what it sends, and of how it logs in."""
    return SASL_USERNAME + account, login_owner(account)


def login_owner(account: str) -> str:
    """Return whose counters those of its logins are."""
    return f"login={account}"


def gauges(allowances: Iterable[Allowance], records: Iterable[CounterRecord], now: float) -> list[Gauge]:
    """Return how each window of each limit stands, those that have counted nothing too."""
    found: dict[tuple[str, str], list[tuple[CounterKey, bytes]]] = {}
    for record in records:
        value = record.value if record.expires > now else b""
        found.setdefault((record.key.owner, record.key.limit), []).append((record.key, value))
    return [
        gauge
        for allowance in allowances
        for key, value in found.get((allowance.owner, allowance.limit))
        or [(CounterKey(allowance.owner, allowance.limit), b"")]
        for gauge in _read(allowance, key, value, now)
    ]


def _read(allowance: Allowance, key: CounterKey, value: bytes, now: float) -> Iterator[Gauge]:
    kind = _kept_as(allowance)
    for window, usual in zip(allowance.windows, allowance.usual, strict=True):
        total, clears_in = _asked(key, window, kind, value, now)
        yield Gauge(
            allowance.limit,
            allowance.count,
            key.owner,
            key.rest,
            window.seconds,
            total,
            window.most,
            usual.most,
            clears_in,
        )


def fullness(allowance: Allowance, record: CounterRecord, now: float) -> float:
    """Return how much is used of the fullest window of a counter: quickly, for it is asked of each of a million."""
    if not allowance.windows:
        return 0.0
    charge = Charge(record.key, allowance.windows, 0, _kept_as(allowance))
    outcome, _ = ratelimit.charge(Charging((charge,)), {record.key: record.value}, now)
    pairs = zip(outcome.readings[0].totals, allowance.windows, strict=True)
    return max((_fraction(total, window.most) for total, window in pairs), default=0.0)


def login_gauges(account: str, rules: LoginRules, records: Iterable[CounterRecord], now: float) -> list[Gauge]:
    """Return how the counters of an account's logins stand, those that hold something."""
    owner, found = login_owner(account), []
    for record in records:
        key = record.key
        windows = _login_windows(key, rules)
        if key.owner == owner and windows and record.expires > now:
            count = "networks" if key.limit == NETWORKS else "wrong passwords"
            allowance = Allowance(key.limit, count, Kind.DISTINCT, owner, windows, windows)
            found += list(_read(allowance, key, record.value, now))
    return found


def _login_windows(key: CounterKey, rules: LoginRules) -> tuple[Window, ...]:
    if key.limit == NETWORKS:
        return rules.networks
    if key.limit == FAILURES:
        return rules.failures if key.rest else rules.login_failures
    return ()


def known_recipients(account: str, records: Iterable[CounterRecord]) -> int:
    """Return how many recipients the account is known to write to."""
    owner = SASL_USERNAME + account
    sets = [record for record in records if record.key.owner == owner and record.key.limit == KNOWN]
    return sum(len(record.value) // ratelimit.ITEM_OCTETS for record in sets)


def _fraction(used: float, allowed: float) -> float:
    return used / allowed if allowed > 0 else 1.0


def _kept_as(allowance: Allowance) -> Kind:
    """Return as what a counter can be read: first times are amounts like any other, their items are kept elsewhere."""
    return Kind.DISTINCT if allowance.kind is Kind.DISTINCT else Kind.AMOUNT


def _asked(key: CounterKey, window: Window, kind: Kind, value: bytes, now: float) -> tuple[int, float]:
    """Return how much is in a window, and in how many seconds one more would be allowed."""

    def ask(cost: int) -> Reading:
        # An item of no octets is none of those that were counted.
        charge = Charge(key, (window,), cost, kind, b"", Force.SHADOW)
        outcome, _ = ratelimit.charge(Charging((charge,)), {key: value}, now)
        return outcome.readings[0]

    return ask(0).totals[0], ask(1).clears_in
