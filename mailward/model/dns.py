"""A question to the DNS and what came back: NXDOMAIN, NODATA and failure never look alike."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class RecordType(Enum):
    """The record types Mailward asks for."""

    A = "A"
    AAAA = "AAAA"
    MX = "MX"
    NS = "NS"
    PTR = "PTR"
    TXT = "TXT"


@dataclass(frozen=True, slots=True)
class Question:
    """One name (A-labels, without the final dot; always absolute) and one type."""

    name: str
    record_type: RecordType


class AnswerStatus(Enum):
    """How a question ended."""

    FOUND = "found"
    NODATA = "nodata"
    NXDOMAIN = "nxdomain"
    TEMPFAIL = "tempfail"  # time-out, SERVFAIL, refusal, garbage: nothing is known


@dataclass(frozen=True, slots=True)
class Answer:
    """What the DNS said: `records` as octets (a TXT record's strings joined), `ttl` in seconds, `reason` for the log."""

    status: AnswerStatus
    records: tuple[bytes, ...] = ()
    ttl: int = 0
    reason: str = ""
