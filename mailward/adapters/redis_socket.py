"""Sockets to Redis that know until when: opening, TLS, every octet sent and read end at one deadline.

A time-out for each step would add up: name, connection, TLS, password, question and answer, each as long as the budget of
the whole. Deadlines are time.monotonic()'s.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout

from mailward.model.address import is_address
from mailward.model.errors import StoreError, StoreFailure
from mailward.model.state import RedisState

LEAST_WAIT = 0.001  # a socket's time-out of 0 would mean: do not wait at all

Server = tuple[str, int]  # name or address, port; a path and 0 is a UNIX socket


def open_socket(server: Server, names: Names, tls: ssl.SSLContext | None, deadline: float) -> TimedSocket:
    """Connect to a server, with TLS where `tls` says how. Raises StoreError before or at the deadline."""
    try:
        connected = _connect(server, names, deadline)
    except TimeoutError:
        raise StoreError(StoreFailure.TIMEOUT, f"{label_of(server)}: no connection in time") from None
    except OSError as error:
        raise StoreError(StoreFailure.AWAY, f"{label_of(server)}: {error.strerror or error}") from None
    except (ValueError, OverflowError) as error:  # a name or port, told by some server, that cannot be one
        raise StoreError(StoreFailure.AWAY, f"{label_of(server)}: {error}") from None
    if tls is None:
        return TimedSocket(connected, deadline)
    try:
        connected.settimeout(time_left(deadline))
        return TimedSocket(tls.wrap_socket(connected, server_hostname=server[0]), deadline)
    except TimeoutError:
        connected.close()
        raise StoreError(StoreFailure.TIMEOUT, f"{label_of(server)}: no TLS in time") from None
    except ssl.SSLCertVerificationError as error:
        connected.close()
        raise StoreError(StoreFailure.REFUSED, f"{label_of(server)}: certificate: {error.verify_message}") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no certificate can be for
        connected.close()
        raise StoreError(StoreFailure.AWAY, f"{label_of(server)}: no TLS: {error}") from None


def label_of(server: Server) -> str:
    """Return a server's name in errors.

    >>> label_of(("redis.example", 6379)), label_of(("::1", 6379)), label_of(("/run/redis.sock", 0))
    ('redis.example:6379', '[::1]:6379', '/run/redis.sock')
    """
    name, port = server
    if name.startswith("/"):
        return name
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def time_left(deadline: float) -> float:
    """Return the seconds until a deadline, as a socket's time-out. Raises TimeoutError where it is over."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return max(left, LEAST_WAIT)


def _connect(server: Server, names: Names, deadline: float) -> socket.socket:
    name, port = server
    if name.startswith("/"):
        return _connect_to(socket.AF_UNIX, name, deadline)
    failed = OSError("the name has no address")
    for address in names.resolve(name, deadline):
        try:
            connected = _connect_to(socket.AF_INET6 if ":" in address else socket.AF_INET, (address, port), deadline)
        except OSError as error:
            failed = error
            continue
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connected
    raise failed


def _connect_to(family: socket.AddressFamily, address: str | tuple[str, int], deadline: float) -> socket.socket:
    attempt = socket.socket(family, socket.SOCK_STREAM)
    try:
        attempt.settimeout(time_left(deadline))
        attempt.connect(address)
    except BaseException:
        attempt.close()
        raise
    return attempt


class TimedSocket:
    """A connected socket whose every operation ends at `deadline`, which its owner moves on before each exchange."""

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self.deadline = deadline
        self._socket = connected

    def sendall(self, octets: bytes) -> None:
        """Send all octets."""
        self._socket.settimeout(time_left(self.deadline))
        self._socket.sendall(octets)

    def recv(self, size: int) -> bytes:
        """Wait for octets and return them; none: the other side has closed."""
        self._socket.settimeout(time_left(self.deadline))
        return self._socket.recv(size)

    def recv_into(self, buffer: bytearray | memoryview) -> int:
        """Wait for octets, put them into a buffer and say how many."""
        self._socket.settimeout(time_left(self.deadline))
        return self._socket.recv_into(buffer)

    def settimeout(self, seconds: float | None) -> None:
        """Do nothing: the deadline stands."""

    def is_quiet(self) -> bool:
        """Say whether nothing has come, and the other side has not closed: so it must be between two exchanges."""
        self._socket.settimeout(0)
        try:
            self._socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        return False

    def shutdown(self, how: int) -> None:
        """End one direction or both."""
        self._socket.shutdown(how)

    def close(self) -> None:
        """Let go of the descriptor."""
        self._socket.close()


def make_tls(state: RedisState) -> ssl.SSLContext | None:
    """Return how to speak TLS as the state says; None: not at all. Raises StoreError for files that cannot be used."""
    if not state.is_tls:
        return None
    try:
        context = ssl.create_default_context(cafile=state.ca_file or None)
        if state.certificate_file:
            context.load_cert_chain(state.certificate_file, state.key_file or None, password=_no_passphrase)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        files = ", ".join(file for file in (state.ca_file, state.certificate_file, state.key_file) if file)
        raise StoreError(StoreFailure.REFUSED, f"TLS files {files}: {error}") from None
    return context


def _no_passphrase() -> str:
    """Say none: OpenSSL would ask at a daemon's terminal."""
    raise ValueError("the key has a passphrase")


class Names:
    """The addresses of servers that are configured by name.

    The system's resolver knows no deadline, and may be just what is away: it is asked on a thread, waited for no longer than
    half of the time left, and until it answers the addresses serve that it gave the last time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, ...]] = {}
        self._asked: dict[str, Future[tuple[str, ...]]] = {}

    def resolve(self, name: str, deadline: float) -> tuple[str, ...]:
        """Return the addresses of a name; an address is its own. Raises OSError, TimeoutError among them."""
        if is_address(name):
            return (name,)
        asked = self._ask(name)
        try:
            found = asked.result(timeout=time_left(deadline) / 2)
        except (FutureTimeout, OSError) as error:
            known = self._known.get(name)
            if known is None:
                raise error if isinstance(error, OSError) else TimeoutError() from None
            return known
        self._known[name] = found
        return found

    def _ask(self, name: str) -> Future[tuple[str, ...]]:
        """Return the question under way, or begin one: of each name there is one at a time."""
        with self._lock:
            asked = self._asked.get(name)
            if asked is None or asked.done():
                asked = self._asked[name] = Future()
                threading.Thread(target=_ask_system, args=(name, asked), name="redis-name", daemon=True).start()
        return asked


def _ask_system(name: str, answer: Future[tuple[str, ...]]) -> None:
    try:
        found = socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM)
    except OSError as error:
        answer.set_exception(error)
    except UnicodeError:  # no name at all
        answer.set_exception(OSError(f"{name} is no name"))
    else:
        answer.set_result(tuple(dict.fromkeys(str(address[0]) for _, _, _, _, address in found)))
