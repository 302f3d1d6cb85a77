"""Lines for a terminal: wrapped, aligned, coloured. The one way to the screen, and nothing from outside passes it raw."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import NamedTuple

import click

INDENT = 2
LABEL = 12  # columns of a row's label
SHORTEST = 20  # columns that are left for text however narrow the terminal

# Everything but printable ASCII can move the cursor, colour the screen, reverse the line or look like something else.
_UNSAFE = re.compile(r"[^ -~]|\\")


class Tone(Enum):
    """How a piece of text is shown."""

    PLAIN = "plain"
    GOOD = "good"
    BAD = "bad"
    DOUBT = "doubt"
    FAINT = "faint"
    STRONG = "strong"


class Span(NamedTuple):
    """A piece of a line; its text is escaped when it is shown, whatever it is.

    With `is_copied`, for what may be copied, a backslash stays as it is where all else is printable.
    """

    text: str
    tone: Tone = Tone.PLAIN
    is_copied: bool = False


_PIECE = str | Span


def printable(text: str) -> str:
    r"""Return `text` in printable ASCII: octets and control characters as \xNN, others as \u{N}, a backslash doubled.

    >>> printable("caf\u00e9 \x1b[31m \udc80 \\")
    'caf\\u{e9} \\x1b[31m \\x80 \\\\'
    """
    return _UNSAFE.sub(_escaped, text)


def from_octets(octets: bytes) -> str:
    """Return octets as text from which `printable` makes them visible again."""
    return octets.decode("utf-8", "surrogateescape")


class Page:
    """Lines in the order they are written."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._lines: list[str] = []

    def __str__(self) -> str:
        return "\n".join(self._lines)

    def heading(self, text: str, *pieces: _PIECE) -> None:
        """Begin a section, after an empty line; what is found first stands beside its name."""
        if self._lines:
            self._lines.append("")
        self.entry(Span(text, Tone.STRONG), *pieces, indent=0, width=INDENT + LABEL - 1)

    def row(self, label: str, *pieces: _PIECE) -> None:
        """Write a label and what is said of it, continued below itself."""
        self.entry(Span(label, Tone.FAINT), *pieces, indent=INDENT, width=LABEL - 1)

    def entry(self, label: Span, *pieces: _PIECE, indent: int, width: int) -> None:
        """Write a label, filled up to `width` columns, and what is said of it, continued below itself."""
        text = printable(label.text)
        first = indent + max(len(text), width) + 1
        start = " " * indent + styled(Span(text, label.tone)) + " " * (first - indent - len(text))
        self._flow(start, first, indent + width + 1, pieces)

    def line(self, *pieces: _PIECE, indent: int = INDENT) -> None:
        """Write a line, and below it what does not fit."""
        self._flow(" " * indent, indent, indent, pieces)

    def verbatim(self, text: str, indent: int = INDENT) -> None:
        """Write one line as it is, however long: something that may be copied."""
        self._lines.append(" " * indent + printable(text).rstrip())

    def _flow(self, start: str, first: int, hang: int, pieces: Iterable[_PIECE]) -> None:
        """Fill lines with words; `start` is what stands on the first one already, `first` columns wide."""
        room, line = self._width - first, list[Span]()
        for word in _words(pieces, max(self._width - hang, SHORTEST)):
            if line and len(word.text) + 1 > room:
                self._lines.append((start + _joined(line)).rstrip())
                start, room, line = " " * hang, self._width - hang, []
            room -= len(word.text) + bool(line)
            line.append(word)
        self._lines.append((start + _joined(line)).rstrip())


def _words(pieces: Iterable[_PIECE], longest: int) -> Iterator[Span]:
    """Yield the words of the pieces, escaped, each with its tone; a word longer than a line is cut."""
    for piece in pieces:
        text, tone, is_copied = piece if isinstance(piece, Span) else Span(piece)
        is_safe = is_copied and text.isascii() and text.isprintable()
        for word in (text if is_safe else printable(text)).split(" "):
            for at in range(0, len(word), longest):
                yield Span(word[at : at + longest], tone)


def _joined(words: Iterable[Span]) -> str:
    runs = itertools.groupby(words, key=lambda word: word.tone)
    return " ".join(styled(Span(" ".join(word.text for word in run), tone)) for tone, run in runs)


def styled(span: Span) -> str:
    """Return text that has been escaped in its tone."""
    style, text = _STYLES.get(span.tone), span.text
    return click.style(text, fg=style.colour, bold=style.is_bold, dim=style.is_faint) if style and text else text


class _Style(NamedTuple):
    colour: str | None = None
    is_bold: bool | None = None
    is_faint: bool | None = None


_STYLES = {
    Tone.GOOD: _Style("green"),
    Tone.BAD: _Style("red"),
    Tone.DOUBT: _Style("yellow"),
    Tone.FAINT: _Style(is_faint=True),
    Tone.STRONG: _Style(is_bold=True),
}


def _escaped(match: re.Match[str]) -> str:
    character = match.group()
    number = ord(character)
    if character == "\\":
        return "\\\\"
    if 0xDC80 <= number <= 0xDCFF:  # an octet that was no UTF-8
        return f"\\x{number - 0xDC00:02x}"
    return f"\\x{number:02x}" if number < 0x80 else f"\\u{{{number:x}}}"
