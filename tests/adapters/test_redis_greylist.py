"""Redis that is away, slow, full, forbidding or not Redis at all: each is a StoreError in time, and passes by itself.

What the store says when all is well is the contract's affair (test_stores.py).
"""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from mailward.adapters.redis_greylist import RedisGreylist
from mailward.adapters.redis_link import MAX_CONNECTIONS, Refusal
from mailward.adapters.redis_records import LATE_SECONDS, correspondent_key, triplet_key
from mailward.model.errors import StoreError, StoreFailure
from mailward.model.greylist import Entry, EntryKind, Memory, Triplet
from mailward.model.state import RedisState, RedisTopology
from tests.adapters.redis_support import MARGIN, TRIPLET, WINDOWS, OpenRedis
from tests.support.processes import free_port, wait_until
from tests.support.redis import Redis, make_tls

BUDGET = 0.4


@pytest.fixture
def redis(folder: Path) -> Iterator[Redis]:
    with Redis(folder) as started:
        yield started


@pytest.fixture
def store(redis: Redis, open_redis: OpenRedis) -> RedisGreylist:
    return open_redis(redis.state)


@pytest.fixture
def hasty(redis: Redis, open_redis: OpenRedis) -> RedisGreylist:
    """A store with a small budget, and a connection."""
    hasty = open_redis(redis.state, BUDGET)
    wait_until(lambda: works(hasty), "it works")
    return hasty


def sight(store: RedisGreylist, triplet: Triplet = TRIPLET) -> Memory:
    return store.sight(triplet, WINDOWS).memory


@contextmanager
def fails(*failures: StoreFailure, detail: str = "") -> Iterator[None]:
    """Expect a failure within the budget."""
    began = time.monotonic()
    with pytest.raises(StoreError) as caught:
        yield
    assert time.monotonic() - began < BUDGET + MARGIN
    assert caught.value.failure in failures
    assert detail in caught.value.detail


def works(store: RedisGreylist) -> bool:
    try:
        store.probe()
    except StoreError:
        return False
    return True


def test_killed_and_started_again_it_goes_on_by_itself(redis: Redis, store: RedisGreylist) -> None:
    assert sight(store) is Memory.NEW
    redis.kill()
    for _ in range(3):
        with fails(StoreFailure.AWAY, detail="Connection refused"):
            sight(store)
    redis.start()  # empty, and it has never seen the script
    assert sight(store) is Memory.NEW
    assert sight(store) is Memory.EARLY


def test_restarted_between_two_calls_nobody_notices(redis: Redis, store: RedisGreylist) -> None:
    sight(store)
    redis.program.restart()
    assert sight(store) is Memory.NEW


def test_a_connection_that_the_server_closed_meanwhile(redis: Redis, store: RedisGreylist) -> None:
    sight(store)
    redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert sight(store) is Memory.EARLY


def test_a_server_that_has_forgotten_the_scripts(redis: Redis, store: RedisGreylist) -> None:
    sight(store)
    redis.command("SCRIPT", "FLUSH")
    assert sight(store) is Memory.EARLY


def test_one_that_answers_nothing_costs_the_budget_and_no_more(
    redis: Redis, store: RedisGreylist, hasty: RedisGreylist
) -> None:
    sight(store)
    redis.signal(signal.SIGSTOP)
    for act in (
        lambda: sight(hasty),
        lambda: hasty.recalls(TRIPLET, WINDOWS),
        hasty.orders,
        hasty.returns,
        hasty.probe,
        lambda: next(hasty.triplets()),
        lambda: hasty.record(["alice@example.com"], 60.0),
    ):
        with fails(StoreFailure.TIMEOUT):
            act()
    redis.signal(signal.SIGCONT)
    assert sight(store) is Memory.EARLY


def test_one_that_answers_nothing_keeps_no_crowd_waiting(redis: Redis, hasty: RedisGreylist) -> None:
    redis.signal(signal.SIGSTOP)
    crowd = 3 * MAX_CONNECTIONS

    def attempt(_number: int) -> StoreFailure:
        with pytest.raises(StoreError) as caught:
            sight(hasty)
        return caught.value.failure

    began = time.monotonic()
    with ThreadPoolExecutor(crowd) as pool:
        assert set(pool.map(attempt, range(crowd))) == {StoreFailure.TIMEOUT}
    assert time.monotonic() - began < BUDGET + MARGIN
    redis.signal(signal.SIGCONT)
    wait_until(lambda: works(hasty), "it works again")


