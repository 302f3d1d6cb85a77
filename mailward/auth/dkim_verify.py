"""DKIM signatures on received mail (RFC 6376, 8301, 8463, 8616): fields, body hashes and DNS answers in, results out.

The words (RFC 8601 2.7.1) follow one rule. `permerror`: what RFC 6376 6.1.1 and 6.1.2 call PERMFAIL before any hash is
compared, `rsa-sha1` and expired signatures among it. `fail`: a hash or the signature itself differs. `policy`: it says
too little for us (a weak key, unsigned octets or fields), or was not tried at all. `temperror`: the DNS was silent.
`none`: the owner of the key asks to be treated as unsigned. Only `pass` says who sent a message.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence

from mailward.auth.body_hash import BodyDigest, BodyForm
from mailward.auth.dkim import ReceivedHeader, canonical_field
from mailward.auth.published_key import Judgement, judge, look_up_keys
from mailward.auth.signature_field import (
    SINGLETONS,
    DkimLimits,
    Malformed,
    Signature,
    read_auid,
    read_dkim_signature,
    read_domain,
    read_field_tags,
    read_selector,
    read_signature_prefix,
    without_signature,
)
from mailward.model.dns import Answer, Question
from mailward.model.domain import parents
from mailward.model.message import HeaderField
from mailward.model.results import DkimResult, Result

__all__ = ["DkimLimits", "Signature", "body_forms", "header_verifies", "may_align", "parse_signatures", "verify"]

MAX_FIELDS = 100  # DKIM-Signature fields that are looked at, from the top; a thousand of them is somebody's attack
# Different values of l= in one message: a pass over the body each. One signer's are alike, and a list adds its own.
MAX_BODY_LIMITS = 2

_FIELD_NAME = b"dkim-signature"
_SHOWN_ALGORITHMS = (b"rsa-sha256", b"ed25519-sha256", b"rsa-sha1")


def parse_signatures(
    header: ReceivedHeader, author_domains: Sequence[str], limits: DkimLimits, now: float
) -> list[Signature | DkimResult]:
    """Return each DKIM-Signature, the topmost first: one to verify, or the result that says why it is not worth it.

    Where there are more than `max_signatures` those go first that may be aligned with an author domain: a stranger who
    puts his own on top must not push out the one that counts. The same holds for more than MAX_BODY_LIMITS values of l=.
    """
    parsed = [
        _parse(field, position, limits, now) for position, field in enumerate(header.fields(_FIELD_NAME)[:MAX_FIELDS])
    ]
    candidates = [signature for signature in parsed if isinstance(signature, Signature)]
    if len(candidates) <= limits.max_signatures and len(_limited_forms(candidates)) <= MAX_BODY_LIMITS:
        return parsed
    candidates.sort(key=lambda signature: not may_align(signature.seal.signing_domain, author_domains))
    tried, untried = candidates[: limits.max_signatures], candidates[limits.max_signatures :]
    for signature in untried:
        parsed[signature.position] = _untried(signature, f"more than {limits.max_signatures} signatures")
    costly = _limited_forms(tried)[MAX_BODY_LIMITS:]
    for signature in tried:
        if signature.body_form in costly:
            parsed[signature.position] = _untried(signature, f"more than {MAX_BODY_LIMITS} different values of l=")
    return parsed


def _limited_forms(signatures: Sequence[Signature]) -> list[BodyForm]:
    """Return the different forms of the body that an l= cuts, in the order of the signatures."""
    return list(dict.fromkeys(signature.body_form for signature in signatures if signature.body_limit is not None))


def _untried(signature: Signature, reason: str) -> DkimResult:
    return _result(signature, Judgement(Result.POLICY, reason))


def body_forms(signatures: Sequence[Signature | DkimResult]) -> set[BodyForm]:
    """Return the forms in which the body has to be hashed for these signatures."""
    return {signature.body_form for signature in signatures if isinstance(signature, Signature)}


def verify(
    signature: Signature,
    header: ReceivedHeader,
    body: BodyDigest,
    ask: Callable[[Question], Answer],
    limits: DkimLimits,
) -> DkimResult:
    """Verify one signature; `body` is the digest in its `body_form`. A body that differs costs no question."""
    fault = body_fault(signature, body)
    if fault:
        return _result(signature, Judgement(Result.FAIL, fault), is_body_changed=True)
    judgement = _judge_header(signature, header, ask, limits)
    if judgement.result is not Result.PASS:
        return _result(signature, judgement)
    if signature.body_limit is not None and signature.body_limit < body.length:
        # RFC 6376 8.2: whoever appends to the message may hide what was signed.
        unsigned = Judgement(Result.POLICY, "l= leaves a part of the body unsigned", judgement.key_bits)
        return _result(signature, unsigned, is_body_changed=True)
    reason = unsigned_field(signature, header)
    if reason:
        return _result(signature, Judgement(Result.POLICY, reason, judgement.key_bits))
    return _result(signature, judgement)


def header_verifies(
    signature: Signature, header: ReceivedHeader, ask: Callable[[Question], Answer], limits: DkimLimits
) -> bool:
    """Say whether the header is as it was signed, whatever became of the body: then something forwarded the message."""
    return _judge_header(signature, header, ask, limits).result is Result.PASS and not unsigned_field(signature, header)


def body_fault(signature: Signature, body: BodyDigest) -> str:
    """Return how the body differs from the one that was signed; empty where it does not."""
    if signature.body_limit is not None and signature.body_limit > body.length:
        return "the body is shorter than l= says"  # RFC 6376 3.5: MUST NOT be larger
    return "" if hmac.compare_digest(body.octets, signature.body_hash) else "the body hash differs"


def unsigned_field(signature: Signature, header: ReceivedHeader) -> str:
    """Return the reason where a field that may stand once was added to those signed; empty where none was.

    RFC 6376 8.15: the signature of the one at the bottom still holds, and readers show the other one.
    """
    for name, present in header.repeated.items():
        if name in SINGLETONS and 0 < signature.signed_names.count(name) < present:
            return f"a second {SINGLETONS[name]} field is not signed"
    return ""


def header_digest(signature: Signature, header: ReceivedHeader) -> bytes:
    """Return the hash that was signed: the fields of h=, then the signature's own without its b= (RFC 6376 3.7)."""
    form, field = signature.canonicalizations.header, signature.field
    own_name = field.compared_name
    hashed = hashlib.sha256(header.signed(signature.signed_names, form, own_name, signature.position))
    hashed.update(canonical_field(HeaderField(field.name, without_signature(field.raw_value)), form)[:-2])
    return hashed.digest()


