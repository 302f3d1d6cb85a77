"""Several Redis servers: a master that dies and its heir, Sentinels that are away, a cluster's nodes and slots."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count

import pytest

from mailward.adapters.redis_finders import SLOTS, slot_of
from mailward.adapters.redis_greylist import RedisGreylist
from mailward.adapters.redis_records import correspondent_key, origin_key
from mailward.model.errors import StoreError, StoreFailure
from mailward.model.greylist import Memory, Triplet
from mailward.model.state import RedisState, RedisTopology
from tests.adapters.redis_support import MARGIN, PATIENCE, TRIPLET, WINDOWS, OpenRedis
from tests.support.processes import free_port, open_folder, wait_until
from tests.support.redis import (
    FAILOVER_SECONDS,
    SERVICE,
    Redis,
    RedisCluster,
    RedisWithSentinels,
    make_sentinel,
    make_tls,
)

BUDGET = 0.4
THREADS = 4


@pytest.fixture(scope="module")
def three_sentinels() -> Iterator[RedisWithSentinels]:
    with open_folder() as folder, RedisWithSentinels(folder, password="s3cret") as started:
        yield started


@pytest.fixture
def watched(three_sentinels: RedisWithSentinels) -> RedisWithSentinels:
    three_sentinels.wait_until_safe()
    three_sentinels.clear()
    return three_sentinels


@pytest.fixture(scope="module")
def three_nodes() -> Iterator[RedisCluster]:
    with open_folder() as folder, RedisCluster(folder) as started:
        yield started


@pytest.fixture
def cluster(three_nodes: RedisCluster) -> RedisCluster:
    wait_until(three_nodes.is_whole, "the cluster is whole", seconds=60.0)
    three_nodes.clear()
    return three_nodes


def sight(store: RedisGreylist, triplet: Triplet = TRIPLET) -> Memory:
    return store.sight(triplet, WINDOWS).memory


def works(store: RedisGreylist, triplet: Triplet = TRIPLET) -> bool:
    try:
        sight(store, triplet)
    except StoreError:
        return False
    return True


@contextmanager
def fails(*failures: StoreFailure, detail: str = "", budget: float = BUDGET) -> Iterator[None]:
    """Expect a failure within the budget."""
    began = time.monotonic()
    with pytest.raises(StoreError) as caught:
        yield
    assert time.monotonic() - began < budget + MARGIN
    assert caught.value.failure in failures
    assert detail in caught.value.detail


@dataclass
class Load:
    """Threads that sight one triplet after another, and what became of it."""

    store: RedisGreylist
    acknowledged: list[tuple[float, Triplet]] = field(default_factory=list)
    failed: list[StoreError] = field(default_factory=list)
    slowest: float = 0.0
    is_over: threading.Event = field(default_factory=threading.Event)
    numbers: Iterator[int] = field(default_factory=count)

    def run(self) -> None:
        while not self.is_over.is_set():
            triplet = replace(TRIPLET, rcpt_to=f"bob{next(self.numbers)}@example.org")
            began = time.monotonic()
            try:
                sight(self.store, triplet)
            except StoreError as error:
                self.failed.append(error)
            else:
                self.acknowledged.append((time.monotonic(), triplet))
            self.slowest = max(self.slowest, time.monotonic() - began)
            time.sleep(0.002)  # mail is not a loop; and the servers shall have some of the processor

    def acknowledged_since(self, moment: float) -> int:
        return sum(1 for at, _ in self.acknowledged if at > moment)


def test_a_master_killed_under_load_and_its_heir(watched: RedisWithSentinels, open_redis: OpenRedis) -> None:
    load, store = Load(open_redis(watched.state, BUDGET)), open_redis(watched.state)
    old = watched.master()
    with ThreadPoolExecutor(THREADS) as pool:
        running = [pool.submit(load.run) for _ in range(THREADS)]
        try:
            wait_until(lambda: len(load.acknowledged) > 200, "the load has begun")
            killed_at = time.monotonic()
            old.kill()
            wait_until(lambda: bool(load.failed), "somebody notices", seconds=FAILOVER_SECONDS)
            wait_until(lambda: watched.master() is not old, "the replica is promoted", seconds=FAILOVER_SECONDS)
            promoted_at = time.monotonic()
            wait_until(
                lambda: load.acknowledged_since(promoted_at) > 200, "it goes on by itself", seconds=FAILOVER_SECONDS
            )
        finally:
            load.is_over.set()
    for each in running:
        each.result()  # no exception but those that are in `failed`
    assert load.slowest < BUDGET + MARGIN
    assert {error.failure for error in load.failed} <= {StoreFailure.AWAY, StoreFailure.TIMEOUT, StoreFailure.READ_ONLY}
    before = [triplet for at, triplet in load.acknowledged if at < killed_at]
    remembered = [sight(store, triplet) for triplet in before].count(Memory.EARLY)
    assert remembered >= 0.9 * len(before)  # what the replica had not got yet is lost

    old.start()  # empty, and for a moment it holds itself for the master
    watched.wait_until_safe()
    assert watched.master() is not old
    assert {sight(store, triplet) for triplet in before} == {Memory.EARLY}
    assert sight(open_redis(watched.state), before[0]) is Memory.EARLY


def test_a_master_that_is_stopped_is_left_for_its_heir(watched: RedisWithSentinels, open_redis: OpenRedis) -> None:
    store = open_redis(watched.state, BUDGET)
    wait_until(lambda: works(store), "it works")
    old = watched.master()
    old.signal(signal.SIGSTOP)
    try:
        with fails(StoreFailure.TIMEOUT):
            sight(store)
        wait_until(lambda: works(store), "the heir is found", seconds=FAILOVER_SECONDS)
    finally:
        old.signal(signal.SIGCONT)
    watched.wait_until_safe()
    assert sight(open_redis(watched.state)) is Memory.EARLY


def test_a_master_that_is_made_a_replica(watched: RedisWithSentinels, open_redis: OpenRedis) -> None:
    store = open_redis(watched.state)
    sight(store)
    watched.exchange_roles()
    assert sight(store) is Memory.EARLY  # it said READONLY, and the heir was asked in the same call
    store.probe()


def test_sentinels_that_are_away(watched: RedisWithSentinels, open_redis: OpenRedis) -> None:
    connected = open_redis(watched.state)
    sight(connected)
    first, second, third = watched.sentinels
    first.signal(signal.SIGSTOP)
    try:
        assert sight(open_redis(watched.state, 2.0)) is Memory.EARLY  # asked the second, in time
        second.kill()
        store = open_redis(watched.state)
        assert sight(store) is Memory.EARLY
        third.kill()
        assert sight(connected) is Memory.EARLY  # nobody needs them while the master answers
        assert sight(store) is Memory.EARLY
        with fails(StoreFailure.AWAY, StoreFailure.TIMEOUT, detail="Sentinels"):
            sight(open_redis(watched.state, BUDGET))
    finally:
        first.signal(signal.SIGCONT)
        for sentinel in (second, third):
            sentinel.kill()
            watched.start_sentinel(sentinel)
    assert sight(open_redis(watched.state)) is Memory.EARLY


def test_a_service_that_no_sentinel_knows(watched: RedisWithSentinels, open_redis: OpenRedis) -> None:
    with fails(StoreFailure.REFUSED, detail='knows no service "other"'):
        sight(open_redis(replace(watched.state, service="other")))


def test_a_wrong_password_for_the_master(watched: RedisWithSentinels, open_redis: OpenRedis) -> None:
    with fails(StoreFailure.REFUSED):
        sight(open_redis(replace(watched.state, password="wrong")))


def test_a_sentinel_with_a_password_and_tls(open_redis: OpenRedis) -> None:
    with open_folder() as folder:
        tls = make_tls(folder)
        master = Redis(folder, password="one", tls=tls)
        with master, make_sentinel(folder, master, password="two", tls=tls) as sentinel:
            state = replace(
                master.state,
                topology=RedisTopology.SENTINEL,
                servers=((sentinel.bind, sentinel.port),),
                service=SERVICE,
                sentinel_password="two",
            )
            assert sight(open_redis(state)) is Memory.NEW
            with fails(StoreFailure.REFUSED, detail="Sentinels"):
                sight(open_redis(replace(state, sentinel_password="one")))


def triplet_on(node: int, *, after: int = 0) -> Triplet:
    """Return a triplet whose slot the node has from the beginning."""
    for number in range(after, 1000):
        triplet = replace(TRIPLET, origin=f"192.0.{number}.0/24")
        if slot_of(origin_key(triplet.origin)) * 3 // SLOTS == node:
            return triplet
    raise AssertionError("no such slot")


def test_every_node_has_its_share(cluster: RedisCluster, open_redis: OpenRedis) -> None:
    store = open_redis(cluster.state)
    triplets = [replace(TRIPLET, origin=f"192.0.{number}.0/24") for number in range(100)]
    for memory in (Memory.NEW, Memory.EARLY):
        assert {sight(store, triplet) for triplet in triplets} == {memory}
    shares = [int(node.command("DBSIZE")) for node in cluster.nodes]
    assert all(share > 10 for share in shares)
    assert sum(shares) == store.count_triplets() == len(list(store.triplets())) == 100


def test_a_correspondent_is_known_whatever_node_it_is_on(cluster: RedisCluster, open_redis: OpenRedis) -> None:
    store = open_redis(cluster.state)
    addresses = [f"carol@{number}.example" for number in range(30)]
    assert len({slot_of(correspondent_key(address)) * 3 // SLOTS for address in addresses}) == 3
    store.record(addresses, 60.0)
    for address in addresses:
        for origin in (address.partition("@")[2], "192.0.2.0/24"):  # by its domain in one call, by its network in two
            sighting = store.sight(Triplet(origin, address, "bob@example.org"), WINDOWS, correspondent=address)
            assert sighting.memory is Memory.CORRESPONDENT


def test_a_node_killed_fails_its_own_slots_alone(cluster: RedisCluster, open_redis: OpenRedis) -> None:
    store = open_redis(cluster.state)
    first, second, third = (triplet_on(number) for number in range(3))
    assert {sight(store, triplet) for triplet in (first, second, third)} == {Memory.NEW}
    cluster.nodes[0].kill()
    began = time.monotonic()
    for _ in range(20):
        with fails(StoreFailure.AWAY):
            sight(store, first)
        assert sight(store, second) is Memory.EARLY
        assert sight(store, third) is Memory.EARLY
    assert time.monotonic() - began < PATIENCE  # far from a budget for each
    assert sight(open_redis(cluster.state), second) is Memory.EARLY  # the first that it is configured with is dead
    cluster.nodes[0].start()
    wait_until(lambda: works(store, first), "it works again by itself")


def test_a_node_that_answers_nothing_keeps_nobody_waiting_for_long(
    cluster: RedisCluster, open_redis: OpenRedis
) -> None:
    store = open_redis(cluster.state, BUDGET)
    first, second = triplet_on(0), triplet_on(1)
    for triplet in (first, second):
        wait_until(lambda triplet=triplet: works(store, triplet), "it works")  # type: ignore[misc]
    cluster.nodes[0].signal(signal.SIGSTOP)
    try:
        with fails(StoreFailure.TIMEOUT):
            sight(store, first)
        began = time.monotonic()
        failures = [_failure_of(store, first) for _ in range(50)]
        assert StoreFailure.AWAY in failures
        assert time.monotonic() - began < 50 * BUDGET / 2  # far from a budget for each
        wait_until(lambda: works(store, second), "the others go on")
    finally:
        cluster.nodes[0].signal(signal.SIGCONT)
    wait_until(lambda: works(store, first), "it works again by itself")


def _failure_of(store: RedisGreylist, triplet: Triplet) -> StoreFailure | None:
    try:
        sight(store, triplet)
    except StoreError as error:
        return error.failure
    return None


def test_a_slot_that_has_moved_is_found(cluster: RedisCluster, open_redis: OpenRedis) -> None:
    store = open_redis(cluster.state)
    sight(store)
    moved = triplet_on(0, after=500)
    slot = str(slot_of(origin_key(moved.origin)))
    source, target = cluster.nodes[0], cluster.nodes[1]
    try:
        give_slot(slot, target, source)
        wait_until(lambda: is_found(store, moved), "the nodes to be of one mind")
        assert [sight(store, moved), sight(store, moved)] == [Memory.NEW, Memory.EARLY]
        assert target.command("CLUSTER", "COUNTKEYSINSLOT", slot).strip() == "1"
        assert store.forget_triplet(moved)
    finally:
        give_slot(slot, source, target)
    wait_until(lambda: is_found(store, moved), "the nodes to be of one mind")
    assert [sight(store, moved), sight(store, moved)] == [Memory.NEW, Memory.EARLY]


def is_found(store: RedisGreylist, sighted: Triplet) -> bool:
    """Say whether a triplet's slot is found; while the nodes still pass on who had it, they send us round in circles."""
    try:
        store.recalls(sighted, WINDOWS)
    except StoreError:
        return False
    return True


