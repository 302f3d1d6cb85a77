"""The Received-SPF field (RFC 7208 9.1): what SPF found out about one identity. Written only, never read."""

from __future__ import annotations

import re

from mailward.auth.structured import MAX_LINE, fold, harmless, quoted
from mailward.model.results import Result, SpfResult

MAX_ADDRESS = 320  # RFC 5321 4.5.3.1: a local part of 64, the @, a domain of 255

_DOT_ATOM = re.compile(r"[A-Za-z0-9_-]++(?>(?:\.[A-Za-z0-9_-]++)*)")
_FIRST_LINE = MAX_LINE - len("Received-SPF: ")

_WHAT_IT_MEANS = {
    Result.NONE: "no SPF record for {domain}",
    Result.NEUTRAL: "{domain} says nothing about {address}",
    Result.PASS: "{domain} permits {address}",
    Result.FAIL: "{domain} does not permit {address}",
    Result.SOFTFAIL: "{domain} probably does not permit {address}",
    Result.TEMPERROR: "SPF of {domain} cannot be judged now",
    Result.PERMERROR: "the SPF record of {domain} is faulty",
    Result.POLICY: "local policy overrides the SPF of {domain}",
}


def format_received_spf(result: SpfResult, client_address: str, receiver: str, helo: bytes, mail_from: bytes) -> str:
    """Return the field's raw value: it begins with its space, folds are CRLF + space.

    The envelope's octets stand in quotes, escaped, clipped, and in printable ASCII; the null sender is `""`.
    """
    comment = _WHAT_IT_MEANS[result.result].format(
        domain=result.domain if _DOT_ATOM.fullmatch(result.domain) else "an unknown domain",
        address=harmless(client_address, 45) or "a client without an address",
    )
    pairs = [
        ("client-ip", client_address),
        ("envelope-from", mail_from.decode("utf-8", "replace")),
        ("helo", helo.decode("utf-8", "replace")),
        ("receiver", receiver),
        ("identity", result.identity.value),
        ("mechanism", result.mechanism),
        ("problem", result.reason if result.result in (Result.TEMPERROR, Result.PERMERROR) else ""),
    ]
    listed = "; ".join(f"{key}={_value(text)}" for key, text in pairs if text or key == "envelope-from")
    return " " + fold(f"{result.result.value} ({comment}) {listed}", _FIRST_LINE)


def _value(text: str) -> str:
    return text if len(text) <= MAX_ADDRESS and _DOT_ATOM.fullmatch(text) else quoted(text, MAX_ADDRESS)
