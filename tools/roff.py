"""Manuals as man pages: plain text with indents, as this project's docstrings have it, into the macros of man(7).

    NAME - SUMMARY              the first line
    SECTION                     a heading stands at the margin, what is below it four spaces in
        A paragraph.
        TERM    its words       two or more spaces part them; the next line goes on below them
        TERM
            its words           or they begin on a line of their own
        mailward keys show      lines that begin with the program's name are what is typed

What stands in backticks is bold.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

WIDTH = 78
INDENT = 4

_ESCAPES = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti", '"': "\\(dq"}
_TERM = re.compile(r"(\S+(?: \S+)*)(?: {2,}(\S.*))?")
_PLACEHOLDER = re.compile(r"(?<![\w.-])([A-Z][A-Z-]*[A-Z])(?![\w.])")


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, and the lines below it without their indent."""

    heading: str
    lines: tuple[str, ...]


def page_text(lines: Iterable[str]) -> str:
    """Return a page of its lines; a paragraph begins with its heading anyway."""
    kept: list[str] = []
    for line in lines:
        if line != ".PP" or not kept[-1].startswith((".SH", ".SS")):
            kept.append(line)
    return "\n".join(kept) + "\n"


def title(name: str, section: int, date: str, version: str, summary: str) -> Iterator[str]:
    """Yield the head of a page."""
    yield f'.TH {escape(name).upper()} {section} "{date}" "Mailward {version}" "Mailward"'
    yield ".nh"
    yield ".nr HY 0"  # no word that may be copied is parted
    yield ".ds AD l"
    yield ".ad l"
    yield ".SH NAME"
    yield f"{escape(name)} \\- {escape(summary)}"


def read_manual(manual: str) -> tuple[str, str, list[Section]]:
    """Return name, summary and sections of a manual. Raises ValueError where it is none."""
    first, *rest = manual.splitlines()
    name, dash, summary = first.partition(" - ")
    if not dash:
        raise ValueError(f'expected "NAME - SUMMARY", found "{first}"')
    sections: list[Section] = []
    lines: list[str] = []
    for line in rest:
        if line and not line.startswith(" "):
            lines = []
            sections.append(Section(line, ()))
        else:
            lines.append(line[INDENT:])
        if sections:
            sections[-1] = Section(sections[-1].heading, tuple(lines))
    return name.replace(" ", "-"), summary, sections


def section(part: Section, program: str) -> Iterator[str]:
    """Yield a section; `program` is the first word of what is typed."""
    yield heading(part.heading)
    if part.heading == "SYNOPSIS":
        yield from _synopsis(part.lines)
        return
    for number, lines in enumerate(_paragraphs(part.lines)):
        yield from _block(lines, program, is_first=number == 0)


def heading(text: str) -> str:
    """Return a heading."""
    return f'.SH "{escape(text)}"'


def subheading(text: str) -> str:
    """Return a heading within a section."""
    return f'.SS "{escape(text)}"'


def item(term: str, text: str) -> Iterator[str]:
    """Yield a term, marked up already, and what is said of it, in one or more paragraphs."""
    yield ".TP"
    yield term
    paragraphs = [paragraph for paragraph in text.split("\n\n") if paragraph.strip()]
    for number, paragraph in enumerate(paragraphs):
        if number:
            yield ".IP"
        yield from filled(paragraph)


def paragraphs(text: str) -> Iterator[str]:
    """Yield paragraphs."""
    for paragraph in text.split("\n\n"):
        if paragraph.strip():
            yield ".PP"
            yield from filled(paragraph)


def literal(lines: list[str] | tuple[str, ...], indent: str = "4n") -> Iterator[str]:
    """Yield lines as they are."""
    yield ".PP"
    yield f".RS {indent}"
    yield ".EX"
    yield from (_safe(escape(line)) for line in lines)
    yield ".EE"
    yield ".RE"


def filled(text: str) -> list[str]:
    """Return running text, what is in backticks bold, in lines of a moderate length."""
    plain = " ".join(text.split())
    lines = textwrap.wrap(marked(plain), WIDTH, break_long_words=False, break_on_hyphens=False)
    return [_safe(line) for line in lines]


def marked(text: str) -> str:
    """Return text with what is in backticks bold. Raises ValueError where one is not closed."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        raise ValueError(f"a backtick is not closed: {text}")
    return "".join(bold(part) if number % 2 else escape(part) for number, part in enumerate(parts))


def bold(text: str) -> str:
    """Return text, escaped, in bold."""
    return f"\\fB{escape(text)}\\fR"


def escape(text: str) -> str:
    """Return text that roff prints as it is; every hyphen is one that can be copied into a terminal."""
    return "".join(_ESCAPES.get(character, character) for character in text)


def _safe(line: str) -> str:
    """Return a line that is no request of roff's."""
    return f"\\&{line}" if line.startswith(".") else line


def _synopsis(lines: tuple[str, ...]) -> Iterator[str]:
    commands: list[str] = []
    for line in filter(None, lines):
        if line.startswith(" "):
            commands[-1] += " " + line.strip()
        else:
            commands.append(line)
    for command in commands:
        program, _, rest = command.partition(" ")
        yield f".SY {escape(program)}"
        yield from _synopsis_words(rest)
        yield ".YS"


def _synopsis_words(text: str) -> list[str]:
    """Return options and arguments: what is in brackets stays together, placeholders are italic."""
    kept = re.sub(r"\[[^\[\]]*\]", lambda match: match.group().replace(" ", "\0"), text)
    italic = _PLACEHOLDER.sub(r"\\fI\1\\fR", escape(kept))
    lines = textwrap.wrap(italic, WIDTH, break_long_words=False, break_on_hyphens=False)
    return [_safe(line.replace("\0", "\\ ")) for line in lines]


def _paragraphs(lines: tuple[str, ...]) -> Iterator[list[str]]:
    paragraph: list[str] = []
    for line in (*lines, ""):
        if line.strip():
            paragraph.append(line)
        elif paragraph:
            yield paragraph
            paragraph = []


def _block(lines: list[str], program: str, *, is_first: bool) -> Iterator[str]:
    if all(line.split()[0] == program for line in lines) and not is_first:
        yield from literal(lines)
    elif _is_list(lines):
        for term, text in _items(lines):
            yield from item(bold(term), text)
    elif lines[0].startswith(" "):
        yield from literal([line[INDENT:] for line in lines])
    else:
        yield from paragraphs(" ".join(lines))


def _is_list(lines: list[str]) -> bool:
    if lines[0].startswith(" "):
        return False
    return "  " in lines[0] or (len(lines) > 1 and lines[1].startswith(" "))


def _items(lines: list[str]) -> Iterator[tuple[str, str]]:
    term, words = "", list[str]()
    for line in lines:
        if line.startswith(" "):
            words.append(line.strip())
            continue
        if term:
            yield term, " ".join(words)
        match = _TERM.fullmatch(line)
        if match is None:
            raise ValueError(f'expected a term and its words, found "{line}"')
        term, words = match[1], [match[2]] if match[2] else []
    yield term, " ".join(words)
