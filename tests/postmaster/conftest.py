"""A postmaster with a folder, for every test of this room that wants one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mailward.adapters import stores
from postmaster.limits import opening
from tests.adapters.stores_support import PLACES
from tests.postmaster.explaining import Postmaster
from tests.postmaster.greylisting import Greylisting
from tests.postmaster.limiting import Limiting
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


@pytest.fixture(params=["memory", "sqlite"])
def limiting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Limiting]:
    """The state of policyd in the places that cost nothing to start."""
    with _limiting(request.param, monkeypatch) as limiting:
        yield limiting


@pytest.fixture(params=sorted(PLACES))
def limiting_anywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Limiting]:
    """The state of policyd in each of the places there are."""
    with _limiting(request.param, monkeypatch) as limiting:
        yield limiting


@contextmanager
def _limiting(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Limiting]:
    with open_folder() as folder, PLACES[name]() as place:
        limiting = Limiting(folder, place.open_limits)
        monkeypatch.setattr(opening, "open_limits", lambda *_arguments: place.open_limits())
        yield limiting
        limiting.store.close()


@contextmanager
def _greylisting(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Greylisting]:
    with open_folder() as folder, PLACES[name]() as place:
        monkeypatch.setattr(stores, "open_greylist", lambda *_arguments: place.open())
        greylisting = Greylisting(folder, place.open)
        yield greylisting
        greylisting.store.close()
