"""The file of overrides: what its lines say, and every mistake with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailward.model.limits import Window
from mailward.policy.limits import DEFAULT_LIMITS, Count, Limit, Overrides, base_windows
from mailward.settings.overrides import MAX_MISTAKES, read_overrides

HOUR, DAY = 3600.0, 86400.0
LIMITS = (
    *DEFAULT_LIMITS,
    Limit("domain-mail", ("sasl_domain",), Count.MESSAGES, (Window(1000, DAY),)),
    Limit("client-mail", ("client_address",), Count.MESSAGES, (Window(100, HOUR),)),
    Limit("octets", ("sasl_username",), Count.BYTES, (Window(10**9, DAY),)),
)


def overrides(folder: Path, *lines: str) -> tuple[Overrides, list[str]]:
    file = folder / "overrides"
    file.write_text("\n".join(lines), encoding="utf-8")
    found, mistakes = read_overrides(file, LIMITS)
    return found, [f"{mistake.where}: {mistake.expected}" for mistake in mistakes]


def test_what_the_lines_say(tmp_path: Path) -> None:
    found, mistakes = overrides(
        tmp_path,
        "# who may do more",
        "class newsletters News@Example.com @Lists.example  # and what is there",
        "class newsletters offers@example.com",
        "",
        "class:newsletters account-recipients 20000/1d 5000/1h",
        "bob@example.com * 500/1h",
        "bob@example.com octets 5GB/1d",
        "@example.com * unlimited",
        "\tcarol account-first-time unlimited\r",
    )
    assert not mistakes
    assert found == Overrides(
        of_login={
            "bob@example.com": {"*": (Window(500, HOUR),), "octets": (Window(5 * 10**9, DAY),)},
            "carol": {"account-first-time": ()},
        },
        of_class={"newsletters": {"account-recipients": (Window(5000, HOUR), Window(20000, DAY))}},
        of_domain={"example.com": {"*": ()}},
        class_of_login={"news@example.com": "newsletters", "offers@example.com": "newsletters"},
        class_of_domain={"lists.example": "newsletters"},
    )
    assert base_windows(LIMITS[0], found, "bob@example.com") == (Window(500, HOUR),)
    assert base_windows(LIMITS[0], found, "dora@example.com") == ()
    assert base_windows(LIMITS[0], found, "x@lists.example") == (Window(5000, HOUR), Window(20000, DAY))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param("bob", 'expected "LOGIN LIMIT WINDOW..."', id="a word"),
        pytest.param("bob *", 'expected "LOGIN LIMIT WINDOW..."', id="no window"),
        pytest.param("bob mail 1/1h", "expected a limit's name (account-first-time, ", id="no such limit"),
        pytest.param("bob * 100", "expected so many in a time", id="no time"),
        pytest.param("bob * 1/1s", "expected windows of 1m to 30d", id="a short window"),
        pytest.param("bob * 1/1h 2/1h", "expected windows of different lengths", id="twice the same window"),
        pytest.param("bob * unlimited 1/1h", "expected so many in a time", id="unlimited and limited"),
        pytest.param("bob * 5MB/1h", "expected a plain number", id="octets of everything"),
        pytest.param("bob account-surge 3000/1d", "expected at most 2048", id="more than is remembered"),
        pytest.param("bob client-mail 1/1h", 'limit "client-mail" counts by client_address', id="no login's limit"),
        pytest.param(
            "bob domain-mail 1/1h", 'expected "@domain" or a class: limit "domain-mail"', id="a domain's limit"
        ),
        pytest.param("@exa_mple..com * 1/1h", 'expected "@" and a domain', id="no domain"),
        pytest.param("10.0.0.0/8 * 1/1h", 'expected a login, "@domain" or "class:NAME"', id="a network"),
        pytest.param("class:A_b * 1/1h", "expected a class's name of a-z", id="a class's name"),
        pytest.param("class vip", 'expected "class NAME LOGIN..."', id="a class of nobody"),
        pytest.param("class:vip * 1/1h", "expected a class that has members", id="a class that is none"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, line: str, expected: str) -> None:
    _, (mistake,) = overrides(tmp_path, "# first", "", line, "dora * 1/1h")
    assert mistake.startswith(f"line 3: {expected}")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param(("bob * 1/1h", "Bob * 2/1h"), "line 2: expected 'Bob' and '*' together once", id="the same twice"),
        pytest.param(
            ("class a bob", "class b BOB"), "line 2: expected 'BOB' in one class: it is in \"a\"", id="in two classes"
        ),
        pytest.param(("bob * 1/1h", "x\x1b[2J"), "line 2: expected", id="a terminal's control characters"),
    ],
)
def test_lines_that_contradict_each_other(tmp_path: Path, lines: tuple[str, ...], expected: str) -> None:
    _, (mistake,) = overrides(tmp_path, *lines)
    assert mistake.startswith(expected)
    assert mistake.isprintable()


def test_a_file_of_another_kind_is_told_in_a_bounded_number_of_lines(tmp_path: Path) -> None:
    _, mistakes = overrides(tmp_path, *["nonsense"] * 5000)
    assert len(mistakes) == MAX_MISTAKES + 1
    assert mistakes[-1].endswith(f"and {5000 - MAX_MISTAKES} more")


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    _, (missing,) = read_overrides(tmp_path / "none", LIMITS)
    assert str(missing).endswith("none: cannot be read: No such file or directory")
    (tmp_path / "octets").write_bytes(b"bob * 1/1h\n\xff\xfe")
    _, (no_text,) = read_overrides(tmp_path / "octets", LIMITS)
    assert str(no_text).endswith("octet 11: expected UTF-8 text")


@settings(max_examples=60)
@given(st.binary(max_size=200))
def test_any_octets_are_read(tmp_path: Path, octets: bytes) -> None:
    file = tmp_path / "any"
    file.write_bytes(octets)
    _, mistakes = read_overrides(file, LIMITS)
    assert all(str(mistake).isprintable() for mistake in mistakes)
