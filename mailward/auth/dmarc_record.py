"""DMARC policy records (RFC 9989 4.7, 4.8): a TXT record's octets in, what they ask for out.

Any octets give an answer. Nothing here asks the DNS or looks at a message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from mailward.model.results import Disposition

MAX_RECORD = 4096  # octets; four times the longest records in use. A longer one is a record, but nobody reads it.
MAX_CACHED_RECORD = 512  # octets; nearly all records. With 1024 of them the cache stays under 2 MB.
MAX_TEXT = 512  # characters of a record that are shown

# "v" is a plain ABNF string, so of any case; %s"DMARC1" is not (RFC 9989 4.8, RFC 7405).
_VERSION = re.compile(rb"[vV][ \t]*+=[ \t]*+DMARC1[ \t]*+(?:;|\Z)")
_UNPRINTABLE = re.compile(rb"[^ -~]")
# RFC 3986, with comma and "!" only as percent codes (RFC 9989 4.8); the obsolete "!10m" behind it is read and ignored.
_URI = re.compile(
    rb"([A-Za-z][A-Za-z0-9+.-]*+):((?>(?:[A-Za-z0-9._~:/?#\[\]@$&'()*+=-]|%[0-9A-Fa-f]{2})+))(?:![0-9]++[kmgtKMGT]?)?"
)
_MAIL_ADDRESS = re.compile(rb"[^@?]++@[^@?]++(?:\?.*)?")

_TAGS = frozenset((b"p", b"sp", b"np", b"psd", b"t", b"adkim", b"aspf", b"rua"))
_Policies = tuple[Disposition | None, Disposition | None, Disposition | None]  # p, sp, np
_REPEATED = b";"  # stands for the value of a tag that contradicts itself: no value can hold a semicolon
_DISPOSITIONS = {disposition.value.encode(): disposition for disposition in Disposition}
_ONE_LOWER = {
    Disposition.REJECT: Disposition.QUARANTINE,
    Disposition.QUARANTINE: Disposition.NONE,
    Disposition.NONE: Disposition.NONE,
}


class Psd(Enum):
    """What a record says of its domain: a public suffix, an organizational domain, or nothing (RFC 9989 4.7, psd=)."""

    YES = "y"
    NO = "n"
    UNKNOWN = "u"


@dataclass(frozen=True, slots=True)
class PolicyRecord:
    """A record as it applies: defaults filled in, the level of test mode (t=y) already taken off.

    The three policies are for the record's own domain, for existing and for non-existent domains below it. All are None where
    the record asks for no DMARC processing at all; `fault` says what is wrong with it. `text` is printable ASCII, clipped.
    """

    text: str
    policy: Disposition | None = None
    subdomain_policy: Disposition | None = None
    nonexistent_policy: Disposition | None = None
    psd: Psd = Psd.UNKNOWN
    is_dkim_strict: bool = False
    is_spf_strict: bool = False
    fault: str = ""


def is_policy_record(octets: bytes) -> bool:
    """Say whether a TXT record is a DMARC policy record at all: `v=DMARC1` and then a semicolon or nothing.

    >>> is_policy_record(b"v=DMARC1; p=none"), is_policy_record(b"v=DMARC10; p=none"), is_policy_record(b"v=spf1 -all")
    (True, False, False)
    """
    return _VERSION.match(octets) is not None


def parse(octets: bytes) -> PolicyRecord:
    """Read what `is_policy_record` has recognized.

    Few domains send most mail: a record that was read before costs 0.1 us, a new one about 5.

    >>> parse(b"v=DMARC1; p=Reject; np=none; t=y").policy
    <Disposition.QUARANTINE: 'quarantine'>
    """
    return _parse_cached(octets) if len(octets) <= MAX_CACHED_RECORD else _parse(octets)


def _parse(octets: bytes) -> PolicyRecord:
    text = _UNPRINTABLE.sub(b"?", octets[:MAX_TEXT]).decode("ascii")
    if len(octets) > MAX_RECORD:
        return PolicyRecord(text, fault="the policy record is too long to be read")
    tags = _tags(octets)
    (policy, subdomain_policy, nonexistent_policy), fault = _policies(tags)
    return PolicyRecord(
        text,
        policy,
        subdomain_policy,
        nonexistent_policy,
        psd={b"y": Psd.YES, b"n": Psd.NO}.get(tags.get(b"psd", b"").lower(), Psd.UNKNOWN),
        is_dkim_strict=tags.get(b"adkim", b"").lower() == b"s",
        is_spf_strict=tags.get(b"aspf", b"").lower() == b"s",
        fault=fault,
    )


_parse_cached = lru_cache(maxsize=1024)(_parse)


def _tags(octets: bytes) -> dict[bytes, bytes]:
    """Return the tags a verifier acts on; unknown and historic ones, and what is no tag, are ignored (RFC 9989 4.7).

    Names are of any case, as ABNF's strings are. RFC 6376 3.2 forbids a name to occur twice: a tag that does, with another
    value, is a syntax error, which RFC 9989 4.7 discards for the default.
    """
    tags: dict[bytes, bytes] = {}
    for part in octets.split(b";")[1:]:
        name, equals, value = part.partition(b"=")
        name, value = name.strip(b" \t").lower(), value.strip(b" \t")
        if equals and name in _TAGS:
            tags[name] = value if tags.get(name, value) == value else _REPEATED
    return tags


def _policies(tags: Mapping[bytes, bytes]) -> tuple[_Policies, str]:
    """Return p, sp and np as they apply, and what is wrong with them (RFC 9989 4.7, 4.10.1)."""
    # An absent p is p=none (4.7), whether or not there is an rua; sp's default is p, and np's is sp.
    policy, is_valid = _disposition(tags, b"p", Disposition.NONE)
    subdomain_policy, is_sp_valid = _disposition(tags, b"sp", policy)
    nonexistent_policy, is_np_valid = _disposition(tags, b"np", subdomain_policy)
    if not (is_valid and is_sp_valid and is_np_valid):
        return _act_on_invalid(tags)
    policies = (policy, subdomain_policy, nonexistent_policy)
    if tags.get(b"t", b"").lower() == b"y":
        return (_ONE_LOWER[policy], _ONE_LOWER[subdomain_policy], _ONE_LOWER[nonexistent_policy]), ""
    return policies, ""


def _disposition(tags: Mapping[bytes, bytes], name: bytes, default: Disposition) -> tuple[Disposition, bool]:
    """Return a tag's policy, and whether it is a valid one."""
    value = tags.get(name)
    if value is None:
        return default, True
    return _DISPOSITIONS.get(value.lower(), default), value.lower() in _DISPOSITIONS


def _act_on_invalid(tags: Mapping[bytes, bytes]) -> tuple[_Policies, str]:
    """Act as if p=none where somebody asked for reports, else not at all (RFC 9989 4.10.1)."""
    none = Disposition.NONE
    if any(_is_reporting_uri(uri.strip(b" \t")) for uri in tags.get(b"rua", b"").split(b",")):
        return (none, none, none), "p=, sp= or np= of the policy record is not valid: taken for p=none"
    return (None, None, None), "p=, sp= or np= of the policy record is not valid, and no rua= is"


def _is_reporting_uri(uri: bytes) -> bool:
    match = _URI.fullmatch(uri)
    return match is not None and (match[1].lower() != b"mailto" or _MAIL_ADDRESS.fullmatch(match[2]) is not None)
