"""The nameservers of the verifiers and greylisters: NSD at port 53 of addresses that are this benchmark's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.incoming import zones
from bench.keys import Key
from bench.namespace import NAMESERVERS
from bench.workbench import DNS_TTL
from tests.support.nameserver import Nameserver


@contextmanager
def open_nameservers(
    folder: Path, key: Key, *, count: int = 1, domains: int = 0, ttl: int = DNS_TTL
) -> Iterator[Sequence[Nameserver]]:
    """Run `count` nameservers with the same zones: that of the small message, and of `domains` more."""
    with ExitStack() as stack:
        nameservers = []
        for number in range(count):
            nameserver = Nameserver(folder / f"nsd-{number}", zones(key, domains), ttl=ttl)
            nameserver.address = NAMESERVERS[number]
            nameservers.append(stack.enter_context(nameserver))
        yield nameservers
