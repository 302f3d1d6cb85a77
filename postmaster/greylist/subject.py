"""What an operator means by ADDR or WHAT: a client's address or network, a name or domain, a mailbox. No I/O."""

from __future__ import annotations

import functools
import ipaddress
from dataclasses import dataclass
from enum import Enum

from mailward.model.address import read_address
from mailward.model.domain import normalize
from mailward.model.greylist import Entry, EntryKind, Triplet
from mailward.policy.greylist_key import compared_recipient, compared_sender, correspondent
from mailward.policy.networks import Network
from mailward.policy.subjects import compile_subjects, forms_of, normalize_subject, read_listed_client, which

MAX_SUBJECT = 320
NULL_SENDER = "<>"


class Role(Enum):
    """In which part of a triplet a mailbox or domain is looked for."""

    ANY = "any"
    SENDER = "sender"
    RECIPIENT = "recipient"


class NoSubject(ValueError):
    """The text is none of what it may be; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class Client:
    """A client's address (a network of one) or network."""

    network: Network

    def __str__(self) -> str:
        return str(self.network.network_address) if self.is_address else str(self.network)

    @property
    def is_address(self) -> bool:
        """Whether this is one address."""
        return self.network.prefixlen == self.network.max_prefixlen

    def has_origin(self, origin: str) -> bool:
        """Say whether clients of the origin and of this one may be the same."""
        if origin in _above(self.network):
            return True
        if self.is_address or not origin.startswith(_start(self.network)) or "/" not in origin:
            return False
        other = read_network(origin)
        return other is not None and is_within(other, self.network)

    def is_in(self, origin: str) -> bool:
        """Say whether the origin stands for all these clients."""
        return origin in _above(self.network)

    def has_triplet(self, triplet: Triplet) -> bool:
        """Say whether the triplet is one of these clients'."""
        return self.has_origin(triplet.origin)

    def touches(self, triplet: Triplet) -> bool:
        """Say whether the triplet has anything to do with these clients."""
        return self.has_triplet(triplet)

    def is_met_by(self, entry: Entry) -> bool:
        """Say whether the entry speaks of any of these clients."""
        if entry.kind is not EntryKind.NETWORK:
            return False
        other = read_network(entry.subject)
        return other is not None and (is_within(other, self.network) or is_within(self.network, other))

    def is_within(self, entry: Entry) -> bool:
        """Say whether the entry speaks of all these clients."""
        other = read_network(entry.subject) if entry.kind is EntryKind.NETWORK else None
        return other is not None and is_within(self.network, other)

    def covers(self, entry: Entry) -> bool:
        """Say whether the entry speaks of nothing but these clients."""
        other = read_network(entry.subject) if entry.kind is EntryKind.NETWORK else None
        return other is not None and is_within(other, self.network)


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain and what is below it: of clients that SPF vouches for, of their names, of senders and recipients."""

    name: str
    role: Role = Role.ANY

    def __str__(self) -> str:
        return self.name

    def has_origin(self, origin: str) -> bool:
        """Say whether the origin is this domain."""
        return self.role is Role.ANY and self._has(origin)

    def is_in(self, origin: str) -> bool:
        """Say whether the origin is just this domain."""
        return self.role is Role.ANY and origin == self.name

    def has_triplet(self, triplet: Triplet) -> bool:
        """Say whether origin or sender belong to the domain; the recipient, where that was asked for.

        Only there: who wants a sender's domain forgotten and names his own shall not lose everything.
        """
        if self.role is Role.RECIPIENT:
            return self._has(_domain_of(triplet.rcpt_to))
        return self._has(_domain_of(triplet.mail_from)) or self.has_origin(triplet.origin)

    def touches(self, triplet: Triplet) -> bool:
        """Say whether the triplet has anything to do with the domain."""
        return self.has_triplet(triplet) or (self.role is Role.ANY and self._has(_domain_of(triplet.rcpt_to)))

    def is_met_by(self, entry: Entry) -> bool:
        """Say whether the entry speaks of the domain or of anything in it."""
        if entry.kind not in _KINDS[self.role]:
            return False
        other = _domain_of(entry.subject).rpartition("*.")[2]
        return bool(other) and (self._has(other) or self.name.endswith("." + other))

    def covers(self, entry: Entry) -> bool:
        """Say whether the entry speaks of nothing but this very domain."""
        return entry.kind in _KINDS[self.role] and entry.subject == self.name

    def _has(self, domain: str) -> bool:
        return domain == self.name or domain.endswith("." + self.name)


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A sender's or recipient's address, as entries and correspondents have it; the null sender is empty."""

    address: str
    octets: bytes
    role: Role = Role.ANY

    def __str__(self) -> str:
        return self.address or NULL_SENDER

    def has_origin(self, _origin: str) -> bool:
        """Say that no origin is a mailbox."""
        return False

    is_in = has_origin

    def has_triplet(self, triplet: Triplet) -> bool:
        """Say whether this is the triplet's sender or recipient."""
        sender, recipient = _compared(self.octets)
        is_sender = self.role is not Role.RECIPIENT and triplet.mail_from == sender
        is_recipient = self.role is not Role.SENDER and bool(self.octets) and triplet.rcpt_to == recipient
        return is_sender or is_recipient

    def touches(self, triplet: Triplet) -> bool:
        """Say whether the triplet has anything to do with the mailbox."""
        return self.has_triplet(triplet)

    def is_met_by(self, entry: Entry) -> bool:
        """Say whether the entry speaks of the mailbox: by itself, or by its domain or local part."""
        if entry.kind is EntryKind.NAME or entry.kind not in _KINDS[self.role] or not self.address:
            return False
        compiled = compile_subjects([(EntryKind.SENDER, entry.subject)])
        return which(compiled, read_listed_client("", ""), forms_of(self.octets), ()) is not None

    def covers(self, entry: Entry) -> bool:
        """Say whether the entry speaks of nothing but this mailbox."""
        return entry.kind in _KINDS[self.role] and bool(self.address) and entry.subject == self.address


