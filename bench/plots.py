"""Plots as SVG, by plain code: what happened in each second, stacked, with a part of the time shaded.

They bring their own background, light or dark as the reader's system is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

PLOTS = Path(__file__).with_name("plots")
WIDTH, LEFT, RIGHT = 860, 62, 20
TOP, GAP, BOTTOM = 102, 34, 46
PIXELS_A_TICK = 42
STYLE = """\
:root { --paper: #ffffff; --ink: #1f2328; --faint: #6e7781; --grid: #e3e6ea; --shade: #f5c9b8; --alarm: #b3261e;
  --c0: #2f6fb3; --c1: #7fb2e5; --c2: #d98a1f; --c3: #4a4f57; }
@media (prefers-color-scheme: dark) { :root { --paper: #0d1117; --ink: #e6edf3; --faint: #9198a1; --grid: #262c34;
  --shade: #5a2b20; --alarm: #ff8a80; --c0: #3d85d1; --c1: #8fc4f5; --c2: #e3a13d; --c3: #c9d1d9; } }
text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: var(--ink); }
.title { font-size: 15px; font-weight: 600; } .faint { fill: var(--faint); }"""


@dataclass(frozen=True, slots=True)
class Series:
    """A name for the legend, and one value for each second."""

    name: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Panel:
    """Series on top of each other (or one as a line), on one axis; `limit` is a line that must not be reached."""

    label: str
    series: Sequence[Series]
    height: int
    is_line: bool = False
    limit: float = 0.0
    first_colour: int = 0


@dataclass(frozen=True, slots=True)
class Plot:
    """Panels over the same seconds, of which those from `shaded[0]` to `shaded[1]` are shaded and named."""

    title: str
    subtitle: str
    panels: Sequence[Panel]
    shaded: tuple[float, float]
    shade_name: str


def draw(plot: Plot) -> str:
    """Return the plot as an SVG document."""
    seconds = len(plot.panels[0].series[0].values)
    height = TOP + sum(panel.height for panel in plot.panels) + GAP * (len(plot.panels) - 1) + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">',
        f"<title>{escape(plot.title)}: {escape(plot.subtitle)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="var(--paper)"/>',
        f'<text class="title" x="{LEFT}" y="26">{escape(plot.title)}</text>',
        f'<text class="faint" x="{LEFT}" y="45">{escape(plot.subtitle)}</text>',
        *_legend(plot),
    ]
    top = TOP
    for panel in plot.panels:
        parts += _panel(panel, plot, top, seconds)
        top += panel.height + GAP
    parts += _time_axis(top - GAP, seconds)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _legend(plot: Plot) -> Iterator[str]:
    """Yield the names of all series and of what is shaded, in one line."""
    named = [
        (series.name, f"var(--c{panel.first_colour + number})")
        for panel in plot.panels
        for number, series in enumerate(panel.series)
    ]
    x = float(LEFT)
    for name, colour in [*named, (plot.shade_name, "var(--shade)")]:
        yield f'<rect x="{x:.0f}" y="59" width="12" height="12" rx="2" fill="{colour}"/>'
        yield f'<text x="{x + 17:.0f}" y="69">{escape(name)}</text>'
        x += 36 + 6.6 * len(name)


def _panel(panel: Panel, plot: Plot, top: float, seconds: int) -> Iterator[str]:
    """Yield one panel: shade, grid, series, limit, and its label."""
    bottom = top + panel.height
    highest = max(panel.limit, *(sum(column) for column in zip(*(it.values for it in panel.series), strict=True)))
    step = tick_step(highest, max(2, panel.height // PIXELS_A_TICK))
    ceiling = max(step, math.ceil(highest / step) * step)
    start, end = (_x(moment, seconds) for moment in plot.shaded)
    yield f'<rect x="{start:.1f}" y="{top}" width="{end - start:.1f}" height="{panel.height}" fill="var(--shade)"/>'
    for number in range(round(ceiling / step) + 1):
        y = bottom - panel.height * number * step / ceiling
        yield f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="var(--grid)"/>'
        yield f'<text class="faint" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{number * step:g}</text>'
    floor = [0.0] * seconds
    for number, series in enumerate(panel.series):
        roof = [below + value for below, value in zip(floor, series.values, strict=True)]
        colour = f"var(--c{panel.first_colour + number})"
        upper = _steps(roof, bottom, panel.height / ceiling)
        if panel.is_line:
            yield f'<polyline points="{" ".join(upper)}" fill="none" stroke="{colour}" stroke-width="2"/>'
        else:
            lower = reversed(_steps(floor, bottom, panel.height / ceiling))
            yield f'<polygon points="{" ".join([*upper, *lower])}" fill="{colour}"/>'
        floor = roof
    if panel.limit:
        y = bottom - panel.height * panel.limit / ceiling
        line = f'x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"'
        yield f'<line {line} stroke="var(--alarm)" stroke-dasharray="5 4"/>'
    yield f'<text class="faint" x="{LEFT}" y="{top - 6}">{escape(panel.label)}</text>'


def _steps(values: Sequence[float], bottom: float, scale: float) -> list[str]:
    """Return the corners of a line that is level for each second."""
    corners = []
    for second, value in enumerate(values):
        y = bottom - value * scale
        corners += [f"{_x(second, len(values)):.1f},{y:.1f}", f"{_x(second + 1, len(values)):.1f},{y:.1f}"]
    return corners


def _time_axis(bottom: float, seconds: int) -> Iterator[str]:
    step = tick_step(seconds, 10)
    yield f'<line x1="{LEFT}" y1="{bottom}" x2="{WIDTH - RIGHT}" y2="{bottom}" stroke="var(--faint)"/>'
    for number in range(math.floor(seconds / step) + 1):
        x = _x(number * step, seconds)
        yield f'<line x1="{x:.1f}" y1="{bottom}" x2="{x:.1f}" y2="{bottom + 5}" stroke="var(--faint)"/>'
        yield f'<text class="faint" x="{x:.1f}" y="{bottom + 19}" text-anchor="middle">{number * step:g}</text>'
    yield f'<text class="faint" x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{bottom + 37}" text-anchor="middle">seconds</text>'


def _x(second: float, seconds: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * second / seconds


def tick_step(highest: float, wanted: int) -> float:
    """Return a round distance of about `wanted` ticks.

    >>> tick_step(230, 5), tick_step(100, 2), tick_step(0, 5)
    (50.0, 50.0, 1.0)
    """
    if highest <= 0:
        return 1.0
    rough = highest / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
