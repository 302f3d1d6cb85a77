"""Which of two records of the same thing is kept: the one that lets more pass. No I/O.

An import never lowers what is known, and never makes anything last longer than if it had been learned here.
"""

from __future__ import annotations

from dataclasses import replace

from mailward.model.greylist import OriginRecord, TripletRecord, Windows

EXPIRED = "expired"
AHEAD = "from the future: see the clock"
CLOCK_SKEW = 60.0  # seconds by which the clock of another machine may be ahead


def usable_triplet(record: TripletRecord, windows: Windows, now: float) -> TripletRecord | str:
    """Return a record from a file as it may be kept, or why not.

    Whether its return was expected is forgotten: that was counted elsewhere.
    """
    if max(record.first_seen, record.passed_at) > now + CLOCK_SKEW:
        return AHEAD
    first_seen, passed_at = min(record.first_seen, now), min(record.passed_at, now)
    longest = now + windows.remember if passed_at else first_seen + windows.retry_window
    expires = min(record.expires, longest)
    if expires <= now:
        return EXPIRED
    return TripletRecord(record.triplet, first_seen, passed_at, expires)


def usable_origin(record: OriginRecord, windows: Windows, now: float) -> OriginRecord | str:
    """Return a record from a file as it may be kept, or why not."""
    if record.counted_at > now + CLOCK_SKEW:
        return AHEAD
    expires = min(record.expires, now + windows.remember)
    if expires <= now:
        return EXPIRED
    return OriginRecord(record.origin, record.passes, min(record.counted_at, now), expires)


def better_triplet(known: TripletRecord | None, offered: TripletRecord, now: float) -> TripletRecord:
    """Return what to keep; `known` itself where nothing is gained."""
    if known is None or known.expires <= now:
        return offered
    if not offered.passed_at:
        # A record whose return is expected stays in the bucket of time in which that was counted.
        if known.passed_at or known.is_expected or known.first_seen <= offered.first_seen:
            return known
        return replace(offered, expires=max(known.expires, offered.expires))
    if not known.passed_at:
        return offered
    return known if known.expires >= offered.expires else replace(known, expires=offered.expires)


def better_origin(known: OriginRecord | None, offered: OriginRecord, now: float) -> OriginRecord:
    """Return what to keep; `known` itself where nothing is gained."""
    if known is None or known.expires <= now:
        return offered
    if known.passes >= offered.passes and known.expires >= offered.expires:
        return known
    return replace(
        known,
        passes=max(known.passes, offered.passes),
        counted_at=max(known.counted_at, offered.counted_at),
        expires=max(known.expires, offered.expires),
    )
