"""`state`: each kind of address, and mistakes that say what was expected and never show a password."""

from __future__ import annotations

import contextlib
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailward.model.state import MemoryState, RedisState, RedisTopology, SqliteState, State
from mailward.settings.state import HiddenValueError, StateAddress, read_state
from tests.settings.files import Files

ALONE, SENTINEL, CLUSTER = RedisTopology.ALONE, RedisTopology.SENTINEL, RedisTopology.CLUSTER


@attrs.frozen
class Part:
    state: StateAddress = StateAddress(MemoryState())


@attrs.frozen
class Whole:
    part: Part = Part()


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("sqlite:/var/lib/mailward", SqliteState(Path("/var/lib/mailward"))),
        ("memory:", MemoryState()),
        ("redis://redis.example.net", RedisState(ALONE, (("redis.example.net", 6379),))),
        ("redis://redis_1:7000", RedisState(ALONE, (("redis_1", 7000),))),
        ("redis://192.0.2.1:7000/", RedisState(ALONE, (("192.0.2.1", 7000),))),
        ("redis://[2001:DB8::1]:7000/5", RedisState(ALONE, (("2001:db8::1", 7000),), database=5)),
        ("redis://[::1]", RedisState(ALONE, (("::1", 6379),))),
        ("redis://:secret@localhost", RedisState(ALONE, (("localhost", 6379),), password="secret")),
        (
            "redis://mail:a%40b%2Fc%3A%25@localhost/1",
            RedisState(ALONE, (("localhost", 6379),), database=1, username="mail", password="a@b/c:%"),
        ),
        ("redis://mail:a:b@localhost", RedisState(ALONE, (("localhost", 6379),), username="mail", password="a:b")),
        ("redis:///run/redis/redis.sock", RedisState(ALONE, (("/run/redis/redis.sock", 0),))),
        (
            "redis://:secret@/run/redis.sock?db=3",
            RedisState(ALONE, (("/run/redis.sock", 0),), database=3, password="secret"),
        ),
        ("rediss://localhost", RedisState(ALONE, (("localhost", 6379),), is_tls=True)),
        (
            "rediss://localhost:6380?ca=/etc/ssl/a%20b.pem&cert=/c.pem&key=/k.pem",
            RedisState(
                ALONE,
                (("localhost", 6380),),
                is_tls=True,
                ca_file="/etc/ssl/a b.pem",
                certificate_file="/c.pem",
                key_file="/k.pem",
            ),
        ),
        (
            "redis+sentinel://one,two:1234,[::1]:26380/mail-ward",
            RedisState(SENTINEL, (("one", 26379), ("two", 1234), ("::1", 26380)), service="mail-ward"),
        ),
        (
            "redis+sentinel://u:p@one/mailward/2?sentinel_user=su&sentinel_password=s%26p&tls=true&ca=/ca.pem",
            RedisState(
                SENTINEL,
                (("one", 26379),),
                service="mailward",
                database=2,
                username="u",
                password="p",
                sentinel_username="su",
                sentinel_password="s&p",
                is_tls=True,
                ca_file="/ca.pem",
            ),
        ),
        ("redis+sentinel://one/m?tls=false", RedisState(SENTINEL, (("one", 26379),), service="m")),
        ("redis+cluster://one:1,two:2/", RedisState(CLUSTER, (("one", 1), ("two", 2)))),
        ("redis+cluster://:p@one?tls=true", RedisState(CLUSTER, (("one", 6379),), password="p", is_tls=True)),
    ],
)
def test_addresses(text: str, state: State) -> None:
    assert read_state(text) == StateAddress(state)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 'expected "sqlite:/folder"'),
        ({"redis": "s3cret"}, 'expected "sqlite:/folder"'),
        ("", 'expected "sqlite:/folder"'),
        ("/var/lib/mailward", 'expected "sqlite:/folder"'),
        ("sqlite", 'expected "sqlite:/folder"'),
        ("postgres://u:s3cret@localhost", 'expected "sqlite:/folder"'),
        ("redis:s3cret@localhost", 'expected "sqlite:/folder"'),
        ("redis://:s3cret\n@localhost", 'expected "sqlite:/folder"'),
        ("memory:x", 'expected "sqlite:/folder"'),
        ("sqlite:var/lib", "a folder with its whole path"),
        ("sqlite:", "a folder with its whole path"),
        ("redis://", "expected hosts such as"),
        ("redis:///", "expected hosts such as"),
        ("redis://s3cret@localhost", 'expected "user:password@" or ":password@"'),
        ("redis://:s3@cret@localhost", '"@" is %40'),
        ("redis://:s3/cret@localhost", '"/" %2F'),
        ("redis://:s3#cret@localhost", "written %23"),
        ("redis://:s3%ffcret@localhost", "UTF-8"),
        ("redis://:s3%0acret@localhost", "UTF-8"),
        ("redis://one,two", "expected one host"),
        ("redis://one:0", "expected hosts such as"),
        ("redis://one:65536", "expected hosts such as"),
        ("redis://one:", "expected hosts such as"),
        ("redis://[192.0.2.1]", "expected hosts such as"),
        ("redis://::1", "expected hosts such as"),
        ("redis://o ne", "expected hosts such as"),
        ("redis://-one", "expected hosts such as"),
        ("redis://one/x", "database's number from 0 to 65535"),
        ("redis://one/99999", "database's number from 0 to 65535"),
        ("redis://one/1/2", 'expected "redis://host:port/database"'),
        ("redis://one?ca=/ca.pem", "expected no options"),
        ("redis:///" + "x" * 100, "socket's path of at most 100 octets"),
        ("rediss:///run/redis.sock", "without TLS"),
        ("redis:///run/redis.sock?db=x", "database's number"),
        ("rediss://one?ca=ca.pem", "whole paths"),
        ("rediss://one?cert=/c.pem", "cert and key together"),
        ("rediss://one?verify=no", "the options ca, cert, key"),
        ("rediss://one?ca=/a&ca=/b", "each once"),
        ("rediss://one?ca", "each once"),
        ("redis+sentinel://one", "the name by which the Sentinels know the master"),
        ("redis+sentinel://one/", "the name by which the Sentinels know the master"),
        ("redis+sentinel://one/a b", "the name by which the Sentinels know the master"),
        ("redis+sentinel://one,/m", "expected hosts such as"),
        ("redis+sentinel://one/m?sentinel_user=x", "sentinel_password beside sentinel_user"),
        ("redis+sentinel://one/m?tls=yes", '"tls=true" or "tls=false"'),
        ("redis+sentinel://one/m?ca=/ca.pem", '"tls=true" beside ca'),
        ("redis+cluster://one/1", "expected no database"),
        ("redis+cluster://" + ",".join(["one"] * 101), "at most 100 hosts"),
    ],
)
def test_mistakes_say_what_was_expected(value: object, expected: str) -> None:
    with pytest.raises(HiddenValueError) as caught:
        read_state(value)
    assert expected in str(caught.value)
    assert "cret" not in str(caught.value)


