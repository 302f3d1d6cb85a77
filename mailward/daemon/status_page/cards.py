"""What a daemon did, for the status page: each Shown as numbers and plots of the last hour and the last day."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from mailward.daemon.history import DAY, HOUR, History
from mailward.daemon.metrics import Histogram, Metrics
from mailward.daemon.shown import Part, Shown, Tone
from mailward.daemon.status_page.plots import Row, bars, gathered

DAY_BAR = 15  # minutes

_MILLISECONDS = 1000.0


@dataclass(frozen=True, slots=True)
class Numbers:
    """What was counted: now, and in each minute of the last day."""

    metrics: Metrics
    history: History
    totals: Sequence[float]

    def minutes(self, cells: Sequence[int]) -> list[float]:
        """Return the sum of several numbers in each minute of the last day."""
        rings = [self.history.minutes(cell) for cell in cells if self.history.knows(cell)]
        return [sum(minute) for minute in zip(*rings, strict=True)] if rings else [0.0] * DAY

    def cells(self, part: Part) -> list[int]:
        """Return where the numbers of a part are."""
        values = part.values or self.metrics.shown_values(part.metric, self.totals)
        return [self.metrics.cell(part.metric, value) for value in values]


def card(shown: Shown, numbers: Numbers) -> str:
    """Return a table of the parts, and how they came over the last hour and day."""
    rows, table = [], []
    for part in shown.parts:
        cells = numbers.cells(part)
        minutes = numbers.minutes(cells)
        rows.append(Row(part.tone.value, minutes))
        table.append(
            f'<tr><td><i class="swatch {part.tone.value}"></i>{html.escape(part.says)}'
            f'<td class="n">{count(sum(minutes[-HOUR:]))}<td class="n">{count(sum(minutes))}'
            f'<td class="n">{count(sum(numbers.totals[cell] for cell in cells))}'
        )
    name = html.escape(shown.title)
    return (
        f'<section class="card" id="did-{_word(shown.title)}"><h3>{name}</h3>'
        '<table><tr><th>what<th class="n">hour<th class="n">day<th class="n">in all'
        f'{"".join(table)}</table><div class="plots">{_two_plots(shown.title, rows)}</div>'
        f"{_took(shown, numbers) if shown.seconds else ''}</section>"
    )


def _two_plots(title: str, rows: Sequence[Row]) -> str:
    hour = [Row(row.tone, row.values[-HOUR:]) for row in rows]
    day = [Row(row.tone, gathered(row.values, DAY_BAR)) for row in rows]
    return _figure(title, hour, "last hour", "a minute") + _figure(title, day, "last day", f"in {DAY_BAR} min")


def _figure(title: str, rows: Sequence[Row], period: str, unit: str) -> str:
    highest = max((sum(column) for column in zip(*(row.values for row in rows), strict=True)), default=0.0)
    most = f"at most {count(highest)} {unit}"
    return f"<figure>{bars(rows, f'{title}, {period}: {most}')}<figcaption>{period}, {most}</figcaption></figure>"


def _took(shown: Shown, numbers: Numbers) -> str:
    """Return how long each took: the mean over time, and within what most were done."""
    spec = next(spec for spec in numbers.metrics.specs if spec.name == shown.seconds)
    assert isinstance(spec, Histogram)  # check_shown() saw to it
    first = numbers.metrics.cell(spec.name)
    buckets = range(first, first + len(spec.bounds) + 1)
    counts, sums = numbers.minutes(buckets), numbers.minutes([buckets.stop])
    figures = [
        _mean_figure(shown.title, counts[-HOUR:], sums[-HOUR:], 1, "last hour"),
        _mean_figure(shown.title, counts, sums, DAY_BAR, "last day"),
    ]
    told = []
    for period, minutes in (("hour", HOUR), ("day", DAY)):
        grown = [numbers.history.grown(cell, minutes) for cell in buckets]
        if sum(grown):
            half, most = (_within(spec.bounds, grown, part) for part in (0.5, 0.95))
            told.append(f"last {period}: half {half}, 95 % {most}")
    return f'<div class="plots">{"".join(figures)}</div><p><small>{"; ".join(told)}</small>'


def _mean_figure(title: str, counts: Sequence[float], sums: Sequence[float], size: int, period: str) -> str:
    pairs = zip(gathered(counts, size), gathered(sums, size), strict=True)
    means = [seconds / number * _MILLISECONDS if number else 0.0 for number, seconds in pairs]
    says = f"mean time, {period}, at most {milliseconds(max(means))}"
    return f"<figure>{bars([Row(Tone.PLAIN.value, means)], f'{title}: {says}')}<figcaption>{says}</figcaption></figure>"


def _within(bounds: Sequence[float], grown: Sequence[float], part: float) -> str:
    """Return the least bound that this part of the measures did not exceed."""
    wanted = sum(grown) * part
    for bound, reached in zip(bounds, accumulate(grown), strict=False):
        if reached >= wanted:
            return f"within {milliseconds(bound * _MILLISECONDS)}"
    return f"over {milliseconds(bounds[-1] * _MILLISECONDS)}"


def count(number: float) -> str:
    r"""Return a whole number as people read it.

    >>> count(1234567.0) == "1\u202f234\u202f567"
    True
    """
    return f"{number:,.0f}".replace(",", "\u202f")


def milliseconds(number: float) -> str:
    """Return a time in its right unit.

    >>> milliseconds(0.5), milliseconds(250.0), milliseconds(2500.0)
    ('0.5 ms', '250 ms', '2.5 s')
    """
    return f"{number / _MILLISECONDS:.3g} s" if number >= _MILLISECONDS else f"{number:.3g} ms"


def _word(title: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in title.lower())
