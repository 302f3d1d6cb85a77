"""The roots of what can go wrong on purpose; everything else that is raised is our own bug."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing the operator has to mend: the file, the key or line in it, and what was expected."""

    file: str
    where: str
    expected: str

    def __str__(self) -> str:
        """Return it in one line: a key, a file's name or a line of a table may have whatever their writers had."""
        text = ": ".join(part for part in (self.file, self.where, self.expected) if part)
        return text if text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")


def named(mistakes: Iterable[Mistake], key: str) -> list[Mistake]:
    """Return mistakes in a file that the setting `key` names: one that is about no line of it is about that setting."""
    return [mistake if mistake.where else replace(mistake, where=key) for mistake in mistakes]


class ProtocolError(Exception):
    """A peer does not speak as agreed: its connection is to be closed, for what follows cannot be trusted either."""


class ConfigError(Exception):
    """The configuration cannot be used; `mistakes` holds every one that was found."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        super().__init__("; ".join(str(mistake) for mistake in mistakes))
        self.mistakes = mistakes


class StoreFailure(Enum):
    """Why a store did not do what it was asked. The words of the log and of the counter's label."""

    AWAY = "away"  # nobody answers
    TIMEOUT = "time-out"  # slower than its budget, or locked by somebody else
    FULL = "full"  # the disk, or Redis's memory
    READ_ONLY = "read-only"
    REFUSED = "refused"  # a wrong password, or no right to do this
    DAMAGED = "damaged"  # the file is not what we wrote
    SCHEMA = "schema"  # written by a newer version
    OTHER = "other"


class StoreError(Exception):
    """A store did not do what it was asked; what was asked has not happened, or may not have (TIMEOUT)."""

    def __init__(self, failure: StoreFailure, detail: str = "", *, is_begun_anew: bool = False) -> None:
        super().__init__(f"{failure.value}: {detail}" if detail else failure.value)
        self.failure = failure
        self.detail = detail
        # What was damaged has been set aside: the next call finds a store that works.
        self.is_begun_anew = is_begun_anew