def test_in_a_configuration(tmp_path: Path) -> None:
    files = Files[Part](tmp_path, Whole)
    assert files.write('[part]\nstate = "sqlite:/var/lib/x"').read().state == StateAddress(
        SqliteState(Path("/var/lib/x"))
    )


@pytest.mark.parametrize(
    "line", ['state = "redis://s3cret@localhost"', 'state = ["s3cret"]', 'state = { password = "s3cret" }']
)
def test_a_mistake_in_a_configuration_does_not_show_the_value(tmp_path: Path, line: str) -> None:
    ((file, key, expected),) = Files[Part](tmp_path, Whole).write(f"[part]\n{line}").mistakes()
    assert (file, key) == ("mailward.toml", "part.state")
    assert "expected" in expected
    assert "s3cret" not in expected


def test_a_state_does_not_show_its_passwords() -> None:
    text = "redis+sentinel://u:s3cret@one/m?sentinel_password=s3cret"
    assert "s3cret" not in repr(read_state(text))


@given(st.sampled_from(["", "redis://", "rediss://", "redis+sentinel://", "redis+cluster://", "sqlite:"]), st.text())
def test_any_text_is_an_address_or_a_mistake(start: str, text: str) -> None:
    with contextlib.suppress(HiddenValueError):
        assert isinstance(read_state(start + text), StateAddress)
