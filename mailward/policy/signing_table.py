"""The hoster's text files: which keys sign for which domain, and which login may sign for which domains.

Pure: lines in, tables and mistakes out. One entry a line, fields parted by white space, `#` begins a comment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mailward.model.domain import InvalidDomain, normalize
from mailward.policy.signing import KeyRef, fold_login


class LineMistake(NamedTuple):
    """What is wrong with one line; lines count from 1."""

    line: int
    expected: str


def parse_signing_table(lines: Iterable[str]) -> tuple[dict[str, tuple[KeyRef, ...]], list[LineMistake]]:
    """Parse `PATTERN SELECTOR KEYFILE [SIGNING-DOMAIN]`; several lines with one pattern make several signatures.

    PATTERN is a domain, `.domain` for everything below it, or `*`. Without SIGNING-DOMAIN it is the pattern's own domain;
    for `*` the author domain.

    >>> table, _ = parse_signing_table([".example.com  2026a  /keys/a.pem"])
    >>> table[".example.com"][0].signing_domain
    'example.com'
    """
    table: dict[str, tuple[KeyRef, ...]] = {}
    mistakes = []
    for number, words in _entries(lines):
        if len(words) not in (3, 4):
            mistakes.append(LineMistake(number, "expected PATTERN SELECTOR KEYFILE [SIGNING-DOMAIN]"))
            continue
        try:
            pattern = normalize_pattern(words[0])
            selector = normalize(words[1])
            signing_domain = normalize(words[3]) if len(words) == 4 else pattern.lstrip(".*")
        except InvalidDomain as error:
            mistakes.append(LineMistake(number, f"expected domain names ({error})"))
            continue
        table[pattern] = (*table.get(pattern, ()), KeyRef(signing_domain, selector, words[2]))
    return table, mistakes


def parse_logins(lines: Iterable[str]) -> tuple[dict[str, frozenset[str]], list[LineMistake]]:
    """Parse `LOGIN DOMAIN...`; LOGIN may be `@domain` for all logins of a domain, DOMAIN may be `*`. One login's lines add up.

    >>> parse_logins(["alice@example.com  example.com example.net"])[0]["alice@example.com"] == {"example.com", "example.net"}
    True
    """
    rights: dict[str, frozenset[str]] = {}
    mistakes = []
    for number, (login, *domains) in _entries(lines):
        if not domains:
            mistakes.append(LineMistake(number, "expected LOGIN and at least one domain"))
            continue
        try:
            names = frozenset(domain if domain == "*" else normalize(domain) for domain in domains)
        except InvalidDomain as error:
            mistakes.append(LineMistake(number, f"expected domain names ({error})"))
            continue
        login = fold_login(login)
        rights[login] = rights.get(login, frozenset()) | names
    return rights, mistakes


def normalize_pattern(pattern: str) -> str:
    """Return a name of SigningTable in its normal form. Raises InvalidDomain."""
    if pattern == "*":
        return pattern
    if pattern.startswith("."):
        return "." + normalize(pattern[1:])
    return normalize(pattern)


def _entries(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(lines, 1):
        if number == 1:
            line = line.removeprefix("\ufeff")  # some editors begin a file with a byte order mark
        words = line.partition("#")[0].split()
        if words:
            yield number, words
