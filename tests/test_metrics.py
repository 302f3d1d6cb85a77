"""Every number that a program counts is one that it has declared: counting another would be a bug met by a message."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from mailward.daemon.program import Program
from milters.auth_verify.__main__ import PROGRAM as AUTH_VERIFY
from milters.dkim_sign.__main__ import PROGRAM as DKIM_SIGN
from milters.greylist.__main__ import PROGRAM as GREYLIST

ROOT = Path(__file__).parent.parent
PROGRAMS = (DKIM_SIGN, AUTH_VERIFY, GREYLIST)


def counted_names(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield where a number is counted or observed under a name written there, and the name."""
    for path in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                yield from ((f"{path.name}:{node.lineno}", name) for name in names_in(node, node.func.attr))


def names_in(call: ast.Call, method: str) -> Iterable[str]:
    if method in ("count", "observe") and call.args:
        first = call.args[0]
        return [first.value] if isinstance(first, ast.Constant) and isinstance(first.value, str) else []
    return []


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_what_is_counted_is_declared(program: Program) -> None:
    declared = {spec.name for spec in program.metrics}
    counted = list(counted_names(ROOT / "milters" / program.name.replace("-", "_")))
    assert len(counted) >= 2
    assert [where for where, name in counted if name not in declared] == []
