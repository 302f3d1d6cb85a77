"""The nameservers: which are in use, how fast they are, and the control questions that alone decide it.

No sender can take a nameserver out of use. Whatever becomes of a question that a sender chose, it only makes us put one to
that server that no sender chooses (mailward.adapters.dns_control), once a second at the most, or four times in haste. Two of
those in a row without an answer open the server's breaker; it is asked again until it answers one. A refusal is an answer: a
server that refuses costs no time, and one that refuses only the control question serves well.

The root's name servers are in every resolver's memory. So a server that does nothing but answer for them is put a deep
question as well, and what was opened by that is closed by that. It counts only where one has been answered before: a
resolver of a closed network serves well and knows nothing beyond it.

Until then, one that is late is put behind the others (mailward.policy.failover), so that not every question waits for it.
"""

from __future__ import annotations

import math
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from mailward.adapters.dns_control import Reply, deep_question, pace_for, put
from mailward.adapters.dns_socket import Address
from mailward.model.dns import Failure, Question, failed
from mailward.model.ports import Counts, OnEvent
from mailward.policy.breaker import Breaker
from mailward.policy.failover import Latency, SignsOfLife, hedge_delay, observe, present_first

# Late or SERVFAIL in a row, no useful answer between them: enough of them to put the deep question. A single one is some
# domain's own trouble many times an hour; but a small site asks so little that it must not take many.
MISSES_TO_DOUBT = 3
DEEP_INTERVAL = 1.0  # seconds from a deep question that was answered to the next
ARMING_INTERVAL = 60.0  # seconds between two deep questions to a server that has never answered one

# The counters and the gauge of each nameserver; mailward.daemon.dns describes them.
QUERIES, FAILURES, REASONS, HEDGED = "dns_queries", "dns_failures", "dns_failure_reasons", "dns_hedged"
CACHE_HITS, STALE, OPENED, OPEN = "dns_cache_hits", "dns_stale", "dns_breaker_opened", "dns_nameservers_open"


class Nameserver:
    """What is known of one nameserver."""

    __slots__ = (
        "address",
        "breaker",
        "deep_asked_at",
        "has_answered_control",
        "has_answered_deep",
        "is_cut_off",
        "label",
        "latency",
        "misses",
        "signs",
        "suspected",
    )

    def __init__(self, address: Address) -> None:
        self.address = address
        self.label = label_of(address)
        self.breaker = Breaker()
        self.latency: Latency | None = None
        self.signs = SignsOfLife()
        self.has_answered_control = False
        self.has_answered_deep = False
        self.deep_asked_at = -math.inf
        self.is_cut_off = False  # it has answered deep questions before, and not the last one
        self.misses = (
            0  # since its last useful answer; many threads count without a lock, and one more or less is no matter
        )
        self.suspected = threading.Event()


def label_of(address: Address) -> str:
    """Return a nameserver's name in the log and in the metrics.

    >>> label_of(("9.9.9.9", 53)), label_of(("::1", 5300))
    ('9.9.9.9', '[::1]:5300')
    """
    name, port = address
    if port == 53:
        return name
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


