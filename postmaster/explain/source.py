"""The line of the configuration that stands behind a decision."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from mailward.settings.load import MAX_FILE, Sections

MAX_SHOWN = 200  # characters of a value

_TABLE = re.compile(r"[ \t]*+\[[ \t]*+([A-Za-z0-9_.-]++)[ \t]*+\]")
_KEY = re.compile(r"[ \t]*+([A-Za-z0-9_.-]++)[ \t]*+=")


@dataclass(frozen=True, slots=True)
class Source:
    """A configuration key, the value it has, and where that stands: `file` is empty for a default, `line` 0 if not found."""

    key: str
    value: str
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        if not self.file:
            return "default"
        return f"{self.file}:{self.line}" if self.line else self.file


def find_source(sections: Sections, table: str, name: str, value: object) -> Source:
    """Say where `name` of a table got its value."""
    key = f"{table}.{name}"
    stated: Mapping[str, Any] = sections.tables.get(table, {})
    if name not in stated:
        return Source(key, _shown(value))
    file = sections.file_of(key)
    return Source(key, _shown(value), file, _line_of(file, table, name))


def _line_of(path: str, table: str, name: str) -> int:
    """Return the number of the line that sets a key, in the forms people write; 0 where it is not found."""
    current = ""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MAX_FILE)
    except (OSError, UnicodeDecodeError):  # changed since it was read
        return 0
    for number, line in enumerate(text.split("\n"), 1):
        heading, key = _TABLE.match(line), _KEY.match(line)
        if heading:
            current = heading[1]
        elif key and f"{current}.{key[1]}".strip(".") == f"{table}.{name}":
            return number
    return 0


def _shown(value: object) -> str:
    """Return a value as TOML has it, clipped."""
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, str):
        text = f'"{value}"'
    elif isinstance(value, Collection):
        text = "[" + ", ".join(f'"{item}"' for item in value) + "]"
    else:
        text = str(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
