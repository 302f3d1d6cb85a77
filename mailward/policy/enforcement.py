"""What becomes of a message, given who sent it: DMARC policies, and the operator's reasons not to follow them. No I/O.

A message that fails under `p=reject` is quarantined unless the operator chose rejecting, and even then where something
speaks for a forwarder: RFC 9989 7.4 forbids to reject for the policy's sake alone. An override needs proof (a network, a
confirmed name, a chain of seals, a signature); what a stranger can simply write into a header is none.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import Enum

from mailward.model.domain import parents
from mailward.model.results import Disposition, DkimResult, DmarcResult, Evaluation, Result
from mailward.policy.networks import Network, is_in_networks


class Outcome(Enum):
    """What becomes of the message, the mildest first."""

    ACCEPT = "accept"
    TEMPFAIL = "tempfail"
    QUARANTINE = "quarantine"
    REJECT = "reject"


class Reason(Enum):
    """Why; the words of the log and of the counter's label."""

    PASS = "dmarc-pass"  # noqa: S105 - not a password
    NO_RECORD = "dmarc-none"
    POLICY_NONE = "policy-none"
    NOT_ENFORCED = "not-enforced"
    TEMPERROR = "dmarc-temperror"
    SILENT_IDENTIFIER = "silent-identifier"  # a name the sender chose to be verified by does not answer
    PERMERROR = "dmarc-permerror"
    POLICY = "dmarc-fail"
    FORWARDER_HINT = "maybe-forwarded"  # quarantined, not rejected
    NO_AUTHOR = "no-author-domain"
    TRUSTED_FORWARDER = "trusted-forwarder"
    TRUSTED_SEALER = "trusted-sealer"
    MAILING_LIST = "mailing-list"
    ACCEPTED_DOMAIN = "accepted-domain"


OVERRIDES = (Reason.TRUSTED_FORWARDER, Reason.TRUSTED_SEALER, Reason.MAILING_LIST, Reason.ACCEPTED_DOMAIN)
_SEVERITY = {outcome: rank for rank, outcome in enumerate(Outcome)}


@dataclass(frozen=True, slots=True)
class EnforcementRules:
    """What the operator chose. In the domain and name lists an entry stands for itself and what is below it.

    `enforce` is the most that may happen. `trusted_sealers` and `mailing_lists` are exact d= of seals and of signatures.
    """

    enforce: Disposition = Disposition.QUARANTINE
    no_author_domain: Disposition = Disposition.QUARANTINE
    tempfail_on_temperror: bool = False
    tempfail_on_silent_identifier: bool = True
    forwarder_networks: tuple[Network, ...] = ()
    forwarder_names: frozenset[str] = frozenset()
    trusted_sealers: frozenset[str] = frozenset()
    mailing_lists: frozenset[str] = frozenset()
    accept_domains: frozenset[str] = frozenset()
    reject_domains: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a message, and why. `detail` is for the field and the log: our words and validated names.

    `dmarc` is the result that decided; `setting` names the configuration key behind the decision, empty where it was none.
    """

    outcome: Outcome
    reason: Reason
    dmarc: DmarcResult
    detail: str = ""
    setting: str = ""


def decide(evaluation: Evaluation, rules: EnforcementRules) -> Decision:
    """Return the severest of what each author domain's result leads to.

    Each one, so that no author domain the operator excepted can hide another that fails.
    """
    results = evaluation.dmarc
    if evaluation.worst_dmarc not in results:
        results = (*results, evaluation.worst_dmarc)
    decisions = [_decide_one(result, evaluation, rules) for result in results]
    severest = max(decisions, key=lambda decision: _SEVERITY[decision.outcome])
    if _SEVERITY[severest.outcome] > 0:
        return severest
    # Nothing happens to the message: what is told is the result that counts, or why it did not lead further.
    return next(decision for decision in decisions if decision.dmarc == evaluation.worst_dmarc)


def _decide_one(dmarc: DmarcResult, evaluation: Evaluation, rules: EnforcementRules) -> Decision:
    if dmarc.result is Result.PASS:
        return Decision(Outcome.ACCEPT, Reason.PASS, dmarc)
    if dmarc.result is Result.NONE:
        return Decision(Outcome.ACCEPT, Reason.NO_RECORD, dmarc)
    if dmarc.result is Result.TEMPERROR:
        return _unless_excepted(_temperror(dmarc, evaluation, rules), evaluation, rules)
    wanted = dmarc.policy
    if wanted is None:
        if dmarc.author_domain:  # a record that cannot be followed
            return Decision(Outcome.ACCEPT, Reason.PERMERROR, dmarc)
        return _unless_excepted(_no_author(dmarc, rules, rules.enforce), evaluation, rules)
    if wanted is Disposition.NONE:
        return Decision(Outcome.ACCEPT, Reason.POLICY_NONE, dmarc)
    if rules.enforce is Disposition.NONE:
        return Decision(Outcome.ACCEPT, Reason.NOT_ENFORCED, dmarc, f"policy {wanted.value} not applied", "enforce")
    # Of more author domains than may be tried no single one can be excepted: the rest would come along unseen.
    override = None if dmarc.result is Result.PERMERROR else _override(dmarc, evaluation, rules)
    if override is not None:
        return replace(override, detail=f"{override.detail}; policy {wanted.value} not applied")
    return _apply(dmarc, wanted, evaluation, rules)


def _temperror(dmarc: DmarcResult, evaluation: Evaluation, rules: EnforcementRules) -> Decision:
    """Never a failure: delivered, or later, as the operator wants; but what a sender can bring about buys him nothing.

    Under a policy that is known, the only doubt is a name the sender chose to be verified by: a selector, a subdomain whose
    servers have long been gone. While the rest of the DNS answers, such mail comes later. With several author domains the
    silent one may be the sender's own, put there to keep another's policy from being told: then no author can be told.
    """
    if dmarc.policy is Disposition.NONE or rules.enforce is Disposition.NONE:
        return Decision(Outcome.ACCEPT, Reason.TEMPERROR, dmarc)
    if rules.tempfail_on_temperror:
        return Decision(Outcome.TEMPFAIL, Reason.TEMPERROR, dmarc, setting="on_temperror")
    if dmarc.policy is not None and not evaluation.is_dns_away and rules.tempfail_on_silent_identifier:
        return Decision(Outcome.TEMPFAIL, Reason.SILENT_IDENTIFIER, dmarc, setting="on_silent_identifier")
    if len(evaluation.authors.domains) > 1:
        return _no_author(dmarc, rules, Disposition.QUARANTINE)
    return Decision(Outcome.ACCEPT, Reason.TEMPERROR, dmarc, setting="on_temperror")


def _no_author(dmarc: DmarcResult, rules: EnforcementRules, most: Disposition) -> Decision:
    """Nobody can be asked for a policy: the operator's word counts, and never more than `enforce` allows."""
    wanted = min(rules.no_author_domain, rules.enforce, most, key=list(Disposition).index)
    outcome = {
        Disposition.NONE: Outcome.ACCEPT,
        Disposition.QUARANTINE: Outcome.QUARANTINE,
        Disposition.REJECT: Outcome.REJECT,
    }[wanted]
    return Decision(outcome, Reason.NO_AUTHOR, dmarc, setting="no_author_domain")


