"""The policy server: connections of Postfix's, and the way of one request.

Octets become a request, a request becomes a plan, its charges are made at the end of the loop's turn, and what came of them
decides. Whatever goes wrong in between is DUNNO: mail goes on, and the log has the traceback.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import cast

from mailward.daemon.log import Log
from mailward.daemon.metrics import Counter, Gauge, Histogram, Row, Spec
from mailward.model.errors import ProtocolError
from mailward.model.limits import Outcome
from policyd.protocol import Attributes, RequestReader, reply
from policyd.rules import Decision, Plan
from policyd.turn import Turn

TELL_AGAIN_SECONDS = 60.0  # that connections are refused; the counter has every one
REQUEST_SECONDS = 30.0  # a request that has begun is whole by then, or nobody speaks Postfix's protocol there

STATES = ("CONNECT", "EHLO", "HELO", "MAIL", "RCPT", "DATA", "END-OF-MESSAGE", "VRFY", "ETRN")
OTHER_STATE = "other"
ACTIONS = ("dunno", "defer", "reject", "hold")

METRICS: tuple[Spec, ...] = (
    Counter("sessions_opened", "Connections of the MTA."),
    Gauge("sessions", "Connections of the MTA that are open."),
    Counter("sessions_refused", "Connections beyond max_sessions, closed at once."),
    Counter("protocol_errors", "Connections closed without a reply: they did not speak the policy protocol."),
    Counter(
        "requests", "Requests by the stage of SMTP they came at.", "state", (*(s.lower() for s in STATES), OTHER_STATE)
    ),
    Counter("answers", "Answers by action.", "action", ACTIONS),
    Counter("own_bugs", "Requests answered DUNNO for a bug of ours."),
    Histogram("answer_seconds", "Time from a request to its answer, store included."),
)

_STATE_VALUES = {state: state.lower() for state in STATES}
_DUNNO = reply("DUNNO")

# What a request's line in the log has of it.
_SHOWN = (
    ("stage", "protocol_state"),
    ("queue_id", "queue_id"),
    ("client", "client_address"),
    ("login", "sasl_username"),
    ("mail_from", "sender"),
    ("rcpt_to", "recipient"),
    ("recipients", "recipient_count"),
    ("octets", "size"),
)


class PolicyServer:
    """All connections of one process."""

    def __init__(
        self,
        plan: Callable[[Attributes], Plan],
        conclude: Callable[[Plan, Outcome | None], Decision],
        turn: Turn,
        metrics: Row,
        log: Log,
        max_sessions: int,
    ) -> None:
        """`plan` says what a request costs; `conclude` what follows from what came of it, and tells whoever has to know."""
        self._plan = plan
        self._conclude = conclude
        self._turn = turn
        self._metrics = metrics
        self._log = log
        self._max_sessions = max_sessions
        self._connections: set[_Connection] = set()
        self._told_refused_until = 0.0
        self._untold: list[tuple[Attributes, Plan, Decision, str, float]] = []
        self.is_ending = False
        self.pending = 0  # requests that have not been answered

    def connection(self) -> asyncio.Protocol:
        """Return what serves one more connection."""
        return _Connection(self)

    def expire(self, now: float) -> None:
        """Close connections whose request does not come to an end; `now` is monotonic."""
        for connection in [one for one in self._connections if one.begun_at and now - one.begun_at > REQUEST_SECONDS]:
            self.refuse(connection, ProtocolError(f"a request that is not whole after {REQUEST_SECONDS:.0f} s"))

    def stop_reading(self) -> None:
        """Take no more requests; those that were read are answered still."""
        self.is_ending = True
        for connection in self._connections:
            connection.stop_reading()

    def close(self) -> None:
        """Close every connection; what has been asked is answered before."""
        self.is_ending = True
        for connection in list(self._connections):
            connection.close()

    # ---- what connections tell ----

    def opened(self, connection: _Connection) -> None:
        """Take a connection in, or refuse it."""
        if self.is_ending:
            connection.close()
            return
        if len(self._connections) >= self._max_sessions:
            self._refuse_session()
            connection.close()
            return
        self._connections.add(connection)
        self._metrics.count("sessions_opened")
        self._metrics.count("sessions")

    def _refuse_session(self) -> None:
        self._metrics.count("sessions_refused")
        now = time.monotonic()
        if now >= self._told_refused_until:
            self._told_refused_until = now + TELL_AGAIN_SECONDS
            self._log.error(
                "sessions-refused", most=self._max_sessions, advice="Postfix takes its default_action for them"
            )

    def lost(self, connection: _Connection) -> None:
        """Forget a connection."""
        if connection in self._connections:
            self._connections.discard(connection)
            self._metrics.count("sessions", amount=-1)

    def refuse(self, connection: _Connection, error: ProtocolError) -> None:
        """Close a connection without a reply: Postfix asks again, or takes its default_action."""
        self._metrics.count("protocol_errors")
        self._log.warning("protocol-error", reason=str(error))
        connection.close()

    def asked(self, request: Attributes, connection: _Connection) -> None:
        """Answer a request, at the end of this turn if anything is to be counted."""
        began = time.monotonic()
        self._metrics.count("requests", _STATE_VALUES.get(request.get("protocol_state", ""), OTHER_STATE))
        self.pending += 1
        try:
            plan = self._plan(request)
        except Exception:  # noqa: BLE001 - the edge that must answer the MTA
            self._failed(request)
            self._answer(connection, _DUNNO, "dunno", began)
            return
        then = partial(self._counted, request, connection, plan, began)
        if plan.charging.charges or plan.charging.sent is not None:
            self._turn.charge(plan.charging, then)
        else:
            then(_NOTHING)

    def _counted(
        self, request: Attributes, connection: _Connection, plan: Plan, began: float, outcome: Outcome | None
    ) -> None:
        try:
            decision = self._conclude(plan, outcome)
            octets = _DUNNO if decision.action == "DUNNO" else reply(decision.action)
            word = decision.action.partition(" ")[0].lower()
        except Exception:  # noqa: BLE001 - as above
            self._failed(request)
            self._answer(connection, _DUNNO, "dunno", began)
            return
        self._answer(connection, octets, word, began)
        if not self._untold:
            asyncio.get_running_loop().call_soon(self._tell_all)
        self._untold.append((request, plan, decision, word, time.monotonic() - began))

    def _answer(self, connection: _Connection, octets: bytes, action: str, began: float) -> None:
        self.pending -= 1
        connection.answer(octets)
        self._metrics.count("answers", action)
        self._metrics.observe("answer_seconds", time.monotonic() - began)

    def _tell_all(self) -> None:
        """Log what was answered in the last turn, while those who asked go on: that makes a tenth more requests a second."""
        untold, self._untold = self._untold, []
        for request, plan, decision, action, seconds in untold:
            self._tell(request, plan, decision, action, seconds)

    def _tell(self, request: Attributes, plan: Plan, decision: Decision, action: str, seconds: float) -> None:
        """Log one line. Where nothing was counted and nothing said there is nothing to tell but for who looks closely."""
        shown = {name: value for name, attribute in _SHOWN if (value := request.get(attribute))}
        write = self._log.info if plan.charging.charges or action != "dunno" else self._log.debug
        if decision.limit:
            shown["limit"] = decision.limit
        if decision.shadows:
            shown["shadow"] = ",".join(decision.shadows)
        if 0 < decision.clears_in < float("inf"):
            shown["clears"] = str(round(decision.clears_in))
        write("request", **shown, action=action, reason=decision.reason, ms=round(seconds * 1000, 1))

    def _failed(self, request: Attributes) -> None:
        self._metrics.count("own_bugs")
        self._log.exception("own-bug", stage=request.get("protocol_state", ""), login=request.get("sasl_username", ""))


_NOTHING = Outcome(True, ())


class _Connection(asyncio.Protocol):
    """One connection. Postfix asks and waits; whoever asks without reading the answers is read no more."""

    __slots__ = ("_reader", "_server", "_transport", "begun_at")

    def __init__(self, server: PolicyServer) -> None:
        self._server = server
        self._reader = RequestReader()
        self._transport: asyncio.Transport | None = None
        self.begun_at = 0.0  # monotonic; when the request began that is not whole yet

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.opened(self)

    def data_received(self, octets: bytes) -> None:
        try:
            requests = self._reader.feed(octets)
        except ProtocolError as error:
            self._server.refuse(self, error)
            return
        if self._reader.is_between_requests:
            self.begun_at = 0.0
        elif requests or not self.begun_at:
            self.begun_at = time.monotonic()
        for request in requests:
            self._server.asked(request, self)

    def connection_lost(self, _error: Exception | None) -> None:
        self._server.lost(self)

    def pause_writing(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None and not self._server.is_ending:
            self._transport.resume_reading()

    def stop_reading(self) -> None:
        """Read nothing any more."""
        self.pause_writing()

    def answer(self, octets: bytes) -> None:
        """Send a reply, unless the connection has gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(octets)

    def close(self) -> None:
        """Close it once what is under way has been sent."""
        if self._transport is not None:
            self._transport.close()
