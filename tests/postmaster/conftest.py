"""A postmaster with a folder, for every test of this room that wants one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.postmaster.explaining import Postmaster
from tests.support.processes import open_folder


@pytest.fixture
def postmaster() -> Iterator[Postmaster]:
    with open_folder() as folder:
        yield Postmaster(folder)
