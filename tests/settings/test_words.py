"""Every setting has its words, in one form; and every kind of value is written as it is read."""

from __future__ import annotations

import datetime
import ipaddress
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mailward.model.state import SqliteState
from mailward.settings.state import StateAddress
from mailward.settings.values import (
    READERS,
    Duration,
    FileMode,
    Moment,
    NetworkList,
    Patterns,
    Port,
    Rate,
    Rates,
    SocketAddress,
    Words,
)
from tools.setting_tree import Setting, Table, setting_tree
from tools.toml_text import toml_lines, toml_text


def parts(table: Table) -> Iterator[tuple[str, Setting | Table]]:
    for setting in table.settings:
        yield f"{table.path}.{setting.name}".lstrip("."), setting
    for inner in table.tables:
        yield inner.path, inner
        yield from parts(inner)


PARTS = dict(parts(setting_tree()))


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_it_is_told_in_whole_sentences(part: Setting | Table) -> None:
    assert re.fullmatch(r"[\x20-\x7e\n]*[.)]", part.says, re.DOTALL)
    assert part.says.count("`") % 2 == 0
    assert "  " not in part.says
    assert re.match(r'[A-Z`"0-9]|mailward-', part.says)


@pytest.mark.parametrize(
    "setting", [part for part in PARTS.values() if isinstance(part, Setting)], ids=lambda part: part.name
)
def test_what_no_value_can_say_is_said_in_words_or_shown(setting: Setting) -> None:
    shows_itself = setting.default is not None or setting.is_required
    assert shows_itself or setting.example or "where it is not" in setting.says


VALUES: dict[str, tuple[object, str]] = {
    "text": ('a "quoted" \\ one', r'"a \"quoted\" \\ one"'),
    "true": (True, "true"),
    "number": (10_000, "10000"),
    "fraction": (0.25, "0.25"),
    "milliseconds": (Duration(0.5), '"500ms"'),
    "no-time": (Duration(0), '"0s"'),
    "ninety-seconds": (Duration(90), '"90s"'),
    "minutes": (Duration(300), '"5m"'),
    "two-weeks-are-days": (Duration(14 * 86400), '"14d"'),
    "port": (Port("127.0.0.1", 9461), '"127.0.0.1:9461"'),
    "ipv6-port": (Port("::1", 53), '"[::1]:53"'),
    "unix-socket": (SocketAddress("/run/a.sock", "", 0), '"unix:/run/a.sock"'),
    "inet-socket": (SocketAddress("", "::1", 8891), '"inet:[::1]:8891"'),
    "networks": (
        NetworkList((ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("::1"))),
        '["192.0.2.0/24", "::1"]',
    ),
    "mode": (FileMode(0o660), '"0660"'),
    "rate": (Rate(100, 3600.0), '"100/1h"'),
    "octets": (Rate(50 * 10**6, 86400.0, True), '"50MB/1d"'),
    "one-rate": (Rates([Rate(1, 60.0)]), '"1/1m"'),
    "rates": (Rates([Rate(1, 60.0), Rate(2, 3600.0)]), '["1/1m", "2/1h"]'),
    "no-words": (Words(), "[]"),
    "patterns": (Patterns({"sender": ("a@b.example", "!*")}), '{ sender = ["a@b.example", "!*"] }'),
    "no-patterns": (Patterns(), "{}"),
    "path": (Path("/etc/mailward"), '"/etc/mailward"'),
    "state": (StateAddress(SqliteState(Path("/var/lib/mailward"))), '"sqlite:/var/lib/mailward"'),
}


@pytest.mark.parametrize(("value", "expected"), VALUES.values(), ids=VALUES)
def test_a_value_is_written_as_it_is_read(value: object, expected: str) -> None:
    assert toml_text(value) == expected
    kind: Any = next(each for each in type(value).__mro__ if each in READERS)
    read = READERS[kind](tomllib.loads(f"value = {expected}")["value"])
    assert read == value


def test_a_day_is_written_without_quotes() -> None:
    assert toml_text(READERS[Moment](datetime.date(2026, 11, 1))) == "2026-11-01"


def test_a_long_list_has_lines_of_its_own() -> None:
    lines = toml_lines("signed", tuple(f"x-field-{number}" for number in range(9)), 40)
    assert lines[0] == "signed = ["
    assert lines[-1] == "]"
    assert all(len(line) <= 40 for line in lines)
    assert len(lines) > 4
