"""A spike of deferrals by strangers: many more in the last minutes than usual. It raises an alert, and nothing else.

A botnet's run and a fault of ours look the same here, so that nothing may follow from it but that somebody looks. Pure values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class SpikeRules:
    """What a spike is. Times are seconds.

    The deferrals of the last `interval` are a spike when there are `least` of them and `times_usual` as many as usual; it is over
    when there are fewer than half of what makes one. What is usual follows what happens within about `memory`.
    """

    interval: float = 300.0
    least: float = 100.0
    times_usual: float = 10.0
    over_below: float = 0.5
    memory: float = 86400.0


@dataclass(frozen=True, slots=True)
class SpikeWatch:
    """What has been usual so far: deferrals in an interval. `seen_at` 0.0: nothing has been seen."""

    rules: SpikeRules = SpikeRules()
    usual: float = 0.0
    seen_at: float = 0.0
    is_spike: bool = False

    def step(self, deferred: float, now: float) -> tuple[SpikeWatch, bool]:
        """Take the number of strangers deferred in the last interval; say whether a spike has begun with it.

        May be called as often as one likes. The first call only learns.
        """
        deferred = max(0.0, deferred)
        if not self.seen_at or now < self.seen_at:  # the clock was set back: time runs on from here
            usual = self.usual if self.seen_at else deferred
            return replace(self, usual=usual, seen_at=now), False
        wanted = max(self.rules.least, self.usual * self.rules.times_usual)
        is_spike = deferred >= (wanted * self.rules.over_below if self.is_spike else wanted)
        usual = self._smoothed(min(deferred, wanted), now - self.seen_at)
        return replace(self, usual=usual, seen_at=now, is_spike=is_spike), is_spike and not self.is_spike

    def _smoothed(self, deferred: float, seconds: float) -> float:
        # What makes a spike is as much as one moment may teach: else a run teaches within minutes that runs are usual.
        kept = math.exp(-seconds / self.rules.memory)
        return self.usual * kept + deferred * (1.0 - kept)
