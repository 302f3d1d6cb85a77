"""pyspf, unmodified, as an independent check_host(): what it says where its own evaluation is at work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import spf

from mailward.model.dns import Answer, AnswerStatus, Question, RecordType


def check_host(client_address: str, helo: str, mail_from: str, ask: Callable[[Question], Answer]) -> str:
    """Return pyspf's result word."""
    with _dns(ask):
        result: str = spf.query(i=client_address, s=mail_from, h=helo).check()[0]
    return result


@contextmanager
def _dns(ask: Callable[[Question], Answer]) -> Iterator[None]:
    """Put `ask` in the place of pyspf's own look-ups, which is a global of its module."""

    def look_up(name: str, kind: str, _strict: object, _timeout: object) -> list[tuple[tuple[str, str], object]]:
        answer = ask(Question(name.lower(), RecordType(kind)))
        if answer.status is AnswerStatus.TEMPFAIL:
            raise spf.TempError("no answer")
        return [((name, kind), _value(kind, record)) for record in answer.records]

    own = spf.DNSLookup
    spf.DNSLookup = look_up
    try:
        yield
    finally:
        spf.DNSLookup = own


def _value(kind: str, record: bytes) -> object:
    if kind == "TXT":
        return [record]
    if kind == "MX":
        preference, _, exchange = record.decode().partition(" ")
        return int(preference), exchange.removesuffix(".")
    return record.decode().removesuffix(".")
