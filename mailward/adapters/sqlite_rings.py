"""How SQLite keeps a counter: a few octets in place of mailward.policy.ratelimit's many, and charged without unpacking them.

What is kept begins with one octet. 0: a value as mailward.policy.ratelimit makes it follows. 1 to 4: so many windows follow,
seventeen octets each, and after those of all windows their older buckets, five octets each, the oldest first:

    seconds, newest bucket, amount of all buckets, amount of the older ones; how many older ones   (4 times 4 octets, and 1)
    lowest octet of the bucket's number, amount                                                    (1 and 4 octets)

That is a third of the definition's octets; and a charge to the bucket that is there changes numbers in one place, whatever
there is behind them: 4 us for two windows, where the definition takes 12 to 16. What does not fit (amounts above four
thousand million, windows of less than some seconds) is kept and charged as the definition does it, and so is what seldom
comes: other windows than before, a clock that was set back.
"""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Iterator, Mapping
from struct import Struct

from mailward.model.limits import Charge, Force, Reading
from mailward.policy.ratelimit import BUCKETS, rings_of

PLAIN = b"\0"
MOST_WINDOWS = 4  # of a limit that is kept in this way

_HEADERS = [Struct("<B" + "IIIIB" * windows) for windows in range(MOST_WINDOWS + 1)]
_OLDER = Struct("<BI")
_PLAIN = Struct("<d")

Charged = tuple[Reading, bytes, float]  # what is kept afterwards, and until when; nothing where nothing is charged


def charged(one: Charge, kept: bytes, now: float, cost: int) -> Charged | None:
    """Charge one counter of amounts; None, or struct.error, where the definition has to do it."""
    windows = one.windows
    count = len(windows)
    if (kept and kept[0] != count) or not 0 < count <= MOST_WINDOWS:
        return None
    header = _HEADERS[count]
    fields = header.unpack_from(kept) if kept else _empty(one)
    is_over, clears_in, ends, at, first = False, 0.0, now, header.size, 1
    totals, numbers, tails = list[int](), [count], list[bytes]()
    for window in windows:
        seconds, newest, total, older, length = fields[first : first + 5]
        width = window.seconds / BUCKETS
        bucket = math.floor(now / width)
        if seconds != window.seconds or bucket < newest:
            return None
        tail = kept[at : at + _OLDER.size * length]
        at += len(tail)
        first += 5
        if bucket != newest:
            tail, older = _advanced(tail, newest, total - older, older, bucket)
            total = older
        after = total + cost
        if cost and after > window.most:
            is_over = True
            clears_in = max(clears_in, _clears_at(tail, bucket, total - older, width, after - window.most) - now)
        totals.append(after)
        numbers += (seconds, bucket, after, older, len(tail) // _OLDER.size)
        tails.append(tail)
        ends = max(ends, (bucket + BUCKETS + 1) * width)
    if is_over and one.force is not Force.FORCED:
        return Reading(tuple([after - cost for after in totals]), is_over, clears_in), b"", 0.0
    if not cost:
        return Reading(tuple(totals)), b"", 0.0
    return Reading(tuple(totals), is_over, clears_in), header.pack(*numbers) + b"".join(tails), ends


def _empty(one: Charge) -> tuple[int, ...]:
    """Return the numbers of a counter that nothing was charged to."""
    return (len(one.windows), *(number for window in one.windows for number in (int(window.seconds), 0, 0, 0, 0)))


def _advanced(tail: bytes, newest: int, amount: int, older: int, bucket: int) -> tuple[bytes, int]:
    """Return the older buckets and their amount, now that what was the newest is one of them."""
    if bucket - newest > BUCKETS:
        return b"", 0
    if amount:
        tail += _OLDER.pack(newest & 255, amount)
        older += amount
    gone = 0
    while gone < len(tail):
        octet, amount = _OLDER.unpack_from(tail, gone)
        if (bucket - octet) & 255 <= BUCKETS:
            break
        older -= amount
        gone += _OLDER.size
    return tail[gone:], older


def _clears_at(tail: bytes, newest: int, amount: int, width: float, excess: int) -> float:
    """Return when so much will have left; never, where not that much is there."""
    freed = 0
    for bucket, each in _buckets(tail, newest, amount):
        freed += each
        if freed >= excess:
            return (bucket + BUCKETS + 1) * width
    return math.inf


def _buckets(tail: bytes, newest: int, amount: int) -> Iterator[tuple[int, int]]:
    for octet, each in _OLDER.iter_unpack(tail):
        yield newest - (newest - octet & 255), each
    if amount:
        yield newest, amount


def packed(value: bytes) -> bytes:
    """Return how a counter of amounts is kept that the definition has made: as ours, where that says the same."""
    rings = rings_of(value)
    if 0 < len(rings) <= MOST_WINDOWS and all(rings.values()):
        with contextlib.suppress(struct.error, OverflowError):
            kept = _packed(rings)
            if value_of(kept) == value:
                return kept
    return PLAIN + value


def _packed(rings: Mapping[float, tuple[tuple[float, float], ...]]) -> bytes:
    numbers, tails = [len(rings)], list[bytes]()
    for seconds, ring in rings.items():
        total, newest = int(sum(amount for _, amount in ring)), ring[-1]
        numbers += (int(seconds), int(newest[0]), total, total - int(newest[1]), len(ring) - 1)
        tails += [_OLDER.pack(int(bucket) & 255, int(amount)) for bucket, amount in ring[:-1]]
    return _HEADERS[len(rings)].pack(*numbers) + b"".join(tails)


def value_of(kept: bytes) -> bytes:
    """Return what the definition knows of what is kept; nothing, where that is not ours."""
    if not kept or not 0 < kept[0] <= MOST_WINDOWS:
        return kept[1:]
    header = _HEADERS[kept[0]]
    if len(kept) < header.size:
        return b""
    fields, at, numbers = header.unpack_from(kept), header.size, list[float]()
    for first in range(1, len(fields), 5):
        seconds, newest, total, older, length = fields[first : first + 5]
        tail = kept[at : at + _OLDER.size * length]
        at += len(tail)
        ring = list(_buckets(tail[: len(tail) // _OLDER.size * _OLDER.size], newest, total - older))
        numbers += (seconds, len(ring), *(number for pair in ring for number in pair))
    return b"".join(map(_PLAIN.pack, numbers))
