"""Verdict and reasons in sentences."""

from __future__ import annotations

from dataclasses import dataclass

from mailward.inbound.judge import QUARANTINE_FIELD, Judgement, Trust
from mailward.model.results import Result
from mailward.model.verdict import Action, InsertField
from mailward.policy.enforcement import OVERRIDES, Decision, Outcome, Reason
from postmaster.explain.layout import Tone

_WORDS = {
    Outcome.ACCEPT: ("accepted", Tone.GOOD),
    Outcome.TEMPFAIL: ("deferred", Tone.DOUBT),
    Outcome.QUARANTINE: ("quarantined", Tone.DOUBT),
    Outcome.REJECT: ("rejected", Tone.BAD),
}
_POLICY_AT_STAKE = (Reason.POLICY, Reason.FORWARDER_HINT, Reason.NOT_ENFORCED, *OVERRIDES)


@dataclass(frozen=True, slots=True)
class Summary:
    """What becomes of a message in a word, what that means, and why."""

    word: str
    tone: Tone
    what: str
    why: str


def summarize(judgement: Judgement) -> Summary:
    """Say what becomes of the message, and why."""
    decision = judgement.decision
    if decision is None:
        return Summary("accepted", Tone.GOOD, "It is labelled and delivered.", _why_not_judged(judgement))
    word, tone = _WORDS[decision.outcome]
    if (
        judgement.verdict.action is Action.ACCEPT
        and decision.outcome is not Outcome.ACCEPT
        and not _is_marked(judgement)
    ):
        what = f"It is delivered: shadow mode. Without it, it would be {word}."
        return Summary("accepted", Tone.GOOD, what, _why(decision))
    return Summary(word, tone, _what(judgement), _why(decision))


def _is_marked(judgement: Judgement) -> bool:
    edits = judgement.verdict.edits
    return any(isinstance(edit, InsertField) and edit.name == QUARANTINE_FIELD for edit in edits)


def _why_not_judged(judgement: Judgement) -> str:
    if judgement.verdict.action is Action.REJECT:
        return f"It has {judgement.forged} fields that only we may write, more than honest mail has: it is not judged."
    if judgement.trust is Trust.AUTHENTICATED:
        return "The client logged in: its mail is not judged."
    return "The client is this machine, or in one of `networks`: its mail is not judged."


def _what(judgement: Judgement) -> str:
    verdict = judgement.verdict
    if verdict.action is Action.HOLD:
        return "It goes to Postfix's hold queue."
    if verdict.reply is not None:
        return f"The client is answered: {verdict.reply.code} {verdict.reply.enhanced_code} {verdict.reply.text}"
    if _is_marked(judgement):
        return f"It is delivered with {QUARANTINE_FIELD}: dmarc, by which Sieve files it into Junk."
    return "It is delivered."


def _why(decision: Decision) -> str:
    dmarc = decision.dmarc
    domain = dmarc.author_domain
    policy = dmarc.policy.value if dmarc.policy else "none"
    if decision.reason in _POLICY_AT_STAKE:
        return _sentence(f"{_failure(decision)}; its policy is {policy}", decision.detail)
    return {
        Reason.PASS: f"DMARC passes for {domain}: {', '.join(dmarc.aligned)}.",
        Reason.NO_RECORD: f"Nothing is asked for by {domain}: {dmarc.reason}.",
        Reason.POLICY_NONE: f"{_failure(decision)}, and its policy is none: nothing is asked for.",
        Reason.TEMPERROR: f"The DNS leaves open whether DMARC passes: {dmarc.reason}. That never counts as a failure.",
        Reason.SILENT_IDENTIFIER: _sentence(
            f"its policy is {policy}, and {dmarc.reason}", "the rest of the DNS answers, so it shall come again later"
        ),
        Reason.PERMERROR: f"DMARC cannot be judged for {domain}: {dmarc.reason}.",
        Reason.NO_AUTHOR: _sentence(dmarc.reason),
    }[decision.reason]


def _failure(decision: Decision) -> str:
    dmarc = decision.dmarc
    if dmarc.result is Result.FAIL:
        return f"DMARC fails for {dmarc.author_domain} ({dmarc.reason})"
    return f"DMARC is a {dmarc.result.value} for {dmarc.author_domain} ({dmarc.reason})"


def _sentence(*parts: str) -> str:
    text = "; ".join(filter(None, parts))
    return text[:1].upper() + text[1:] + "."
