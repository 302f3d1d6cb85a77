"""Opening the store that the configuration names; the one place that knows which kinds there are.

Only the kind that is named is imported: redis-py alone is 10 MB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from mailward.model.errors import ConfigError, Mistake
from mailward.model.ports import CorrespondentStore, GreylistRecords, LimitRecords
from mailward.model.state import Durability, MemoryState, RedisState, SqliteState, State

Opener = Callable[[Durability, float], GreylistRecords]
LimitsOpener = Callable[[Durability, float], LimitRecords]
CorrespondentsOpener = Callable[[Durability, float], CorrespondentStore]


def greylist_opener(state: State) -> Opener:
    """Return what opens greylisting's memory, given how durable it is and how many seconds a call may take, about.

    Called before the fork, so that all workers share what it imports; what it returns, in the process that uses the store.
    Neither raises for what is away or broken: the store's methods do, which connect at their first use. Both raise ConfigError
    where the library that the state needs is not installed.
    """
    match state:
        case SqliteState():
            from mailward.adapters.sqlite_greylist import SqliteGreylist

            return partial(SqliteGreylist, state.folder)
        case RedisState():
            with _redis_py():
                from mailward.adapters.redis_greylist import RedisGreylist

            return lambda _durability, timeout: RedisGreylist(state, timeout)
        case MemoryState():
            from mailward.adapters.memory_greylist import MemoryGreylist

            return lambda _durability, _timeout: MemoryGreylist()


def open_greylist(state: State, durability: Durability, timeout: float) -> GreylistRecords:
    """Open greylisting's memory; each call of it takes at most about `timeout` seconds."""
    return greylist_opener(state)(durability, timeout)


def limits_opener(state: State) -> LimitsOpener:
    """Return what opens the counters and accounts of policyd, likewise."""
    match state:
        case SqliteState():
            from mailward.adapters.sqlite_counters import SqliteLimits

            return partial(SqliteLimits, state.folder)
        case RedisState():
            with _redis_py():
                from mailward.adapters.redis_counters import RedisLimits

            return lambda _durability, timeout: RedisLimits(state, timeout)
        case MemoryState():
            from mailward.adapters.memory_counters import MemoryLimits

            return lambda _durability, _timeout: MemoryLimits()


def open_limits(state: State, durability: Durability, timeout: float) -> LimitRecords:
    """Open the counters and accounts of policyd; each call takes at most about `timeout` seconds."""
    return limits_opener(state)(durability, timeout)


def correspondents_opener(state: State) -> CorrespondentsOpener:
    """Return what opens the memory of whom somebody here has written to, for who records it; likewise."""
    if isinstance(state, SqliteState):
        from mailward.adapters.sqlite_correspondents import SqliteCorrespondents

        return partial(SqliteCorrespondents, state.folder)
    return greylist_opener(state)


@contextmanager
def _redis_py() -> Iterator[None]:
    """Say what is to be installed where redis-py is not: the packages only suggest it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "redis":
            raise
        expected = "for Redis or Valkey install redis-py: apt-get install python3-redis"
        raise ConfigError([Mistake("", "state", expected)]) from None
