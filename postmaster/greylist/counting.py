"""`stats`: how much greylisting remembers, and how it does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from mailward.model.greylist import RETURN_BUCKET_SECONDS, Orders, ReturnCount
from mailward.policy.returns import ReturnBreaker, rules_for
from postmaster.durations import ago, ahead
from postmaster.greylist.listing import VERSION
from postmaster.greylist.opening import Greylist
from postmaster.greylist.standing import Standing, of_origin, of_triplet
from postmaster.tables import labelled, print_json


@dataclass(slots=True)
class Counted:
    """What was counted; `oldest` 0.0: there is no triplet."""

    triplets: Counter[Standing] = field(default_factory=Counter)
    origins: Counter[Standing] = field(default_factory=Counter)
    correspondents: int = 0
    oldest: float = 0.0


def print_stats(greylist: Greylist, *, is_json: bool) -> None:
    """Count everything and print the numbers."""
    orders, returns = greylist.store.orders(), greylist.store.returns()
    counted = _count(greylist)
    rules = rules_for(greylist.windows)
    expected, returned = settled_returns(returns, greylist.now, rules.patience)
    breaker = ReturnBreaker(rules).step(returns, greylist.now)
    if is_json:
        print_json(
            {
                "version": VERSION,
                "time": greylist.now,
                "off_until": orders.off_until,
                "triplets": {each.value: counted.triplets[each] for each in _TRIPLETS},
                "origins": {each.value: counted.origins[each] for each in _ORIGINS},
                "correspondents": counted.correspondents,
                "entries": {"allow": _allowed(orders), "deny": len(orders.entries) - _allowed(orders)},
                "returns": {
                    "expected": expected,
                    "returned": returned,
                    "rate": returned / expected if expected else None,
                    "breaker": breaker.state,
                },
                "oldest_triplet": counted.oldest or None,
            }
        )
        return
    now, triplets, origins = greylist.now, counted.triplets, counted.origins
    labelled(
        (
            ("greylisting", _state_words(orders, breaker, now)),
            ("triplets", ", ".join(f"{triplets[each]} {each.value}" for each in _TRIPLETS)),
            ("oldest triplet", f"first seen {ago(counted.oldest, now)}" if counted.oldest else "none"),
            ("origins", ", ".join(f"{origins[each]} {each.value}" for each in _ORIGINS)),
            ("correspondents", str(counted.correspondents)),
            ("entries", f"{_allowed(orders)} allow, {len(orders.entries) - _allowed(orders)} deny"),
            ("returns", _return_words(expected, returned)),
        ),
        indent=0,
    )


_TRIPLETS = (Standing.WAITING, Standing.PASSED, Standing.EXPIRED)
_ORIGINS = (Standing.WHITELISTED, Standing.ON_THE_WAY, Standing.EXPIRED)


def settled_returns(returns: Iterable[ReturnCount], now: float, patience: float) -> tuple[int, int]:
    """Return how many returns were expected, and how many came, of those that have had the time to."""
    settled = [each for each in returns if each.start + RETURN_BUCKET_SECONDS + patience <= now]
    return sum(each.expected for each in settled), sum(each.returned for each in settled)


def _count(greylist: Greylist) -> Counted:
    store, now, result = greylist.store, greylist.now, Counted()
    for record in greylist.triplets():
        result.triplets[of_triplet(record, now)] += 1
        if not result.oldest or record.first_seen < result.oldest:
            result.oldest = record.first_seen
    for origin in store.origins():
        result.origins[of_origin(origin, greylist.windows, now)] += 1
    result.correspondents = sum(1 for _, expires in store.correspondents() if expires > now)
    return result


def _state_words(orders: Orders, breaker: ReturnBreaker, now: float) -> str:
    if orders.off_until:
        return f"switched off until {ahead(orders.off_until, now)}"
    return "on" if breaker.is_closed else f"steps aside since {ago(breaker.changed_at, now)}: nobody came back"


def _allowed(orders: Orders) -> int:
    return sum(1 for entry in orders.entries if entry.is_allowed)


def _return_words(expected: int, returned: int) -> str:
    if not expected:
        return "none was expected in the last two days: no origin known to retry was delayed"
    return f"{returned} of {expected} came in the last two days ({returned * 100 // expected} %), of origins known to retry"
