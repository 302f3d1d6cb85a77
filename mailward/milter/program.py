"""What a milter program is to the milter edge: what it wants of the protocol, and the way of one message through it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mailward.model.message import Transaction
from mailward.model.verdict import Verdict

TOO_LARGE = "header-too-large"  # what `failure` is told besides the names of callbacks
TOO_MANY = "too-many-sessions"


class MessageFilter(Protocol):
    """The way of one message through a program; made anew for each message."""

    def end_of_header(self) -> Verdict | None:
        """Decide on envelope and header; None where the body is needed."""

    def body(self, chunk: bytes) -> None:
        """Take the next octets of the body."""

    def end_of_message(self) -> Verdict:
        """Decide; the verdict may hold edits."""


class EnvelopeFilter(Protocol):
    """The way of one message through a program that judges recipients and never sees the content; made anew for each."""

    def recipient(self, address: bytes) -> Verdict | None:
        """Decide on one recipient, given without its brackets; None where it passes. The others are not concerned."""

    def data(self) -> bool:
        """Say whether the message's end is wanted, its recipients being known; without it the message passes now.

        Nothing can be refused here: after a refusal at DATA libmilter takes the message for done and answers no more, while
        Postfix goes on with the transaction, and then without the milter.
        """

    def end_of_message(self) -> Verdict:
        """Decide on the message as a whole; the verdict may hold edits."""


@dataclass(frozen=True, slots=True)
class Wants:
    """What a program needs of the protocol; everything else is negotiated away.

    `content`: `start` makes a MessageFilter, which sees header and body; without it an EnvelopeFilter, which sees neither.
    """

    helo: bool = False
    recipients: bool = False
    content: bool = True
    connect_macros: tuple[str, ...] = ()
    mail_macros: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MilterProgram:
    """A milter: how a message's filter is made, what happens to a message our own bug hit, and who is told."""

    name: str
    wants: Wants
    start: Callable[[Transaction], MessageFilter | EnvelopeFilter]
    failure: Callable[[Transaction, str], Verdict]  # the transaction; TOO_LARGE, TOO_MANY, or the callback that raised
    on_exception: Callable[[Transaction | None, str], None]  # called inside the except clause: has sys.exception()
    on_session: Callable[[int], None]  # +1 when one opens, -1 when it closes
    max_sessions: int
