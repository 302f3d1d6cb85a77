"""The DNS. The only import of dnspython: plain look-ups, each with its deadline, and every failure an Answer."""

from __future__ import annotations

import time
from collections.abc import Sequence

import dns.exception
import dns.name
import dns.resolver

from mailward.model.dns import Answer, AnswerStatus, Question

EDNS_PAYLOAD = 1232  # octets that pass every path unfragmented (DNS flag day 2020)


class Resolver:
    """Asks nameservers in turn until one answers; the `Resolver` of mailward.model.ports."""

    def __init__(self, nameservers: Sequence[tuple[str, int]], timeout: float, deadline: float) -> None:
        """Ask `nameservers` (address, port), or those of /etc/resolv.conf where there are none.

        `timeout` is one server's and `deadline` one question's, in seconds.
        """
        self._servers = [_one_server(*server, timeout) for server in nameservers or _system_nameservers()]
        self._deadline = deadline

    def ask(self, question: Question) -> Answer:
        """Answer a question; never raises for what the DNS says or fails to say."""
        try:
            name = dns.name.from_text(question.name + ".")
        except dns.exception.DNSException:
            return Answer(AnswerStatus.NXDOMAIN, reason="no name the DNS can hold")
        deadline = time.monotonic() + self._deadline
        answer = Answer(AnswerStatus.TEMPFAIL, reason="there is no nameserver")
        for server in self._servers:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            answer = _ask_one(server, name, question.record_type.value, min(left, server.timeout))
            if answer.status is not AnswerStatus.TEMPFAIL:
                break
        return answer


def _one_server(address: str, port: int, timeout: float) -> dns.resolver.Resolver:
    """Return a resolver that knows one server: dnspython's own list cannot hold two ports of one address."""
    server = dns.resolver.Resolver(configure=False)
    server.nameservers = [address]
    server.port = port
    server.timeout = timeout
    server.use_edns(0, 0, EDNS_PAYLOAD)
    return server


def _system_nameservers() -> list[tuple[str, int]]:
    """Return the servers of /etc/resolv.conf; without that file the local one, as resolv.conf(5) says."""
    try:
        system = dns.resolver.Resolver()
    except dns.resolver.NoResolverConfiguration:
        return [("127.0.0.1", 53)]
    return [(str(address), 53) for address in system.nameservers]


def _ask_one(server: dns.resolver.Resolver, name: dns.name.Name, record_type: str, lifetime: float) -> Answer:
    try:
        found = server.resolve(name, record_type, raise_on_no_answer=False, search=False, lifetime=lifetime)
    except dns.resolver.NXDOMAIN:
        return Answer(AnswerStatus.NXDOMAIN)
    except dns.exception.Timeout:
        return Answer(AnswerStatus.TEMPFAIL, reason="no nameserver answered in time")
    except dns.exception.DNSException as error:
        return Answer(AnswerStatus.TEMPFAIL, reason=type(error).__name__)
    except OSError as error:
        return Answer(AnswerStatus.TEMPFAIL, reason=error.strerror or "network error")
    if found.rrset is None:
        return Answer(AnswerStatus.NODATA)
    return Answer(AnswerStatus.FOUND, tuple(_octets(record) for record in found.rrset), found.rrset.ttl)


def _octets(record: object) -> bytes:
    """Return a record's value: the joined strings of a TXT record (RFC 6376 3.6.2.2), the text of any other."""
    strings = getattr(record, "strings", None)
    return b"".join(strings) if strings is not None else str(record).encode("ascii")
