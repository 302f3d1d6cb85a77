"""Verification on small mail: our daemon beside rspamd and beside the chain of OpenDKIM and OpenDMARC."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from bench.driver import Load, Measurement
from bench.incoming import IncomingMail
from bench.jobs.sign import HEADER, Figure, Measurements, cpu_of, median, median_ratio, rate_of, row, warning
from bench.nameservers import open_nameservers
from bench.report import Target, at_least, at_most, spread, table, target_table
from bench.verifiers import Task, Verifier, running
from bench.workbench import CONNECTIONS, Workbench
from tests.support.nameserver import Nameserver

# What every message's results must say, or the run does not count. OpenDMARC writes SPF and DMARC; DKIM it reads.
WANTED_RESULTS = {
    "mailward": ("dkim=pass", "spf=pass", "dmarc=pass"),
    "opendkim": ("dkim=pass",),
    "opendmarc": ("spf=pass", "dmarc=pass"),
    "rspamd": ("dkim=pass", "spf=pass", "dmarc=pass"),
}
CHAIN = ("opendkim", "opendmarc")
WARM = 300
SETTLE_SECONDS = 1.0  # what a program still does after its first answer
NOTE = """\
The message: 4 kB, one rsa-sha256 signature (2048 bits), an SPF record of two networks, a DMARC record with p=reject; every
one was accepted with pass for DKIM, SPF and DMARC. The DNS is NSD on this machine, its records' TTL an hour; "NSD us" is
what a message costs it, no part of the program's CPU. OpenDMARC gets the message with the field OpenDKIM added, and looks SPF
up by itself (libspf2). The chain's CPU and memory are sums; its rate would be at most the slower one's. rspamd has the modules
dkim, spf and dmarc, and milter_headers for the field; one proxy process a core, scanning by themselves. All else is each
program's default."""


def run(workbench: Workbench) -> str:
    """Measure ours and the peers in turn."""
    mail = IncomingMail(workbench.folder_of("incoming"), workbench.rsa)
    measured: Measurements = {name: [] for name in WANTED_RESULTS}
    with open_nameservers(workbench.folder_of("verify-dns"), workbench.rsa) as (nameserver,):
        for _ in range(workbench.options.rounds):
            message = mail.small()
            for name, rounds in measured.items():
                with running(name, Task(workbench.folder_of(f"{name}-verify"), [nameserver.address])) as verifier:
                    time.sleep(SETTLE_SECONDS)
                    before_opendmarc = name == "opendkim"
                    rounds.append(measure(verifier, name, message, nameserver, workbench))
                    if before_opendmarc:
                        results = workbench.driver.results(verifier.socket, Load(message, 1))
                        chained = mail.with_fields(message, f"Authentication-Results:{results[0]}\n", "from-opendkim")
                message = chained if before_opendmarc else mail.small()
    rows = [(*row(name, measured[name]), asked(measured[name])) for name in ("mailward", "rspamd", *CHAIN)]
    rows.append(chain_row(measured))
    return warning(measured) + "\n\n".join([table((*HEADER, "NSD us"), rows), target_table(targets(measured)), NOTE])


def measure(verifier: Verifier, name: str, message: Path, nameserver: Nameserver, workbench: Workbench) -> Measurement:
    """Measure one verifier with one message; ProgramError unless each got the results it has to get."""
    load = Load(message, workbench.options.messages, WARM, CONNECTIONS, nameservers=[nameserver.program.pid])
    return workbench.driver.verify(verifier.socket, verifier.pid, load, WANTED_RESULTS[name])


def chain_row(measured: Measurements) -> tuple[str, ...]:
    """Return the row of both programs together: what they cost adds up."""
    cpu = spread(chain_of(measured, cpu_of))
    memory = spread([kilobytes / 1024 for kilobytes in chain_of(measured, lambda it: it.memory_kb)])
    return ("both, one after the other", "", "", "", cpu, memory, "", spread(chain_of(measured, asked_of)))


def asked(rounds: Sequence[Measurement]) -> str:
    """Return what a message costs the nameserver: who does not keep answers asks again."""
    return spread([asked_of(it) for it in rounds])


def asked_of(measurement: Measurement) -> float:
    """Return the nameserver's CPU microseconds a message."""
    return measurement.nameserver_microseconds


def targets(measured: Measurements) -> list[Target]:
    """Return what we want to reach."""
    ours = measured["mailward"]
    rate = median_ratio(ours, measured["rspamd"], rate_of)
    ratios = [cpu_of(our) / chain for our, chain in zip(ours, chain_of(measured, cpu_of), strict=True)]
    return [
        at_least("rate / rspamd's", rate, 1.1),
        at_least("the goal after that: rate / rspamd's", rate, 1.4),
        at_most("CPU a message / OpenDKIM's and OpenDMARC's", statistics.median(ratios), 0.6),
        at_most("memory, the whole daemon", median(ours, lambda it: it.memory_kb) / 1024, 80, " MB"),
    ]


def chain_of(measured: Measurements, figure: Figure) -> list[float]:
    """Return each round's sum of a figure over the programs of the chain."""
    return [sum(figure(it) for it in round_) for round_ in zip(*(measured[name] for name in CHAIN), strict=True)]
