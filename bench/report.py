"""Tables, and RESULTS.md: a section a job, replaced by that job's next run, while other sections stay."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.machine import description
from bench.workbench import Options

DISTURBED_CORES = 0.15  # a quiet machine shows 0.00 to 0.08, which is interrupts and the rounding of clock ticks
RESULTS = Path(__file__).with_name("RESULTS.md")
HEAD = """\
# What Mailward costs, beside its peers

Written by `make bench` (`python -m bench.run`); each section by the last run of its job. Medians of the
rounds, with their range in brackets; a ratio is the median of the rounds' ratios. In a round the programs run
in turn, each alone with the load driver (`milterload.c`) on the machine's cores: a machine's speed moves, so
compare within one section only.

* Every program gets the same messages over a UNIX socket, one message a connection, and logs by its default:
  Mailward and rspamd to a file, OpenDKIM, OpenDMARC and dkimpy-milter to syslog (cheaper, where no syslog daemon
  runs). All of it is in a network namespace of its own.
* CPU a message is user and system time of the program's whole process tree; memory is its proportional set
  size (PSS).
* A run counts only if every message got its signature, or the verdict it has to get. The header lists are each
  program's default.
* "elsewhere" is how many cores anything but the program, its nameserver and the driver kept busy: far from 0, the
  run was disturbed.
"""


@dataclass(frozen=True, slots=True)
class Target:
    """What we want, what was measured, and whether that is enough."""

    wanted: str
    measured: str
    is_met: bool


def titled(name: str, title: str, section: str, options: Options) -> str:
    """Return a job's section with its title and the circumstances of the run."""
    return "\n".join(["## " + title, "", *_circumstances(name, options), "", section.strip()])


def keep(name: str, text: str) -> None:
    """Put a job's section into RESULTS.md."""
    marked = f"<!-- job {name} -->\n{text}\n<!-- end of {name} -->\n"
    before = RESULTS.read_text() if RESULTS.exists() else HEAD
    RESULTS.write_text(with_section(before, name, marked))


def with_section(results: str, name: str, marked: str) -> str:
    r"""Replace the section between the markers of `name`, or append it.

    >>> new = "<!-- job x -->\nnew\n<!-- end of x -->\n"
    >>> with_section("a\n<!-- job x -->\nold\n<!-- end of x -->\nb\n", "x", new)
    'a\n<!-- job x -->\nnew\n<!-- end of x -->\nb\n'
    """
    name = re.escape(name)
    section = re.compile(rf"<!-- job {name} -->\n.*?<!-- end of {name} -->\n", re.DOTALL)
    if section.search(results):
        return section.sub(lambda _: marked, results)
    return f"{results.rstrip()}\n\n{marked}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table that reads well as text and as Markdown; all columns but the first are numbers."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(_row(cells, widths) for cells in [header, rule, *rows])


def target_table(targets: Sequence[Target]) -> str:
    """Format what was wanted and what was found; a missed target says so."""
    rows = [(target.wanted, target.measured, "yes" if target.is_met else "MISSED") for target in targets]
    return table(("target", "measured", "met"), rows)


def at_least(what: str, value: float, wanted: float) -> Target:
    """Return a target that a ratio has to reach."""
    return Target(f"{what} >= {wanted:.2f}", f"{value:.2f}", value >= wanted)


def at_most(what: str, value: float, wanted: float, unit: str = "") -> Target:
    """Return a target that a figure may not exceed."""
    return Target(f"{what} <= {wanted:g}{unit}", f"{value:.2f}{unit}", value <= wanted)


def disturbance(elsewhere_cores: Sequence[float]) -> str:
    """Return a warning if the machine had other work in any of the runs, else an empty text.

    >>> disturbance([0.01, 0.06])
    ''
    """
    most = max(elsewhere_cores)
    if most <= DISTURBED_CORES:
        return ""
    return f"**DISTURBED**: something else kept up to {most:.2f} cores busy. Rates and times cannot be compared; run again.\n\n"


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Format a median, and the range if there are several values.

    >>> spread([1030, 990, 1210])
    '1,030 [990..1,210]'
    >>> spread([1030])
    '1,030'
    """
    low, middle, high = (f"{value:,.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
    return f"{middle} [{low}..{high}]" if len(values) > 1 else middle


def _circumstances(name: str, options: Options) -> list[str]:
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    command = f"python -m bench.run --jobs {name} --rounds {options.rounds} --messages {options.messages}"
    return [f"* {when}, `{command}`", *(f"* {line}" for line in description())]


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = cells
    padded = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
    return "| " + " | ".join([first.ljust(widths[0]), *padded]) + " |"
