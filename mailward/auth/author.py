"""The author domains of a message: one strict reader of the From field, used by every program.

What a mail program shows and what we check must be the same address. So every field named From counts, every address in
it counts, comments and quoted strings are skipped as RFC 5322 3.4 says and never searched for an `@`, and what cannot
be read is a fault with a name, not a guess. Linear in the field's length; comments nest to a bounded depth.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from mailward.auth.encoded_word import has_encoded_word, may_hide_address
from mailward.model.domain import InvalidDomain, normalize
from mailward.model.message import HeaderField
from mailward.model.results import Authors, FromFault

MAX_FROM = 16 * 1024  # octets; a From field with hundreds of authors fits, a longer one is an attack on the reader
MAX_FIELDS = 10  # fields named From of one message that are read; one is allowed
MAX_COMMENT_DEPTH = 32

# atext (RFC 5322 3.2.3) and everything beyond ASCII (RFC 6532 3.2).
_ATOM = re.compile(r"[^\x00-\x20\x7f()<>\[\]:;@\\,.\"]+")
_WHITE_SPACE = re.compile(r"[ \t\r\n]+")
_QUOTED = re.compile(r'"(?:[^"\\\r\n]|\\.|\r\n[ \t])*"', re.DOTALL)
_LITERAL = re.compile(r"\[[^\[\]\\\r\n]*\]")
_PATTERNS = (("space", _WHITE_SPACE), ("atom", _ATOM), ("quoted", _QUOTED), ("literal", _LITERAL))
# One address, with or without a plain display name: nearly all mail, in a fifth of the full reader's time. Takes nothing
# that the full reader would refuse or read otherwise. Possessive, so that it never goes back: linear.
_WORD = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]++"
_LOCAL_WORD = _WORD.replace("?", "", 1)  # no encoded word can be made of these
_ADDRESS = rf"{_LOCAL_WORD}(?>(?:\.{_LOCAL_WORD})*)@([A-Za-z0-9-]++(?>(?:\.[A-Za-z0-9-]++)*))"
_PLAIN = re.compile(
    rf'[ \t]*+(?:(?:(?>(?:{_WORD}|[ \t.]++)*)|"[^"\\\r\n]*+"[ \t]*+)<{_ADDRESS}>|{_ADDRESS})[ \t]*+'.encode(), re.DOTALL
)
_AFTER_AT = re.compile(r"@\s*([^\s<>()\[\],;:\"@\\]*)(\s*[.(\\\"])?")
# A name with an `@` in it, as no grammar knows it, and the one address behind it.
_NAMED_ADDRESS = re.compile(rf"[^<>()\[\],;:\"\\]*+<{_ADDRESS}>\s*+")
_COMMENT_STEP = re.compile(r"[^()\\]+|\\.|[()]", re.DOTALL)


class _Malformed(ValueError):
    """The text is no address list."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # "atom", "quoted", "literal", or the special character itself
    text: str


def author_domains(header: Iterable[HeaderField]) -> Authors:
    """Return the author domains of a message (RFC 5322 3.6.2, RFC 9989 4.3 and 11.5)."""
    fields = [field.raw_value for field in header if field.compared_name == b"from"]
    if not fields:
        return Authors((), FromFault.MISSING)
    if len(fields) > MAX_FIELDS or (len(fields) > 1 and sum(map(len, fields)) > MAX_FROM):
        return Authors((), FromFault.SEVERAL_FIELDS)
    domains: dict[str, None] = {}
    fault = FromFault.SEVERAL_FIELDS if len(fields) > 1 else None
    for raw_value in fields:
        try:
            domains.update(dict.fromkeys(address_domains(raw_value)))
        except ValueError:
            fault = fault or FromFault.MALFORMED
            conceivable = _conceivable_domains(raw_value)
            if not conceivable:  # the other fields' domains must not stand in for one that nobody can read
                return Authors((), fault)
            domains.update(dict.fromkeys(conceivable))
    if not domains and fault is None:
        fault = FromFault.NO_DOMAIN
    return Authors(tuple(domains), fault)


def address_domains(raw_value: bytes) -> list[str]:
    """Return the domain of each mailbox of an address list, groups included (RFC 5322 3.4, RFC 6854).

    Raises ValueError where the text is no address list, or a domain is no domain name.

    >>> address_domains(b' "Doe, J. <ceo@bank.example>" (x@y.example) <j@Example.com>, k@b.example')
    ['example.com', 'b.example']
    """
    if len(raw_value) > MAX_FROM:
        raise _Malformed("too long")
    plain = _PLAIN.fullmatch(raw_value)
    if plain:
        return [_domain((plain.group(1) or plain.group(2)).decode("ascii"))]
    try:
        text = raw_value.decode("utf-8")
    except UnicodeDecodeError:
        # Octets of some old character set in a display name; an address cannot hold them.
        text = raw_value.decode("ascii", "replace")
    return _Reader(_tokens(text)).address_list()


def _domain(text: str) -> str:
    if "\ufffd" in text:
        raise _Malformed("octets in the domain that are no UTF-8")
    try:
        return normalize(text)
    except InvalidDomain as error:
        raise _Malformed(str(error)) from None


