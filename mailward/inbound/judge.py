"""The way of one incoming message: collect envelope, header and body; evaluate; decide; say which fields change.

Pure: `ask` and `now` are arguments. The milter and `mailward explain` both run this, so what is explained is what is done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum

from mailward.auth import authres
from mailward.auth.evaluate import Limits, Verification
from mailward.auth.received_spf import format_received_spf
from mailward.auth.spf import mail_from_domain
from mailward.model.dns import Answer, Question
from mailward.model.message import Envelope, Transaction
from mailward.model.results import Evaluation
from mailward.model.verdict import Action, DeleteField, Edit, InsertField, Reply, Verdict
from mailward.policy.enforcement import Decision, EnforcementRules, Outcome, decide
from mailward.policy.networks import Network, is_in_networks

AUTHENTICATION_RESULTS = "Authentication-Results"
QUARANTINE_FIELD = "X-Mailward-Quarantine"
# Deletions of one message. Honest mail has a few such fields; Postfix takes time in the square of their number, and its
# cleanup(8) ends in a panic at some thirteen thousand.
MAX_DELETIONS = 200
TOO_MANY_FORGED = "too-many-forged-fields"


class Trust(Enum):
    """Whose message this is, and so whether it is judged at all."""

    STRANGER = "stranger"
    AUTHENTICATED = "authenticated"
    NETWORK = "network"


@dataclass(frozen=True, slots=True)
class Judge:
    """What the operator said about judging incoming mail.

    `authserv_id` names us in the field we write; `own_ids` are all the names under which nobody else may have written one.
    `is_shadow`: decisions are told and not carried out. `holds`: quarantine means Postfix's hold queue, not a header field.
    """

    authserv_id: str
    own_ids: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()
    limits: Limits = field(default_factory=Limits)
    rules: EnforcementRules = field(default_factory=EnforcementRules)
    is_shadow: bool = False
    holds: bool = False
    writes_received_spf: bool = False

    def trust(self, envelope: Envelope) -> Trust:
        """Say whether this client's mail is judged: no network client at all is this host."""
        if envelope.login:
            return Trust.AUTHENTICATED
        if not envelope.client_address or is_in_networks(envelope.client_address, self.networks):
            return Trust.NETWORK
        return Trust.STRANGER

    def begin(self, transaction: Transaction, now: float) -> Incoming:
        """Begin with a message whose header is complete; `now` in seconds since 1970."""
        return Incoming(self, transaction, now)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found out and what follows; `evaluation` and `decision` are None for those who are not judged."""

    verdict: Verdict
    trust: Trust
    evaluation: Evaluation | None = None
    decision: Decision | None = None
    forged: int = 0  # fields that claimed to be ours


class Incoming:
    """One message on its way."""

    __slots__ = ("_judge", "_transaction", "_verification", "trust")

    def __init__(self, judge: Judge, transaction: Transaction, now: float) -> None:
        self._judge = judge
        self._transaction = transaction
        self.trust = judge.trust(transaction.envelope)
        self._verification: Verification | None = None
        if self.trust is Trust.STRANGER:
            self._verification = Verification(transaction.envelope, transaction.header, judge.limits, now)

    def body(self, chunk: bytes) -> None:
        """Take the next octets of the body."""
        if self._verification is not None:
            self._verification.body(chunk)

    def judge(self, ask: Callable[[Question], Answer]) -> Judgement:
        """Evaluate, decide, and say which fields change; the body is complete."""
        cleaning = self.cleaning()
        if len(cleaning) > MAX_DELETIONS:
            refusal = Reply(552, "5.3.4", "The message has too many Authentication-Results fields in our name")
            return Judgement(Verdict(Action.REJECT, TOO_MANY_FORGED, reply=refusal), self.trust, forged=len(cleaning))
        if self._verification is None:
            return self._label(cleaning)
        evaluation = self._verification.evaluate(ask)
        decision = decide(evaluation, self._judge.rules)
        edits = (*cleaning, *self._own_fields(evaluation, decision))
        forged = sum(edit.name != QUARANTINE_FIELD for edit in cleaning)
        return Judgement(self._verdict(decision, edits), self.trust, evaluation, decision, forged)

    def cleaning(self) -> tuple[Edit, ...]:
        """Return the deletion of every field that only we may write, last to first: a deletion moves those below it."""
        header = self._transaction.header
        deletions = [
            DeleteField(AUTHENTICATION_RESULTS, occurrence)
            for occurrence in authres.forged_fields(header, self._judge.own_ids)
        ]
        count = sum(1 for item in header if item.compared_name == b"x-mailward-quarantine")
        deletions += [DeleteField(QUARANTINE_FIELD, occurrence) for occurrence in range(1, count + 1)]
        return tuple(reversed(deletions))

    def _label(self, cleaning: tuple[Edit, ...]) -> Judgement:
        """Say who is not judged, and why: an authenticated client by its login, a listed network by nothing."""
        judge, envelope = self._judge, self._transaction.envelope
        if self.trust is Trust.AUTHENTICATED:
            value = authres.format_authenticated(
                judge.authserv_id, envelope.login, mail_from_domain(envelope.mail_from, b"")
            )
        else:
            value = authres.format_none(judge.authserv_id)
        edits = (*cleaning, InsertField(AUTHENTICATION_RESULTS, value))
        forged = sum(edit.name != QUARANTINE_FIELD for edit in cleaning)
        return Judgement(Verdict(Action.ACCEPT, self.trust.value, edits), self.trust, forged=forged)

    def _own_fields(self, evaluation: Evaluation, decision: Decision) -> list[Edit]:
        """Return the fields we add; the last of them ends up on top."""
        judge, envelope = self._judge, self._transaction.envelope
        fields: list[Edit] = []
        if decision.outcome is Outcome.QUARANTINE and not judge.holds and not judge.is_shadow:
            fields.append(InsertField(QUARANTINE_FIELD, " dmarc"))
        if judge.writes_received_spf:
            value = format_received_spf(
                evaluation.spf_mailfrom, envelope.client_address, judge.authserv_id, envelope.helo, envelope.mail_from
            )
            fields.append(InsertField("Received-SPF", value))
        told = replace(
            evaluation, worst_dmarc=decision.dmarc
        )  # the author domain that decided is the one that is named
        value = authres.format_results(judge.authserv_id, told, dmarc_reason=self._told_reason(decision))
        fields.append(InsertField(AUTHENTICATION_RESULTS, value))
        return fields

    def _told_reason(self, decision: Decision) -> str:
        if self._judge.is_shadow and decision.outcome is not Outcome.ACCEPT:
            return f"would be {decision.outcome.value}"
        return decision.detail

    def _verdict(self, decision: Decision, edits: tuple[Edit, ...]) -> Verdict:
        reason = decision.reason.value
        if self._judge.is_shadow or decision.outcome is Outcome.ACCEPT:
            return Verdict(Action.ACCEPT, reason, edits)
        if decision.outcome is Outcome.QUARANTINE:
            return Verdict(Action.HOLD if self._judge.holds else Action.ACCEPT, reason, edits)
        if decision.outcome is Outcome.TEMPFAIL:
            return Verdict(Action.TEMPFAIL, reason, reply=_later(decision))
        return Verdict(Action.REJECT, reason, reply=_refusal(decision))


def _later(decision: Decision) -> Reply:
    # RFC 7208 8.6 has this code for a DNS failure; RFC 9989 7.2 leaves it to us.
    return Reply(451, "4.4.3", f"DMARC of {decision.dmarc.author_domain} cannot be judged now; try again later")


def _refusal(decision: Decision) -> Reply:
    domain = decision.dmarc.author_domain
    if not domain:
        return Reply(550, "5.7.1", "Email rejected: DMARC needs a From field with an author's domain")
    return Reply(550, "5.7.1", f"Email rejected per DMARC policy for {domain}")  # RFC 9989 7.2
