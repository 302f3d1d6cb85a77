"""The Authenticated Received Chain (RFC 8617): who handled a message before us, and what they say they saw.

A chain that passes proves only that the named domains sealed it; whether any of them is believed is decided elsewhere.
A malformed set is a `fail` with its reason, never an exception. Linear in the size of the fields: each seal hashes what
the seals before it have hashed already.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mailward.auth.authres import passed_author_domains
from mailward.auth.body_hash import BodyDigest, BodyForm, Canonicalization
from mailward.auth.dkim import ReceivedHeader, canonical_field
from mailward.auth.dkim_verify import body_fault, header_digest, unsigned_field
from mailward.auth.published_key import Judgement, PublishedKey, judge, look_up_keys
from mailward.auth.signature_field import (
    DkimLimits,
    Malformed,
    Seal,
    Signature,
    read_arc_signature,
    read_field_tags,
    read_seal,
    without_signature,
)
from mailward.model.dns import Answer, Question
from mailward.model.message import HeaderField
from mailward.model.results import ArcResult, Result

MAX_SETS = 50  # RFC 8617 4.2.1

_RESULTS, _MESSAGE, _SEAL = b"arc-authentication-results", b"arc-message-signature", b"arc-seal"
_INSTANCE = re.compile(rb"[0-9]{1,2}")
# Where the instance of an ARC-Authentication-Results field ends and its payload begins.
_RESULTS_INSTANCE = re.compile(rb"[ \t\r\n]*+i[ \t\r\n]*+=[ \t\r\n]*+([0-9]{1,2})[ \t\r\n]*+;")

Ask = Callable[[Question], Answer]


@dataclass(frozen=True, slots=True)
class ArcSet:
    """The three fields of one instance, and what its seal says."""

    results: HeaderField
    message_signature: HeaderField
    seal_field: HeaderField
    seal: Seal


@dataclass(frozen=True, slots=True)
class ArcChain:
    """The sets of a message, instance 1 first, and the newest one's message signature; or the result that is known already."""

    result: ArcResult | None = None
    sets: tuple[ArcSet, ...] = ()
    signature: Signature | None = None

    @property
    def body_form(self) -> BodyForm | None:
        """The form in which the body has to be hashed; None where nothing is left to verify."""
        return self.signature.body_form if self.signature else None


class _Failed(Exception):
    """The chain fails; the message says why."""


def parse_chain(header: ReceivedHeader, limits: DkimLimits, now: float) -> ArcChain:
    """Read the ARC sets of a message and judge their structure (RFC 8617 5.2, steps 1 to 3)."""
    groups = [header.fields(name) for name in (_RESULTS, _MESSAGE, _SEAL)]
    count = max(map(len, groups))
    if not count:
        return ArcChain(ArcResult(Result.NONE))
    if count > MAX_SETS:
        return ArcChain(ArcResult(Result.FAIL, f"more than {MAX_SETS} sets", count))
    try:
        sets = _sets(header)
        newest = sets[-1].message_signature
        signature = read_arc_signature(read_field_tags(newest), newest, limits, now)
    except (_Failed, Malformed) as error:
        return ArcChain(ArcResult(Result.FAIL, str(error), count))
    return ArcChain(None, sets, signature)


def verify_chain(
    chain: ArcChain, header: ReceivedHeader, body: BodyDigest | None, ask: Ask, limits: DkimLimits
) -> ArcResult:
    """Verify the newest message signature, then every seal (RFC 8617 5.2, steps 4 to 7).

    `body` is the digest in the chain's `body_form`. A FAIL that is owed to the DNS is for good in a seal (5.2.1); here it
    is marked, so that nothing is held against the message.
    """
    if chain.result is not None:
        return chain.result
    count = len(chain.sets)
    failed = _judge_message(chain, header, body, _RememberedKeys(ask), limits)
    if failed:
        is_temporary = failed.result is Result.TEMPERROR
        return ArcResult(Result.FAIL, failed.reason, count, is_temporary=is_temporary)
    sealers = tuple([arc_set.seal.signing_domain for arc_set in chain.sets])
    _, _, payload = chain.sets[-1].results.raw_value.partition(b";")
    return ArcResult(Result.PASS, "", count, sealers, passed_author_domains(payload))


