"""The mailward.toml that the packages bring: it changes nothing as it is, says every default, and its examples can be used."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from mailward.policy.limits import DEFAULT_LIMITS
from mailward.settings import auth_verify, dkim_sign, greylist, policyd
from mailward.settings.common import Shared
from mailward.settings.load import read_sections, structure
from mailward.settings.rule_set import read_rule_set
from mailward.settings.values import Duration
from tools.conffile import WIDTH, conffile

TEXT = conffile()
PROGRAMS: dict[str, Any] = {
    "dkim-sign": dkim_sign.Settings,
    "auth-verify": auth_verify.Settings,
    "greylist": greylist.Settings,
    "policyd": policyd.Settings,
}

# Three kinds of lines: words behind "# ", defaults behind "#", examples behind "#   ".
DEFAULT = re.compile(r"^#(?=[^ \n])", re.MULTILINE)
EXAMPLE = re.compile(r"^#   (?= *\S)", re.MULTILINE)
WITH_DEFAULTS = DEFAULT.sub("", TEXT)
WITH_EXAMPLES = EXAMPLE.sub("", TEXT)


def settings_of(text: str, program: str, folder: Path) -> Any:
    path = folder / "mailward.toml"
    path.write_text(text)
    return structure(read_sections(path), PROGRAMS[program])


def own(program: str) -> str:
    return program.replace("-", "_")


@pytest.mark.parametrize("program", PROGRAMS)
def test_as_it_is_shipped_it_changes_nothing(program: str, tmp_path: Path) -> None:
    assert getattr(settings_of(TEXT, program, tmp_path), own(program)) == getattr(PROGRAMS[program](), own(program))


@pytest.mark.parametrize("program", ["dkim-sign", "auth-verify", "greylist"])
def test_its_defaults_are_the_defaults(program: str, tmp_path: Path) -> None:
    found, expected = settings_of(WITH_DEFAULTS, program, tmp_path), PROGRAMS[program]()
    for name in ("authserv_id", "state", "durability", "dns", own(program)):
        assert getattr(found, name) == getattr(expected, name)


def test_its_default_limits_are_the_default_limits(tmp_path: Path) -> None:
    found = settings_of(WITH_DEFAULTS, "policyd", tmp_path).policyd
    assert len(found.limit) == len(DEFAULT_LIMITS)
    assert read_rule_set(found) == read_rule_set(policyd.Policyd())
    assert attrs.evolve(found, limit=()) == policyd.Policyd()


@pytest.mark.parametrize("program", PROGRAMS)
def test_its_examples_can_be_used(program: str, tmp_path: Path) -> None:
    text = WITH_EXAMPLES.replace("/etc/mailward", str(tmp_path))
    for key in re.findall(rf'file = "({re.escape(str(tmp_path))}/keys/[^"]*)"', text):
        Path(key).parent.mkdir(parents=True, exist_ok=True)
        Path(key).touch(0o600)
    assert settings_of(text, program, tmp_path).authserv_id == "mx.example.net"


def test_one_default_taken_for_another_value_is_that_setting(tmp_path: Path) -> None:
    changed = TEXT.replace('#delay = "1m"', 'delay = "5m"').replace("#max_signatures = 8", "max_signatures = 9")
    assert changed.count("\ndelay") == changed.count("\nmax_signatures") == 1
    assert settings_of(changed, "greylist", tmp_path).greylist == greylist.Greylist(delay=Duration(300))
    assert settings_of(changed, "auth-verify", tmp_path).auth_verify == auth_verify.AuthVerify(max_signatures=9)


def settings_in(cls: type[Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Yield each setting of a class and of the tables in it, and whether it is one of a list of tables."""
    for name, kind in typing.get_type_hints(cls).items():
        field = attrs.fields_dict(cls)[name]
        inner = next((item for item in (kind, *typing.get_args(kind)) if attrs.has(item)), None)
        here = (*path, field.metadata.get("key", name))
        if inner is None:
            yield here, False
        elif inner is kind:
            yield from settings_in(inner, here)
        else:  # a list of tables, or a table that may be missing
            yield from ((each, True) for each, _ in settings_in(inner, here))


def every_setting() -> Iterator[Any]:
    found = [(path, False) for path, _ in settings_in(Shared) if path[0] not in PROGRAMS]
    for name, cls in PROGRAMS.items():
        found += settings_in(typing.get_type_hints(cls)[own(name)], (name,))
    for path, is_of_list in found:
        yield pytest.param(path, is_of_list, id=".".join(path))


@pytest.mark.parametrize(("path", "is_of_list"), list(every_setting()))
def test_no_setting_is_missing(path: tuple[str, ...], is_of_list: bool) -> None:
    if is_of_list:
        table, shown = path[0], rf"# \[\[{re.escape('.'.join(path[:2]))}\]\]: (?:.*\n)*# {'.'.join(path[2:])}: "
    else:
        table, shown = ".".join(path[:-1]), rf"#(?:   )?{path[-1]} = "
    assert len(re.findall(f"^{shown}", section(table), re.MULTILINE)) >= 1


def section(table: str) -> str:
    """Return what stands in a table; at the top it has no name."""
    parts = re.split(r"^\[(.*)\]$", f"[]\n{TEXT}", flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[table]


def test_it_is_easily_read() -> None:
    assert TEXT.isascii()
    for line in TEXT.splitlines():
        assert len(line) <= WIDTH or line.startswith("#   "), line
        assert "`" not in line
        assert line == line.rstrip()
