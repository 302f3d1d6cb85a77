"""Verification of large mail: the CPU that a body costs, which is canonicalization and hashing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bench.driver import Load
from bench.incoming import IncomingMail
from bench.jobs.large import CONNECTIONS, MEGABYTES_A_ROUND, section
from bench.jobs.sign import Measurements
from bench.jobs.verify import WANTED_RESULTS
from bench.nameservers import open_nameservers
from bench.verifiers import Task, running
from bench.workbench import Workbench
from tests.support.nameserver import Nameserver

PROGRAMS = ("mailward", "opendkim", "rspamd")
MEGABYTES = 1
WARM = 10
NOTE = "OpenDKIM verifies the signature and nothing else; Mailward and rspamd do SPF and DMARC as well."


def run(workbench: Workbench) -> str:
    """Measure each kind of body in turn."""
    mail = IncomingMail(workbench.folder_of("incoming"), workbench.rsa)
    bodies = {
        f"{MEGABYTES} MB, an attachment in base64": mail.attachment(MEGABYTES),
        f"{MEGABYTES} MB, text": mail.text(MEGABYTES),
    }
    measured: dict[str, Measurements] = {body: {name: [] for name in PROGRAMS} for body in bodies}
    with open_nameservers(workbench.folder_of("verify-large-dns"), workbench.rsa) as (nameserver,):
        for _ in range(workbench.options.rounds):
            for name in PROGRAMS:
                measure(name, nameserver, bodies, measured, workbench)
    return "\n\n".join([*(section(body, measurements) for body, measurements in measured.items()), NOTE])


def measure(
    name: str,
    nameserver: Nameserver,
    bodies: Mapping[str, Path],
    measured: Mapping[str, Measurements],
    workbench: Workbench,
) -> None:
    """Send every body to one program, and add what was measured."""
    with running(name, Task(workbench.folder_of(f"{name}-verify"), [nameserver.address])) as verifier:
        for body, message in bodies.items():
            count = MEGABYTES_A_ROUND // MEGABYTES
            load = Load(message, count, WARM, CONNECTIONS, nameservers=[nameserver.program.pid])
            measurement = workbench.driver.verify(verifier.socket, verifier.pid, load, WANTED_RESULTS[name])
            measured[body][name].append(measurement)
