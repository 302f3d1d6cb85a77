"""The memory of a daemon while a message of 50 MB passes through it."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.driver import Load
from bench.jobs.sign import verify
from bench.machine import memory_kilobytes, process_tree
from bench.report import at_most, spread, table, target_table
from bench.signers import Signer, Task, running
from bench.workbench import DOMAIN, Workbench
from tests.support.processes import ProgramError

PROGRAMS = ("mailward", "opendkim", "rspamd")
MEGABYTES = 50
WARM = 300  # small messages first: what a daemon allocates once is not the large message's
CHUNK_PAUSE_MICROSECONDS = 2500  # 800 chunks: two seconds, a hundred samples
SAMPLE_SECONDS = 0.02
SETTLE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Course:
    """Kilobytes of PSS of a process tree: before the message, at most meanwhile, and afterwards."""

    before: float
    peak: float
    after: float


def run(workbench: Workbench) -> str:
    """Watch each program in turn."""
    courses: dict[str, list[Course]] = {name: [] for name in PROGRAMS}
    for _ in range(workbench.options.rounds):
        for name, rounds in courses.items():
            task = Task(workbench.folder_of(name), DOMAIN, [workbench.rsa], workbench.nameserver.endpoint)
            with running(name, task) as signer:
                verify(signer, workbench, ["rsa-sha256"])
                rounds.append(watch(signer, workbench))
    header = ("program", "before MB", "peak MB", "after MB", "added MB")
    ours = courses["mailward"]
    targets = [
        at_most(f"a message of {MEGABYTES} MB adds", statistics.median(added_megabytes(ours)), 5, " MB"),
        at_most("memory, the whole daemon", statistics.median(it.before for it in ours) / 1024, 60, " MB"),
    ]
    return table(header, [row(name, rounds) for name, rounds in courses.items()]) + "\n\n" + target_table(targets)


def watch(signer: Signer, workbench: Workbench) -> Course:
    """Send one message of 50 MB, slowly, and sample the memory of the signer's processes."""
    workbench.driver.measure(signer.socket, signer.pid, Load(workbench.messages.small(), WARM))
    time.sleep(SETTLE_SECONDS)
    tree = process_tree(signer.pid)
    before = memory_kilobytes(tree)
    load = Load(
        workbench.messages.attachment(MEGABYTES),
        count=1,
        connections=1,
        chunk_pause_microseconds=CHUNK_PAUSE_MICROSECONDS,
    )
    peak = peak_while(workbench.driver.start(signer.socket, signer.pid, load), tree)
    time.sleep(SETTLE_SECONDS)
    return Course(before, peak, memory_kilobytes(tree))


def peak_while(sending: subprocess.Popen[bytes], tree: Sequence[int]) -> float:
    """Return the most kilobytes seen until the driver ends; ProgramError if the message got no signature."""
    peak = 0
    while sending.poll() is None:
        peak = max(peak, memory_kilobytes(tree))
        time.sleep(SAMPLE_SECONDS)
    report, _ = sending.communicate()
    if sending.returncode != 0 or json.loads(report)["fields_added"] != 1:
        raise ProgramError(f"the message of {MEGABYTES} MB was not signed: {report.decode('utf-8', 'replace')}")
    return peak


def row(name: str, rounds: Sequence[Course]) -> Sequence[str]:
    """Return a program's row."""
    return (
        name,
        spread([it.before / 1024 for it in rounds], 1),
        spread([it.peak / 1024 for it in rounds], 1),
        spread([it.after / 1024 for it in rounds], 1),
        spread(added_megabytes(rounds), 1),
    )


def added_megabytes(rounds: Sequence[Course]) -> list[float]:
    """Return by how much each round's message made the daemon grow."""
    return [(it.peak - it.before) / 1024 for it in rounds]
