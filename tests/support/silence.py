"""Nameservers that answer nothing for a while, or nothing of use, as when the network behind them is gone."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager

from tests.support.nameserver import Nameserver
from tests.support.odd_nameserver import OddNameserver, Reply


@contextmanager
def silenced(nameservers: Sequence[Nameserver]) -> Iterator[None]:
    """Have sockets that never answer in the place of these nameservers for a while; afterwards they answer again.

    Stopping NSD's processes would not do: once they go on they answer all that was asked meanwhile, which no server that
    was unreachable does.
    """
    with replaced(nameservers, _silence):
        yield


@contextmanager
def cut_off(nameservers: Sequence[Nameserver], reply: Reply) -> Iterator[None]:
    """Have resolvers without a line in the place of these nameservers: they know the root, and give `reply` to all else."""
    with replaced(nameservers, lambda nameserver: OddNameserver(reply, deep=reply, at=nameserver)):
        yield


@contextmanager
def replaced(
    nameservers: Sequence[Nameserver], make: Callable[[tuple[str, int]], AbstractContextManager[object]]
) -> Iterator[None]:
    """Stop these nameservers, and have what `make` opens at their addresses until they start again."""
    try:
        with ExitStack() as instead:
            for nameserver in nameservers:
                nameserver.stop()
                instead.enter_context(make((nameserver.address, nameserver.port)))
            yield
    finally:
        with ThreadPoolExecutor() as together:  # so that they return at the same time
            list(together.map(Nameserver.start, nameservers))


@contextmanager
def _silence(address: tuple[str, int]) -> Iterator[None]:
    with _mute(socket.SOCK_DGRAM, address), _mute(socket.SOCK_STREAM, address):
        yield


def _mute(kind: socket.SocketKind, address: tuple[str, int]) -> socket.socket:
    """Return a bound socket that nobody reads; TCP connections are taken by the kernel alone."""
    bound = socket.socket(socket.AF_INET, kind)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(address)
    if kind is socket.SOCK_STREAM:
        bound.listen()
    return bound
