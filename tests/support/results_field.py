"""Reads an Authentication-Results field by RFC 8601's grammar, with no code of ours or of a library that wrote it.

Strict: what the grammar does not have is an error, so that text from outside that got out of its place is noticed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

TOKEN = re.compile(r"\s*(?:(\((?:[^()\\]|\\.)*\))|\"((?:[^\"\\\r\n]|\\.)*)\"|([^\s;=\"()]+)|([;=]))")
PROPERTY = re.compile(r"(?:smtp|header|body|policy)\.[a-z-]+")
METHODS = ("spf", "dkim", "dmarc", "arc", "iprev", "auth")


@dataclass(frozen=True)
class MethodResult:
    """One `method=result`, with its reason and properties."""

    method: str
    result: str
    reason: str
    properties: dict[str, str]


@dataclass(frozen=True)
class ResultsField:
    """The whole field."""

    authserv_id: str
    results: tuple[MethodResult, ...]

    def of(self, method: str) -> list[MethodResult]:
        """Return the results of one method, in order."""
        return [result for result in self.results if result.method == method]

    def words(self, method: str) -> tuple[str, ...]:
        """Return the result words of one method, in order."""
        return tuple(result.result for result in self.of(method))


def read_results_field(raw_value: bytes) -> ResultsField:
    """Read a field's value (folds as LF or CRLF); AssertionError for anything the grammar does not have."""
    unfolded = re.sub(rb"\r?\n(?=[ \t])", b"", raw_value)
    assert re.fullmatch(rb"[\t -~]*", unfolded), f"not printable ASCII: {unfolded!r}"
    identifier, *parts = _split(_tokens(unfolded.decode("ascii")))
    assert len(identifier) == 1, identifier
    results = tuple(_result(part) for part in parts) if parts != [["none"]] else ()
    return ResultsField(identifier[0], results)


def _tokens(text: str) -> list[str]:
    """Cut the text into words, `;` and `=`; comments are skipped, quoted words lose their quotes."""
    tokens = []
    at = 0
    text = text.rstrip()
    while at < len(text):
        match = TOKEN.match(text, at)
        assert match, f"no token at {text[at : at + 40]!r}"
        comment, quoted, word, special = match.groups()
        if quoted is not None:
            tokens.append("\0" + re.sub(r"\\(.)", r"\1", quoted))
        elif comment is None:
            tokens.append(word or special)
        at = match.end()
    return tokens


def _split(tokens: list[str]) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for token in tokens:
        if token == ";":
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _result(tokens: list[str]) -> MethodResult:
    """Read `method = result [reason = value] *(ptype.property = value)`."""
    assert len(tokens) % 3 == 0, tokens
    pairs = []
    for at in range(0, len(tokens), 3):
        name, equals, value = tokens[at : at + 3]
        assert equals == "=", tokens
        pairs.append((name, value.removeprefix("\0")))
    (method, result), *rest = pairs
    assert method in METHODS, tokens
    properties = dict(rest)
    assert len(properties) == len(rest), f"a property stands twice: {tokens}"
    reason = properties.pop("reason", "")
    for name in properties:
        assert PROPERTY.fullmatch(name), tokens
    return MethodResult(method, result, reason, properties)
