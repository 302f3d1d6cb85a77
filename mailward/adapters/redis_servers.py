"""All the Redis servers of a state as one: commands and scripts go to whoever has the key, and follow it where it has gone."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from mailward.adapters.redis_finders import answered, encode, finder_of, target_of
from mailward.adapters.redis_link import Access, Command, RedisLink, Refusal, Reply
from mailward.adapters.redis_socket import Names, Server, make_tls
from mailward.model.errors import StoreError, StoreFailure
from mailward.model.state import RedisState

MAX_REDIRECTS = 3  # MOVED and ASK within one call; more is a cluster that is being rebuilt
# What a server says that is not the one to ask: of another slot, or (the last three) no master, or no longer.
REDIRECTING = frozenset({"MOVED", "ASK", "READONLY", "NOREPLICAS", "MASTERDOWN"})
MAX_SERVERS = 1000  # a cluster's limit; what is not in use any more is closed
MAX_THREADS = 16  # that wait for a cluster's other nodes, while the caller waits for one


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script; its keys lie in one slot."""

    text: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest())


@dataclass(frozen=True, slots=True)
class Call:
    """A script's keys, all of one slot, and its arguments."""

    keys: Sequence[str]
    arguments: Sequence[bytes]

    def rest(self) -> list[str | bytes | int]:
        """Return what follows the script's name."""
        return [len(self.keys), *map(encode, self.keys), *self.arguments]


