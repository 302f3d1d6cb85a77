"""What the tests of DKIM verification share: messages verified as the milter does it, with a zone instead of the DNS."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mailward.auth.body_hash import BodyHash
from mailward.auth.dkim import ReceivedHeader
from mailward.auth.dkim_verify import (
    DkimLimits,
    Signature,
    body_forms,
    parse_signatures,
    verify,
)
from mailward.auth.keys import PrivateKey
from mailward.model.message import HeaderField
from mailward.model.results import DkimResult, Result
from tests.auth.forge import (
    BODY,
    MESSAGE,
    NOW,
    RSA,
    Zone,
    dkim_signature,
    dkim_tags,
    record,
)
from tests.auth.messages import parse

LIMITS = DkimLimits()
FIELDS, _ = parse(MESSAGE)
NAME = "sel._domainkey.example.com"
PASS, FAIL, POLICY, PERMERROR = Result.PASS, Result.FAIL, Result.POLICY, Result.PERMERROR


def verify_all(
    fields: Sequence[HeaderField],
    body: bytes,
    zone: Zone,
    authors: Sequence[str] = ("example.com",),
    limits: DkimLimits = LIMITS,
    now: float = NOW,
    chunk: int = 1 << 20,
) -> list[DkimResult]:
    """Verify all signatures as the milter does: parse, hash the body while it streams, verify."""
    header = ReceivedHeader(fields)
    signatures = parse_signatures(header, authors, limits, now)
    hashes = {form: BodyHash(*form) for form in body_forms(signatures)}
    for at in range(0, len(body), chunk):
        for body_hash_ in hashes.values():
            body_hash_.update(body[at : at + chunk])
    digests = {form: body_hash_.finish() for form, body_hash_ in hashes.items()}
    return [
        verify(item, header, digests[item.body_form], zone.ask, limits) if isinstance(item, Signature) else item
        for item in signatures
    ]


def verify_one(
    tags: Mapping[str, str] | None = None,
    *,
    key: PrivateKey = RSA,
    records: Any = None,
    fields: Sequence[HeaderField] = FIELDS,
    signed_fields: Sequence[HeaderField] | None = None,
    body: bytes = BODY,
    signed_body: bytes | None = None,
    last: str = "",
    now: float = NOW,
) -> tuple[DkimResult, Zone]:
    """Sign, and verify what may have become of it; returns the result and the zone that was asked."""
    tags = dkim_tags() if tags is None else tags
    signed_body = body if signed_body is None else signed_body
    field = dkim_signature(signed_fields or fields, signed_body, key, tags, last=last)
    zone = Zone({NAME: record(key)} if records is None else records)
    (result,) = verify_all([field, *fields], body, zone, now=now)
    return result, zone


def assert_safe(result: DkimResult) -> None:
    """See that nothing a stranger wrote gets out as it came."""
    assert re.fullmatch(r"[A-Za-z0-9 ,.:;='()/^-]*", result.reason)
    assert re.fullmatch(r"[a-z0-9._-]*", result.signing_domain + result.selector + result.algorithm)
    assert re.fullmatch(r"(?:[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]*@[a-z0-9._-]+)?", result.auid)
    assert re.fullmatch(r"[A-Za-z0-9+/]{0,8}", result.signature_prefix)
