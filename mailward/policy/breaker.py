"""A circuit breaker: what fails again and again is left alone, and asked now and then whether it is back. Pure values.

Closed: in use. Open: left alone until `retry_at`. Half-open: one probe is under way, and its end decides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class BreakerState(Enum):
    """Where a breaker is in its circle."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When a breaker opens and how long it stays open, in seconds.

    The wait doubles with each probe that fails. With the jitter and the probe's own time-out, what is back is in use again
    within 10 s.
    """

    failures_to_open: int = 2
    first_wait: float = 0.5
    longest_wait: float = 5.0


DEFAULT_RULES = BreakerRules()


@dataclass(frozen=True, slots=True)
class Breaker:
    """A breaker's state: each event makes the next one. `now` is monotonic seconds, `jitter` a random number from 0 to 1."""

    rules: BreakerRules = DEFAULT_RULES
    state: BreakerState = BreakerState.CLOSED
    failures: int = 0  # in a row
    wait: float = 0.0
    retry_at: float = 0.0

    @property
    def is_closed(self) -> bool:
        """Whether what stands behind it may be used."""
        return self.state is BreakerState.CLOSED

    def failed(self, now: float, jitter: float) -> Breaker:
        """Count a failure; enough of them in a row, or a probe's, open the breaker.

        The jitter keeps many processes from probing in step.
        """
        failures = self.failures + 1
        if self.is_closed and failures < self.rules.failures_to_open:
            return replace(self, failures=failures)
        wait = min(self.rules.longest_wait, self.wait * 2 or self.rules.first_wait)
        retry_at = now + wait * (0.75 + 0.5 * jitter)
        return replace(self, state=BreakerState.OPEN, failures=failures, wait=wait, retry_at=retry_at)

    def succeeded(self) -> Breaker:
        """Close the breaker and forget what failed."""
        return Breaker(self.rules)

    def probe(self, now: float) -> Breaker | None:
        """Return the half-open breaker to whoever may probe now; None to all others: one probe at a time."""
        if self.state is BreakerState.OPEN and now >= self.retry_at:
            return replace(self, state=BreakerState.HALF_OPEN)
        return None
