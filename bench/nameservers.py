"""The nameservers of the verifiers: NSD at port 53 of addresses that are this benchmark's own, silenced at will."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.incoming import zones
from bench.keys import Key
from bench.namespace import NAMESERVERS
from bench.workbench import DNS_TTL
from tests.support.nameserver import Nameserver


@contextmanager
def open_nameservers(folder: Path, key: Key, *, count: int = 1, domains: int = 0) -> Iterator[Sequence[Nameserver]]:
    """Run `count` nameservers with the same zones: that of the small message, and of `domains` more."""
    with ExitStack() as stack:
        nameservers = []
        for number in range(count):
            nameserver = Nameserver(folder / f"nsd-{number}", zones(key, domains), ttl=DNS_TTL)
            nameserver.address = NAMESERVERS[number]
            nameservers.append(stack.enter_context(nameserver))
        yield nameservers


@contextmanager
def silenced(nameservers: Sequence[Nameserver]) -> Iterator[None]:
    """Have sockets that never answer in the place of these nameservers for a while; afterwards they answer again.

    Stopping NSD's processes would not do: once they go on they answer all that was asked meanwhile, which no server that
    was unreachable does.
    """
    with ExitStack() as mute:
        for nameserver in nameservers:
            nameserver.stop()
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                mute.enter_context(_mute(kind, (nameserver.address, nameserver.port)))
        yield
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
