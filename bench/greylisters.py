"""The programs that greylist: ours, with each of its stores, and its peers, each given the same nameservers.

postgrey is a policy server of Postfix, the others are milters. Who needs Redis gets one of its own, which counts as a part of
the program. A peer's configuration is Debian's default but for what the job needs; its template is in `peers/`. All begin
with an empty memory.
"""

from __future__ import annotations

import os
import shutil
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.launch import CHECKOUT, fill, milter, start_once, started
from bench.verifiers import DNS_PORT
from tests.support.processes import Program, answers_on, free_port, read_samples, require_binary

DELAY_SECONDS = 1  # so that a retry passes within a run
PREFIX = "mailward_greylist_"

OURS = """\
state = "{state}"

[dns]
nameservers = [{nameservers}]

[greylist]
socket = "unix:{socket}"
socket_mode = "0666"
metrics = "{metrics}"
delay = "{delay}s"
{settings}
"""


@dataclass(frozen=True, slots=True)
class Task:
    """The folder a program lives in, the nameservers it asks, at port 53, and how long it defers.

    Ours may get more settings; if it `is_durable`, Redis's memory survives Redis.
    """

    folder: Path
    nameservers: Sequence[str]
    delay: int = DELAY_SECONDS
    settings: str = ""
    is_durable: bool = False


@dataclass(frozen=True, slots=True)
class Greylister:
    """A running greylister, and the socket it takes messages on; `pids` are those of its first processes.

    `deferrals` and `passes` are how a last reply begins that defers, or lets the message go on.
    """

    program: Program
    socket: Path
    redis: Program | None
    deferrals: Sequence[str]
    passes: Sequence[str] = ("a", "c")
    is_policy: bool = False
    metrics_address: str = ""

    @property
    def pids(self) -> Sequence[int]:
        """Return the pids of its first processes."""
        return [program.pid for program in (self.program, self.redis) if program]

    def metrics(self) -> dict[str, float]:
        """Return every sample of /metrics, without the program's prefix (ours only)."""
        with urllib.request.urlopen(f"http://{self.metrics_address}/metrics", timeout=10) as page:
            return read_samples(page.read().decode(), PREFIX)


@contextmanager
def running(name: str, task: Task) -> Iterator[Greylister]:
    """Run one of GREYLISTERS for a while; a first start in its folder is not measured: rspamd compiles then."""
    start_once(task.folder, lambda: _started(name, task))
    with _started(name, task) as greylister:
        yield greylister


def redis_server(folder: Path, port: int, *, is_durable: bool = False) -> Program:
    """Redis; without snapshots, so that no run of fork() falls into one round and not into another.

    If it `is_durable` it appends what it is told to a file.
    """
    command = [require_binary("redis-server", "redis-server"), "--port", str(port), "--bind", "127.0.0.1"]
    command += [
        "--dir",
        str(folder),
        "--save",
        "",
        "--appendonly",
        "yes" if is_durable else "no",
        "--logfile",
        str(folder / "redis.log"),
    ]
    return Program("redis", command, folder, is_ready=lambda: answers_on(port))


def mailward(task: Task, socket: Path) -> Greylister:
    """Our daemon, from this checkout, with its defaults; its state is in SQLite."""
    state = task.folder / "state"
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir()
    return _mailward(task, socket, f"sqlite:{state}", None)


def mailward_redis(task: Task, socket: Path) -> Greylister:
    """Our daemon with its state in Redis."""
    port = free_port()
    return _mailward(
        task, socket, f"redis://127.0.0.1:{port}/0", redis_server(task.folder, port, is_durable=task.is_durable)
    )


def postgrey(task: Task, socket: Path) -> Greylister:
    """postgrey, with the account that runs us, so that it can write into this folder; it logs to syslog."""
    database = task.folder / "database"
    shutil.rmtree(database, ignore_errors=True)
    database.mkdir()
    command = [
        require_binary("postgrey", "postgrey"),
        f"--unix={socket}",
        f"--dbdir={database}",
        f"--delay={task.delay}",
    ]
    program = milter("postgrey", [*command, "--user=root", "--group=root"], task.folder, socket)
    return Greylister(program, socket, None, ("DEFER_IF_PERMIT",), ("DUNNO", "PREPEND"), is_policy=True)


def rspamd(task: Task, socket: Path) -> Greylister:
    """rspamd with its greylist module; it logs to a file. As root it insists on `-i` to stay root."""
    port = free_port()
    names = ", ".join(f'"{address}:{DNS_PORT}"' for address in task.nameservers)
    values = {"socket": socket, "nameservers": names, "redis": f"127.0.0.1:{port}", "delay": task.delay}
    configuration = fill("rspamd-greylist.conf", task.folder, values)
    as_root = ["-i"] if os.geteuid() == 0 else []
    command = [require_binary("rspamd", "rspamd"), "-f", *as_root, "-c", str(configuration)]
    program = milter("rspamd", command, task.folder, socket)
    return Greylister(program, socket, redis_server(task.folder, port), ("451 4.7.1",))


GREYLISTERS: Mapping[str, Callable[[Task, Path], Greylister]] = {
    "mailward": mailward,
    "mailward, Redis": mailward_redis,
    "postgrey": postgrey,
    "rspamd, Redis": rspamd,
}


@contextmanager
def _started(name: str, task: Task) -> Iterator[Greylister]:
    socket = task.folder / "greylist.sock"
    socket.unlink(missing_ok=True)  # of the round before
    greylister = GREYLISTERS[name](task, socket)
    with ExitStack() as stack:
        if greylister.redis:
            stack.enter_context(started(greylister.redis))
        stack.enter_context(started(greylister.program))
        yield greylister


def _mailward(task: Task, socket: Path, state: str, redis: Program | None) -> Greylister:
    names = ", ".join(f'"{address}:{DNS_PORT}"' for address in task.nameservers)
    metrics = f"127.0.0.1:{free_port()}"
    text = OURS.format(
        state=state, nameservers=names, socket=socket, metrics=metrics, delay=task.delay, settings=task.settings
    )
    configuration = task.folder / "mailward.toml"
    configuration.write_text(text)
    command = [sys.executable, "-m", "milters.greylist", "--config", str(configuration)]
    program = milter("mailward", command, task.folder, socket, working_folder=CHECKOUT)
    return Greylister(program, socket, redis, ("450 4.7.1",), metrics_address=metrics)
