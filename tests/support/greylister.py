"""A real mailward-greylist for the tests: its configuration, what it says of itself, and the operator's command beside it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.daemon import Daemon
from tests.support.processes import free_port, read_text, run

ROOT = Path(__file__).parents[2]
AUTHSERV_ID = "mx.receiver.example"
CONFIGURATION = """\
authserv_id = "{authserv_id}"
state = "{state}"

[dns]
nameservers = [{nameservers}]
timeout = "500ms"
{dns}

[greylist]
socket = "unix:{socket}"
socket_mode = "0666"
metrics = "127.0.0.1:{port}"
workers = {workers}
drain_timeout = "2s"
{settings}
"""


class Greylister(Daemon):
    """The daemon; `settings` are further lines of its table, `dns` of [dns]. `name` tells several in one folder apart.

    `state` is a folder of its own in SQLite unless it is given.
    """

    prefix = "mailward_greylist_"

    def __init__(
        self,
        folder: Path,
        settings: str = "",
        *,
        nameservers: Sequence[str],
        name: str = "greylist",
        state: str = "",
        dns: str = "",
        workers: int = 1,
    ) -> None:
        self.port = free_port()
        self.state_folder = folder / f"{name}-state"
        if not state:
            self.state_folder.mkdir(exist_ok=True)
        self.socket_path = str(folder / f"{name}.sock")
        self.configuration = folder / f"{name}.toml"
        self._values = {
            "authserv_id": AUTHSERV_ID,
            "state": state or f"sqlite:{self.state_folder}",
            "nameservers": ", ".join(f'"{each}"' for each in nameservers),
            "dns": dns,
            "socket": self.socket_path,
            "port": self.port,
            "workers": workers,
        }
        self.configure(settings)
        command = [sys.executable, "-m", "milters.greylist", "--config", str(self.configuration)]
        super().__init__(name, command, folder, is_ready=self.is_serving, working_folder=ROOT)

    def configure(self, settings: str) -> None:
        """Write the configuration; a running daemon reads it on HUP."""
        self.configuration.write_text(CONFIGURATION.format(settings=settings, **self._values))

    def order(self, *words: str) -> str:
        """Run `mailward greylist WORDS` on the daemon's state, and return what it prints."""
        return run([sys.executable, "-m", "postmaster", "greylist", *words, "--config", str(self.configuration)])

    def workers(self) -> list[int]:
        """Return the pids of the workers."""
        children = read_text(Path(f"/proc/{self.pid}/task/{self.pid}/children"))
        return sorted(int(child) for child in children.split())

    def log_lines(self, event: str) -> list[dict[str, str]]:
        """Return the log's lines of one event, as names and values."""
        lines = [line for line in self.output().splitlines() if f" event={event} " in f"{line} "]
        return [
            {name: value for name, _, value in (word.partition("=") for word in shlex.split(line))} for line in lines
        ]
