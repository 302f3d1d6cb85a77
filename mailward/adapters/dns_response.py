r"""What a nameserver's octets say: whether they belong to a query, and the Answer in them. No sockets, no clock, no library.

dnspython is the oracle of the tests and not used here: to it, 590 MX records of 100 labels each, 13 kB of anybody's answer, are
a second of work, and here some milliseconds; an ordinary answer takes a third. Any octets give an Answer.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from mailward.model.dns import Answer, AnswerStatus, Failure, RecordType, failed

MAX_CHAIN = 12  # CNAMEs, as many as unbound follows
MAX_RECORDS = 1200  # in all of a response; real ones have a few dozen
MAX_NAME = 255  # octets (RFC 1035 2.3.4)
MAX_POINTERS = 127  # in one name: as many as it can have labels; a chain of thousands is somebody's attack on our time
MAX_TTL = 86400  # a day; RFC 8767 4 allows a week at most
MAX_NEGATIVE_TTL = 3600  # RFC 2308 5 recommends one to three hours

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, YXDOMAIN = range(7)
_CODES = (
    "NOERROR",
    "FORMERR",
    "SERVFAIL",
    "NXDOMAIN",
    "NOTIMP",
    "REFUSED",
    "YXDOMAIN",
    "YXRRSET",
    "NXRRSET",
    "NOTAUTH",
)

CLASS_IN = 1
TYPE_NUMBERS = {
    RecordType.A: 1,
    RecordType.NS: 2,
    RecordType.PTR: 12,
    RecordType.MX: 15,
    RecordType.TXT: 16,
    RecordType.AAAA: 28,
}
_CNAME, _SOA, _OPT, _NS = 5, 6, 41, 2

HEADER = struct.Struct("!HHHHHH")
_RECORD = struct.Struct("!HHIH")  # type, class, ttl, length
_RECURSION_AVAILABLE = 0x0080
_TRUNCATED = 0x0200
_RESPONSE_AND_OPCODE = 0xF800  # of these, a response to a standard query has the first bit alone
_RESPONSE = 0x8000


class Query(NamedTuple):
    """A query as it is sent, and what its response is measured by."""

    octets: bytes
    name: bytes  # as on the wire, in lower case
    record_type: RecordType
    question: bytes  # the name, type and class


class _Malformed(ValueError):
    """The octets are no DNS message."""


class _Record(NamedTuple):
    owner: bytes  # in lower case
    number: int  # of its type
    ttl: int
    start: int  # of its value
    end: int


class _Response(NamedTuple):
    octets: bytes
    code: int
    is_recursive: bool
    answers: list[_Record]
    authorities: list[_Record]


def belongs(query: Query, octets: bytes) -> bool:
    """Say whether these are a response to the query: id, kind and question, as RFC 5452 9.1 asks for.

    An error may come without the question: some servers do not read one that they refuse.
    """
    if len(octets) < HEADER.size or octets[:2] != query.octets[:2]:
        return False
    _, flags, questions, answers, _, _ = HEADER.unpack_from(octets)
    if flags & _RESPONSE_AND_OPCODE != _RESPONSE:
        return False
    if questions == 0:
        return response_code(octets) not in (NOERROR, NXDOMAIN) and answers == 0
    end = HEADER.size + len(query.question)
    # No number of a type or class that we ask for is a capital letter, so all of the question may be folded.
    return bool(questions == 1 and octets[HEADER.size : end].lower() == query.question)


def response_code(octets: bytes) -> int:
    """Return the header's response code."""
    return octets[3] & 15


def is_truncated(octets: bytes) -> bool:
    """Say whether the response is only a part, and the whole is to be had over TCP."""
    return bool(HEADER.unpack_from(octets)[1] & _TRUNCATED)


def read_answer(query: Query, octets: bytes, nameserver: str = "") -> Answer:
    """Read a response that belongs to the query; `nameserver` is whose it is, for the answer."""
    try:
        return _judge(query, _parse(query, octets), nameserver)
    except (_Malformed, IndexError, struct.error):  # the last two: octets that end too soon
        return failed(Failure.GARBAGE, nameserver=nameserver)


