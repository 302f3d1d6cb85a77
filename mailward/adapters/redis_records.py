"""How greylisting's memory lies in Redis: keys and values; mailward.adapters.redis_scripts changes them in one step.

All keys of one origin have its hash tag, so that a cluster keeps them on one node and one script may touch them together.
Parts are separated by spaces; one inside a part is escaped. Values are packed doubles: a number that leaves a script loses its
fraction, and one that becomes a text its last digits.

    mailward:{=ORIGIN} o                     passes, counted_at, expires, expected_at
    mailward:{=ORIGIN} t MAIL_FROM RCPT_TO   first_seen, passed_at, expires, is_expected
    mailward:{=DOMAIN} c ADDRESS             expires, of a correspondent in that domain
    mailward:{returns}                       a hash: `START` expected, `START r` returned
    mailward:{orders}                        a hash: `off` until when, `KIND SUBJECT` as JSON
"""

from __future__ import annotations

import functools
import json
import math
import re
import struct
from collections.abc import Mapping

from mailward.adapters.redis_finders import encode
from mailward.adapters.redis_link import Reply
from mailward.model.errors import StoreError, StoreFailure
from mailward.model.greylist import (
    Entry,
    EntryKind,
    Memory,
    OriginRecord,
    ReturnCount,
    Sighting,
    Triplet,
    TripletRecord,
    Windows,
)

RETURNS, ORDERS, OFF = "mailward:{returns}", "mailward:{orders}", b"off"
EVERYTHING = "mailward:{=*"
ALL_TRIPLETS, ALL_ORIGINS, ALL_CORRESPONDENTS = "mailward:{=*} t *", "mailward:{=*} o", "mailward:{=*} c *"

# What never passed is kept that much longer than it counts: a retry that comes too late is told from a first try.
LATE_SECONDS = 6 * 3600.0
LAST_MOMENT = 253_402_300_799.0  # of the year 9999; no date is later
MAX_TTL = 100 * 366 * 86400.0  # Redis refuses what overflows its clock

_DOUBLE = struct.Struct("<d")
_WINDOWS = struct.Struct("<ddddd")
_ORIGIN = struct.Struct("<dddd")
_TRIPLET = struct.Struct("<dddB")
_SIGHTED = struct.Struct("<BBdd")
_MEMORIES = tuple(Memory)
_WHOLE = re.compile(rb"-?[0-9]{1,15}")


# "=" keeps a tag from being empty: Redis would hash the whole key then, and each key of the origin would go its own way.
def _key(tag: str, kind: str, *parts: str) -> str:
    return " ".join((f"mailward:{{={_escape(tag)}}}", kind, *map(_escape, parts)))


def _escape(part: str) -> str:
    return part.replace("%", "%25").replace(" ", "%20")


def _unescape(part: str) -> str:
    return part.replace("%20", " ").replace("%25", "%")


def origin_key(origin: str) -> str:
    """Return the key of what an origin has earned."""
    return _key(origin, "o")


def triplet_key(triplet: Triplet) -> str:
    """Return a triplet's key.

    >>> triplet_key(Triplet("192.0.2.0/24", "alice@example.com", "bob@example.org"))
    'mailward:{=192.0.2.0/24} t alice@example.com bob@example.org'
    """
    return _key(triplet.origin, "t", triplet.mail_from, triplet.rcpt_to)


def correspondent_key(address: str) -> str:
    """Return a correspondent's key, on the node of its domain, which is the origin of its mail where SPF vouches for it."""
    return _key(domain_of(address), "c", address)


def domain_of(address: str) -> str:
    """Return the domain of an address; empty for the null sender."""
    return address.rpartition("@")[2]


def probe_keys(number: int) -> list[str]:
    """Return keys that nobody reads, in place of an origin's and a triplet's; each number's may lie on another node."""
    return [_key(f"probe-{number}", "p"), _key(f"probe-{number}", "p", "t")]


def pack_now(now: float | None) -> bytes:
    """Return the time for a script; nothing is the server's own."""
    return b"" if now is None else _DOUBLE.pack(now)


@functools.lru_cache(maxsize=16)
def pack_windows(windows: Windows) -> bytes:
    """Return the windows for the script."""
    return _WINDOWS.pack(
        windows.delay, windows.retry_window, windows.remember, windows.passes_to_whitelist, windows.pass_interval
    )


def unpack_sighting(reply: Reply) -> tuple[Sighting, bool]:
    """Return what the script said, and whether the triplet's return is, or was, expected."""
    if not isinstance(reply, bytes) or len(reply) != _SIGHTED.size:
        raise StoreError(StoreFailure.OTHER, "what answers is no Redis")
    memory, is_expected, now, first_seen = _SIGHTED.unpack(reply)
    return Sighting(_MEMORIES[memory], now, first_seen), bool(is_expected)


