"""What signing, verifying and ARC share: tag lists, canonical fields, the key record. The only import of dkimpy.

dkimpy reads tag lists here. Its canonicalization serves as the oracle in the tests; its `sign` and `verify` are never used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dkim.util import InvalidTagValueList, parse_tag_value

from mailward.auth.body_hash import CRLF, Canonicalization
from mailward.auth.keys import Algorithm, InvalidKey, PrivateKey, same_public_key
from mailward.model.dns import Answer, AnswerStatus, Question, RecordType
from mailward.model.message import HeaderField
from mailward.model.results import Publication, PublicationResult

REVOKED = "the key is revoked (p= is empty)"
MAX_TAG_LIST = 16 * 1024  # a record with an 8192-bit key has 1.4 kB; a stranger's DNS may send 64 kB

MAX_TAGS = 100  # the RFCs know fourteen; a hundred fields of thousands each would take a third of a second

# White space for Python that is none for RFC 5322, or a CR or LF outside a fold: such values take the slow way.
_NOT_PLAIN = b"\r\n\x0b\x0c"
_ODD_WHITE_SPACE = re.compile(rb"[\x0b\x0c]|\r(?!\n[ \t])|(?<!\r)\n")


class MalformedTagList(ValueError):
    """The text is no tag list (RFC 6376 3.2); the message says why, without repeating the text."""


class UnusableKeyRecord(ValueError):
    """The record publishes no key that may verify mail; the message says why, without repeating the record."""


@dataclass(frozen=True, slots=True)
class Canonicalizations:
    """The two halves of `c=`: how header fields are made equal, and how the body is."""

    header: Canonicalization = Canonicalization.RELAXED
    body: Canonicalization = Canonicalization.RELAXED

    def __str__(self) -> str:
        return f"{self.header.value}/{self.body.value}"


def parse_tags(text: bytes) -> dict[bytes, bytes]:
    """Parse a tag list into its tags; folds inside values stay. Raises MalformedTagList, for a duplicate tag too."""
    if len(text) > MAX_TAG_LIST:
        raise MalformedTagList("longer than any tag list has reason to be")
    if text.count(b";") > MAX_TAGS:
        raise MalformedTagList(f"more than {MAX_TAGS} tags")
    try:
        return dict(parse_tag_value(text))
    except InvalidTagValueList:
        raise MalformedTagList("a tag is malformed or stands twice") from None


def canonical_field(field: HeaderField, canonicalization: Canonicalization) -> bytes:
    """Return a header field as it is hashed, with its CRLF (RFC 6376 3.4.1, 3.4.2)."""
    if canonicalization is Canonicalization.SIMPLE:
        return field.name + b":" + field.raw_value + CRLF
    return field.compared_name + b":" + _relaxed_value(field.raw_value) + CRLF


def _relaxed_value(raw_value: bytes) -> bytes:
    r"""Unfold, make white space runs one space, strip both ends.

    `split()` does all of it in C, four times faster than a regular expression over `[ \t]+`, and is right
    unless the value has octets that only Python takes for white space.
    """
    if len(raw_value.translate(None, _NOT_PLAIN)) == len(raw_value) or not _ODD_WHITE_SPACE.search(raw_value):
        return b" ".join(raw_value.split())
    unfolded = raw_value.replace(CRLF, b"").replace(b"\t", b" ")
    while b"  " in unfolded:
        unfolded = unfolded.replace(b"  ", b" ")
    return unfolded.strip(b" ")


class ReceivedHeader:
    """The header of a received message, grouped and made canonical once for all of its signatures.

    White space before a field's colon (RFC 5322 4.5.8) does not make another name of it.
    """

    __slots__ = ("_canonical", "_groups", "repeated")

    def __init__(self, fields: Iterable[HeaderField]) -> None:
        self._groups: dict[bytes, list[HeaderField]] = {}
        self._canonical: dict[Canonicalization, dict[bytes, list[bytes]]] = {form: {} for form in Canonicalization}
        for field in fields:
            self._groups.setdefault(field.compared_name, []).append(field)
        # The names that stand more than once, each with how often.
        self.repeated = {name: len(group) for name, group in self._groups.items() if len(group) > 1}

    def fields(self, name: bytes) -> list[HeaderField]:
        """Return the fields of that name (lower case) in the order of the message; not to be changed."""
        return self._groups.get(name, [])

    def signed(
        self, names: Iterable[bytes], canonicalization: Canonicalization, own_name: bytes, own_position: int
    ) -> bytes:
        """Return what the items of h= stand for, as it is hashed: each name's last instance first (RFC 6376 5.4.2).

        A name that stands more often than its field occurs adds nothing. The signature's own field, the one at
        `own_position` among those named `own_name`, is never among them (RFC 6376 3.5).
        """
        taken: dict[bytes, int] = {}
        picked = []
        for name in names:
            group = self._canonical_group(name, canonicalization)
            left = taken.get(name, len(group))
            if left and name == own_name and left - 1 == own_position:
                left -= 1
            if left:
                picked.append(group[left - 1])
                taken[name] = left - 1
        return b"".join(picked)

    def _canonical_group(self, name: bytes, canonicalization: Canonicalization) -> list[bytes]:
        groups = self._canonical[canonicalization]
        group = groups.get(name)
        if group is None:
            group = [canonical_field(field, canonicalization) for field in self._groups.get(name, ())]
            groups[name] = group
        return group


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key record that may verify mail signed with SHA-256 (RFC 6376 3.6.1); `p` is the text of its `p=`, never empty."""

    p: bytes
    is_testing: bool = False  # t=y: mail is to be treated as unsigned
    is_strict: bool = False  # t=s: the auid's domain must be the signing domain itself


