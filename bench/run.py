"""Measure Mailward and its peers on this machine, print the tables, and keep them in RESULTS.md.

    python -m bench.run [--jobs sign,dual,...] [--rounds 3] [--messages 4000] [--scenarios dns,line] [--no-keep]

Nothing is asserted: a missed target is a line in a table. The exit status is 1 if something failed to run.
Everything listens in a network namespace of the run's own or on UNIX sockets in temporary folders, and is ended by the
pid it was started with.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.jobs import JOBS, Job
from bench.namespace import enter
from bench.plots import PLOTS
from bench.report import keep, titled
from bench.workbench import Options, Workbench, open_workbench
from tests.support.processes import ProgramError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the jobs asked for; return the exit status."""
    chosen = parse(arguments)
    enter("bench.run", sys.argv[1:] if arguments is None else arguments)
    plots = plots_folder(is_kept=chosen.keep)
    options = Options(chosen.rounds, chosen.messages, plots, chosen.scenarios)
    failures = 0
    try:
        with open_workbench(options) as workbench:
            for job in chosen.jobs:
                failures += not run_job(job, workbench, is_kept=chosen.keep)
    except ProgramError as error:
        print(f"bench: {error}", file=sys.stderr)
        failures += 1
    return 1 if failures else 0


def run_job(job: Job, workbench: Workbench, *, is_kept: bool) -> bool:
    """Run one job, print and perhaps keep its section; tell whether it ran to its end."""
    say(f"bench: {job.name}: {job.title} ...")
    try:
        section = job.run(workbench)
    except ProgramError as error:
        say(f"bench: {job.name} failed: {error}")
        return False
    text = titled(job.name, job.title, section, workbench.options)
    if is_kept:
        keep(job.name, text)
    print(f"\n{text}\n", flush=True)
    return True


def plots_folder(*, is_kept: bool) -> Path:
    """Return where plots go: beside RESULTS.md, which links them, or where they do no harm."""
    return PLOTS if is_kept else Path(tempfile.gettempdir()) / f"mailward-plots-{os.getpid()}"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; `jobs` becomes a list of Job in the table's order."""
    parser = argparse.ArgumentParser(prog="python -m bench.run", description="Measure Mailward and its peers.")
    names = ",".join(job.name for job in JOBS)
    parser.add_argument("--jobs", type=jobs_named, default=list(JOBS), help=f"some of {names}; default all")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default 3)")
    parser.add_argument("--messages", type=int, default=4000, help="4 kB messages a round (default 4000)")
    parser.add_argument("--scenarios", type=comma_separated, default=(), help="some of greylist-outage's; default all")
    parser.add_argument("--no-keep", dest="keep", action="store_false", help="print, and leave RESULTS.md as it is")
    parsed = parser.parse_args(arguments)
    if parsed.scenarios and parsed.keep:
        parser.error("some scenarios are no section of RESULTS.md: --scenarios takes --no-keep")
    return parsed


def comma_separated(names: str) -> list[str]:
    """Return what stands between the commas."""
    return names.split(",")


def jobs_named(names: str) -> list[Job]:
    """Return the jobs of a comma-separated list.

    >>> [job.name for job in jobs_named("dual,sign")]
    ['sign', 'dual']
    """
    wanted = set(names.split(","))
    unknown = wanted - {job.name for job in JOBS}
    if unknown:
        raise argparse.ArgumentTypeError(f"no such job: {', '.join(sorted(unknown))}")
    return [job for job in JOBS if job.name in wanted]


def say(text: str) -> None:
    """Tell the person who waits what goes on; the tables alone go to stdout."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