def give_slot(slot: str, owner: Redis, former: Redis) -> None:
    """Give an empty slot to another node.

    Its word counts for more from before it owns the slot, or the former owner's next ping takes the slot back from it.
    """
    name = owner.command("CLUSTER", "MYID").strip()
    owner.command("CLUSTER", "BUMPEPOCH")
    for node in (owner, former):
        node.command("CLUSTER", "SETSLOT", slot, "NODE", name)


def test_a_slot_that_is_on_its_way(cluster: RedisCluster, open_redis: OpenRedis) -> None:
    store = open_redis(cluster.state)
    address = next(
        address
        for address in (f"carol@{number}.example" for number in count(500))
        if slot_of(correspondent_key(address)) * 3 // SLOTS == 0
    )
    slot = str(slot_of(correspondent_key(address)))
    triplet = Triplet(address.partition("@")[2], address, "bob@example.org")
    source, target = cluster.nodes[0], cluster.nodes[1]
    try:
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", source.command("CLUSTER", "MYID").strip())
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", target.command("CLUSTER", "MYID").strip())
        store.record([address], 60.0)
        assert target.command("CLUSTER", "COUNTKEYSINSLOT", slot).strip() == "1"
        with fails(StoreFailure.AWAY, detail="TRYAGAIN"):  # two keys at once, neither of which has come over
            sight(store, triplet)
        target.command("FLUSHALL")
    finally:
        for node in (target, source):
            node.command("CLUSTER", "SETSLOT", slot, "STABLE")
    assert sight(store, triplet) is Memory.NEW


