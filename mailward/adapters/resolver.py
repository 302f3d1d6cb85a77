"""The DNS for everybody who asks: several nameservers, a cache, one deadline and one budget for each message.

The rooms behind it: dns_wire reads and writes messages, dns_socket sends one, dns_exchange puts one question to the
nameservers, dns_servers knows which of them are in use, dns_control has the questions that tell, dns_cache keeps what was
said. Asked from many threads at once.

What is not known is never guessed, with one exception: while every nameserver is away, answers whose time is over are
given out for a day (RFC 8767). Only then: the failure of one question may be its name's owner's doing, who must not get a
withdrawn key or policy a longer life by it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from mailward.adapters.dns_cache import AnswerCache, FailureCache
from mailward.adapters.dns_exchange import exchange
from mailward.adapters.dns_servers import CACHE_HITS, STALE, Nameservers, label_of
from mailward.adapters.dns_socket import Address
from mailward.adapters.dns_wire import NoName, no_name, system_nameservers
from mailward.model.dns import Answer, AnswerStatus, Failure, Question, RecordType, failed
from mailward.model.ports import Counts, OnEvent

MAX_QUERIES = 120  # of one message; SPF's `mx` alone may need over 100
CACHE_ENTRIES = 5000
CACHE_OCTETS = 4 * 1024 * 1024  # in each worker

# What is the message's own limit, or the machine's, and says nothing about the question.
_OF_THE_MESSAGE = (Failure.DEADLINE, Failure.BUDGET)
_OURS = (*_OF_THE_MESSAGE, Failure.OWN_WANT)

_monotonic = time.monotonic


def nameserver_labels(nameservers: Sequence[Address]) -> tuple[str, ...]:
    """Return the names under which a resolver made with `nameservers` counts and logs what concerns each."""
    return tuple(label_of(address) for address in nameservers or system_nameservers())


class Resolver:
    """Asks nameservers in turn until one answers; the `Resolver` of mailward.model.ports."""

    def __init__(
        self,
        nameservers: Sequence[Address],
        timeout: float,
        deadline: float,
        *,
        queries: int = MAX_QUERIES,
        control: str = "",
        is_hasty: bool = False,
        cache_entries: int = CACHE_ENTRIES,
        cache_octets: int = CACHE_OCTETS,
        counts: Counts | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        """Ask `nameservers` (address, port), or those of /etc/resolv.conf where there are none.

        `timeout` is one server's, `deadline` and `queries` are one message's; times in seconds. `control` is the name whose
        nameservers are asked for to find out who is away, empty for the root. `is_hasty`: find out within half a second, also
        if now and then a server that is only slow is taken for one that is away; for whom waiting is worse.
        """
        self.counts: Counts = counts if counts is not None else _Uncounted()
        self.budget = queries
        self.deadline_seconds = deadline
        self.cache = AnswerCache(cache_entries, cache_octets)
        self._failures = FailureCache()
        self._nameservers = Nameservers(
            tuple(nameservers) or system_nameservers(),
            timeout,
            Question(control, RecordType.NS),
            self.counts,
            on_event or _ignore_event,
            is_hasty=is_hasty,
        )
        self._nameservers.on_back = self._failures.clear
        self._flights: dict[Question, _Flight] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin to watch the nameservers, in threads; called in a worker, after the fork. Without it none is ever left out."""
        self._nameservers.start()

    def close(self) -> None:
        """End the threads and free the descriptor; nobody may be asking any more."""
        self._nameservers.close()

    @property
    def is_away(self) -> bool:
        """Whether every nameserver is known to be away."""
        return self._nameservers.is_away

    def for_message(self) -> MessageQueries:
        """Return what one message asks with."""
        return MessageQueries(self)

    def ask(self, question: Question) -> Answer:
        """Answer a question by itself; never raises for what the DNS says or fails to say."""
        return MessageQueries(self).ask(question)

    def ask_cold(self, question: Question, message: MessageQueries) -> Answer:
        """Answer what the cache does not know under this very name."""
        lower = question.name.lower()
        if lower != question.name:
            return message.ask(Question(lower, question.record_type))
        now = _monotonic()
        if self._nameservers.is_away:
            return self._stale_or(question, failed(Failure.AWAY), now)
        known = self._failures.find(question, now)
        if known is not None:
            return known
        refusal = message.spend(now)
        if refusal is not None:
            return failed(refusal)
        return self._ask_once(question, message.deadline)

    def _ask_once(self, question: Question, deadline: float) -> Answer:
        """Ask, or wait for whoever is asking the same; at most until the deadline, which is each thread's own."""
        while True:
            with self._lock:
                flight = self._flights.get(question)
                if flight is None:
                    mine = self._flights[question] = _Flight()
            if flight is None:
                return self._lead(question, mine, deadline)
            if not flight.is_over.wait(max(0.0, deadline - _monotonic())):
                return failed(Failure.DEADLINE)
            if flight.answer is not None:
                return flight.answer
            # Whoever asked had less time than we have: somebody else takes over.

    def _lead(self, question: Question, flight: _Flight, deadline: float) -> Answer:
        try:
            answer = self._put(question, deadline)
            if answer.failure not in _OF_THE_MESSAGE:
                flight.answer = answer
            return answer
        finally:
            with self._lock:
                del self._flights[question]
            flight.is_over.set()

    def _put(self, question: Question, deadline: float) -> Answer:
        """Put the question to the nameservers, and keep what they say."""
        try:
            answer = exchange(question, self._nameservers, deadline, self.counts)
        except NoName:
            return no_name()
        now = _monotonic()
        if answer.status is not AnswerStatus.TEMPFAIL:
            self.cache.keep(question, answer, now)
            self._failures.forget(question)
        elif answer.failure is Failure.AWAY:
            return self._stale_or(question, answer, now)
        elif answer.failure not in _OURS:
            self._failures.keep(question, answer, now)
        return answer

    def _stale_or(self, question: Question, otherwise: Answer, now: float) -> Answer:
        stale = self.cache.find_stale(question, now)
        if stale is None:
            return otherwise
        self.counts.count(STALE)
        return stale