def _conceivable_domains(raw_value: bytes) -> list[str]:
    """Return every domain in a field that is no address list (`Doe, Inc. <j@example.com>`); none if one is no domain name.

    None either where an encoded word may hide an address: some readers decode it, and show what it says as the author. Nor
    where a name breaks off at white space, a comment or a quote behind which others read on: `<ceo@bank .example>`.
    A single label in a name is left out: in `Sales @ Company <s@company.example>` nobody takes it for an address. In any other
    place some readers do, and show it alone.
    """
    if len(raw_value) > MAX_FROM or may_hide_address(raw_value):
        return []
    text = raw_value.decode("utf-8", "replace")
    domains = []
    for match in _AFTER_AT.finditer(text):
        name, goes_on = match.groups()
        if goes_on or name.endswith("."):
            return []
        try:
            domains.append(normalize(name))
        except InvalidDomain:
            return []
    if not _NAMED_ADDRESS.fullmatch(text):
        return domains
    return [domain for domain in domains if "." in domain] or domains


def _tokens(text: str) -> list[_Token]:
    """Cut the text into tokens; comments and white space only part them."""
    tokens: list[_Token] = []
    at = 0
    while at < len(text):
        character = text[at]
        if character == "(":
            at = _skip_comment(text, at)
            continue
        kind, match = _match_token(text, at)
        if match is None:
            if character not in "<>@,:;.":
                raise _Malformed("a character that stands in no address")
            tokens.append(_Token(character, character))
            at += 1
            continue
        if kind != "space":
            tokens.append(_Token(kind, match.group()))
        at = match.end()
    return tokens


def _match_token(text: str, at: int) -> tuple[str, re.Match[str] | None]:
    for kind, pattern in _PATTERNS:
        match = pattern.match(text, at)
        if match:
            return kind, match
    return "", None


def _skip_comment(text: str, at: int) -> int:
    """Return the position behind the comment that opens at `at`."""
    depth = 0
    while at < len(text):
        step = _COMMENT_STEP.match(text, at)
        if step is None:
            break
        at = step.end()
        if step.group() == "(":
            depth += 1
            if depth > MAX_COMMENT_DEPTH:
                break
        elif step.group() == ")":
            depth -= 1
            if depth == 0:
                return at
    raise _Malformed("a comment does not end")


class _Reader:
    """Reads tokens as an address list; each method takes what it names."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0

    def address_list(self) -> list[str]:
        domains: list[str] = []
        while self._at < len(self._tokens):
            if self._next_is(","):  # RFC 5322 4.4: empty elements are obsolete, and harmless
                self._at += 1
                continue
            domains += self._address()
            if self._at < len(self._tokens) and not self._next_is(","):
                raise _Malformed("something stands behind an address")
        return domains

    def _address(self, *, in_group: bool = False) -> list[str]:
        """Take a mailbox or a group."""
        start = self._at
        while self._next_is("atom", "quoted", "."):
            self._at += 1
        if self._next_is(":") and not in_group:  # a group holds mailboxes, never a group
            return self._group()
        if self._next_is("<"):
            return [self._angle_address()]
        if self._next_is("@"):
            self._at = start
            return [self._bare_address()]
        raise _Malformed("no address")

    def _group(self) -> list[str]:
        self._at += 1
        domains: list[str] = []
        while not self._next_is(";"):
            if self._next_is(","):
                self._at += 1
                continue
            domains += self._address(in_group=True)
            if not self._next_is(",", ";"):
                raise _Malformed("a group does not end")
        self._at += 1
        return domains

    def _bare_address(self) -> str:
        """Take `local@domain`; then perhaps `<local@domain>`, where the first was an unquoted display name.

        Many programs send `a@b.example <a@b.example>`, which the grammar forbids. It is read where both halves name
        one domain, for then it cannot matter which half is shown.
        """
        domain = self._addr_spec()
        if self._next_is("<") and self._angle_address() != domain:
            raise _Malformed("the display name is another address")
        return domain

    def _angle_address(self) -> str:
        self._at += 1
        if self._next_is("@"):
            while not self._next_is(":"):  # RFC 5322 4.4: the obsolete route is skipped
                self._take("@", ",", "atom", ".")
            self._at += 1
        domain = self._addr_spec()
        self._take(">")
        return domain

    def _addr_spec(self) -> str:
        """Take `local@domain` and return the domain, normalized.

        RFC 2047 5 allows no encoded word here. Some readers decode one all the same, and show as the author what it hides, or
        what stands before the NUL that it holds.
        """
        start = self._at
        self._take("atom", "quoted")
        while self._next_is("."):
            self._at += 1
            if self._next_is("@"):  # `name.@example.jp` is sent by some phones
                break
            self._take("atom", "quoted")
        local_part = "".join(token.text for token in self._tokens[start : self._at])
        if has_encoded_word(local_part.encode()):
            raise _Malformed("an encoded word in an address")
        self._take("@")
        if self._next_is("literal"):
            raise _Malformed("a domain literal is nobody's domain")
        domain = self._take("atom").text
        while self._next_is("."):
            self._at += 1
            domain += "." + self._take("atom").text
        return _domain(domain)

    def _next_is(self, *kinds: str) -> bool:
        return self._at < len(self._tokens) and self._tokens[self._at].kind in kinds

    def _take(self, *kinds: str) -> _Token:
        if not self._next_is(*kinds):
            raise _Malformed("an address breaks off")
        self._at += 1
        return self._tokens[self._at - 1]
