"""The memory of the whole verifier: at rest, after small mail, after mail from thousands of domains, and for a large one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.driver import Load
from bench.incoming import DOMAINS_ZONE, IncomingMail
from bench.jobs.verify import SETTLE_SECONDS, WANTED_RESULTS, WARM
from bench.machine import memory_kilobytes, process_tree
from bench.nameservers import open_nameservers
from bench.report import at_most, spread, table, target_table
from bench.verifiers import Task, Verifier, running
from bench.workbench import CONNECTIONS, Workbench

PROGRAMS = ("mailward", "opendkim", "rspamd")
DOMAINS = 3000
MEGABYTES = 50
HEADER = ("program", "at rest MB", "after 4 kB mail MB", f"after {DOMAINS:,} domains MB", f"after {MEGABYTES} MB MB")


@dataclass(frozen=True, slots=True)
class Course:
    """Kilobytes of PSS of a process tree, one after the other."""

    rest: float
    small: float
    domains: float
    large: float


def run(workbench: Workbench) -> str:
    """Weigh each program in turn."""
    mail = IncomingMail(workbench.folder_of("incoming"), workbench.rsa)
    courses: dict[str, list[Course]] = {name: [] for name in PROGRAMS}
    folder = workbench.folder_of("verify-memory-dns")
    with open_nameservers(folder, workbench.rsa, domains=DOMAINS) as (nameserver,):
        for _ in range(workbench.options.rounds):
            for name, rounds in courses.items():
                with running(name, Task(workbench.folder_of(f"{name}-verify"), [nameserver.address])) as verifier:
                    rounds.append(weigh(name, verifier, mail, workbench))
    ours = courses["mailward"]
    targets = [
        at_most("the whole daemon after 4 kB mail", statistics.median(it.small for it in ours) / 1024, 80, " MB"),
        at_most(f"after {DOMAINS:,} domains", statistics.median(it.domains for it in ours) / 1024, 80, " MB"),
    ]
    return "\n\n".join([table(HEADER, [row(*course) for course in courses.items()]), target_table(targets)])


def weigh(name: str, verifier: Verifier, mail: IncomingMail, workbench: Workbench) -> Course:
    """Send the messages and weigh after each kind."""
    loads = (
        Load(mail.small(), workbench.options.messages, WARM, CONNECTIONS),
        Load(mail.small_of_many(DOMAINS), DOMAINS, 0, CONNECTIONS, mail_from=f"sender@d%d.{DOMAINS_ZONE}"),
        Load(mail.attachment(MEGABYTES), 2, 0, 1),
    )
    weights = [weight(verifier)]
    for load in loads:
        workbench.driver.verify(verifier.socket, verifier.pid, load, WANTED_RESULTS[name])
        weights.append(weight(verifier))
    return Course(*weights)


def weight(verifier: Verifier) -> float:
    """Return the kilobytes of all its processes once they are at rest."""
    time.sleep(SETTLE_SECONDS)
    return memory_kilobytes(process_tree(verifier.pid))


def row(name: str, rounds: Sequence[Course]) -> Sequence[str]:
    """Return a program's row."""
    kilobytes = [[it.rest, it.small, it.domains, it.large] for it in rounds]
    return (name, *(spread([value / 1024 for value in column], 1) for column in zip(*kilobytes, strict=True)))
