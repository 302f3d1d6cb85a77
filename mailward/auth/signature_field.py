"""DKIM-Signature, ARC-Message-Signature and ARC-Seal as they are read: fields in, values or a reason out.

What can be judged without the DNS is judged here. Reasons never repeat what came from outside; names are normalized
before anything else sees them. Linear in the field's length.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from mailward.auth.body_hash import BodyForm, Canonicalization
from mailward.auth.dkim import Canonicalizations, MalformedTagList, parse_tags
from mailward.auth.keys import Algorithm
from mailward.model.domain import MAX_NAME, InvalidDomain, normalize, parents
from mailward.model.message import HeaderField

MAX_SIGNATURE_OCTETS = 1024  # what an RSA key of 8192 bits makes; longer ones are refused later anyhow
SHA256_OCTETS = 32

# Fields of which readers show or use one, and which one differs: RFC 5322 3.6 allows each once.
SINGLETONS = {
    name.lower().encode(): name
    for name in (
        "From",
        "Sender",
        "Reply-To",
        "To",
        "Cc",
        "Subject",
        "Date",
        "Message-ID",
        "In-Reply-To",
        "References",
        "MIME-Version",
        "Content-Type",
        "Content-Transfer-Encoding",
    )
}

_ALGORITHMS = {algorithm.value.encode(): algorithm for algorithm in Algorithm}
_CANONICALIZATIONS = {form.value.encode(): form for form in Canonicalization}
_SECONDS = re.compile(rb"[0-9]{1,12}")
_OCTET_COUNT = re.compile(rb"[0-9]{1,76}")
_QUOTED_OCTET = re.compile(rb"=([0-9A-F]{2})")
_PLAIN_LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{1,8}")
_FOLDING_WHITE_SPACE = b" \t\r\n"


class Malformed(ValueError):
    """The field is no signature that could be verified (a PERMFAIL of RFC 6376 6.1.1); the message says why."""


@dataclass(frozen=True, slots=True)
class DkimLimits:
    """What one message's signatures may make us do, and which keys we trust.

    `clock_skew_seconds` is how far the clocks of signers may be from ours. RFC 8301 3.2: under 1024 bits is never valid,
    above 4096 no verifier has to go; the work grows with the cube.
    """

    max_signatures: int = 8
    max_signed_fields: int = 1000  # items of h=; signers in the wild list under a hundred
    clock_skew_seconds: int = 300
    min_rsa_bits: int = 1024
    max_rsa_bits: int = 4096


@dataclass(frozen=True, slots=True)
class Seal:
    """Who signed with which key (`d=`, `s=` in A-labels), and the signature itself."""

    algorithm: Algorithm
    signing_domain: str
    selector: str
    octets: bytes


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature over header fields and a body: a DKIM-Signature, or an ARC-Message-Signature (without auid).

    `position` counts the DKIM-Signature fields from 0 at the top. `is_auid_below`: the auid's domain is a subdomain of d=.
    """

    seal: Seal
    field: HeaderField
    position: int
    canonicalizations: Canonicalizations
    body_limit: int | None
    body_hash: bytes
    signed_names: tuple[bytes, ...]
    auid: str = ""
    is_auid_below: bool = False

    @property
    def body_form(self) -> BodyForm:
        """The octets of the body that `body_hash` is made of."""
        return BodyForm(self.canonicalizations.body, self.body_limit)

    @property
    def prefix(self) -> str:
        """The start of b=, by which signatures are told apart (RFC 6008)."""
        return base64.b64encode(self.seal.octets[:6]).decode("ascii")


def read_dkim_signature(
    tags: dict[bytes, bytes], field: HeaderField, position: int, limits: DkimLimits, now: float
) -> Signature:
    """Read the tags of a DKIM-Signature (RFC 6376 3.5, 6.1.1). Raises Malformed."""
    if tags.get(b"v") != b"1":
        raise Malformed("v= is missing or not 1")
    seal = read_seal(tags)
    auid, auid_domain = read_auid(tags, seal.signing_domain)
    if auid_domain != seal.signing_domain and seal.signing_domain not in parents(auid_domain):
        raise Malformed("the domain of i= is neither d= nor below it")
    return _signature(tags, seal, field, position, limits, now, auid, auid_domain != seal.signing_domain)


