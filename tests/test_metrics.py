"""Every number that a program counts is one that it has declared: counting another would be a bug met by a message."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailward.daemon.program import Program
from milters.auth_verify.__main__ import PROGRAM as AUTH_VERIFY
from milters.dkim_sign.__main__ import PROGRAM as DKIM_SIGN
from milters.greylist.__main__ import PROGRAM as GREYLIST
from policyd.__main__ import PROGRAM as POLICYD

ROOT = Path(__file__).parent.parent
PACKAGES = {
    DKIM_SIGN: "milters.dkim_sign",
    AUTH_VERIFY: "milters.auth_verify",
    GREYLIST: "milters.greylist",
    POLICYD: "policyd",
}


def counted_names(package: str) -> Iterator[tuple[str, str]]:
    """Yield where a number is counted or observed under a name written there, or a constant's, and the name."""
    for path in sorted((ROOT / package.replace(".", "/")).glob("*.py")):
        module = f"{package}.{path.stem}"
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                name = name_in(node, node.func.attr, module)
                if name is not None:
                    yield f"{path.name}:{node.lineno}", name


def name_in(call: ast.Call, method: str, module: str) -> str | None:
    if method not in ("count", "observe") or not call.args:
        return None
    first = call.args[0]
    found: object = None
    if isinstance(first, ast.Constant):
        found = first.value
    elif isinstance(first, ast.Name) and first.id.isupper():
        found = getattr(importlib.import_module(module), first.id)
    return found if isinstance(found, str) else None


@pytest.mark.parametrize(("program", "package"), PACKAGES.items(), ids=lambda it: getattr(it, "name", ""))
def test_what_is_counted_is_declared(program: Program, package: str) -> None:
    declared = {spec.name for spec in program.metrics}
    counted = list(counted_names(package))
    assert len(counted) >= 2
    assert [where for where, name in counted if name not in declared] == []
