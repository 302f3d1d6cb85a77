"""SPF (RFC 7208): is the client one of those that may send for this domain? For HELO and MAIL FROM, never one for the other.

Any octets the client sends and any records it published give a result; nothing is raised but what `ask` raises.
"""

from __future__ import annotations

import re

from mailward.auth.client import read_client
from mailward.auth.spf_evaluation import Ask, Evaluation, SpfLimits, Stop
from mailward.auth.spf_record import Sender
from mailward.model.domain import InvalidDomain, normalize
from mailward.model.results import Result, SpfIdentity, SpfResult

__all__ = ["SpfLimits", "check_helo", "check_mail_from"]

# RFC 5321 4.5.3.1.1 says 64 octets, rewritten bounce addresses have twice that; no DNS name holds more than 253.
MAX_LOCAL_PART = 253
MAX_IDENTITY = 1024  # octets of a domain or HELO; four times what a name can have

_PRINTABLE = re.compile(rb"[\x21-\x7e]{1,253}")


def check_helo(client_address: str, helo: bytes, ask: Ask, limits: SpfLimits) -> SpfResult:
    """Judge the name the client gave itself (RFC 7208 2.3); NONE for an address literal and all else that is no domain."""
    return _check(SpfIdentity.HELO, client_address, b"postmaster", helo, helo, ask, limits)


def check_mail_from(client_address: str, helo: bytes, mail_from: bytes, ask: Ask, limits: SpfLimits) -> SpfResult:
    """Judge the domain of the envelope's sender, given without its brackets; for the null sender that of HELO (RFC 7208 2.4)."""
    if not mail_from:
        return _check(SpfIdentity.MAILFROM, client_address, b"postmaster", helo, helo, ask, limits)
    local_part, at, domain = mail_from.rpartition(b"@")  # the last one: a quoted local part may hold others
    if not at:
        return SpfResult(Result.NONE, SpfIdentity.MAILFROM, reason="the sender's address has no domain")
    # RFC 7208 4.3: a missing local part is "postmaster".
    return _check(SpfIdentity.MAILFROM, client_address, local_part or b"postmaster", domain, helo, ask, limits)


def _check(
    identity: SpfIdentity,
    client_address: str,
    local_part: bytes,
    domain: bytes,
    helo: bytes,
    ask: Ask,
    limits: SpfLimits,
) -> SpfResult:
    client = read_client(client_address)
    name = _domain(domain)
    if client is None:
        reason = "no network client" if not client_address else "the client's address is no IP address"
        return SpfResult(Result.NONE, identity, name, reason)
    if not name:
        return SpfResult(Result.NONE, identity, reason="no domain name")
    sender = Sender(client, _local_part(local_part), name, _helo_text(helo))
    return _evaluate(identity, Evaluation(sender, ask, limits), name)


def _evaluate(identity: SpfIdentity, evaluation: Evaluation, domain: str) -> SpfResult:
    try:
        result = evaluation.run()
    except Stop as stop:
        result, reason = stop.result, stop.reason
    else:
        if result is Result.NONE:  # most domains of spam and many of HELO: 5 us, pyspf 18
            return SpfResult(result, identity, domain, "no SPF record")
        reason = "" if evaluation.mechanism else "no term matched"
    return SpfResult(
        result,
        identity,
        domain,
        reason,
        evaluation.mechanism,
        evaluation.lookups,
        evaluation.void_lookups,
        evaluation.explain() if result is Result.FAIL else "",
        tuple(evaluation.trace.terms),
        evaluation.match() if result is Result.PASS else None,
    )


def mail_from_domain(mail_from: bytes, helo: bytes) -> str:
    """Return the domain of the MAILFROM identity, for the null sender HELO's; empty where there is none (RFC 7208 2.4)."""
    return _domain(mail_from.rpartition(b"@")[2] if mail_from else helo)


def _domain(octets: bytes) -> str:
    """Return the normalized domain; empty where it is none that has an SPF record (RFC 7208 4.3)."""
    if len(octets) > MAX_IDENTITY:
        return ""
    try:
        domain = normalize(octets.decode())
    except (UnicodeDecodeError, InvalidDomain):
        return ""
    top = domain.rpartition(".")[2]
    # A single label is no domain anybody registered, and a number at the end makes it an address.
    return "" if top == domain or top.isdigit() else domain


def _local_part(octets: bytes) -> str | None:
    """Return a local part of which macros can make names, None if that cannot be (RFC 8616 4)."""
    return octets.decode("ascii") if octets.isascii() and len(octets) <= MAX_LOCAL_PART else None


def _helo_text(helo: bytes) -> str:
    """Return what %{h} stands for: HELO as it came if that can be shown, in A-labels if it has others."""
    return helo.decode("ascii") if _PRINTABLE.fullmatch(helo) else _domain(helo) or "unknown"
