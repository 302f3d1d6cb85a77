"""Names, queries and zone files, for which it is the only import of dnspython; resolv.conf. No sockets, no clock."""

from __future__ import annotations

import secrets
import struct
from pathlib import Path

import dns.exception
import dns.name
import dns.rdataclass
import dns.rdatatype

from mailward.adapters.dns_response import HEADER, MAX_CHAIN, MAX_NEGATIVE_TTL, MAX_TTL, TYPE_NUMBERS, Query
from mailward.model.address import is_address
from mailward.model.dns import Answer, AnswerStatus, Failure, Question, failed

EDNS_PAYLOAD = 1232  # octets that pass every path unfragmented (DNS flag day 2020)
MAX_NAME_TEXT = 1016  # a name of 254 octets whose every octet is written \DDD
ZONE_FILE_TTL = 3600
RESOLV_CONF = Path("/etc/resolv.conf")

_IN = dns.rdataclass.IN
_RECURSION_DESIRED = 0x0100
_EDNS = struct.pack("!BHHIH", 0, dns.rdatatype.OPT, EDNS_PAYLOAD, 0, 0)  # RFC 6891 6.1.2


class NoName(ValueError):
    """The text is no name the DNS can hold."""


def make_query(question: Question, *, has_edns: bool = True) -> Query:
    """Make a query with a random id. Raises NoName."""
    name = _name(question.name).to_digestable()
    asked = name + struct.pack("!HH", TYPE_NUMBERS[question.record_type], _IN)
    header = HEADER.pack(secrets.randbits(16), _RECURSION_DESIRED, 1, 0, 0, int(has_edns))
    return Query(header + asked + (_EDNS if has_edns else b""), name, question.record_type, asked)


def _name(text: str) -> dns.name.Name:
    """Return an absolute name. Raises NoName; U-labels are the caller's to turn into A-labels, there is one way to do it."""
    if len(text) > MAX_NAME_TEXT or not text.isascii():
        raise NoName
    try:
        return dns.name.from_text(text + ".")
    except (dns.exception.DNSException, struct.error):  # the latter for \999, before dnspython 2.4
        raise NoName from None


def system_nameservers() -> tuple[tuple[str, int], ...]:
    """Return the servers of /etc/resolv.conf; without that file the local one, as resolv.conf(5) says."""
    try:
        text = RESOLV_CONF.read_text(encoding="ascii", errors="replace")
    except OSError:
        text = ""
    return tuple((address, 53) for address in read_resolv_conf(text)) or (("127.0.0.1", 53),)


def read_resolv_conf(text: str) -> tuple[str, ...]:
    r"""Return the addresses of a resolv.conf's nameservers; lines that name none are passed over, as the C library does.

    >>> read_resolv_conf("search example.net\nnameserver 192.0.2.53 # ours\n; nameserver 192.0.2.54\nnameserver ::1")
    ('192.0.2.53', '::1')
    """
    words = (line.split() for line in text.splitlines())
    named = (line[1] for line in words if len(line) > 1 and line[0] == "nameserver")
    return tuple(address for address in named if is_address(address))


class Zone:
    """Answers from a zone file's text instead of the DNS; a name that is not in it does not exist."""

    def __init__(self, text: str) -> None:
        """Read the records; a name without a final dot is below `$ORIGIN`, else absolute.

        Raises ValueError with the library's words, which name a line.
        """
        import dns.tokenizer  # here, because no daemon reads zone files: 1.5 MB of each
        import dns.zone
        import dns.zonefile

        zone = dns.zone.Zone(dns.name.root, relativize=False)
        try:
            with zone.writer(replacement=True) as transaction:
                tokens = dns.tokenizer.Tokenizer(text, "zone")
                dns.zonefile.Reader(tokens, _IN, transaction, default_ttl=ZONE_FILE_TTL).read()
        except (dns.exception.DNSException, ValueError, IndexError, struct.error) as error:
            raise ValueError(str(error) or type(error).__name__) from None
        self._nodes = zone.nodes
        self._names = {ancestor for name in zone.nodes for ancestor in _with_ancestors(name)} | {dns.name.root}

    def ask(self, question: Question) -> Answer:
        """Answer a question; never raises."""
        try:
            name = _name(question.name)
        except NoName:
            return no_name()
        ttl = MAX_TTL
        for _ in range(MAX_CHAIN + 1):
            owner = self._owner(name)
            if owner is None:
                return Answer(AnswerStatus.NXDOMAIN, ttl=min(ttl, MAX_NEGATIVE_TTL))
            node = self._nodes.get(owner)
            found = (
                node.get_rdataset(_IN, dns.rdatatype.RdataType(TYPE_NUMBERS[question.record_type])) if node else None
            )
            if found:
                return Answer(AnswerStatus.FOUND, tuple(_octets(record) for record in found), min(ttl, found.ttl))
            alias = node.get_rdataset(_IN, dns.rdatatype.CNAME) if node else None
            if not alias:
                return Answer(AnswerStatus.NODATA, ttl=min(ttl, MAX_NEGATIVE_TTL))
            name, ttl = alias[0].target, min(ttl, alias.ttl)
        return failed(Failure.GARBAGE, "too many aliases")

    def _owner(self, name: dns.name.Name) -> dns.name.Name | None:
        """Return the name itself, or the wildcard of its closest ancestor that exists (RFC 4592 3.3.1)."""
        if name in self._names:
            return name
        encloser = next(ancestor for ancestor in _with_ancestors(name) if ancestor in self._names)
        wildcard = dns.name.Name((b"*", *encloser.labels))
        return wildcard if wildcard in self._names else None


def _octets(record: object) -> bytes:
    """Return a record's value: the joined strings of a TXT record, the text of any other."""
    strings = getattr(record, "strings", None)
    return b"".join(strings) if strings is not None else str(record).encode("ascii", "backslashreplace")


def _with_ancestors(name: dns.name.Name) -> list[dns.name.Name]:
    return [dns.name.Name(name.labels[start:]) for start in range(len(name.labels))]


def no_name() -> Answer:
    """Return the answer to a question for what is no name: nobody can have it."""
    return Answer(AnswerStatus.NXDOMAIN, reason="no name the DNS can hold")