def _sets(header: ReceivedHeader) -> tuple[ArcSet, ...]:
    """Return the sets in order. Raises _Failed and Malformed where they are no chain."""
    results = _by_instance(header.fields(_RESULTS), _instance_of_results)
    messages = _by_instance(header.fields(_MESSAGE), lambda field: _instance(read_field_tags(field)))
    seals = _by_instance(header.fields(_SEAL), lambda field: _instance(read_field_tags(field)))
    wanted = set(range(1, len(seals) + 1))
    if not results.keys() == messages.keys() == seals.keys() == wanted:
        raise _Failed("the sets are not complete, or not numbered from 1 without a gap")
    return tuple(
        [
            ArcSet(results[n], messages[n], seals[n], _seal(seals[n], n, is_newest=n == len(seals)))
            for n in sorted(wanted)
        ]
    )


def _by_instance(fields: Sequence[HeaderField], instance_of: Callable[[HeaderField], int]) -> dict[int, HeaderField]:
    found = {instance_of(field): field for field in fields}
    if len(found) < len(fields):
        raise _Failed("two fields of one name have the same instance")
    return found


def _instance_of_results(field: HeaderField) -> int:
    match = _RESULTS_INSTANCE.match(field.raw_value)
    if not match:
        raise _Failed("an ARC-Authentication-Results field does not begin with its instance")
    return int(match.group(1))


def _instance(tags: dict[bytes, bytes]) -> int:
    value = tags.get(b"i", b"")
    if not _INSTANCE.fullmatch(value):
        raise _Failed("i= is missing or no instance")
    return int(value)


def _seal(field: HeaderField, instance: int, *, is_newest: bool) -> Seal:
    """Read one ARC-Seal and what it says of the chain before it (RFC 8617 4.1.3, 5.2 steps 2 and 3)."""
    tags = read_field_tags(field)
    status = tags.get(b"cv")
    if is_newest and status == b"fail":
        raise _Failed("the newest seal says that the chain had failed")
    if status != (b"none" if instance == 1 else b"pass"):
        raise _Failed("cv= of a seal is missing or wrong")
    if b"h" in tags:
        raise _Failed("a seal has an h= tag")
    return read_seal(tags)


class _RememberedKeys:
    """Looks each selector up once a chain: fifty seals are often by two domains."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._found: dict[tuple[str, str, str], tuple[PublishedKey, ...] | Judgement] = {}

    def look_up(self, seal: Seal) -> tuple[PublishedKey, ...] | Judgement:
        name = (seal.selector, seal.signing_domain, seal.algorithm.value)
        if name not in self._found:
            self._found[name] = look_up_keys(seal, self._ask)
        return self._found[name]


def _judge_message(
    chain: ArcChain, header: ReceivedHeader, body: BodyDigest | None, keys: _RememberedKeys, limits: DkimLimits
) -> Judgement | None:
    """Return what is wrong with the chain: the body first, which costs no question; None where nothing is."""
    signature = chain.signature
    if signature is None or body is None:
        return Judgement(Result.FAIL, "the body was not hashed")
    fault = body_fault(signature, body)
    if not fault and signature.body_limit is not None and signature.body_limit < body.length:
        fault = "l= leaves a part of the body unsigned"
    fault = fault or unsigned_field(signature, header)
    if fault:
        return Judgement(Result.FAIL, f"the newest message signature: {fault}")
    judgement = _judge_seal(signature.seal, header_digest(signature, header), keys, limits)
    if judgement.result is not Result.PASS:
        return Judgement(judgement.result, f"the newest message signature: {judgement.reason}")
    # The newest seal first: it is the one that tells most, and the one that is trusted where any is.
    for instance, (arc_set, digest) in reversed(list(enumerate(_sealed(chain.sets), start=1))):
        judgement = _judge_seal(arc_set.seal, digest, keys, limits)
        if judgement.result is not Result.PASS:
            return Judgement(judgement.result, f"seal {instance}: {judgement.reason}")
    return None


def _judge_seal(seal: Seal, digest: bytes, keys: _RememberedKeys, limits: DkimLimits) -> Judgement:
    found = keys.look_up(seal)
    return found if isinstance(found, Judgement) else judge(found, seal, digest, limits)


def _sealed(sets: Sequence[ArcSet]) -> list[tuple[ArcSet, bytes]]:
    """Return each set with the digest its seal signs: all sets up to it, its own seal without b= (RFC 8617 5.1.1)."""
    digests = []
    hashed = hashlib.sha256()
    for arc_set in sets:
        hashed.update(_relaxed(arc_set.results) + _relaxed(arc_set.message_signature))
        own = hashed.copy()
        field = arc_set.seal_field
        own.update(_relaxed(HeaderField(field.name, without_signature(field.raw_value)))[:-2])
        digests.append((arc_set, own.digest()))
        hashed.update(_relaxed(field))
    return digests


def _relaxed(field: HeaderField) -> bytes:
    return canonical_field(field, Canonicalization.RELAXED)
