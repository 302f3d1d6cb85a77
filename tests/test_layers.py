"""The house's arrows: who may import whom, and what the pure rooms never touch (README.md, "Architecture")."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# room -> rooms of ours it may import from; the longest matching prefix of a module's name is its room.
MAY_IMPORT = {
    "mailward": (),
    "mailward.model": ("mailward.model",),
    "mailward.auth": ("mailward.model", "mailward.auth"),
    "mailward.policy": ("mailward.model", "mailward.policy"),
    "mailward.adapters": (
        "mailward.model",
        "mailward.adapters",
        "mailward.auth.keys",
        "mailward.policy.breaker",
        "mailward.policy.failover",
        "mailward.policy.greylist",
        "mailward.policy.ratelimit",
    ),
    "mailward.inbound": ("mailward.model", "mailward.auth", "mailward.policy", "mailward.inbound"),
    "mailward.milter": ("mailward.model", "mailward.milter"),
    "mailward.settings": (
        "mailward.model",
        "mailward.settings",
        "mailward.auth",
        "mailward.policy",
        "mailward.inbound",
        "mailward.adapters.key_files",
    ),
    "mailward.daemon": (
        "mailward",
        "mailward.model",
        "mailward.daemon",
        "mailward.settings",
        "mailward.milter.program",
        "mailward.adapters.resolver",
        "mailward.adapters.dns_servers",
    ),
    "milters.dkim_sign": ("mailward", "milters.dkim_sign"),
    "milters.auth_verify": ("mailward", "milters.auth_verify"),
    "milters.greylist": ("mailward", "milters.greylist"),
    "policyd": ("mailward", "policyd"),
    "postmaster": ("mailward", "postmaster"),
}

# Each outside library is imported in one file, or in one room where it is that room's subject.
HOME_OF_LIBRARY = {
    "milter": ("mailward.milter.adapter",),
    "Milter": (),
    "dkim": ("mailward.auth.dkim",),
    "spf": ("mailward.auth.spf_record",),
    "authres": ("mailward.auth.authres",),
    "dns": ("mailward.adapters.dns_wire",),
    "cryptography": ("mailward.auth.keys",),
    "redis": ("mailward.adapters.redis_link",),
    "sqlite3": ("mailward.adapters.sqlite_link",),
    "aiohttp": ("policyd.dovecot", "policyd.http_client"),
    "structlog": ("mailward.daemon.log",),
    "cattrs": ("mailward.settings.load",),
    "attrs": ("mailward.settings",),
    "attr": (),
    "prometheus_client": (
        "mailward.daemon.metrics",
        "mailward.daemon.pages",
        "mailward.daemon.program",
        "milters.dkim_sign.publication",
    ),
    "click": ("mailward.daemon.cli", "postmaster"),
}

PURE_ROOMS = ("mailward.model", "mailward.auth", "mailward.policy", "mailward.inbound")
NEVER_IN_PURE_ROOMS = ("socket", "logging", "threading", "asyncio", "os", "subprocess", "selectors", "signal")


def modules() -> dict[str, ast.Module]:
    found = {}
    for package in ("mailward", "milters", "policyd", "postmaster"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name] = ast.parse(path.read_text())
    return found


MODULES = modules()


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else str(node.module)


def is_in(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


def room_of(module: str) -> str:
    return max((room for room in MAY_IMPORT if is_in(module, room)), key=len)


def test_there_is_a_house_to_look_at() -> None:
    assert len(MODULES) > 30


@pytest.mark.parametrize("module", MODULES)
def test_arrows_point_down(module: str) -> None:
    if module == "milters":
        return
    allowed = MAY_IMPORT[room_of(module)]
    for name in imports(MODULES[module]):
        if name.split(".")[0] in ("mailward", "milters", "policyd", "postmaster", "tests", "bench"):
            exact_only = name == "mailward"
            assert any((name == room if exact_only else is_in(name, room)) for room in allowed), (
                f"{module} imports {name}"
            )


@pytest.mark.parametrize("module", MODULES)
def test_each_library_has_one_home(module: str) -> None:
    for name in imports(MODULES[module]):
        homes = HOME_OF_LIBRARY.get(name.split(".")[0])
        if homes is not None:
            assert any(is_in(module, home) for home in homes), f"{module} imports {name}"


@pytest.mark.parametrize("module", [name for name in MODULES if any(is_in(name, room) for room in PURE_ROOMS)])
def test_pure_rooms_have_no_input_output_clock_or_log(module: str) -> None:
    for name in imports(MODULES[module]):
        assert name.split(".")[0] not in NEVER_IN_PURE_ROOMS, f"{module} imports {name}"
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("open", "print", "time.time", "time.monotonic", "time.perf_counter"), (
                f"{module}: {called}"
            )


def test_libraries_we_did_not_choose_are_not_imported() -> None:
    import sys

    known = set(sys.stdlib_module_names) | set(HOME_OF_LIBRARY) | {"mailward", "milters", "policyd", "postmaster"}
    for module, tree in MODULES.items():
        for name in imports(tree):
            assert name.split(".")[0] in known, f"{module} imports {name}"