_FAILURE_OF_CODE = {SERVFAIL: Failure.SERVFAIL, REFUSED: Failure.REFUSED}


def _judge(query: Query, response: _Response, nameserver: str) -> Answer:
    if response.code == YXDOMAIN:  # RFC 6672 2.2: below a DNAME the name became too long, so nobody has it
        return Answer(AnswerStatus.NXDOMAIN, nameserver=nameserver)
    if response.code not in (NOERROR, NXDOMAIN):
        failure = _FAILURE_OF_CODE.get(response.code)
        if failure is not None:
            return failed(failure, nameserver=nameserver)
        word = _CODES[response.code] if response.code < len(_CODES) else str(response.code)
        return failed(Failure.RESPONSE_CODE, word, nameserver)
    name, ttl = query.name, MAX_TTL
    number = TYPE_NUMBERS[query.record_type]
    for _ in range(MAX_CHAIN + 1):
        found = [record for record in response.answers if record.owner == name and record.number == number]
        if found:
            return _found(query, response, found, ttl, nameserver)
        alias = next((record for record in response.answers if record.owner == name and record.number == _CNAME), None)
        if alias is None:
            return _nothing(response, name, ttl, nameserver, is_alias=name != query.name)
        name, ttl = _whole_name(response.octets, alias).lower(), min(ttl, alias.ttl)
    return failed(Failure.GARBAGE, "too many aliases", nameserver)


def _found(query: Query, response: _Response, found: list[_Record], ttl: int, nameserver: str) -> Answer:
    if response.code == NXDOMAIN:
        return failed(Failure.GARBAGE, "records of a name that does not exist", nameserver)
    read = _READERS[query.record_type]
    values = dict.fromkeys(read(response.octets, record) for record in found)  # RFC 2181 5: no record twice
    ttl = min(ttl, *(record.ttl for record in found))
    return Answer(AnswerStatus.FOUND, tuple(values), ttl, nameserver=nameserver)


def _nothing(response: _Response, name: bytes, ttl: int, nameserver: str, *, is_alias: bool) -> Answer:
    """Tell NXDOMAIN from NODATA from a referral, at the end of the aliases (RFC 2308 2.1, 2.2).

    How long that holds is in the SOA record (RFC 2308 5); without one it is not kept. What is said of an alias's target is
    said of that name alone: nothing is concluded about names below the alias (RFC 8020 2).
    """
    soa = next((record for record in response.authorities if record.number == _SOA), None)
    if soa is not None and soa.owner in _self_and_parents(name):
        ttl = min(ttl, soa.ttl, _minimum(response.octets, soa), MAX_NEGATIVE_TTL)
    else:
        ttl = 0
        is_referral = is_alias or any(record.number == _NS for record in response.authorities)
        if response.code == NOERROR and is_referral and not response.is_recursive:
            return failed(Failure.NO_RECURSION, nameserver=nameserver)
    status = AnswerStatus.NXDOMAIN if response.code == NXDOMAIN else AnswerStatus.NODATA
    return Answer(status, ttl=ttl, nameserver=nameserver)


def _parse(query: Query, octets: bytes) -> _Response:
    """Find the records. Raises _Malformed, IndexError, struct.error."""
    _, flags, questions, answers, authorities, additionals = HEADER.unpack_from(octets)
    if answers + authorities + additionals > MAX_RECORDS:
        raise _Malformed
    at = HEADER.size + (len(query.question) if questions else 0)
    records = []
    for _ in range(answers + authorities + additionals):
        owner, at = _name(octets, at)
        number, record_class, ttl, length = _RECORD.unpack_from(octets, at)
        at += _RECORD.size
        if at + length > len(octets):
            raise _Malformed
        if record_class != CLASS_IN and number != _OPT:
            number = 0  # no type anybody looks for
        elif ttl >= 2**31 and number != _OPT:
            ttl = 0  # RFC 2181 8
        records.append(_Record(owner.lower(), number, ttl, at, at + length))
        at += length
    options = (record.ttl for record in records[answers + authorities :] if record.number == _OPT)
    code = (flags & 15) | (next(options, 0) >> 24 << 4)  # RFC 6891 6.1.3
    return _Response(
        octets,
        code,
        bool(flags & _RECURSION_AVAILABLE),
        records[:answers],
        records[answers : answers + authorities],
    )


