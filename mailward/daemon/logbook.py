"""The last errors, for the status page: what the supervisor and its workers wrote to the log at error and critical.

By event, so that one that comes a thousand times pushes none of the others out. Every bound is small: what makes errors may be
a stranger's mail.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from mailward.daemon.metrics import Counter, Spec

WARNING, ERROR, CRITICAL = "warning", "error", "critical"
LINES = "log_lines"
MAX_EVENTS = 30
LINES_KEPT = 3  # of an event, the last ones
MAX_TEXT = 900  # octets of a line that are kept: its beginning and its end

# Part of the metrics of every daemon.
LOG_METRICS: tuple[Spec, ...] = (
    Counter(LINES, "Lines written to the log that are no mere report.", "level", (WARNING, ERROR, CRITICAL)),
)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the log, escaped and clipped; `at` is the time of day in seconds, `source` a process."""

    at: float
    source: str
    text: str


@dataclass(slots=True)
class Entry:
    """All that is known of one event: `seen` counts what was told, which may be less than what happened."""

    level: str
    event: str
    first: float
    seen: int = 0
    lines: deque[Line] = field(default_factory=lambda: deque(maxlen=LINES_KEPT))


class Logbook:
    """What was told, the last event last."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def take(self, level: str, text: str, source: str, at: float) -> None:
        """Keep a line; `text` begins with its event (clipped()). What is neither an error nor critical is none of ours."""
        if level not in (ERROR, CRITICAL):
            return
        event = text.partition(" ")[0]
        entry = self._entries.pop(event, None) or Entry(level, event, at)
        entry.level, entry.seen = level, entry.seen + 1
        entry.lines.append(Line(at, source, text))
        self._entries[event] = entry
        if len(self._entries) > MAX_EVENTS:
            self._entries.pop(next(iter(self._entries)))

    def entries(self) -> Sequence[Entry]:
        """Return the events, the one that came last first."""
        return list(reversed(self._entries.values()))


def clipped(line: str) -> str:
    """Return what a line of the log says of its event: both ends of it, for a traceback's end says the most.

    >>> clipped("level=error program=x event=own-bug where=body")
    'own-bug where=body'
    """
    _, marker, said = line.partition(" event=")
    octets = (said if marker else line).encode("utf-8", "backslashreplace")
    if len(octets) > MAX_TEXT:
        half = MAX_TEXT // 2 - 3
        octets = octets[:half] + b" ... " + octets[-half:]
    return octets.decode("utf-8", "ignore")
