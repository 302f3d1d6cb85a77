"""mailward.toml and conf.d: files that cannot be used, files that merge, and which of them a mistake is in."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import attrs
import pytest

from mailward.model.errors import ConfigError, Mistake
from mailward.settings import load as config
from mailward.settings.load import read_sections, structure
from tests.settings.files import Files


@attrs.frozen
class Item:
    name: str
    count: int = 0


@attrs.frozen
class Inner:
    flag: bool = False


@attrs.frozen
class Part:
    number: int = 0
    words: tuple[str, ...] = ()
    item: tuple[Item, ...] = ()
    inner: Inner = Inner()


@attrs.frozen
class Whole:
    part: Part = Part()


@pytest.fixture
def files(tmp_path: Path) -> Files[Part]:
    return Files(tmp_path, Whole)


@pytest.mark.parametrize(
    ("octets", "where", "expected"),
    [
        pytest.param(b"[part]\nnumber =\n", "", "line 2", id="broken TOML"),
        pytest.param(b"number = 1\nnumber = 2\n", "", "line 2", id="a key twice"),
        pytest.param(b"a = " + b"[" * 100_000, "", "", id="lists in lists in lists"),
        pytest.param(b"# \xff\n", "octet 2", "UTF-8", id="no UTF-8"),
        pytest.param(b"#" + b" " * config.MAX_FILE, "", "4 MiB", id="too large"),
    ],
)
def test_a_file_that_cannot_be_used(files: Files[Part], octets: bytes, where: str, expected: str) -> None:
    files.main.write_bytes(octets)
    ((file, key, found),) = files.mistakes()
    assert (file, key) == ("mailward.toml", where)
    assert expected in found


def test_a_file_of_the_largest_size_is_read(files: Files[Part]) -> None:
    text = "[part]\nnumber = 7\n#"
    files.write(text + " " * (config.MAX_FILE - len(text)))
    assert files.read().number == 7


def test_a_file_that_is_missing_and_one_that_is_a_folder(files: Files[Part]) -> None:
    (files.extra / "x.toml").mkdir()
    assert files.mistakes() == [
        ("mailward.toml", "", "cannot be read: No such file or directory"),
        ("x.toml", "", "cannot be read: Is a directory"),
    ]


def test_a_conf_d_that_cannot_be_read_does_not_pass_for_an_empty_one(
    files: Files[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write("")
    files.extra.rmdir()
    assert files.read() == Part()
    files.extra.write_text("")
    assert files.mistakes() == [("conf.d", "", "cannot be read: Not a directory")]

    def refuse(_folder: object = None) -> None:  # root may read all, and the tests may be root's
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "listdir", refuse)
    assert files.mistakes() == [("conf.d", "", "cannot be read: Permission denied")]


def test_mistakes_of_several_files_are_found_in_one_go(files: Files[Part]) -> None:
    files.write("= 1", b="flag = 2\n", a="x")
    assert [file for file, _, _ in files.mistakes()] == ["mailward.toml", "a.toml"]


def test_an_empty_configuration_is_all_defaults(files: Files[Part]) -> None:
    assert files.write("").read() == Part()


@pytest.mark.parametrize(
    ("main", "extra", "part"),
    [
        pytest.param("[part]\nnumber = 1", {"a": "[part]\nnumber = 2"}, Part(number=2), id="conf.d wins"),
        pytest.param(
            "", {"b": "[part]\nnumber = 2", "a": "[part]\nnumber = 1"}, Part(number=2), id="by order of names"
        ),
        pytest.param(
            "", {"10": "[part]\nnumber = 1", "9": "[part]\nnumber = 2"}, Part(number=2), id="names, not numbers"
        ),
        pytest.param(
            "[part]\nnumber = 1\n[part.inner]\nflag = true",
            {"a": "[part]\nwords = ['x']"},
            Part(number=1, words=("x",), inner=Inner(flag=True)),
            id="tables merge key by key",
        ),
        pytest.param(
            "[part]\nwords = ['a', 'b']",
            {"a": "[part]\nwords = ['c']"},
            Part(words=("c",)),
            id="plain lists are replaced",
        ),
        pytest.param(
            "[[part.item]]\nname = 'a'\n[[part.item]]\nname = 'b'",
            {"x": "[[part.item]]\nname = 'c'", "y": "[[part.item]]\nname = 'd'"},
            Part(item=(Item("a"), Item("b"), Item("c"), Item("d"))),
            id="lists of tables grow",
        ),
        pytest.param(
            "[[part.item]]\nname = 'a'",
            {"x": "[part]\nitem = []", "y": "[[part.item]]\nname = 'd'"},
            Part(item=(Item("d"),)),
            id="an empty list starts over",
        ),
        pytest.param("part = 3", {"a": "[part]\nnumber = 2"}, Part(number=2), id="a table replaces a value"),
    ],
)
def test_files_merge(files: Files[Part], main: str, extra: dict[str, str], part: Part) -> None:
    assert files.write(main, **extra).read() == part


def test_other_files_of_conf_d_are_not_read(files: Files[Part]) -> None:
    for name in ("a.toml.dpkg-new", "a.toml~", "a.conf", ".hidden.toml"):
        (files.extra / name).write_text("broken")
    (files.extra / ".#a.toml").symlink_to("root@mx.example.net.1234")  # Emacs, while somebody edits a.toml
    assert files.write("[part]\nnumber = 1").read().number == 1


def test_a_byte_order_mark_is_no_mistake(files: Files[Part]) -> None:
    files.write("\ufeff[part]\r\nnumber = 1\r\n", a="\ufeff[part]\nwords = ['x']\n")
    assert files.read() == Part(number=1, words=("x",))


ITEM = "[[part.item]]\nname = 'x'\n"
BAD_ITEM = "[[part.item]]\nname = 3\n"


@pytest.mark.parametrize(
    ("main", "extra", "places"),
    [
        pytest.param(
            "[part]\nnumber = 'a'", {"a": "[part]\nnumber = 'b'"}, [("a.toml", "part.number")], id="the winner's"
        ),
        pytest.param(
            "[part]\nnumber = 'a'",
            {"a": "[part]\nwords = []"},
            [("mailward.toml", "part.number")],
            id="not a bystander's",
        ),
        pytest.param(
            "[part]\nx = 1",
            {"a": "[part]\ny = 1"},
            [("mailward.toml", "part.x"), ("a.toml", "part.y")],
            id="unknown keys",
        ),
        pytest.param("[part]", {"a": "part = 3"}, [("a.toml", "part")], id="a value where a table was"),
        pytest.param(ITEM, {"a": BAD_ITEM}, [("a.toml", "part.item[1].name")], id="an element that conf.d added"),
        pytest.param(
            ITEM,
            {"a": "[[part.item]]\n"},
            [("a.toml", "part.item[1].name")],
            id="a key missing in an element of conf.d",
        ),
        pytest.param(BAD_ITEM, {"a": ITEM}, [("mailward.toml", "part.item[0].name")], id="the main file's own element"),
        pytest.param(
            BAD_ITEM,
            {"a": "[part]\nnumber = 1"},
            [("mailward.toml", "part.item[0].name")],
            id="an element of the main file's list",
        ),
        pytest.param(
            "[part]\nwords = [1]",
            {"a": "[part]\nnumber = 1"},
            [("mailward.toml", "part.words[0]")],
            id="a word of its list",
        ),
        pytest.param(
            "[part]\nnumber = 1",
            {"a": ITEM, "b": BAD_ITEM, "c": ITEM},
            [("b.toml", "part.item[1].name")],
            id="the middle file's",
        ),
        pytest.param(
            "",
            {"a": BAD_ITEM, "b": "[part]\nitem = []", "c": BAD_ITEM},
            [("c.toml", "part.item[0].name")],
            id="after a new start",
        ),
    ],
)
def test_a_mistake_names_the_file_it_is_in(
    files: Files[Part], main: str, extra: dict[str, str], places: list[tuple[str, str]]
) -> None:
    assert [(file, key) for file, key, _ in files.write(main, **extra).mistakes()] == places


def test_a_key_that_nobody_set_is_missing_in_the_main_file(files: Files[Part]) -> None:
    @attrs.frozen
    class Strict:
        name: str

    main = files.write("").main
    with pytest.raises(ConfigError) as caught:
        structure(read_sections(main), Strict)
    assert caught.value.mistakes == [Mistake(str(main), "name", "is missing")]


def test_reading_alone_raises_nothing(files: Files[Part]) -> None:
    sections = read_sections(files.write("broken").main)
    assert len(sections.mistakes) == 1
    tables: dict[str, Any] = sections.tables
    assert tables == {}


def test_a_mistake_is_one_line_whatever_its_parts_are_made_of() -> None:
    mistake = Mistake("/etc/a\n\udcff.toml", "x\x1b[2J\nlevel=critical", "a \u202eline of a table: b\u00fccher")
    assert str(mistake) == r"/etc/a\n\udcff.toml: x\x1b[2J\nlevel=critical: a \u202eline of a table: b" + "\u00fccher"


def test_a_mistake_reads_file_key_expectation() -> None:
    assert str(Mistake("/etc/x.toml", "a.b", "expected a string")) == "/etc/x.toml: a.b: expected a string"
    assert str(ConfigError([Mistake("", "a", "b"), Mistake("f", "", "c")])) == "a: b; f: c"
