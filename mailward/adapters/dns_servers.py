"""The nameservers: which are in use, how fast they are, and the control question that alone decides it.

No sender can take a nameserver out of use. Whatever becomes of a question that a sender chose, it only makes us put one to
that server that no sender chooses (`. NS`, or of the operator's own domain), once a second at the most. Two of those in a
row without an answer open the server's breaker; it is asked again until it answers one. A refusal is an answer: a server
that refuses costs no time, and one that refuses only the control question serves well.

Until then, one that is late is put behind the others (mailward.policy.failover), so that not every question waits for it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import select
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from mailward.adapters.dns_response import FORMERR, NOERROR, NXDOMAIN, SERVFAIL, belongs, response_code
from mailward.adapters.dns_socket import Address, Attempt
from mailward.adapters.dns_wire import make_query
from mailward.model.dns import Answer, Failure, Question, failed
from mailward.policy.breaker import Breaker
from mailward.policy.failover import Latency, SignsOfLife, hedge_delay, observe, present_first

CONTROL_SECONDS = 1.0  # between two control questions to a server
LEAST_CONTROL_TIMEOUT = 0.25  # a busy machine of ours must not look like a server that is away

_OWN_WANT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN)

# The counters and the gauge of each nameserver; mailward.daemon.dns describes them.
QUERIES, FAILURES, REASONS, HEDGED = "dns_queries", "dns_failures", "dns_failure_reasons", "dns_hedged"
CACHE_HITS, STALE, OPENED, OPEN = "dns_cache_hits", "dns_stale", "dns_breaker_opened", "dns_nameservers_open"


class Counts(Protocol):
    """Where numbers go; a worker's row of metrics is one."""

    def count(self, name: str, value: str = "", amount: float = 1.0) -> None:
        """Add to the number `name`, of which there is one for each `value`."""


class OnEvent(Protocol):
    """Where transitions are told; `level` and `event` are words of the log."""

    def __call__(self, level: str, event: str, **fields: object) -> None:
        """Tell one event."""


class Nameserver:
    """What is known of one nameserver."""

    __slots__ = ("address", "breaker", "has_answered_control", "label", "latency", "signs", "suspected")

    def __init__(self, address: Address) -> None:
        self.address = address
        self.label = label_of(address)
        self.breaker = Breaker()
        self.latency: Latency | None = None
        self.signs = SignsOfLife()
        self.has_answered_control = False
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
    """All of them, the preferred one first; and once it is started, a thread for each that puts the control question."""

    def __init__(
        self, addresses: Sequence[Address], timeout: float, control: Question, counts: Counts, on_event: OnEvent
    ) -> None:
        self.servers = tuple(Nameserver(address) for address in addresses)
        self.timeout = timeout
        self.is_away = False  # the DNS as a whole
        self.on_back: Callable[[], None] = lambda: None
        self._control = control
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
        self._suspect(server)

    def failed(self, server: Nameserver, failure: Failure) -> None:
        """Count a failure, and suspect the server unless the failure was ours."""
        self._counts.count(FAILURES, server.label)
        self._counts.count(REASONS, failure.value)
        if failure is not Failure.OWN_WANT:
            self._suspect(server)

    def answered(self, server: Nameserver, seconds: float) -> None:
        """Take note of how long an answer took."""
        server.latency = observe(server.latency, seconds)

    def _suspect(self, server: Nameserver) -> None:
        """Have the control question put: something a sender may have chosen was not answered."""
        if not server.suspected.is_set():
            server.suspected.set()

    def _watch(self, server: Nameserver) -> None:
        """Put the control question when it is asked for. A thread's whole life."""
        while not self._is_closing:
            server.suspected.clear()
            asked_at = time.monotonic()
            try:
                self._probe(server)
            except Exception as error:  # noqa: BLE001 - without this thread a server that is away stays away for ever
                self._on_event("error", "nameserver-watch-failed", nameserver=server.label, reason=repr(error))
                self._sleep(asked_at + CONTROL_SECONDS)
            self._rest(server, asked_at)

    def _rest(self, server: Nameserver, asked_at: float) -> None:
        """Wait until the control question is due again."""
        breaker = server.breaker
        if not breaker.is_closed:
            self._sleep(breaker.retry_at)
            return
        if not breaker.failures:
            server.suspected.wait()
        self._sleep(asked_at + CONTROL_SECONDS)

    def _sleep(self, until: float) -> None:
        while not self._is_closing and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.25))

    def _probe(self, server: Nameserver) -> None:
        half_open = server.breaker.probe(time.monotonic())
        if half_open is not None:
            server.breaker = half_open
        failure = self._put_control_question(server)
        if failure is not None and failure.failure is not None:
            self._counts.count(FAILURES, server.label)
            self._counts.count(REASONS, failure.failure.value)
            self._control_failed(server, failure.reason)
        else:
            self._control_answered(server)

    def _put_control_question(self, server: Nameserver) -> Answer | None:
        """Return why the server is of no use now, None where it is of use.

        Waits for half a time-out, so that two lost questions take no longer than one of anybody's.
        """
        deadline = time.monotonic() + max(LEAST_CONTROL_TIMEOUT, self.timeout / 2)
        self._counts.count(QUERIES, server.label)
        try:
            code, seconds = _exchange(server.address, self._control, deadline)
        except TimeoutError:
            return failed(Failure.TIMEOUT)
        except OSError as error:
            failure = failure_of(error)
            if failure is Failure.OWN_WANT and server.breaker.is_closed:
                return None  # says nothing about the server; and many messages at once may bring it about
            return failed(failure, error.strerror or "")
        server.signs.seen(time.monotonic())
        if code in (NOERROR, NXDOMAIN):
            self.answered(server, seconds)
            server.has_answered_control = True
        # One that never could answer this question says nothing by failing at it.
        return failed(Failure.SERVFAIL) if code == SERVFAIL and server.has_answered_control else None

    def _control_answered(self, server: Nameserver) -> None:
        with self._lock:
            was_closed, was_away = server.breaker.is_closed, self.is_away
            server.breaker = server.breaker.succeeded()
            if was_away:
                self.is_away = False
                os.eventfd_read(self.away_descriptor)
        if not was_closed:
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


def failure_of(error: OSError) -> Failure:
    """Tell whether the network failed or this machine."""
    return Failure.OWN_WANT if error.errno in _OWN_WANT else Failure.NETWORK


def _exchange(address: Address, question: Question, deadline: float, *, has_edns: bool = True) -> tuple[int, float]:
    """Return the response code, and how long it took, in seconds. Raises OSError, at the deadline TimeoutError."""
    attempt = Attempt(0, address, make_query(question, has_edns=has_edns), has_edns=has_edns)
    with contextlib.closing(attempt):
        poll = select.poll()
        poll.register(attempt.descriptor, attempt.events)
        while (left := deadline - time.monotonic()) > 0:
            if not poll.poll(left * 1000 + 1):
                continue
            octets = attempt.receive()
            if octets is not None and belongs(attempt.query, octets):
                break
        else:
            raise TimeoutError
    code = response_code(octets)
    if code == FORMERR and has_edns:
        return _exchange(address, question, deadline, has_edns=False)
    return code, time.monotonic() - attempt.sent_at
