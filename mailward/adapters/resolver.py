"""The DNS. The only import of dnspython: plain look-ups, each with its deadline, and every failure an Answer."""

from __future__ import annotations

from collections.abc import Sequence

import dns.exception
import dns.name
import dns.resolver

from mailward.model.dns import Answer, AnswerStatus, Question

EDNS_PAYLOAD = 1232  # octets that pass every path unfragmented (DNS flag day 2020)


class Resolver:
    """Asks nameservers in turn; the `Resolver` of mailward.model.ports."""

    def __init__(self, nameservers: Sequence[tuple[str, int]], timeout: float, deadline: float) -> None:
        """Ask `nameservers` (address, port), or those of /etc/resolv.conf where there are none.

        `timeout` is one query's and `deadline` one question's, in seconds.
        """
        self._resolver = dns.resolver.Resolver(configure=not nameservers)
        if nameservers:
            self._resolver.nameservers = [address for address, _ in nameservers]
            self._resolver.nameserver_ports = dict(nameservers)
        self._resolver.timeout = timeout
        self._resolver.lifetime = deadline
        self._resolver.use_edns(0, 0, EDNS_PAYLOAD)

    def ask(self, question: Question) -> Answer:
        """Answer a question; never raises for what the DNS says or fails to say."""
        try:
            name = dns.name.from_text(question.name + ".")
            found = self._resolver.resolve(name, question.record_type.value, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN:
            return Answer(AnswerStatus.NXDOMAIN)
        except (dns.name.LabelTooLong, dns.name.NameTooLong, dns.name.EmptyLabel, dns.name.BadEscape):
            return Answer(AnswerStatus.NXDOMAIN, reason="no name the DNS can hold")
        except dns.exception.Timeout:
            return Answer(AnswerStatus.TEMPFAIL, reason="no nameserver answered in time")
        except dns.exception.DNSException as error:
            return Answer(AnswerStatus.TEMPFAIL, reason=type(error).__name__)
        except OSError as error:
            return Answer(AnswerStatus.TEMPFAIL, reason=error.strerror or "network error")
        if found.rrset is None:
            return Answer(AnswerStatus.NODATA)
        records = tuple(_octets(record) for record in found.rrset)
        return Answer(AnswerStatus.FOUND, records, found.rrset.ttl)


def _octets(record: object) -> bytes:
    """Return a record's value: the joined strings of a TXT record (RFC 6376 3.6.2.2), the text of any other."""
    strings = getattr(record, "strings", None)
    return b"".join(strings) if strings is not None else str(record).encode("ascii")
