"""What every milter of ours does alike: messages that were never judged, bugs, and the count of connections.

A filter says what becomes of the messages it sees; here is what becomes of those it cannot see: a header beyond all bounds, more
sessions than a worker takes, an exception of our own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mailward.daemon.metrics import Counter, Gauge
from mailward.daemon.program import WorkerTools
from mailward.milter.program import TOO_LARGE, TOO_MANY, EnvelopeFilter, MessageFilter, MilterProgram, Wants
from mailward.model.message import Transaction
from mailward.model.verdict import Action, Reply, Verdict

HEADER_TOO_LARGE = "header-too-large"
TOO_MANY_SESSIONS = "too-many-sessions"
OWN_BUG = "own-bug"
NOT_JUDGED = (HEADER_TOO_LARGE, TOO_MANY_SESSIONS, OWN_BUG)  # label values of the counter `messages`
TOO_MANY_FIELDS_REPLY = Reply(552, "5.3.4", "The message has too many header fields")

SESSION_METRICS = (
    Counter("sessions_opened", "Connections of the MTA."),
    Gauge("sessions", "Connections of the MTA that are open."),
)

_FAILURES = {
    TOO_LARGE: Verdict(Action.REJECT, HEADER_TOO_LARGE, reply=TOO_MANY_FIELDS_REPLY),
    TOO_MANY: Verdict(
        Action.TEMPFAIL, TOO_MANY_SESSIONS, reply=Reply(451, "4.3.2", "Too many sessions; try again later")
    ),
}
_PASSES = {TOO_MANY: Verdict(Action.ACCEPT, TOO_MANY_SESSIONS)}


def milter_program(
    name: str,
    wants: Wants,
    start: Callable[[Transaction], MessageFilter | EnvelopeFilter],
    tools: WorkerTools,
    max_sessions: int,
    apology: str,
) -> MilterProgram:
    """Return the milter `name`; `apology` is what a message is told that our own bug hit (451).

    Without an apology whatever cannot be judged passes.
    """
    if apology:
        bug = Verdict(Action.TEMPFAIL, OWN_BUG, reply=Reply(451, "4.3.0", apology))
        service = _MilterService(tools, bug, _FAILURES)
    else:
        service = _MilterService(tools, Verdict(Action.ACCEPT, OWN_BUG), _PASSES)
    return MilterProgram(
        name=name,
        wants=wants,
        start=start,
        failure=service.fail,
        on_exception=service.log_bug,
        on_session=service.count_session,
        max_sessions=max_sessions,
    )


class _MilterService:
    """Counts and logs for the milter edge."""

    def __init__(self, tools: WorkerTools, bug: Verdict, failures: Mapping[str, Verdict]) -> None:
        self._tools = tools
        self._bug = bug
        self._failures = failures

    def fail(self, transaction: Transaction, where: str) -> Verdict:
        """Answer for a message that was never judged."""
        verdict = self._failures.get(where, self._bug)
        self._tools.metrics.count("messages", verdict.reason)
        self._tools.log.error(
            "message",
            session=transaction.session_id,
            queue_id=transaction.queue_id,
            client=transaction.envelope.client_address,
            login=transaction.envelope.login,
            mail_from=transaction.envelope.mail_from,
            verdict=verdict.action.value,
            reason=verdict.reason,
            stage=where,
        )
        return verdict

    def log_bug(self, transaction: Transaction | None, where: str) -> None:
        """Log the exception that is being handled, with its traceback."""
        self._tools.log.exception("own-bug", where=where, queue_id=transaction.queue_id if transaction else "")

    def count_session(self, step: int) -> None:
        """Count a connection that opened (+1) or closed (-1)."""
        self._tools.metrics.count("sessions", amount=step)
        if step > 0:
            self._tools.metrics.count("sessions_opened")
