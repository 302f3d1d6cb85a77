"""A message in a file, cut into header fields and body as Postfix would hand it to a milter. A stream; never held whole.

Line ends may be LF, CRLF or both; a milter sees CRLF. An mbox's "From " line on top is skipped. As for Postfix, the header
ends at the first line that is neither a field nor a fold, and that line is the body's first unless it is empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from mailward.model.message import HeaderField

MAX_HEADER_FIELDS = 20_000  # as the milter: beyond these it answers 552
MAX_HEADER_OCTETS = 16 * 1024 * 1024
CHUNK = 64 * 1024

_FIELD = re.compile(rb"[\x21-\x39\x3b-\x7e]++[ \t]*+:")
_MBOX_LINES = (b"From ", b">From ")


class HeaderTooLarge(ValueError):
    """No milter would get to judge this message."""


class StoredMessage:
    """One message: its header, read at once, and its body, to be read once."""

    def __init__(self, stream: BinaryIO) -> None:
        """Read the header. Raises HeaderTooLarge, and OSError as the stream does."""
        self.body_octets = 0
        self._stream = stream
        self._left = MAX_HEADER_OCTETS
        self._first_body_line = b""
        self.header = list(self._read_header())

    def body(self) -> Iterator[bytes]:
        """Yield the body in chunks with CRLF line ends."""
        chunk, held = self._first_body_line, b""
        while chunk or (chunk := self._stream.read(CHUNK)):
            # A CR at the end of a chunk may be half of a line end.
            whole = held + chunk
            held = b"\r" if whole.endswith(b"\r") else b""
            yield self._counted(whole.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
            chunk = b""
        if held:
            yield self._counted(held)

    def _read_header(self) -> Iterator[HeaderField]:
        lines: list[bytes] = []
        fields = 0
        for line in self._header_lines():
            if line[:1] in (b" ", b"\t"):
                lines.append(line)
                continue
            if lines:
                yield _field(lines)
            fields += 1
            if fields > MAX_HEADER_FIELDS:
                raise HeaderTooLarge(f"the header has more than {MAX_HEADER_FIELDS} fields")
            lines = [line]
        if lines:
            yield _field(lines)

    def _header_lines(self) -> Iterator[bytes]:
        """Yield the lines of the header without their ends; keep the first one of the body if it was no empty line."""
        line = self._line()
        if line.startswith(_MBOX_LINES):
            line = self._line()
        is_first = True
        while line:
            is_fold = not is_first and line[:1] in (b" ", b"\t")
            if not is_fold and not _FIELD.match(line):
                self._first_body_line = b"" if line in (b"\n", b"\r\n") else line
                return
            if self._left < 0:
                raise HeaderTooLarge(f"the header has more than {MAX_HEADER_OCTETS // 1024 // 1024} MiB")
            yield line.removesuffix(b"\n").removesuffix(b"\r")
            is_first = False
            line = self._line()

    def _line(self) -> bytes:
        line = self._stream.readline(max(self._left, 0) + 1)
        self._left -= len(line)
        return line

    def _counted(self, chunk: bytes) -> bytes:
        self.body_octets += len(chunk)
        return chunk


def _field(lines: list[bytes]) -> HeaderField:
    name, _, value = lines[0].partition(b":")
    return HeaderField(name, b"\r\n".join((value, *lines[1:])))
