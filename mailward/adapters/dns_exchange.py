"""One question put to the nameservers until one of them answers usefully: the sockets to mailward.policy.failover's plan."""

from __future__ import annotations

import math
import select
import time

from mailward.adapters.dns_control import failure_of
from mailward.adapters.dns_response import (
    FORMERR,
    NOTIMP,
    Query,
    belongs,
    is_truncated,
    read_answer,
    response_code,
)
from mailward.adapters.dns_servers import HEDGED, QUERIES, Nameservers
from mailward.adapters.dns_socket import Attempt
from mailward.adapters.dns_wire import make_query
from mailward.model.dns import Answer, AnswerStatus, Failure, Question, failed
from mailward.model.ports import Counts
from mailward.policy.failover import Action, Race


def exchange(question: Question, nameservers: Nameservers, deadline: float, counts: Counts) -> Answer:
    """Return the first useful answer, or why there is none. Raises NoName."""
    one = _Exchange(question, nameservers, deadline, counts)
    try:
        return one.run()
    finally:
        one.close()


class _Exchange:
    """The state of one question: who has been asked, over which sockets, and who failed how."""

    def __init__(self, question: Question, nameservers: Nameservers, deadline: float, counts: Counts) -> None:
        self._question = question
        self._nameservers = nameservers
        self._servers = nameservers.usable()
        self._deadline = deadline
        self._counts = counts
        self._race = Race([nameservers.delay_of(server) for server in self._servers], nameservers.timeout)
        self._attempts: dict[int, Attempt] = {}
        self._sent_garbage: set[int] = set()
        self._failure = failed(Failure.AWAY)
        self._poll = select.poll()
        if nameservers.away_descriptor >= 0:
            self._poll.register(nameservers.away_descriptor, select.POLLIN)

    def run(self) -> Answer:
        """Do what the race says until it is over."""
        while True:
            now = time.monotonic()
            if self._nameservers.is_away:
                return failed(Failure.AWAY)
            if now >= self._deadline:
                return failed(Failure.DEADLINE)
            step = self._race.next(now)
            if step.action is Action.END:
                return self._failure
            if step.action is Action.WAIT:
                answer = self._wait(step.until - now)
                if answer is not None:
                    return answer
            elif step.action is Action.TIME_OUT:
                self._fail(step.server, Failure.GARBAGE if step.server in self._sent_garbage else Failure.TIMEOUT)
            elif step.action is Action.LATE:  # no failure yet, but worth the control question
                self._nameservers.late(self._servers[step.server], step.asked_at)
            else:
                if step.action is Action.HEDGE:
                    self._counts.count(HEDGED)
                self._send(step.server)

    def close(self) -> None:
        """Close every socket."""
        for attempt in self._attempts.values():
            attempt.close()

    def _send(self, server: int, *, has_edns: bool = True, is_tcp: bool = False) -> None:
        """Send a new query: each has an id and a port of its own."""
        query = make_query(self._question, has_edns=has_edns)
        nameserver = self._servers[server]
        self._counts.count(QUERIES, nameserver.label)
        try:
            attempt = Attempt(server, nameserver.address, query, has_edns=has_edns, is_tcp=is_tcp)
        except OSError as error:
            failure = failure_of(error)
            if failure is not Failure.OWN_WANT or not self._awaited(server):  # what has been sent may yet be answered
                self._fail(server, failure, error.strerror or "")
            return
        self._attempts[attempt.descriptor] = attempt
        self._poll.register(attempt.descriptor, attempt.events)

    def _wait(self, seconds: float) -> Answer | None:
        left = min(seconds, self._deadline - time.monotonic())
        for descriptor, _ in self._poll.poll(max(0, math.ceil(left * 1000))):
            attempt = self._attempts.get(descriptor)
            if attempt is None:  # the DNS has gone away, or this attempt has just been given up
                continue
            answer = self._receive(attempt)
            if answer is not None:
                return answer
        return None

    def _receive(self, attempt: Attempt) -> Answer | None:
        """Return a useful answer; None where there is none yet, or never will be from this server."""
        try:
            octets = attempt.receive()
        except OSError as error:
            self._fail(attempt.server, failure_of(error), error.strerror or "")
            return None
        if octets is None:
            self._poll.modify(attempt.descriptor, attempt.events)
            return None
        if not belongs(attempt.query, octets):
            self._ignore(attempt)
            return None
        self._servers[attempt.server].signs.seen(time.monotonic())
        if is_truncated(octets) and not attempt.is_tcp:
            self._restart(attempt, has_edns=attempt.has_edns, is_tcp=True)
            return None
        if attempt.has_edns and response_code(octets) in (FORMERR, NOTIMP):  # RFC 6891 7: perhaps it knows no EDNS
            self._restart(attempt, has_edns=False, is_tcp=attempt.is_tcp)
            return None
        return self._judge(attempt, attempt.query, octets)

    def _judge(self, attempt: Attempt, query: Query, octets: bytes) -> Answer | None:
        nameserver = self._servers[attempt.server]
        answer = read_answer(query, octets, nameserver.label)
        if answer.status is AnswerStatus.TEMPFAIL:
            self._give_up(attempt.server, answer)
            return None
        self._nameservers.answered(nameserver, None if attempt.is_tcp else time.monotonic() - attempt.sent_at)
        return answer

    def _ignore(self, attempt: Attempt) -> None:
        """Wait on: what does not match may be forged, and must not keep the true answer from us (RFC 5452 9.1).

        Over TCP there is nobody else to wait for.
        """
        self._sent_garbage.add(attempt.server)
        if attempt.is_tcp:
            self._fail(attempt.server, Failure.GARBAGE)

    def _restart(self, attempt: Attempt, *, has_edns: bool, is_tcp: bool) -> None:
        self._drop(attempt.server)
        self._race.restart(attempt.server, time.monotonic())
        self._send(attempt.server, has_edns=has_edns, is_tcp=is_tcp)

    def _fail(self, server: int, failure: Failure, detail: str = "") -> None:
        self._give_up(server, failed(failure, detail, self._servers[server].label))

    def _give_up(self, server: int, answer: Answer) -> None:
        """Leave this server alone for the rest of this question."""
        assert answer.failure is not None
        if self._failure.failure is not Failure.OWN_WANT:  # which means that somebody who might know was not asked
            self._failure = answer
        self._race.failed(server)
        self._nameservers.failed(self._servers[server], answer.failure)
        self._drop(server)

    def _drop(self, server: int) -> None:
        for attempt in self._awaited(server):
            self._poll.unregister(attempt.descriptor)
            self._attempts.pop(attempt.descriptor)
            attempt.close()

    def _awaited(self, server: int) -> list[Attempt]:
        return [attempt for attempt in self._attempts.values() if attempt.server == server]
