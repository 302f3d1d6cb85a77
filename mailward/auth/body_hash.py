"""The hash of a canonical message body (RFC 6376 3.4.3, 3.4.4), computed while the body streams past.

Linear in the body's length and constant in memory, whatever the body holds: nothing is kept but a count of line ends
and at most two octets. Chunks may be cut anywhere, between CR and LF too. `l=` is only for verifying: we never sign with it.
"""

from __future__ import annotations

import hashlib
import re
from enum import Enum
from typing import NamedTuple

CRLF = b"\r\n"
_BLANK_LINES = CRLF * 4096  # empty lines that turn out to be content are hashed in pieces of this size
_RUNS = re.compile(b"  +")


class Canonicalization(Enum):
    """How white space is made equal before hashing, of header fields and of the body alike."""

    SIMPLE = "simple"
    RELAXED = "relaxed"


class BodyForm(NamedTuple):
    """Which octets of a body a signature hashes: a canonical form, and of that the first `limit` (`l=`; None: all)."""

    canonicalization: Canonicalization
    limit: int | None = None


class BodyDigest(NamedTuple):
    """The hash of a body in one form, and how many octets the whole canonical body has, whatever the limit."""

    octets: bytes
    length: int


class BodyHash:
    r"""SHA-256 over one canonical form of a body that arrives in chunks with CRLF line ends.

    >>> body = BodyHash(Canonicalization.RELAXED)
    >>> for chunk in (b" C \r", b"\nD \t E\r\n", b"\r\n\r\n"):
    ...     body.update(chunk)
    >>> body.digest() == hashlib.sha256(b" C\r\nD E\r\n").digest()
    True
    """

    __slots__ = ("_blank_lines", "_has_content", "_hash", "_held", "_is_relaxed", "length")

    def __init__(self, canonicalization: Canonicalization, limit: int | None = None) -> None:
        """With a `limit` only that many octets of the canonical body are hashed (RFC 6376 3.5, `l=`)."""
        self.length = 0  # octets of the canonical body, the ones beyond the limit too; complete after digest()
        self._is_relaxed = canonicalization is Canonicalization.RELAXED
        self._hash = hashlib.sha256() if limit is None else _FirstOctets(limit)
        self._held = b""  # a space and/or a CR at the end so far, whose meaning the next octet decides
        self._blank_lines = 0  # line ends seen since the last content
        self._has_content = False

    def update(self, chunk: bytes) -> None:
        """Take the next octets of the body."""
        text = self._held + chunk if self._held else chunk
        if self._is_relaxed:
            text = _relax(text)
        end = len(text)
        if text.endswith(b"\r"):
            end -= 1
        if self._is_relaxed and text.endswith(b" ", 0, end):
            end -= 1
        self._held = text[end:]
        line_ends = _count_final_line_ends(text, end)
        content_end = end - 2 * line_ends
        if content_end > 0:
            self._hash_content(memoryview(text)[:content_end])
            self._blank_lines = line_ends
        else:
            self._blank_lines += line_ends

    def digest(self) -> bytes:
        """Return the 32 octets of the hash; the body ends here."""
        if self._held.endswith(b"\r"):
            self._hash_content(memoryview(self._held))  # a CR alone, at the very end, is content
        self._held = b""  # a space there is white space at the end of a line
        # An empty body is CRLF in the simple form and nothing in the relaxed one.
        if self._has_content or not self._is_relaxed:
            self._hash.update(CRLF)
            self.length += len(CRLF)
        return self._hash.digest()

    def finish(self) -> BodyDigest:
        """Return digest() together with the length; the body ends here."""
        octets = self.digest()
        return BodyDigest(octets, self.length)

    def _hash_content(self, content: memoryview) -> None:
        """Hash `content` behind the empty lines before it, which are now known not to be at the body's end."""
        pieces, rest = divmod(self._blank_lines * 2, len(_BLANK_LINES))
        for _ in range(pieces):
            self._hash.update(_BLANK_LINES)
        if rest:
            self._hash.update(_BLANK_LINES[:rest])
        self._hash.update(content)
        self.length += self._blank_lines * 2 + len(content)
        self._blank_lines = 0
        self._has_content = True


class _FirstOctets:
    """A SHA-256 that takes a number of octets and lets all further ones pass."""

    __slots__ = ("_hash", "_left")

    def __init__(self, limit: int) -> None:
        self._hash = hashlib.sha256()
        self._left = limit

    def update(self, octets: bytes | memoryview) -> None:
        if self._left:
            taken = octets[: self._left]
            self._hash.update(taken)
            self._left -= len(taken)

    def digest(self) -> bytes:
        return self._hash.digest()


def _relax(text: bytes) -> bytes:
    r"""Make every run of white space one space, and none before a line end (RFC 6376 3.4.4).

    Attachments in base64 have no white space, and the test for one octet costs a hundredth of the tests for two: it
    takes a third off a large message. A run is one match wherever it begins, so the expression is linear, as one over
    `[ \t]+\r\n` would not be.
    """
    if b"\t" in text:
        text = text.replace(b"\t", b" ")
    if b" " not in text:
        return text
    if b"  " in text:
        text = _RUNS.sub(b" ", text)
    return text.replace(b" \r\n", CRLF)


def _count_final_line_ends(text: bytes, end: int) -> int:
    """Count the CRLF pairs that stand, one after the other, right before `end`."""
    if not text.endswith(CRLF, 0, end):
        return 0
    if end >= 4 and not text.endswith((b"\n", b"\r"), 0, end - 2):
        return 1  # most chunks: spares a copy of the chunk
    tail = text[len(text[:end].rstrip(CRLF)) : end]
    marked = tail.replace(CRLF, b"|")  # what is left between the marks are bare CRs and LFs: content
    return len(marked) - len(marked.rstrip(b"|"))
