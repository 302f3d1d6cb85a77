"""What a charge does to a counter: the one definition that every store is held to. Pure.

A window is a ring of buckets, a thirtieth of it each, whose oldest counts in full until it has left: no window of that length
ever holds more than its limit, and what was charged clears between one window and one window and a thirtieth later.

FIRST_TIME and DISTINCT compare four octets of a digest for each item: of 2,048 that are remembered, one in two million that are
not is taken for one of them. A set of known items has room for 2,048; the one that was added first makes room for the next,
and is new again when it comes back. DISTINCT is exact up to 2,048 different items; where a clock is set back, an item that had
left its window may be back in it, one too many.
"""

from __future__ import annotations

import hashlib
import math
import struct
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

from mailward.model.limits import KNOWN, Charge, Charging, CounterKey, Force, Kind, Outcome, Reading, Window

BUCKETS = 30  # of a window, and one that leaves
MAX_ITEMS = 2048  # that a set remembers; no limit of DISTINCT or FIRST_TIME may be above
ITEM_OCTETS = 4
KNOWN_SECONDS = 180 * 86400.0  # an owner whose set gets nothing new for so long starts over

MAX_AMOUNT = 2**53 - 1  # a bucket's: what a double holds exactly, which is what Redis's scripts count in

_ENTRY = struct.Struct("<4sI")  # of DISTINCT: the item, and the second after which it was seen last


@dataclass(frozen=True, slots=True)
class Kept:
    """A counter's new value, and when it may be forgotten (seconds since the epoch)."""

    value: bytes
    expires: float


def item_of(text: str) -> bytes:
    """Return what stands for an item of a set: 4 octets.

    >>> len(item_of("bob@example.org"))
    4
    """
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=ITEM_OCTETS).digest()


def counters_of(charging: Charging) -> list[CounterKey]:
    """Return every counter that a request reads: those charged, and the sets of known items."""
    keys = [charge.key for charge in charging.charges]
    keys += dict.fromkeys(known_of(charge.key) for charge in charging.charges if charge.kind is Kind.FIRST_TIME)
    return keys


def known_of(key: CounterKey) -> CounterKey:
    """Return where the items are kept that the counter's owner knows: all its limits share them."""
    return CounterKey(key.owner, KNOWN, key.rest)


def charge(
    charging: Charging, values: Mapping[CounterKey, bytes], now: float
) -> tuple[Outcome, dict[CounterKey, Kept]]:
    """Return what becomes of a request, and the counters it changes. `values` has what is kept of counters_of(charging).

    Where a clock has been set back, a counter that is over changes although nothing is charged: it is dated back, once. Were it
    not, it would be as of now at every request, and would never clear.
    """
    readings: list[Reading] = []
    changes: dict[CounterKey, Kept] = {}
    dated_back: dict[CounterKey, Kept] = {}
    is_charged = True
    for one in charging.charges:
        reading, kept = _charge_one(one, values, now)
        readings.append(reading)
        if reading.is_over and one.force is not Force.FORCED:
            is_charged = is_charged and one.force is not Force.ENFORCED
            if _is_ahead(one, values.get(one.key, b""), now):
                dated_back[one.key] = kept[one.key]
        elif one.cost:
            changes.update(kept)
    return Outcome(is_charged, tuple(readings)), {**changes, **dated_back} if is_charged else dated_back


def _charge_one(one: Charge, values: Mapping[CounterKey, bytes], now: float) -> tuple[Reading, dict[CounterKey, Kept]]:
    value = values.get(one.key, b"")
    if one.kind is Kind.DISTINCT:
        return _charge_distinct(one, value, now)
    if one.kind is Kind.AMOUNT:
        reading, kept = _charge_amount(one, value, now, one.cost)
        return reading, {one.key: kept}
    known_key = known_of(one.key)
    known = values.get(known_key, b"")
    if is_known(known, one.item):
        reading, _ = _charge_amount(one, value, now, 0)
        return Reading(reading.totals, is_known=True), {}
    reading, kept = _charge_amount(one, value, now, one.cost)
    added = (known + one.item)[-MAX_ITEMS * ITEM_OCTETS :]
    changes = {known_key: Kept(added, now + KNOWN_SECONDS)}
    if one.windows:
        changes[one.key] = kept
    return reading, changes


def _is_ahead(one: Charge, value: bytes, now: float) -> bool:
    """Say whether something was counted by a clock that was ahead."""
    if one.kind is Kind.DISTINCT:
        return any(at > math.ceil(now) for _, at in _entries_of(value))
    rings = rings_of(value)
    kept = ((window, rings.get(window.seconds)) for window in one.windows)
    return any(ring and ring[-1][0] > _bucket(window, now) for window, ring in kept)


def is_known(known: bytes, item: bytes) -> bool:
    """Say whether a set of known items has this one."""
    at = known.find(item)
    while at > 0 and at % ITEM_OCTETS:
        at = known.find(item, at + 1)
    return at >= 0


# ---- amounts: for each window `seconds, number of buckets, (bucket, amount)...`, all of them doubles, the oldest first ----

_Ring = tuple[tuple[float, float], ...]


