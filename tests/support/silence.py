"""Nameservers that answer nothing for a while, as when the network behind them is gone."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from tests.support.nameserver import Nameserver


@contextmanager
def silenced(nameservers: Sequence[Nameserver]) -> Iterator[None]:
    """Have sockets that never answer in the place of these nameservers for a while; afterwards they answer again.

    Stopping NSD's processes would not do: once they go on they answer all that was asked meanwhile, which no server that
    was unreachable does.
    """
    try:
        with ExitStack() as mute:
            for nameserver in nameservers:
                nameserver.stop()
                for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                    mute.enter_context(_mute(kind, (nameserver.address, nameserver.port)))
            yield
    finally:
        with ThreadPoolExecutor() as together:  # so that they return at the same time
            list(together.map(Nameserver.start, nameservers))


def _mute(kind: socket.SocketKind, address: tuple[str, int]) -> socket.socket:
    """Return a bound socket that nobody reads; TCP connections are taken by the kernel alone."""
    bound = socket.socket(socket.AF_INET, kind)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(address)
    if kind is socket.SOCK_STREAM:
        bound.listen()
    return bound
