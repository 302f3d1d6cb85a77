"""The policy servers that limit: ours, with each of its stores, and policyd-rate-limit, all with the same three limits.

Nobody reaches them: what is measured is counting. Who needs Redis gets one of its own, which counts as a part of the program. All
begin with an empty memory.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.greylisters import redis_server
from bench.launch import CHECKOUT, fill, milter, started
from tests.support.processes import Program, free_port, require_binary

OURS = """\
state = "{state}"

[policyd]
socket = "unix:{socket}"
socket_mode = "0666"
metrics = "127.0.0.1:{metrics}"
correspondents = "0s"

[policyd.incidents]
mail_to = []
"""
LIMIT = """
[[policyd.limit]]
name = "recipients-{name}"
per = "sasl_username"
count = "recipients"
limit = "1000000/{name}"
"""
WINDOWS = ("1m", "1h", "1d")


@dataclass(frozen=True, slots=True)
class PolicyServer:
    """A running policy server, and the socket it is asked at; `pids` are those of its first processes."""

    program: Program
    socket: Path
    redis: Program | None = None

    @property
    def pids(self) -> Sequence[int]:
        """Return the pids of its first processes."""
        return [program.pid for program in (self.program, self.redis) if program]


@contextmanager
def running(name: str, folder: Path) -> Iterator[PolicyServer]:
    """Run one of POLICY_SERVERS for a while, with an empty memory."""
    socket = folder / "policy.sock"
    socket.unlink(missing_ok=True)  # of the round before
    server = POLICY_SERVERS[name](folder, socket)
    with ExitStack() as stack:
        if server.redis:
            stack.enter_context(started(server.redis))
        stack.enter_context(started(server.program))
        yield server


def mailward(folder: Path, socket: Path) -> PolicyServer:
    """Our daemon, from this checkout; its state is in SQLite, as durable as by default."""
    state = folder / "state"
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir()
    return PolicyServer(_mailward(folder, socket, f"sqlite:{state}"), socket)


def mailward_redis(folder: Path, socket: Path) -> PolicyServer:
    """Our daemon with its state in Redis."""
    port = free_port()
    return PolicyServer(_mailward(folder, socket, f"redis://127.0.0.1:{port}/0"), socket, redis_server(folder, port))


def policyd_rate_limit(folder: Path, socket: Path) -> PolicyServer:
    """policyd-rate-limit with SQLite, its default."""
    database = "mail_count.sqlite3"
    (folder / database).unlink(missing_ok=True)
    configuration = fill("policyd-rate-limit.yaml", folder, {"socket": socket, "database": database})
    command = [require_binary("policyd-rate-limit", "policyd-rate-limit"), "-f", str(configuration)]
    return PolicyServer(milter("policyd-rate-limit", command, folder, socket), socket)


POLICY_SERVERS: Mapping[str, Callable[[Path, Path], PolicyServer]] = {
    "mailward": mailward,
    "mailward, Redis": mailward_redis,
    "policyd-rate-limit": policyd_rate_limit,
}


def _mailward(folder: Path, socket: Path, state: str) -> Program:
    configuration = folder / "mailward.toml"
    text = OURS.format(state=state, socket=socket, metrics=free_port())
    configuration.write_text(text + "".join(LIMIT.format(name=window) for window in WINDOWS))
    command = [sys.executable, "-m", "policyd", "--config", str(configuration)]
    return milter("mailward", command, folder, socket, working_folder=CHECKOUT)
