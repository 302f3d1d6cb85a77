"""The roots of what can go wrong on purpose; everything else that is raised is our own bug."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing the operator has to mend: the file, the key or line in it, and what was expected."""

    file: str
    where: str
    expected: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.where, self.expected) if part)


class ConfigError(Exception):
    """The configuration cannot be used; `mistakes` holds every one that was found."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        super().__init__("; ".join(str(mistake) for mistake in mistakes))
        self.mistakes = mistakes
