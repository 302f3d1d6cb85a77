"""A question to the DNS and what came back: NXDOMAIN, NODATA and failure never look alike."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class RecordType(Enum):
    """The record types Mailward asks for."""

    A = "A"
    AAAA = "AAAA"
    MX = "MX"
    NS = "NS"
    PTR = "PTR"
    TXT = "TXT"

    # Members are compared by identity; Enum's own hash is a Python function, run for each look-up in a cache (0.2 µs).
    __hash__ = object.__hash__


class Question(NamedTuple):
    """One name (A-labels, without the final dot; always absolute) and one type.

    A tuple, because it is the key of caches: a frozen dataclass is hashed and compared by Python code.
    """

    name: str
    record_type: RecordType


class AnswerStatus(Enum):
    """How a question ended."""

    FOUND = "found"
    NODATA = "nodata"
    NXDOMAIN = "nxdomain"
    TEMPFAIL = "tempfail"  # nothing is known; Failure says why


class Failure(Enum):
    """Why nothing is known. The words of the log and of the counter's label."""

    TIMEOUT = "time-out"
    SERVFAIL = "SERVFAIL"
    REFUSED = "REFUSED"
    RESPONSE_CODE = "response code"  # any other that is neither NOERROR nor NXDOMAIN
    GARBAGE = "garbage"  # no DNS message, one that belongs to no question of ours, or one beyond all bounds
    NO_RECURSION = "no recursion"  # a referral: the server answers for its own zones alone
    NETWORK = "network error"
    OWN_WANT = "out of descriptors or memory"  # on this machine: says nothing about the name, nor about a nameserver
    AWAY = "every nameserver is away"
    DEADLINE = "deadline"  # of all the questions of a message
    BUDGET = "too many queries"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the DNS said: `records` as octets (a TXT record's strings joined), `ttl` in seconds, `reason` for the log.

    `ttl` is what was left when the nameserver answered. A stale answer is one whose time is over, served because the whole
    DNS is away. `nameserver` is whoever answered; `failure` is there where, and only where, the resolver could not answer.
    """

    status: AnswerStatus
    records: tuple[bytes, ...] = ()
    ttl: int = 0
    reason: str = ""
    failure: Failure | None = None
    nameserver: str = ""
    is_cached: bool = False
    is_stale: bool = False


def failed(failure: Failure, detail: str = "", nameserver: str = "") -> Answer:
    """Return the answer that nothing is known.

    >>> failed(Failure.NETWORK, "Connection refused").reason
    'network error: Connection refused'
    """
    reason = f"{failure.value}: {detail}" if detail else failure.value
    return Answer(AnswerStatus.TEMPFAIL, reason=reason, failure=failure, nameserver=nameserver)
