"""Of whom a limit counts: logins, addresses, domains and clients as they stand in a counter's key. Pure.

Everything here is printable ASCII without spaces, at most 340 characters, whatever came in. A subject that a request does not
have, or that is none (no login, the null sender, a client without an address), is empty, and a limit of it does not apply.
"""

from __future__ import annotations

import functools
import hashlib
import re
from typing import NamedTuple

from mailward.model.domain import InvalidDomain, normalize
from mailward.policy.greylist_key import UNKNOWN_NETWORK, correspondent, network_of
from mailward.policy.ratelimit import item_of

MAX_OWNER = 340
MAX_ACCOUNT = 320
IPV4_PREFIX = 24  # of a client's network
IPV6_PREFIX = 64

_NOT_PLAIN = re.compile("[^!-~]")
_MAX_DOMAIN = 253
_DIGEST_OCTETS = 8


class Address(NamedTuple):
    """An address: `exact` as correspondents are kept, `plain` without its extension, its domain, what a set has of it."""

    exact: str
    plain: str
    domain: str
    item: bytes


NO_ADDRESS = Address("", "", "", b"")


@functools.lru_cache(maxsize=4096)
def account_of(login: str) -> str:
    r"""Return the account's name: the login in lower case; what is not printable ASCII is escaped.

    >>> account_of("Alice@Example.com"), account_of("b\u00e9a 1")
    ('alice@example.com', 'b\\xe9a\\x201')
    """
    return _clipped(_escaped(login.lower()), MAX_ACCOUNT)


@functools.lru_cache(maxsize=4096)
def domain_of_account(account: str) -> str:
    """Return the domain of an account's name; empty where it has none.

    >>> domain_of_account("alice@example.com"), domain_of_account("alice")
    ('example.com', '')
    """
    _, at, domain = account.rpartition("@")
    return _domain(domain) if at else ""


@functools.lru_cache(
    maxsize=8192
)  # 0.1 us instead of 6; a message's recipient is looked at by each limit, and some come again
def read_address(text: str) -> Address:
    """Return an address as limits compare it: mail to one person is to that person, whatever stands behind the plus.

    >>> read_address("Bob+Lists@Example.org")[:3]
    ('bob+lists@example.org', 'bob@example.org', 'example.org')
    """
    if not text:
        return NO_ADDRESS
    try:
        octets = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        octets = text.encode("utf-8", "backslashreplace")
    exact = correspondent(octets)
    local_part, at, domain = exact.rpartition("@")
    name, plus, _ = local_part.partition("+")
    plain = f"{name}@{domain}" if plus and name else exact
    return Address(exact, plain, _clipped(domain, _MAX_DOMAIN) if at else "", item_of(plain))


@functools.lru_cache(maxsize=4096)
def network(client_address: str) -> str:
    """Return the network that a client is in; empty for what is no address."""
    found = network_of(client_address, IPV4_PREFIX, IPV6_PREFIX)
    return "" if found == UNKNOWN_NETWORK else found


@functools.lru_cache(maxsize=4096)
def client(client_address: str) -> str:
    """Return a client's address in its one form; empty for what is none.

    >>> client("::ffff:192.0.2.7"), client("unknown")
    ('192.0.2.7', '')
    """
    found = network_of(client_address, 32, 128)
    return "" if found == UNKNOWN_NETWORK else found.partition("/")[0]


@functools.lru_cache(maxsize=4096)
def rest_of(parts: tuple[str, ...]) -> str:
    r"""Return the rest of a combined key; no part can be read as two.

    >>> rest_of(("recipient_domain=example.org", "sender=a,b@example.org"))
    'recipient_domain=example.org,sender=a\\x2cb@example.org'
    """
    return _clipped(",".join([part.replace(",", r"\x2c") for part in parts]), MAX_OWNER)


def _domain(text: str) -> str:
    try:
        return normalize(text)
    except InvalidDomain:
        return _clipped(text, _MAX_DOMAIN)


def _escaped(text: str) -> str:
    if text.isascii() and text.isprintable() and " " not in text:
        return text
    return _NOT_PLAIN.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _clipped(text: str, most: int) -> str:
    """Bound a text so that two that differ stay two."""
    if len(text) <= most:
        return text
    digest = hashlib.blake2b(text.encode("ascii"), digest_size=_DIGEST_OCTETS).hexdigest()
    return f"{text[: most - 1 - len(digest)]}~{digest}"
