"""The connections to one Redis server: commands go out in one piece, replies come back, errors are translated.

The only import of redis, of which this takes the protocol (parser, packer, AUTH, SELECT) and nothing that waits, retries or
pools: those differ from version to version, by seconds. Here every exchange has one deadline over all it does.
"""

from __future__ import annotations

import inspect
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis.backoff
import redis.connection
import redis.exceptions
import redis.retry

from mailward.adapters.redis_socket import Names, Server, TimedSocket, label_of, open_socket
from mailward.model.errors import StoreError, StoreFailure

MAX_CONNECTIONS = 16  # to each server, of each process: a decision holds one for a fraction of a millisecond
MAX_IDLE_SECONDS = 60.0  # firewalls forget connections that say nothing, and tell nobody

FAILURE_OF_CODE = {
    "OOM": StoreFailure.FULL,
    "MISCONF": StoreFailure.FULL,  # it cannot save to its disk, and takes no writes until it can
    "READONLY": StoreFailure.READ_ONLY,
    "NOREPLICAS": StoreFailure.READ_ONLY,  # a master that has lost its replicas, told to write nothing then
    "LOADING": StoreFailure.AWAY,
    "MASTERDOWN": StoreFailure.AWAY,
    "CLUSTERDOWN": StoreFailure.AWAY,
    "TRYAGAIN": StoreFailure.AWAY,
    "BUSY": StoreFailure.TIMEOUT,
    "NOAUTH": StoreFailure.REFUSED,
    "WRONGPASS": StoreFailure.REFUSED,
    "NOPERM": StoreFailure.REFUSED,
    "WRONGTYPE": StoreFailure.DAMAGED,
}

Command = Sequence[str | bytes | int]
Reply = Any  # what Redis's protocol has: bytes, int, None, lists of these; whoever asked knows which


@dataclass(frozen=True, slots=True)
class Access:
    """How to speak to a server once the way to it is known."""

    names: Names
    username: str = ""
    password: str = field(default="", repr=False)
    database: int = 0
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a server answered instead of a reply: a word in capitals, and the rest of its sentence."""

    code: str
    text: str

    def failure(self) -> StoreFailure:
        """Return what it means to whoever asked."""
        if self.code in FAILURE_OF_CODE:
            return FAILURE_OF_CODE[self.code]
        words = (word.lstrip("-") for word in self.text.split())  # older servers tell a script's error inside another
        return next((FAILURE_OF_CODE[word] for word in words if word in FAILURE_OF_CODE), StoreFailure.OTHER)


class RedisLink:
    """One server, and the connections to it that wait for their next use. Threads share it; made in the process that uses it."""

    def __init__(self, server: Server, access: Access) -> None:
        self.server = server
        self._access = access
        self._idle: list[tuple[float, _Connection]] = []  # the last used last, and taken first
        self._free = threading.Semaphore(MAX_CONNECTIONS)
        self._lock = threading.Lock()
        self._is_closed = False

    def exchange(self, commands: Sequence[Command], deadline: float) -> list[Reply | Refusal]:
        """Send commands in one piece and return a reply for each. Raises StoreError AWAY, TIMEOUT, REFUSED (the access).

        They may be sent twice, where the server closed a connection while it was waiting for its use.
        """
        if not commands:
            return []
        if not self._free.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise StoreError(StoreFailure.TIMEOUT, f"{label_of(self.server)}: {MAX_CONNECTIONS} connections are busy")
        try:
            return self._exchange(commands, deadline)
        finally:
            self._free.release()

    def drop_idle(self) -> None:
        """Close the connections that wait: the server has gone, or is no longer the one to ask."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    def close(self) -> None:
        """Close all; those in use when they come back."""
        self._is_closed = True
        self.drop_idle()

    def _exchange(self, commands: Sequence[Command], deadline: float) -> list[Reply | Refusal]:
        connection = self._take_idle(deadline)
        if connection is not None:
            try:
                return self._exchange_on(connection, commands)
            except StoreError as error:
                if error.failure is not StoreFailure.AWAY:
                    raise
                self.drop_idle()
        connection = _Connection(self.server, self._access, deadline)
        try:
            connection.connect()
        except StoreError:
            raise
        except Exception as error:  # whoever answers there may be no Redis: the parser raises anything
            connection.close()
            raise _translated(error, self.server) from error
        return self._exchange_on(connection, commands)

    def _exchange_on(self, connection: _Connection, commands: Sequence[Command]) -> list[Reply | Refusal]:
        try:
            replies = connection.exchange(commands)
        except Exception as error:  # as above
            connection.close()  # a reply may still be on its way, and would be taken for the next one's
            raise _translated(error, self.server) from error
        self._give_back(connection)
        return replies

    def _take_idle(self, deadline: float) -> _Connection | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                since, connection = self._idle.pop()
            if time.monotonic() - since < MAX_IDLE_SECONDS and connection.is_usable():
                connection.set_deadline(deadline)
                return connection
            connection.close()

    def _give_back(self, connection: _Connection) -> None:
        with self._lock:
            if not self._is_closed:
                self._idle.append((time.monotonic(), connection))
                return
        connection.close()


