"""What several tests share: the stores' places, whose servers start once for all of them; nameservers and a resolver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mailward.adapters.redis_greylist import RedisGreylist
from mailward.model.state import RedisState
from tests.adapters.redis_support import PATIENCE, OpenRedis
from tests.adapters.resolver_support import Start, Watch, Watched
from tests.adapters.stores_support import PLACES, Place
from tests.support.odd_nameserver import OddNameserver, Reply, found
from tests.support.processes import open_folder, wait_until


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder that daemons and other accounts may walk through."""
    with open_folder() as made:
        yield made


@pytest.fixture
def open_redis() -> Iterator[OpenRedis]:
    """Return a function that opens a store with a budget; all are closed afterwards."""
    with ExitStack() as stack:

        def open_store(state: RedisState, budget: float = PATIENCE) -> RedisGreylist:
            store = RedisGreylist(state, budget)
            stack.callback(store.close)
            return store

        yield open_store


@pytest.fixture(scope="session", params=PLACES.keys())
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with PLACES[request.param]() as opened:
        yield opened


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def serve(stack: ExitStack) -> Start:
    def start(reply: Reply = found, **options: Reply) -> OddNameserver:
        return stack.enter_context(OddNameserver(reply, **options))  # type: ignore[arg-type]

    return start


@pytest.fixture
def watch(stack: ExitStack) -> Watch:
    """Return a function that starts a resolver; it returns once every server has had its first control question."""

    def start(*servers: OddNameserver, **options: Any) -> Watched:
        asked = [len(server.control_questions) for server in servers]
        watched = Watched(*servers, **options)
        stack.callback(watched.resolver.close)
        running = [(server, before) for server, before in zip(servers, asked, strict=True) if server.is_running]
        wait_until(
            lambda: all(len(server.control_questions) > before for server, before in running), "the control questions"
        )
        return watched

    return start
