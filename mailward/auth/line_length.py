"""Whether a message has a line that some mail server on the way will cut, and with it the signature."""

from __future__ import annotations

from collections.abc import Iterable

from mailward.model.message import HeaderField

MAX_LINE = 998  # RFC 5321 4.5.3.1.6, without CRLF; Postfix cuts longer lines when it sends them


def has_long_line(header: Iterable[HeaderField]) -> bool:
    """Say whether a header field has a line of more than 998 octets, its name and colon included."""
    for name, raw_value in header:
        if len(name) + len(raw_value) >= MAX_LINE and any(
            len(line) > MAX_LINE for line in (name + b":" + raw_value).split(b"\r\n")
        ):
            return True
    return False


class LongLineDetector:
    """Watch a body that arrives in chunks for a line of more than 998 octets.

    Looks only at the ends of strides of that length, so that a body of short lines costs one backwards search for each
    thousand octets instead of one step for each line.

    >>> detector = LongLineDetector()
    >>> detector.update(b"x" * 600); detector.update(b"x" * 399); detector.found
    True
    """

    __slots__ = ("_column", "found")

    def __init__(self) -> None:
        self._column = 0
        self.found = False

    def update(self, chunk: bytes) -> None:
        """Take the next octets of the body."""
        if self.found:
            return
        start, end = 0, len(chunk)
        while end - start + self._column > MAX_LINE:
            # A line of exactly 998 octets has its LF at column 999 (its CR at 998), counted from 0.
            line_end = chunk.rfind(b"\n", start, start + MAX_LINE + 2 - self._column)
            if line_end < 0:
                self.found = end - start + self._column > MAX_LINE + 1 or not chunk.endswith(b"\r")
                break
            start, self._column = line_end + 1, 0
        last_line_end = chunk.rfind(b"\n", start)
        self._column = end - last_line_end - 1 if last_line_end >= 0 else self._column + end - start
