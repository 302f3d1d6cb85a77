"""The daemons and the Prometheus that all tests of this folder look at; test_prometheus.py, the last of them, breaks them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.examples.suite import Suite, open_suite
from tests.support.processes import open_folder


@pytest.fixture(scope="package")
def suite() -> Iterator[Suite]:
    with open_folder() as folder, open_suite(folder) as running:
        yield running
