"""The load: `milterload.c`, built for the run, and what it measured."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.support.processes import ProgramError, require_binary, run

SOURCE = Path(__file__).with_name("milterload.c")
SIGNATURE_FIELD = "DKIM-Signature"
RESULTS_FIELD = "Authentication-Results"
ACCEPTING_REPLIES = "ac"  # accept, and go on: at the end of a message they mean the same
REPLY_SECONDS = 120  # OpenDMARC takes a minute when the DNS is away
NUL_SHOWN_AS = "|"  # by milterload -v, between a field's name and its value
TAG = re.compile(r"(?:^|;)\s*([a-z]+)\s*=\s*([^;]*)")


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent: `count` messages, one a connection, after `warm` that are not counted.

    `author_domains` is how many domains the message's `%d` runs through; 0 if it has none. Of a folder of messages each
    is sent in turn, beginning with the one numbered `first`; a `%d` in `mail_from`, `rcpt_to` and `helo` becomes that number,
    a `%m` what is left of it modulo `author_domains`. With `attributes` a policy server is asked, and no message sent.
    `nameservers` are the pids of those whose work is no disturbance.
    """

    message: Path
    count: int
    warm: int = 0
    connections: int = 8
    chunk_pause_microseconds: int = 0
    author_domains: int = 0
    mail_from: str = "sender@example.com"
    rcpt_to: str = "rcpt@example.net"
    helo: str = "client.example.com"
    first: int = 0
    nameservers: Sequence[int] = ()
    attributes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run: messages a second, milliseconds and CPU microseconds a message, and kilobytes at the end.

    `elsewhere_cores` is what everything but the program, its nameservers and the driver kept busy: it tells a disturbed
    run.
    """

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_microseconds: float
    memory_kb: float
    elsewhere_cores: float
    nameserver_microseconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """What a run measured, and what came back.

    `replies` counts the last replies by their letter in the milter protocol, `replies_with` those that begin with each text
    asked about; `added` the fields of the name asked about, `added_with` those of them that hold each text asked about.
    `max_ms` is the slowest message.
    """

    measurement: Measurement
    replies: Mapping[str, int]
    added: int
    added_with: Mapping[str, int]
    max_ms: float
    seconds: float
    replies_with: Mapping[str, int]


class Driver:
    """milterload, compiled into a folder."""

    def __init__(self, folder: Path) -> None:
        self._binary = folder / "milterload"
        compiler = require_binary("cc", "gcc libc6-dev")
        run([compiler, "-O2", "-o", str(self._binary), str(SOURCE), "-lpthread"])

    def measure(self, socket: Path, pid: int, load: Load, *, signatures: int = 1) -> Measurement:
        """Send the load and measure; ProgramError unless each message got that many signatures."""
        report = self.send(socket, pid, load, SIGNATURE_FIELD)
        wanted = load.count * signatures
        if report.added != wanted:
            raise ProgramError(f"{report.added} signatures on {load.count} messages, {wanted} expected")
        return report.measurement

    def verify(self, socket: Path, pid: int, load: Load, results: Sequence[str]) -> Measurement:
        """Send the load and measure; ProgramError unless every message was accepted with each of these results."""
        report = self.send(socket, pid, load, RESULTS_FIELD, results)
        accepted = sum(report.replies.get(letter, 0) for letter in ACCEPTING_REPLIES)
        if accepted != load.count or any(report.added_with[result] != load.count for result in results):
            raise ProgramError(f"{load.count} messages, replies {report.replies}, results {report.added_with}")
        return report.measurement

    def greylist(self, socket: Path, pids: Sequence[int], load: Load, replies: Sequence[str]) -> Measurement:
        """Send the load and measure; ProgramError unless every last reply begins with one of these."""
        wanted = [item for text in replies for item in ("-y", text)]
        report = self._report(self._command(socket, pids, load), wanted)
        if sum(report.replies_with.values()) != load.count:
            raise ProgramError(f"{load.count} messages, replies {report.replies}, {report.replies_with}")
        return report.measurement

    def send(self, socket: Path, pid: int, load: Load, field: str, texts: Sequence[str] = ()) -> Report:
        """Send the load, and count the added fields of this name, and those of them that hold each text."""
        wanted = ["-A", field, *(item for text in texts for item in ("-x", text))]
        return self._report(self._command(socket, [pid], load), wanted)

    def _report(self, command: Sequence[str], wanted: Sequence[str]) -> Report:
        found = json.loads(run([*command, *wanted], seconds=None))  # -t bounds each reply
        return Report(
            Measurement(
                per_second=found["per_second"],
                p50_ms=found["p50_ms"],
                p99_ms=found["p99_ms"],
                cpu_microseconds=found["cpu_us_each"],
                memory_kb=found["memory_kb"],
                elsewhere_cores=found["elsewhere_cores"],
                nameserver_microseconds=found["nameserver_cpu_us_each"],
            ),
            replies=found["replies"],
            added=found["fields_added"],
            added_with=found["fields_with"],
            max_ms=found["max_ms"],
            seconds=found["seconds"],
            replies_with=found["replies_with"],
        )

    def start(self, socket: Path, pid: int, load: Load) -> subprocess.Popen[bytes]:
        """Start sending and return at once, for a caller who watches meanwhile; its report goes to a pipe."""
        return subprocess.Popen([*self._command(socket, [pid], load), "-A", SIGNATURE_FIELD], stdout=subprocess.PIPE)

    def signature_tags(self, socket: Path, message: Path) -> list[dict[str, str]]:
        """Send one message and return the tags of each signature that was added, white space left out."""
        fields = self._first_edits(socket, Load(message, 1)).split(f"{SIGNATURE_FIELD}{NUL_SHOWN_AS}")[1:]
        return [tags_of(text.split(NUL_SHOWN_AS)[0]) for text in fields]

    def results(self, socket: Path, load: Load) -> list[str]:
        """Send the load's first message and return the values of the Authentication-Results fields that were added."""
        fields = self._first_edits(socket, load).split(f"{RESULTS_FIELD}{NUL_SHOWN_AS}")[1:]
        return [text.split(NUL_SHOWN_AS)[0] for text in fields]

    def _first_edits(self, socket: Path, load: Load) -> str:
        """Send one message and return the modifications that were asked for, as milterload prints them."""
        return run([*self._command(socket, [], replace(load, count=1, warm=0, connections=1)), "-v"], seconds=None)

    def _command(self, socket: Path, pids: Sequence[int], load: Load) -> Sequence[str]:
        command = [str(self._binary), "-s", f"unix:{socket}", "-f", str(load.message)]
        command += [item for pid in pids for item in ("-p", str(pid))]
        command += [item for attribute in load.attributes for item in ("-a", attribute)]
        command += ["-P"] if load.attributes else []
        command += ["-n", str(load.count), "-w", str(load.warm), "-c", str(load.connections)]
        command += ["-F", load.mail_from, "-R", load.rcpt_to, "-H", load.helo]
        command += ["-O", str(load.first), "-K", str(load.author_domains)]
        command += [item for nameserver in load.nameservers for item in ("-N", str(nameserver))]
        return [*command, "-t", str(REPLY_SECONDS), "-d", str(load.chunk_pause_microseconds)]


def tags_of(value: str) -> dict[str, str]:
    r"""Return the tags of a signature field's value.

    >>> tags_of("v=1; a=rsa-sha256;\n\th=from : to;\n\tb=ab\n\tcd==")
    {'v': '1', 'a': 'rsa-sha256', 'h': 'from:to', 'b': 'abcd=='}
    """
    return {name: "".join(content.split()) for name, content in TAG.findall(value)}
