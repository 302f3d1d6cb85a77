"""All that a filter returns: what happens to the message, which header fields change, and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Action(Enum):
    """What the MTA does with the message."""

    ACCEPT = "accept"
    TEMPFAIL = "tempfail"
    REJECT = "reject"
    HOLD = "hold"  # Postfix's hold queue
    DISCARD = "discard"


@dataclass(frozen=True, slots=True)
class Reply:
    """The SMTP reply to a message that is not accepted: 4xx for TEMPFAIL, 5xx for REJECT (RFC 5321, RFC 3463)."""

    code: int
    enhanced_code: str
    text: str


@dataclass(frozen=True, slots=True)
class InsertField:
    """Insert a header field at `index`; 0 is above everything the MTA shows, its own Received field included.

    `raw_value` begins with its own space; folds are CRLF + white space.
    """

    name: str
    raw_value: str
    index: int = 0


@dataclass(frozen=True, slots=True)
class DeleteField:
    """Delete the `occurrence`-th field of this name, counted from 1 at the top."""

    name: str
    occurrence: int


Edit = InsertField | DeleteField


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one message (or one recipient), and the reason in a word or two for log and counters."""

    action: Action
    reason: str
    edits: tuple[Edit, ...] = ()
    reply: Reply | None = None
