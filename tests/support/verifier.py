"""A real mailward-auth-verify for the tests: its configuration, and what it says of itself."""

from __future__ import annotations

import shlex
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from tests.support.processes import Program, free_port, read_samples

ROOT = Path(__file__).parents[2]
CONFIGURATION = """\
authserv_id = "{authserv_id}"

[dns]
nameservers = [{nameservers}]
timeout = "{timeout}"
{dns}

[auth-verify]
socket = "unix:{socket}"
socket_mode = "0666"
metrics = "127.0.0.1:{port}"
workers = {workers}
drain_timeout = "2s"
{settings}
"""


class Verifier(Program):
    """The daemon; `settings` are further lines of its table, `dns` of [dns]. `name` tells several in one folder apart."""

    def __init__(
        self,
        folder: Path,
        settings: str = "",
        *,
        nameservers: Sequence[str],
        authserv_id: str,
        name: str = "auth-verify",
        dns: str = "",
        timeout: str = "500ms",
        workers: int = 1,
    ) -> None:
        self.port = free_port()
        self.socket_path = str(folder / f"{name}.sock")
        self.configuration = folder / f"{name}.toml"
        self.configuration.write_text(
            CONFIGURATION.format(
                authserv_id=authserv_id,
                nameservers=", ".join(f'"{each}"' for each in nameservers),
                dns=dns,
                timeout=timeout,
                socket=self.socket_path,
                port=self.port,
                workers=workers,
                settings=settings,
            )
        )
        command = [sys.executable, "-m", "milters.auth_verify", "--config", str(self.configuration)]
        super().__init__(name, command, folder, is_ready=self.is_serving, working_folder=ROOT)

    def is_serving(self) -> bool:
        """Whether /readyz says yes."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2) as page:
                return bool(page.status == 200)
        except OSError:  # not listening yet, or 503: its workers do not serve yet
            return False

    def metrics(self) -> dict[str, float]:
        """Return every sample of /metrics, without the program's prefix."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as page:
            return read_samples(page.read().decode(), "mailward_auth_verify_")

    def log_lines(self, event: str) -> list[dict[str, str]]:
        """Return the log's lines of one event, as names and values."""
        lines = [line for line in self.output().splitlines() if f" event={event} " in line]
        return [
            {name: value for name, _, value in (word.partition("=") for word in shlex.split(line))} for line in lines
        ]
