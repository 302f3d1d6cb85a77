"""What is Redis's own of counting: round trips, scripts that were forgotten, a master's heir, owners on several nodes.

What every store says is the contract's affair (test_limits.py).
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailward.adapters.redis_accounts import ACCOUNTS, AUDIT, MAX_DOCUMENT, MAX_WORDS
from mailward.adapters.redis_counter_keys import COUNTERS, ITEMS, key_of
from mailward.adapters.redis_counters import RedisLimits
from mailward.adapters.redis_finders import SLOTS, encode, slot_of
from mailward.adapters.redis_link import Command, RedisLink, Refusal, Reply
from mailward.model.accounts import Account, AuditEntry, Incident, Raise, Suspension
from mailward.model.errors import StoreError, StoreFailure
from mailward.model.limits import KNOWN, Charge, Charging, CounterKey, Force, Kind, Sent, Window
from mailward.model.state import RedisState
from mailward.policy import ratelimit
from mailward.policy.ratelimit import Kept, item_of
from tests.adapters.redis_support import MARGIN, PATIENCE
from tests.support.processes import open_folder, wait_until
from tests.support.redis import Redis, RedisCluster, RedisWithSentinels

BUDGET = 0.4
NOW = 1_800_000_000.0
HOUR, DAY = Window(5, 3600.0), Window(20, 86400.0)
ALICE = CounterKey("sasl_username=alice@example.com", "account-recipients")
CLIENT = CounterKey("client_address=192.0.2.1", "client-recipients")


@pytest.fixture(scope="module")
def one_redis() -> Iterator[Redis]:
    with open_folder() as folder, Redis(folder) as started:
        yield started


@pytest.fixture
def redis(one_redis: Redis) -> Redis:
    one_redis.clear()
    return one_redis


@pytest.fixture(scope="module")
def one_cluster() -> Iterator[RedisCluster]:
    with open_folder() as folder, RedisCluster(folder) as started:
        yield started


@pytest.fixture
def cluster(one_cluster: RedisCluster) -> RedisCluster:
    wait_until(one_cluster.is_whole, "the cluster is whole", seconds=60.0)
    one_cluster.clear()
    return one_cluster


class Opened:
    """Opens stores, and closes all of them afterwards."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def __call__(self, state: RedisState, budget: float = PATIENCE) -> RedisLimits:
        store = RedisLimits(state, budget)
        self._stack.callback(store.close)
        return store


@pytest.fixture
def open_limits(stack: ExitStack) -> Opened:
    return Opened(stack)


@pytest.fixture
def store(redis: Redis, open_limits: Opened) -> RedisLimits:
    return open_limits(redis.state)


