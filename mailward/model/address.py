"""IP addresses: what is one, and a client's as everybody compares it, an IPv4-mapped one being the IPv4 address (RFC 7208 5)."""

from __future__ import annotations

import functools
import ipaddress

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_address(text: str) -> bool:
    """Say whether a text is an IP address, and not a name.

    >>> is_address("2001:db8::1"), is_address("192.0.2.256")
    (True, False)
    """
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


@functools.lru_cache(maxsize=1024)  # a message's client is looked at three times, and a busy one comes again: 4 us each
def read_address(text: str) -> IpAddress:
    """Read an address. Raises ValueError.

    >>> str(read_address("::ffff:192.0.2.7"))
    '192.0.2.7'
    """
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address
