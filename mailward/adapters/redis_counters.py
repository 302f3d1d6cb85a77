"""What limits count, and what holds for accounts, in Redis or Valkey (5 or later), shared by several machines.

A charging is one script on one server, by the server's clock, whatever the number of its limits; those of one call go out
together: one round trip. What was answered survives as Redis is configured: by default its death loses the last second
(appendonly) or minutes, and a failover what the replica had not got yet. Redis forgets by itself what has expired.

In a cluster the counters of different owners lie on different nodes. Each owner's part is charged in one step, all of them at
the same time, and where one refuses, what the others have charged is given back: a second round trip. So

- a part that is given back has been charged for a moment, and another request may have been refused for it;
- whoever dies in between, or cannot reach a node any more, leaves it charged: limits count too much then, never too little;
- an item (DISTINCT) that was there before stays as of now; one (FIRST_TIME too) that was new is given back, and so is new again
  even where another request has met it in between.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mailward.adapters import redis_counter_keys as keys
from mailward.adapters import redis_counter_scripts as scripts
from mailward.adapters.redis_accounts import RedisAccounts
from mailward.adapters.redis_counter_keys import Said
from mailward.adapters.redis_counter_lua import MAX_SENT, SENT_SECONDS
from mailward.adapters.redis_finders import answered, encode, slot_of
from mailward.adapters.redis_servers import Call, RedisServers
from mailward.adapters.redis_socket import Server
from mailward.model.accounts import Account, AuditEntry
from mailward.model.errors import StoreError
from mailward.model.limits import (
    Charge,
    Charging,
    CounterKey,
    CounterRecord,
    Force,
    Kind,
    Outcome,
    Reading,
    Sent,
    Window,
)
from mailward.model.state import RedisState, RedisTopology, StateSize

PROBES = 256  # keys, so that in a cluster each node has its turn
PROBE = (Charge(CounterKey("probe", "probe"), (Window(2**53, 1.0),)),)
BATCH = 500  # keys or fields a round trip when all are read: a few milliseconds of Redis's time


@dataclass(frozen=True, slots=True)
class _Part:
    """What of a charging one script does: which of its charges, by their positions, and whether it notes what was sent."""

    positions: tuple[int, ...]
    charges: tuple[Charge, ...]
    sent: Sent | None

    def call(self, now: float | None) -> Call:
        """Return what the script is told."""
        names, told = keys.pack_charges(self.charges)
        queue_id = b""
        if self.sent is not None:
            names.append(keys.sent_key(self.sent.account))
            queue_id = encode(self.sent.queue_id)
        return Call(names, (keys.pack_now(now), queue_id, *told))


class RedisLimits:
    """A LimitRecords in Redis. Made in the process that uses it; connects at the first use."""

    def __init__(self, state: RedisState, timeout: float) -> None:
        self._servers = RedisServers(state)
        self._accounts = RedisAccounts(self._servers, timeout)
        self._timeout = timeout
        self._is_cluster = state.topology is RedisTopology.CLUSTER
        self._tended = (0, b"0")  # which master, and how far

    def charge(self, chargings: Sequence[Charging], now: float | None = None) -> list[Outcome]:
        """Charge requests one after the other (see CounterStore; of several owners in a cluster, above)."""
        deadline = self._deadline()
        parts = [self._parts(charging) for charging in chargings]
        every = [part for of_one in parts for part in of_one]
        replies = iter(self._servers.run_each(scripts.CHARGE, [part.call(now) for part in every], deadline))
        said = [[_read(part, next(replies)) for part in of_one] for of_one in parts]
        failed = next((each for of_one in said for each in of_one if isinstance(each, StoreError)), None)
        taken_back = [
            _give_back(part, each)
            for part_of_one, said_of_one in zip(parts, said, strict=True)
            if failed is not None or not all(_is_charged(each) for each in said_of_one)
            for part, each in zip(part_of_one, said_of_one, strict=True)
            if isinstance(each, Said) and each.outcome.is_charged
        ]
        if taken_back:  # where that fails, more is counted than was granted; what has been decided stands
            self._servers.run_each(scripts.GIVE_BACK, [call for call in taken_back if call.keys], deadline)
        if failed is not None:
            raise failed
        return list(map(_outcome, chargings, parts, said))

    def _parts(self, charging: Charging) -> list[_Part]:
        everything = tuple(range(len(charging.charges)))
        if not self._is_cluster:
            return [_Part(everything, charging.charges, charging.sent)] if everything or charging.sent else []
        by_slot: dict[int, list[int]] = {}
        for position in everything:
            owner = charging.charges[position].key.owner
            by_slot.setdefault(slot_of(keys.key_of(owner, keys.COUNTERS)), []).append(position)
        sent_slot = -1
        if charging.sent is not None:
            sent_slot = slot_of(keys.sent_key(charging.sent.account))
            by_slot.setdefault(sent_slot, [])
        return [
            _Part(
                tuple(positions),
                tuple(charging.charges[position] for position in positions),
                charging.sent if slot == sent_slot else None,
            )
            for slot, positions in by_slot.items()
        ]

    def probe(self) -> None:
        """Do what a charging does, with a key that nobody reads: whoever may not run scripts does not get well by a probe."""
        _, told = keys.pack_charges(PROBE)
        names = keys.probe_keys(random.randrange(PROBES))
        reply = self._servers.run(scripts.CHARGE, names, (b"", b"", *told), self._deadline())
        keys.unpack_said(reply, PROBE)

    def size(self) -> StateSize | None:
        """Say nothing: Redis is not of this machine."""
        return None

    def tend(self, now: float | None = None) -> None:
        """Do nothing: Redis keeps house itself, by its own clock; by another one, drop what has expired, a step at a time."""
        if now is None:
            return
        deadline = self._deadline()
        masters = self._servers.masters(deadline)
        at, cursor = self._tended
        cursor, names = self._scan_step(masters[at % len(masters)], cursor, keys.ALL_HASHES, deadline)
        for name in names:
            owner = keys.owner_of(name)
            for hashed, by_time in ((keys.COUNTERS, keys.COUNTERS_BY_TIME), (keys.ITEMS, keys.ITEMS_BY_TIME)):
                both = [keys.key_of(owner, hashed), keys.key_of(owner, by_time)]
                self._servers.run(scripts.DROP_EXPIRED, both, (keys.pack_now(now),), deadline)
        self._tended = (at + 1 if cursor == b"0" else at, cursor)

    def counters(self, owner: str) -> Sequence[CounterRecord]:
        """Return an owner's counters and the items it knows, expired ones too."""
        return [
            *self._read_hash(owner, keys.COUNTERS, keys.read_counter),
            *self._read_hash(owner, keys.ITEMS, keys.read_items),
        ]

    def all_counters(self) -> Iterator[CounterRecord]:
        """Yield every counter but the sets of known items; what is written meanwhile may be missed, and may come twice."""
        for server in self._servers.masters(self._deadline()):
            cursor = b"0"
            while True:
                cursor, names = self._scan_step(server, cursor, keys.ALL_COUNTERS, self._deadline())
                for name in names:
                    yield from self._read_hash(keys.owner_of(name), keys.COUNTERS, keys.read_counter)
                if cursor == b"0":
                    break

    def _scan_step(self, server: Server, cursor: bytes, pattern: str, deadline: float) -> tuple[bytes, list[bytes]]:
        scan = ("SCAN", cursor, "MATCH", pattern, "COUNT", BATCH)
        (reply,) = self._servers.exchange_with(server, [scan], deadline)
        cursor, names = answered(reply)
        return cursor, names

    def _read_hash(
        self, owner: str, kind: str, read: Callable[[str, bytes, bytes], CounterRecord | None]
    ) -> Iterator[CounterRecord]:
        """Walk over a hash in steps that hold up nobody: with pairs it may be large. Each step has a budget of its own."""
        key, cursor = keys.key_of(owner, kind), b"0"
        seen: set[bytes] = set()  # a field may come twice
        while True:
            scan = ("HSCAN", encode(key), cursor, "COUNT", BATCH)
            ((cursor, flat),) = self._servers.exchange(key, [scan], self._deadline())
            for field, value in zip(flat[::2], flat[1::2], strict=True):
                record = read(owner, field, value) if field not in seen else None
                seen.add(field)
                if record is not None:
                    yield record
            if cursor == b"0":
                break

    def reset(self, owner: str) -> int:
        """Forget what is counted of an owner, but not the items it knows; return how many counters there were."""
        key, by_time = (keys.key_of(owner, kind) for kind in (keys.COUNTERS, keys.COUNTERS_BY_TIME))
        commands = [("HLEN", encode(key)), ("UNLINK", encode(key), encode(by_time))]
        count, _ = self._servers.exchange(key, commands, self._deadline())
        return int(count)

    def sent(self, account: str, now: float | None = None) -> Sequence[tuple[float, str]]:
        """Return when an account handed which queue ids to Postfix in the last five days, the newest first; at most 5,000."""
        key = keys.sent_key(account)
        newest = ("ZREVRANGE", encode(key), 0, MAX_SENT - 1, "WITHSCORES")
        (seconds, microseconds), flat = self._servers.exchange(key, [("TIME",), newest], self._deadline())
        if now is None:
            now = int(seconds) + int(microseconds) / 1_000_000
        noted = ((float(at), queue_id) for queue_id, at in zip(flat[::2], flat[1::2], strict=True))
        return [(at, keys.text_of(queue_id)) for at, queue_id in noted if at > now - SENT_SECONDS]

    def close(self) -> None:
        """Let go of the connections."""
        self._servers.close()

    def accounts_version(self) -> str:
        """Return something that is another each time an account has changed."""
        return self._accounts.version()

    def accounts(self) -> Mapping[str, Account]:
        """Return every account of which there is something to remember, by its name."""
        return self._accounts.every()

    def account(self, name: str) -> Account:
        """Return one account; a plain one where nothing is remembered."""
        return self._accounts.one(name)

    def swap(self, old: Account, new: Account, entries: Sequence[AuditEntry] = ()) -> bool:
        """Put `new` in the place of `old`, and add the entries to the audit log; False if it is not `old` any more."""
        return self._accounts.swap(old, new, entries)

    def audit(self, entry: AuditEntry) -> None:
        """Add to the audit log."""
        self._accounts.audit(entry)

    def audit_log(self, account: str = "", most: int = 1000) -> Sequence[AuditEntry]:
        """Return the newest entries, of one account or of all, the newest first."""
        return self._accounts.audit_log(account, most)

    def put_note(self, name: str, value: str) -> None:
        """Keep a small fact for the command to show."""
        self._accounts.put_note(name, value)

    def notes(self) -> Mapping[str, str]:
        """Return the facts that are kept."""
        return self._accounts.notes()

    def _deadline(self) -> float:
        return time.monotonic() + self._timeout


