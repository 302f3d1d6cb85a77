"""A real mailward-dkim-sign for the tests, with keys and configuration of its own, and what it says of itself."""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path

from mailward.auth.keys import generate_ed25519, generate_rsa
from tests.support.daemon import Daemon
from tests.support.milter_client import MilterSession, Outcome
from tests.support.processes import free_port, read_text

ROOT = Path(__file__).parents[2]
FIELDS = [(b"From", b" a@example.com"), (b"To", b" b@example.net"), (b"Subject", b" hi\n there")]

HAND_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


class Signer(Daemon):
    """The daemon; `settings` are further lines of its table."""

    prefix = "mailward_dkim_sign_"

    def __init__(self, folder: Path, settings: str = "", *, listening: socket.socket | None = None) -> None:
        self.port = free_port()
        self.socket_path = str(folder / "dkim-sign.sock")
        self.config = folder / "mailward.toml"
        (folder / "conf.d").mkdir(exist_ok=True)
        for name, key in (("rsa", generate_rsa(1024)), ("ed", generate_ed25519())):
            path = folder / f"{name}.pem"
            if not path.exists():
                path.write_bytes(key.to_pem())
                path.chmod(0o600)
        self.configure(folder, settings)
        command = [sys.executable, "-m", "milters.dkim_sign", "--config", str(self.config)]
        if listening is not None:  # as systemd hands a socket over (sd_listen_fds(3))
            command = [sys.executable, "-c", HAND_OVER, str(listening.fileno()), *command]
        descriptors = () if listening is None else (listening.fileno(),)
        super().__init__(
            "dkim-sign", command, folder, is_ready=self.is_serving, working_folder=ROOT, descriptors=descriptors
        )

    def send(self, fields: list[tuple[bytes, bytes]]) -> Outcome:
        """Send one message from a listed network."""
        session = MilterSession(self.socket_path)
        session.connect()
        outcome = session.message(fields)
        session.close()
        return outcome

    def sign(self, fields: list[tuple[bytes, bytes]] = FIELDS) -> list[bytes]:
        """Send one message; return the signatures it gets, the topmost first."""
        outcome = self.send(fields)
        assert outcome.reply == "a", outcome
        return outcome.inserted()

    def configure(self, folder: Path, settings: str = "", key: str = "rsa.pem") -> None:
        """Write the configuration; a running daemon reads it on HUP."""
        self.config.write_text(
            f'[dns]\nnameservers = ["127.0.0.1:1"]\ntimeout = "50ms"\n'
            f'[dkim-sign]\nsocket = "unix:{self.socket_path}"\nmetrics = "127.0.0.1:{self.port}"\n'
            f'networks = ["192.0.2.0/24"]\nworkers = 3\n{settings}\n'
            f'[[dkim-sign.domain]]\nname = "example.com"\nsubdomains = true\n'
            f'keys = [ {{ selector = "rsa", file = "{folder}/{key}" }}, {{ selector = "ed", file = "{folder}/ed.pem" }} ]\n'
        )

    def workers(self) -> list[int]:
        """Return the pids of the workers."""
        return children(self.pid)

    def log_lines(self, event: str) -> list[str]:
        """Return the log's lines of one event."""
        return [line for line in read_text(self.output_path).splitlines() if re.search(rf"\bevent={event}\b", line)]


def children(pid: int) -> list[int]:
    """Return the pids of a process's children."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
