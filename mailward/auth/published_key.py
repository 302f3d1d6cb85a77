"""The keys that a selector publishes, and whether a signature is by one of them (RFC 6376 6.1.2, 6.1.3)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mailward.auth.dkim import REVOKED, UnusableKeyRecord, parse_key_record
from mailward.auth.keys import Algorithm, InvalidKey, PublicKey, load_public_key
from mailward.auth.signature_field import DkimLimits, Seal
from mailward.model.dns import Answer, AnswerStatus, Question, RecordType
from mailward.model.results import Result

MAX_RECORDS = 4  # of one selector; the RFC expects one
MAX_KEY_RECORD = 4096  # octets; a record with a 4096-bit key has 750
MAX_CACHED_KEYS = 1024  # of at most MAX_KEY_RECORD octets each: 6 MB a worker, whatever strangers publish

# Of several records the one counts of which the most can be said.
_MOST_TELLING_FIRST = (Result.PASS, Result.NONE, Result.POLICY, Result.FAIL, Result.PERMERROR)


@dataclass(frozen=True, slots=True)
class PublishedKey:
    """One key record as it was read: a key with its flags, or the fault that keeps it from verifying anything."""

    key: PublicKey | None
    fault: str = ""
    is_testing: bool = False
    is_strict: bool = False


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a signature is worth, why, and the size of the key that says so (0 where none does)."""

    result: Result
    reason: str = ""
    key_bits: int = 0


def look_up_keys(seal: Seal, ask: Callable[[Question], Answer]) -> tuple[PublishedKey, ...] | Judgement:
    """Ask for the key records of a signature's selector; the Judgement says why there are none to use.

    More than one record is undefined (RFC 6376 3.6.2.2). Whoever may publish there may publish any key, so each of them
    may verify; but which one comes first is the DNS's choice and must not decide, and an owner who publishes a revocation
    beside a key has revoked.
    """
    answer = ask(Question(f"{seal.selector}._domainkey.{seal.signing_domain}", RecordType.TXT))
    if answer.status is AnswerStatus.TEMPFAIL:
        return Judgement(Result.TEMPERROR, "the DNS did not answer for the key")
    if answer.status is not AnswerStatus.FOUND or not answer.records:
        return Judgement(Result.PERMERROR, "no key for the signature")
    if len(answer.records) > MAX_RECORDS:
        return Judgement(Result.PERMERROR, f"the selector has more than {MAX_RECORDS} records")
    keys = tuple([published_key(record, seal.algorithm) for record in sorted(answer.records)])
    if any(key.fault == REVOKED for key in keys):
        return Judgement(Result.PERMERROR, REVOKED)
    return keys


def judge(
    keys: Sequence[PublishedKey], seal: Seal, digest: bytes, limits: DkimLimits, *, is_auid_below: bool = False
) -> Judgement:
    """Say what a signature of `digest` is worth under the keys of its selector."""
    judgements = [_judge_by_one(key, seal, digest, limits, is_auid_below) for key in keys]
    return min(judgements, key=lambda judgement: _MOST_TELLING_FIRST.index(judgement.result))


def published_key(record: bytes, algorithm: Algorithm) -> PublishedKey:
    """Read a key record, or remember it: its octets are what the resolver's cache holds by its TTL."""
    if len(record) > MAX_KEY_RECORD:
        return PublishedKey(None, "the record is longer than any key needs")
    return _read(record, algorithm)


@functools.lru_cache(maxsize=MAX_CACHED_KEYS)
def _read(record: bytes, algorithm: Algorithm) -> PublishedKey:
    try:
        parsed = parse_key_record(record, algorithm)
        key = load_public_key(algorithm, parsed.p)
    except (UnusableKeyRecord, InvalidKey) as error:
        return PublishedKey(None, str(error))
    return PublishedKey(key, "", parsed.is_testing, parsed.is_strict)


def _judge_by_one(
    published: PublishedKey, seal: Seal, digest: bytes, limits: DkimLimits, is_auid_below: bool
) -> Judgement:
    key = published.key
    if key is None:
        return Judgement(Result.PERMERROR, published.fault)
    if key.algorithm is Algorithm.RSA_SHA256 and not limits.min_rsa_bits <= key.bits <= limits.max_rsa_bits:
        bounds = f"{limits.min_rsa_bits} to {limits.max_rsa_bits}"
        return Judgement(Result.POLICY, f"the RSA key has {key.bits} bits, not {bounds}", key.bits)
    if published.is_strict and is_auid_below:
        return Judgement(Result.PERMERROR, "the key allows no subdomain in i= (t=s)", key.bits)
    holds = key.verify(digest, seal.octets)
    if published.is_testing:
        # RFC 6376 3.6.1: MUST NOT be treated otherwise than unsigned mail; so the word is that of unsigned mail.
        outcome = "holds" if holds else "does not hold"
        return Judgement(Result.NONE, f"the key is being tested (t=y); the signature {outcome}", key.bits)
    if holds:
        return Judgement(Result.PASS, "", key.bits)
    return Judgement(Result.FAIL, "the signature does not fit the header", key.bits)
