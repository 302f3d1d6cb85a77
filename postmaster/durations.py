"""Moments and durations as an operator reads and writes them. No clock: `now` is an argument."""

from __future__ import annotations

import datetime

import click

from mailward.settings.values import READERS, Duration

_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def read_duration(text: str, most: float, shown_most: str) -> float:
    """Read a duration with its unit, of at least a second. Raises click.BadParameter."""
    try:
        seconds = float(READERS[Duration](text))  # type: ignore[arg-type]
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if not 1.0 <= seconds <= most:
        raise click.BadParameter(f"expected a duration from 1s to {shown_most}")
    return seconds


def in_words(seconds: float) -> str:
    """Return a duration in its two largest units, cut off.

    >>> in_words(40.9), in_words(3725), in_words(90000), in_words(0.2)
    ('40s', '1h 2m', '1d 1h', '0s')
    """
    left = max(0, int(seconds))
    for index, (size, unit) in enumerate(_UNITS):
        if left >= size:
            rest = left % size
            if index + 1 < len(_UNITS) and rest >= _UNITS[index + 1][0]:
                next_size, next_unit = _UNITS[index + 1]
                return f"{left // size}{unit} {rest // next_size}{next_unit}"
            return f"{left // size}{unit}"
    return "0s"


def clock(moment: float) -> str:
    """Return a moment in local time with its seconds; "?" for what is no moment."""
    try:
        return datetime.datetime.fromtimestamp(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):  # a store holds what was written into it
        return "?"


def ago(moment: float, now: float) -> str:
    """Return a moment of the past and how long ago it was."""
    return f"{clock(moment)} ({in_words(now - moment)} ago)"


def ahead(moment: float, now: float) -> str:
    """Return a moment to come and in how long that will be."""
    return f"{clock(moment)} (in {in_words(moment - now)})"
