"""What signing and verifying share: tag lists, canonical header fields, the key record. The only import of dkimpy.

dkimpy reads tag lists here. Its canonicalization serves as the oracle in the tests; its `sign` and `verify` are never used.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from dkim.util import InvalidTagValueList, parse_tag_value

from mailward.auth.body_hash import CRLF, Canonicalization
from mailward.auth.keys import InvalidKey, PrivateKey, same_public_key
from mailward.model.dns import Answer, AnswerStatus, Question, RecordType
from mailward.model.message import HeaderField
from mailward.model.results import Publication, PublicationResult

MAX_TAG_LIST = 16 * 1024  # a record with an 8192-bit key has 1.4 kB; a stranger's DNS may send 64 kB

# White space for Python that is none for RFC 5322, or a CR or LF outside a fold: such values take the slow way.
_NOT_PLAIN = b"\r\n\x0b\x0c"
_ODD_WHITE_SPACE = re.compile(rb"[\x0b\x0c]|\r(?!\n[ \t])|(?<!\r)\n")


class MalformedTagList(ValueError):
    """The text is no tag list (RFC 6376 3.2); the message says why, without repeating the text."""


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
    try:
        return dict(parse_tag_value(text))
    except InvalidTagValueList:
        raise MalformedTagList("a tag is malformed or stands twice") from None


def canonical_field(field: HeaderField, canonicalization: Canonicalization) -> bytes:
    """Return a header field as it is hashed, with its CRLF (RFC 6376 3.4.1, 3.4.2)."""
    if canonicalization is Canonicalization.SIMPLE:
        return field.name + b":" + field.raw_value + CRLF
    return field.name.lower().rstrip(b" \t") + b":" + _relaxed_value(field.raw_value) + CRLF


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
        tags = parse_tags(record)
    except MalformedTagList as error:
        return f"the record is no tag list: {error}"
    if tags.get(b"v", b"DKIM1") != b"DKIM1":
        return "v= is not DKIM1"
    if b"p" not in tags:
        return "the record has no p="
    if not tags[b"p"]:
        return "the key is revoked (p= is empty)"
    if tags.get(b"k", b"rsa") != key.algorithm.key_type.encode():
        return f"k= is not {key.algorithm.key_type}"
    if not _list_has(tags.get(b"h", b"sha256"), b"sha256"):
        return "h= does not allow sha256"
    if not _list_has(tags.get(b"s", b"*"), b"*", b"email"):
        return "s= does not allow email"
    try:
        is_same = same_public_key(key, tags[b"p"])
    except InvalidKey as error:
        return str(error)
    return "" if is_same else "p= holds another key"


def _list_has(value: bytes, *wanted: bytes) -> bool:
    """Say whether a colon-separated tag value names one of `wanted`."""
    return any(item.strip() in wanted for item in value.split(b":"))