def test_a_cluster_whose_first_names_are_out_of_date(cluster: RedisCluster, open_redis: OpenRedis) -> None:
    known = cluster.state.servers[-1]
    state = replace(cluster.state, servers=(("127.0.0.1", free_port()), ("127.0.0.1", free_port()), known))
    assert sight(open_redis(state)) is Memory.NEW
    assert sight(open_redis(state)) is Memory.EARLY


def test_a_cluster_that_is_gone(open_redis: OpenRedis) -> None:
    state = RedisState(RedisTopology.CLUSTER, tuple(("127.0.0.1", free_port()) for _ in range(3)))
    with fails(StoreFailure.AWAY, detail="cluster: 127.0.0.1"):
        sight(open_redis(state))


def test_one_alone_that_is_said_to_be_a_cluster(open_redis: OpenRedis) -> None:
    with open_folder() as folder, Redis(folder) as redis, fails(StoreFailure.OTHER, detail="cluster support disabled"):
        sight(open_redis(replace(redis.state, topology=RedisTopology.CLUSTER)))


def test_a_node_that_is_said_to_be_alone(cluster: RedisCluster, open_redis: OpenRedis) -> None:
    store = open_redis(replace(cluster.state, topology=RedisTopology.ALONE))
    with fails(StoreFailure.OTHER, detail="MOVED"):
        sight(store, triplet_on(1))
