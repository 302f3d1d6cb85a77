"""The control questions, which alone decide whether a nameserver is in use: no sender chooses them or what is said to them.

The ordinary one, `. NS` or that of the operator's own domain, is cheap, and a resolver answers it from its memory. So it
does when the line behind it is lost, and is of no use for anything else. That is what the deep one finds out: a name that
nobody has asked for before, one label below `com`.

* New each time, so that no memory holds it, and no sender can have seen to it that it fails.
* One label below a top-level domain, so that nobody answers for it but the registry, at anycast servers that every resolver
  knows and is one round trip away from. Nobody can own the name; "no such name" is the usual answer, and a good one.
* Not below the root, nor below a domain that proves with NSEC what it has not: there a resolver that validates makes up the
  answer itself (RFC 8198). `com` proves with NSEC3 and opt-out, of which that cannot be done (RFC 8198 5.2).
* With our name in it: random names by themselves are what malware asks for, and whoever reads a log shall know better.
* For NS: some resolvers have an address for every name that does not exist, and few have name servers for it.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import select
import time
from dataclasses import dataclass

from mailward.adapters.dns_response import FORMERR, NOERROR, NXDOMAIN, SERVFAIL, belongs, response_code
from mailward.adapters.dns_socket import Address, Attempt
from mailward.adapters.dns_wire import make_query
from mailward.model.dns import Failure, Question, RecordType

LEAST_TIMEOUT = 0.25  # a busy machine of ours must not look like a server that is away
LEAST_DEEP_TIMEOUT = (
    0.5  # room for a round trip to the other side of the world, or for a lost packet and its repetition
)
_RANDOM_OCTETS = 10

_OWN_WANT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN)


@dataclass(frozen=True, slots=True)
class Pace:
    """How long the control questions are waited for, and the least time from one ordinary question to the next; seconds."""

    timeout: float
    deep_timeout: float
    interval: float


def pace_for(timeout: float, *, is_hasty: bool) -> Pace:
    """Return the pace where a server is given `timeout` seconds for anybody's question.

    Two lost control questions take no longer than one of anybody's. In haste, half a second is enough to find a silent
    server out, and a false alarm must be cheap.

    >>> pace_for(2.0, is_hasty=False), pace_for(2.0, is_hasty=True)
    (Pace(timeout=1.0, deep_timeout=1.0, interval=1.0), Pace(timeout=0.25, deep_timeout=0.5, interval=0.25))
    """
    if is_hasty:
        return Pace(LEAST_TIMEOUT, LEAST_DEEP_TIMEOUT, LEAST_TIMEOUT)
    return Pace(max(LEAST_TIMEOUT, timeout / 2), max(LEAST_DEEP_TIMEOUT, timeout / 2), 1.0)


def deep_question() -> Question:
    """Return a deep question that has never been asked."""
    return Question(f"mailward-{secrets.token_hex(_RANDOM_OCTETS)}.com", RecordType.NS)


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a control question: why there was no answer, or how long the answer took, in seconds.

    `is_useful`: it was no mere refusal.
    """

    failure: Failure | None = None
    detail: str = ""
    is_useful: bool = False
    seconds: float = 0.0


def put(address: Address, question: Question, timeout: float) -> Reply:
    """Put a question once, over UDP; never raises for what the server does or the network."""
    try:
        code, seconds = _exchange(address, question, timeout)
    except TimeoutError:
        return Reply(Failure.TIMEOUT)
    except OSError as error:
        return Reply(failure_of(error), error.strerror or "")
    if code == SERVFAIL:
        return Reply(Failure.SERVFAIL)
    return Reply(is_useful=code in (NOERROR, NXDOMAIN), seconds=seconds)


def failure_of(error: OSError) -> Failure:
    """Tell whether the network failed or this machine."""
    return Failure.OWN_WANT if error.errno in _OWN_WANT else Failure.NETWORK


def _exchange(address: Address, question: Question, timeout: float, *, has_edns: bool = True) -> tuple[int, float]:
    """Return the response code, and how long it took. Raises OSError, after `timeout` seconds TimeoutError."""
    attempt = Attempt(0, address, make_query(question, has_edns=has_edns), has_edns=has_edns)
    with contextlib.closing(attempt):
        octets = _receive(attempt, attempt.sent_at + timeout)
        seconds = time.monotonic() - attempt.sent_at
    code = response_code(octets)
    if code == FORMERR and has_edns:
        return _exchange(address, question, timeout - seconds, has_edns=False)
    return code, seconds


def _receive(attempt: Attempt, deadline: float) -> bytes:
    poll = select.poll()
    poll.register(attempt.descriptor, attempt.events)
    while True:
        left = deadline - time.monotonic()
        # Looked at even if the time is over: where this machine was too busy, the answer may have been there for long.
        if poll.poll(max(0.0, left) * 1000 + 1):
            octets = attempt.receive()
            if octets is not None and belongs(attempt.query, octets):
                return octets
        if left <= 0:
            raise TimeoutError
