"""dkimpy, unmodified, as an independent verifier: what it says of every DKIM signature of a message.

Keys come from a real nameserver through dnspython. An answer that could not be had raises: it must never look like a
bad signature.
"""

from __future__ import annotations

from dataclasses import dataclass

import dkim
import dns.name
import dns.rdatatype
import dns.resolver


@dataclass(frozen=True, slots=True)
class Verified:
    """One signature, topmost first, and whether dkimpy accepts it."""

    domain: str
    selector: str
    algorithm: str
    signed_fields: tuple[str, ...]
    passes: bool
    cause: str  # dkimpy's exception if it raised one, else empty


def verify_all(message: bytes, nameserver: str) -> list[Verified]:
    """Verify every DKIM-Signature of a raw message (LF or CRLF line ends) with keys from that nameserver."""
    count = len([name for name, _ in dkim.rfc822_parse(message)[0] if name.lower() == b"dkim-signature"])
    return [verify_one(message, index, nameserver) for index in range(count)]


def verify_one(message: bytes, index: int, nameserver: str) -> Verified:
    """Verify the signature at `index`, 0 being the topmost."""
    oracle = dkim.DKIM(message)
    cause = ""
    try:
        passes = bool(oracle.verify(idx=index, dnsfunc=lambda name, timeout=5: lookup(name, nameserver)))
    except dkim.DKIMException as error:
        passes, cause = False, f"{type(error).__name__}: {error}"
    fields: dict[bytes, bytes] = oracle.signature_fields
    return Verified(
        domain=fields.get(b"d", b"").decode(),
        selector=fields.get(b"s", b"").decode(),
        algorithm=fields.get(b"a", b"").decode(),
        signed_fields=tuple(name.strip().lower() for name in fields.get(b"h", b"").decode().split(":")),
        passes=passes,
        cause=cause,
    )


def lookup(name: bytes, nameserver: str) -> bytes | None:
    """Return the TXT record of a name, None if there is none; dnspython's error if the nameserver gives no answer."""
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = [nameserver]
    resolver.lifetime = 5
    try:
        answer = resolver.resolve(dns.name.from_text(name.decode()), dns.rdatatype.TXT)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return None
    return b"".join(next(iter(answer)).strings)
