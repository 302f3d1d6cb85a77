"""What the DNS has said lately: answers by their time to live, and failures for some seconds. Bounded, no sockets.

Looked up without a lock at every question of every message (a dictionary's get is one step in Python); changed under one.
"""

from __future__ import annotations

import threading
from dataclasses import replace

from mailward.model.dns import Answer, Question

ENTRY_OCTETS = 450  # what an entry weighs beside its name and its records (measured: 360 to 400)
RECORD_OCTETS = 48  # a bytes object and its place in the tuple
MAX_STALE = 86400.0  # RFC 8767 5 suggests one to three days
MAX_FAILURES = 2000
FIRST_WAIT = 5.0  # RFC 9520 3.2: a failure is kept for a second at the least, five minutes at the most, ever longer
LONGEST_WAIT = 30.0


class Entry:
    """One kept answer, as it is given out, until when (monotonic seconds), and whether it was since the last sweep."""

    __slots__ = ("answer", "expires", "is_used", "octets")

    def __init__(self, answer: Answer, expires: float, octets: int) -> None:
        self.answer = answer
        self.expires = expires
        self.octets = octets
        self.is_used = False


class AnswerCache:
    """Answers, the oldest out first unless it was asked for since it was last looked at ("second chance").

    So a flood of names that are asked for once pushes out its own, and not the domains everybody writes to; and unlike
    with LRU nothing is moved, hence nothing locked, when an answer is found.
    """

    def __init__(self, max_entries: int, max_octets: int) -> None:
        self.entries: dict[Question, Entry] = {}  # for those who look one up; they set `is_used`, and respect `expires`
        self._max_entries = max_entries
        self._max_octets = max_octets
        self._octets = 0
        self._lock = threading.Lock()

    def find_stale(self, question: Question, now: float) -> Answer | None:
        """Return an answer even if its time is over, for a day; only for when the whole DNS is away."""
        entry = self.entries.get(question)
        if entry is None or entry.expires + MAX_STALE <= now:
            return None
        entry.is_used = True
        return replace(entry.answer, is_stale=True)

    def keep(self, question: Question, answer: Answer, now: float) -> None:
        """Keep an answer for its time to live, unless that is none, or the answer as large as sixty others."""
        octets = ENTRY_OCTETS + len(question.name)
        octets += sum(len(record) + RECORD_OCTETS for record in answer.records)
        with self._lock:
            self._remove(question)  # a new answer takes its place at the end
            if answer.ttl <= 0 or octets > self._max_octets // 64:
                return
            self.entries[question] = Entry(replace(answer, is_cached=True), now + answer.ttl, octets)
            self._octets += octets
            if len(self.entries) > self._max_entries or self._octets > self._max_octets:
                self._sweep()

    def _sweep(self) -> None:
        while len(self.entries) > self._max_entries or self._octets > self._max_octets:
            question, entry = next(iter(self.entries.items()))
            if entry.is_used:
                entry.is_used = False
                self.entries[question] = self.entries.pop(question)
            else:
                self._remove(question)

    def _remove(self, question: Question) -> None:
        entry = self.entries.pop(question, None)
        if entry is not None:
            self._octets -= entry.octets


class _Failed:
    __slots__ = ("answer", "until", "wait")

    def __init__(self, answer: Answer, until: float, wait: float) -> None:
        self.answer = answer
        self.until = until
        self.wait = wait


class FailureCache:
    """Questions nobody could answer, not put again for 5 s, then for twice as long (RFC 9520).

    So a name whose servers are silent costs one message a time-out, and not each. The longest wait is half a minute, so
    that whatever comes back is in use within that.
    """

    def __init__(self) -> None:
        self._failed: dict[Question, _Failed] = {}
        self._lock = threading.Lock()

    def find(self, question: Question, now: float) -> Answer | None:
        """Return the failure that a new try would only repeat."""
        found = self._failed.get(question)
        return found.answer if found is not None and found.until > now else None

    def keep(self, question: Question, answer: Answer, now: float) -> None:
        """Keep a failure; the oldest goes where there are too many."""
        with self._lock:
            before = self._failed.pop(question, None)
            wait = min(LONGEST_WAIT, before.wait * 2) if before else FIRST_WAIT
            self._failed[question] = _Failed(replace(answer, is_cached=True), now + wait, wait)
            while len(self._failed) > MAX_FAILURES:
                self._failed.pop(next(iter(self._failed)))

    def forget(self, question: Question) -> None:
        """Forget a failure: the question has been answered."""
        if question in self._failed:
            with self._lock:
                self._failed.pop(question, None)

    def clear(self) -> None:
        """Forget all: a nameserver is back, and may know."""
        with self._lock:
            self._failed.clear()