class MessageQueries:
    """One message's way to the DNS: its deadline begins with the first question that has to be put to a nameserver."""

    __slots__ = ("_count", "_entries", "_resolver", "deadline", "queries")

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._entries = resolver.cache.entries
        self._count = resolver.counts.count
        self.deadline = 0.0  # monotonic seconds, once it has begun
        self.queries = 0

    def ask(self, question: Question) -> Answer:
        """Answer a question; never raises for what the DNS says or fails to say."""
        # The way of nearly every question: 0.6 us, a third of them for counting; any call more would be as much again.
        entry = self._entries.get(question)
        if entry is not None and entry.expires > _monotonic():
            entry.is_used = True
            self._count(CACHE_HITS)
            return entry.answer
        return self._resolver.ask_cold(question, self)

    def spend(self, now: float) -> Failure | None:
        """Take one query from the budget; return why that cannot be."""
        if self.queries >= self._resolver.budget:
            return Failure.BUDGET
        if not self.deadline:
            self.deadline = now + self._resolver.deadline_seconds
        if now >= self.deadline:
            return Failure.DEADLINE
        self.queries += 1
        return None


class _Flight:
    """A question that somebody is asking; `answer` stays None where they gave up for reasons of their own."""

    __slots__ = ("answer", "is_over")

    def __init__(self) -> None:
        self.is_over = threading.Event()
        self.answer: Answer | None = None


class _Uncounted:
    def count(self, name: str, value: str = "", amount: float = 1.0) -> None:
        """Count nothing."""


def _ignore_event(level: str, event: str, **fields: object) -> None:
    """Tell nobody."""
