"""What the lists of greylisting speak of: networks, names, senders, recipients; and whether one of them is meant. No I/O.

Compiled into sets and look-ups by prefix and by label, so that a long list costs no more than a short one.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from mailward.model.address import read_address
from mailward.model.domain import InvalidDomain, normalize, parents
from mailward.model.greylist import EntryKind
from mailward.policy.greylist_key import correspondent

MAX_SUBJECT = 320  # of an entry; no address is longer
MIN_IPV4_PREFIX = 8  # a shorter one is a slip of the pen, not a network somebody has dealings with
MIN_IPV6_PREFIX = 16

_NAME_START = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")

_Shifted = tuple[tuple[int, frozenset[int]], ...]


@dataclass(frozen=True, slots=True)
class _Prefixes:
    """Networks as numbers: for each prefix length, how far to shift an address, and what then is one of the networks."""

    ipv4: _Shifted = ()
    ipv6: _Shifted = ()


@dataclass(frozen=True, slots=True)
class _Addresses:
    """Addresses, local parts of whatever domain, and domains that stand for themselves and what is below."""

    addresses: frozenset[str] = frozenset()
    local_parts: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Subjects:
    """The subjects of one list."""

    networks: _Prefixes = _Prefixes()
    names: frozenset[str] = frozenset()
    name_starts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # how names below a domain begin
    senders: _Addresses = _Addresses()
    recipients: _Addresses = _Addresses()


class ListedClient(NamedTuple):
    """A client as the lists look at it: its address as a number, its confirmed name and the names above."""

    version: int
    number: int
    names: tuple[str, ...]


def normalize_subject(kind: EntryKind, text: str) -> str:
    """Return what an entry speaks of in its one form. Raises ValueError that says what was expected.

    A network is a network or an address, a mapped one as IPv4. A name stands for itself and what is below it, and
    `mail*.example.com` for what is below example.com and begins so. A sender or a recipient is an address, a domain and what
    is below it, or a local part at any domain.

    >>> normalize_subject(EntryKind.NETWORK, "192.0.2.7"), normalize_subject(EntryKind.RECIPIENT, "Postmaster@")
    ('192.0.2.7/32', 'postmaster@')
    """
    if len(text) > MAX_SUBJECT:
        raise ValueError(f"expected at most {MAX_SUBJECT} characters")
    return _NORMALIZERS[kind](text)


def _normal_network(text: str) -> str:
    expected = 'expected an address or a network, such as "192.0.2.7" or "2001:db8::/32"'
    if "%" in text:  # a zone
        raise ValueError(expected)
    try:
        network = ipaddress.ip_network(text)
        address = read_address(str(network.network_address))
    except ValueError:
        raise ValueError(expected) from None
    if address.version != network.version and network.prefixlen >= 96:
        network = ipaddress.ip_network((int(address), network.prefixlen - 96))
    if network.prefixlen < (MIN_IPV4_PREFIX if network.version == 4 else MIN_IPV6_PREFIX):
        raise ValueError(f"{expected}: this one is a large part of the Internet")
    return str(network)


def _normal_name(text: str) -> str:
    expected = 'expected a client\'s name, the domain above it, or a pattern such as "mail*.example.com"'
    start, star, domain = text.partition("*.")
    try:
        if star and "." in domain and _NAME_START.fullmatch(start.lower()):
            return f"{start.lower()}*.{normalize(domain)}"
        name = normalize(text.removeprefix("."))
    except InvalidDomain as error:
        raise ValueError(f"{expected} ({error})") from None
    top = name.rpartition(".")[2]
    if top == name or top.isdigit():  # a top-level domain, or an address
        raise ValueError(f"{expected}, of two labels or more")
    return name


def _normal_address(text: str) -> str:
    local_part, at, domain = text.removeprefix("<").removesuffix(">").rpartition("@")
    if re.search(r"\s", local_part) and not local_part.startswith('"'):
        raise ValueError("expected one address, one domain, or one local part, without spaces")
    try:
        if not at or not local_part:
            return normalize(domain.removeprefix("."))
        name = normalize(domain) if domain else ""
    except InvalidDomain as error:
        raise ValueError(f'expected an address, a domain, or a local part such as "postmaster@" ({error})') from None
    # "replace": what is no text stands for nobody, and nobody's address has a question mark by accident.
    return correspondent(f"{local_part}@{name}".encode("utf-8", "replace"))


_NORMALIZERS = {
    EntryKind.NETWORK: _normal_network,
    EntryKind.NAME: _normal_name,
    EntryKind.SENDER: _normal_address,
    EntryKind.RECIPIENT: _normal_address,
}


def compile_subjects(subjects: Iterable[tuple[EntryKind, str]]) -> Subjects:
    """Compile subjects in their normal form."""
    of_kind: dict[EntryKind, list[str]] = {kind: [] for kind in EntryKind}
    for kind, subject in subjects:
        of_kind[kind].append(subject)
    name_starts: dict[str, tuple[str, ...]] = {}
    for subject in of_kind[EntryKind.NAME]:
        start, star, domain = subject.partition("*.")
        if star:
            name_starts[domain] = (*name_starts.get(domain, ()), start)
    return Subjects(
        _compile_networks(of_kind[EntryKind.NETWORK]),
        frozenset(subject for subject in of_kind[EntryKind.NAME] if "*" not in subject),
        name_starts,
        _compile_addresses(of_kind[EntryKind.SENDER]),
        _compile_addresses(of_kind[EntryKind.RECIPIENT]),
    )


def _compile_networks(subjects: list[str]) -> _Prefixes:
    numbers: dict[int, dict[int, set[int]]] = {4: {}, 6: {}}
    for subject in subjects:
        network = ipaddress.ip_network(subject)
        shift = network.max_prefixlen - network.prefixlen
        numbers[network.version].setdefault(shift, set()).add(int(network.network_address) >> shift)
    ipv4, ipv6 = (tuple((shift, frozenset(found)) for shift, found in numbers[version].items()) for version in (4, 6))
    return _Prefixes(ipv4, ipv6)


def _compile_addresses(subjects: list[str]) -> _Addresses:
    return _Addresses(
        frozenset(subject for subject in subjects if "@" in subject[:-1] and not subject.endswith("@")),
        frozenset(subject for subject in subjects if subject.endswith("@")),
        frozenset(subject for subject in subjects if "@" not in subject),
    )


def unite(lists: Iterable[Subjects]) -> Subjects:
    """Return the list that has what any of the lists has."""
    united = Subjects()
    for subjects in lists:
        united = Subjects(
            _Prefixes(
                _unite_prefixes(united.networks.ipv4, subjects.networks.ipv4),
                _unite_prefixes(united.networks.ipv6, subjects.networks.ipv6),
            ),
            united.names | subjects.names,
            _unite_starts(united.name_starts, subjects.name_starts),
            _unite_addresses(united.senders, subjects.senders),
            _unite_addresses(united.recipients, subjects.recipients),
        )
    return united


def _unite_prefixes(one: _Shifted, other: _Shifted) -> _Shifted:
    united = dict(one)
    for shift, networks in other:
        united[shift] = united.get(shift, frozenset()) | networks
    return tuple(united.items())


def _unite_starts(
    one: Mapping[str, tuple[str, ...]], other: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    return {domain: (*one.get(domain, ()), *other.get(domain, ())) for domain in (*one, *other)}


def _unite_addresses(one: _Addresses, other: _Addresses) -> _Addresses:
    return _Addresses(one.addresses | other.addresses, one.local_parts | other.local_parts, one.domains | other.domains)


@functools.lru_cache(maxsize=1024)  # once a client instead of once a recipient
def read_listed_client(client_address: str, client_name: str) -> ListedClient:
    """Return a client as the lists look at it."""
    try:
        address = read_address(client_address.partition("%")[0]) if len(client_address) <= 64 else None
    except ValueError:
        address = None
    try:
        # "unknown", which Postfix says where it has confirmed none, is below no domain that a list may have.
        name = normalize(client_name)
    except InvalidDomain:
        name = ""
    names = (name, *parents(name)) if name else ()
    return ListedClient(address.version, int(address), names) if address is not None else ListedClient(0, 0, names)


@functools.lru_cache(maxsize=512)  # a sender writes to several, and recipients come again: 0.1 us instead of 1
def forms_of(address: bytes) -> tuple[str, ...]:
    """Return what an entry may say to mean this address: the address itself, last without its extension."""
    exact = correspondent(address)
    local_part, at, domain = exact.rpartition("@")
    if not at:
        return (exact,)
    name, plus, _ = local_part.partition("+")
    return (exact, f"{name}@{domain}") if plus and name else (exact,)


def which(
    subjects: Subjects, client: ListedClient, sender: tuple[str, ...], recipient: tuple[str, ...]
) -> EntryKind | None:
    """Return what of a client, a sender and a recipient is in a list, or None; addresses as `forms_of` gives them."""
    if client.version and _is_in(subjects.networks, client):
        return EntryKind.NETWORK
    if client.names and _is_named(subjects, client.names):
        return EntryKind.NAME
    if sender and _is_among(subjects.senders, sender):
        return EntryKind.SENDER
    if recipient and _is_among(subjects.recipients, recipient):
        return EntryKind.RECIPIENT
    return None


def _is_in(prefixes: _Prefixes, client: ListedClient) -> bool:
    number = client.number
    for shift, networks in prefixes.ipv4 if client.version == 4 else prefixes.ipv6:  # noqa: SIM110 - any() costs 0.4 us
        if number >> shift in networks:
            return True
    return False


def _is_named(subjects: Subjects, names: tuple[str, ...]) -> bool:
    if not subjects.names.isdisjoint(names):
        return True
    starts = subjects.name_starts
    return bool(starts) and any(name in starts and names[0].startswith(starts[name]) for name in names[1:])


def _is_among(listed: _Addresses, forms: tuple[str, ...]) -> bool:
    if listed.addresses and not listed.addresses.isdisjoint(forms):
        return True
    if not listed.local_parts and not listed.domains:
        return False
    for form in forms:
        local_part, at, domain = form.rpartition("@")
        # RFC 5321 4.5.1: "postmaster" stands without a domain, too.
        if listed.local_parts and f"{local_part if at else domain}@" in listed.local_parts:
            return True
    return bool(at and listed.domains) and (domain in listed.domains or not listed.domains.isdisjoint(parents(domain)))
