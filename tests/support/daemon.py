"""A daemon of ours as a test sees it from outside: by its status server."""

from __future__ import annotations

import http.client
from typing import ClassVar

from tests.support.processes import Program, read_samples


class Daemon(Program):
    """A program whose status server listens at `port` of 127.0.0.1; whoever starts one knows both."""

    port: int
    prefix: ClassVar[str]  # what the names of its metrics begin with

    def is_serving(self) -> bool:
        """Whether /readyz says yes."""
        return self.get("/readyz")[0] == 200

    def get(self, path: str, *, method: str = "GET") -> tuple[int, str]:
        """Ask the status server; status 0 where it does not answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            connection.close()

    def metrics(self) -> dict[str, float]:
        """Return every sample of /metrics, without the program's prefix; empty where it does not answer."""
        return read_samples(self.get("/metrics")[1], self.prefix)