def test_threads_share_a_bounded_number_of_connections(redis: Redis, store: RedisGreylist) -> None:
    with ThreadPoolExecutor(3 * MAX_CONNECTIONS) as pool:
        triplets = [replace(TRIPLET, rcpt_to=f"bob{number}@example.org") for number in range(600)]
        assert set(pool.map(lambda triplet: sight(store, triplet), triplets)) == {Memory.NEW}
    assert redis.command("CLIENT", "LIST").count("id=") <= MAX_CONNECTIONS + 1  # redis-cli's own


def test_a_host_that_takes_no_connection(open_redis: OpenRedis) -> None:
    """A listener whose queue is full drops what comes, as a firewall does."""
    with socket.socket() as full, ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        with fails(StoreFailure.TIMEOUT):
            sight(open_redis(RedisState(RedisTopology.ALONE, (full.getsockname(),)), BUDGET))


def test_a_resolver_that_hangs(redis: Redis, open_redis: OpenRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    state = replace(redis.state, servers=(("localhost", redis.port),))
    known, unknown = open_redis(state, 2.0), open_redis(state, BUDGET)
    assert sight(known) is Memory.NEW
    redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    released, asked = threading.Event(), []

    def hang(*arguments: object, **options: object) -> object:
        asked.append(arguments)
        released.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        assert sight(known) is Memory.EARLY  # by the address it had the last time
        for _ in range(2):
            with fails(StoreFailure.TIMEOUT):
                sight(unknown)
        assert len(asked) == 2  # no thread for each call
    finally:
        released.set()
    wait_until(lambda: _failure_of(unknown) is StoreFailure.AWAY, "the resolver's answer")
    monkeypatch.undo()
    wait_until(lambda: _failure_of(unknown) is None, "it works by itself")


def _failure_of(store: RedisGreylist) -> StoreFailure | None:
    try:
        sight(store)
    except StoreError as error:
        return error.failure
    return None


@pytest.mark.parametrize(
    ("said", "failures"),
    [
        pytest.param(b"", {StoreFailure.AWAY}, id="nothing"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", {StoreFailure.OTHER}, id="another protocol"),
        pytest.param(b"220 mail.example ESMTP\r\n", {StoreFailure.OTHER}, id="a greeting"),
        pytest.param(b"\xff\x00" * 50 + b"\r\n", {StoreFailure.OTHER}, id="octets"),
        pytest.param(b"$x\r\n", {StoreFailure.OTHER}, id="no number"),
        pytest.param(b":1\r\n", {StoreFailure.OTHER}, id="a number"),
        pytest.param(b"$3\r\nabc\r\n", {StoreFailure.OTHER}, id="too short a string"),
        pytest.param(b"$-1\r\n", {StoreFailure.OTHER}, id="no value"),
        pytest.param(b"*-7\r\n", {StoreFailure.OTHER, StoreFailure.AWAY}, id="a list of minus seven"),
        pytest.param(b"*1000000\r\n", {StoreFailure.AWAY, StoreFailure.OTHER}, id="a list without end"),
        pytest.param(b"$900000000000\r\nabc", {StoreFailure.AWAY, StoreFailure.TIMEOUT}, id="a string without end"),
        pytest.param(b"-ERR something new\r\n", {StoreFailure.OTHER}, id="an error we do not know"),
        pytest.param(b"-\r\n", {StoreFailure.OTHER}, id="an error without words"),
        pytest.param(b"-MOVED\r\n", {StoreFailure.OTHER, StoreFailure.AWAY}, id="sent to nowhere"),
        pytest.param(b"-MOVED 1 127.0.0.1:1\r\n", {StoreFailure.OTHER}, id="sent elsewhere, alone"),
    ],
)
def test_what_is_no_redis(said: bytes, failures: set[StoreFailure], open_redis: OpenRedis) -> None:
    with _speaking(said) as address:
        store = open_redis(RedisState(RedisTopology.ALONE, (address,)))
        for _ in range(2):
            with fails(*failures):
                sight(store)


@contextmanager
def _speaking(said: bytes) -> Iterator[tuple[str, int]]:
    """Have something listen that reads once, says this to whoever comes, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def speak() -> None:
            while True:
                try:
                    met, _ = listener.accept()
                except OSError:
                    return
                with met:
                    met.recv(65536)
                    met.sendall(said)

        thread = threading.Thread(target=speak)
        thread.start()
        try:
            yield listener.getsockname()
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    ("refusal", "failure"),
    [
        (Refusal("OOM", "command not allowed when used memory > 'maxmemory'."), StoreFailure.FULL),
        (Refusal("ERR", "Error running script: @user_script:1: -OOM command not allowed"), StoreFailure.FULL),
        (Refusal("MISCONF", "Redis is configured to save RDB snapshots, but"), StoreFailure.FULL),
        (Refusal("READONLY", "You can't write against a read only replica."), StoreFailure.READ_ONLY),
        (Refusal("NOREPLICAS", "Not enough good replicas to write."), StoreFailure.READ_ONLY),
        (Refusal("MASTERDOWN", "Link with MASTER is down"), StoreFailure.AWAY),
        (Refusal("CLUSTERDOWN", "The cluster is down"), StoreFailure.AWAY),
        (Refusal("TRYAGAIN", "Multiple keys request during rehashing of slot"), StoreFailure.AWAY),
        (Refusal("BUSY", "Redis is busy running a script."), StoreFailure.TIMEOUT),
        (Refusal("NOPERM", "this account has no permissions"), StoreFailure.REFUSED),
        (Refusal("ERR", ""), StoreFailure.OTHER),
    ],
    ids=lambda value: f"{value.code} {value.text}"[:30] if isinstance(value, Refusal) else value.value,
)
def test_what_a_refusal_means(refusal: Refusal, failure: StoreFailure) -> None:
    assert refusal.failure() is failure


def test_passwords(folder: Path, open_redis: OpenRedis) -> None:
    with Redis(folder, password="right") as redis:
        assert sight(open_redis(redis.state)) is Memory.NEW
        for wrong in ("", "wrong"):
            store = open_redis(replace(redis.state, password=wrong))
            for _ in range(2):
                with fails(StoreFailure.REFUSED):
                    sight(store)
        redis.command("ACL", "SETUSER", "mailward", "on", ">s3cret", "~mailward:*", "+@all", "-@dangerous")
        redis.command("ACL", "SETUSER", "reader", "on", ">s3cret", "~mailward:*", "+@read")
        redis.command("ACL", "SETUSER", "stranger", "on", ">s3cret", "~other:*", "+@all")
        assert sight(open_redis(replace(redis.state, username="mailward", password="s3cret"))) is Memory.EARLY
        for name in ("reader", "stranger"):
            with fails(StoreFailure.REFUSED):
                sight(open_redis(replace(redis.state, username=name, password="s3cret")))


def test_a_password_that_is_changed(folder: Path, open_redis: OpenRedis) -> None:
    with Redis(folder, password="right") as redis:
        store = open_redis(redis.state)
        sight(store)
        redis.command("CONFIG", "SET", "requirepass", "another")
        assert sight(store) is Memory.EARLY  # who is in stays in
        redis.password = "another"
        redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        with fails(StoreFailure.REFUSED):
            sight(store)


def test_a_password_where_none_is_wanted(redis: Redis, open_redis: OpenRedis) -> None:
    with fails(StoreFailure.REFUSED):
        sight(open_redis(replace(redis.state, password="s3cret")))


def test_databases(redis: Redis, open_redis: OpenRedis) -> None:
    first, second = open_redis(redis.state), open_redis(replace(redis.state, database=1))
    assert (sight(first), sight(second), sight(first)) == (Memory.NEW, Memory.NEW, Memory.EARLY)
    with fails(StoreFailure.REFUSED, detail="out of range"):
        sight(open_redis(replace(redis.state, database=99)))


def test_a_unix_socket(folder: Path, open_redis: OpenRedis) -> None:
    path = folder / "redis.sock"
    state = RedisState(RedisTopology.ALONE, ((str(path), 0),))
    store = open_redis(state)
    with fails(StoreFailure.AWAY, detail=f"{path}: No such file"):
        sight(store)
    with Redis(folder, options=["--unixsocket", str(path)]):
        assert sight(store) is Memory.NEW
        assert sight(store) is Memory.EARLY


def test_tls(folder: Path, open_redis: OpenRedis) -> None:
    own, other = make_tls(folder), make_tls(folder, "other")
    with Redis(folder, tls=own) as redis, Redis(folder, name="plain") as plain:
        store = open_redis(redis.state)
        assert [sight(store), sight(store)] == [Memory.NEW, Memory.EARLY]
        assert sight(open_redis(replace(redis.state, servers=(("localhost", redis.port),)))) is Memory.EARLY
        with fails(StoreFailure.REFUSED, detail="certificate"):
            sight(open_redis(replace(redis.state, ca_file=str(other.certificate))))
        with fails(StoreFailure.REFUSED, detail="certificate"):
            sight(open_redis(replace(redis.state, ca_file="")))  # the system's authorities have never heard of it
        with fails(StoreFailure.REFUSED, detail="/nowhere.pem"):
            sight(open_redis(replace(redis.state, ca_file="/nowhere.pem")))
        with fails(StoreFailure.AWAY):
            sight(open_redis(replace(redis.state, is_tls=False)))
        with fails(StoreFailure.AWAY, StoreFailure.TIMEOUT):
            sight(open_redis(replace(redis.state, servers=plain.state.servers), BUDGET))
        hasty = open_redis(redis.state, BUDGET)
        wait_until(lambda: works(hasty), "it works")
        redis.signal(signal.SIGSTOP)
        for silent in (hasty, open_redis(redis.state, BUDGET)):
            with fails(StoreFailure.TIMEOUT):
                sight(silent)
        redis.signal(signal.SIGCONT)
        redis.command("CONFIG", "SET", "tls-auth-clients", "yes")
        with fails(StoreFailure.REFUSED, StoreFailure.AWAY):
            sight(open_redis(redis.state))
        certified = replace(redis.state, certificate_file=str(own.certificate), key_file=str(own.key))
        assert sight(open_redis(certified)) is Memory.EARLY


def test_a_certificate_for_another_name(folder: Path, open_redis: OpenRedis) -> None:
    with (
        Redis(folder, tls=make_tls(folder), bind="127.0.0.2") as redis,
        fails(StoreFailure.REFUSED, detail="127.0.0.2"),
    ):
        sight(open_redis(redis.state))


def test_a_full_memory(redis: Redis, store: RedisGreylist) -> None:
    sight(store)
    redis.command("CONFIG", "SET", "maxmemory", "1")
    with fails(StoreFailure.FULL):
        sight(store, replace(TRIPLET, rcpt_to="new@example.org"))
    with fails(StoreFailure.FULL):
        store.probe()
    with fails(StoreFailure.FULL):
        store.record(["alice@example.com"], 60.0)
    assert not store.recalls(TRIPLET, WINDOWS)
    redis.command("CONFIG", "SET", "maxmemory", "0")
    assert sight(store) is Memory.EARLY
    store.probe()


def test_a_server_that_cannot_save_takes_no_writes(redis: Redis, store: RedisGreylist) -> None:
    redis.command("CONFIG", "SET", "save", "3600 1")
    redis.command("CONFIG", "SET", "dbfilename", "dump.rdb")
    sight(store)
    folder = redis.program.folder
    (folder / "dump.rdb").mkdir()  # where it would put its file
    redis.command("BGSAVE")
    wait_until(lambda: "rdb_last_bgsave_status:err" in redis.command("INFO", "persistence"), "it fails to save")
    with fails(StoreFailure.FULL):
        sight(store, replace(TRIPLET, rcpt_to="new@example.org"))
    (folder / "dump.rdb").rmdir()
    redis.command("BGSAVE")
    wait_until(lambda: works(store), "it saves again, and takes writes")


def test_one_that_is_still_loading(folder: Path, open_redis: OpenRedis) -> None:
    options = ["--enable-debug-command", "local", "--loading-process-events-interval-bytes", "1024"]
    with Redis(folder, options=options) as redis, ThreadPoolExecutor(1) as pool:
        store = open_redis(redis.state)
        redis.command("DEBUG", "POPULATE", "300", "key", "50")
        redis.command("CONFIG", "SET", "key-load-delay", "3000")
        reloading = pool.submit(redis.command, "DEBUG", "RELOAD")
        wait_until(lambda: "loading" in _detail_of(store), "it says that it is loading")
        with fails(StoreFailure.AWAY, detail="loading"):
            open_redis(redis.state).probe()
        reloading.result()
        assert sight(store) is Memory.EARLY or works(store)


def _detail_of(store: RedisGreylist) -> str:
    try:
        sight(store)
    except StoreError as error:
        return error.detail
    return ""


def test_a_replica_is_read_only(redis: Redis, store: RedisGreylist) -> None:
    sight(store)
    redis.command("REPLICAOF", "127.0.0.1", str(free_port()))
    with fails(StoreFailure.READ_ONLY):
        sight(store, replace(TRIPLET, rcpt_to="new@example.org"))
    with fails(StoreFailure.READ_ONLY):
        store.probe()
    redis.command("REPLICAOF", "NO", "ONE")
    assert sight(store) is Memory.EARLY


def test_a_foreign_value_under_our_key_counts_as_none(redis: Redis, store: RedisGreylist) -> None:
    redis.command("SET", triplet_key(TRIPLET), "something else")
    assert list(store.triplets()) == []
    assert sight(store) is Memory.NEW
    redis.command("SET", "mailward:{=x} t", "something else")
    redis.command("HSET", "mailward:{orders}", "sender eve@example.com", "{}")
    assert len(list(store.triplets())) == 1
    assert store.orders().entries == ()


def test_a_foreign_kind_of_value_under_our_key(redis: Redis, store: RedisGreylist) -> None:
    redis.command("LPUSH", triplet_key(TRIPLET), "something else")
    with fails(StoreFailure.DAMAGED):
        sight(store)


def test_what_is_written_leaves_by_itself(redis: Redis, store: RedisGreylist) -> None:
    def seconds_of(key: str) -> float:
        return int(redis.command("PTTL", key)) / 1000

    correspondent = "carol@example.net"
    store.record([correspondent], 600.0)
    store.probe()
    now = time.time()
    for number in range(3):
        at = now + number * 3 * 3600
        triplet = replace(TRIPLET, rcpt_to=f"bob{number}@example.org")
        store.sight(triplet, WINDOWS, now=at)
        waiting = WINDOWS.retry_window + LATE_SECONDS
        assert waiting - 60 < seconds_of(triplet_key(triplet)) <= waiting
        store.sight(triplet, WINDOWS, now=at + 60)
        assert WINDOWS.remember - 60 < seconds_of(triplet_key(triplet)) <= WINDOWS.remember
    assert 540 < seconds_of(correspondent_key(correspondent)) <= 600
    assert [(count.expected, count.returned) for count in store.returns(now + 9 * 3600)] == [(1, 1)]
    keys = redis.command("KEYS", "*").splitlines()
    assert len(keys) == 6  # three triplets, their origin, the correspondent, the returns
    assert all(seconds_of(key) > 0 for key in keys)


def test_an_order_whose_time_is_over_leaves_with_the_next(redis: Redis, store: RedisGreylist) -> None:
    now = time.time()
    for number in range(3):
        store.set_entry(Entry(EntryKind.SENDER, f"{number}@example.com", True, now, until=now + 60))
    store.set_entry(Entry(EntryKind.SENDER, "eve@example.com", False, now + 61))
    assert int(redis.command("HLEN", "mailward:{orders}")) == 1


def test_a_sighting_stands_where_its_return_cannot_be_counted(redis: Redis, store: RedisGreylist) -> None:
    now = time.time()
    for number in range(2):
        for later in (0, 60):
            triplet = replace(TRIPLET, rcpt_to=f"bob{number}@example.org")
            store.sight(triplet, WINDOWS, now=now + number * 3600 + later)
    redis.command("SET", "mailward:{returns}", "something else")
    assert store.sight(TRIPLET, WINDOWS, now=now + 8000).memory is Memory.NEW


def test_a_decision_is_one_round_trip(redis: Redis, store: RedisGreylist) -> None:
    sight(store)
    before = _commands(redis)
    for number in range(50):
        sight(store, replace(TRIPLET, rcpt_to=f"bob{number}@example.org"))
    after = _commands(redis)
    assert {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}.keys() <= {
        "cmdstat_evalsha",
        "cmdstat_time",
        "cmdstat_get",
        "cmdstat_set",
        "cmdstat_info",
    }
    assert after["cmdstat_evalsha"] - before["cmdstat_evalsha"] == 50


def _commands(redis: Redis) -> dict[str, int]:
    lines = redis.command("INFO", "commandstats").splitlines()
    return {
        line.partition(":")[0]: int(line.partition("calls=")[2].partition(",")[0]) for line in lines if "calls=" in line
    }


def test_a_triplet_takes_less_than_300_octets(redis: Redis, store: RedisGreylist) -> None:
    def used() -> int:
        line = next(line for line in redis.command("INFO", "memory").splitlines() if line.startswith("used_memory:"))
        return int(line.partition(":")[2])

    sight(store)
    before = used()
    for number in range(2000):
        sight(store, Triplet(f"192.0.{number}.0/24", f"alice.jones{number}@example.com", "bob.smith@example.org"))
    assert (used() - before) / 2000 < 300


def test_a_closed_store_may_be_closed_again(store: RedisGreylist) -> None:
    sight(store)
    store.close()
    store.close()
