"""A real Prometheus that scrapes what its configuration says, and promtool; both are in Debian's package `prometheus`."""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.support.processes import Program, ProgramError, free_port, require_binary, run

PACKAGE = "prometheus"


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of a query's result."""

    labels: dict[str, str]
    value: float


class Prometheus(Program):
    """The server; `configuration` is its file, which names its rule files relative to itself."""

    def __init__(self, folder: Path, configuration: Path) -> None:
        self.port = free_port()
        command = [
            require_binary("prometheus", PACKAGE),
            f"--config.file={configuration}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]
        super().__init__("prometheus", command, folder, is_ready=self._is_ready)

    def query(self, expression: str) -> list[Sample]:
        """Return the samples of an instant query, as it is now. ProgramError where it is wrong."""
        found = self._ask("/api/v1/query", query=expression)
        if found["resultType"] == "scalar":
            return [Sample({}, float(found["result"][1]))]
        return [Sample(each["metric"], float(each["value"][1])) for each in found["result"]]

    def number(self, expression: str) -> float:
        """Return the one number of a query; 0 where there is none."""
        samples = self.query(expression)
        assert len(samples) <= 1, samples
        return samples[0].value if samples else 0.0

    def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts that are pending or firing."""
        found: list[dict[str, Any]] = self._ask("/api/v1/alerts")["alerts"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        """Return all rules, as they are evaluated."""
        groups = self._ask("/api/v1/rules")["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def _is_ready(self) -> bool:
        try:
            return self._get("/-/ready")[0] == 200
        except OSError:
            return False

    def _ask(self, path: str, **arguments: str) -> Any:
        status, text = self._get(f"{path}?{urlencode(arguments)}")
        answer = json.loads(text)
        if answer["status"] != "success":
            raise ProgramError(f"{arguments}: {status}, {answer.get('error')}")
        return answer["data"]

    def _get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()


def promtool(*words: str | Path) -> str:
    """Run promtool; ProgramError with its own words where it finds something wrong."""
    command: Sequence[str] = [require_binary("promtool", PACKAGE), *map(str, words)]
    return run(command, seconds=300)
