"""One query on its way to one nameserver, over a socket of its own: a random port is half of what a forger must guess.

Never blocks: the caller polls `descriptor` for `events`, and calls `receive`.
"""

from __future__ import annotations

import select
import socket
import struct
import time

from mailward.adapters.dns_response import Query

MAX_UDP = 4096  # octets; three times what we say that we take
_LENGTH = struct.Struct("!H")

Address = tuple[str, int]


class Attempt:
    """A query that has been sent. The socket is connected, so the kernel drops what comes from elsewhere."""

    __slots__ = (
        "_buffer",
        "_socket",
        "_unsent",
        "descriptor",
        "events",
        "has_edns",
        "is_tcp",
        "query",
        "sent_at",
        "server",
    )

    def __init__(
        self, server: int, address: Address, query: Query, *, has_edns: bool = True, is_tcp: bool = False
    ) -> None:
        """Send `query`; `server` is what the caller calls the nameserver. Raises OSError."""
        self.server = server
        self.query = query
        self.has_edns = has_edns
        self.is_tcp = is_tcp
        self.sent_at = time.monotonic()
        self._buffer = bytearray()
        self._unsent = _LENGTH.pack(len(query.octets)) + query.octets if is_tcp else b""
        self.events = select.POLLOUT if is_tcp else select.POLLIN
        kind = socket.SOCK_STREAM if is_tcp else socket.SOCK_DGRAM
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._socket = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self.descriptor = self._socket.fileno()
        try:
            self._connect(address)
        except OSError:
            self._socket.close()
            raise

    def _connect(self, address: Address) -> None:
        try:
            self._socket.connect(address)
        except BlockingIOError:
            if not self.is_tcp:  # no port is left
                raise
        if not self.is_tcp:
            self._socket.send(self.query.octets)

    def receive(self) -> bytes | None:
        """Return a message; None where there is none yet. Raises OSError, with ICMP's words where a server is not there."""
        try:
            return self._receive_stream() if self.is_tcp else self._socket.recv(MAX_UDP)
        except BlockingIOError:
            return None

    def _receive_stream(self) -> bytes | None:
        if self._unsent:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
            if not self._unsent:
                self.events = select.POLLIN
            return None
        octets = self._socket.recv(65536)
        if not octets:
            raise ConnectionResetError(0, "connection closed")
        self._buffer += octets
        if len(self._buffer) < _LENGTH.size:
            return None
        end = _LENGTH.size + int(_LENGTH.unpack_from(self._buffer)[0])
        return bytes(self._buffer[_LENGTH.size : end]) if len(self._buffer) >= end else None

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
