"""Who has a key: the one server there is, the master that the Sentinels name, the cluster's node that has the slot.

What a finder knows is what worked the last time; whatever fails makes it ask anew, at the next call, so that a promoted
replica is found by itself. Nothing here sleeps, and nobody who did not answer is asked twice in a call: the budget of a
decision is shorter than any failover, and the breaker before the store decides when to try again.
"""

from __future__ import annotations

import binascii
import bisect
import re
import threading
import time
from dataclasses import dataclass
from typing import Protocol

from mailward.adapters.redis_link import Access, RedisLink, Refusal, Reply
from mailward.adapters.redis_socket import Server, label_of
from mailward.model.errors import StoreError, StoreFailure
from mailward.model.state import RedisState, RedisTopology

SLOTS = 16384
MAX_RESTING = 1000  # a cluster's limit of nodes
REFRESH_SECONDS = 0.5  # the cluster's map is asked for at most that often
REST_SECONDS = 1.0  # of a cluster's node that did not answer in time: its slots shall not keep the others' threads


class Finder(Protocol):
    """Knows which server has a key."""

    def server_of(self, key: str, deadline: float) -> Server:
        """Return the server to ask. Raises StoreError."""

    def masters(self, deadline: float) -> tuple[Server, ...]:
        """Return every server that has keys."""

    def suspect(self, server: Server, failure: StoreFailure) -> None:
        """Take note that a server did not answer."""

    def redirected(self, server: Server, refused: Refusal, key: str, deadline: float) -> Server:
        """Return the server to ask instead of one that said MOVED or READONLY; itself where there is no other."""


class Links(Protocol):
    """The connections to all servers, and how they are spoken to."""

    def link(self, server: Server, access: Access | None = None) -> RedisLink:
        """Return the connections to a server; `access` where it is spoken to in another way than the rest."""

    def access(self) -> Access:
        """Return how the servers are spoken to."""


def finder_of(state: RedisState, servers: Links) -> Finder:
    """Return what finds the servers of a state."""
    match state.topology:
        case RedisTopology.ALONE:
            return _Alone(state)
        case RedisTopology.SENTINEL:
            return _BySentinels(state, servers)
        case RedisTopology.CLUSTER:
            return _Cluster(state, servers)


class _Alone:
    """One server."""

    def __init__(self, state: RedisState) -> None:
        self._server = state.servers[0]

    def server_of(self, _key: str, _deadline: float) -> Server:
        return self._server

    def masters(self, _deadline: float) -> tuple[Server, ...]:
        return (self._server,)

    def suspect(self, server: Server, failure: StoreFailure) -> None:
        pass

    def redirected(self, server: Server, _refused: Refusal, _key: str, _deadline: float) -> Server:
        return server


class _BySentinels:
    """The master that the first Sentinel which answers names, until it fails or says that it is none any more."""

    def __init__(self, state: RedisState, servers: Links) -> None:
        self._state = state
        self._servers = servers
        self._sentinels = list(state.servers)  # the one that answered last comes first
        self._master: Server | None = None
        self._lock = threading.Lock()

    def server_of(self, _key: str, deadline: float) -> Server:
        master = self._master
        if master is not None:
            return master
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise StoreError(StoreFailure.TIMEOUT, "the Sentinels have not answered in time")
        try:
            master = self._master or self._ask(deadline)  # another thread may have asked meanwhile
            self._master = master
            return master
        finally:
            self._lock.release()

    def masters(self, deadline: float) -> tuple[Server, ...]:
        return (self.server_of("", deadline),)

    def suspect(self, server: Server, _failure: StoreFailure) -> None:
        if self._master == server:
            self._master = None

    def redirected(self, server: Server, _refused: Refusal, key: str, deadline: float) -> Server:
        self._servers.link(server).drop_idle()
        self.suspect(server, StoreFailure.READ_ONLY)
        return self.server_of(key, deadline)

    def _ask(self, deadline: float) -> Server:
        failed = StoreError(StoreFailure.AWAY, "no Sentinel is configured")
        sentinels = list(self._sentinels)
        for position, sentinel in enumerate(sentinels):
            try:
                found = self._ask_one(sentinel, _share(deadline, len(sentinels) - position + 1))
            except StoreError as error:
                # A Sentinel that is away says less than one that refuses us, or does not know the service.
                failed = failed if failed.failure is StoreFailure.REFUSED else error
                continue
            self._sentinels = [sentinel, *(other for other in sentinels if other != sentinel)]
            return found
        raise StoreError(failed.failure, f"Sentinels: {failed.detail}")

    def _ask_one(self, sentinel: Server, deadline: float) -> Server:
        state, access = self._state, self._servers.access()
        own = Access(access.names, state.sentinel_username, state.sentinel_password, 0, access.tls)
        command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", state.service)
        (reply,) = self._servers.link(sentinel, own).exchange([command], deadline)
        found = answered(reply)
        if found is None:
            raise StoreError(StoreFailure.REFUSED, f'{label_of(sentinel)} knows no service "{state.service}"')
        name, port = found
        return name.decode(), int(port)


def _share(deadline: float, parts: int) -> float:
    """Return an earlier deadline: one of so many equal parts from now on, so that one who is silent leaves time for others."""
    now = time.monotonic()
    return now + max(0.0, deadline - now) / parts


