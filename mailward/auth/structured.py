"""Structured header fields (RFC 5322 3.2): read leniently, written strictly.

What was read is only cut into tokens here, never repaired: what cannot be cut for certain is Malformed. One pass, no recursion,
so that no number of parentheses costs more than their length. What is written is printable ASCII with folds, and every quote
in it is ours.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_READ = 32 * 1024  # octets; the fields of large providers have up to 4 kB, and no reader of ours needs a longer one
MAX_COMMENT_DEPTH = 32
MAX_LINE = 78  # RFC 5322 2.1.1

# No octet of a header field that somebody meant: a control character, or a CR or LF that is no fold.
_STRAY = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|\n(?![ \t])")
# White space beyond ASCII is no part of a word: one reader skips it, another does not. Possessive: nothing is read twice.
_STEP = re.compile(
    r'[ \t\r\n]++|(?P<quoted>"(?>(?:[^"\\]++|\\.)*)")|(?P<word>[^\s"();=\\]++)|(?P<special>[;=])|(?P<comment>\()',
    re.DOTALL,
)
_COMMENT_STEP = re.compile(r"[^()\\]++|\\.|[()]", re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)

# What stands instead of the characters that mean something in a quoted string or a comment, or to a reader that only
# looks for them without knowing what a quoted string is.
_HARMLESS: dict[int, str | int] = {**dict.fromkeys((*range(0x20), 0x7F), "?"), **str.maketrans('"\\();', "'/[],")}
_PLAIN = re.compile(r"[A-Za-z0-9 .,:_=/-]*+")
_NEEDS_ESCAPE = re.compile(r'["\\]')


class Malformed(ValueError):
    """The text is no structured field; the message says why, without repeating the text."""


class Token(NamedTuple):
    """A piece of a field: `kind` is "w" (word), "q" (quoted string, `text` without quotes and escapes) or "="."""

    kind: str
    text: str


def segments(raw_value: bytes) -> list[list[Token]]:
    """Cut a field's value at its semicolons, and each part into tokens; comments and white space only part tokens.

    Raises Malformed for what does not end, for control characters, and for octets that are no UTF-8.

    >>> [[token.text for token in part] for part in segments(b' mx.example (a; b); spf=pass reason="c; d"')]
    [['mx.example'], ['spf', '=', 'pass', 'reason', '=', 'c; d']]
    """
    text = _text(raw_value)
    parts: list[list[Token]] = [[]]
    at = 0
    while at < len(text):
        step = _STEP.match(text, at)
        if step is None:
            raise Malformed("a character that stands in no field, or quotes that do not end")
        at = step.end()
        kind = step.lastgroup
        if kind == "word":
            parts[-1].append(Token("w", step.group()))
        elif kind == "comment":
            at = _comment_end(text, at)
        elif kind == "quoted":
            parts[-1].append(Token("q", _QUOTED_PAIR.sub(r"\1", step.group()[1:-1])))
        elif step.group() == ";":
            parts.append([])
        elif kind == "special":
            parts[-1].append(Token("=", "="))
    return parts


def _text(raw_value: bytes) -> str:
    if len(raw_value) > MAX_READ:
        raise Malformed("longer than any such field has reason to be")
    try:
        text = raw_value.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("octets that are no UTF-8") from None
    if _STRAY.search(text):
        raise Malformed("a control character")
    return text


def _comment_end(text: str, at: int) -> int:
    """Return the position behind the comment whose first octet is at `at`."""
    depth = 1
    while depth:
        step = _COMMENT_STEP.match(text, at)
        if step is None:
            raise Malformed("a comment does not end")
        at = step.end()
        if step.group() == "(":
            depth += 1
            if depth > MAX_COMMENT_DEPTH:
                raise Malformed("comments nested deeper than anybody means")
        elif step.group() == ")":
            depth -= 1
    return at


def harmless(text: str, length: int) -> str:
    """Return `text` as printable ASCII that can close no quotes, comment or result, clipped to `length` characters.

    >>> harmless('a"b) dmarc=pass; caf\u00e9', 40)
    "a'b] dmarc=pass, caf?"
    """
    if not text:
        return ""
    safe = text if text.isascii() else text.encode("ascii", "replace").decode("ascii")
    if not _PLAIN.fullmatch(safe):
        safe = safe.translate(_HARMLESS)
    safe = " ".join(safe.split())
    return safe if len(safe) <= length else safe[: length - 3].rstrip() + "..."


def quoted(text: str, length: int) -> str:
    r"""Return `text` as a quoted string (RFC 5322 3.2.4) of printable ASCII, clipped to `length` characters before escaping.

    >>> quoted('"a b"@x.example', 40)
    '"\\"a b\\"@x.example"'
    """
    safe = "".join(c if " " <= c <= "~" else "?" for c in text[:length])
    return '"' + _NEEDS_ESCAPE.sub(r"\\\g<0>", " ".join(safe.split())) + '"'


def fold(text: str, room: int = MAX_LINE - 1) -> str:
    """Fold at single spaces so that lines have at most 78 characters where the words allow; `room` is left on the first.

    A space in a quoted string is a place to fold, too: unfolded it is the space it was (RFC 5322 2.2.3, 3.2.4).
    """
    if len(text) <= room:
        return text
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        if not line:
            line = word
        elif len(line) + len(word) < room:
            line += " " + word
        else:
            lines.append(line)
            line = word
            room = MAX_LINE - 1
    return "\r\n ".join((*lines, line))
