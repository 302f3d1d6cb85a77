"""What was counted in each minute of the last day. No I/O, and the clock is the caller's; only the supervisor keeps one.

A ring of minutes for each number that has ever been other than zero, so that what never happens costs nothing. The rings lie
in memory that forked workers share and never copy.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection, Sequence

MINUTE = 60.0
HOUR, DAY = 60, 24 * 60  # in minutes
MAX_RINGS = 160  # 5760 octets each, so less than 1 MB; more takes a dozen nameservers and every counter above zero


class History:
    """The rings. A number that only grows is kept as what it grew by; a gauge as its highest in each minute."""

    def __init__(self, width: int, gauges: Collection[int], now: float) -> None:
        """Begin at `now`, in monotonic seconds. A number is known by its place in `width` totals; `gauges` are some of these."""
        self._gauges = frozenset(gauges)
        self._rings: dict[int, memoryview[float]] = {}
        self._room: memoryview[float] = memoryview(mmap.mmap(-1, MAX_RINGS * DAY * 4)).cast("f")
        self._at = 0  # the minute that is being filled
        self._minute_began = now
        self._at_minute_start: Sequence[float] = [0.0] * width
        self._last: Sequence[float] = self._at_minute_start

    def take(self, totals: Sequence[float], now: float) -> None:
        """Learn how far every number is at `now`; what no look was taken at for minutes counts for the last of them."""
        over = int((now - self._minute_began) // MINUTE)
        if over > 0:
            self._minute_began += over * MINUTE
            self._at_minute_start = self._last
        for _ in range(min(DAY, over)):
            self._begin_minute()
        self._last = totals
        for number, total in enumerate(totals):
            if number in self._gauges:
                self._put(number, total, is_highest=True)
            else:
                self._put(number, total - self._at_minute_start[number], is_highest=False)

    def _begin_minute(self) -> None:
        self._at = (self._at + 1) % DAY
        for ring in self._rings.values():
            ring[self._at] = 0.0

    def _put(self, number: int, value: float, *, is_highest: bool) -> None:
        ring = self._rings.get(number)
        if ring is None:
            if not value or len(self._rings) >= MAX_RINGS:
                return
            start = len(self._rings) * DAY
            ring = self._rings[number] = self._room[start : start + DAY]
        ring[self._at] = max(ring[self._at], value) if is_highest else value

    def minutes(self, number: int, count: int = DAY) -> list[float]:
        """Return a number's last `count` minutes, the oldest first; the last one is not over yet."""
        ring = self._rings.get(number)
        if ring is None:
            return [0.0] * count
        first = self._at + 1 - count
        whole = list(ring)
        return whole[first:] + whole[: self._at + 1] if first < 0 else whole[first : self._at + 1]

    def knows(self, number: int) -> bool:
        """Whether a number was ever other than zero."""
        return number in self._rings

    def grown(self, number: int, count: int) -> float:
        """Return what a number grew by in the last `count` minutes."""
        return sum(self.minutes(number, count)) if number in self._rings else 0.0