def pack_triplet(record: TripletRecord) -> bytes:
    """Return a triplet's value."""
    return _TRIPLET.pack(record.first_seen, record.passed_at, record.expires, record.is_expected)


def kept_seconds(expires: float, now: float) -> float:
    """Return how long what is written as it is stays; what has expired can be listed for a while, too."""
    return max(0.0, expires - now) + LATE_SECONDS


def unpack_triplet(triplet: Triplet, value: bytes | None) -> TripletRecord | None:
    """Return what is kept of a triplet; None where that is nothing, or nothing of ours."""
    if value is None or len(value) != _TRIPLET.size:
        return None
    first_seen, passed_at, expires, is_expected = _TRIPLET.unpack(value)
    return TripletRecord(triplet, first_seen, passed_at, expires, bool(is_expected))


def pack_origin(record: OriginRecord) -> bytes:
    """Return an origin's value."""
    return _ORIGIN.pack(record.passes, record.counted_at, record.expires, record.expected_at)


def unpack_origin(origin: str, value: bytes | None) -> OriginRecord | None:
    """Return what is kept of an origin; None as above."""
    if value is None or len(value) != _ORIGIN.size:
        return None
    passes, counted_at, expires, expected_at = _ORIGIN.unpack(value)
    return OriginRecord(origin, int(passes), counted_at, expires, expected_at) if math.isfinite(passes) else None


def pack_double(number: float) -> bytes:
    """Return a time or a lifetime as it is kept."""
    return _DOUBLE.pack(number)


def unpack_double(value: bytes | None) -> float | None:
    """Return a time; None as above."""
    return _DOUBLE.unpack(value)[0] if value is not None and len(value) == _DOUBLE.size else None


def is_moment(number: float) -> bool:
    """Say whether a number can be a time, which programs may have to write as a date."""
    return 0.0 <= number <= LAST_MOMENT


def read_key(key: bytes) -> tuple[str, list[str]]:
    """Return a key's tag and its parts behind the kind.

    >>> read_key(b"mailward:{=192.0.2.0/24} t  bob@example.org")
    ('192.0.2.0/24', ['', 'bob@example.org'])
    """
    first, _, *parts = key.decode("utf-8", "surrogateescape").split(" ")
    return _unescape(first.removeprefix("mailward:{=").removesuffix("}")), [_unescape(part) for part in parts]


def unpack_hash(reply: Reply) -> dict[bytes, bytes]:
    """Return the fields of a hash."""
    if not isinstance(reply, list) or len(reply) % 2 or not all(isinstance(part, bytes) for part in reply):
        raise StoreError(StoreFailure.OTHER, "what answers is no Redis")
    return dict(zip(reply[::2], reply[1::2], strict=True))


def unpack_return(name: bytes, fields: Mapping[bytes, bytes]) -> ReturnCount | None:
    """Return the count of the bucket whose start is a field's name; None for the other fields, and what is none of ours."""
    counts = (name, fields[name], fields.get(name + b" r", b"0"))
    if not all(_WHOLE.fullmatch(count) for count in counts):
        return None
    start, expected, returned = map(int, counts)
    return ReturnCount(float(start), expected, returned)


def expires_of(key: bytes, value: bytes) -> float:
    """Return when what lies there expires; never for what is none of ours."""
    kind = key.split(b" ")[1:2]
    packed = {b"t": _TRIPLET, b"o": _ORIGIN, b"c": _DOUBLE}.get(kind[0] if kind else b"")
    if packed is None or len(value) != packed.size:
        return math.inf
    numbers = packed.unpack(value)
    expires: float = numbers[0] if packed is _DOUBLE else numbers[2]
    return expires


def milliseconds(seconds: float) -> int:
    """Return a lifetime as PX takes it: whole, and at least one.

    >>> milliseconds(0.0001), milliseconds(-5), milliseconds(2.0)
    (1, 1, 2000)
    """
    return max(1, math.ceil(min(seconds, MAX_TTL) * 1000))


def entry_field(entry: Entry) -> bytes:
    """Return the field of an entry of the operator's."""
    return encode(f"{entry.kind.value} {entry.subject}")


def pack_entry(entry: Entry) -> bytes:
    """Return an entry's value."""
    values = {"allow": entry.is_allowed, "added_at": entry.added_at, "until": entry.until, "note": entry.note}
    return json.dumps(values).encode()


def unpack_entry(name: bytes, value: bytes) -> Entry | None:
    """Return an entry; None for what is none of ours."""
    try:
        kind, _, subject = name.decode().partition(" ")
        values = json.loads(value)
        added_at, until = float(values["added_at"]), float(values["until"])
        if not (is_moment(added_at) and is_moment(until)):
            return None
        return Entry(EntryKind(kind), subject, bool(values["allow"]), added_at, until, str(values["note"]))
    except (ArithmeticError, ValueError, KeyError, TypeError, RecursionError):
        return None
