"""How much room a program's state takes, for its metrics: the workers tell it the supervisor in notes.

It is no gauge of a worker's: those are added up, and all workers have one file.
"""

from __future__ import annotations

from functools import partial

from mailward.daemon.metrics import Gauge, told_gauges
from mailward.daemon.program import Collect, Notes
from mailward.model.state import StateSize

OCTETS, FILL = "state_bytes", "state_fill_ratio"

TELL_SECONDS = 60.0  # how old the numbers may be

STATE_GAUGES = (
    Gauge(OCTETS, "Octets of disk that the state takes, its log included; nothing where it is in Redis."),
    Gauge(FILL, "Part in use of what the state may take: of 2 GiB, or of what the disk has left."),
)


def tell_size(notes: Notes, size: StateSize) -> None:
    """Tell the supervisor."""
    notes.note(OCTETS, str(size.octets))
    notes.note(FILL, f"{size.fill:.4f}")


def size_collector(prefix: str) -> Collect:
    """Return what turns the notes into the gauges, whose names begin with `prefix`."""
    return partial(told_gauges, prefix, STATE_GAUGES)