@dataclass(frozen=True, slots=True)
class Pattern:
    """What only entries speak of: a local part at any domain, a name with a star."""

    text: str
    kinds: tuple[EntryKind, ...]

    def __str__(self) -> str:
        return self.text

    def has_origin(self, _origin: str) -> bool:
        """Say that no origin is one."""
        return False

    is_in = has_origin

    def has_triplet(self, _triplet: Triplet) -> bool:
        """Say that no triplet has one."""
        return False

    touches = has_triplet

    def is_met_by(self, entry: Entry) -> bool:
        """Say whether the entry says just this."""
        return entry.kind in self.kinds and entry.subject == self.text

    covers = is_met_by


Subject = Client | Domain | Mailbox | Pattern

_KINDS = {
    Role.ANY: (EntryKind.NAME, EntryKind.SENDER, EntryKind.RECIPIENT),
    Role.SENDER: (EntryKind.SENDER,),
    Role.RECIPIENT: (EntryKind.RECIPIENT,),
}


def read_subject(text: str, role: Role = Role.ANY) -> Subject:
    """Read what an operator wrote. Raises NoSubject.

    >>> str(read_subject("192.0.2.7")), str(read_subject("2001:DB8::/32")), str(read_subject("Example.COM."))
    ('192.0.2.7', '2001:db8::/32', 'example.com')
    """
    if len(text) > MAX_SUBJECT:
        raise NoSubject("longer than any address")
    if "@" in text or text in (NULL_SENDER, ""):
        return _read_mailbox(text, role)
    network = _read_client(text)
    if network is not None:
        if role is not Role.ANY:
            raise NoSubject(f"expected a {role.value}'s address or domain, found a client's")
        return Client(network)
    try:
        if "*" in text and role is Role.ANY:
            return Pattern(normalize_subject(EntryKind.NAME, text), (EntryKind.NAME,))
        return Domain(normalize(text), role)
    except ValueError:
        raise NoSubject(_expected(role)) from None


@functools.lru_cache(maxsize=4096)
def read_network(text: str) -> Network | None:
    """Return a network as stores write it; None for what is none."""
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return None


def is_within(inner: Network, outer: Network) -> bool:
    """Say whether every address of `inner` is one of `outer`."""
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def _read_mailbox(text: str, role: Role) -> Mailbox | Pattern:
    address = text.removeprefix("<").removesuffix(">")
    if not address:
        if role is Role.RECIPIENT or text != NULL_SENDER:
            raise NoSubject(_expected(role))
        return Mailbox("", b"", Role.SENDER)
    local_part, _, domain = address.rpartition("@")
    try:
        if local_part and not domain:
            return Pattern(normalize_subject(EntryKind.RECIPIENT, address), _KINDS[role])
        normalize(domain)
        octets = address.encode("utf-8", "surrogateescape")
    except ValueError:
        raise NoSubject(_expected(role)) from None
    if not local_part:
        raise NoSubject(_expected(role))
    return Mailbox(correspondent(octets), octets, role)


@functools.lru_cache(maxsize=8)  # for each of a million triplets
def _compared(octets: bytes) -> tuple[str, str]:
    return compared_sender(octets), compared_recipient(octets)


def _read_client(text: str) -> Network | None:
    """Return an address or network; None for what does not look like one. Raises NoSubject for one with a mistake."""
    if text.replace(".", "").replace("/", "").isdecimal() or ":" in text or "/" in text:
        try:
            if "/" not in text:
                return ipaddress.ip_network(read_address(text.removeprefix("[").removesuffix("]")))
            network = ipaddress.ip_network(text)
        except ValueError as error:
            raise NoSubject(
                f'expected an address or network such as "192.0.2.7" or "2001:db8::/32" ({error})'
            ) from None
        if isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped:
            raise NoSubject("expected an IPv4 network in its own form: a client's mapped address is compared as IPv4")
        return network
    return None


@functools.lru_cache(maxsize=8)
def _above(network: Network) -> frozenset[str]:
    """Return the network and all that hold it, as origins are written: a look into a set for each of a million triplets."""
    return frozenset(str(network.supernet(new_prefix=prefix)) for prefix in range(network.prefixlen + 1))


@functools.lru_cache(maxsize=8)
def _start(network: Network) -> str:
    """Return how the origins in a network begin, as far as that is seen: it spares most of a million from being parsed."""
    octets = str(network.network_address).split(".")[: network.prefixlen // 8] if network.version == 4 else []
    return "".join(f"{octet}." for octet in octets[:3])


def _domain_of(address: str) -> str:
    return address.rpartition("@")[2]


def _expected(role: Role) -> str:
    if role is Role.ANY:
        return "expected a client's address, network or name, a domain, or an address such as bob@example.com"
    return f"expected a {role.value}'s address or domain, such as bob@example.com or example.com"
