"""The memory of everything at rest, on one machine at once: our four daemons, the chain of peers, rspamd with Redis."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.idlers import GROUPS, Task, running
from bench.machine import memory_kilobytes, process_tree
from bench.nameservers import open_nameservers
from bench.report import at_most, spread, table, target_table
from bench.workbench import DOMAIN, Workbench

OURS, PEER = "mailward, Debian's Python", "rspamd, these jobs"
SETTLE_SECONDS = 10.0  # threads have started, stores are open, nameservers have been tried
GROUP_HEADER = ("all of them", "processes", "PSS MB")
PART_HEADER = ("of these", "processes", "PSS MB")
NOTE = """\
Everything of a row runs at once, with its default number of processes (rspamd: a proxy worker for each core; as Debian configures
it, one of each kind), and has done nothing yet. Mailward's pages have been asked for once, as Prometheus does, and policyd serves
Dovecot, too; its packages run it with Debian's Python. policyd-spf is started by Postfix for each smtpd process that asks,
and ends when that does: one of them is counted. As Debian configures it rspamd is a spam filter, which Mailward is not. What
programs share is divided among them, so a part that runs alone is larger."""


@dataclass(frozen=True, slots=True)
class Weight:
    """A program's processes, and the kilobytes of all of them."""

    processes: int
    kilobytes: int


Weights = Mapping[str, Weight]


def run(workbench: Workbench) -> str:
    """Weigh each group in turn."""
    weighed: dict[str, list[Weights]] = {name: [] for name in GROUPS}
    with open_nameservers(workbench.folder_of("idle-dns"), workbench.rsa) as (nameserver,):
        for _ in range(workbench.options.rounds):
            for number, (name, rounds) in enumerate(weighed.items()):
                folder = workbench.folder_of(f"idle-{number}")
                with running(name, Task(folder, DOMAIN, workbench.rsa, nameserver.address)) as group:
                    time.sleep(SETTLE_SECONDS)
                    rounds.append({part: weigh(pids) for part, pids in group.items()})
    ours, peer = (statistics.median(totals(weighed[name])) for name in (OURS, PEER))
    targets = [
        at_most("Mailward, all four", ours, 200, " MB"),
        at_most("Mailward / rspamd, these jobs", ours / peer, 1),
    ]
    groups = [group_row(*it) for it in weighed.items()]
    parts = [part_row(name, part, rounds) for name, rounds in weighed.items() for part in rounds[0]]
    return "\n\n".join([table(GROUP_HEADER, groups), table(PART_HEADER, parts), target_table(targets), NOTE])


def weigh(pids: Sequence[int]) -> Weight:
    """Return what these processes and all below them have in memory."""
    tree = [pid for first in pids for pid in process_tree(first)]
    return Weight(len(tree), memory_kilobytes(tree))


def totals(rounds: Sequence[Weights]) -> list[float]:
    """Return the megabytes of all parts, a number a round."""
    return [sum(weight.kilobytes for weight in weights.values()) / 1024 for weights in rounds]


def group_row(name: str, rounds: Sequence[Weights]) -> Sequence[str]:
    """Return the row of everything together."""
    processes = sum(weight.processes for weight in rounds[-1].values())
    return (name, str(processes), spread(totals(rounds), 1))


def part_row(name: str, part: str, rounds: Sequence[Weights]) -> Sequence[str]:
    """Return the row of one program."""
    megabytes = [weights[part].kilobytes / 1024 for weights in rounds]
    return (f"{name}: {part}", str(rounds[-1][part].processes), spread(megabytes, 1))
