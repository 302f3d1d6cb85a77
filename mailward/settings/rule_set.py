"""policyd's rules, put together from the configuration and the files it names: lists of patterns, and the overrides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mailward.model.errors import ConfigError, Mistake, named
from mailward.policy.limits import DEFAULT_LIMITS, Limit, Overrides, RuleSet
from mailward.policy.matching import LOGIN, NEVER, compile_match, normalize_pattern
from mailward.settings.limit_table import file_of
from mailward.settings.overrides import MAX_MISTAKES, lines_of, read_overrides, shown
from mailward.settings.policyd import Policyd
from mailward.settings.values import Patterns

MAX_LIST = 8 * 1024 * 1024  # octets; some hundred thousand addresses


def read_rule_set(own: Policyd) -> RuleSet:
    """Return the rules of `[policyd]`. Raises ConfigError with every mistake in every file."""
    lists = _Lists()
    limits = tuple(_limits(own, lists)) or DEFAULT_LIMITS
    exempt = compile_match({LOGIN: lists.expanded("policyd.exempt", LOGIN, own.exempt)}) if own.exempt else None
    overrides, mistakes = read_overrides(own.overrides, limits) if own.overrides is not None else (Overrides(), [])
    mistakes = [*lists.mistakes, *named(mistakes, "policyd.overrides")]
    if mistakes:
        raise ConfigError(mistakes)
    return RuleSet(limits, overrides, exempt, own.tighten, own.on_store_error == "defer", bool(own.correspondents))


def _limits(own: Policyd, lists: _Lists) -> list[Limit]:
    limits = []
    for number, table in enumerate(own.limit):
        where = f"policyd.limit[{number}].match"
        patterns = {attribute: lists.expanded(where, attribute, texts) for attribute, texts in table.match.items()}
        limits.append(table.made(Patterns(patterns)))
    return limits


class _Lists:
    """The list files that patterns name."""

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []

    def expanded(self, where: str, attribute: str, patterns: Sequence[str]) -> tuple[str, ...]:
        """Return the patterns with what is in the files in the files' place; `where` is the setting they stand in."""
        found: list[str] = []
        for pattern in patterns:
            path = file_of(pattern)
            if path is None:
                found.append(pattern)
            else:
                texts = self._read(where, attribute, Path(path))
                is_wanted = not pattern.startswith("!")
                found += (texts or [NEVER]) if is_wanted else [f"!{text}" for text in texts]
        return tuple(found)

    def _read(self, where: str, attribute: str, path: Path) -> list[str]:
        """Return the patterns of a file, one a line."""
        patterns, mistakes = [], list[Mistake]()
        for number, text in lines_of(path, mistakes, MAX_LIST):
            try:
                if text.startswith(("!", "file:")) or text == "*":
                    raise ValueError('expected a plain value: "!", "*" and files stand in the configuration')
                normalize_pattern(attribute, text)
            except ValueError as error:
                if len(mistakes) < MAX_MISTAKES:
                    mistakes.append(Mistake(str(path), f"line {number}", f"{error}, found {shown(text)}"))
            else:
                patterns.append(text)
        self.mistakes += named(mistakes, where)
        return patterns
