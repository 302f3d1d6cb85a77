"""The places where things are kept, each as a factory of stores: what test_stores*.py and test_limits*.py run over."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mailward.adapters import stores
from mailward.adapters.memory_counters import MemoryLimits
from mailward.adapters.memory_greylist import MemoryGreylist
from mailward.model.ports import GreylistRecords, LimitRecords
from mailward.model.state import Durability, SqliteState, State
from tests.support.processes import open_folder
from tests.support.redis import STEADY_MILLISECONDS, Redis, RedisCluster, RedisWithSentinels

BUDGET_SECONDS = 30.0  # these tests are about answers, not about their time: the machine may be busy


@dataclass
class Place:
    """Somewhere to keep things. `open` and `open_limits` give one more store on what is kept; `clear` forgets everything there.

    `examples`: how many dialogues of hypothesis's making it stands in some seconds. `is_divided`: it charges the counters of
    different owners in different steps, and takes back what another has refused.
    """

    open: Callable[[], GreylistRecords]
    open_limits: Callable[[], LimitRecords]
    clear: Callable[[], None]
    examples: int
    is_divided: bool = False


@contextmanager
def _memory() -> Iterator[Place]:
    kept = [(MemoryGreylist(), MemoryLimits())]  # outlives the stores that are opened on it, as a file would

    def clear() -> None:
        kept[0] = (MemoryGreylist(), MemoryLimits())

    yield Place(lambda: kept[0][0], lambda: kept[0][1], clear, examples=200)


@contextmanager
def _sqlite() -> Iterator[Place]:
    with open_folder("mailward-stores-") as folder:
        state = SqliteState(folder / "state")
        state.folder.mkdir()

        def clear() -> None:
            shutil.rmtree(state.folder)
            state.folder.mkdir()

        yield _opened(state, clear, examples=50)


def _in_redis(
    make: Callable[[Path], Redis | RedisWithSentinels | RedisCluster], *, is_divided: bool = False
) -> Iterator[Place]:
    with open_folder("mailward-stores-") as folder, make(folder) as servers:
        yield _opened(servers.state, servers.clear, examples=20, is_divided=is_divided)


def _opened(state: State, clear: Callable[[], None], *, examples: int, is_divided: bool = False) -> Place:
    return Place(
        partial(stores.open_greylist, state, Durability.PROCESS, BUDGET_SECONDS),
        lambda: stores.open_limits(state, Durability.PROCESS, BUDGET_SECONDS),
        clear,
        examples,
        is_divided,
    )


@contextmanager
def _redis() -> Iterator[Place]:
    yield from _in_redis(Redis)


@contextmanager
def _sentinel() -> Iterator[Place]:
    yield from _in_redis(partial(RedisWithSentinels, down_after_milliseconds=STEADY_MILLISECONDS))


@contextmanager
def _cluster() -> Iterator[Place]:
    yield from _in_redis(RedisCluster, is_divided=True)


PLACES = {
    "memory": _memory,
    "sqlite": _sqlite,
    "redis": _redis,
    "redis with sentinel": _sentinel,
    "redis cluster": _cluster,
}
