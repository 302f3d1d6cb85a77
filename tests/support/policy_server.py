"""A real mailward-policyd for the tests: its configuration, what it says of itself, a client, and the operator's command."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from mailward.adapters.stores import open_limits
from mailward.model.accounts import Account
from mailward.model.limits import KNOWN
from mailward.model.ports import LimitRecords
from mailward.model.state import Durability
from mailward.policy.ratelimit import rings_of
from mailward.settings.state import read_state
from tests.support.daemon import Daemon
from tests.support.postfix import is_running
from tests.support.processes import ProgramError, free_port, read_text, run, wait_until

ROOT = Path(__file__).parents[2]
MAX_REPLY = 4096
STORE_SECONDS = 10.0  # of a test that looks into the state of a busy daemon
CONFIGURATION = """\
authserv_id = "mx.example.com"
state = "{state}"

[policyd]
socket = "unix:{socket}"
socket_mode = "0666"
metrics = "127.0.0.1:{port}"
drain_timeout = "2s"
{settings}
"""


class PolicyServer(Daemon):
    """The daemon; `settings` are further lines of its table, and tables. `name` tells several in one folder apart.

    `state` is a folder of its own in SQLite unless it is given.
    """

    prefix = "mailward_policyd_"

    def __init__(self, folder: Path, settings: str = "", *, name: str = "policyd", state: str = "") -> None:
        self.port = free_port()
        self.state_folder = folder / f"{name}-state"
        if not state:
            self.state_folder.mkdir(exist_ok=True)
        self.state = state or f"sqlite:{self.state_folder}"
        self.socket_path = folder / f"{name}.sock"
        self.configuration = folder / f"{name}.toml"
        self.configure(settings)
        command = [sys.executable, "-m", "policyd", "--config", str(self.configuration)]
        super().__init__(name, command, folder, is_ready=self.is_serving, working_folder=ROOT)

    def configure(self, settings: str) -> None:
        """Write the configuration; a running daemon reads it on HUP."""
        values = {"state": self.state, "socket": self.socket_path, "port": self.port, "settings": settings}
        self.configuration.write_text(CONFIGURATION.format(**values))

    def order(self, *words: str) -> str:
        """Run `mailward limits WORDS` on the daemon's state, and return what it prints."""
        return run([sys.executable, "-m", "postmaster", "limits", *words, "--config", str(self.configuration)])

    def ordered(self, *words: str) -> Any:
        """Run `mailward limits WORDS --json`, and return what that is."""
        return json.loads(self.order(*words, "--json"))

    def amounts(self, owner: str) -> dict[str, int]:
        """Return what is counted of an owner in the state, by the limit's name; of each in its longest window."""
        with self.records() as records:
            kept = {each.key.limit: rings_of(each.value) for each in records.counters(owner) if each.key.limit != KNOWN}
        return {limit: int(sum(amount for _, amount in rings[max(rings)])) for limit, rings in kept.items() if rings}

    def account(self, name: str) -> Account:
        """Return an account as it is in the state."""
        with self.records() as records:
            return records.account(name)

    @contextmanager
    def records(self) -> Iterator[LimitRecords]:
        """Open the state beside the daemon."""
        records = open_limits(read_state(self.state).state, Durability.PROCESS, STORE_SECONDS)
        try:
            yield records
        finally:
            records.close()

    def ask(self, **attributes: str) -> str:
        """Ask one question on a connection of its own; return the action."""
        with PolicyClient(self.socket_path) as client:
            return client.ask(**attributes)

    def processes(self) -> list[int]:
        """Return the pids of its processes, the first one's first."""
        children = read_text(Path(f"/proc/{self.pid}/task/{self.pid}/children"))
        return [self.pid, *sorted(int(child) for child in children.split())]

    def kill(self) -> None:
        """End all of it at once, by KILL."""
        pids = self.processes()
        for pid in pids:
            with suppress(ProcessLookupError):  # it ends with the first one
                os.kill(pid, signal.SIGKILL)
        self.stop()
        wait_until(lambda: not any(is_running(pid) for pid in pids), f"all of {self.name} to be gone")

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Have it accept connections and answer nothing, by STOP."""
        pids = self.processes()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in reversed(pids):
                os.kill(pid, signal.SIGCONT)

    def log_lines(self, event: str) -> list[dict[str, str]]:
        """Return the log's lines of one event, as names and values."""
        lines = [line for line in self.output().splitlines() if f" event={event} " in f"{line} "]
        return [
            {name: value for name, _, value in (word.partition("=") for word in shlex.split(line))} for line in lines
        ]

    def wait_for_log(self, event: str, **fields: str) -> dict[str, str]:
        """Wait for a line of the log with these fields, and return it."""

        def found() -> list[dict[str, str]]:
            return [line for line in self.log_lines(event) if fields.items() <= line.items()]

        wait_until(lambda: bool(found()), f"event={event} {fields} in the log of {self.name}")
        return found()[0]


class PolicyClient:
    """Speaks Postfix's policy protocol on one connection, one request at a time, as an smtpd does."""

    def __init__(self, path: Path, *, seconds: float = 30.0) -> None:
        self._connection = socket.socket(socket.AF_UNIX)
        try:
            self._connection.settimeout(seconds)
            self._connection.connect(str(path))
        except OSError:
            self._connection.close()
            raise
        self._replies = self._connection.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, **attributes: str) -> str:
        """Ask with these attributes beside those of any request; return the action. ProgramError where no answer comes."""
        try:
            self._connection.sendall(request(attributes))
            line, end = self._replies.readline(MAX_REPLY), self._replies.readline(MAX_REPLY)
        except OSError as error:
            raise ProgramError(f"no answer: {error}") from None
        if not line.startswith(b"action=") or end != b"\n":
            raise ProgramError(f"no answer but {line + end!r}")
        return line.removeprefix(b"action=").removesuffix(b"\n").decode()

    def close(self) -> None:
        """Leave."""
        self._replies.close()
        self._connection.close()


def request(attributes: Mapping[str, str]) -> bytes:
    r"""Return a request as Postfix 3.7 sends it at RCPT, but for these attributes.

    >>> request({"sender": "a@example.com"}).startswith(b"request=smtpd_access_policy\nprotocol_state=RCPT\n")
    True
    """
    usual = {
        "request": "smtpd_access_policy",
        "protocol_state": "RCPT",
        "protocol_name": "ESMTP",
        "client_address": "192.0.2.25",
        "client_name": "client.example",
        "client_port": "40000",
        "reverse_client_name": "client.example",
        "server_address": "127.0.0.1",
        "server_port": "587",
        "helo_name": "client.example",
        "sender": "",
        "recipient": "",
        "recipient_count": "0",
        "queue_id": "",
        "instance": "",
        "size": "0",
        "etrn_domain": "",
        "stress": "",
        "sasl_method": "",
        "sasl_username": "",
        "sasl_sender": "",
        "ccert_subject": "",
        "ccert_issuer": "",
        "ccert_fingerprint": "",
        "ccert_pubkey_fingerprint": "",
        "encryption_protocol": "",
        "encryption_cipher": "",
        "encryption_keysize": "0",
        "policy_context": "submission",
    }
    lines = [f"{name}={value}\n" for name, value in {**usual, **attributes}.items()]
    return "".join([*lines, "\n"]).encode()
