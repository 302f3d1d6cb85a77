"""Of whom a limit counts: logins, addresses, domains and clients as they stand in a counter's key. Pure.

Everything here is printable ASCII without spaces, at most 340 characters, whatever came in. A subject that a request does not
have, or that is none (no login, the null sender, a client without an address), is empty, and a limit of it does not apply.
"""

from __future__ import annotations

import functools
import hashlib
import re
import string
from typing import NamedTuple

from mailward.model.domain import InvalidDomain, normalize
from mailward.policy.greylist_key import UNKNOWN_NETWORK, correspondent, network_of
from mailward.policy.ratelimit import item_of
from mailward.policy.routes import UNCLEAR, read_route

MAX_OWNER = 340
MAX_ACCOUNT = 320
IPV4_PREFIX = 24  # of a client's network
IPV6_PREFIX = 64

_NOT_PLAIN = re.compile("[^!-~]")
_NOT_PLAIN_IN_ACCOUNT = re.compile(r"[^!-\[\]-~]")
_AS_SHOWN = re.compile(r"(?:[!-@\[\]-~]|\\x[0-9a-f]{2}|\\u[0-9a-f]{4}|\\U[0-9a-f]{8}|\\~[0-9a-f]{16}\Z)+")
_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_MAX_DOMAIN = 253
_DIGEST_OCTETS = 8


class Address(NamedTuple):
    """An address: `exact` as correspondents are kept, `plain` without its extension, its domain, what a set has of it.

    `domains` are all that mail to it counts for; `ways` are the addresses that a routed one may mean (mailward.policy.routes).
    """

    exact: str
    plain: str
    domain: str
    item: bytes
    domains: tuple[str, ...] = ()
    is_routed: bool = False
    is_unclear: bool = False
    ways: tuple[str, ...] = ()


NO_ADDRESS = Address("", "", "", b"")


@functools.lru_cache(maxsize=4096)
def account_of(login: str) -> str:
    r"""Return the account's name: the login with A to Z in lower case, as Dovecot has it, and the rest escaped.

    No two logins that Dovecot tells apart have one name: the backslash is escaped, too.

    >>> account_of("Alice@Example.com"), account_of("B\u00c9a 1"), account_of(r"b\x20")
    ('alice@example.com', 'b\\xc9a\\x201', 'b\\x5cx20')
    """
    lower = login.lower() if login.isascii() else login.translate(_ASCII_LOWER)
    if lower.isascii() and lower.isprintable() and " " not in lower and "\\" not in lower:
        escaped = lower
    else:
        escaped = _NOT_PLAIN_IN_ACCOUNT.sub(_escape, lower)
    return _clipped(escaped, MAX_ACCOUNT, "\\~")


@functools.lru_cache(maxsize=4096)
def account_named(text: str) -> str:
    r"""Return the account that an operator names: by its login, or by its name as it is shown.

    `mailward limits` shows every backslash twice, and so does the log.

    >>> account_named("Alice@Example.com"), account_named(r"b\xc9a"), account_named(r"DOMAIN\alice")
    ('alice@example.com', 'b\\xc9a', 'domain\\x5calice')
    >>> account_named(r"b\\xc9a")
    'b\\xc9a'
    """
    for shown in (text, text.replace("\\\\", "\\")):
        if len(shown) <= MAX_ACCOUNT and _AS_SHOWN.fullmatch(shown):
            return shown
    return account_of(text)


def is_escaped(account: str) -> bool:
    """Say whether an account's name is not its login itself."""
    return "\\" in account


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
    local_part, at, domain_octets = octets.rpartition(b"@")
    if not at:
        local_part, domain_octets = octets, b""
    domain = _domain_of(domain_octets)
    route = read_route(local_part)
    if route is None:
        plain = _without_extension(exact)
        return Address(exact, plain, domain, item_of(plain), (domain,) if domain else ())
    # What stands for those that cannot be told is one for all of them.
    others = (UNCLEAR,) if route.is_unclear else tuple(_domain_of(one) for one in route.domains)
    domains = tuple(dict.fromkeys(one for one in (domain, *others) if one))
    ways = () if route.is_unclear else tuple(_without_extension(correspondent(one)) for one in route.addresses)
    return Address(exact, exact, domain, item_of(exact), domains, True, route.is_unclear, ways)


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


@functools.lru_cache(maxsize=4096)
def _domain_of(octets: bytes) -> str:
    try:
        return normalize(octets.decode("utf-8"))
    except (InvalidDomain, UnicodeDecodeError):
        return _clipped(_NOT_PLAIN.sub(_escape, octets.lower().decode("latin-1")), _MAX_DOMAIN)


def _without_extension(exact: str) -> str:
    local_part, _, domain = exact.rpartition("@")
    name, plus, _ = local_part.partition("+")
    return f"{name}@{domain}" if plus and name else exact


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _clipped(text: str, most: int, mark: str = "~") -> str:
    """Bound a text so that two that differ stay two."""
    if len(text) <= most:
        return text
    digest = hashlib.blake2b(text.encode("ascii"), digest_size=_DIGEST_OCTETS).hexdigest()
    return f"{text[: most - len(mark) - len(digest)]}{mark}{digest}"