def _unless_excepted(decision: Decision, evaluation: Evaluation, rules: EnforcementRules) -> Decision:
    """Let what would be let through as a failure through as a doubt, too: a list's mail must not wait for its author's key."""
    if decision.outcome is Outcome.ACCEPT:
        return decision
    return _override(decision.dmarc, evaluation, rules) or decision


def _override(dmarc: DmarcResult, evaluation: Evaluation, rules: EnforcementRules) -> Decision | None:
    """Return the decision to accept a message all the same; None where nothing the operator named speaks for it."""

    def accept(reason: Reason, detail: str, setting: str) -> Decision:
        return Decision(Outcome.ACCEPT, reason, dmarc, f"{reason.value}: {detail}", setting)

    if is_listed(dmarc.author_domain, rules.accept_domains):
        return accept(Reason.ACCEPTED_DOMAIN, dmarc.author_domain, "accept_domains")
    if is_in_networks(evaluation.iprev.address, rules.forwarder_networks):
        return accept(Reason.TRUSTED_FORWARDER, "network", "forwarder_networks")
    if evaluation.iprev.result is Result.PASS and is_listed(evaluation.iprev.name, rules.forwarder_names):
        return accept(Reason.TRUSTED_FORWARDER, evaluation.iprev.name, "forwarder_names")
    arc = evaluation.arc
    if (
        arc.result is Result.PASS
        and arc.sealers[-1] in rules.trusted_sealers
        and dmarc.author_domain in arc.passed_author_domains
    ):
        return accept(Reason.TRUSTED_SEALER, arc.sealers[-1], "trusted_sealers")
    mailing_list = next((sig.signing_domain for sig in evaluation.dkim if _is_from_list(sig, rules)), "")
    if mailing_list:
        return accept(Reason.MAILING_LIST, mailing_list, "mailing_lists")
    return None


def _is_from_list(signature: DkimResult, rules: EnforcementRules) -> bool:
    return signature.result is Result.PASS and signature.signing_domain in rules.mailing_lists


def _apply(dmarc: DmarcResult, wanted: Disposition, evaluation: Evaluation, rules: EnforcementRules) -> Decision:
    """Follow the policy as far as the operator lets it be followed."""
    if is_listed(dmarc.author_domain, rules.reject_domains):
        return Decision(Outcome.REJECT, Reason.POLICY, dmarc, setting="reject_domains")
    if wanted is Disposition.QUARANTINE or rules.enforce is Disposition.QUARANTINE:
        detail = "" if wanted is Disposition.QUARANTINE else "policy reject applied as quarantine"
        return Decision(Outcome.QUARANTINE, Reason.POLICY, dmarc, detail, "enforce")
    if evaluation.hints:
        detail = "policy reject applied as quarantine: " + ", ".join(hint.value for hint in evaluation.hints)
        return Decision(Outcome.QUARANTINE, Reason.FORWARDER_HINT, dmarc, detail, "enforce")
    return Decision(Outcome.REJECT, Reason.POLICY, dmarc, setting="enforce")


def is_listed(name: str, listed: Collection[str]) -> bool:
    """Say whether a domain, or one above it, is in the list.

    >>> is_listed("mx1.out.example", {"out.example"}), is_listed("notout.example", {"out.example"})
    (True, False)
    """
    return bool(listed) and bool(name) and (name in listed or any(above in listed for above in parents(name)))
