"""The places where greylisting's memory is kept, each as a factory of stores: what tests/adapters/test_stores*.py run over."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mailward.adapters.memory_greylist import MemoryGreylist
from mailward.adapters.stores import open_greylist
from mailward.model.ports import GreylistRecords
from mailward.model.state import Durability, RedisState, SqliteState
from tests.support.processes import open_folder
from tests.support.redis import Redis, RedisCluster, RedisWithSentinels

BUDGET_SECONDS = 30.0  # these tests are about answers, not about their time: the machine may be busy


@dataclass
class Place:
    """Somewhere to keep things. `open` gives one more store on what is kept; `clear` forgets everything there.

    `examples`: how many dialogues of hypothesis's making it stands in some seconds.
    """

    open: Callable[[], GreylistRecords]
    clear: Callable[[], None]
    examples: int


@contextmanager
def _memory() -> Iterator[Place]:
    kept = [MemoryGreylist()]  # outlives the stores that are opened on it, as a file would

    def clear() -> None:
        kept[0] = MemoryGreylist()

    yield Place(lambda: kept[0], clear, examples=200)


@contextmanager
def _sqlite() -> Iterator[Place]:
    with open_folder("mailward-stores-") as folder:
        state = SqliteState(folder / "state")
        state.folder.mkdir()

        def clear() -> None:
            shutil.rmtree(state.folder)
            state.folder.mkdir()

        yield Place(lambda: open_greylist(state, Durability.PROCESS, BUDGET_SECONDS), clear, examples=50)


def _in_redis(make: Callable[[Path], Redis | RedisWithSentinels | RedisCluster]) -> Iterator[Place]:
    with open_folder("mailward-stores-") as folder, make(folder) as servers:
        state: RedisState = servers.state
        yield Place(lambda: open_greylist(state, Durability.PROCESS, BUDGET_SECONDS), servers.clear, examples=20)


@contextmanager
def _redis() -> Iterator[Place]:
    yield from _in_redis(Redis)


@contextmanager
def _sentinel() -> Iterator[Place]:
    yield from _in_redis(RedisWithSentinels)


@contextmanager
def _cluster() -> Iterator[Place]:
    yield from _in_redis(RedisCluster)


PLACES = {
    "memory": _memory,
    "sqlite": _sqlite,
    "redis": _redis,
    "redis with sentinel": _sentinel,
    "redis cluster": _cluster,
}
