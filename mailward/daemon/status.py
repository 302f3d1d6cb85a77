"""A small HTTP server for Prometheus, load balancers and the operator, inside the supervisor's selector loop.

GET and HEAD only; one request a connection; non-blocking and bounded, so that no client can hold the supervisor up.
What is shown is decided by the `respond` function it is given.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import formatdate

from mailward.daemon.log import Log
from mailward.model.address import is_address
from mailward.model.errors import ConfigError, Mistake
from mailward.settings.values import Port

MAX_REQUEST = 8 * 1024  # a scrape's request has 300 octets
MAX_CLIENTS = 64
CLIENT_SECONDS = 10.0

# ip(7) and linux/in6.h; Python has no names for them.
_FREE_BIND = {socket.AF_INET: (socket.IPPROTO_IP, 15), socket.AF_INET6: (socket.IPPROTO_IPV6, 78)}

_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    421: "Misdirected Request",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Response:
    """What goes back: a status, a body, a content type, and what a browser may do with it (Content-Security-Policy)."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    policy: str = "default-src 'none'; frame-ancestors 'none'"


@dataclass(slots=True)
class _Client:
    connection: socket.socket
    since: float
    request: bytes = b""
    reply: bytes = b""


Respond = Callable[[str, str], Response]


class StatusServer:
    """Listens at one address; `respond(path, accept)` makes each page."""

    def __init__(self, address: Port, selector: selectors.BaseSelector, respond: Respond, log: Log, where: str) -> None:
        try:
            self._listener, is_there = _listening(address)
        except OSError as error:
            reason = f"cannot listen at {address.host}:{address.port}: {error.strerror}"
            raise ConfigError([Mistake("", where, reason)]) from None
        if not is_there:
            log.error(
                "metrics-address-missing",
                address=address.host,
                advice="this machine has no such address; once it does, it is answered there",
            )
        self._selector = selector
        self._respond = respond
        self._log = log
        self._clients: dict[socket.socket, _Client] = {}
        self._is_paused = False
        self._is_loopback = ipaddress.ip_address(address.host).is_loopback
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def close_inherited(self) -> None:
        """Close this process's copies of the sockets; called in a forked child."""
        self._listener.close()
        for connection in self._clients:
            connection.close()

    def expire(self, now: float) -> None:
        """Drop clients that take longer than CLIENT_SECONDS; listen again after a pause. `now` is monotonic."""
        if self._is_paused:
            self._is_paused = False
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        for client in [client for client in self._clients.values() if now - client.since > CLIENT_SECONDS]:
            self._close(client)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError:  # no descriptor is left: the connection would wake us again and again
            self._selector.unregister(self._listener)
            self._is_paused = True
            return
        connection.setblocking(False)
        if len(self._clients) >= MAX_CLIENTS:  # who keeps us waiting makes room: a scrape takes milliseconds
            self._close(next(iter(self._clients.values())))
        client = _Client(connection, time.monotonic())
        self._clients[connection] = client
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._read(client))

    def _read(self, client: _Client) -> None:
        try:
            octets = client.connection.recv(MAX_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        client.request += octets
        if not octets or len(client.request) > MAX_REQUEST:
            self._close(client)
        elif b"\r\n\r\n" in client.request or b"\n\n" in client.request:
            client.reply = self._answer(client.request)
            self._selector.modify(client.connection, selectors.EVENT_WRITE, lambda: self._write(client))

    def _answer(self, request: bytes) -> bytes:
        # Not splitlines(): it has more ends of a line than HTTP, and a field's value would become a field.
        lines = [line.removesuffix("\r") for line in request.decode("latin-1").split("\n")]
        method, path = ([*lines[0].split(" "), "", ""])[:2]
        if method not in ("GET", "HEAD"):
            response = Response(405, b"GET or HEAD\n")
        elif not path.startswith("/"):
            response = Response(400, b"no path\n")
        else:
            response = self._page(path.partition("?")[0], lines[1:])
        head = (
            f"HTTP/1.1 {response.status} {_REASONS[response.status]}\r\nDate: {formatdate(usegmt=True)}\r\n"
            f"Content-Type: {response.content_type}\r\nContent-Length: {len(response.body)}\r\n"
            + ("Allow: GET, HEAD\r\n" if response.status == 405 else "")
            + f"Content-Security-Policy: {response.policy}\r\nReferrer-Policy: no-referrer\r\n"
            "Cross-Origin-Resource-Policy: same-origin\r\n"
            "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
        )
        return head.encode("latin-1") + (response.body if method != "HEAD" else b"")

    def _page(self, path: str, fields: Sequence[str]) -> Response:
        if path == "/" and self._is_loopback and not _names_this_machine(_value(fields, "host")):
            return Response(421, b"ask for an IP address, or for localhost: this listens on loopback only\n")
        try:
            return self._respond(path, _value(fields, "accept"))
        except Exception:  # noqa: BLE001 - a page that cannot be made must not end the mail service
            self._log.exception("page-failed", path=path)
            return Response(500, b"this page has a bug; the log has its traceback\n")

    def _write(self, client: _Client) -> None:
        try:
            sent = client.connection.send(client.reply)
        except BlockingIOError:
            return
        except OSError:
            sent = len(client.reply)
        client.reply = client.reply[sent:]
        if not client.reply:
            self._close(client)

    def _close(self, client: _Client) -> None:
        """Close a client's connection; one that has made room may have an event left in the same turn of the loop."""
        if self._clients.pop(client.connection, None) is None:
            return
        self._selector.unregister(client.connection)
        client.connection.close()


def address_warnings(address: Port | None) -> Sequence[str]:
    """Return a warning where this machine does not have the address: no error, because it may come yet."""
    if address is not None:
        with contextlib.suppress(OSError), socket.socket(_family(address)) as probe:
            if not _bind(probe, Port(address.host, 0)):
                return (f"metrics: this machine does not have the address {address.host}",)
    return ()


def _family(address: Port) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address.host else socket.AF_INET


def _listening(address: Port) -> tuple[socket.socket, bool]:
    """Return a listener, and whether the machine has its address by now. Raises OSError."""
    listener = socket.socket(_family(address), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        is_there = _bind(listener, address)
        listener.listen(MAX_CLIENTS)
    except OSError:
        listener.close()
        raise
    return listener, is_there


def _bind(listener: socket.socket, address: Port) -> bool:
    """Bind; say whether the machine has that address by now. At its start a VPN's may come late, and no mail waits for that."""
    try:
        listener.bind(tuple(address))
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        listener.setsockopt(*_FREE_BIND[listener.family], 1)
        listener.bind(tuple(address))
        return False
    return True


def _value(fields: Sequence[str], name: str) -> str:
    """Return the value of the first field of that name; empty where there is none."""
    return next((line.partition(":")[2].strip() for line in fields if line.lower().startswith(name + ":")), "")


def _names_this_machine(asked: str) -> bool:
    """Whether a Host field is what somebody on this machine asks for.

    A web page of a stranger may have its name resolve to 127.0.0.1, and would read what a browser here is shown. An address
    cannot be somebody else's, and who sends no Host field is no browser.
    """
    name = asked.rpartition(":")[0] if asked.rpartition(":")[2].isdigit() else asked
    if name.lower().rstrip(".") in ("", "localhost"):
        return True
    return is_address(name.strip("[]"))
