"""Modules that are put off: whole at their first use, and in no daemon before."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from mailward.daemon.late import is_unread, put_off

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGE = "put_off_package"
SUBMODULE = f"{PACKAGE}.part"

# What each daemon must not have read: by far the largest things that its libraries import and it never uses.
UNUSED = ("asyncio.base_events", "requests", "httpx", "chardet", "idna.core", "nacl.bindings", "dns.query", "dns.zone")
UNUSED_BY_POLICYD = ("requests", "httpx", "chardet", "idna.core", "nacl.bindings", "dns.name", "dns.query")

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Return a function that writes the package and its submodule, where they can be imported from."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write_them(package: str = "", part: str = "") -> None:
        folder = tmp_path / PACKAGE
        folder.mkdir()
        (folder / "__init__.py").write_text(f"{package}\n")
        (folder / "part.py").write_text(f"{part}\n")
        importlib.invalidate_caches()

    yield write_them
    for name in (PACKAGE, SUBMODULE):
        sys.modules.pop(name, None)


def test_a_module_is_read_when_a_name_in_it_is_asked_for_and_not_before(write: Write) -> None:
    write("VALUE = 7")
    put_off(PACKAGE)
    module = importlib.import_module(PACKAGE)
    assert is_unread(PACKAGE)
    assert module.VALUE == 7
    assert not is_unread(PACKAGE)
    assert sys.modules[PACKAGE] is module


def test_importing_it_again_does_not_read_it(write: Write) -> None:
    write("raise AssertionError")
    put_off(PACKAGE)
    exec(f"import {PACKAGE}")
    assert is_unread(PACKAGE)


def test_importing_a_name_from_it_reads_it(write: Write) -> None:
    write("VALUE = 7")
    put_off(PACKAGE)
    names: dict[str, object] = {}
    exec(f"from {PACKAGE} import VALUE", names)
    assert names["VALUE"] == 7


def test_a_submodule_is_reached_through_its_package(write: Write) -> None:
    write(part="VALUE = 8")
    put_off(SUBMODULE)
    names: dict[str, ModuleType] = {}
    exec(f"import {SUBMODULE}", names)
    assert is_unread(SUBMODULE)
    assert names[PACKAGE].part.VALUE == 8


def test_a_package_that_is_put_off_still_has_its_submodules(write: Write) -> None:
    write("from put_off_package import part\nVALUE = part.VALUE + 1", "VALUE = 8")
    put_off(PACKAGE)
    assert importlib.import_module(PACKAGE).VALUE == 9


def test_a_submodule_that_is_imported_first_finds_its_package_read(write: Write) -> None:
    write("from put_off_package.part import VALUE", "from put_off_package import __name__\nVALUE = 8")
    put_off(PACKAGE)
    names: dict[str, object] = {}
    exec(f"from {SUBMODULE} import VALUE", names)
    assert names["VALUE"] == 8
    assert not is_unread(PACKAGE)


@pytest.mark.parametrize("name", ["idna.codec", "idna.core", "asyncio.base_events", "asyncio.subprocess"])
def test_what_the_daemons_put_off_is_still_there_for_who_imports_a_part_of_it(name: str) -> None:
    printed = subprocess.run(
        [sys.executable, "-c", f"import mailward.daemon, {name}\nprint({name}.__name__)"],
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
    ).stdout
    assert printed.decode().strip() == name


def test_a_package_that_could_not_be_read_is_tried_again_for_its_submodule(write: Write) -> None:
    write("import builtins\nassert hasattr(builtins, 'put_off_may_be_read')", "VALUE = 8")
    put_off(PACKAGE)
    with pytest.raises(AssertionError):
        importlib.import_module(SUBMODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.put_off_may_be_read", True, raising=False)
        assert importlib.import_module(SUBMODULE).VALUE == 8


def test_a_name_that_the_module_lacks_is_an_error_like_any_other(write: Write) -> None:
    write("VALUE = 7")
    put_off(PACKAGE)
    with pytest.raises(AttributeError, match=f"module '{PACKAGE}' has no attribute 'nothing'"):
        _ = importlib.import_module(PACKAGE).nothing


def test_a_module_may_say_itself_what_it_has_for_a_name(write: Write) -> None:
    write("def __getattr__(name):\n    return name * 2")
    put_off(PACKAGE)
    module = importlib.import_module(PACKAGE)
    assert (module.ab, module.cd) == ("abab", "cdcd")


def test_a_module_that_cannot_be_read_says_why_each_time(write: Write) -> None:
    write("raise OSError('no descriptor is left')")
    put_off(PACKAGE)
    for _ in range(2):
        with pytest.raises(OSError, match="no descriptor is left"):
            _ = importlib.import_module(PACKAGE).VALUE


def test_threads_that_ask_at_once_all_get_the_whole_module(write: Write) -> None:
    write("import time\nFIRST = 1\ntime.sleep(0.2)\nLAST = 2")
    put_off(PACKAGE)
    module = importlib.import_module(PACKAGE)
    got: list[int] = []
    threads = [threading.Thread(target=lambda: got.append(module.LAST)) for _ in range(8)]
    for thread in threads:
        thread.start()
        time.sleep(0.01)
    for thread in threads:
        thread.join()
    assert got == [2] * 8


def test_what_is_there_already_stays(write: Write) -> None:
    write("VALUE = []")
    module = importlib.import_module(PACKAGE)
    put_off(PACKAGE)
    assert sys.modules[PACKAGE] is module
    assert not is_unread(PACKAGE)


@pytest.mark.parametrize("name", ["put_off_nowhere", "put_off_nowhere.part", "json.put_off_nowhere"])
def test_what_is_not_installed_is_still_not_installed(name: str) -> None:
    put_off(name)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(name)


@pytest.mark.parametrize(
    ("daemon", "unused"),
    [
        ("milters.dkim_sign", UNUSED),
        ("milters.auth_verify", UNUSED),
        ("milters.greylist", UNUSED),
        ("policyd", UNUSED_BY_POLICYD),
    ],
)
def test_a_daemon_has_read_nothing_large_that_it_does_not_use(daemon: str, unused: tuple[str, ...]) -> None:
    """Nor after it has looked where the nameservers are."""
    program = (
        f"import json, sys, {daemon}.__main__\n"
        "resolver = sys.modules.get('mailward.adapters.resolver')\n"
        "resolver and resolver.nameserver_labels(())\n"
        "print(json.dumps(list(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, check=True, capture_output=True).stdout
    assert set(json.loads(printed)).isdisjoint(unused)
