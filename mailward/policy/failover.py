"""Whom to ask next, and when: one question's way through several servers. Pure: the caller sends, waits and has the clock.

The first server is preferred. One that takes longer than it usually does is overtaken by a question to the next, and
whoever answers first usefully wins. A server that fails is followed by the next at once. A question may get lost, so
each server is asked a second time after half of its time.

That overtaking costs each question its wait. So a server that is missing, silent since a question that was late, goes behind
those that are not, until it is heard again. It is asked less, never left out: that is the breaker's to decide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple, TypeVar

T = TypeVar("T")

LEAST_DELAY = 0.02  # seconds; less would overtake at every hiccup of a scheduler
MOST_DELAY = 0.25  # of the time-out, and where nothing is known of the server


class Latency(NamedTuple):
    """How long a server usually takes, in seconds (the smoothing of RFC 6298 2)."""

    smoothed: float
    deviation: float


def observe(latency: Latency | None, seconds: float) -> Latency:
    """Take one more measure into account."""
    if latency is None:
        return Latency(seconds, seconds / 2)
    deviation = 0.75 * latency.deviation + 0.25 * abs(latency.smoothed - seconds)
    return Latency(0.875 * latency.smoothed + 0.125 * seconds, deviation)


def hedge_delay(latency: Latency | None, timeout: float) -> float:
    """Return how long a server is waited for before the next is asked as well.

    >>> round(hedge_delay(Latency(0.05, 0.01), timeout=2.0), 3)
    0.09
    """
    most = timeout * MOST_DELAY
    if latency is None:
        return most
    return min(most, max(LEAST_DELAY, latency.smoothed + 4 * latency.deviation))


class SignsOfLife:
    """When a server was last heard, and when the last question was put to it that was late; seconds, monotonic.

    Many threads may use one without a lock: each method writes one number, and what a race leaves wrong the next answer
    puts right.
    """

    __slots__ = ("_late_since", "_seen_at")

    def __init__(self) -> None:
        self._seen_at = self._late_since = 0.0

    @property
    def is_missing(self) -> bool:
        """Whether nothing has come since a question that was late, or nothing ever."""
        return self._seen_at <= self._late_since

    def seen(self, now: float) -> None:
        """Take note of an answer, to whatever question and of whatever kind."""
        self._seen_at = now

    def missed(self, asked_at: float) -> None:
        """Take note that a question put at `asked_at` is late.

        It says nothing where the server has answered another one since: then the name is slow, and its owner may have chosen
        that. So silent names change the order only where nobody else's are being asked, and until the control question.
        """
        if asked_at > self._seen_at:
            self._late_since = asked_at


def present_first(servers: Sequence[T], signs: Callable[[T], SignsOfLife]) -> list[T]:
    """Return the servers in their order, those that are missing last; where all of them are, nothing is changed."""
    return sorted(servers, key=lambda server: signs(server).is_missing)


class Action(Enum):
    """What the caller is to do next."""

    ASK = "ask"  # the server for the first time, since those before it have failed
    HEDGE = "hedge"  # the server for the first time, since those before it are late
    ASK_AGAIN = "ask again"
    LATE = "late"  # take note that this server takes longer than it usually does
    TIME_OUT = "time-out"  # this server's time is over
    WAIT = "wait"  # for answers, until the time given
    END = "end"  # nobody is left


class Step(NamedTuple):
    """An action, for which server (its number), until when; for one that is late, since when."""

    action: Action
    server: int = -1
    until: float = 0.0
    asked_at: float = 0.0


class _Asked:
    __slots__ = ("asked_at", "is_asked_twice", "is_known_late", "late_at", "over_at", "repeat_at")

    def __init__(self, now: float, delay: float, timeout: float) -> None:
        self.asked_at = now
        self.late_at = now + delay
        self.repeat_at = now + timeout / 2
        self.over_at = now + timeout
        self.is_known_late = False
        self.is_asked_twice = False


class Race:
    """One question; servers are numbers from 0, the preferred one first. Each is waited for `timeout` seconds."""

    def __init__(self, delays: Sequence[float], timeout: float) -> None:
        """`delays` has the hedge delay of each server."""
        self._delays = delays
        self._timeout = timeout
        self._next = 0
        self._asked: dict[int, _Asked] = {}

    def next(self, now: float) -> Step:
        """Say what to do; called again after each step has been done."""
        for server, asked in self._asked.items():
            if now >= asked.over_at:
                del self._asked[server]
                return Step(Action.TIME_OUT, server)
            if now >= asked.late_at and not asked.is_known_late:
                asked.is_known_late = True
                return Step(Action.LATE, server, asked_at=asked.asked_at)
        if self._next < len(self._delays) and all(now >= asked.late_at for asked in self._asked.values()):
            return self._ask_next(now)
        for server, asked in self._asked.items():
            if now >= asked.repeat_at and not asked.is_asked_twice:
                asked.is_asked_twice = True
                return Step(Action.ASK_AGAIN, server)
        if not self._asked:
            return Step(Action.END)
        return Step(Action.WAIT, until=min(self._changes()))

    def failed(self, server: int) -> None:
        """Take note that no useful answer will come from this server."""
        self._asked.pop(server, None)

    def restart(self, server: int, now: float) -> None:
        """Give a server that has answered all its time anew, to answer in another form."""
        asked = self._asked[server] = _Asked(now, self._delays[server], self._timeout)
        asked.is_known_late = asked.is_asked_twice = True

    def _ask_next(self, now: float) -> Step:
        server = self._next
        self._next += 1
        action = Action.HEDGE if self._asked else Action.ASK
        self._asked[server] = _Asked(now, self._delays[server], self._timeout)
        return Step(action, server)

    def _changes(self) -> list[float]:
        """Return the times at which there will be something to do."""
        changes = [asked.over_at for asked in self._asked.values()]
        changes += [asked.late_at for asked in self._asked.values() if not asked.is_known_late]
        changes += [asked.repeat_at for asked in self._asked.values() if not asked.is_asked_twice]
        if self._next < len(self._delays):
            changes.append(max(asked.late_at for asked in self._asked.values()))
        return changes
