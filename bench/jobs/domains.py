"""A hoster's table: what 10,000 domains cost a message, a reload, and the memory (ours only)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.driver import Load, Measurement
from bench.jobs.sign import HEADER, WARM, cpu_of, median_ratio, row, warning
from bench.keys import Key, rsa_key
from bench.report import spread, table
from bench.signers import Task, running
from bench.workbench import CONNECTIONS, DNS_PORT, DNS_TTL, Workbench
from tests.support.nameserver import Nameserver, txt_record

DOMAINS = 10_000
ACTIVE = 100  # domains that send at a time, in turn: every worker has met them all when it counts
DISTINCT_KEYS = 16  # making 10,000 RSA keys would take a quarter of an hour; each domain has a key file of its own
ZONE = "example"


@dataclass(frozen=True, slots=True)
class Hoster:
    """A table of so many domains, of which the first `active` send mail."""

    label: str
    table: Path
    active: int


def run(workbench: Workbench) -> str:
    """Measure one domain and 10,000 in turn, then the first message of each of the 10,000."""
    folder = workbench.folder_of("hoster")
    keys = write_keys(folder)
    one, all_of_them = write_table(folder / "one", keys, 1), write_table(folder / "all", keys, DOMAINS)
    hosters = [
        Hoster("1 domain", one, 1),
        Hoster(f"{DOMAINS:,} domains, {ACTIVE} sending", all_of_them, ACTIVE),
    ]
    measured: dict[str, list[Measurement]] = {hoster.label: [] for hoster in hosters}
    reloads: dict[str, list[float]] = {hoster.label: [] for hoster in hosters}
    with Nameserver(folder / "nsd", {ZONE: records(keys)}, port=DNS_PORT, ttl=DNS_TTL) as nameserver:
        for _ in range(workbench.options.rounds):
            for hoster in hosters:
                measurement, seconds = measure(hoster, nameserver, workbench)
                measured[hoster.label].append(measurement)
                reloads[hoster.label].append(seconds)
        first = first_messages(hosters[-1], nameserver, workbench)
    rows = [row(label, rounds) for label, rounds in measured.items()]
    rows.append(row(f"{DOMAINS:,} domains, each one's first message", [first]))
    costs = table(("table", *HEADER[1:]), rows)
    return warning(measured) + "\n\n".join([costs, reload_table(reloads), comparison(list(measured.values()))])


def measure(hoster: Hoster, nameserver: Nameserver, workbench: Workbench) -> tuple[Measurement, float]:
    """Measure warm messages, then the seconds of a reload."""
    with running("mailward", task_of(hoster, nameserver, workbench)) as signer:
        message = workbench.messages.small_of(f"d%d.{ZONE}")
        warm = WARM + 10 * hoster.active
        load = Load(message, workbench.options.messages, warm, CONNECTIONS, author_domains=hoster.active)
        return workbench.driver.measure(signer.socket, signer.pid, load), signer.reload()


def first_messages(hoster: Hoster, nameserver: Nameserver, workbench: Workbench) -> Measurement:
    """Send one message from each domain: its key is read, and its record looked up."""
    with running("mailward", task_of(hoster, nameserver, workbench)) as signer:
        message = workbench.messages.small_of(f"d%d.{ZONE}")
        load = Load(message, DOMAINS, connections=CONNECTIONS, author_domains=DOMAINS)
        return workbench.driver.measure(signer.socket, signer.pid, load)


def task_of(hoster: Hoster, nameserver: Nameserver, workbench: Workbench) -> Task:
    """Return what the daemon is given."""
    return Task(workbench.folder_of("mailward"), ZONE, [], nameserver.endpoint, table=hoster.table)


def write_keys(folder: Path) -> Sequence[Key]:
    """Make the distinct keys, and a key file for each domain."""
    distinct = [rsa_key(folder, f"key{number}") for number in range(DISTINCT_KEYS)]
    pems = [key.file.read_bytes() for key in distinct]
    for number in range(DOMAINS):
        file = key_file(folder, number)
        file.touch(mode=0o600)
        file.write_bytes(pems[number % DISTINCT_KEYS])
    return distinct


def write_table(file: Path, keys: Sequence[Key], count: int) -> Path:
    """Write the table's lines: domain, selector, key file."""
    lines = [
        f"d{number}.{ZONE} {selector_of(keys, number)} {key_file(file.parent, number)}\n" for number in range(count)
    ]
    file.write_text("".join(lines))
    return file


def records(keys: Sequence[Key]) -> str:
    """Return the zone's records, a key record for each domain."""
    return "\n".join(
        txt_record(f"{selector_of(keys, number)}._domainkey.d{number}", keys[number % DISTINCT_KEYS].record)
        for number in range(DOMAINS)
    )


def key_file(folder: Path, number: int) -> Path:
    """Return the path of a domain's key."""
    return folder / f"d{number}.pem"


def selector_of(keys: Sequence[Key], number: int) -> str:
    """Return a domain's selector."""
    return keys[number % DISTINCT_KEYS].selector


def reload_table(reloads: dict[str, list[float]]) -> str:
    """Format the time of reloads."""
    rows = [(label, spread([seconds * 1000 for seconds in times])) for label, times in reloads.items()]
    return table(("table", "reload, ms from HUP until the new generation serves"), rows)


def comparison(measured: Sequence[Sequence[Measurement]]) -> str:
    """Say in a sentence what the large table costs."""
    one, many = measured
    return f"A warm message costs {median_ratio(many, one, cpu_of):.2f} times the CPU of one with a table of 1 domain."
