"""What a program shows of itself to people: which of its counters say what it did. Values only; the page draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from mailward.daemon.metrics import Counter, Histogram, Spec


class Tone(Enum):
    """How a part is meant, and so its colour; the value is its class in the page."""

    GOOD = "good"
    PLAIN = "plain"
    LATER = "later"  # told to come again
    ODD = "odd"  # worth a look
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Part:
    """One of the numbers that add up to a whole: a counter, or only some of its label's values."""

    says: str
    metric: str
    values: tuple[str, ...]  # of the counter's label; ("",) of one without, none at all: every value there is
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Shown:
    """A plot: parts that exclude each other; `seconds` names the histogram that says how long each took."""

    title: str
    parts: tuple[Part, ...]
    seconds: str = ""


def check_shown(shown: Sequence[Shown], specs: Sequence[Spec]) -> None:
    """Raise ValueError where something is to be shown that is not counted."""
    counters = {spec.name: spec.values for spec in specs if isinstance(spec, Counter)}
    histograms = {spec.name for spec in specs if isinstance(spec, Histogram)}
    for one in shown:
        if one.seconds and one.seconds not in histograms:
            raise ValueError(f"{one.title}: there is no histogram {one.seconds}")
        for part in one.parts:
            if part.metric not in counters or not set(part.values) <= set(counters[part.metric]):
                raise ValueError(f"{one.title}, {part.says}: {part.metric} counts no such thing")