class Nameservers:
    """All of them, the preferred one first; and once it is started, a thread for each that puts the control questions."""

    def __init__(
        self,
        addresses: Sequence[Address],
        timeout: float,
        control: Question,
        counts: Counts,
        on_event: OnEvent,
        *,
        is_hasty: bool = False,
    ) -> None:
        self.servers = tuple(Nameserver(address) for address in addresses)
        self.timeout = timeout
        self.is_away = False  # the DNS as a whole
        self.on_back: Callable[[], None] = lambda: None
        self._control = control
        self._has_deep = not control.name  # who named a domain has said what is to be asked
        self._pace = pace_for(timeout, is_hasty=is_hasty)
        self._counts = counts
        self._on_event = on_event
        self._lock = threading.Lock()
        self._is_closing = False
        self._threads: list[threading.Thread] = []
        # Readable while the DNS is away: whoever waits for an answer polls it as well, and wakes. None before `start`.
        self.away_descriptor = -1

    def start(self) -> None:
        """Begin to watch: each server is asked at once, and whenever it is suspected or away."""
        self.away_descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        for server in self.servers:
            thread = threading.Thread(target=self._watch, args=(server,), name="nameserver", daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """End what `start` began; nobody may be asking any more."""
        self._is_closing = True
        for server in self.servers:
            server.suspected.set()
        for thread in self._threads:
            thread.join()
        if self._threads:
            os.close(self.away_descriptor)

    def usable(self) -> list[Nameserver]:
        """Return those that may be asked, the preferred one first."""
        closed = [server for server in self.servers if server.breaker.is_closed]
        return present_first(closed, lambda server: server.signs)

    def delay_of(self, server: Nameserver) -> float:
        """Return how long this server is waited for before another is asked as well."""
        return hedge_delay(server.latency, self.timeout)

    def late(self, server: Nameserver, asked_at: float) -> None:
        """Put the server behind the others until it is heard again, and suspect it."""
        server.signs.missed(asked_at)
        server.misses += 1
        self._suspect(server)

    def failed(self, server: Nameserver, failure: Failure) -> None:
        """Count a failure, and suspect the server unless the failure was ours."""
        self._counts.count(FAILURES, server.label)
        self._counts.count(REASONS, failure.value)
        if failure is Failure.SERVFAIL:  # whoever has let his time go by was late before, and has been counted
            server.misses += 1
        if failure is not Failure.OWN_WANT:
            self._suspect(server)

    def answered(self, server: Nameserver, seconds: float | None) -> None:
        """Take note of a useful answer, and of how long it took; None where that says nothing of the next."""
        server.misses = 0
        if seconds is not None:
            server.latency = observe(server.latency, seconds)

    def _suspect(self, server: Nameserver) -> None:
        """Have the control question put: something a sender may have chosen was not answered."""
        if not server.suspected.is_set():
            server.suspected.set()

    def _watch(self, server: Nameserver) -> None:
        """Put the control questions when they are asked for. A thread's whole life."""
        while not self._is_closing:
            server.suspected.clear()
            asked_at = time.monotonic()
            try:
                self._probe(server)
            except Exception as error:  # noqa: BLE001 - without this thread a server that is away stays away for ever
                self._on_event("error", "nameserver-watch-failed", nameserver=server.label, reason=repr(error))
                self._sleep(asked_at + DEEP_INTERVAL)
            self._rest(server, asked_at)

    def _rest(self, server: Nameserver, asked_at: float) -> None:
        """Wait until a control question is due again."""
        breaker = server.breaker
        if not breaker.is_closed:
            self._sleep(breaker.retry_at)
            return
        if not breaker.failures and not _is_in_doubt(server):
            is_unarmed = self._has_deep and not server.has_answered_deep
            server.suspected.wait(ARMING_INTERVAL if is_unarmed else None)
        self._sleep(asked_at + self._pace.interval)

    def _sleep(self, until: float) -> None:
        while not self._is_closing and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.25))

    def _probe(self, server: Nameserver) -> None:
        half_open = server.breaker.probe(time.monotonic())
        if half_open is not None:
            server.breaker = half_open
        reply = self._put_control_question(server)
        if reply.failure is None and (
            server.is_cut_off or (_is_in_doubt(server) and _is_deep_due(server, DEEP_INTERVAL))
        ):
            reply = self._put_deep_question(server)
        failure = reply.failure
        # A want of our own says nothing about the server; and many messages at once may bring it about.
        if failure is not None and not (failure is Failure.OWN_WANT and server.breaker.is_closed):
            self._counts.count(FAILURES, server.label)
            self._counts.count(REASONS, failure.value)
            self._control_failed(server, failed(failure, reply.detail).reason)
            return
        self._control_answered(server)
        if self._has_deep and not server.has_answered_deep and _is_deep_due(server, ARMING_INTERVAL):
            self._put_deep_question(server)

    def _put_control_question(self, server: Nameserver) -> Reply:
        reply = self._put(server, self._control, self._pace.timeout)
        if reply.is_useful:
            server.latency = observe(server.latency, reply.seconds)
            server.has_answered_control = True
        if reply.failure is Failure.SERVFAIL and not server.has_answered_control:
            return Reply()  # one that never could answer this question says nothing by failing at it
        return reply

    def _put_deep_question(self, server: Nameserver) -> Reply:
        server.deep_asked_at = time.monotonic()
        reply = self._put(server, deep_question(), self._pace.deep_timeout)
        if reply.failure is None:
            server.has_answered_deep, server.is_cut_off, server.misses = True, False, 0
        elif reply.failure is not Failure.OWN_WANT:
            server.is_cut_off = server.has_answered_deep
        return replace(reply, detail=reply.detail or "knows nothing beyond its memory")

    def _put(self, server: Nameserver, question: Question, timeout: float) -> Reply:
        self._counts.count(QUERIES, server.label)
        reply = put(server.address, question, timeout)
        if reply.failure in (None, Failure.SERVFAIL):
            server.signs.seen(time.monotonic())
        return reply

    def _control_answered(self, server: Nameserver) -> None:
        with self._lock:
            was_closed, was_away = server.breaker.is_closed, self.is_away
            server.breaker = server.breaker.succeeded()
            if was_away:
                self.is_away = False
                os.eventfd_read(self.away_descriptor)
        if not was_closed:
            server.deep_asked_at = -math.inf
            self.on_back()
            self._counts.count(OPEN, server.label, -1)
            self._on_event("info", "nameserver-back", nameserver=server.label)
        if was_away:
            self._on_event("info", "dns-back", nameserver=server.label)

    def _control_failed(self, server: Nameserver, reason: str) -> None:
        with self._lock:
            was_closed = server.breaker.is_closed
            server.breaker = server.breaker.failed(time.monotonic(), random.random())
            has_opened = was_closed and not server.breaker.is_closed
            has_gone = has_opened and not self.usable()
            if has_gone:
                self.is_away = True
                os.eventfd_write(self.away_descriptor, 1)
        if has_opened:
            self._counts.count(OPENED, server.label)
            self._counts.count(OPEN, server.label)
            self._on_event("warning", "nameserver-away", nameserver=server.label, reason=reason)
        if has_gone:
            self._on_event("error", "dns-away", nameserver=server.label, reason=reason)


def _is_in_doubt(server: Nameserver) -> bool:
    """Say whether the deep question is to be put though the ordinary one may be answered.

    One that never could answer it says nothing by failing at it.
    """
    return server.has_answered_deep and server.misses >= MISSES_TO_DOUBT


def _is_deep_due(server: Nameserver, interval: float) -> bool:
    return time.monotonic() >= server.deep_asked_at + interval