class RedisServers:
    """All servers of one state, found as its topology says. Threads share it; made in the process that uses it.

    A key is passed to say where: in a cluster, what is said in one exchange has one hash tag. Deadlines are
    time.monotonic()'s; every method raises StoreError, about at the deadline at the latest.
    """

    def __init__(self, state: RedisState) -> None:
        self._state = state
        self._names = Names()
        self._links: dict[Server, RedisLink] = {}
        self._lock = threading.Lock()
        self._access: Access | None = None
        self._finder = finder_of(state, self)
        self._threads: ThreadPoolExecutor | None = None

    def exchange(self, key: str, commands: Sequence[Command], deadline: float) -> list[Reply]:
        """Send commands to the server of a key, in one round trip, and return the replies."""
        replies = self._exchange(key, commands, deadline)
        return [answered(reply) for reply in replies]

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[bytes], deadline: float) -> Reply:
        """Run a script on the server of its first key: one round trip, or two where the server has not seen it yet."""
        rest = Call(keys, arguments).rest()
        (reply,) = self._exchange(keys[0], [("EVALSHA", script.digest, *rest)], deadline)
        if isinstance(reply, Refusal) and reply.code == "NOSCRIPT":  # restarted, or another master
            (reply,) = self._exchange(keys[0], [("EVAL", script.text, *rest)], deadline)
        return answered(reply)

    def run_each(self, script: Script, calls: Sequence[Call], deadline: float) -> list[Reply | StoreError]:
        """Run a script for each call: one round trip for all that one server has, and of several servers at the same time.

        Those of one server run one after the other. Whoever does not know the script is told it in a second round trip, and
        what has moved is followed call by call.
        """
        results: list[Reply | StoreError] = [None] * len(calls)
        by_server: dict[Server, list[int]] = {}
        for number, call in enumerate(calls):
            try:
                by_server.setdefault(self._finder.server_of(call.keys[0], deadline), []).append(number)
            except StoreError as error:
                results[number] = error
        groups = list(by_server.items())
        others = [
            (numbers, self._in_thread(server, script, [calls[number] for number in numbers], deadline))
            for server, numbers in groups[1:]
        ]
        for server, numbers in groups[:1]:
            _fill(results, numbers, self._run_on(server, script, [calls[number] for number in numbers], deadline))
        for numbers, running in others:
            _fill(results, numbers, running.result())
        return results

    def _in_thread(
        self, server: Server, script: Script, calls: Sequence[Call], deadline: float
    ) -> Future[list[Reply | StoreError]]:
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(MAX_THREADS, "redis")
            return self._threads.submit(self._run_on, server, script, calls, deadline)

    def _run_on(
        self, server: Server, script: Script, calls: Sequence[Call], deadline: float
    ) -> list[Reply | StoreError]:
        rests = [call.rest() for call in calls]
        try:
            replies = self.exchange_with(server, [("EVALSHA", script.digest, *rest) for rest in rests], deadline)
            unknown = [number for number, reply in enumerate(replies) if _is_refused(reply, {"NOSCRIPT"})]
            if unknown:
                again = [("EVALSHA", script.digest, *rests[number]) for number in unknown]
                again[0] = ("EVAL", script.text, *rests[unknown[0]])
                _fill(replies, unknown, self.exchange_with(server, again, deadline))
        except StoreError as error:
            return [error] * len(calls)
        return [self._followed(script, call, reply, deadline) for call, reply in zip(calls, replies, strict=True)]

    def _followed(self, script: Script, call: Call, reply: Reply | Refusal, deadline: float) -> Reply | StoreError:
        """Return what a call's reply means; where it has sent us elsewhere, what is said there."""
        try:
            if _is_refused(reply, REDIRECTING):
                return self.run(script, call.keys, call.arguments, deadline)
            return answered(reply)
        except StoreError as error:
            return error

    def spread(self, commands: Iterable[tuple[str, Command]], deadline: float) -> None:
        """Send many commands, each to the server of its key, in a round trip for each server."""
        by_server: dict[Server, list[tuple[str, Command]]] = {}
        for key, command in commands:
            by_server.setdefault(self._finder.server_of(key, deadline), []).append((key, command))
        for server, group in by_server.items():
            replies = self.exchange_with(server, [command for _, command in group], deadline)
            for (key, command), reply in zip(group, replies, strict=True):
                if isinstance(reply, Refusal):  # the slot has moved, or a true error, which comes again
                    self.exchange(key, [command], deadline)

    def masters(self, deadline: float) -> tuple[Server, ...]:
        """Return every server that has keys of its own."""
        return self._finder.masters(deadline)

    def exchange_with(self, server: Server, commands: Sequence[Command], deadline: float) -> list[Reply | Refusal]:
        """Send commands to one server in one round trip."""
        link = self.link(server)
        try:
            return link.exchange(commands, deadline)
        except StoreError as error:
            if error.failure in (StoreFailure.AWAY, StoreFailure.TIMEOUT):
                link.drop_idle()
                self._finder.suspect(server, error.failure)
            raise

    def link(self, server: Server, access: Access | None = None) -> RedisLink:
        """Return the connections to a server; `access` where it is spoken to in another way than the rest."""
        link = self._links.get(server)
        if link is None:
            with self._lock:
                if len(self._links) >= MAX_SERVERS:
                    self._close_links()
                link = self._links.setdefault(server, RedisLink(server, access or self.access()))
        return link

    def access(self) -> Access:
        """Return how the servers are spoken to. Raises StoreError REFUSED where the TLS files cannot be used."""
        if self._access is None:
            state = self._state
            self._access = Access(self._names, state.username, state.password, state.database, make_tls(state))
        return self._access

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            threads, self._threads = self._threads, None
            self._close_links()
        if threads is not None:
            threads.shutdown()

    def _close_links(self) -> None:
        while self._links:
            _, link = self._links.popitem()
            link.close()

    def _exchange(self, key: str, commands: Sequence[Command], deadline: float) -> list[Reply | Refusal]:
        server = self._finder.server_of(key, deadline)
        for _ in range(MAX_REDIRECTS):
            replies = self.exchange_with(server, commands, deadline)
            refused = next((reply for reply in replies if isinstance(reply, Refusal)), None)
            if refused is None or refused.code not in REDIRECTING:
                return replies
            if refused.code == "ASK":  # this slot is on its way to another node, and this key is there already
                return self.exchange_with(target_of(refused, server), _asking(commands), deadline)[1::2]
            found = self._finder.redirected(server, refused, key, deadline)
            if found == server:
                return replies
            server = found
        raise StoreError(StoreFailure.AWAY, "the cluster sends us round in circles")


def _is_refused(reply: Reply | Refusal, codes: Set[str]) -> bool:
    return isinstance(reply, Refusal) and reply.code in codes


def _fill(results: list[Reply], numbers: Sequence[int], found: Sequence[Reply]) -> None:
    for number, each in zip(numbers, found, strict=True):
        results[number] = each


def _asking(commands: Sequence[Command]) -> list[Command]:
    return [part for command in commands for part in (("ASKING",), command)]
