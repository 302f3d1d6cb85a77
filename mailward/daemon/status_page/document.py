"""The page for people at /: what a daemon did in the last hour and day, what is away, what went wrong.

Read-only, whole in itself, readable on a phone. Whatever came from outside is escaped where it enters.
"""

from __future__ import annotations

import html
import time
from collections.abc import Sequence
from dataclasses import dataclass

import mailward
from mailward.daemon.history import HOUR
from mailward.daemon.logbook import CRITICAL, ERROR, LINES, WARNING
from mailward.daemon.program import Program
from mailward.daemon.shown import Part, Shown, Tone
from mailward.daemon.status_page.assets import REFRESH_SECONDS_WITHOUT_SCRIPT, SCRIPT, STYLE
from mailward.daemon.status_page.cards import Numbers, card
from mailward.daemon.status_page.tables import (
    Measure,
    away_now,
    away_table,
    clock,
    counter_table,
    duration,
    error_list,
    gauge_table,
    note_table,
    worker_table,
)
from mailward.daemon.supervisor import Supervisor

_LOG = Shown(
    "Lines of the log",
    (
        Part("warnings", LINES, (WARNING,), Tone.PLAIN),
        Part("errors", LINES, (ERROR,), Tone.ODD),
        Part("critical", LINES, (CRITICAL,), Tone.BAD),
    ),
)


@dataclass(frozen=True, slots=True)
class Moment:
    """When the page is made: monotonic seconds, seconds of the time of day, and for how many of them the daemon has been up."""

    monotonic: float
    today: float
    up: float


def page(
    program: Program, supervisor: Supervisor, numbers: Numbers, measures: Sequence[Measure], moment: Moment
) -> str:
    """Return the page as HTML."""
    name = html.escape(f"mailward-{program.name}")
    cards = "".join(card(shown, numbers) for shown in program.shown)
    sections = [
        _headline(name, supervisor, numbers, moment),
        f'<h2 id="did">What it did</h2><div class="cards">{cards}</div>',
        f'<h2 id="errors">Last errors</h2>{error_list(supervisor.logbook.entries(), moment.today)}'
        f'<div class="cards">{card(_LOG, numbers)}</div>',
        f'<h2 id="away">What it depends on</h2>{_store(supervisor)}{away_table(numbers)}',
        f'<h2 id="now">Now</h2>{gauge_table(measures, program.metric_prefix)}',
        f'<h2 id="workers">Workers</h2>{worker_table(supervisor.generations, moment.monotonic)}',
        _folded("counters", "Everything counted", counter_table(numbers, measures, program.metric_prefix)),
    ]
    if supervisor.notes:
        sections.append(_folded("notes", "Known to the workers", note_table(supervisor.notes)))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<noscript><meta http-equiv="refresh" content="{REFRESH_SECONDS_WITHOUT_SCRIPT}"></noscript>'
        f"<title>{name}</title><style>{STYLE}</style></head><body>"
        '<p id="stale" class="bad" role="status">It does not answer: this is what it said last.</p>'
        f"<main>{''.join(sections)}</main><script>{SCRIPT}</script></body></html>"
    )


def _headline(name: str, supervisor: Supervisor, numbers: Numbers, moment: Moment) -> str:
    ready = '<b class="good">serving</b>' if supervisor.is_ready else '<b class="bad">not serving</b>'
    zone = html.escape(time.strftime("%Z", time.localtime(moment.today)))
    return (
        f'<h1 id="top">{name}</h1><p>{ready} · version {mailward.__version__} · up {duration(moment.up)} · '
        f"{clock(moment.today, moment.today)} {zone} · "
        '<a id="to-metrics" href="metrics">metrics</a> <a id="to-health" href="healthz">health</a> '
        '<a id="to-readiness" href="readyz">readiness</a></p>'
        f"{_trouble(numbers)}"
    )


def _trouble(numbers: Numbers) -> str:
    """Say in one line whether the rest has to be read."""
    said = []
    away = away_now(numbers)
    if away:
        said.append(f'<a id="to-away" href="#away">Away or aside: {html.escape(", ".join(away))}</a>')
    cells = [numbers.metrics.cell(LINES, level) for level in (ERROR, CRITICAL)]
    errors = sum(numbers.history.grown(cell, HOUR) for cell in cells)
    if errors:
        said.append(
            f'<a id="to-errors" href="#errors">{errors:.0f} {"error" if errors == 1 else "errors"} in the last hour</a>'
        )
    if not said:
        return '<p class="good">Nothing is away, and nothing went wrong in the last hour.</p>'
    return f'<p class="bad">{" · ".join(said)}</p>'


def _store(supervisor: Supervisor) -> str:
    serving = supervisor.serving
    if serving is None or not serving.loaded.store:
        return ""
    return f"<p>Its state is in {html.escape(serving.loaded.store)}.</p>"


def _folded(word: str, title: str, table: str) -> str:
    return f'<details id="{word}"><summary id="{word}-title">{title}</summary>{table}</details>'
