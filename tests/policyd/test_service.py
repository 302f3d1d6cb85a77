"""A worker's reload: what has been read last holds, from the beginning on, and what goes wrong with it is told."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
import structlog

from mailward.adapters.memory_counters import MemoryLimits
from mailward.adapters.memory_greylist import MemoryGreylist
from mailward.daemon.metrics import Row
from mailward.daemon.program import Notes, WorkerTools
from mailward.settings.policyd import Settings
from mailward.settings.values import DomainName
from policyd.__main__ import read_configured
from policyd.service import Configured, PolicyService, Stores
from tests.policyd.incident_support import Numbers


class Service:
    """A service that does not serve, what it reads at a reload, and what it logs."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.names: list[tuple[str, ...]] = []
        self.failure: Exception | None = None
        self.configured = read_configured(Settings(authserv_id=DomainName("mx.example.net")))
        log: Any = structlog.wrap_logger(structlog.PrintLogger(io.StringIO()), processors=[self._keep])
        tools = WorkerTools(cast(Row, Numbers()), cast(Notes, None), log, name_values=self._name)
        stores = Stores(MemoryLimits, MemoryGreylist, 0.5)
        self.service = PolicyService(self.configured, lambda: self.read, stores, 10, tools)
        self.read: Configured = self.configured

    def _keep(self, _logger: object, level: str, event: Any) -> Any:
        self.lines.append({**event, "level": level})
        raise structlog.DropEvent

    def _name(self, _label: str, names: Sequence[str]) -> None:
        self.names.append(tuple(names))
        if self.failure is not None:
            raise self.failure

    def reload(self, *names: str) -> None:
        self.read = replace(self.configured, limits=names)
        self.service.reload()


@pytest.fixture
def service() -> Service:
    return Service()


def test_what_is_read_before_the_loop_begins_holds_from_its_beginning_on(service: Service) -> None:
    service.reload("first")
    service.reload("second")
    assert not service.names, "that is for the loop's thread"
    service.service._take_configuration()
    service.service._take_configuration()
    assert service.names == [("second",)]
    assert service.service._configured.limits == ("second",)


def test_a_reload_that_fails_is_told_and_the_next_one_is_done(service: Service) -> None:
    service.failure = RuntimeError("a bug")
    service.reload("first")
    service.service._take_configuration()
    assert service.service._configured is service.configured
    assert [(line["level"], line["event"]) for line in service.lines] == [("error", "reload-failed")]
    service.failure = None
    service.reload("second")
    service.service._take_configuration()
    assert service.service._configured.limits == ("second",)
