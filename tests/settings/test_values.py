"""mailward.toml: values that mean one thing, and every mistake named in one go."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailward.model.errors import ConfigError
from mailward.settings.values import DomainName, Duration, FileMode, NetworkList, Port, SocketAddress
from tests.settings.files import Files


def even(_instance: object, _attribute: object, value: int) -> None:
    if value % 2:
        raise ValueError("expected an even number")


@attrs.frozen
class Pair:
    selector: DomainName
    file: Path


@attrs.frozen
class Item:
    name: str
    keys: tuple[Pair, ...] = ()
    count: int = 0


@attrs.frozen
class Part:
    text: str = "default"
    flag: bool = False
    number: int = attrs.field(default=2, validator=even)
    part: float = 1.0
    wait: Duration = Duration(1.0)
    port: Port | None = None
    socket: SocketAddress = SocketAddress("/run/x.sock", "", 0)
    networks: NetworkList = NetworkList()
    domain: DomainName = DomainName("example.com")
    mode: FileMode = FileMode(0o660)
    path: Path = Path("/default")
    words: tuple[str, ...] = ("a", "b")
    item: tuple[Item, ...] = ()


@attrs.frozen
class Whole:
    part: Part = attrs.field(default=Part(), metadata={"key": "the-part"})
    other: Any = attrs.field(factory=dict)


@pytest.fixture
def files(tmp_path: Path) -> Files[Part]:
    return Files(tmp_path, Whole)


def network(text: str) -> NetworkList:
    return NetworkList([ipaddress.ip_network(text)])


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ('text = ""', ""),
        ("flag = true", True),
        ("number = -4", -4),
        ('wait = "500ms"', 0.5),
        ('wait = "1.5h"', 5400.0),
        ('wait = "2s"', 2.0),
        ('wait = "5m"', 300.0),
        ('wait = "36d"', 36 * 86400.0),
        ('wait = "2w"', 14 * 86400.0),
        ('wait = "0s"', 0.0),
        ('port = "127.0.0.1:9461"', Port("127.0.0.1", 9461)),
        ('port = "[::1]:65535"', Port("::1", 65535)),
        ('socket = "unix:/run/a b.sock"', SocketAddress("/run/a b.sock", "", 0)),
        (f'socket = "unix:/{"x" * 99}"', SocketAddress("/" + "x" * 99, "", 0)),
        ('socket = "inet:127.0.0.1:1"', SocketAddress("", "127.0.0.1", 1)),
        ('socket = "inet:[::1]:8891"', SocketAddress("", "::1", 8891)),
        ('networks = ["192.0.2.0/24"]', network("192.0.2.0/24")),
        ('networks = ["2001:db8::1"]', network("2001:db8::1/128")),
        ("networks = []", NetworkList()),
        ('domain = "B\u00fccher.Example."', "xn--bcher-kva.example"),
        ('mode = "0660"', 0o660),
        ('mode = "600"', 0o600),
        ('path = "/a/b"', Path("/a/b")),
        ("words = []", ()),
        ('words = ["x"]', ("x",)),
    ],
)
def test_a_value_is_read(files: Files[Part], line: str, value: object) -> None:
    part = files.write(f"[the-part]\n{line}\n").read()
    found = getattr(part, line.partition(" ")[0])
    assert found == value
    assert type(found) is type(getattr(Part(), line.partition(" ")[0])) or line.startswith("port")


DURATION, PORT, SOCKET = "a duration with its unit", "an IP address and a port", '"unix:/absolute/path" or "inet:'


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("text = 3", "expected a string, found 3"),
        ("text = true", "expected a string, found true"),
        ('flag = "true"', 'expected true or false, found "true"'),
        ("flag = 1", "expected true or false, found 1"),
        ('number = "4"', 'expected a whole number, found "4"'),
        ("number = 4.0", "expected a whole number, found 4.0"),
        ("number = true", "expected a whole number, found true"),
        ("number = 9223372036854775808", "expected a whole number of 64 bits"),
        pytest.param(
            f"number = 0x{'f' * 20_000}", "expected a whole number of 64 bits", id="more digits than Python writes"
        ),
        pytest.param(f"text = [0x{'f' * 20_000}]", "expected a string, found a number that is too long", id="no text"),
        pytest.param(f"part = 1{'0' * 400}", "expected a whole number of 64 bits", id="more than a float holds"),
        ("number = 3", "expected an even number"),
        ("wait = 2", DURATION),
        ('wait = "2"', DURATION),
        ('wait = "-2s"', DURATION),
        ('wait = "2 s"', DURATION),
        ('wait = "2s\\n"', DURATION),
        ('wait = "2S"', DURATION),
        ('wait = "1e3s"', DURATION),
        ('wait = "\u0662s"', DURATION),
        (f'wait = "{"9" * 400}s"', DURATION),
        ('port = "127.0.0.1"', PORT),
        ('port = "9461"', PORT),
        ('port = "localhost:9461"', PORT),
        ('port = "127.0.0.1:0"', PORT),
        ('port = "127.0.0.1:65536"', PORT),
        ('port = "127.0.0.1:"', PORT),
        ('port = "::1:9461"', PORT),
        ('port = "[::1]9461"', PORT),
        ('port = "[::1:9461"', PORT),
        ('port = "127.0.0.1:\u0669"', PORT),
        ("port = 9461", "expected a string"),
        ('socket = "unix:relative"', SOCKET),
        ('socket = "/run/x.sock"', SOCKET),
        ('socket = "inet:8891"', SOCKET),
        ('socket = "inet:localhost:8891"', SOCKET),
        (f'socket = "unix:/{"x" * 100}"', "at most 100 octets"),
        (f'socket = "unix:/{chr(0xFC) * 50}"', "at most 100 octets"),
        ('networks = "192.0.2.0/24"', "expected a list of networks"),
        ('networks = ["192.0.2.1/24"]', "expected networks such as"),
        ('networks = ["192.0.2.0/33"]', "expected networks such as"),
        ("networks = [1]", "expected networks such as"),
        ('networks = ["0.0.0.0/0"]', "a large part of the Internet"),
        ('networks = ["192.0.2.1", "::/0"]', "a large part of the Internet"),
        ('domain = "a..b"', "expected a domain name"),
        ('domain = "a b"', "expected a domain name"),
        ("mode = 660", "expected a string"),
        ('mode = "0680"', "permissions in octal"),
        ('mode = "66"', "permissions in octal"),
        ('mode = "04755"', "permissions in octal"),
        ("path = 1", "expected a string"),
        ('words = "x"', 'expected a list, found "x"'),
    ],
)
def test_a_bad_value_names_file_key_and_what_was_expected(files: Files[Part], line: str, expected: str) -> None:
    ((file, key, found),) = files.write(f"[the-part]\n{line}\n").mistakes()
    assert (file, key) == ("mailward.toml", "the-part." + line.partition(" ")[0])
    assert expected in found


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        pytest.param("[the-part]\nwords = ['a', 1]", "the-part.words[1]", "expected a string, found 1", id="in a list"),
        pytest.param("the-part = 3", "the-part", "expected a table, found 3", id="a value for a table"),
        pytest.param("other = 3", "other", "expected a table", id="a value for another program's table"),
        pytest.param(
            "[the-part.item]\nname = 'x'", "the-part.item", "expected a list", id="a table for a list of tables"
        ),
        pytest.param(
            "[the-part]\nitem = [3]", "the-part.item[0]", "expected a table, found 3", id="a value in such a list"
        ),
        pytest.param("[[the-part.item]]", "the-part.item[0].name", "is missing", id="no default"),
        pytest.param(
            "[[the-part.item]]\nname = 'x'\nkeys = [{ selector = 's' }]",
            "the-part.item[0].keys[0].file",
            "is missing",
            id="no default, deeper",
        ),
        pytest.param("[the-part]\nnumbre = 2", "the-part.numbre", 'did you mean "number"?', id="nearly a key"),
        pytest.param("[the-prat]", "the-prat", 'did you mean "the-part"?', id="nearly a table"),
        pytest.param("[the-part]\nzzz = 2", "the-part.zzz", "known here: domain, flag, item", id="no key at all"),
        pytest.param(
            "[[the-part.item]]\nname = 'x'\nnam = 1", "the-part.item[0].nam", 'did you mean "name"?', id="in a list"
        ),
        pytest.param('[the-part]\npath = "a\\u0000b"', "the-part.path", "expected", id="NUL in a path"),
        pytest.param('[the-part]\nsocket = "unix:/\\u0000"', "the-part.socket", "expected", id="NUL in a socket"),
    ],
)
def test_a_mistake_in_the_structure(files: Files[Part], text: str, key: str, expected: str) -> None:
    ((file, where, found),) = files.write(text).mistakes()
    assert (file, where) == ("mailward.toml", key)
    assert expected in found


def test_all_mistakes_are_found_in_one_go(files: Files[Part]) -> None:
    text = "[the-part]\nflag = 1\nnumber = 3\nx = 1\nwords = [1, 2]\n[[the-part.item]]\ncount = 'a'\n"
    keys = [key for _, key, _ in files.write(text).mistakes()]
    assert sorted(keys) == sorted(
        ["the-part." + key for key in ("flag", "number", "x", "words[0]", "words[1]", "item[0].count", "item[0].name")]
    )


def test_a_long_value_is_clipped_in_its_message(files: Files[Part]) -> None:
    ((_, _, expected),) = files.write(f'[the-part]\nflag = "{"x" * 1000}"\n').mistakes()
    assert len(expected) < 100


@given(st.text(max_size=60) | st.text("[]=.\"'\n#a1{} ,", max_size=60))
def test_any_text_is_a_configuration_or_a_named_mistake(files: Files[Part], text: str) -> None:
    files.main.write_text(text, encoding="utf-8", newline="")
    try:
        part = files.read()
    except ConfigError as error:
        unnamed = [mistake for mistake in error.mistakes if mistake.file != str(files.main) or not mistake.expected]
    else:
        unnamed = []
        assert part.domain.isascii()
    assert not unnamed
