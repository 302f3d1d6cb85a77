"""Authentication-Results (RFC 8601): ours is written, others' are found and read. The only import of the authres library.

The library puts results together: method, result, reason, properties, and the quoting of values. It never sees a value that
was not looked at first, for it lets CR, LF, NUL and parentheses through and leaves whatever holds an `@` without quotes.
Folding is ours because it has none. Its parser reads our field back in the tests, and never a stranger's: that one knows
no quoted authserv-id, stumbles over what large providers write, and 500 parentheses exhaust its stack.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable, Iterator, Sequence

from authres.core import AuthenticationResult, AuthenticationResultProperty, NoneAuthenticationResult, QuotableValue

from mailward.auth.structured import MAX_LINE, Malformed, Token, fold, harmless, segments
from mailward.model.domain import InvalidDomain, normalize
from mailward.model.message import HeaderField
from mailward.model.results import DkimResult, Evaluation, Result

MAX_DKIM_RESULTS = 10  # a message may have a hundred signatures; what counts for DMARC is written first
MAX_DKIM_OCTETS = 6 * 1024  # leaves the field below 8 kB, however long the names are
MAX_REASON = 160
MAX_VALUE = 320  # RFC 5321 4.5.3.1: a local part of 64, the @, a domain of 255
MAX_FIELDS_READ = 100  # further fields are removed unread: a border MTA may remove them all (RFC 8601 5)
MAX_PASSED_DOMAINS = 10

_FIELD_NAME = b"authentication-results"
_FIRST_LINE = MAX_LINE - len(b"Authentication-Results:")

# Narrower than the standard's tokens and addresses: without `=` no stranger can write `dmarc=pass` into our field, not
# even for a reader that searches it without knowing its grammar (`i=dmarc=pass@example.com` is a lawful auid).
_NAME = re.compile(r"[A-Za-z0-9._-]{1,255}+")
_AUID = re.compile(r"[A-Za-z0-9.+_-]{0,64}+@[A-Za-z0-9._-]{1,255}+")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{1,64}+={0,2}+")
_IP_ADDRESS = re.compile(r"[0-9A-Fa-f.:]{2,45}+")
_LOGIN = re.compile(r"[A-Za-z0-9.+_-]{1,64}+(?>(?:@[A-Za-z0-9._-]{1,255}+)?)")

# A domain as header.from has it: alone, or the address that Zoho writes.
_AUTHOR = re.compile(r"(?>(?:[A-Za-z0-9!#$%&'*+/?^_`{|}~.-]++@)?)([^\s<>@\"]++)")


Property = tuple[str, str, str, re.Pattern[str]]  # type, name, value, and the form the value must have


class _Quoted(QuotableValue):  # type: ignore[misc]
    """A text of several words, always quoted: the library leaves the quotes away where there is an `@`."""

    def quote_if_needed(self) -> str:
        return f'"{self}"'


# ---- ours ----


def format_results(authserv_id: str, evaluation: Evaluation, *, dmarc_reason: str = "") -> str:
    """Return the raw value of the field for one message: it begins with its space, folds are CRLF + space.

    There is one dmarc result, that of `worst_dmarc`: with several authors a pass of one of them must not stand beside the
    failure of another. `dmarc_reason` says what enforcement made of it. Raises ValueError where `authserv_id` is no name.
    """
    results = [
        *_dkim_results(evaluation),
        *_spf_results(evaluation),
        _dmarc_result(evaluation, dmarc_reason),
        _result("arc", evaluation.arc.result, evaluation.arc.reason),
    ]
    iprev = evaluation.iprev
    if iprev.result is not Result.NONE:  # RFC 8601 2.7.3 knows no none
        results.append(_result("iprev", iprev.result, iprev.reason, ("policy", "iprev", iprev.address, _IP_ADDRESS)))
    return _field(authserv_id, results)


def format_authenticated(authserv_id: str, login: str, mail_from_domain: str) -> str:
    """Return the raw value of the field for a client that logged in (RFC 8601 2.7.4)."""
    mail_from = ("smtp", "mailfrom", mail_from_domain, _NAME)
    if _LOGIN.fullmatch(login):
        return _field(authserv_id, [_result("auth", Result.PASS, "", ("smtp", "auth", login, _LOGIN), mail_from)])
    # A login may be anything: in quotes, and last, where every parser takes them.
    account = AuthenticationResultProperty("smtp", "auth")
    account.value = _Quoted(harmless(login, MAX_VALUE) or "?")
    return _field(authserv_id, [f"{_result('auth', Result.PASS, '', mail_from)} {account}"])


def format_none(authserv_id: str) -> str:
    """Return the raw value of the field that says that nothing was asked (RFC 8601 2.2)."""
    return _field(authserv_id, [str(NoneAuthenticationResult())])


def _dkim_results(evaluation: Evaluation) -> Iterator[str]:
    """Yield a result for each signature, in the order of the message; with too many, those that count come first."""
    if not evaluation.dkim:
        yield "dkim=none"
        return
    signatures: Sequence[DkimResult] = evaluation.dkim
    if len(signatures) > MAX_DKIM_RESULTS:
        aligned = evaluation.worst_dmarc.aligned
        signatures = sorted(
            signatures,
            key=lambda one: (one.result is not Result.PASS, f"dkim={one.signing_domain}" not in aligned),
        )[:MAX_DKIM_RESULTS]
    octets = 0
    for one in signatures:
        text = _result(
            "dkim",
            one.result,
            one.reason,
            ("header", "d", one.signing_domain, _NAME),
            ("header", "i", one.auid, _AUID),
            ("header", "s", one.selector, _NAME),
            ("header", "a", one.algorithm, _NAME),
        )
        if _BASE64.fullmatch(one.signature_prefix):  # another for each message; and last, for it may need quotes
            text += f" {AuthenticationResultProperty('header', 'b', one.signature_prefix)}"
        octets += len(text)
        if octets > MAX_DKIM_OCTETS:
            return
        yield text


def _spf_results(evaluation: Evaluation) -> Iterator[str]:
    """Yield the result of MAIL FROM, and that of HELO where it names a domain."""
    spf = evaluation.spf_mailfrom
    yield _result("spf", spf.result, spf.reason, ("smtp", "mailfrom", spf.domain, _NAME))
    spf = evaluation.spf_helo
    if spf.domain:
        yield _result("spf", spf.result, spf.reason, ("smtp", "helo", spf.domain, _NAME))


def _dmarc_result(evaluation: Evaluation, dmarc_reason: str) -> str:
    dmarc = evaluation.worst_dmarc
    return _result(
        "dmarc",
        dmarc.result,
        ", ".join(filter(None, (dmarc.reason, dmarc_reason))),
        ("header", "from", dmarc.author_domain, _NAME),
        ("policy", "dmarc", dmarc.policy.value if dmarc.policy else "", _NAME),
    )


@functools.lru_cache(maxsize=1024)  # most mail comes from few senders: 3 us instead of 35 for a field like the last one
def _result(method: str, result: Result, reason: str, *properties: Property) -> str:
    """Put one result together. A property whose value is not of its form is left out: nothing is written altered."""
    made = AuthenticationResult(
        method,
        result=result.value,
        properties=[
            AuthenticationResultProperty(kind, name, value)
            for kind, name, value, form in properties
            if form.fullmatch(value)
        ],
    )
    told = harmless(reason, MAX_REASON)
    if told:
        made.reason = _Quoted(told)
    return str(made)


def _field(authserv_id: str, results: Sequence[str]) -> str:
    """Join the results, each on a line of its own unless one line holds them all."""
    if not _NAME.fullmatch(authserv_id):
        raise ValueError("authserv_id is no name")
    flat = f" {authserv_id}; " + "; ".join(results)
    if len(flat) <= _FIRST_LINE:
        return flat
    lines = "\r\n ".join([fold(result + ";") for result in results])
    return f" {authserv_id};\r\n {lines[:-1]}"


# ---- others' ----


def forged_fields(header: Iterable[HeaderField], authserv_ids: Collection[str]) -> list[int]:
    """Return which Authentication-Results fields must go (RFC 8601 5): their numbers among them, from 1 at the top.

    Those are the ones that claim one of `authserv_ids`, and all from which a foreign id cannot be read for certain. The
    name counts in any case and with the obsolete space before the colon, as the MTA counts it.
    """
    fields = [
        field.raw_value
        for field in header
        if len(field.name) >= len(_FIELD_NAME) and field.compared_name == _FIELD_NAME
    ]
    if not fields:
        return []
    own = {_comparable(authserv_id) for authserv_id in authserv_ids}
    return [
        occurrence
        for occurrence, raw_value in enumerate(fields, 1)
        if occurrence > MAX_FIELDS_READ or not _is_certainly_foreign(raw_value, own)
    ]


def _comparable(authserv_id: str) -> str:
    try:
        return normalize(authserv_id)
    except InvalidDomain:
        return authserv_id.lower()


def _is_certainly_foreign(raw_value: bytes, own: Collection[str]) -> bool:
    """Say whether every reader must read the same authserv-id, and it is none of ours."""
    try:
        parts = segments(raw_value)
        name = _certain_name(_authserv_id(parts[0]))
    except ValueError:  # Malformed, InvalidDomain, and what the codecs raise
        return False
    return len(parts) > 1 and name not in own


def _authserv_id(part: Sequence[Token]) -> str:
    """Return the id from what stands before the first semicolon; Malformed where there is none, or a version but 1."""
    shape = "".join(token.kind for token in part)
    if shape in ("w", "q") or (shape in ("ww", "qw") and part[1].text == "1"):
        return part[0].text
    raise Malformed("no authserv-id")


def _certain_name(authserv_id: str) -> str:
    """Return the id normalized; InvalidDomain where readers may differ about it.

    RFC 8601 5 has ids compared as U-labels. An A-label that stands for ASCII, and a U-label that IDNA 2003 reads as another
    name, are ours to one reader and foreign to the next.
    """
    name = normalize(authserv_id)
    if authserv_id.isascii():
        if "xn--" in name and normalize(".".join(map(_u_label, name.split(".")))) != name:
            raise InvalidDomain("an A-label that is none")
    elif authserv_id.encode("idna").decode("ascii").lower().removesuffix(".") != name:
        raise InvalidDomain("a U-label of two readings")
    return name


def _u_label(label: str) -> str:
    return label[4:].encode("ascii").decode("punycode") if label.startswith("xn--") else label


def passed_author_domains(payload: bytes) -> tuple[str, ...]:
    """Return the author domains (normalized) of which an ARC-Authentication-Results value says `dmarc=pass` (RFC 8617 4.1.1).

    `payload` may still have its `i=N;`. What is ambiguous gives none at all: a dmarc result that is no pass, one without
    exactly one header.from, more of them than messages have authors, and whatever cannot be cut for certain.

    >>> passed_author_domains(b' i=1; mx.example; spf=none (dmarc=pass); dmarc=pass (p=NONE) header.from=Example.COM')
    ('example.com',)
    """
    try:
        parts = segments(payload)
        if [token.text.lower() for token in parts[0][:2]] == ["i", "="]:
            del parts[0]
        if not parts:
            return ()
        _authserv_id(parts[0])
        dmarc_parts = [part for part in parts[1:] if part and _is_dmarc(part[0])]
        domains = dict.fromkeys(_passed_domain(part) for part in dmarc_parts)
    except ValueError:  # Malformed, InvalidDomain
        return ()
    return tuple(domains) if len(domains) <= MAX_PASSED_DOMAINS else ()


def _is_dmarc(token: Token) -> bool:
    return token.text.lower().partition("/")[0] == "dmarc"


def _passed_domain(part: Sequence[Token]) -> str:
    """Return the one header.from of a dmarc result that is a pass."""
    if not re.fullmatch("w=w(?:w=[wq])*", "".join(token.kind for token in part)):
        raise Malformed("a result that is none")
    pairs = [(part[at].text.lower(), part[at + 2].text) for at in range(0, len(part), 3)]
    method, result = pairs[0]
    values = [value for name, value in pairs if name == "header.from"]
    if method not in ("dmarc", "dmarc/1") or result.lower() != "pass" or len(values) != 1:
        raise Malformed("no pass of one author domain")
    value = values[0]
    if value.startswith("<") and value.endswith(">"):
        value = value[1:-1]
    author = _AUTHOR.fullmatch(value)
    if author is None:
        raise Malformed("header.from is no domain")
    return normalize(author.group(1))
