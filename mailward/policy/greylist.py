"""Greylisting decisions (RFC 6647). No I/O: the store and the clock are the caller's.

`sight` is what a sighting does to what is remembered. The stores do it in one atomic step of their own kind (a statement, a
script); this is the definition they are held to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from mailward.model.greylist import (
    RETURN_BUCKET_SECONDS,
    Memory,
    OriginRecord,
    Sighting,
    Triplet,
    TripletRecord,
    Windows,
)

# What passes is remembered anew only where that gains this part of `remember`: who writes daily costs a write a day at most.
REFRESH_PART = 1 / 64

# A return is expected of origins that passed twice (an hour apart), and once in six hours of each: what is concluded from
# returns that do not come (mailward.policy.returns) must not rest on one sender with much mail, nor on a network that has
# a mail server and a bot in it, nor on whoever has retried once for this purpose.
EXPECTED_FROM_PASSES = 2
EXPECTED_INTERVAL = 6 * 3600.0

# How far in the future a first sighting may lie before it means that the clock was set back: two workers that ask at once may
# be served in the other order.
CLOCK_SKEW = 10.0

PASSES = frozenset({Memory.ORIGIN, Memory.CORRESPONDENT, Memory.PASSED, Memory.RETRIED})


@dataclass(frozen=True, slots=True)
class Remembered:
    """What a sighting found or leaves behind; None where nothing is kept."""

    triplet: TripletRecord | None = None
    origin: OriginRecord | None = None


def sight(
    triplet: Triplet, known: Remembered, windows: Windows, now: float, *, is_correspondent: bool = False
) -> tuple[Sighting, Remembered]:
    """Return what a sighting means, and what is remembered from then on.

    `is_correspondent`: somebody here has written to the sender, and SPF vouches for it. The origin is written at a first
    pass (RETRIED), when it is whitelisted and refreshed, and when a return is expected of it (`expected_at`).
    """
    origin = known.origin if known.origin is not None and known.origin.expires > now else None
    if origin is not None and is_whitelisted(origin, windows):
        kept = replace(origin, expires=refreshed(origin.expires, windows, now))
        return Sighting(Memory.ORIGIN, now), Remembered(known.triplet, kept)
    if is_correspondent:
        return Sighting(Memory.CORRESPONDENT, now), known
    is_expected = origin is not None and is_return_expected(origin, now)
    record, memory = _sight_triplet(triplet, known.triplet, windows, now, is_expected=is_expected)
    if memory is Memory.RETRIED:
        origin = count_pass(triplet.origin, origin, windows, now)
    elif origin is not None and expected_in(memory, record) is not None:
        origin = replace(origin, expected_at=now)
    return Sighting(memory, now, record.first_seen), Remembered(record, origin)


def _sight_triplet(
    triplet: Triplet, known: TripletRecord | None, windows: Windows, now: float, *, is_expected: bool
) -> tuple[TripletRecord, Memory]:
    # A first sighting in the future: the clock was set back, and nobody shall wait until it has caught up.
    # What has passed passes on, as would_pass says.
    is_ahead = known is not None and not known.passed_at and known.first_seen - now > CLOCK_SKEW
    if known is None or known.expires <= now or is_ahead:
        memory = Memory.NEW if known is None or known.passed_at else Memory.LATE
        return TripletRecord(triplet, now, 0.0, now + windows.retry_window, is_expected), memory
    if known.passed_at:
        return replace(known, expires=refreshed(known.expires, windows, now)), Memory.PASSED
    if now - known.first_seen < windows.delay:
        return known, Memory.EARLY
    return replace(known, passed_at=now, expires=now + windows.remember), Memory.RETRIED


def count_pass(name: str, origin: OriginRecord | None, windows: Windows, now: float) -> OriginRecord:
    """Count that a triplet of the origin has passed for the first time; `origin` None: it never had, or not lately."""
    if origin is None:
        return OriginRecord(name, 1, now, now + windows.remember)
    # Counted further than that in the future: the clock was set back; what was earned stays.
    if abs(now - origin.counted_at) < windows.pass_interval:
        return replace(origin, expires=now + windows.remember)
    return replace(origin, passes=origin.passes + 1, counted_at=now, expires=now + windows.remember)


def is_return_expected(origin: OriginRecord, now: float) -> bool:
    """Say whether a return is expected for a first sighting now: the origin is known to retry, and none was lately."""
    return origin.passes >= EXPECTED_FROM_PASSES and abs(now - origin.expected_at) >= EXPECTED_INTERVAL


def refreshed(expires: float, windows: Windows, now: float) -> float:
    """Return when what passed again expires."""
    wanted = now + windows.remember
    return wanted if wanted - expires >= windows.remember * REFRESH_PART else expires


def is_whitelisted(origin: OriginRecord, windows: Windows) -> bool:
    """Say whether the origin has passed often enough to pass always."""
    return 0 < windows.passes_to_whitelist <= origin.passes


def would_pass(known: Remembered, windows: Windows, now: float) -> bool:
    """Say whether a sighting would pass by what is remembered; nothing changes."""
    origin, record = known.origin, known.triplet
    if origin is not None and origin.expires > now and is_whitelisted(origin, windows):
        return True
    if record is None or record.expires <= now:
        return False
    return record.passed_at > 0.0 or now - record.first_seen >= windows.delay


def expected_in(memory: Memory, record: TripletRecord) -> float | None:
    """Return the start of the bucket in which one more return is expected after this sighting; None where none is."""
    return bucket_of(record.first_seen) if record.is_expected and memory in (Memory.NEW, Memory.LATE) else None


def returned_in(memory: Memory, record: TripletRecord) -> float | None:
    """Return the start of the bucket whose expected return this sighting is; None where it is none."""
    return bucket_of(record.first_seen) if record.is_expected and memory is Memory.RETRIED else None


def bucket_of(moment: float) -> float:
    """Return the start of a moment's bucket.

    >>> bucket_of(1234.5)
    1200.0
    """
    return moment // RETURN_BUCKET_SECONDS * RETURN_BUCKET_SECONDS


def seconds_left(sighting: Sighting, windows: Windows) -> int:
    """Return how long a deferred triplet has still to wait, in whole seconds, at least 1; 0 where it passes.

    >>> seconds_left(Sighting(Memory.EARLY, now=1010.4, first_seen=1000.0), Windows(delay=60))
    50
    """
    if sighting.memory in PASSES:
        return 0
    return max(1, math.ceil(sighting.first_seen + windows.delay - sighting.now))