def _name(octets: bytes, at: int) -> tuple[bytes, int]:
    """Return the name that begins at `at`, uncompressed, and where what follows it begins.

    A pointer leads to what stands before the name that has it (RFC 1035 4.1.4), so none leads in a circle.
    """
    labels = []
    size, first, behind, pointers = 0, at, 0, 0
    while length := octets[at]:
        if length >= 0xC0:
            behind = behind or at + 2
            at = (length & 0x3F) << 8 | octets[at + 1]
            pointers += 1
            if at >= first or pointers > MAX_POINTERS:
                raise _Malformed
            first = at
            continue
        size += length + 1
        if length > 63 or size >= MAX_NAME:
            raise _Malformed
        labels.append(octets[at : at + length + 1])
        at += length + 1
    return b"".join(labels) + b"\0", behind or at + 1


def _whole_name(octets: bytes, record: _Record, offset: int = 0) -> bytes:
    """Return the name a record's value ends with."""
    name, end = _name(octets, record.start + offset)
    if end != record.end:
        raise _Malformed
    return name


def _self_and_parents(name: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(name):
        yield name[at:]
        at += name[at] + 1


def _minimum(octets: bytes, soa: _Record) -> int:
    """Return an SOA record's last number (RFC 1035 3.3.13)."""
    _, at = _name(octets, soa.start)
    _, at = _name(octets, at)
    if at + 20 != soa.end:
        raise _Malformed
    return int.from_bytes(octets[soa.end - 4 : soa.end], "big")


_PLAIN = re.compile(rb"[A-Za-z0-9_-]+")


def _text(name: bytes) -> bytes:
    """Return a name as a zone file has it, with a final dot (RFC 1035 5.1)."""
    labels = []
    at = 0
    while length := name[at]:
        label = name[at + 1 : at + 1 + length]
        labels.append(label if _PLAIN.fullmatch(label) else b"".join(map(_escape, label)))
        at += length + 1
    return b".".join(labels) + b"."


def _escape(octet: int) -> bytes:
    if octet in b'"().;\\@$':
        return b"\\" + bytes((octet,))
    return bytes((octet,)) if 0x20 < octet < 0x7F else b"\\%03d" % octet


def _address(family: socket.AddressFamily, size: int) -> Callable[[bytes, _Record], bytes]:
    def read(octets: bytes, record: _Record) -> bytes:
        if record.end - record.start != size:
            raise _Malformed
        return socket.inet_ntop(family, octets[record.start : record.end]).encode()

    return read


def _read_name(octets: bytes, record: _Record) -> bytes:
    return _text(_whole_name(octets, record))


def _read_exchange(octets: bytes, record: _Record) -> bytes:
    preference = int.from_bytes(octets[record.start : record.start + 2], "big")
    return b"%d %s" % (preference, _text(_whole_name(octets, record, offset=2)))


def _read_strings(octets: bytes, record: _Record) -> bytes:
    """Return the strings of a TXT record, joined (RFC 7208 3.3, RFC 6376 3.6.2.2)."""
    strings = []
    at = record.start
    while at < record.end:
        end = at + 1 + octets[at]
        strings.append(octets[at + 1 : end])
        at = end
    if at != record.end or not strings:
        raise _Malformed
    return b"".join(strings)


_READERS: dict[RecordType, Callable[[bytes, _Record], bytes]] = {
    RecordType.A: _address(socket.AF_INET, 4),
    RecordType.AAAA: _address(socket.AF_INET6, 16),
    RecordType.MX: _read_exchange,
    RecordType.NS: _read_name,
    RecordType.PTR: _read_name,
    RecordType.TXT: _read_strings,
}