def _charge_amount(one: Charge, value: bytes, now: float, cost: int) -> tuple[Reading, Kept]:
    kept = rings_of(value)
    rings = [_in_window(kept.get(window.seconds, ()), window, now) for window in one.windows]
    totals = [sum(amount for _, amount in ring) for ring in rings]
    is_over, clears_in = False, 0.0
    for window, ring, total in zip(one.windows, rings, totals, strict=True):
        if cost and total + cost > window.most:
            is_over = True
            clears_in = max(clears_in, _clears_at(ring, window, total + cost - window.most) - now)
    if cost and (not is_over or one.force is Force.FORCED):
        rings = [_added(ring, window, cost, now) for window, ring in zip(one.windows, rings, strict=True)]
        totals = [total + cost for total in totals]
    reading = Reading(tuple(int(total) for total in totals), is_over, clears_in)
    return reading, Kept(_packed(one.windows, rings), _expires(one.windows, rings, now))


def rings_of(value: bytes) -> dict[float, _Ring]:
    """Return a counter's rings, (bucket, amount) the oldest first, by their windows' seconds; none, of what is no counter."""
    numbers = struct.unpack(f"<{len(value) // 8}d", value[: len(value) // 8 * 8])
    rings: dict[float, _Ring] = {}
    if not math.isfinite(sum(numbers)):
        return rings
    at = 0
    while at + 1 < len(numbers):
        seconds, length = numbers[at], numbers[at + 1]
        if not 0 <= length <= BUCKETS + 1:
            break
        end = at + 2 + 2 * int(length)
        rings[seconds] = tuple(zip(numbers[at + 2 : end : 2], numbers[at + 3 : end : 2], strict=False))
        at = end
    return rings


def _in_window(ring: _Ring, window: Window, now: float) -> _Ring:
    """Return the buckets that count. What a clock has counted that was ahead counts as of now."""
    newest = _bucket(window, now)
    if ring and ring[-1][0] > newest:
        ahead = sum(amount for bucket, amount in ring if bucket >= newest)
        ring = (*(pair for pair in ring if pair[0] < newest), (newest, ahead))
    if ring and ring[0][0] < newest - BUCKETS:
        return tuple(pair for pair in ring if pair[0] >= newest - BUCKETS)
    return ring


def _bucket(window: Window, now: float) -> int:
    return math.floor(now / (window.seconds / BUCKETS))


def _added(ring: _Ring, window: Window, cost: int, now: float) -> _Ring:
    newest = _bucket(window, now)
    if ring and ring[-1][0] == newest:
        return (*ring[:-1], (newest, min(ring[-1][1] + cost, MAX_AMOUNT)))
    return (*ring, (newest, min(cost, MAX_AMOUNT)))


def _clears_at(ring: _Ring, window: Window, excess: float) -> float:
    """Return when so much will have left; never, where not that much is there."""
    for (bucket, _), freed in zip(ring, accumulate(amount for _, amount in ring), strict=True):
        if freed >= excess:
            return _leaves_at(bucket, window)
    return math.inf


def _leaves_at(bucket: float, window: Window) -> float:
    return (bucket + BUCKETS + 1) * (window.seconds / BUCKETS)


def _packed(windows: tuple[Window, ...], rings: list[_Ring]) -> bytes:
    numbers: list[float] = []
    for window, ring in zip(windows, rings, strict=True):
        numbers += (window.seconds, len(ring))
        for pair in ring:
            numbers += pair
    return struct.pack(f"<{len(numbers)}d", *numbers)


def _expires(windows: tuple[Window, ...], rings: list[_Ring], now: float) -> float:
    return max([now, *(_leaves_at(ring[-1][0], window) for window, ring in zip(windows, rings, strict=True) if ring)])


# ---- different items: the item and the second it was seen last, the oldest first ----


def _charge_distinct(one: Charge, value: bytes, now: float) -> tuple[Reading, dict[CounterKey, Kept]]:
    second, longest = math.ceil(now), max((window.seconds for window in one.windows), default=0.0)
    seen = {item: min(at, second) for item, at in _entries_of(value) if at > now - longest}
    times, last_seen = sorted(seen.values()), seen.get(one.item)
    totals, is_over, clears_in = [], False, 0.0
    is_new_in = [last_seen is None or last_seen <= now - window.seconds for window in one.windows]
    for window, is_new in zip(one.windows, is_new_in, strict=True):
        first = bisect_right(times, now - window.seconds)
        totals.append(len(times) - first)
        if one.cost and is_new and totals[-1] + 1 > window.most:
            leaving = first + totals[-1] - window.most  # the position of the one that must have left
            is_over = True
            clears_in = max(clears_in, times[leaving] + window.seconds - now if window.most else math.inf)
    if one.cost and (not is_over or one.force is Force.FORCED):
        totals = [total + is_new for total, is_new in zip(totals, is_new_in, strict=True)]
        seen.pop(one.item, None)
        seen[one.item] = second
    reading = Reading(tuple(totals), is_over, clears_in, is_known=last_seen is not None)
    kept = b"".join(_ENTRY.pack(*pair) for pair in list(seen.items())[-MAX_ITEMS:])
    return reading, {one.key: Kept(kept, second + longest)}


def _entries_of(value: bytes) -> Iterator[tuple[bytes, int]]:
    return _ENTRY.iter_unpack(value[: len(value) // _ENTRY.size * _ENTRY.size])
