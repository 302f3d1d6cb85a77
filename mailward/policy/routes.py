"""Local parts that name another way for the mail: `box%example.org@localhost`, `example.org!box`, `@relay:box@example.org`. Pure.

Postfix takes such a local part apart where the domain behind it is its own, quoted or not, again and again; where it is somebody
else's, the local part is theirs to read. Which domains are its own is not known here, so nothing is chosen: the mail counts for
the domain at its end and for each that the local part names, and a limit is about it where it is about any of these. Thus no
route leads past a limit: what Postfix makes of an address is among what was counted. What cannot be read, or names more domains
than MAX_DOMAINS, is UNCLEAR: it counts for one domain of that name, all of it together, and each limit that wants certain
recipients is about it. A limit that is not about certain domains ("!@example.org") is about a routed address all the same.
"""

from __future__ import annotations

import re
from typing import NamedTuple

UNCLEAR = "%"  # in place of a domain; none has this name
MAX_DOMAINS = 3  # that a local part may name; a person's names one, and each is one more counter to charge

_ROUTING = re.compile(rb'[@%!:"\\]')
_LEADS_ON = re.compile(rb"[@%!]")
_SEPARATORS = re.compile(rb"([@%!:,])")
_ODD = re.compile(rb'[][()<>;"\\\x00-\x20\x7f]')  # Postfix parses it anew: comments go, quotes hide


class Route(NamedTuple):
    """What a local part names: domains, and addresses that are made of its parts."""

    domains: tuple[bytes, ...] = ()
    addresses: tuple[bytes, ...] = ()
    is_unclear: bool = False


_NO_WAY = Route()
_UNCLEAR = Route(is_unclear=True)


def read_route(local_part: bytes) -> Route | None:
    """Return where a local part leads; None where it has nothing of the kind, and what is behind its plus is an extension.

    >>> read_route(b"alice+lists"), read_route(b"alice:1")
    (None, Route(domains=(), addresses=(), is_unclear=False))
    >>> read_route(b"alice%example.org")
    Route(domains=(b'example.org',), addresses=(b'alice@example.org',), is_unclear=False)
    """
    if not _ROUTING.search(local_part):
        return None
    if len(local_part) > 1 and local_part[:1] == local_part[-1:] == b'"':
        local_part = local_part[1:-1]
    if not _LEADS_ON.search(local_part):
        return _NO_WAY
    if _ODD.search(local_part):
        return _UNCLEAR
    return _read(local_part)


def _read(local_part: bytes) -> Route:
    parts = _SEPARATORS.split(local_part)
    domains: dict[bytes, None] = {}
    addresses: dict[bytes, None] = {}
    for before, separator, after in zip(parts[::2], parts[1::2], parts[2::2], strict=False):
        domain, name = (before, after) if separator == b"!" else (after, before)
        if separator in b":," or not domain:
            continue
        domains[domain.lower()] = None
        if name:
            addresses[name + b"@" + domain] = None
        if len(domains) > MAX_DOMAINS:
            return _UNCLEAR
    return Route(tuple(domains), tuple(addresses))
