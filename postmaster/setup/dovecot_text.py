"""What `doveconf -n` prints, as blocks of settings: of Dovecot 2.3 and of 2.4. No I/O.

A setting that Dovecot hides (a key, a password) has the value HIDDEN.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_LINES = 100_000  # doveconf's output of the largest installations has thousands
HIDDEN = "# hidden, use -P to show it"

_SETTING = re.compile(r"([^\s={}]+)\s*=\s?(.*)")
_BLOCK = re.compile(r"([^\s={}]+)(?:\s+(.*?))?\s*\{")


@dataclass(slots=True)
class Block:
    """A block: what stands behind its opening, `name` ("service") and `title` ("auth"), and what is in it, in order."""

    name: str = ""
    title: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)

    def get(self, name: str, default: str = "") -> str:
        """Return a setting's text; what 2.4 prints as `auth_policy { server_url = ... }` is auth_policy_server_url, too."""
        if name in self.settings:
            return self.settings[name]
        for block in self.blocks:
            if not block.title and name.startswith(f"{block.name}_"):
                found = block.get(name.removeprefix(f"{block.name}_"))
                if found:
                    return found
        return default

    def all(self, name: str, title: str | None = None) -> Iterator[Block]:
        """Yield the blocks of that name; with a title, those of that title."""
        for block in self.blocks:
            if block.name == name and title in (None, block.title):
                yield block


def parse_configuration(text: str) -> Block:
    r"""Read doveconf's output; lines that mean nothing here (comments) are passed over.

    >>> parse_configuration('ssl = no\nservice auth {\n  unix_listener "a b" {\n  }\n}').blocks[0].blocks[0].title
    'a b'
    """
    open_blocks = [Block()]
    for line in text.splitlines()[:MAX_LINES]:
        line = line.strip()
        if line.startswith("#"):
            continue
        if line == "}":
            if len(open_blocks) > 1:
                open_blocks.pop()
        elif match := _SETTING.fullmatch(line):
            open_blocks[-1].settings[match.group(1)] = unquoted(match.group(2))
        elif match := _BLOCK.fullmatch(line):
            block = Block(match.group(1), unquoted(match.group(2) or ""))
            open_blocks[-1].blocks.append(block)
            open_blocks.append(block)
    return open_blocks[0]


def unquoted(text: str) -> str:
    """Return a value as it is meant, without the quotes that doveconf puts around what has blanks or a backslash.

    >>> unquoted('" quota sieve"'), unquoted("yes")
    (' quota sieve', 'yes')
    """
    text = text.strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text


def words(text: str) -> list[str]:
    """Return the words of a list, which 2.3 parts by blanks and 2.4 by commas or blanks."""
    return re.split(r"[\s,]+", text.strip(" ,")) if text.strip(" ,") else []
