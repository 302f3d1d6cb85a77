"""Signatures on small mail: our daemon beside three peers, and what two signatures on a message cost."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

from bench.driver import Load, Measurement
from bench.machine import BareRsa, bare_rsa
from bench.report import Target, at_least, at_most, disturbance, spread, table, target_table
from bench.signers import Signer, Task, running
from bench.workbench import CONNECTIONS, DOMAIN, Workbench
from tests.support.processes import ProgramError

PEERS = ("opendkim", "rspamd", "dkimpy-milter")
SHARE_OF_MESSAGES = {"dkimpy-milter": 0.1}  # a tenth of the others' rate: the same time in a round
WARM = 300
SETTLE_SECONDS = 1.0  # what a program still does after its first answer
HEADER = ("program", "messages a second", "p50 ms", "p99 ms", "CPU us a message", "PSS MB", "elsewhere")

Measurements = dict[str, list[Measurement]]
Figure = Callable[[Measurement], float]


def run(workbench: Workbench) -> str:
    """Measure ours and the peers in turn, and bare RSA in each round."""
    measured: Measurements = {name: [] for name in ("mailward", *PEERS)}
    bare: list[BareRsa] = []
    h_items: dict[str, int] = {}
    for _ in range(workbench.options.rounds):
        bare.append(bare_rsa())
        for name, rounds in measured.items():
            task = Task(workbench.folder_of(name), DOMAIN, [workbench.rsa], workbench.nameserver.endpoint)
            with running(name, task) as signer:
                h_items[name] = verify(signer, workbench, ["rsa-sha256"])
                rounds.append(measure(signer, name, workbench))
    rows = [row(name, rounds) for name, rounds in measured.items()]
    notes = "Items in the signature's `h=`: " + ", ".join(f"{name} {count}" for name, count in h_items.items()) + "."
    return warning(measured) + "\n\n".join(
        [table(HEADER, rows), bare_table(bare), target_table(targets(measured, bare)), notes]
    )


def run_dual(workbench: Workbench) -> str:
    """Measure ours with one key and with two, in turn."""
    ways = {"RSA-2048": [workbench.rsa], "RSA-2048 and Ed25519": [workbench.rsa, workbench.ed25519]}
    measured: Measurements = {way: [] for way in ways}
    for _ in range(workbench.options.rounds):
        for way, keys in ways.items():
            task = Task(workbench.folder_of("mailward"), DOMAIN, keys, workbench.nameserver.endpoint)
            with running("mailward", task) as signer:
                verify(signer, workbench, ["rsa-sha256", "ed25519-sha256"][: len(keys)])
                measured[way].append(measure(signer, "mailward", workbench, signatures=len(keys)))
    one, two = measured.values()
    note = f"Two signatures cost {median_ratio(two, one, cpu_of):.2f} times the CPU of one."
    return (
        warning(measured)
        + table(("keys", *HEADER[1:]), [row(way, rounds) for way, rounds in measured.items()])
        + "\n\n"
        + note
    )


def verify(signer: Signer, workbench: Workbench, algorithms: Sequence[str]) -> int:
    """Return how many items `h=` has; ProgramError unless one message gets just these signatures."""
    time.sleep(SETTLE_SECONDS)
    signatures = workbench.driver.signature_tags(signer.socket, workbench.messages.small())
    for signature in signatures:
        if (signature.get("d"), signature.get("c")) != (DOMAIN, "relaxed/relaxed"):
            raise ProgramError(f"not the signature that was wanted: {signature}")
    if sorted(signature["a"] for signature in signatures) != sorted(algorithms):
        raise ProgramError(f"signatures with {list(algorithms)} were wanted, and these came: {signatures}")
    return len(signatures[0]["h"].split(":"))


def measure(signer: Signer, name: str, workbench: Workbench, *, signatures: int = 1) -> Measurement:
    """Measure one signer with the 4 kB message."""
    count = max(1, round(workbench.options.messages * SHARE_OF_MESSAGES.get(name, 1.0)))
    load = Load(workbench.messages.small(), count, warm=min(WARM, count), connections=CONNECTIONS)
    return workbench.driver.measure(signer.socket, signer.pid, load, signatures=signatures)


def row(name: str, rounds: Sequence[Measurement]) -> Sequence[str]:
    """Return a program's row under HEADER."""
    return (
        name,
        spread([it.per_second for it in rounds]),
        spread([it.p50_ms for it in rounds], 1),
        spread([it.p99_ms for it in rounds], 1),
        spread([it.cpu_microseconds for it in rounds]),
        spread([it.memory_kb / 1024 for it in rounds]),
        f"{median(rounds, lambda it: it.elsewhere_cores):.2f}",
    )


def warning(measured: Mapping[str, Sequence[Measurement]]) -> str:
    """Return what has to be said above tables of these runs, if the machine was not theirs alone."""
    return disturbance([it.elsewhere_cores for rounds in measured.values() for it in rounds])


def median(rounds: Sequence[Measurement], figure: Figure) -> float:
    """Return the median of one figure over the rounds."""
    return statistics.median(figure(measurement) for measurement in rounds)


def bare_table(bare: Sequence[BareRsa]) -> str:
    """Format what bare RSA costs."""
    rows = [
        (
            "OpenSSL (`openssl speed rsa2048`), CPU us a signature",
            spread([it.openssl_microseconds for it in bare]),
        ),
        (
            "cryptography's `sign()`, CPU us a signature",
            spread([it.cryptography_microseconds for it in bare]),
        ),
        (
            "the limit: OpenSSL on all cores, signatures a second",
            spread([it.limit_per_second for it in bare]),
        ),
    ]
    return table(("bare RSA-2048", "measured"), rows)


def targets(measured: Measurements, bare: Sequence[BareRsa]) -> list[Target]:
    """Return what we want to reach."""
    ours = measured["mailward"]
    cost = statistics.median(it.cpu_microseconds / rsa.openssl_microseconds for it, rsa in zip(ours, bare, strict=True))
    return [
        at_least("rate / OpenDKIM's", median_ratio(ours, measured["opendkim"], rate_of), 2.0),
        at_least("rate / rspamd's", median_ratio(ours, measured["rspamd"], rate_of), 0.8),
        at_most("CPU a message / bare RSA-2048", cost, 1.9),
        at_most("memory, the whole daemon", median(ours, lambda it: it.memory_kb) / 1024, 60, " MB"),
    ]


def median_ratio(ours: Sequence[Measurement], others: Sequence[Measurement], figure: Figure) -> float:
    """Return the median of the rounds' ratios: what moves between rounds moves both."""
    return statistics.median(figure(our) / figure(other) for our, other in zip(ours, others, strict=True))


def rate_of(measurement: Measurement) -> float:
    """Return messages a second."""
    return measurement.per_second


def cpu_of(measurement: Measurement) -> float:
    """Return CPU microseconds a message."""
    return measurement.cpu_microseconds
