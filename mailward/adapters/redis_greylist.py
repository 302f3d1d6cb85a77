"""Greylisting's memory in Redis or Valkey (5 or later), shared by several machines.

A decision is one script on one server, by the server's clock: one round trip. In a few cases a second one goes before or
after it, within the same budget:

- The sender's domain is vouched for but is not the triplet's origin: whether it is a correspondent is asked first, since in a
  cluster that may be another node's.
- A return was expected, or has come: its bucket is counted afterwards, and where that fails the sighting stands.

Redis forgets by itself what has expired, and what never passed some hours later: 220 to 270 octets a triplet, half of it
the key. What it may take at most is its own setting (maxmemory), and what goes then, too.
What was answered survives as Redis is configured: by default its death loses the last second (appendonly) or minutes, and a
failover what the replica had not got yet; a master that the others have given up keeps what it is told only until it finds
out. Those triplets start over, which costs a delay. While a cluster moves a slot to another node, sightings in it fail.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from mailward.adapters import redis_records as records
from mailward.adapters import redis_scripts as scripts
from mailward.adapters.redis_finders import answered, encode
from mailward.adapters.redis_link import Command, Reply
from mailward.adapters.redis_servers import RedisServers
from mailward.adapters.redis_socket import Server
from mailward.model.errors import StoreError
from mailward.model.greylist import (
    Entry,
    Orders,
    OriginRecord,
    ReturnCount,
    Sighting,
    Triplet,
    TripletRecord,
    Windows,
)
from mailward.model.state import RedisState, StateSize
from mailward.policy.greylist import Remembered, bucket_of, expected_in, returned_in, would_pass

RETURNS_KEPT = 2 * 86400.0
PROBES = 256  # keys, so that in a cluster each node has its turn
PROBE_WINDOWS = Windows(delay=0.0, retry_window=0.0, remember=0.0)  # over at once: each probe writes
BATCH = 500  # keys a round trip when all are read or written: a few milliseconds of Redis's time

Record = TypeVar("Record")


class RedisGreylist:
    """A GreylistRecords in Redis. Made in the process that uses it; connects at the first use."""

    def __init__(self, state: RedisState, timeout: float) -> None:
        self._servers = RedisServers(state)
        self._timeout = timeout
        self._tended = (0, b"0")  # which master, and how far

    def sight(
        self, triplet: Triplet, windows: Windows, *, correspondent: str = "", now: float | None = None
    ) -> Sighting:
        """Remember that a triplet was sighted, and say what was known (see TripletStore)."""
        deadline = self._deadline()
        keys = [records.origin_key(triplet.origin), records.triplet_key(triplet)]
        is_known = b""
        if correspondent and records.domain_of(correspondent) == triplet.origin:
            keys.append(records.correspondent_key(correspondent))
        elif correspondent and self._is_correspondent(correspondent, now, deadline):
            is_known = b"y"
        arguments = (records.pack_now(now), records.pack_windows(windows), is_known)
        reply = self._servers.run(scripts.SIGHT, keys, arguments, deadline)
        sighting, is_expected = records.unpack_sighting(reply)
        if is_expected:
            self._count_return(triplet, sighting, deadline)
        return sighting

    def _is_correspondent(self, address: str, now: float | None, deadline: float) -> bool:
        key = records.correspondent_key(address)
        clock, value = self._servers.exchange(key, [("TIME",), ("GET", encode(key))], deadline)
        expires = records.unpack_double(value)
        return expires is not None and expires > _now(now, clock)

    def _count_return(self, triplet: Triplet, sighting: Sighting, deadline: float) -> None:
        record = TripletRecord(triplet, sighting.first_seen, 0.0, 0.0, is_expected=True)
        expected = expected_in(sighting.memory, record)
        returned = returned_in(sighting.memory, record)
        start = expected if expected is not None else returned
        oldest = bucket_of(sighting.now - RETURNS_KEPT)
        if start is None or start < oldest:
            return
        kind = b"" if expected is not None else b"r"
        arguments = (b"%d" % start, kind, b"%d" % oldest, b"%d" % (2 * RETURNS_KEPT))
        try:
            self._servers.run(scripts.COUNT_RETURN, [records.RETURNS], arguments, deadline)
        except StoreError:
            return  # a count for an alert; the decision has been taken, and is remembered

    def recalls(self, triplet: Triplet, windows: Windows, now: float | None = None) -> bool:
        """Say whether a sighting would pass by what is remembered, and change nothing."""
        key = records.origin_key(triplet.origin)
        both = ("MGET", encode(key), encode(records.triplet_key(triplet)))
        clock, (origin, known) = self._servers.exchange(key, [("TIME",), both], self._deadline())
        remembered = Remembered(records.unpack_triplet(triplet, known), records.unpack_origin(triplet.origin, origin))
        return would_pass(remembered, windows, _now(now, clock))

    def returns(self, now: float | None = None) -> tuple[ReturnCount, ...]:
        """Return the buckets of the last two days in which returns were expected, the oldest first."""
        clock, fields = self._read_hash(records.RETURNS)
        since = _now(now, clock) - RETURNS_KEPT
        counts = filter(None, (records.unpack_return(name, fields) for name in fields))
        return tuple(sorted((count for count in counts if count.start > since), key=lambda count: count.start))

    def orders(self, now: float | None = None) -> Orders:
        """Return what the operator has ordered and is in force."""
        clock, fields = self._read_hash(records.ORDERS)
        now = _now(now, clock)
        off_until = records.unpack_double(fields.pop(records.OFF, None)) or 0.0
        entries = (records.unpack_entry(name, value) for name, value in fields.items())
        in_force = (entry for entry in entries if entry is not None and (not entry.until or entry.until > now))
        return Orders(
            tuple(sorted(in_force, key=lambda entry: (entry.added_at, entry.kind.value, entry.subject))),
            off_until if off_until > now and records.is_moment(off_until) else 0.0,
        )

    def _read_hash(self, key: str) -> tuple[Reply, dict[bytes, bytes]]:
        clock, flat = self._servers.exchange(key, [("TIME",), ("HGETALL", encode(key))], self._deadline())
        return clock, records.unpack_hash(flat)

    def probe(self) -> None:
        """Do what a sighting does, with keys that nobody reads: whoever may not run scripts does not get well by a probe."""
        deadline = self._deadline()
        keys = records.probe_keys(random.randrange(PROBES))
        arguments = (records.pack_now(None), records.pack_windows(PROBE_WINDOWS), b"")
        records.unpack_sighting(self._servers.run(scripts.SIGHT, keys, arguments, deadline))
        with contextlib.suppress(StoreError):  # else they go by themselves; a sighting needs no right to do this
            self._servers.exchange(keys[0], [("DEL", *map(encode, keys))], deadline)

    def size(self) -> StateSize | None:
        """Say nothing: Redis is not of this machine."""
        return None

    def tend(self, now: float | None = None) -> None:
        """Do nothing: Redis keeps house itself, by its own clock; by another one, drop what has expired, a step at a time."""
        if now is None:
            return
        deadline = self._deadline()
        masters = self._servers.masters(deadline)
        position, cursor = self._tended
        server = masters[position % len(masters)]
        cursor, found = self._scan_step(server, cursor, records.EVERYTHING, deadline)
        expired = [(key, value) for key, value in found if records.expires_of(key, value) <= now]
        drops = [("EVAL", scripts.DROP.text, 1, key, value) for key, value in expired]
        self._servers.exchange_with(server, drops, deadline)
        self._tended = (position + 1 if cursor == b"0" else position, cursor)

    def close(self) -> None:
        """Let go of the connections."""
        self._servers.close()

    def record(self, addresses: Iterable[str], lifetime: float, now: float | None = None) -> None:
        """Remember addresses for `lifetime` seconds, or longer where they already are."""
        arguments = (records.pack_now(now), records.pack_double(lifetime))
        for batch in _batches(addresses):
            keys = [records.correspondent_key(address) for address in batch]
            commands = ((key, ("EVAL", scripts.RECORD.text, 1, encode(key), *arguments)) for key in keys)
            self._servers.spread(commands, self._deadline())

    def triplets(self) -> Iterator[TripletRecord]:
        """Yield every triplet; what is written meanwhile may be missed, and may come twice."""
        return self._scan(
            records.ALL_TRIPLETS, lambda tag, parts, value: records.unpack_triplet(Triplet(tag, *parts), value)
        )

    def origins(self) -> Iterator[OriginRecord]:
        """Yield every origin, likewise."""
        return self._scan(records.ALL_ORIGINS, lambda tag, _parts, value: records.unpack_origin(tag, value))

    def correspondents(self) -> Iterator[tuple[str, float]]:
        """Yield every correspondent and when it expires, likewise."""
        return self._scan(records.ALL_CORRESPONDENTS, _unpack_correspondent)

    def _scan(self, pattern: str, unpack: Callable[[str, list[str], bytes], Record | None]) -> Iterator[Record]:
        """Walk over all servers' keys in steps that hold up nobody. Each step has a budget of its own."""
        for server in self._servers.masters(self._deadline()):
            cursor = b"0"
            while True:
                cursor, found = self._scan_step(server, cursor, pattern, self._deadline())
                for key, value in found:
                    record = unpack(*records.read_key(key), value)
                    if record is not None:
                        yield record
                if cursor == b"0":
                    break

    def _scan_step(
        self, server: Server, cursor: bytes, pattern: str, deadline: float
    ) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        scan = ("SCAN", cursor, "MATCH", pattern, "COUNT", BATCH)
        (reply,) = self._servers.exchange_with(server, [scan], deadline)
        cursor, keys = answered(reply)
        values = self._servers.exchange_with(server, [("GET", key) for key in keys], deadline)
        # What is no text is gone meanwhile, or has moved to another node.
        return cursor, [(key, value) for key, value in zip(keys, values, strict=True) if isinstance(value, bytes)]

    def count_triplets(self) -> int:
        """Return how many keys there are: most are triplets."""
        deadline = self._deadline()
        found = (
            self._servers.exchange_with(server, [("DBSIZE",)], deadline) for server in self._servers.masters(deadline)
        )
        return sum(answered(reply) for (reply,) in found)

    def put_triplets(self, wanted: Iterable[TripletRecord]) -> None:
        """Write triplets as they are, over what is there."""
        self._put(
            wanted,
            lambda record, now: (
                records.triplet_key(record.triplet),
                records.pack_triplet(record),
                records.kept_seconds(record.expires, now),
            ),
        )

    def put_origins(self, wanted: Iterable[OriginRecord]) -> None:
        """Write origins likewise."""
        self._put(
            wanted,
            lambda record, now: (
                records.origin_key(record.origin),
                records.pack_origin(record),
                records.kept_seconds(record.expires, now),
            ),
        )

    def _put(self, wanted: Iterable[Record], pack: Callable[[Record, float], tuple[str, bytes, float]]) -> None:
        for batch in _batches(wanted):
            deadline = self._deadline()
            (clock,) = self._servers.exchange(records.ORDERS, [("TIME",)], deadline)
            now = _now(None, clock)
            packed = (pack(record, now) for record in batch)
            self._servers.spread(
                (
                    (key, ("SET", encode(key), value, "PX", records.milliseconds(seconds)))
                    for key, value, seconds in packed
                ),
                deadline,
            )

    def forget_triplet(self, triplet: Triplet) -> bool:
        """Forget one triplet; say whether it was there."""
        return self._forget(records.triplet_key(triplet))

    def forget_origin(self, origin: str) -> bool:
        """Forget what an origin has earned; its triplets stay."""
        return self._forget(records.origin_key(origin))

    def _forget(self, key: str) -> bool:
        return bool(self._write(key, ("DEL", encode(key))))

    def set_entry(self, entry: Entry) -> None:
        """Add an entry, in place of one for the same kind and subject; those whose time was over then go."""
        key, deadline = encode(records.ORDERS), self._deadline()
        written = ("HSET", key, records.entry_field(entry), records.pack_entry(entry))
        _, flat = self._servers.exchange(records.ORDERS, [written, ("HGETALL", key)], deadline)
        for name, value in records.unpack_hash(flat).items():
            other = records.unpack_entry(name, value)
            if other is not None and 0.0 < other.until <= entry.added_at:
                self._servers.run(scripts.DROP_ENTRY, [records.ORDERS], (name, value), deadline)

    def remove_entry(self, entry: Entry) -> bool:
        """Remove the entry for the same kind and subject; say whether it was there."""
        return bool(self._order("HDEL", records.entry_field(entry)))

    def switch_off(self, until: float) -> None:
        """Order that greylisting is off until then; 0.0: on."""
        self._order("HSET", records.OFF, records.pack_double(until))

    def _order(self, word: str, *arguments: bytes) -> Reply:
        return self._write(records.ORDERS, (word, encode(records.ORDERS), *arguments))

    def _write(self, key: str, command: Command) -> Reply:
        (reply,) = self._servers.exchange(key, [command], self._deadline())
        return reply

    def _deadline(self) -> float:
        return time.monotonic() + self._timeout


def _now(given: float | None, clock: Sequence[bytes]) -> float:
    """Return the time: what was given, or Redis's own."""
    seconds, microseconds = clock
    return int(seconds) + int(microseconds) / 1_000_000 if given is None else given


def _unpack_correspondent(_domain: str, parts: list[str], value: bytes) -> tuple[str, float] | None:
    expires = records.unpack_double(value)
    return None if expires is None else (parts[0], expires)


def _batches(wanted: Iterable[Record]) -> Iterator[list[Record]]:
    rest = iter(wanted)
    while batch := list(islice(rest, BATCH)):
        yield batch
