"""The programs that sign: ours and its peers, each made to do the same job.

A peer's configuration is Debian's default but for what the job needs; its template is in `peers/`.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.keys import Key
from bench.launch import CHECKOUT, fill, milter, start_once, started
from tests.support.processes import Program, ProgramError, free_port, require_binary, wait_until

RELOAD_SECONDS = 60.0
GENERATION = re.compile(r"^mailward_dkim_sign_generation(?:\{[^}]*\})? ([0-9.e+]+)$", re.MULTILINE)

OURS = """\
[dns]
nameservers = ["{nameserver}"]
timeout = "2s"

[dkim-sign]
socket = "unix:{socket}"
socket_mode = "0666"
metrics = "{metrics}"
networks = ["192.0.2.0/24"]
"""
OUR_DOMAIN = """
[[dkim-sign.domain]]
name = "{domain}"
keys = [ {keys} ]
"""
OUR_KEY = '{{ selector = "{selector}", file = "{file}" }}'


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be signed and how: one domain with its keys, or (ours only) a table of many domains."""

    folder: Path
    domain: str
    keys: Sequence[Key]
    nameserver: str
    table: Path | None = None


class Signer:
    """A running signer, with the socket it takes messages on."""

    def __init__(self, program: Program, socket: Path, metrics: str | None = None) -> None:
        self._program = program
        self._metrics = metrics
        self.socket = socket

    @property
    def pid(self) -> int:
        """Return the pid of its first process."""
        return self._program.pid

    def reload(self) -> float:
        """Reload the configuration (ours only); return the seconds until the new generation serves."""
        before, started = self._generation(), time.monotonic()
        self._program.signal(signal.SIGHUP)
        wait_until(lambda: self._generation() != before, "a new generation", seconds=RELOAD_SECONDS)
        return time.monotonic() - started

    def _generation(self) -> float:
        with urllib.request.urlopen(f"http://{self._metrics}/metrics", timeout=10) as response:
            found = GENERATION.search(response.read().decode("utf-8"))
        if found is None:
            raise ProgramError("no mailward_dkim_sign_generation in /metrics")
        return float(found.group(1))


@contextmanager
def running(name: str, task: Task) -> Iterator[Signer]:
    """Run one of SIGNERS for a while; a first start in its folder is not measured: rspamd compiles then."""
    start_once(task.folder, lambda: _started(name, task))
    with _started(name, task) as signer:
        yield signer


def mailward(task: Task) -> tuple[Program, Signer]:
    """Our daemon, from this checkout, with its default number of workers; its log goes to a file."""
    socket, metrics = task.folder / "sign.sock", f"127.0.0.1:{free_port()}"
    text = OURS.format(nameserver=task.nameserver, socket=socket, metrics=metrics)
    if task.table:
        text += f'table = "{task.table}"\n'
    else:
        keys = ", ".join(OUR_KEY.format(selector=key.selector, file=key.file) for key in task.keys)
        text += OUR_DOMAIN.format(domain=task.domain, keys=keys)
    configuration = task.folder / "mailward.toml"
    configuration.write_text(text)
    command = [sys.executable, "-m", "milters.dkim_sign", "--config", str(configuration)]
    program = milter("mailward", command, task.folder, socket, working_folder=CHECKOUT)
    return program, Signer(program, socket, metrics)


def opendkim(task: Task) -> tuple[Program, Signer]:
    """OpenDKIM; it logs to syslog."""
    socket = task.folder / "sign.sock"
    configuration = _fill("opendkim.conf", task, socket)
    command = [require_binary("opendkim", "opendkim"), "-f", "-x", str(configuration)]
    return _peer("opendkim", command, task, socket)


def rspamd(task: Task) -> tuple[Program, Signer]:
    """rspamd; it logs to a file. As root it insists on `-i` to stay root."""
    socket = task.folder / "sign.sock"
    configuration = _fill("rspamd.conf", task, socket)
    as_root = ["-i"] if os.geteuid() == 0 else []
    command = [require_binary("rspamd", "rspamd"), "-f", *as_root, "-c", str(configuration)]
    return _peer("rspamd", command, task, socket)


def dkimpy_milter(task: Task) -> tuple[Program, Signer]:
    """dkimpy-milter; it logs to syslog, and does not overwrite a pid file."""
    socket = task.folder / "sign.sock"
    (task.folder / "dkimpy-milter.pid").unlink(missing_ok=True)
    configuration = _fill("dkimpy-milter.conf", task, socket)
    command = [require_binary("dkimpy-milter", "dkimpy-milter"), str(configuration)]
    return _peer("dkimpy-milter", command, task, socket)


SIGNERS: Mapping[str, Callable[[Task], tuple[Program, Signer]]] = {
    "mailward": mailward,
    "opendkim": opendkim,
    "rspamd": rspamd,
    "dkimpy-milter": dkimpy_milter,
}


@contextmanager
def _started(name: str, task: Task) -> Iterator[Signer]:
    program, signer = SIGNERS[name](task)
    with started(program):
        yield signer


def _peer(name: str, command: Sequence[str], task: Task, socket: Path) -> tuple[Program, Signer]:
    socket.unlink(missing_ok=True)  # of the round before
    program = milter(name, command, task.folder, socket)
    return program, Signer(program, socket)


def _fill(template: str, task: Task, socket: Path) -> Path:
    values = {
        "socket": socket,
        "domain": task.domain,
        "selector": task.keys[0].selector,
        "key": shutil.copy(task.keys[0].file, task.folder / "signing.pem"),
        "nameserver": task.nameserver,
        "user": f"{pwd.getpwuid(os.geteuid()).pw_name}:{grp.getgrgid(os.getegid()).gr_name}",
    }
    return fill(template, task.folder, values)
