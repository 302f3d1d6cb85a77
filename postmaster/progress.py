"""A progress bar on stderr, where that is a terminal and there is enough to wait for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import click

SHORT = 20_000  # what takes no time needs no bar
STEP = 1000

# click loads its bar when it is first asked for one. By then this may be another account (postmaster.opening), which
# need not be able to read our modules.
click.progressbar(())

Item = TypeVar("Item")
Advance = Callable[[int], None]


@contextmanager
def progress(length: int, label: str) -> Iterator[Advance]:
    """Yield what tells the bar that some more of `length` is done."""
    if length < SHORT or not sys.stderr.isatty():
        yield lambda _amount: None
        return
    with click.progressbar(length=length, label=label, file=sys.stderr) as bar:
        left = length  # what comes while it is counted shall not go beyond the end

        def advance(amount: int) -> None:
            nonlocal left
            step = min(amount, left)
            left -= step
            bar.update(step)

        yield advance


def counted(items: Iterable[Item], advance: Advance) -> Iterator[Item]:
    """Yield the items, and tell the bar of every thousandth."""
    for number, item in enumerate(items, 1):
        if not number % STEP:
            advance(STEP)
        yield item
