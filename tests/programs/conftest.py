"""Fixtures for tests of real daemons."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.programs.signer import Signer
from tests.support.processes import open_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as path:
        yield path


@pytest.fixture
def start_signer(folder: Path) -> Iterator[Callable[..., Signer]]:
    """Return a function that starts a signer; all are stopped afterwards."""
    with ExitStack() as stack:

        def start(settings: str = "", **options: object) -> Signer:
            signer = Signer(folder, settings, **options)  # type: ignore[arg-type]
            signer.start()
            stack.callback(signer.stop)
            return signer

        yield start