@dataclass(frozen=True, slots=True)
class _Map:
    """Who has which slots: the last slot of each range, sorted, and the range's first slot and server."""

    ends: tuple[int, ...] = ()
    ranges: tuple[tuple[int, Server], ...] = ()

    def find(self, slot: int) -> Server | None:
        """Return the master of a slot; None where it has none."""
        position = bisect.bisect_left(self.ends, slot)
        if position == len(self.ends):
            return None
        first, server = self.ranges[position]
        return server if first <= slot else None

    def servers(self) -> tuple[Server, ...]:
        """Return every master, once."""
        return tuple(dict.fromkeys(server for _, server in self.ranges))


class _Cluster:
    """The master of each slot, as the nodes say."""

    def __init__(self, state: RedisState, servers: Links) -> None:
        self._configured = state.servers
        self._servers = servers
        self._map = _Map()
        self._is_stale = True
        self._asked_at = 0.0
        self._resting: dict[Server, float] = {}  # a node that did not answer in time, and until when nobody asks it
        self._lock = threading.Lock()

    def server_of(self, key: str, deadline: float) -> Server:
        self._refresh(deadline)
        slot = slot_of(key)
        server = self._map.find(slot)
        if server is None:
            self._is_stale = True
            raise StoreError(StoreFailure.AWAY, f"no node of the cluster has slot {slot}")
        if self._resting and self._resting.get(server, 0.0) > time.monotonic():
            raise StoreError(StoreFailure.AWAY, f"{label_of(server)}: no answer in time a moment ago")
        return server

    def masters(self, deadline: float) -> tuple[Server, ...]:
        self._refresh(deadline)
        return self._map.servers()

    def suspect(self, server: Server, failure: StoreFailure) -> None:
        self._is_stale = True
        if failure is StoreFailure.TIMEOUT:
            if len(self._resting) > MAX_RESTING:
                self._resting.clear()
            self._resting[server] = time.monotonic() + REST_SECONDS

    def redirected(self, server: Server, refused: Refusal, _key: str, _deadline: float) -> Server:
        self._is_stale = True  # READONLY too: it has been demoted, and the map will say by whom
        return target_of(refused, server) if refused.code == "MOVED" else server

    def _refresh(self, deadline: float) -> None:
        """Ask for the map where it is stale; the old one serves while nobody can tell, and while another thread asks."""
        if not self._is_stale or (self._map.ends and time.monotonic() - self._asked_at < REFRESH_SECONDS):
            return
        wait = max(0.0, deadline - time.monotonic()) if not self._map.ends else 0.0
        if not (self._lock.acquire(timeout=wait) if wait else self._lock.acquire(blocking=False)):
            if self._map.ends:
                return
            raise StoreError(StoreFailure.TIMEOUT, "the cluster has not told its slots in time")
        try:
            if self._is_stale:
                self._ask(deadline)
        finally:
            self._asked_at = time.monotonic()
            self._lock.release()

    def _ask(self, deadline: float) -> None:
        now = time.monotonic()
        known = list(dict.fromkeys((*self._map.servers(), *self._configured)))
        known.sort(key=lambda server: self._resting.get(server, 0.0) > now)  # who was silent comes last
        failed = StoreError(StoreFailure.AWAY, "no node is configured")
        for position, server in enumerate(known):
            try:
                link = self._servers.link(server)
                (reply,) = link.exchange([("CLUSTER", "SLOTS")], _share(deadline, len(known) - position + 1))
                self._map = _map_of(answered(reply), server)
            except StoreError as error:
                failed = failed if failed.failure is StoreFailure.REFUSED else error
                continue
            self._is_stale = False
            return
        if not self._map.ends:
            raise StoreError(failed.failure, f"cluster: {failed.detail}")


def _map_of(reply: Reply, asked: Server) -> _Map:
    """Read CLUSTER SLOTS: `[first, last, [name, port, id, ...], replicas ...]`; no name: the one that was asked by."""
    ranges = []
    for first, last, (name, port, *_), *_ in reply:
        ranges.append((int(last), int(first), (name.decode() if name else asked[0], int(port))))
    ranges.sort()
    if not ranges:
        raise StoreError(StoreFailure.AWAY, f"{label_of(asked)}: is in no cluster that has slots")
    return _Map(tuple(last for last, _, _ in ranges), tuple((first, server) for _, first, server in ranges))


def answered(reply: Reply | Refusal) -> Reply:
    """Return a reply. Raises StoreError for a refusal."""
    if isinstance(reply, Refusal):
        raise StoreError(reply.failure(), f"{reply.code} {reply.text}")
    return reply


def encode(text: str) -> bytes:
    """Return a key as octets, whatever it is made of."""
    return text.encode("utf-8", "surrogatepass")


def slot_of(key: str) -> int:
    """Return the slot of a key in a cluster (Redis Cluster specification, "Hash tags").

    >>> slot_of("foo"), slot_of("mailward:{foo} x"), slot_of("{}foo") == slot_of("foo")
    (12182, 12182, False)
    """
    _, brace, rest = key.partition("{")
    tag, end, _ = rest.partition("}")
    hashed = tag if brace and end and tag else key
    return binascii.crc_hqx(encode(hashed), 0) % SLOTS


def target_of(refused: Refusal, asked: Server) -> Server:
    """Return the server that MOVED or ASK names: `3999 192.0.2.1:6381`; without a name it is another port of the same."""
    name, _, port = refused.text.partition(" ")[2].rpartition(":")
    if not re.fullmatch("[0-9]{1,5}", port):
        answered(refused)
    return name or asked[0], int(port)
