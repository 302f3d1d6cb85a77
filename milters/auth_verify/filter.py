"""The way of one message through the verifier: collect, judge at its end, tell what was found, apply.

What is found and decided is mailward.inbound's; this file adds the clock, the resolver, the counters and the log.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from mailward.adapters.resolver import Resolver
from mailward.auth.spf_evaluation import MAX_LOOKUPS
from mailward.daemon.log import Log
from mailward.daemon.metrics import Counter, Histogram, Row
from mailward.daemon.milter_service import HEADER_TOO_LARGE, NOT_JUDGED, OWN_BUG, SESSION_METRICS, TOO_MANY_SESSIONS
from mailward.daemon.shown import Part, Shown, Tone
from mailward.inbound.judge import TOO_MANY_FORGED, Incoming, Judge, Judgement, Trust
from mailward.model.message import Transaction
from mailward.model.results import DkimResult, Evaluation, Result
from mailward.model.verdict import Action, Verdict
from mailward.policy.enforcement import OVERRIDES, Decision, Outcome, Reason

MAX_TOLD = 5  # author domains and signatures of a message that stand in its line of the log
OUTCOMES = (*(outcome.value for outcome in Outcome), Trust.AUTHENTICATED.value, Trust.NETWORK.value)
VERDICTS = (*OUTCOMES, TOO_MANY_FORGED, *NOT_JUDGED)
_RESULTS = tuple(result.value for result in Result)

METRICS = (
    Counter("messages", "Messages, by what became of them.", "verdict", VERDICTS),
    Counter("decisions", "Judged messages, by the reason of the decision.", "reason", tuple(r.value for r in Reason)),
    Counter("shadow", "What would have been done with messages in shadow mode.", "verdict", OUTCOMES),
    Counter("overrides", "DMARC failures let through, by reason.", "reason", tuple(r.value for r in OVERRIDES)),
    Counter("spf", "SPF results of the MAIL FROM identity.", "result", _RESULTS),
    Counter("spf_helo", "SPF results of the HELO identity.", "result", _RESULTS),
    Counter("dkim", "DKIM results, one for each signature; none for a message without.", "result", _RESULTS),
    Counter("dmarc", "DMARC results, one for each message.", "result", _RESULTS),
    Counter("arc", "ARC results.", "result", _RESULTS),
    Counter("iprev", "Results of the reverse look-up.", "result", _RESULTS),
    Counter("forged_fields", "Authentication-Results fields deleted because they claimed or might claim to be ours."),
    Histogram("seconds", "Time from the end of the header to the answer at the end of the message."),
    *SESSION_METRICS,
)


def _results(title: str, metric: str, *more: Part) -> Shown:
    """Show a method's results; `more` are those that only this method has."""
    failed, errors = (Result.FAIL, Result.POLICY), (Result.TEMPERROR, Result.PERMERROR)
    return Shown(
        title,
        (
            Part("pass", metric, (Result.PASS.value,), Tone.GOOD),
            Part("none, neutral", metric, (Result.NONE.value, Result.NEUTRAL.value), Tone.PLAIN),
            *more,
            Part("error", metric, tuple(result.value for result in errors), Tone.ODD),
            Part("fail", metric, tuple(result.value for result in failed), Tone.BAD),
        ),
    )


_LATER = (Outcome.TEMPFAIL.value, TOO_MANY_SESSIONS, OWN_BUG)

SHOWN = (
    Shown(
        "Messages",
        (
            Part("accepted", "messages", (Outcome.ACCEPT.value,), Tone.GOOD),
            Part("our own accounts and networks", "messages", (Trust.AUTHENTICATED.value, Trust.NETWORK.value)),
            Part("told to come again", "messages", _LATER, Tone.LATER),
            Part("quarantined", "messages", (Outcome.QUARANTINE.value,), Tone.ODD),
            Part("rejected", "messages", (Outcome.REJECT.value, TOO_MANY_FORGED, HEADER_TOO_LARGE), Tone.BAD),
        ),
        seconds="seconds",
    ),
    _results("DMARC", "dmarc"),
    _results("DKIM signatures", "dkim"),
    _results("SPF of MAIL FROM", "spf", Part("softfail", "spf", (Result.SOFTFAIL.value,), Tone.LATER)),
)


@dataclass(frozen=True, slots=True)
class Verifier:
    """All that verifying needs and that outlives a message."""

    judge: Judge
    resolver: Resolver
    metrics: Row
    log: Log
    accepts_after_own_bug: bool


