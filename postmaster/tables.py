"""Aligned columns for a terminal, and JSON; nothing from outside passes raw."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import click

from postmaster.explain.layout import Span, printable, styled
from postmaster.json_text import json_text

GAP = "  "
MAX_COLUMN = 60  # characters to which others are aligned: one long address does not push a whole column away

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Best(Generic[Row]):
    """The first rows of a sorted list, and how many there were."""

    rows: tuple[Row, ...]
    total: int

    @property
    def left_out(self) -> int:
        """How many are not among the rows."""
        return self.total - len(self.rows)


def best_of(rows: Iterable[Row], limit: int, key: Callable[[Row], tuple[object, ...]]) -> Best[Row]:
    """Return the `limit` smallest rows by their key, in order; never holds more of them than that."""
    total = 0

    def counted() -> Iterator[Row]:
        nonlocal total
        for row in rows:
            total += 1
            yield row

    best = heapq.nsmallest(limit, counted(), key)  # type: ignore[type-var]
    return Best(tuple(best), total)


def table(heading: Sequence[str], rows: Sequence[Sequence[str | Span]], indent: int = 2) -> None:
    """Print rows below a heading, their columns aligned; a cell may have its tone."""
    cells = [[Span(cell) for cell in heading], *([_escaped(cell) for cell in row] for row in rows)]
    widths = [min(max(len(row[column].text) for row in cells), MAX_COLUMN) for column in range(len(heading))]
    for row in cells:
        padding = [" " * (width - len(cell.text)) for cell, width in zip(row, widths, strict=True)]
        line = GAP.join(styled(cell) + space for cell, space in zip(row, padding, strict=True))
        click.echo(" " * indent + line.rstrip())


def labelled(rows: Iterable[tuple[str, str | Span]], indent: int = 2) -> None:
    """Print labels and what is said of each."""
    shown = [(label, _escaped(text)) for label, text in rows]
    width = max((len(label) for label, _ in shown), default=0)
    for label, text in shown:
        click.echo(f"{' ' * indent}{label.ljust(width)}{GAP}{styled(text)}".rstrip())


def hint(best: Best[Row], what: str, how: str) -> None:
    """Say how many were not shown, and how they are."""
    if best.left_out:
        click.echo(f"  ... and {best.left_out} more {what}; {how}")


def print_json(tree: Mapping[str, object]) -> None:
    """Print one JSON object in printable ASCII."""
    click.echo(json_text(tree))


def _escaped(cell: str | Span) -> Span:
    return cell._replace(text=printable(cell.text)) if isinstance(cell, Span) else Span(printable(cell))
