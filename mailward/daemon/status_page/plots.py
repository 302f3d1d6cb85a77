"""Small plots as SVG text: bars that stand on each other. Pure; no number is written that is not finite and short."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

BAR, GAP, HEIGHT = 10, 2, 100
MOST = (
    1e30  # sums of these are finite; no counter of ours gets there, but the page is made of memory that workers share
)


@dataclass(frozen=True, slots=True)
class Row:
    """The bars of one colour; `tone` is a class of the page's style."""

    tone: str
    values: Sequence[float]


def bars(rows: Sequence[Row], says: str) -> str:
    """Draw rows of equal length, the first one lowest, as high as the highest column; `says` is for those who do not see it."""
    columns = list(zip(*(map(_drawn, row.values) for row in rows), strict=True))
    highest = max((sum(column) for column in columns), default=0.0)
    says = html.escape(says)
    drawn = [
        f'<svg class="plot" viewBox="0 0 {max(1, len(columns)) * BAR} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{says}"><title>{says}</title>'
    ]
    floors = [0.0] * len(columns)
    for row in rows:
        path = []
        for at, value in enumerate(map(_drawn, row.values)):
            if value:
                top = _short(HEIGHT - (floors[at] + value) / highest * HEIGHT)
                path.append(f"M{at * BAR} {top}h{BAR - GAP}v{_short(value / highest * HEIGHT)}h-{BAR - GAP}z")
                floors[at] += value
        if path:
            drawn.append(f'<path class="{html.escape(row.tone)}" d="{"".join(path)}"/>')
    drawn.append("</svg>")
    return "".join(drawn)


def _drawn(value: float) -> float:
    """Return what of a number can be drawn: nothing of one below zero, beyond all bounds, or none at all."""
    return value if 0 < value < MOST else 0.0


def gathered(minutes: Sequence[float], size: int) -> list[float]:
    """Add up each `size` neighbours.

    >>> gathered([1, 2, 3, 4], 2)
    [3, 7]
    """
    return [sum(minutes[at : at + size]) for at in range(0, len(minutes), size)]


def highest_of(minutes: Sequence[float], size: int) -> list[float]:
    """Return the highest of each `size` neighbours.

    >>> highest_of([1, 2, 3, 1], 2)
    [2, 3]
    """
    return [max(minutes[at : at + size]) for at in range(0, len(minutes), size)]


def _short(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