class VerifyMessage:
    """One message on its way (the MessageFilter of mailward.milter.program)."""

    __slots__ = ("_incoming", "_started", "_transaction", "_verifier")

    def __init__(self, verifier: Verifier, transaction: Transaction) -> None:
        self._verifier = verifier
        self._transaction = transaction
        self._incoming: Incoming | None = None
        self._started = 0.0

    def end_of_header(self) -> Verdict | None:
        """Read the header; the body is always asked for, since fields can only be changed at its end."""
        self._started = time.perf_counter()
        self._incoming = self._verifier.judge.begin(self._transaction, time.time())
        return None

    def body(self, chunk: bytes) -> None:
        """Hash the next octets of the body."""
        assert self._incoming is not None  # the milter edge sees to it that the header comes first
        self._incoming.body(chunk)

    def end_of_message(self) -> Verdict:
        """Judge, tell, and say what happens."""
        assert self._incoming is not None
        lookups = self._verifier.resolver.for_message()
        try:
            judgement = self._incoming.judge(lookups.ask)
        except Exception:
            if not self._verifier.accepts_after_own_bug:
                raise
            return self._accept_after_own_bug(self._incoming)
        self._count(judgement)
        self._log(judgement, lookups.queries)
        return judgement.verdict

    def _accept_after_own_bug(self, incoming: Incoming) -> Verdict:
        """Let a message through that our own bug kept from being judged, as configured; never with a forged field."""
        verifier, transaction = self._verifier, self._transaction
        verifier.metrics.count("messages", OWN_BUG)
        verifier.log.exception(
            "own-bug", where="end-of-message", session=transaction.session_id, queue_id=transaction.queue_id
        )
        return Verdict(Action.ACCEPT, OWN_BUG, incoming.cleaning())

    def _count(self, judgement: Judgement) -> None:
        metrics = self._verifier.metrics
        metrics.observe("seconds", time.perf_counter() - self._started)
        if judgement.forged:
            metrics.count("forged_fields", amount=judgement.forged)
        evaluation, decision = judgement.evaluation, judgement.decision
        if evaluation is None or decision is None:
            metrics.count("messages", judgement.verdict.reason)
            return
        outcome = decision.outcome.value
        is_shadow = self._verifier.judge.is_shadow
        counted = [
            ("messages", Outcome.ACCEPT.value if is_shadow else outcome),
            ("decisions", decision.reason.value),
            ("spf", evaluation.spf_mailfrom.result.value),
            ("spf_helo", evaluation.spf_helo.result.value),
            ("dmarc", decision.dmarc.result.value),
            ("arc", evaluation.arc.result.value),
            ("iprev", evaluation.iprev.result.value),
        ]
        counted += [("dkim", signature.result.value) for signature in evaluation.dkim] or [("dkim", Result.NONE.value)]
        if is_shadow:
            counted.append(("shadow", outcome))
        if decision.reason in OVERRIDES:
            counted.append(("overrides", decision.reason.value))
        metrics.count_each(counted)

    def _log(self, judgement: Judgement, queries: int) -> None:
        """Write the message's line: the verdict, and enough to see why without looking anything up."""
        transaction, envelope = self._transaction, self._transaction.envelope
        evaluation, decision = judgement.evaluation, judgement.decision
        found: dict[str, object] = {}
        if evaluation is None or decision is None:
            verdict = judgement.verdict.reason
            found["login"] = envelope.login
        else:
            is_shadow = self._verifier.judge.is_shadow
            verdict = Outcome.ACCEPT.value if is_shadow else decision.outcome.value
            found = _found(evaluation, decision, self._verifier.judge.limits.spf.void_lookups)
            if is_shadow:
                found["would"] = decision.outcome.value
        self._verifier.log.info(
            "message",
            session=transaction.session_id,
            queue_id=transaction.queue_id,
            client=envelope.client_address,
            verdict=verdict,  # before what strangers choose: a line is cut at its end
            helo=envelope.helo,
            mail_from=envelope.mail_from,
            **found,
            forged=judgement.forged or "",
            queries=queries,
            ms=f"{(time.perf_counter() - self._started) * 1000:.1f}",
        )


def _found(evaluation: Evaluation, decision: Decision, void_lookups: int) -> dict[str, object]:
    """Return the results as the log shows them."""
    dmarc, spf = decision.dmarc, evaluation.spf_mailfrom
    return {
        "author_domain": " ".join(evaluation.authors.domains[:MAX_TOLD]),
        "reason": decision.reason.value,
        "detail": decision.detail,
        "dmarc": dmarc.result.value,
        "policy": dmarc.policy.value if dmarc.policy else "",
        "policy_domain": dmarc.policy_domain,
        "dmarc_reason": dmarc.reason,
        "spf": f"{spf.result.value}:{spf.domain}",
        "spf_reason": spf.reason,
        "spf_lookups": f"{spf.lookups}/{MAX_LOOKUPS}" if spf.lookups else "",
        "spf_void": f"{spf.void_lookups}/{void_lookups}" if spf.void_lookups else "",
        "spf_helo": evaluation.spf_helo.result.value,
        "dkim": " ".join([_told(signature) for signature in evaluation.dkim[:MAX_TOLD]]) or "none",
        "arc": "" if evaluation.arc.result is Result.NONE else evaluation.arc.result.value,
        "arc_reason": evaluation.arc.reason,
        "iprev": evaluation.iprev.result.value,
    }


def _told(signature: DkimResult) -> str:
    name = f"{signature.result.value}:{signature.signing_domain}/{signature.selector}"
    return f"{name}({signature.reason})" if signature.reason and signature.result is not Result.PASS else name
