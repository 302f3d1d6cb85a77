"""Lists of addresses in the DNS (RFC 5782): which block (DNSBL), which vouch (DNSWL), and which have stopped telling. No I/O.

A list answers with addresses in 127.0.0.0/8. Not every such answer is a listing, and a list that is wrong is wrong about
everybody: each answer that says something of the list instead of the client is told apart.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from mailward.model.address import IpAddress, read_address
from mailward.model.dns import Answer, AnswerStatus, Question, RecordType
from mailward.model.domain import InvalidDomain, normalize

Ask = Callable[[Question], Answer]

MAX_ZONE = 189  # of 253 octets, 64 are the reversed IPv6 address and its dot
MAX_RECORDS = 32  # of an answer that are looked at; the lists of lists give a dozen

_Octets = tuple[int, int, int, int]
_ITEM = re.compile(r"([0-9]{1,3})(?:\.\.([0-9]{1,3}))?")
_FILTER = re.compile(r"(\[[0-9.;]{1,200}\]|[0-9]{1,3})" + r"\.(\[[0-9.;]{1,200}\]|[0-9]{1,3})" * 3)

# 127.255.255.x are Spamhaus's errors: 252 a misspelt zone, 254 a question through a public resolver, 255 too many questions;
# "must not be interpreted as reputation" (spamhaus.org, "DNSBL return codes: technical update", 2019-09-30). Others have
# taken them over. 127.0.0.1 is how URIBL and its kin refuse (uribl.com/refused.shtml); where the configuration counts it, it is
# a listing all the same: there are lists that vouch with it.
_REFUSED_NETWORK = (127, 255, 255)
_REFUSED_ADDRESS = (127, 0, 0, 1)

# dnswl.org answers 127.0.0.255 to all questions of those who ask more than 100,000 times a day ("Am I blocked?", 2014-11), and
# "high trust" to all questions of those who go on (its operator, users@spamassassin.apache.org, 2021-04-12): see _lists_all.
_DNSWL = "dnswl.org"
_DNSWL_REFUSED = (127, 0, 0, 255)

# RFC 5782 5: a list must not list 127.0.0.1. One whose zone has been parked, given up or turned against its questioners does.
_NEVER_LISTED = "1.0.0.127"


class Kind(Enum):
    """What it means to be listed."""

    BLOCK = "dnsbl"
    WELCOME = "dnswl"


@dataclass(frozen=True, slots=True)
class DnsList:
    """A list: its zone, and which answers count as listings, as a set of values for each octet."""

    zone: str
    counted: tuple[frozenset[int], frozenset[int], frozenset[int], frozenset[int]]

    def counts(self, octets: _Octets) -> bool:
        """Say whether an answer is a listing by the configuration."""
        return all(value in allowed for value, allowed in zip(octets, self.counted, strict=True))


@dataclass(frozen=True, slots=True)
class Listing:
    """A client is on a list: which, and what it answered."""

    zone: str
    answer: str


class ListFailure(Enum):
    """Why a list says nothing of the client. The words of the log and of the counter's label."""

    NO_ANSWER = "no-answer"  # the DNS did not answer
    REFUSED = "refused"  # the list does not answer us: too many questions, a public resolver, a wrong key
    NO_LIST = "no-list"  # answers outside 127.0.0.0/8: a parked zone, or a resolver that finds everything
    LISTS_ALL = "lists-all"  # it lists even 127.0.0.1


@dataclass(frozen=True, slots=True)
class ListsAnswer:
    """What the lists said: the first listing, and which lists before it said nothing, with the reason."""

    listing: Listing | None = None
    failures: tuple[tuple[str, ListFailure], ...] = ()


def parse_dns_list(text: str, kind: Kind) -> DnsList:
    """Read a list as Postfix writes it: a zone, and which answers count. Raises ValueError that says what was expected.

    Without answers, those of 127.[0..254].[0..255].[2..254] count as blocked; of the lists that vouch only dnswl.org has a
    default, low trust and better, since what vouches on one list blocks on another (127.0.0.2).

    >>> parse_dns_list("zen.spamhaus.org=127.0.0.[2..11]", Kind.BLOCK).counts((127, 0, 0, 4))
    True
    """
    zone, equals, counted = text.strip().partition("=")
    try:
        zone = normalize(zone.strip())
    except InvalidDomain as error:
        raise ValueError(f'expected a list such as "zen.spamhaus.org=127.0.0.[2..11]" ({error})') from None
    if len(zone) > MAX_ZONE or "." not in zone or zone.rpartition(".")[2].isdigit():
        raise ValueError(f"expected a list's zone, such as 'zen.spamhaus.org', of at most {MAX_ZONE} characters")
    if equals:
        return DnsList(zone, _parse_filter(counted.strip()))
    if kind is Kind.BLOCK:
        return DnsList(zone, _parse_filter("127.[0..254].[0..255].[2..254]"))
    if _is_dnswl(zone):
        return DnsList(zone, _parse_filter("127.0.[0..255].[1..3]"))
    raise ValueError(f'expected which answers vouch, such as "{zone}=127.0.0.[1..3]": each such list has its own')


