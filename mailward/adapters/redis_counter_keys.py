"""How limits lie in Redis: keys, and what the scripts of mailward.adapters.redis_counter_scripts are told and say.

All keys of one owner have its hash tag, so that a cluster keeps them on one node and one script may change them together.
Parts are separated by spaces; one inside a part is escaped. A counter is `expires`, a packed double, and behind it what
mailward.policy.ratelimit has made. The queue ids of an account lie where the counters of its logins do.

    mailward:limits:{=OWNER} c    a hash: `LIMIT` or `LIMIT REST`, a counter
    mailward:limits:{=OWNER} x    a sorted set: those of its fields that have a REST, by when they expire
    mailward:limits:{=OWNER} k    a hash: `` or `REST`, the items the owner knows
    mailward:limits:{=OWNER} y    a sorted set, likewise
    mailward:limits:{=OWNER} s    a sorted set: queue ids by when they were handed over
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from mailward.adapters.redis_finders import encode
from mailward.adapters.redis_link import Reply
from mailward.model.errors import StoreError, StoreFailure
from mailward.model.limits import KNOWN, Charge, CounterKey, CounterRecord, Force, Kind, Outcome, Reading, Window

COUNTERS, COUNTERS_BY_TIME, ITEMS, ITEMS_BY_TIME, QUEUE_IDS = "c", "x", "k", "y", "s"
ALL_COUNTERS = "mailward:limits:{=*} c"
ALL_HASHES = "mailward:limits:{=*} [ck]"

MAX_EXACT = 2**53  # beyond it a double skips whole numbers; nobody sends so much within a window

_DOUBLE = struct.Struct("<d")
_PLACES = struct.Struct("<HHHH")
_SAID = struct.Struct("<Bd")
_KINDS = {kind: number for number, kind in enumerate((Kind.AMOUNT, Kind.FIRST_TIME, Kind.DISTINCT))}
_FORCES = {force: number for number, force in enumerate((Force.ENFORCED, Force.SHADOW, Force.FORCED))}


@dataclass(frozen=True, slots=True)
class Said:
    """What a script has answered: by which time it has counted, and what became of the charges."""

    now: float
    outcome: Outcome


# "=" keeps a tag from being empty: Redis would hash the whole key then, and each key of the owner would go its own way.
def key_of(owner: str, kind: str) -> str:
    """Return one of an owner's keys.

    >>> key_of("client_address=192.0.2.1", COUNTERS)
    'mailward:limits:{=client_address=192.0.2.1} c'
    """
    return f"mailward:limits:{{={_escape(owner)}}} {kind}"


def sent_key(account: str) -> str:
    """Return where an account's queue ids are."""
    return key_of(f"sasl_username={account}", QUEUE_IDS)


def probe_keys(number: int) -> list[str]:
    """Return a key that nobody reads, in place of an owner's counters; each number's may lie on another node."""
    return [key_of(f"probe-{number}", "p")]


def field_of(key: CounterKey) -> bytes:
    """Return a counter's field in its owner's hash.

    >>> field_of(CounterKey("all", "per domain", "recipient_domain=example.org"))
    b'per%20domain recipient_domain=example.org'
    """
    return encode(f"{_escape(key.limit)} {_escape(key.rest)}" if key.rest else _escape(key.limit))


def _escape(part: str) -> str:
    return part.replace("%", "%25").replace(" ", "%20") if " " in part or "%" in part else part


def _unescape(part: str) -> str:
    return part.replace("%20", " ").replace("%25", "%")


def owner_of(key: bytes) -> str:
    """Return whose key it is."""
    tag = text_of(key).rpartition(" ")[0]
    return _unescape(tag.removeprefix("mailward:limits:{=").removesuffix("}"))


def read_counter(owner: str, field: bytes, value: bytes) -> CounterRecord | None:
    """Return what lies in a field of an owner's counters; None for what is none of ours."""
    limit, _, rest = text_of(field).partition(" ")
    return _record(CounterKey(owner, _unescape(limit), _unescape(rest)), value)


def read_items(owner: str, field: bytes, value: bytes) -> CounterRecord | None:
    """Return what lies in a field of the items an owner knows; None likewise."""
    return _record(CounterKey(owner, KNOWN, _unescape(text_of(field))), value)


def _record(key: CounterKey, value: bytes) -> CounterRecord | None:
    if len(value) < _DOUBLE.size:
        return None
    return CounterRecord(key, value[_DOUBLE.size :], _DOUBLE.unpack_from(value)[0])


def text_of(octets: bytes) -> str:
    """Return as text what mailward.adapters.redis_finders.encode has made; what is none of ours, with marks in it."""
    try:
        return octets.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return octets.decode("utf-8", "replace")


def pack_now(now: float | None) -> bytes:
    """Return the time for a script; nothing is the server's own."""
    return b"" if now is None else _DOUBLE.pack(now)


def pack_charges(charges: Sequence[Charge]) -> tuple[list[str], list[bytes]]:
    """Return the keys that charges need, each once, and what a script is told of each: field, numbers, item."""
    places: dict[str, int] = {}

    def place(key: CounterKey, kind: str) -> int:
        return places.setdefault(key_of(key.owner, kind), len(places) + 1)

    told: list[bytes] = []
    for one in charges:
        key, is_first_time = one.key, one.kind is Kind.FIRST_TIME
        numbers = _PLACES.pack(
            place(key, COUNTERS),
            place(key, COUNTERS_BY_TIME) if key.rest else 0,
            place(key, ITEMS) if is_first_time else 0,
            place(key, ITEMS_BY_TIME) if is_first_time and key.rest else 0,
        )
        told += (field_of(key), numbers + _pack_rule(one.kind, one.force, one.cost, one.windows), one.item)
    return list(places), told


@functools.lru_cache(maxsize=1024)
def _pack_rule(kind: Kind, force: Force, cost: int, windows: tuple[Window, ...]) -> bytes:
    numbers: list[float] = []
    for window in windows:
        numbers += (min(window.most, MAX_EXACT), window.seconds)
    return struct.pack(f"<BBd{len(numbers)}d", _KINDS[kind], _FORCES[force], min(cost, MAX_EXACT), *numbers)


def unpack_said(reply: Reply, charges: Sequence[Charge]) -> Said:
    """Return what the script has answered."""
    expected = _SAID.size + sum(9 + 8 * len(one.windows) for one in charges)
    if not isinstance(reply, bytes) or len(reply) != expected:
        raise StoreError(StoreFailure.OTHER, "what answers is no Redis")
    is_charged, now = _SAID.unpack_from(reply)
    readings, at = [], _SAID.size
    for one in charges:
        count = len(one.windows)
        flags, clears_in, *totals = struct.unpack_from(f"<Bd{count}d", reply, at)
        at += 9 + 8 * count
        readings.append(Reading(tuple(map(int, totals)), bool(flags & 1), clears_in, bool(flags & 2)))
    return Said(now, Outcome(bool(is_charged), tuple(readings)))