def read_arc_signature(tags: dict[bytes, bytes], field: HeaderField, limits: DkimLimits, now: float) -> Signature:
    """Read the tags of an ARC-Message-Signature: v= is ignored, i= is the instance (RFC 8617 4.1.2). Raises Malformed."""
    signature = _signature(tags, read_seal(tags), field, 0, limits, now)
    if any(name.startswith(b"arc-") or name == b"authentication-results" for name in signature.signed_names):
        raise Malformed("h= names a field of ARC or Authentication-Results")
    return signature


def read_field_tags(field: HeaderField) -> dict[bytes, bytes]:
    """Return the tags of a signature field. Raises Malformed."""
    try:
        return parse_tags(field.raw_value)
    except MalformedTagList as error:
        raise Malformed(f"no tag list: {error}") from None


def read_seal(tags: dict[bytes, bytes]) -> Seal:
    """Read a=, b=, d= and s=, which every signature has. Raises Malformed."""
    algorithm = _ALGORITHMS.get(tags.get(b"a", b""))
    if algorithm is None:
        # RFC 8301 3.1: with rsa-sha1 a signature has permanently failed; it is never computed at all.
        is_sha1 = tags.get(b"a") == b"rsa-sha1"
        raise Malformed("rsa-sha1 proves nothing" if is_sha1 else "a= is missing or unknown")
    octets = _base64(tags, b"b")
    if not octets or len(octets) > MAX_SIGNATURE_OCTETS:
        raise Malformed("b= is empty or longer than any signature")
    signing_domain = read_domain(tags.get(b"d", b""))
    if not signing_domain:
        raise Malformed("d= is missing or no domain name")
    selector = read_selector(tags.get(b"s", b""))
    if not selector:
        raise Malformed("s= is missing or no selector")
    if len(selector) + len("._domainkey.") + len(signing_domain) > MAX_NAME:
        raise Malformed("s= and d= are longer together than a name of the DNS")
    return Seal(algorithm, signing_domain, selector, octets)


def read_domain(value: bytes) -> str:
    """Return a signing domain in A-labels; empty where it is none (RFC 6376 3.5: two labels at least; RFC 8616 4).

    Nothing but letters, digits, hyphens and underscores gets through: quotes, parentheses, NUL and encoded words have
    made other programs ask one name and report another.
    """
    name = read_selector(value)
    return name if "." in name else ""


def read_selector(value: bytes) -> str:
    """Return a selector in A-labels; empty where it is none."""
    if value.endswith(b"."):
        return ""
    try:
        return normalize(value.decode("utf-8"))
    except (UnicodeDecodeError, InvalidDomain):
        return ""


def read_auid(tags: dict[bytes, bytes], signing_domain: str) -> tuple[str, str]:
    """Return i= as it may be shown, and its domain. Raises Malformed.

    A local part that is not plain is left out: nothing here depends on it.
    """
    if b"i" not in tags:
        return "@" + signing_domain, signing_domain
    # RFC 6376 2.11, dkim-quoted-printable: white space means nothing, `=` only stands before two digits.
    value = tags[b"i"].translate(None, _FOLDING_WHITE_SPACE)
    if value.count(b"=") != len(_QUOTED_OCTET.findall(value)):
        raise Malformed("i= is not quoted-printable")
    value = _QUOTED_OCTET.sub(lambda match: bytes([int(match.group(1), 16)]), value)
    local_part, at, domain_part = value.rpartition(b"@")
    domain = read_domain(domain_part)
    if not at or not domain:
        raise Malformed("i= has no valid domain")
    shown = local_part.decode("ascii", "replace")
    return (shown if _PLAIN_LOCAL_PART.fullmatch(shown) else "") + "@" + domain, domain


