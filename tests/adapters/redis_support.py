"""What the tests of the Redis store share; the fixture `open_redis` is an OpenRedis."""

from __future__ import annotations

from collections.abc import Callable

from mailward.adapters.redis_greylist import RedisGreylist
from mailward.model.greylist import Triplet, Windows

PATIENCE = 10.0  # the budget where an answer is expected, and the machine may be busy
MARGIN = 2.0
WINDOWS = Windows()
TRIPLET = Triplet("192.0.2.0/24", "alice@example.com", "bob@example.org")

OpenRedis = Callable[..., RedisGreylist]
