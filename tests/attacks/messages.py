"""Messages of the table: plain octets, and what a signer, a sealer or a forger adds to them.

The signatures are made here from RFC 6376 and RFC 8617 with dkimpy's canonicalization and plain arithmetic, so that a
fault of Mailward's own is not in both the signature and its verification.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass

from dkim.canonicalization import CanonicalizationPolicy

from tests.attacks.keys import Key

CRLF = b"\r\n"
BODY = b"Dear customer,\r\nplease log in at once.\r\n"
USUAL = (
    b"To: <rcpt@receiver.example>",
    b"Subject: Your account",
    b"Date: Sat, 21 Nov 2026 12:00:00 +0000",
    b"Message-ID: <1@mail.example>",
)
SIGNED = b"from:to:subject:date:message-id"
FIELD_NAME = re.compile(rb"([!-9;-~]+[ \t]*):")

Fields = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Signer:
    """A key, and the names it is published under."""

    domain: bytes
    selector: bytes
    key: Key


def message(*fields: bytes, body: bytes = BODY) -> bytes:
    """Return a message with `fields` first, then each usual field that they do not already have."""
    given = {field.partition(b":")[0].strip().lower() for field in fields}
    usual = [field for field in USUAL if field.partition(b":")[0].lower() not in given]
    return CRLF.join([*fields, *usual]) + CRLF + CRLF + body


def split(octets: bytes) -> tuple[Fields, bytes]:
    """Cut a message into header fields and body where Postfix does: what is no header line ends the header.

    A field is its name, with what stands before the colon, and all that follows the colon, without the last CRLF.
    """
    fields: list[tuple[bytes, list[bytes]]] = []
    at = 0
    while at < len(octets):
        end = octets.find(CRLF, at)
        end = len(octets) if end < 0 else end
        line = octets[at:end]
        match = FIELD_NAME.match(line)
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1][1].append(line)
        elif match and line[:1] not in (b" ", b"\t"):
            fields.append((match.group(1), [line[match.end() :]]))
        else:
            at = at if line else end + len(CRLF)
            break
        at = end + len(CRLF)
    return [(name, CRLF.join(lines)) for name, lines in fields], octets[at:]


def sign(
    octets: bytes,
    by: Signer,
    *,
    names: bytes = SIGNED,
    forms: bytes = b"relaxed/relaxed",
    algorithm: bytes = b"",
    tags: bytes = b"",
    length: int | None = None,
    d: bytes | None = None,
    s: bytes | None = None,
    body_hash: bytes = b"",
) -> bytes:
    """Return the message with a DKIM-Signature on top; `tags` are further tags, each with its semicolon."""
    fields, body = split(octets)
    algorithm = algorithm or by.key.type.encode() + b"-sha256"
    policy = CanonicalizationPolicy.from_c_value(forms)
    hashed = policy.canonicalize_body(body)
    if length is not None:
        hashed = hashed[:length]
        tags += b" l=%d;" % length
    unsigned = (b" v=1; a=%s; c=%s; d=%s; s=%s;%s h=%s; bh=%s; b=") % (
        algorithm,
        forms,
        by.domain if d is None else d,
        by.selector if s is None else s,
        tags,
        names,
        body_hash or base64.b64encode(hashlib.new(algorithm.partition(b"-")[2].decode(), hashed).digest()),
    )
    signature = _signature(fields, names, b"DKIM-Signature", unsigned, by.key, policy, algorithm)
    return b"DKIM-Signature:" + unsigned + signature + CRLF + octets


@dataclass(frozen=True)
class Seal:
    """How one ARC set is made; what is not said is as RFC 8617 wants it."""

    by: Signer
    results: bytes  # the ARC-Authentication-Results after its `i=N;`
    cv: bytes | None = None  # none for the first, pass for the others
    names: bytes = SIGNED
    tags: bytes = b""  # further tags of the ARC-Seal
    key: Key | None = None  # a forger's, instead of the domain's


def seal(octets: bytes, by: Seal, instance: int | None = None) -> bytes:
    """Return the message with one more ARC set on top, sealed over all that are there."""
    fields, body = split(octets)
    chain = _sets(fields)
    number = instance or len(chain) // 3 + 1
    key, policy = by.key or by.by.key, CanonicalizationPolicy.from_c_value(b"relaxed/relaxed")
    domain, selector = by.by.domain, by.by.selector
    results = b" i=%d; %s" % (number, by.results)
    body_hash = base64.b64encode(hashlib.sha256(policy.canonicalize_body(body)).digest())
    unsigned = b" i=%d; a=rsa-sha256; c=relaxed/relaxed; d=%s; s=%s; h=%s; bh=%s; b=" % (
        number,
        domain,
        selector,
        by.names,
        body_hash,
    )
    signature = unsigned + _signature(fields, by.names, b"ARC-Message-Signature", unsigned, key, policy, b"rsa-sha256")
    cv = by.cv or (b"none" if number == 1 else b"pass")
    unsealed = b" i=%d; a=rsa-sha256; cv=%s; d=%s; s=%s;%s b=" % (number, cv, domain, selector, by.tags)
    own = [(b"ARC-Authentication-Results", results), (b"ARC-Message-Signature", signature), (b"ARC-Seal", unsealed)]
    hashed = CRLF.join(_relaxed(*field) for field in [*chain, *own])
    sealed = unsealed + base64.b64encode(key.sign(hashed))
    own[2] = (b"ARC-Seal", sealed)
    return b"".join(name + b":" + value + CRLF for name, value in reversed(own)) + octets


def replaced(octets: bytes, old: bytes, new: bytes) -> bytes:
    """Return a tampered message; the old text must be there, or nothing would be tampered with."""
    assert old in octets, old
    return octets.replace(old, new, 1)


def with_field(octets: bytes, field: bytes) -> bytes:
    """Return the message with one more field on top, as everybody on its way may add."""
    return field + CRLF + octets


def without_field(octets: bytes, name: bytes) -> bytes:
    """Return the message without its fields of that name; they must be there."""
    fields, body = split(octets)
    kept = [field for field in fields if field[0].lower() != name.lower()]
    assert len(kept) < len(fields), name
    return b"".join(field + b":" + value + CRLF for field, value in kept) + CRLF + body


def _signature(
    fields: Fields,
    names: bytes,
    own_name: bytes,
    unsigned: bytes,
    key: Key,
    policy: CanonicalizationPolicy,
    algorithm: bytes,
) -> bytes:
    """Return b=: the signature of the named fields, bottom up, and of the signature field itself."""
    left = list(fields)
    picked: Fields = []
    for name in names.lower().split(b":"):
        at = [index for index, field in enumerate(left) if field[0].strip().lower() == name.strip()]
        if at:
            picked.append(left.pop(at[-1]))
    ended = [(name, value + CRLF) for name, value in [*picked, (own_name, unsigned)]]
    canonical = b"".join(name + b":" + value for name, value in policy.canonicalize_headers(ended))
    digest = algorithm.partition(b"-")[2].decode()
    return base64.b64encode(key.sign(canonical.removesuffix(CRLF), digest))


def _sets(fields: Fields) -> Fields:
    """Return the ARC fields there are in the order a seal covers them (RFC 8617 5.1.1)."""
    order = {b"arc-authentication-results": 0, b"arc-message-signature": 1, b"arc-seal": 2}
    found = []
    for name, value in fields:
        number = re.match(rb"\s*i\s*=\s*(\d+)", value)
        if name.lower() in order and number:
            found.append((int(number.group(1)), order[name.lower()], name, value))
    return [(name, value) for *_, name, value in sorted(found)]


def _relaxed(name: bytes, value: bytes) -> bytes:
    return name.lower() + b":" + b" ".join(value.split())