def read_signature_prefix(tags: dict[bytes, bytes]) -> str:
    """Return the start of b= that tells signatures apart (RFC 6008); empty where it is no base64."""
    prefix = tags.get(b"b", b"")[:64].translate(None, _FOLDING_WHITE_SPACE)[:8].decode("ascii", "replace")
    return prefix if _BASE64.fullmatch(prefix) else ""


def without_signature(raw_value: bytes) -> bytes:
    """Return a signature field's value with that of b= deleted, white space around it too (RFC 6376 3.7).

    Finds the tag as the tag list is read, not with an expression over white space, which would be quadratic.
    """
    at = 0
    for tag in raw_value.split(b";"):
        name, _, _ = tag.partition(b"=")
        if name.strip() == b"b":
            return raw_value[: at + len(name) + 1] + raw_value[at + len(tag) :]
        at += len(tag) + 1
    return raw_value


def _signature(
    tags: dict[bytes, bytes],
    seal: Seal,
    field: HeaderField,
    position: int,
    limits: DkimLimits,
    now: float,
    auid: str = "",
    is_auid_below: bool = False,
) -> Signature:
    body_hash = _base64(tags, b"bh")
    if len(body_hash) != SHA256_OCTETS:
        raise Malformed("bh= is not the hash of a body")
    names = _signed_names(tags, limits)
    methods = tags.get(b"q")
    if methods is not None and b"dns/txt" not in [method.strip() for method in methods.split(b":")]:
        raise Malformed("q= does not allow dns/txt")
    _judge_times(tags, limits.clock_skew_seconds, now)
    forms = _canonicalizations(tags)
    return Signature(seal, field, position, forms, _body_limit(tags), body_hash, names, auid, is_auid_below)


def _base64(tags: dict[bytes, bytes], name: bytes) -> bytes:
    try:
        return base64.b64decode(tags.get(name, b"").translate(None, _FOLDING_WHITE_SPACE), validate=True)
    except (binascii.Error, ValueError):
        raise Malformed(f"{name.decode()}= is not base64") from None


def _signed_names(tags: dict[bytes, bytes], limits: DkimLimits) -> tuple[bytes, ...]:
    value = tags.get(b"h", b"")
    if value.count(b":") >= limits.max_signed_fields:
        raise Malformed(f"h= has more than {limits.max_signed_fields} items")
    names = tuple([name.strip() for name in value.lower().split(b":")])
    if b"from" not in names:
        raise Malformed("h= is missing or does not name From")  # RFC 6376 5.4: it MUST be signed
    return names


def _judge_times(tags: dict[bytes, bytes], skew: int, now: float) -> None:
    signed_at, expires_at = _seconds(tags, b"t"), _seconds(tags, b"x")
    if signed_at is not None and signed_at > now + skew:
        raise Malformed("the signature is from the future (t=)")
    if expires_at is None:
        return
    if signed_at is not None and expires_at <= signed_at:
        raise Malformed("x= is not after t=")
    if expires_at < now - skew:
        raise Malformed("the signature has expired (x=)")


def _seconds(tags: dict[bytes, bytes], name: bytes) -> int | None:
    value = tags.get(name)
    if value is None:
        return None
    if not _SECONDS.fullmatch(value):
        raise Malformed(f"{name.decode()}= is not a time")
    return int(value)


def _canonicalizations(tags: dict[bytes, bytes]) -> Canonicalizations:
    header, slash, body = tags.get(b"c", b"simple").partition(b"/")
    header_form, body_form = _CANONICALIZATIONS.get(header), _CANONICALIZATIONS.get(body if slash else b"simple")
    if header_form is None or body_form is None:
        raise Malformed("c= is unknown")
    return Canonicalizations(header_form, body_form)


def _body_limit(tags: dict[bytes, bytes]) -> int | None:
    value = tags.get(b"l")
    if value is None:
        return None
    if not _OCTET_COUNT.fullmatch(value):
        raise Malformed("l= is not a number")
    return int(value)
