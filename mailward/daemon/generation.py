"""What the supervisor knows of its workers: values that it alone changes."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from enum import Enum

from mailward.daemon.program import Loaded


class Phase(Enum):
    """Where a generation is in its life."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"


@dataclass(slots=True)
class WorkerRecord:
    """What the supervisor knows of one worker; times are monotonic seconds."""

    pid: int
    row: int
    control: socket.socket
    started: float
    last_heard: float
    is_ready: bool = False
    is_silent: bool = False


@dataclass(slots=True)
class Generation:
    """One reading of the configuration and its workers; `missing` counts those to be forked at `fork_at`."""

    number: int
    loaded: Loaded
    wanted: int
    started: float
    phase: Phase = Phase.STARTING
    workers: dict[int, WorkerRecord] = field(default_factory=dict)
    failures: int = 0
    fork_at: float = 0.0
    drain_deadline: float = 0.0

    @property
    def is_ready(self) -> bool:
        """Whether every worker serves."""
        ready = [record for record in self.workers.values() if record.is_ready]
        return len(ready) >= self.wanted


@dataclass(slots=True)
class Tally:
    """What the supervisor itself counts, for its metrics."""

    died: int = 0
    silent: int = 0
    reloads: int = 0
    failed_reloads: int = 0
    was_last_refused: bool = False

    def reload_done(self) -> None:
        """Count a new configuration that serves."""
        self.reloads += 1
        self.was_last_refused = False

    def reload_refused(self) -> None:
        """Count one that cannot, while the old one goes on."""
        self.failed_reloads += 1
        self.was_last_refused = True
