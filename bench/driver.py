"""The load: `milterload.c`, built for the run, and what it measured."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import ProgramError, require_binary, run

SOURCE = Path(__file__).with_name("milterload.c")
SIGNATURE_FIELD = "DKIM-Signature"
REPLY_SECONDS = 60
NUL_SHOWN_AS = "|"  # by milterload -v, between a field's name and its value
TAG = re.compile(r"(?:^|;)\s*([a-z]+)\s*=\s*([^;]*)")


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent: `count` messages, one a connection, after `warm` that are not counted.

    `author_domains` is how many domains the message's `%d` runs through; 0 if it has none.
    """

    message: Path
    count: int
    warm: int = 0
    connections: int = 8
    chunk_pause_microseconds: int = 0
    author_domains: int = 0


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run: messages a second, milliseconds and CPU microseconds a message, and kilobytes at the end.

    `elsewhere_cores` is what everything but the program and the driver kept busy: it tells a disturbed run.
    """

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_microseconds: float
    memory_kb: float
    elsewhere_cores: float


class Driver:
    """milterload, compiled into a folder."""

    def __init__(self, folder: Path) -> None:
        self._binary = folder / "milterload"
        compiler = require_binary("cc", "gcc libc6-dev")
        run([compiler, "-O2", "-o", str(self._binary), str(SOURCE), "-lpthread"])

    def measure(self, socket: Path, pid: int, load: Load, *, signatures: int = 1) -> Measurement:
        """Send the load and measure; ProgramError unless each message got that many signatures."""
        report = json.loads(run(self._command(socket, pid, load), seconds=None))  # -t bounds each reply
        added, wanted = report["fields_added"], load.count * signatures
        if added != wanted:
            raise ProgramError(f"{added} signatures on {load.count} messages, {wanted} expected")
        return Measurement(
            per_second=report["per_second"],
            p50_ms=report["p50_ms"],
            p99_ms=report["p99_ms"],
            cpu_microseconds=report["cpu_us_each"],
            memory_kb=report["memory_kb"],
            elsewhere_cores=report["elsewhere_cores"],
        )

    def start(self, socket: Path, pid: int, load: Load) -> subprocess.Popen[bytes]:
        """Start sending and return at once, for a caller who watches meanwhile; its report goes to a pipe."""
        return subprocess.Popen(self._command(socket, pid, load), stdout=subprocess.PIPE)

    def signature_tags(self, socket: Path, message: Path) -> list[dict[str, str]]:
        """Send one message and return the tags of each signature that was added, white space left out."""
        command = [str(self._binary), "-v", "-c", "1", "-n", "1", "-s", f"unix:{socket}", "-f", str(message)]
        fields = run(command, seconds=None).split(f"{SIGNATURE_FIELD}{NUL_SHOWN_AS}")[1:]
        return [tags_of(text.split(NUL_SHOWN_AS)[0]) for text in fields]

    def _command(self, socket: Path, pid: int, load: Load) -> Sequence[str]:
        command = [str(self._binary), "-s", f"unix:{socket}", "-f", str(load.message), "-p", str(pid)]
        command += ["-n", str(load.count), "-w", str(load.warm), "-c", str(load.connections)]
        command += ["-A", SIGNATURE_FIELD, "-t", str(REPLY_SECONDS), "-d", str(load.chunk_pause_microseconds)]
        return [*command, "-K", str(load.author_domains)]


def tags_of(value: str) -> dict[str, str]:
    r"""Return the tags of a signature field's value.

    >>> tags_of("v=1; a=rsa-sha256;\n\th=from : to;\n\tb=ab\n\tcd==")
    {'v': '1', 'a': 'rsa-sha256', 'h': 'from:to', 'b': 'abcd=='}
    """
    return {name: "".join(content.split()) for name, content in TAG.findall(value)}
