"""The places that the stores' tests share: servers start once for all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.adapters.stores_support import PLACES, Place


@pytest.fixture(scope="session", params=PLACES.keys())
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with PLACES[request.param]() as opened:
        yield opened
