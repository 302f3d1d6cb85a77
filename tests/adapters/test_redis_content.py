"""What somebody else has written into our Redis, and what its probe needs: nothing there stops a daemon, or makes it flap."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from mailward.adapters import redis_greylist
from mailward.adapters.redis_greylist import RedisGreylist
from mailward.adapters.redis_records import ORDERS, RETURNS
from mailward.model.errors import StoreError, StoreFailure
from mailward.model.greylist import Entry, EntryKind, Memory, Orders, Triplet, Windows
from tests.support.processes import open_folder
from tests.support.redis import Redis

PATIENCE = 10.0
START = 1_700_000_000.0


@pytest.fixture
def redis() -> Iterator[Redis]:
    with open_folder() as folder, Redis(folder) as started:
        yield started


@pytest.fixture
def store(redis: Redis) -> Iterator[RedisGreylist]:
    opened = RedisGreylist(redis.state, PATIENCE)
    yield opened
    opened.close()


@contextmanager
def fails(failure: StoreFailure) -> Iterator[None]:
    with pytest.raises(StoreError) as caught:
        yield
    assert caught.value.failure is failure


def sight(store: RedisGreylist) -> Memory:
    return store.sight(Triplet("192.0.2.0/24", "alice@example.com", "bob@example.org"), Windows()).memory


def entry_json(until: str) -> str:
    values = json.dumps({"allow": True, "added_at": START, "note": ""})
    return f'{values[:-1]}, "until": {until}}}'


def test_counts_of_returns_that_make_no_sense_are_passed_over(redis: Redis, store: RedisGreylist) -> None:
    """Whoever else may write there shall not be able to stop a daemon."""
    fields = {
        "600": "3",
        "600 r": "1",
        "1200": "2",
        "1200 r": "many",
        "1800": "x",
        "2400": "",
        "abc": "1",
        "": "1",
        "3000 r": "1",
        "3e3": "1",
        "9" * 5000: "1",
        "3600": "9" * 400,
        "nan": "nan",
        "4200": "4",
    }
    for name, value in fields.items():
        redis.command("HSET", RETURNS, name, value)
    counts = store.returns(5000.0)
    assert [(count.start, count.expected, count.returned) for count in counts] == [(600.0, 3, 1), (4200.0, 4, 0)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("off", "x", id="no time"),
        pytest.param("off", "abcdefgh", id="a time in no year"),
        pytest.param("sender a@b", "[]", id="a list"),
        pytest.param("sender a@b", "x", id="no JSON"),
        pytest.param("sender a@b", "[" * 5000, id="deep JSON"),
        pytest.param("ghost a@b", entry_json("0"), id="an unknown kind"),
        pytest.param("sender a@b", entry_json("NaN"), id="a time that is no number"),
        pytest.param("sender a@b", entry_json("1e999"), id="a time without end"),
        pytest.param("sender a@b", entry_json("9" * 400), id="a time beyond all numbers"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_orders_that_make_no_sense_are_passed_over(redis: Redis, store: RedisGreylist, field: str, value: str) -> None:
    good = Entry(EntryKind.SENDER, "eve@example", False, START)
    store.set_entry(good)
    redis.command("HSET", ORDERS, field, value)
    assert store.orders(START) == Orders((good,))


@pytest.mark.parametrize("key", [RETURNS, ORDERS])
def test_a_text_where_a_hash_should_be(redis: Redis, store: RedisGreylist, key: str) -> None:
    redis.command("SET", key, "x")
    with fails(StoreFailure.DAMAGED):
        store.returns() if key == RETURNS else store.orders()


def test_whoever_may_run_no_scripts_is_not_well_by_a_probe(redis: Redis, store: RedisGreylist) -> None:
    rights = ("~*", "&*", "+@all", "-@scripting")
    redis.command("ACL", "SETUSER", "weak", "on", ">secret", *rights)
    weak = RedisGreylist(replace(redis.state, username="weak", password="secret"), PATIENCE)
    with fails(StoreFailure.REFUSED):
        sight(weak)
    with fails(StoreFailure.REFUSED):
        weak.probe()
    redis.command("ACL", "SETUSER", "weak", "+@scripting", "-del")
    assert sight(weak) is Memory.NEW
    weak.probe()
    weak.close()
    store.probe()


def test_a_probe_writes_each_time(redis: Redis, store: RedisGreylist, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_greylist, "PROBES", 1)
    redis.command("ACL", "SETUSER", "default", "-del")  # so that what it wrote is still there
    store.probe()
    for _ in range(2):
        redis.command("CONFIG", "SET", "maxmemory", "1")
        with fails(StoreFailure.FULL):
            store.probe()
        redis.command("CONFIG", "SET", "maxmemory", "0")
        store.probe()
    assert list(store.triplets()) == []
    assert list(store.origins()) == []
