"""A postmaster with a folder, for every test of this room that wants one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mailward.adapters import stores
from tests.adapters.stores_support import PLACES
from tests.postmaster.explaining import Postmaster
from tests.postmaster.greylisting import Greylisting
from tests.support.processes import open_folder


@pytest.fixture
def postmaster() -> Iterator[Postmaster]:
    with open_folder() as folder:
        yield Postmaster(folder)


@pytest.fixture(params=["memory", "sqlite"])
def greylisting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Greylisting]:
    """Greylisting's memory in the places that cost nothing to start."""
    with _greylisting(request.param, monkeypatch) as greylisting:
        yield greylisting


@pytest.fixture(params=sorted(PLACES))
def greylisting_anywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Greylisting]:
    """Greylisting's memory in each of the places there are."""
    with _greylisting(request.param, monkeypatch) as greylisting:
        yield greylisting


@contextmanager
def _greylisting(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Greylisting]:
    with open_folder() as folder, PLACES[name]() as place:
        monkeypatch.setattr(stores, "open_greylist", lambda *_arguments: place.open())
        greylisting = Greylisting(folder, place.open)
        yield greylisting
        greylisting.store.close()
