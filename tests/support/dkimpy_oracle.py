"""dkimpy, unmodified, as an independent verifier: what it says of every DKIM signature of a message.

Keys come from a real nameserver through dnspython. An answer that could not be had raises: it must never look like a
bad signature.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


def verify_with(message: bytes, records: Mapping[str, bytes], index: int = 0) -> bool:
    """Say whether dkimpy accepts the signature at `index`, with keys from a dictionary of names without a final dot."""
    try:
        return bool(dkim.DKIM(message).verify(idx=index, dnsfunc=_from(records)))
    except Exception:  # dkimpy raises whatever happens on odd input: it did not accept it
        return False


def arc_verify_with(message: bytes, records: Mapping[str, bytes]) -> str:
    """Return dkimpy's verdict on the ARC chain: "pass", "fail" or "none"."""
    try:
        verdict, _, _ = dkim.ARC(message).verify(dnsfunc=_from(records))
    except Exception:
        return "fail"
    return "fail" if verdict is None else str(verdict.decode())


def sign_with(message: bytes, pem: bytes, signing_domain: str, selector: str, **options: object) -> bytes:
    """Return the DKIM-Signature field dkimpy makes, with its final CRLF."""
    return bytes(dkim.sign(message, selector.encode(), signing_domain.encode(), pem, **options))


def arc_sign_with(message: bytes, pem: bytes, signing_domain: str, selector: str, authserv_id: str) -> bytes:
    """Return the three fields of a new ARC set, each with its final CRLF."""
    fields = dkim.arc_sign(message, selector.encode(), signing_domain.encode(), pem, authserv_id.encode())
    return b"".join(field if field.endswith(b"\r\n") else field + b"\r\n" for field in fields)


def _from(records: Mapping[str, bytes]) -> Callable[..., bytes | None]:
    return lambda name, timeout=5: records.get(name.decode().rstrip("."))