@pytest.fixture
def round_trips(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return a list that gets the words of the commands that go out together, for each round trip."""
    seen: list[list[str]] = []
    exchange = RedisLink.exchange

    def counted(link: RedisLink, commands: list[Command], deadline: float) -> list[Reply | Refusal]:
        seen.append([str(command[0]) for command in commands])
        return exchange(link, commands, deadline)

    monkeypatch.setattr(RedisLink, "exchange", counted)
    return seen


def three_limits(number: int = 0, *, owner: str = ALICE.owner) -> Charging:
    return Charging(
        (
            Charge(CounterKey(owner, "recipients"), (HOUR, DAY), 2),
            Charge(CounterKey(owner, "first"), (HOUR,), 1, Kind.FIRST_TIME, item_of(f"bob{number}@example.org")),
            Charge(CLIENT, (replace(DAY, most=1000),)),
        ),
        Sent("alice@example.com", f"4Xy{number}"),
    )


def total(store: RedisLimits, key: CounterKey, window: Window = HOUR, now: float | None = None) -> int:
    (outcome,) = store.charge([Charging((Charge(key, (window,), 0),))], now)
    return outcome.readings[0].totals[0]


def test_a_request_is_one_round_trip_whatever_the_number_of_its_limits(
    store: RedisLimits, round_trips: list[list[str]]
) -> None:
    store.charge([three_limits()])
    round_trips.clear()
    store.charge([three_limits(1)])
    assert round_trips == [["EVALSHA"]]


def test_requests_of_one_call_share_a_round_trip(
    redis: Redis, store: RedisLimits, round_trips: list[list[str]]
) -> None:
    store.charge([three_limits()])
    round_trips.clear()
    redis.command("CONFIG", "RESETSTAT")
    outcomes = store.charge([three_limits(number) for number in range(1, 8)])
    assert round_trips == [["EVALSHA"] * 7]
    assert "cmdstat_evalsha:calls=7," in redis.command("INFO", "commandstats")
    assert [outcome.is_charged for outcome in outcomes] == [True] + [False] * 6  # 2 at a time, of at most 5


def test_nothing_to_charge_is_no_round_trip(store: RedisLimits, round_trips: list[list[str]]) -> None:
    assert [outcome.is_charged for outcome in store.charge([Charging(()), Charging(())])] == [True, True]
    assert store.charge([]) == []
    assert not round_trips


def test_a_server_that_has_forgotten_the_scripts(
    redis: Redis, store: RedisLimits, round_trips: list[list[str]]
) -> None:
    many = [Charging((Charge(ALICE, (Window(100, 3600.0),)),)) for _ in range(8)]
    store.charge(many)
    redis.command("SCRIPT", "FLUSH")
    round_trips.clear()
    outcomes = store.charge(many)
    assert round_trips == [["EVALSHA"] * 8, ["EVAL"] + ["EVALSHA"] * 7]
    assert [outcome.readings[0].totals for outcome in outcomes] == [(number,) for number in range(9, 17)]  # once each


def test_by_the_servers_clock_what_is_charged_clears(store: RedisLimits) -> None:
    charging = Charging((Charge(ALICE, (Window(1, 0.5),)),))

    def clears() -> bool:
        (outcome,) = store.charge([charging])
        assert outcome.is_charged or 0.0 < outcome.readings[0].clears_in <= 0.5 + 0.5 / 30 + 0.001
        return outcome.is_charged

    assert clears()
    wait_until(lambda: not clears(), "it is reached")
    wait_until(clears, "it is clear")


SECONDS = {Kind.AMOUNT: (0.7, 3600.0), Kind.FIRST_TIME: (60.0,), Kind.DISTINCT: (1000 / 3, 86400.0)}


def make_charge(kind: Kind, owner: str, rest: str, most: int, cost: int, item: bytes, force: Force) -> Charge:
    windows = tuple(Window(most * place, seconds) for place, seconds in enumerate(SECONDS[kind], 1))
    return Charge(CounterKey(owner, f"of {kind.value}", rest), windows, cost, kind, item, force)


CHARGES = st.builds(
    make_charge,
    st.sampled_from(Kind),
    st.sampled_from(["all", "login=50% off"]),
    st.sampled_from(["", "recipient_domain=example.org", "sender=a b"]),
    st.integers(0, 6),
    st.sampled_from([0, 1, 1, 2, 5]),
    st.sampled_from([item_of(str(number)) for number in range(6)]),
    st.sampled_from(Force),
)
CHARGINGS = st.lists(CHARGES, max_size=4).map(lambda found: Charging(tuple({one.key: one for one in found}.values())))
# Clocks go on, and step back by less than what has expired is kept for.
STEPS = st.tuples(
    st.sampled_from([0.0, 0.1, 3.0, 130.0, 9000.0, -5.0]) | st.floats(-30, 100_000),
    st.lists(CHARGINGS, min_size=1, max_size=4),
)


@settings(max_examples=60)
@given(st.lists(STEPS, max_size=12))
def test_it_charges_to_the_bit_what_is_defined(
    redis: Redis, store: RedisLimits, steps: list[tuple[float, list[Charging]]]
) -> None:
    redis.clear()
    now, defined = NOW, dict[CounterKey, Kept]()
    for seconds, chargings in steps:
        now += seconds
        for charging, outcome in zip(chargings, store.charge(chargings, now), strict=True):
            values = {key: kept.value for key, kept in defined.items()}
            expected, changes = ratelimit.charge(charging, values, now)
            defined.update(changes)
            assert outcome == expected
    records = [record for owner in ("all", "login=50% off") for record in store.counters(owner)]
    alive = {record.key: Kept(record.value, record.expires) for record in records if record.expires > now}
    assert alive == {key: kept for key, kept in defined.items() if kept.expires > now}


@settings(max_examples=60)
@given(
    st.binary(max_size=60)
    | st.lists(st.floats() | st.sampled_from([3600.0, 1.0, 2.0, NOW, NOW / 120]), max_size=12).map(
        lambda numbers: struct.pack(f"<{len(numbers)}d", *numbers)
    ),
    st.sampled_from(Kind),
)
def test_whatever_lies_there_gives_a_result(redis: Redis, store: RedisLimits, octets: bytes, kind: Kind) -> None:
    one = Charge(ALICE, (HOUR,), 1, kind, item_of("bob"), Force.FORCED)
    for hashed, field in ((COUNTERS, encode(ALICE.limit)), (ITEMS, b"")):
        store._servers.exchange(ALICE.owner, [("HSET", encode(key_of(ALICE.owner, hashed)), field, octets)], later())
    (outcome,) = store.charge([Charging((one,))], NOW)
    assert outcome.is_charged
    assert {record.key for record in store.counters(ALICE.owner)} <= {ALICE, CounterKey(ALICE.owner, KNOWN)}


def later() -> float:
    return time.monotonic() + PATIENCE


def test_everything_is_forgotten_some_time(redis: Redis, store: RedisLimits) -> None:
    pair = CounterKey("all", "per-domain", "recipient_domain=example.org")
    store.charge([three_limits(), Charging((Charge(pair, (HOUR,), 1, Kind.FIRST_TIME, item_of("x")),))])
    names = redis.command("KEYS", "*").splitlines()
    assert len(names) == 8  # counters and items of one owner, counters of two more, the pairs' by time, queue ids
    longest = {name: int(redis.command("PTTL", name)) / 1000 for name in names}
    assert {name: seconds for name, seconds in longest.items() if not 0 < seconds <= 181 * 86400} == {}
    assert all(seconds < 86400 * 1.1 for name, seconds in longest.items() if name.endswith(f" {COUNTERS}"))


def test_pairs_that_have_expired_make_room_when_others_come(store: RedisLimits) -> None:
    def charge(numbers: range, now: float) -> None:
        keys = [CounterKey("all", "per-domain", f"recipient_domain={number}.example") for number in numbers]
        store.charge([Charging((Charge(key, (HOUR,)),)) for key in keys], now)

    charge(range(100), NOW)
    assert len(store.counters("all")) == 100
    charge(range(100, 110), NOW + 7200)
    assert len(store.counters("all")) == 10


def test_of_a_clock_that_is_not_redis_s_tending_forgets_what_has_expired(store: RedisLimits) -> None:
    pair = CounterKey("all", "per-domain", "recipient_domain=example.org")
    store.charge([Charging((Charge(ALICE, (HOUR,)), Charge(CLIENT, (DAY,)), Charge(pair, (HOUR,))))], NOW)

    def is_tended() -> bool:
        store.tend(NOW + 7200)
        return [record.key for record in store.all_counters()] == [CLIENT]

    wait_until(is_tended, "what has expired is gone")


def test_a_redis_that_is_full_charges_nothing(folder: Path, open_limits: Opened) -> None:
    with Redis(folder) as redis:
        store = open_limits(redis.state)
        store.charge([three_limits()])
        before = store.counters(ALICE.owner)
        redis.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreError) as caught:
            store.charge([three_limits(1)])
        assert caught.value.failure is StoreFailure.FULL
        assert store.counters(ALICE.owner) == before
        redis.command("CONFIG", "SET", "maxmemory", "0")
        assert store.charge([three_limits(1)])[0].is_charged


def test_one_that_answers_nothing_costs_the_budget_and_no_more(folder: Path, open_limits: Opened) -> None:
    with Redis(folder) as redis:
        store = open_limits(redis.state, BUDGET)
        wait_until(lambda: works(store), "it works")
        redis.kill()
        began = time.monotonic()
        for act in (store.probe, lambda: store.charge([three_limits()]), store.accounts, store.accounts_version):
            with pytest.raises(StoreError) as caught:
                act()
            assert caught.value.failure is StoreFailure.AWAY
        assert time.monotonic() - began < 4 * BUDGET + MARGIN
        redis.start()
        assert store.charge([three_limits()])[0].is_charged


def works(store: RedisLimits) -> bool:
    try:
        store.probe()
    except StoreError:
        return False
    return True


def test_what_is_counted_is_not_what_greylisting_remembers(redis: Redis, store: RedisLimits) -> None:
    store.charge([three_limits()])
    store.swap(Account("a"), Account("a", suspension=Suspension(1.0, "b", "c")))
    store.put_note("a", "b")
    store.probe()
    assert all(name.startswith("mailward:limits:{") for name in redis.command("KEYS", "*").splitlines())


def test_after_a_failover_a_batch_is_counted_on(open_limits: Opened) -> None:
    with open_folder() as folder, RedisWithSentinels(folder) as watched:
        store = open_limits(watched.state)
        many = [Charging((Charge(ALICE, (Window(100, 3600.0),)),)) for _ in range(4)]
        store.charge(many)
        assert store.swap(Account("a"), Account("a", suspension=Suspension(1.0, "b", "c")))
        before = store.accounts_version()
        watched.exchange_roles()
        outcomes = store.charge(many)  # told READONLY, then, by the heir, that it knows no such script
        assert [outcome.readings[0].totals for outcome in outcomes] == [(5,), (6,), (7,), (8,)]
        assert store.account("a").suspension is not None
        assert store.swap(store.account("a"), Account("a"))
        assert store.accounts_version() not in ("", before)


def on_node(node: int, start: str = "sasl_username=") -> str:
    """Return an owner whose counters the node has."""
    owners = (f"{start}{number}@example.com" for number in range(1000))
    return next(owner for owner in owners if slot_of(key_of(owner, COUNTERS)) * 3 // SLOTS == node)


OWNERS = tuple(on_node(node) for node in range(3))


def kept_of(store: RedisLimits) -> dict[CounterKey, bytes]:
    return {record.key: record.value for owner in OWNERS for record in store.counters(owner)}


def of_all_nodes(most: int, number: int = 0) -> Charging:
    """Return a request of each kind on each node; the last one's is of a limit that lets so many pass."""
    item = item_of(f"bob{number}@example.org")
    return Charging(
        (
            *(Charge(CounterKey(owner, "amount"), (DAY,), 2) for owner in OWNERS),
            *(Charge(CounterKey(owner, "first"), (DAY,), 1, Kind.FIRST_TIME, item) for owner in OWNERS),
            *(Charge(CounterKey(owner, "distinct"), (DAY,), 1, Kind.DISTINCT, item) for owner in OWNERS),
            *(Charge(CounterKey(owner, "pairs", "sender=bob"), (DAY,)) for owner in OWNERS),
            Charge(CounterKey(OWNERS[2], "strict"), (Window(most, 86400.0),)),
        ),
        Sent(OWNERS[0].removeprefix("sasl_username="), f"4Xy{number}"),
    )


def test_owners_on_several_nodes_are_charged_at_once(
    cluster: RedisCluster, open_limits: Opened, round_trips: list[list[str]]
) -> None:
    store = open_limits(cluster.state)
    store.charge([of_all_nodes(10)], NOW)
    round_trips.clear()
    (outcome,) = store.charge([of_all_nodes(10, 1)], NOW)
    assert round_trips == [["EVALSHA"]] * 3  # one for each node, side by side
    assert outcome.is_charged
    assert [reading.totals for reading in outcome.readings] == [(4,)] * 3 + [(2,)] * 10


def test_what_one_node_refuses_is_charged_on_none(cluster: RedisCluster, open_limits: Opened) -> None:
    store = open_limits(cluster.state)
    assert store.charge([of_all_nodes(1)], NOW)[0].is_charged
    before = kept_of(store)
    outcomes = store.charge([of_all_nodes(1, number) for number in range(1, 5)], NOW + 1)
    assert [outcome.is_charged for outcome in outcomes] == [False] * 4
    assert all(outcome.readings[-1].is_over for outcome in outcomes)
    assert not any(reading.is_over for outcome in outcomes for reading in outcome.readings[:-1])
    assert kept_of(store) == before
    assert [queue_id for _, queue_id in store.sent(OWNERS[0].removeprefix("sasl_username="), NOW + 1)] == ["4Xy0"]


def test_what_was_never_charged_leaves_nothing_behind(cluster: RedisCluster, open_limits: Opened) -> None:
    store = open_limits(cluster.state)
    assert not store.charge([of_all_nodes(0)], NOW)[0].is_charged
    assert kept_of(store) == {}
    assert sum(int(node.command("DBSIZE")) for node in cluster.nodes) == 0


def test_what_is_given_back_is_not_what_others_have_charged(cluster: RedisCluster, open_limits: Opened) -> None:
    store = open_limits(cluster.state)
    wide = Window(10_000, 86400.0)
    granted = Charging(tuple(Charge(CounterKey(owner, "amount"), (wide,)) for owner in OWNERS[:2]))
    refused = Charging((*granted.charges, Charge(CounterKey(OWNERS[2], "strict"), (Window(0, 60.0),))))

    def run(number: int) -> list[bool]:
        both = [granted, refused] if number % 2 else [refused, granted]
        return [outcome.is_charged for outcome in store.charge(both)]

    with ThreadPoolExecutor(8) as pool:
        charged = [is_charged for of_one in pool.map(run, range(80)) for is_charged in of_one]
    assert charged.count(True) == 80
    assert [total(store, charge.key, wide) for charge in granted.charges] == [80, 80]


def test_where_a_node_is_away_the_others_give_back(open_limits: Opened) -> None:
    with open_folder() as folder, RedisCluster(folder) as cluster:
        store = open_limits(cluster.state)
        assert store.charge([of_all_nodes(10)], NOW)[0].is_charged
        reachable = {key: value for key, value in kept_of(store).items() if key.owner != OWNERS[2]}
        cluster.nodes[2].kill()
        for number in range(3):
            with pytest.raises(StoreError) as caught:
                store.charge([of_all_nodes(10, 1 + number)], NOW)
            assert caught.value.failure is StoreFailure.AWAY
        own = Charging((Charge(CounterKey(OWNERS[0], "amount"), (DAY,), 0),))
        assert store.charge([own], NOW)[0].readings[0].totals == (2,)  # who needs the others only goes on
        left = {record.key: record.value for owner in OWNERS[:2] for record in store.counters(owner)}
        assert left == reachable


FULL_ACCOUNT = Account(
    "alice@example.com",
    Incident(NOW, "account-recipients", 7, NOW + 1, NOW + 2.5, "opened", NOW + 3),
    Suspension(NOW, "root", "50 % of \u00fc \udcff {}"),
    (Raise(1000, 3600.0, NOW, "first"), Raise(5, 1.5, float("inf"))),
    True,
)


def test_an_account_that_is_too_large_changes_nothing(store: RedisLimits) -> None:
    large = Account("alice", suspension=Suspension(1.0, "root", "x" * MAX_DOCUMENT))
    with pytest.raises(StoreError):
        store.swap(Account("alice"), large)
    assert store.account("alice") == Account("alice")


def test_text_in_the_audit_log_is_clipped(store: RedisLimits) -> None:
    store.audit(AuditEntry(NOW, "root", "suspend", "alice", "x" * 100_000))
    (entry,) = store.audit_log()
    assert entry.why == "x" * MAX_WORDS


@pytest.mark.parametrize(
    "document",
    [
        "", "{", "[]", "null", "7", '"x"', "{}", "[" * 5000, "\\xff\\xfe", '{"incident":7,"suspension":[],"raises":1}',
        '{"incident":{"opened_at":"x"},"suspension":null,"raises":[],"is_tightened":false}',
        '{"incident":null,"suspension":{"at":1e999,"by":1},"raises":[],"is_tightened":false}',
        '{"incident":null,"suspension":null,"raises":[{"most":1e999,"seconds":1,"until":1,"limit":""}]}',
    ],
)  # fmt: skip
def test_what_is_no_account_is_a_plain_one(redis: Redis, store: RedisLimits, document: str) -> None:
    redis.command("HSET", ACCOUNTS, "alice@example.com", document)
    redis.command("XADD", AUDIT, "*", "e", document)
    assert store.accounts() == {}
    assert store.audit_log() == []
    assert store.swap(Account("alice@example.com"), FULL_ACCOUNT)
    assert store.accounts() == {"alice@example.com": FULL_ACCOUNT}


def test_a_redis_that_has_lost_everything_has_another_version(redis: Redis, store: RedisLimits) -> None:
    seen = {store.accounts_version()}
    for _ in range(3):
        assert store.swap(Account("alice@example.com"), FULL_ACCOUNT)
        seen.add(store.accounts_version())
        redis.clear()
    assert len(seen) == 4