def _judge_header(
    signature: Signature, header: ReceivedHeader, ask: Callable[[Question], Answer], limits: DkimLimits
) -> Judgement:
    keys = look_up_keys(signature.seal, ask)
    if isinstance(keys, Judgement):
        return keys
    digest = header_digest(signature, header)
    return judge(keys, signature.seal, digest, limits, is_auid_below=signature.is_auid_below)


def _parse(field: HeaderField, position: int, limits: DkimLimits, now: float) -> Signature | DkimResult:
    tags: dict[bytes, bytes] = {}
    try:
        tags = read_field_tags(field)
        return read_dkim_signature(tags, field, position, limits, now)
    except Malformed as error:
        return _unreadable(tags, position, str(error))


def _unreadable(tags: dict[bytes, bytes], position: int, reason: str) -> DkimResult:
    """Return the result of a field that cannot be verified, with what can be said of it."""
    signing_domain, algorithm = read_domain(tags.get(b"d", b"")), tags.get(b"a", b"")
    try:
        auid = read_auid(tags, signing_domain)[0] if signing_domain else ""
    except Malformed:
        auid = ""
    return DkimResult(
        Result.PERMERROR,
        reason,
        position,
        signing_domain,
        read_selector(tags.get(b"s", b"")),
        auid,
        algorithm.decode() if algorithm in _SHOWN_ALGORITHMS else "",
        read_signature_prefix(tags),
    )


def may_align(signing_domain: str, author_domains: Sequence[str]) -> bool:
    """Say whether a signing domain is an author domain, above or below one."""
    above = set(parents(signing_domain))
    return any(
        author == signing_domain or author in above or signing_domain in parents(author) for author in author_domains
    )


def _result(signature: Signature, judgement: Judgement, *, is_body_changed: bool = False) -> DkimResult:
    seal = signature.seal
    return DkimResult(
        judgement.result,
        judgement.reason,
        signature.position,
        seal.signing_domain,
        seal.selector,
        signature.auid,
        seal.algorithm.value,
        signature.prefix,
        judgement.key_bits,
        is_body_changed,
    )
