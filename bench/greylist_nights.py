"""What a night takes away from a greylister, and how: nameservers, Redis, the lock of the SQLite file."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.greylisters import Greylister
from tests.support.nameserver import Nameserver
from tests.support.odd_nameserver import silent
from tests.support.processes import Program, ProgramError
from tests.support.silence import cut_off, silenced

OUTAGE_SECONDS, LOCK_SECONDS = 30.0, 60.0
PEER = "rspamd, Redis"
LOCK = """\
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
"""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is taken away from which program, and for how long."""

    name: str
    title: str
    program: str = "mailward"
    without_dns: bool = False
    without_line: bool = False
    without_redis: bool = False
    is_locked: bool = False
    seconds: float = OUTAGE_SECONDS


SCENARIOS = (
    Scenario("dns", "all nameservers silent", without_dns=True),
    Scenario("line", "the line behind all resolvers lost", without_line=True),
    Scenario("redis", "Redis killed", "mailward, Redis", without_redis=True),
    Scenario("lock", "SQLite file locked", is_locked=True, seconds=LOCK_SECONDS),
    Scenario(
        "dns-lock", "nameservers silent and SQLite locked", without_dns=True, is_locked=True, seconds=LOCK_SECONDS
    ),
    Scenario(
        "dns-redis", "nameservers silent and Redis killed", "mailward, Redis", without_dns=True, without_redis=True
    ),
    Scenario("rspamd-dns", "rspamd: all nameservers silent", PEER, without_dns=True),
)


@contextmanager
def taken_away(
    scenario: Scenario, greylister: Greylister, nameservers: Sequence[Nameserver], folder: Path
) -> Iterator[None]:
    """Take away what the scenario says, for a while."""
    with ExitStack() as stack:
        if scenario.is_locked:
            stack.enter_context(locked(database_in(folder / "state")))
        if scenario.without_redis and greylister.redis:
            stack.enter_context(killed(greylister.redis))
        if scenario.without_dns:
            stack.enter_context(silenced(nameservers))
        if scenario.without_line:
            stack.enter_context(cut_off(nameservers, silent))
        yield


@contextmanager
def killed(program: Program) -> Iterator[None]:
    """Have a program dead for a while."""
    program.signal(signal.SIGKILL)
    yield
    program.restart()


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Have another process hold SQLite's lock for a while."""
    command = [sys.executable, "-c", LOCK, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as locker:
        assert locker.stdin is not None
        assert locker.stdout is not None
        if not locker.stdout.readline():
            raise ProgramError(f"{database} could not be locked")
        yield
        locker.stdin.close()


def database_in(folder: Path) -> Path:
    """Return the one SQLite file of a folder."""
    (path,) = (path for path in folder.iterdir() if path.read_bytes()[:6] == b"SQLite")
    return path
