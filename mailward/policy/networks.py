"""Whether a client is in one of the operator's networks. No I/O."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from mailward.model.address import read_address

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def is_in_networks(client_address: str, networks: Iterable[Network]) -> bool:
    """Say whether the address is in one of `networks`; an unknown address (empty) is in none, a mapped one counts as IPv4.

    >>> is_in_networks("::ffff:192.0.2.7", [ipaddress.ip_network("192.0.2.0/24")])
    True
    """
    if not client_address:
        return False
    address = read_address(client_address)
    return any(address in network for network in networks)
