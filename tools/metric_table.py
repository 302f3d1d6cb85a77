"""Prints examples/prometheus/METRICS.md, from what the daemons declare and serve: `python3 -m tools.metric_table`.

What is told of a metric stands where it is declared, and nowhere else. Nothing is started: the pages of a supervisor that has no
workers already show every name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mailward.daemon import log
from mailward.daemon.metrics import NAMED_AT_LOAD, Histogram, Metrics
from mailward.daemon.pages import Pages
from mailward.daemon.program import Program
from mailward.daemon.supervisor import Supervisor
from milters.auth_verify.__main__ import PROGRAM as AUTH_VERIFY
from milters.dkim_sign.__main__ import PROGRAM as DKIM_SIGN
from milters.greylist.__main__ import PROGRAM as GREYLIST
from policyd.__main__ import PROGRAM as POLICYD

PROGRAMS = (DKIM_SIGN, AUTH_VERIFY, GREYLIST, POLICYD)

# Of a label whose values the configuration names, what they are.
NAMED = {
    "nameserver": "those of `[dns]`, or of /etc/resolv.conf",
    "limit": "the names of `[[policyd.limit]]`",
    "domain": "those of `[[dkim-sign.domain]]` and `table`",
    "version": "of Mailward",
}
UNITS = {"seconds": "seconds", "bytes": "octets", "ratio": "0 to 1"}

HEAD = """\
# What the daemons count

Made by `python3 -m tools.metric_table` from the code; a test holds it to what running daemons serve. Each daemon serves its own
numbers at its `metrics` address, under `/metrics`, in Prometheus's text format and in OpenMetrics.

* A counter only grows, over all workers and whatever happens to them, until the service is restarted. A gauge is how it is now.
* `mailward_*_` stands for `mailward_dkim_sign_`, `mailward_auth_verify_`, `mailward_greylist_` and `mailward_policyd_`, of the
  daemons that are named.
* A histogram is three: `_bucket` with the label `le`, `_sum` and `_count`.
* Labels are words from closed sets, or names from the configuration; never an address, nor anything that a stranger chooses. Of
  the configuration's names the first 16 have a series each, for good; any others share `other`.

| metric | type | labels | unit | what it says | daemon |
|---|---|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One metric of one daemon; `name` is without the daemon's prefix, `values` is what its one label may be."""

    name: str
    type: str
    label: str
    values: tuple[str, ...]
    meaning: str


def main() -> None:
    """Print the table."""
    print(table(), end="")


def table() -> str:
    """Return the whole file."""
    return HEAD + "".join(f"| {' | '.join(cells)} |\n" for cells in _merged())


def rows(program: Program) -> Sequence[Row]:
    """Return what a daemon serves, in its own order."""
    metrics = Metrics(program.metric_prefix, program.metrics)
    supervisor = Supervisor(program, Path("/nonexistent"), {}, metrics, log.get(program.name))
    try:
        families = list(Pages(program, supervisor, metrics).collect())
    finally:
        supervisor.selector.close()
    labels = {spec.name: (spec.label, spec.values) for spec in program.metrics if not isinstance(spec, Histogram)}
    found = []
    for family in families:
        name = family.name.removeprefix(program.metric_prefix + "_")
        label, values = labels.get(name) or _seen(sample.labels for sample in family.samples)
        if values is NAMED_AT_LOAD:
            values = ()
        is_counter = family.type == "counter"
        found.append(
            Row(name + "_total" * is_counter, family.type, label, values if label else (), family.documentation)
        )
    return found


def unit_of(row: Row) -> str:
    """Return the unit by the end of the name, as Prometheus's names have it; of a number of things none."""
    return UNITS.get(row.name.removesuffix("_total").rpartition("_")[2], "")


def _seen(labels: Iterable[Mapping[str, str]]) -> tuple[str, tuple[str, ...]]:
    """Return the label, and the values of it, that the supervisor's own metrics show; a histogram's `le` is no label of ours."""
    pairs = [(name, value) for each in labels for name, value in each.items() if name != "le"]
    if not pairs:
        return "", ()
    return pairs[0][0], () if pairs[0][0] in NAMED else tuple(value for _, value in pairs)


def _merged() -> Iterable[Sequence[str]]:
    """Yield the cells of each line: one metric of one daemon, or the same one of several."""
    daemons: dict[Row, list[Program]] = {}
    for program in PROGRAMS:
        for row in rows(program):
            daemons.setdefault(row, []).append(program)
    for row, programs in sorted(daemons.items(), key=lambda item: (len(item[1]), PROGRAMS.index(item[1][0]))):
        prefix = programs[0].metric_prefix if len(programs) == 1 else "mailward_*"
        names = "all" if len(programs) == len(PROGRAMS) else ", ".join(program.name for program in programs)
        yield f"`{prefix}_{row.name}`", row.type, _label_cell(row), unit_of(row), row.meaning.rstrip("."), names


def _label_cell(row: Row) -> str:
    if not row.label:
        return ""
    values = ", ".join(f"`{value}`" for value in row.values) or NAMED[row.label]
    return f"`{row.label}`: {values}"


if __name__ == "__main__":
    main()