def _read(part: _Part, reply: object) -> Said | StoreError:
    if isinstance(reply, StoreError):
        return reply
    try:
        return keys.unpack_said(reply, part.charges)
    except StoreError as error:
        return error


def _is_charged(said: Said | StoreError) -> bool:
    return isinstance(said, Said) and said.outcome.is_charged


def _outcome(charging: Charging, parts: Sequence[_Part], said: Sequence[Said | StoreError]) -> Outcome:
    """Return what became of a charging, given what became of its parts."""
    readings = [Reading(())] * len(charging.charges)
    is_charged = True
    for part, each in zip(parts, said, strict=True):
        assert isinstance(each, Said)
        is_charged = is_charged and each.outcome.is_charged
        for position, reading in zip(part.positions, each.outcome.readings, strict=True):
            readings[position] = reading
    return Outcome(is_charged, tuple(readings))


def _give_back(part: _Part, said: Said) -> Call:
    """Return what takes back what a part has charged, and nothing else."""
    charged = [
        (position, one)
        for position, one, reading in zip(part.positions, part.charges, said.outcome.readings, strict=True)
        if one.cost
        and (not reading.is_over or one.force is Force.FORCED)
        and (one.kind is Kind.AMOUNT or not reading.is_known)
    ]
    own = _Part(tuple(position for position, _ in charged), tuple(one for _, one in charged), part.sent)
    return own.call(said.now)
