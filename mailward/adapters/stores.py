"""Opening the store that the configuration names; the one place that knows which kinds there are.

Each kind is imported where it is opened: redis-py alone is 10 MB in every worker.
"""

from __future__ import annotations

from mailward.model.ports import GreylistRecords
from mailward.model.state import Durability, MemoryState, RedisState, SqliteState, State


def open_greylist(state: State, durability: Durability, timeout: float) -> GreylistRecords:
    """Open greylisting's memory; each call of it takes at most about `timeout` seconds. Connects at the first use.

    Called in the process that uses it, after the fork. Never raises for what is away or broken: the store's methods do.
    """
    match state:
        case SqliteState():
            from mailward.adapters.sqlite_greylist import SqliteGreylist

            return SqliteGreylist(state.folder, durability, timeout)
        case RedisState():
            from mailward.adapters.redis_greylist import RedisGreylist

            return RedisGreylist(state, timeout)
        case MemoryState():
            from mailward.adapters.memory_greylist import MemoryGreylist

            return MemoryGreylist()
