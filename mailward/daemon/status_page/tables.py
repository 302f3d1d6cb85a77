"""The status page's tables: what is away, what went wrong, the workers, every counter, what the workers know.

Everything that is not a word of ours is escaped.
"""

from __future__ import annotations

import html
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mailward.daemon.generation import Generation
from mailward.daemon.history import HOUR
from mailward.daemon.logbook import CRITICAL, Entry
from mailward.daemon.metrics import Counter, Gauge, Spec
from mailward.daemon.shown import Tone
from mailward.daemon.status_page.cards import DAY_BAR, Numbers, count
from mailward.daemon.status_page.plots import Row, bars, highest_of

MAX_NOTES_SHOWN = 500

# The labels of the gauges that say what is away: how it is called when it is not, and when so many workers find it so.
AWAY_LABELS: Mapping[str, tuple[str, str]] = {
    "nameserver": ("answers", "left alone by"),
    "breaker": ("closed", "open in"),
}
_SHOWN_ELSEWHERE = ("start_time_seconds", "info", "workers", "generation", "generations_draining")
_OCTETS_IN_MB = 1_000_000
_YES, _NO = "yes", '<b class="bad">no</b>'


@dataclass(frozen=True, slots=True)
class Measure:
    """A number that is served at /metrics: its name there, its help, the values of its labels, what it is now."""

    name: str
    is_counter: bool
    says: str
    labels: Mapping[str, str]
    value: float


def away_now(numbers: Numbers) -> list[str]:
    """Return the names of what is away, or stands aside."""
    return [
        value
        for spec in _away_gauges(numbers)
        for value in numbers.metrics.shown_values(spec.name, numbers.totals)
        if numbers.totals[numbers.metrics.cell(spec.name, value)]
    ]


def away_table(numbers: Numbers) -> str:
    """Return what may be away, whether it is, and when it was."""
    rows = [
        _away_row(spec, value, numbers)
        for spec in _away_gauges(numbers)
        for value in numbers.metrics.shown_values(spec.name, numbers.totals)
    ]
    if not rows:
        return "<p>Nothing that this daemon depends on can be away.</p>"
    return f"<table><tr><th>what<th>now<th>away in the last day{''.join(rows)}</table>"


def _away_gauges(numbers: Numbers) -> list[Gauge]:
    return [spec for spec in numbers.metrics.specs if isinstance(spec, Gauge) and spec.label in AWAY_LABELS]


def _away_row(spec: Gauge, value: str, numbers: Numbers) -> str:
    cell = numbers.metrics.cell(spec.name, value)
    well, away = AWAY_LABELS[spec.label]
    workers = numbers.totals[cell]
    state = (
        f'<b class="bad">{away} {_so_many(workers, "worker")}</b>' if workers else f'<span class="good">{well}</span>'
    )
    minutes = numbers.history.minutes(cell)
    away_minutes = sum(minute > 0 for minute in minutes)
    strip = "never"
    if away_minutes:
        says = f"{_so_many(away_minutes, 'minute')} of the last day"
        strip = bars([Row(Tone.BAD.value, [min(1.0, bar) for bar in highest_of(minutes, DAY_BAR)])], f"{value}: {says}")
        strip += f"<small>in {says}</small>"
    name = html.escape(value) + _beside(spec, value, numbers)
    return f'<tr><td>{name}<td class="w">{state}<td class="w">{strip}'


def _beside(gauge: Gauge, value: str, numbers: Numbers) -> str:
    """Return what else is counted of the same thing, in the last hour."""
    told = []
    for spec in numbers.metrics.specs:
        if isinstance(spec, Counter) and spec.label == gauge.label:
            grown = numbers.history.grown(numbers.metrics.cell(spec.name, value), HOUR)
            told.append(f"{spec.name.replace('_', ' ')} {count(grown)}")
    return f"<br><small>last hour: {html.escape(', '.join(told))}</small>" if told else ""


def gauge_table(measures: Sequence[Measure], prefix: str) -> str:
    """Return what goes up and down, as it is now, in the words of the metrics."""
    rows = []
    for one in measures:
        name = one.name.removeprefix(prefix + "_")
        if not one.is_counter and name not in _SHOWN_ELSEWHERE and AWAY_LABELS.keys().isdisjoint(one.labels):
            labels = " ".join(one.labels.values())
            says = f"{one.says.rstrip('.')}{f': {labels}' if labels else ''}"
            rows.append(f'<tr><td>{html.escape(says)}<td class="n">{_measure(name, one.value)}')
    return f"<table>{''.join(rows)}</table>" if rows else ""