def _parse_filter(text: str) -> tuple[frozenset[int], frozenset[int], frozenset[int], frozenset[int]]:
    match = _FILTER.fullmatch(text)
    if match is None:
        raise ValueError(
            'expected which answers count, such as "127.0.0.2" or "127.0.[0..255].[1..3;10]", and no weight'
        )
    first, second, third, fourth = (_parse_octet(part) for part in match.groups())
    if first != {127}:
        raise ValueError("expected answers in 127.0.0.0/8: no list has others (RFC 5782 2.1)")
    return first, second, third, fourth


def _parse_octet(text: str) -> frozenset[int]:
    values: set[int] = set()
    for item in text.strip("[]").split(";"):
        match = _ITEM.fullmatch(item)
        low = int(match.group(1)) if match else 1
        high = int(match.group(2) or low) if match else 0
        if not low <= high <= 255:
            raise ValueError('expected numbers up to 255, or ranges such as "[0..255]" and "[2;4..7]", for each octet')
        values.update(range(low, high + 1))
    return frozenset(values)


def listed(client_address: str, lists: Iterable[DnsList], ask: Ask) -> ListsAnswer:
    """Ask the lists in their order until one has the client; an address that is none is on no list.

    What could not be asked is among the failures: nothing is known of it, neither that the client is listed nor that not.
    """
    try:
        address = read_address(client_address.partition("%")[0]) if len(client_address) <= 64 else None
    except ValueError:
        address = None
    if address is None:
        return ListsAnswer()
    reversed_address = _reversed(address)
    failures: list[tuple[str, ListFailure]] = []
    for dns_list in lists:
        found = _ask_one(reversed_address, dns_list, ask)
        if isinstance(found, Listing):
            return ListsAnswer(found, tuple(failures))
        if found is not None:
            failures.append((dns_list.zone, found))
    return ListsAnswer(None, tuple(failures))


def _reversed(address: IpAddress) -> str:
    # RFC 5782 2.1, 2.4: octets, or the 32 digits of an IPv6 address, the other way round.
    return address.reverse_pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")


def _ask_one(reversed_address: str, dns_list: DnsList, ask: Ask) -> Listing | ListFailure | None:
    answer = ask(Question(f"{reversed_address}.{dns_list.zone}", RecordType.A))
    if answer.status is AnswerStatus.TEMPFAIL:
        return ListFailure.NO_ANSWER
    answers = [octets for octets in map(_octets, answer.records[:MAX_RECORDS]) if octets is not None]
    if any(octets[0] != 127 for octets in answers):
        return ListFailure.NO_LIST
    if any(_is_refusal(octets, dns_list) for octets in answers):
        return ListFailure.REFUSED
    for octets in answers:
        if dns_list.counts(octets):
            if _lists_all(dns_list, ask):
                return ListFailure.LISTS_ALL
            return Listing(dns_list.zone, ".".join(map(str, octets)))
    return None


def _octets(record: bytes) -> _Octets | None:
    try:
        first, second, third, fourth = ipaddress.IPv4Address(record.decode("ascii")).packed
    except ValueError:  # no address, or not even ASCII
        return None
    return first, second, third, fourth


def _is_refusal(octets: _Octets, dns_list: DnsList) -> bool:
    if octets[:3] == _REFUSED_NETWORK:
        return True
    if octets == _REFUSED_ADDRESS:
        return not dns_list.counts(octets)
    return octets == _DNSWL_REFUSED and _is_dnswl(dns_list.zone)


def _is_dnswl(zone: str) -> bool:
    return zone == _DNSWL or zone.endswith("." + _DNSWL)


def _lists_all(dns_list: DnsList, ask: Ask) -> bool:
    """Say whether the list has the address that no list has; asked only of a list that has just listed a client, and cached.

    No answer is none against the list: it has just answered.
    """
    answer = ask(Question(f"{_NEVER_LISTED}.{dns_list.zone}", RecordType.A))
    answers = map(_octets, answer.records[:MAX_RECORDS])
    return any(octets is not None and dns_list.counts(octets) for octets in answers)
