"""The programs that verify: ours and its peers, each given the same nameservers and made to write its results.

OpenDKIM and OpenDMARC are a chain: the second reads what the first wrote, and looks SPF up by itself. A peer's
configuration is Debian's default but for what the job needs; its template is in `peers/`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.launch import CHECKOUT, fill, milter, start_once, started
from tests.support.processes import Program, free_port, require_binary

DNS_PORT = 53  # neither OpenDKIM nor resolv.conf can be told another

OURS = """\
authserv_id = "mail.example.net"

[dns]
nameservers = [{nameservers}]

[auth-verify]
socket = "unix:{socket}"
socket_mode = "0666"
metrics = "{metrics}"
"""
# resolv.conf is what OpenDMARC has no option for: it sees one of its own, in a mount namespace of its own.
WITH_OWN_RESOLV_CONF = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'


@dataclass(frozen=True, slots=True)
class Task:
    """The folder a program lives in, and the addresses of the nameservers it asks, at port 53."""

    folder: Path
    nameservers: Sequence[str]


@dataclass(frozen=True, slots=True)
class Verifier:
    """A running verifier, and the socket it takes messages on."""

    program: Program
    socket: Path

    @property
    def pid(self) -> int:
        """Return the pid of its first process."""
        return self.program.pid


@contextmanager
def running(name: str, task: Task) -> Iterator[Verifier]:
    """Run one of VERIFIERS for a while; a first start in its folder is not measured: rspamd compiles then."""
    start_once(task.folder, lambda: _started(name, task))
    with _started(name, task) as verifier:
        yield verifier


def mailward(task: Task, socket: Path) -> Sequence[str]:
    """Our daemon, from this checkout, with its defaults; its log goes to a file."""
    names = ", ".join(f'"{address}:{DNS_PORT}"' for address in task.nameservers)
    configuration = task.folder / "mailward.toml"
    configuration.write_text(OURS.format(nameservers=names, socket=socket, metrics=f"127.0.0.1:{free_port()}"))
    return [sys.executable, "-m", "milters.auth_verify", "--config", str(configuration)]


def opendkim(task: Task, socket: Path) -> Sequence[str]:
    """OpenDKIM; it logs to syslog."""
    fill("unbound.conf", task.folder, {})
    values = {"socket": socket, "nameservers": ",".join(task.nameservers)}
    configuration = fill("opendkim-verify.conf", task.folder, values)
    return [require_binary("opendkim", "opendkim"), "-f", "-x", str(configuration)]


def opendmarc(task: Task, socket: Path) -> Sequence[str]:
    """OpenDMARC; it logs to syslog."""
    configuration = fill("opendmarc.conf", task.folder, {"socket": socket})
    resolv_conf = task.folder / "resolv.conf"
    resolv_conf.write_text("".join(f"nameserver {address}\n" for address in task.nameservers))
    command = [require_binary("opendmarc", "opendmarc"), "-f", "-c", str(configuration)]
    return [
        require_binary("unshare", "util-linux"),
        "--mount",
        "sh",
        "-c",
        WITH_OWN_RESOLV_CONF,
        str(resolv_conf),
        *command,
    ]


def rspamd(task: Task, socket: Path) -> Sequence[str]:
    """rspamd; it logs to a file. As root it insists on `-i` to stay root."""
    names = ", ".join(f'"{address}:{DNS_PORT}"' for address in task.nameservers)
    configuration = fill("rspamd-verify.conf", task.folder, {"socket": socket, "nameservers": names})
    as_root = ["-i"] if os.geteuid() == 0 else []
    return [require_binary("rspamd", "rspamd"), "-f", *as_root, "-c", str(configuration)]


VERIFIERS: Mapping[str, Callable[[Task, Path], Sequence[str]]] = {
    "mailward": mailward,
    "opendkim": opendkim,
    "opendmarc": opendmarc,
    "rspamd": rspamd,
}


@contextmanager
def _started(name: str, task: Task) -> Iterator[Verifier]:
    socket = task.folder / "verify.sock"
    socket.unlink(missing_ok=True)  # of the round before
    program = milter(name, VERIFIERS[name](task, socket), task.folder, socket, working_folder=CHECKOUT)
    with started(program):
        yield Verifier(program, socket)