def _measure(name: str, value: float) -> str:
    if name.endswith("_bytes"):
        return f"{value / _OCTETS_IN_MB:.1f} MB"
    return f"{value:.1%}" if name.endswith("_ratio") else count(value)


def error_list(entries: Sequence[Entry], now: float) -> str:
    """Return the last errors, the latest first; `now` is the time of day in seconds."""
    if not entries:
        return '<p class="good">None since this daemon started.</p>'
    return "".join(_error(entry, now) for entry in entries)


def _error(entry: Entry, now: float) -> str:
    times = f", {entry.seen} times since {clock(entry.first, now)}" if entry.seen > 1 else ""
    lines = "".join(
        f"<p><small>{clock(line.at, now)} {html.escape(line.source)}</small> "
        f"<code>{html.escape(line.text.partition(' ')[2])}</code>"
        for line in reversed(entry.lines)
    )
    colour = Tone.BAD.value if entry.level == CRITICAL else Tone.ODD.value
    return (
        f'<article class="said {html.escape(entry.level)}"><b class="{colour}">{html.escape(entry.level)}</b> '
        f"<b>{html.escape(entry.event)}</b>{times}{lines}</article>"
    )


def worker_table(generations: Sequence[Generation], now: float) -> str:
    """Return every worker of every generation; `now` is monotonic."""
    rows = [
        f"<tr><td>{generation.number} {generation.phase.value}<td>{record.pid}"
        f"<td>{_YES if record.is_ready else _NO}"
        f"<td>{duration(now - record.started)}<td>{now - record.last_heard:.1f} s ago"
        for generation in generations
        for record in generation.workers.values()
    ]
    head = "<tr><th>generation<th>process<th>serves<th>age<th>last heard"
    return f"<table>{head}{''.join(rows)}</table>"


def counter_table(numbers: Numbers, measures: Sequence[Measure], prefix: str) -> str:
    """Return every counter that is not zero: of what workers count also what came in the last hour and day."""
    rows = [row for spec in numbers.metrics.specs for row in _counter_rows(spec, numbers)]
    known = {f"{prefix}_{spec.name}" for spec in numbers.metrics.specs}
    for one in measures:
        if one.is_counter and one.value and one.name not in known:
            name = f"{one.name.removeprefix(prefix + '_')} {' '.join(one.labels.values())}"
            rows.append(f'<tr><td>{html.escape(name)}<td><td><td class="n">{count(one.value)}')
    head = '<tr><th>what<th class="n">hour<th class="n">day<th class="n">in all'
    return f"<table>{head}{''.join(rows)}</table>"


def _counter_rows(spec: Spec, numbers: Numbers) -> Iterable[str]:
    if isinstance(spec, Counter):
        for value in numbers.metrics.shown_values(spec.name, numbers.totals):
            cell = numbers.metrics.cell(spec.name, value)
            if numbers.totals[cell]:
                minutes = numbers.history.minutes(cell)
                yield (
                    f'<tr><td>{html.escape(f"{spec.name} {value}")}<td class="n">{count(sum(minutes[-HOUR:]))}'
                    f'<td class="n">{count(sum(minutes))}<td class="n">{count(numbers.totals[cell])}'
                )


def note_table(notes: Mapping[str, str]) -> str:
    """Return what the workers have told each other."""
    rows = [
        f"<tr><td>{html.escape(key)}<td>{html.escape(value)}" for key, value in sorted(notes.items())[:MAX_NOTES_SHOWN]
    ]
    return f"<table><tr><th>what<th>state{''.join(rows)}</table>"


def clock(moment: float, now: float) -> str:
    """Return a time of day, with its date where that is another."""
    then = time.localtime(moment)
    is_today = then[:3] == time.localtime(now)[:3]
    return time.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M:%S", then)


def duration(seconds: float) -> str:
    """Return a time in the two units that say most of it.

    >>> duration(59), duration(7500), duration(200_000)
    ('0 min 59 s', '2 h 5 min', '2 days 7 h')
    """
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{_so_many(days, 'day')} {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {left} s"


def _so_many(number: float, what: str) -> str:
    return f"{number:.0f} {what}{'' if number == 1 else 's'}"
