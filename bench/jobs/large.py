"""Large mail: the CPU that a body costs, which is canonicalization and hashing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bench.driver import Load
from bench.jobs.sign import Measurements, cpu_of, median, median_ratio, warning
from bench.report import at_most, spread, table, target_table
from bench.signers import Task, running
from bench.workbench import DOMAIN, Workbench

PROGRAMS = ("mailward", "opendkim", "rspamd")
CONNECTIONS = 2  # enough for two cores: eight large messages at once would measure memory bandwidth
MEGABYTES_A_ROUND = 240
HEADER = ("program", "CPU ms a message", "messages a second", "p50 ms", "elsewhere")


def run(workbench: Workbench) -> str:
    """Measure each size and kind of body in turn."""
    bodies = {
        "1 MB, an attachment in base64": (workbench.messages.attachment(1), 1),
        "10 MB, an attachment in base64": (workbench.messages.attachment(10), 10),
        "10 MB, text": (workbench.messages.text(10), 10),
    }
    measured: dict[str, Measurements] = {body: {name: [] for name in PROGRAMS} for body in bodies}
    for _ in range(workbench.options.rounds):
        for name in PROGRAMS:
            measure(name, bodies, measured, workbench)
    return "\n\n".join(section(body, measurements) for body, measurements in measured.items())


def measure(
    name: str,
    bodies: Mapping[str, tuple[Path, int]],
    measured: Mapping[str, Measurements],
    workbench: Workbench,
) -> None:
    """Send every body to one program, and add what was measured."""
    task = Task(workbench.folder_of(name), DOMAIN, [workbench.rsa], workbench.nameserver.endpoint)
    with running(name, task) as signer:
        for body, (message, megabytes) in bodies.items():
            load = Load(message, MEGABYTES_A_ROUND // megabytes, warm=2, connections=CONNECTIONS)
            measured[body][name].append(workbench.driver.measure(signer.socket, signer.pid, load))


def section(body: str, measured: Measurements) -> str:
    """Format the table of one body, with its target."""
    rows = [
        (
            name,
            spread([it.cpu_microseconds / 1000 for it in rounds], 1),
            spread([it.per_second for it in rounds], 1),
            spread([it.p50_ms for it in rounds], 1),
            f"{median(rounds, lambda it: it.elsewhere_cores):.2f}",
        )
        for name, rounds in measured.items()
    ]
    ratio = median_ratio(measured["mailward"], measured["opendkim"], cpu_of)
    target = at_most("CPU a message / OpenDKIM's", ratio, 0.5)
    return f"### {body}\n\n{warning(measured)}{table(HEADER, rows)}\n\n{target_table([target])}"
