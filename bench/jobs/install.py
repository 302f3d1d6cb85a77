"""A new postmaster's way, from nothing of Mailward to a signed and a verified message, on Debian 12 and 13."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence

from bench.report import at_most, spread, table, target_table
from bench.workbench import Workbench
from tests.packages.built import build
from tests.packages.roots import RELEASES, build_root
from tests.packages.scripts import run_script

SCRIPT = "five-commands"
NAMES = {"bookworm": "Debian 12", "trixie": "Debian 13"}
ALL = "all, to a signed and a verified message"
TARGET_SECONDS = 600
MOST_COMMANDS = 5
HEADER = ("seconds", *(NAMES[release] for release in RELEASES))
EXPLANATION = """\
`debian/tests/five-commands` in a root of each release (a plain Postfix and Dovecot, submission as Debian's own
master.cf has it in comments, no Mailward and none of its libraries), with what apt downloads already in its cache: no
network is in it. After the second command the key's record is published, by a nameserver in the root. The message goes out
by submission with a login and is verified by dkimpy; the answer to it comes in from another address and is found in the mailbox,
with `spf=pass` and `dmarc=pass`."""


def run(workbench: Workbench) -> str:
    """Measure each release in turn, once a round."""
    folder = workbench.folder_of("packages")
    debs = {release: build(build_root(release), folder / release).debs for release in RELEASES}
    rounds: dict[str, list[dict[str, float]]] = {release: [] for release in RELEASES}
    for _ in range(workbench.options.rounds):
        for release in RELEASES:
            rounds[release].append(times_of(run_script(release, SCRIPT, debs[release])))
    steps = list(rounds[RELEASES[0]][0])
    commands = [step for step in steps if step != ALL]
    targets = [
        at_most("commands", len(commands), MOST_COMMANDS),
        *(at_most(f"{NAMES[it]}, {ALL}", median(rounds[it], ALL), TARGET_SECONDS, " s") for it in RELEASES),
    ]
    rows = [(step, *(spread([it[step] for it in rounds[release]], 1) for release in RELEASES)) for step in steps]
    return "\n\n".join([table(HEADER, rows), target_table(targets), EXPLANATION])


def times_of(output: str) -> dict[str, float]:
    """Return what the script measured: its last line.

    >>> times_of('something else\\n{"apt install": 12.5}\\n')
    {'apt install': 12.5}
    """
    return {str(step): float(seconds) for step, seconds in json.loads(output.splitlines()[-1]).items()}


def median(rounds: Sequence[Mapping[str, float]], step: str) -> float:
    """Return the median of a step's seconds."""
    return statistics.median(each[step] for each in rounds)