def parse_key_record(record: bytes, algorithm: Algorithm) -> KeyRecord:
    """Read a key record for signatures of `algorithm` on mail. Raises UnusableKeyRecord, which says why."""
    try:
        tags = parse_tags(record)
    except MalformedTagList as error:
        raise UnusableKeyRecord(f"the record is no tag list: {error}") from None
    if b"v" in tags and (tags[b"v"] != b"DKIM1" or next(iter(tags)) != b"v"):
        raise UnusableKeyRecord("v= is not DKIM1, or not the record's first tag")
    if b"p" not in tags:
        raise UnusableKeyRecord("the record has no p=")
    if not tags[b"p"]:
        raise UnusableKeyRecord(REVOKED)
    if tags.get(b"k", b"rsa") != algorithm.key_type.encode():
        raise UnusableKeyRecord(f"k= is not {algorithm.key_type}")
    if not _list_has(tags.get(b"h", b"sha256"), b"sha256"):
        raise UnusableKeyRecord("h= does not allow sha256")
    if not _list_has(tags.get(b"s", b"*"), b"*", b"email"):
        raise UnusableKeyRecord("s= does not allow email")
    flags = tags.get(b"t", b"")
    return KeyRecord(tags[b"p"], is_testing=_list_has(flags, b"y"), is_strict=_list_has(flags, b"s"))


def _list_has(value: bytes, *wanted: bytes) -> bool:
    """Say whether a colon-separated tag value names one of `wanted`."""
    return any(item.strip() in wanted for item in value.split(b":"))


def find_publication(
    signing_domain: str, selector: str, key: PrivateKey, ask: Callable[[Question], Answer]
) -> PublicationResult:
    """Compare a private key with the record of its selector (RFC 6376 3.6.2.1); UNKNOWN where the DNS is away."""
    answer = ask(Question(f"{selector}._domainkey.{signing_domain}", RecordType.TXT))
    if answer.status is AnswerStatus.TEMPFAIL:
        return PublicationResult(Publication.UNKNOWN, answer.reason)
    return compare_record(answer.records, key)


def compare_record(records: tuple[bytes, ...], key: PrivateKey) -> PublicationResult:
    """Say whether the TXT records of a selector publish `key` for mail signed with SHA-256 (RFC 6376 3.6.1, RFC 8463 4).

    With several records, which the RFC leaves undefined, every one must publish the key: a verifier may take any.
    """
    if not records:
        return PublicationResult(Publication.MISSING, "no TXT record")
    for record in records:
        fault = _record_fault(record, key)
        if fault:
            return PublicationResult(Publication.DIFFERENT, fault)
    return PublicationResult(Publication.PUBLISHED)


def _record_fault(record: bytes, key: PrivateKey) -> str:
    """Return what keeps this record from verifying signatures made with `key`; empty where nothing does."""
    try:
        is_same = same_public_key(key, parse_key_record(record, key.algorithm).p)
    except (UnusableKeyRecord, InvalidKey) as error:
        return str(error)
    return "" if is_same else "p= holds another key"
