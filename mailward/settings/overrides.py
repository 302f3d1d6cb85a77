"""The file of overrides: who has limits of their own.

    # one a line; what stands behind # is a comment
    class newsletters news@example.com offers@example.com @lists.example.com
    class:newsletters account-recipients 5000/1h 20000/1d
    bob@example.com * 500/1h
    @example.org domain-recipients unlimited

The first word is a login, a domain with its @, or a class; the second a limit's name, or * for every limit (but those of bytes,
for which windows of their own are needed). The windows stand in the place of the limit's. A line that cannot be used is a mistake
with its number, and every one is found in one go.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from mailward.model.domain import InvalidDomain, normalize
from mailward.model.errors import Mistake
from mailward.model.limits import Window
from mailward.policy.limits import EVERY_LIMIT, Count, Limit, Overrides
from mailward.policy.owners import account_of
from mailward.settings.limit_table import check_rates, windows_of
from mailward.settings.values import Rates, read_rate

MAX_FILE = 32 * 1024 * 1024  # octets: some hundred thousand accounts
MAX_MISTAKES = 100  # a file of another kind has one in every line
UNLIMITED = "unlimited"
_MAX_SHOWN = 60
_CLASS_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")


V = TypeVar("V")


def read_overrides(path: Path, limits: Sequence[Limit]) -> tuple[Overrides, list[Mistake]]:
    """Read the file. What stands in lines without a mistake holds."""
    mistakes: list[Mistake] = []
    reader = _Reader({limit.name: limit for limit in limits})
    for number, text in lines_of(path, mistakes, MAX_FILE):
        try:
            reader.take(number, text.split())
        except ValueError as error:
            mistakes.append(Mistake(str(path), f"line {number}", str(error)))
    mistakes += [Mistake(str(path), f"line {number}", expected) for number, expected in reader.unknown_classes()]
    if len(mistakes) > MAX_MISTAKES:
        more = Mistake(str(path), "", f"and {len(mistakes) - MAX_MISTAKES} more")
        mistakes = [*mistakes[:MAX_MISTAKES], more]
    return reader.overrides(), mistakes


def lines_of(path: Path, mistakes: list[Mistake], most: int) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file that say something, without comments, each with its number."""
    try:
        with path.open("rb") as file:
            octets = file.read(most + 1)
    except OSError as error:
        mistakes.append(Mistake(str(path), "", f"cannot be read: {error.strerror}"))
        return
    if len(octets) > most:
        mistakes.append(Mistake(str(path), "", f"larger than {most // 2**20} MiB: this is some other file"))
        return
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError as error:
        mistakes.append(Mistake(str(path), f"octet {error.start}", "expected UTF-8 text"))
        return
    for number, line in enumerate(text.split("\n"), 1):
        said = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip()
        if said:
            yield number, said


def shown(text: str) -> str:
    """Return a word of a file as a mistake shows it."""
    return ascii(text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "...")


@dataclass(slots=True)
class _Reader:
    """What the lines up to now have said."""

    limits: Mapping[str, Limit]
    of_login: dict[str, dict[str, tuple[Window, ...]]] = field(default_factory=dict)
    of_class: dict[str, dict[str, tuple[Window, ...]]] = field(default_factory=dict)
    of_domain: dict[str, dict[str, tuple[Window, ...]]] = field(default_factory=dict)
    class_of_login: dict[str, str] = field(default_factory=dict)
    class_of_domain: dict[str, str] = field(default_factory=dict)
    named_at: dict[str, int] = field(default_factory=dict)  # a class -> the line that names it first

    def take(self, number: int, words: list[str]) -> None:
        """Take one line. Raises ValueError that says what was expected."""
        if words[0] == "class":
            self._take_class(words[1:])
        else:
            self._take_override(number, words)

    def overrides(self) -> Overrides:
        return Overrides(self.of_login, self.of_class, self.of_domain, self.class_of_login, self.class_of_domain)

    def unknown_classes(self) -> list[tuple[int, str]]:
        """Return the lines that name a class of which nobody is."""
        known = {*self.class_of_login.values(), *self.class_of_domain.values()}
        return [
            (number, f'expected a class that has members: there is no line "class {name} ..."')
            for name, number in self.named_at.items()
            if name not in known
        ]

    def _take_class(self, words: list[str]) -> None:
        if len(words) < 2:
            raise ValueError('expected "class NAME LOGIN..."')
        name = _class_name(words[0])
        for member in words[1:]:
            classes, key = _member(member, self.class_of_login, self.class_of_domain)
            if classes.setdefault(key, name) != name:
                raise ValueError(f'expected {shown(member)} in one class: it is in "{classes[key]}" already')

    def _take_override(self, number: int, words: list[str]) -> None:
        if len(words) < 3:
            expected = 'expected "LOGIN LIMIT WINDOW...", "@DOMAIN ...", "class:NAME ..." or "class NAME LOGIN..."'
            raise ValueError(f"{expected}, found {shown(' '.join(words))}")
        subject, limit_name = words[0], words[1]
        if subject.startswith("class:"):
            name = _class_name(subject.removeprefix("class:"))
            self.named_at.setdefault(name, number)
            overriding = self.of_class.setdefault(name, {})
        else:
            of_subject, key = _member(subject, self.of_login, self.of_domain)
            overriding = of_subject.setdefault(key, {})
        windows = self._windows(subject, limit_name, words[2:])
        if limit_name in overriding:
            raise ValueError(f"expected {shown(subject)} and {shown(limit_name)} together once")
        overriding[limit_name] = windows

    def _windows(self, subject: str, limit_name: str, words: list[str]) -> tuple[Window, ...]:
        """Return what a line says of a limit; none: it does not hold."""
        count = Count.MESSAGES
        if limit_name != EVERY_LIMIT:
            limit = self.limits.get(limit_name)
            if limit is None:
                known = ", ".join(sorted(self.limits))
                raise ValueError(f"expected a limit's name ({known}) or *, found {shown(limit_name)}")
            _check_reaches(subject, limit)
            count = limit.count
        if words == [UNLIMITED]:
            return ()
        try:
            rates = Rates(read_rate(word) for word in words)
            check_rates(rates, count.value)
        except ValueError as error:
            raise ValueError(f"{error}, found {shown(' '.join(words))}") from None
        return windows_of(rates)


def _member(word: str, of_login: dict[str, V], of_domain: dict[str, V]) -> tuple[dict[str, V], str]:
    """Return which of the two a word belongs into, and as what."""
    if _is_login(word):
        if not word.isprintable() or "/" in word or "*" in word:
            raise ValueError(f'expected a login, "@domain" or "class:NAME", found {shown(word)}')
        return of_login, account_of(word)
    try:
        return of_domain, normalize(word[1:])
    except InvalidDomain as error:
        raise ValueError(f'expected "@" and a domain ({error}), found {shown(word)}') from None


def _is_login(word: str) -> bool:
    return not word.startswith(("@", "class:"))


def _class_name(text: str) -> str:
    if not _CLASS_NAME.fullmatch(text):
        raise ValueError(f'expected a class\'s name of a-z, 0-9 and "-", at most 40 characters, found {shown(text)}')
    return text


def _check_reaches(subject: str, limit: Limit) -> None:
    """Refuse an override that never holds: the limit counts something else than the subject does."""
    if limit.is_of_accounts or ("sasl_domain" in limit.per and not _is_login(subject)):
        return
    if "sasl_domain" in limit.per:
        raise ValueError(f'expected "@domain" or a class: limit "{limit.name}" counts by domain')
    raise ValueError(f'limit "{limit.name}" counts by {", ".join(limit.per)}: no login has one of its own')
