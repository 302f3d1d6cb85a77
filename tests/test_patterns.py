"""Regular expressions: what Python 3.11.2 reads wrong stands in none of them."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any

import pytest

PACKAGES = ("mailward", "milters", "policyd", "postmaster")


def modules() -> list[str]:
    paths = {name: importlib.import_module(name).__path__ for name in PACKAGES}
    return [found.name for name, path in paths.items() for found in pkgutil.walk_packages(path, name + ".")]


def possessive_groups(parsed: Any) -> Iterator[Any]:
    """Yield what is repeated possessively and is more than one character, as in `(?:ab)*+`."""
    for operation, argument in parsed:
        if operation is _constants.POSSESSIVE_REPEAT and not is_one_character(argument[2]):
            yield argument[2]
        for part in argument if isinstance(argument, tuple) else (argument,):
            for branch in part if isinstance(part, list) else (part,):
                if isinstance(branch, _parser.SubPattern):
                    yield from possessive_groups(branch)


def is_one_character(repeated: Any) -> bool:
    single = (_constants.LITERAL, _constants.NOT_LITERAL, _constants.IN, _constants.ANY)
    return len(repeated) == 1 and repeated[0][0] in single


@pytest.mark.parametrize("pattern", [r"(?:ab)*+", r"x(?:a|(?:\.b++)?+)", r"(?=(a\.)++)", r"(?>(?:ab){2,3}+)"])
def test_such_a_group_is_found(pattern: str) -> None:
    assert list(possessive_groups(_parser.parse(pattern)))


@pytest.mark.parametrize("name", modules())
def test_no_group_is_repeated_possessively(name: str) -> None:
    r"""Python 3.11.2, Debian 12's, takes the first half of a turn for a whole one: `a(?:\.b++)*+ ` matches "a. "."""
    for value in vars(importlib.import_module(name)).values():
        if isinstance(value, re.Pattern):
            assert not list(possessive_groups(_parser.parse(value.pattern, value.flags))), value.pattern