def _versions_own() -> dict[str, Any]:
    """Return the options that this version of redis-py needs to speak RESP2 and to say nothing unasked.

    Nobody shall pay round trips to tell the library's name. `driver_info` took the place of `lib_name`.
    """
    wanted: dict[str, Any] = {"protocol": 2, "driver_info": None, "lib_name": None, "lib_version": None}
    kinds = inspect.getmro(redis.connection.Connection)
    known = {name for kind in kinds for name in inspect.signature(kind).parameters}
    if "driver_info" in known:
        known -= {"lib_name", "lib_version"}  # warned of there
    return {name: value for name, value in wanted.items() if name in known}


_VERSIONS_OWN = _versions_own()


class _Wire(redis.connection.Connection):
    """redis-py's connection, on a socket of our own."""

    def __init__(self, open_own: Callable[[], TimedSocket], server: Server, access: Access) -> None:
        made: Any = super().__init__  # untyped there
        made(
            host=server[0],
            port=server[1],
            db=access.database,
            username=access.username or None,
            password=access.password or None,
            retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0),
            socket_timeout=None,
            socket_connect_timeout=None,
            **_VERSIONS_OWN,
        )
        self._open_own = open_own

    def _connect(self) -> TimedSocket:
        """Open the socket: redis-py's connect() calls this, then says AUTH and SELECT."""
        return self._open_own()


class _Connection:
    """A connection to a server; what it raises is the library's, or StoreError."""

    def __init__(self, server: Server, access: Access, deadline: float) -> None:
        self._server = server
        self._access = access
        self._deadline = deadline
        self._socket: TimedSocket | None = None
        self._wire: Any = _Wire(self._open, server, access)

    def connect(self) -> None:
        """Open it and say who we are."""
        self._wire.connect()

    def exchange(self, commands: Sequence[Command]) -> list[Reply | Refusal]:
        """Send commands, and read a reply to each."""
        self._wire.send_packed_command(self._wire.pack_commands(commands), check_health=False)
        return [self._read() for _ in commands]

    def set_deadline(self, deadline: float) -> None:
        """Move the end of all that follows."""
        self._deadline = deadline
        if self._socket is not None:
            self._socket.deadline = deadline

    def is_usable(self) -> bool:
        """Say whether the server still holds it open, and has said nothing unasked."""
        return self._socket is not None and self._socket.is_quiet()

    def close(self) -> None:
        """Close it; harmless if it is closed."""
        self._wire.disconnect()

    def _open(self) -> TimedSocket:
        self._socket = open_socket(self._server, self._access.names, self._access.tls, self._deadline)
        return self._socket

    def _read(self) -> Reply | Refusal:
        try:
            return self._wire.read_response()
        except redis.exceptions.ResponseError as error:
            return _refusal(error)


# redis-py takes the first word off the errors that it has classes for, and each version has more of them.
CODE_OF_CLASS = {
    "NoScriptError": "NOSCRIPT",
    "ReadOnlyError": "READONLY",
    "OutOfMemoryError": "OOM",
    "NoPermissionError": "NOPERM",
    "ExecAbortError": "EXECABORT",
    "MovedError": "MOVED",
    "AskError": "ASK",
    "TryAgainError": "TRYAGAIN",
    "ClusterDownError": "CLUSTERDOWN",
    "ClusterCrossSlotError": "CROSSSLOT",
    "MasterDownError": "MASTERDOWN",
}


def _refusal(error: redis.exceptions.ResponseError) -> Refusal:
    text = str(error)
    code = CODE_OF_CLASS.get(type(error).__name__)
    if code is not None:
        return Refusal(code, text)
    first, _, rest = text.partition(" ")
    return Refusal(first, rest) if first.isupper() else Refusal("ERR", text)


def _translated(error: Exception, server: Server) -> StoreError:
    """Return what the library raised as what our callers know."""
    failure, text = StoreFailure.OTHER, str(error)
    match error:
        case redis.exceptions.TimeoutError():
            failure, text = StoreFailure.TIMEOUT, "no answer in time"
        case redis.exceptions.AuthenticationError() | redis.exceptions.AuthorizationError():
            failure = StoreFailure.REFUSED
        case redis.exceptions.ConnectionError() if isinstance(error.__context__, ssl.SSLError):
            failure, text = (
                StoreFailure.REFUSED,
                str(error.__context__),
            )  # it wants a certificate of ours, or another one
        case redis.exceptions.ConnectionError():
            failure = StoreFailure.AWAY
        case redis.exceptions.ResponseError():  # to AUTH or SELECT: a refusal, whatever it says, unless it will pass
            failure = _refusal(error).failure()
            failure = StoreFailure.REFUSED if failure is StoreFailure.OTHER else failure
    return StoreError(failure, f"{label_of(server)}: {text}")
