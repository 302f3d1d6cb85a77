"""What becomes of a message: DMARC policies as far as the operator lets them be followed, and proof for every exception."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest

from mailward.model.results import (
    ArcResult,
    Authors,
    Disposition,
    DkimResult,
    DmarcResult,
    Evaluation,
    ForwarderHint,
    IprevResult,
    Result,
    SpfIdentity,
    SpfResult,
)
from mailward.policy.enforcement import OVERRIDES, EnforcementRules, Outcome, Reason, decide

REJECT, QUARANTINE, NONE = Disposition.REJECT, Disposition.QUARANTINE, Disposition.NONE


def dmarc(
    result: Result = Result.FAIL, policy: Disposition | None = REJECT, author_domain: str = "bank.example"
) -> DmarcResult:
    return DmarcResult(result, author_domain, policy=policy)


def found(*results: DmarcResult, **changes: object) -> Evaluation:
    evaluation = Evaluation(
        authors=Authors(tuple(result.author_domain for result in results if result.author_domain)),
        iprev=IprevResult(Result.PASS, "192.0.2.9", "mx.forwarder.example"),
        spf_helo=SpfResult(Result.NONE, SpfIdentity.HELO),
        spf_mailfrom=SpfResult(Result.FAIL, SpfIdentity.MAILFROM, "bank.example"),
        dkim=(DkimResult(Result.PASS, signing_domain="lists.example"),),
        arc=ArcResult(Result.PASS, "", 1, ("sealer.example",), ("bank.example",)),
        dmarc=results,
        worst_dmarc=results[0],
    )
    return replace(evaluation, **changes)  # type: ignore[arg-type]


FAIL = found(dmarc())
ENFORCING = EnforcementRules(enforce=REJECT)


@pytest.mark.parametrize(
    ("result", "policy", "enforce", "outcome", "reason"),
    [
        pytest.param(Result.PASS, REJECT, REJECT, Outcome.ACCEPT, Reason.PASS, id="a pass is accepted"),
        pytest.param(Result.NONE, None, REJECT, Outcome.ACCEPT, Reason.NO_RECORD, id="no record, nothing to follow"),
        pytest.param(Result.FAIL, NONE, REJECT, Outcome.ACCEPT, Reason.POLICY_NONE, id="p=none changes nothing"),
        pytest.param(Result.FAIL, QUARANTINE, REJECT, Outcome.QUARANTINE, Reason.POLICY, id="p=quarantine"),
        pytest.param(Result.FAIL, REJECT, REJECT, Outcome.REJECT, Reason.POLICY, id="p=reject where we reject"),
        pytest.param(Result.FAIL, REJECT, QUARANTINE, Outcome.QUARANTINE, Reason.POLICY, id="p=reject is quarantined"),
        pytest.param(Result.FAIL, REJECT, NONE, Outcome.ACCEPT, Reason.NOT_ENFORCED, id="label only"),
        pytest.param(Result.TEMPERROR, None, REJECT, Outcome.ACCEPT, Reason.TEMPERROR, id="an error is no failure"),
        pytest.param(Result.TEMPERROR, NONE, REJECT, Outcome.ACCEPT, Reason.TEMPERROR, id="nor where nothing is asked"),
        pytest.param(
            Result.TEMPERROR, REJECT, REJECT, Outcome.TEMPFAIL, Reason.SILENT_IDENTIFIER, id="a silent name comes later"
        ),
        pytest.param(Result.PERMERROR, None, REJECT, Outcome.ACCEPT, Reason.PERMERROR, id="an unusable record"),
        pytest.param(Result.PERMERROR, REJECT, REJECT, Outcome.REJECT, Reason.POLICY, id="too many author domains"),
    ],
)
def test_a_policy_is_followed_as_far_as_the_operator_allows(
    result: Result, policy: Disposition | None, enforce: Disposition, outcome: Outcome, reason: Reason
) -> None:
    decision = decide(found(dmarc(result, policy)), EnforcementRules(enforce=enforce))
    assert (decision.outcome, decision.reason) == (outcome, reason)


@pytest.mark.parametrize("hint", ForwarderHint)
def test_what_speaks_for_a_forwarder_softens_rejecting_to_quarantine(hint: ForwarderHint) -> None:
    decision = decide(replace(FAIL, hints=(hint,)), ENFORCING)
    assert (decision.outcome, decision.reason) == (Outcome.QUARANTINE, Reason.FORWARDER_HINT)
    assert hint.value in decision.detail


def test_what_speaks_for_a_forwarder_never_lets_a_message_through() -> None:
    hinted = replace(found(dmarc(policy=QUARANTINE)), hints=tuple(ForwarderHint))
    assert decide(hinted, ENFORCING).outcome is Outcome.QUARANTINE


@pytest.mark.parametrize(
    ("rules", "evaluation", "reason"),
    [
        pytest.param(
            {"forwarder_networks": (ipaddress.ip_network("192.0.2.0/24"),)},
            FAIL,
            Reason.TRUSTED_FORWARDER,
            id="a listed network",
        ),
        pytest.param(
            {"forwarder_names": frozenset({"forwarder.example"})}, FAIL, Reason.TRUSTED_FORWARDER, id="a confirmed name"
        ),
        pytest.param(
            {"trusted_sealers": frozenset({"sealer.example"})}, FAIL, Reason.TRUSTED_SEALER, id="a trusted seal"
        ),
        pytest.param({"mailing_lists": frozenset({"lists.example"})}, FAIL, Reason.MAILING_LIST, id="a signed list"),
        pytest.param({"accept_domains": frozenset({"bank.example"})}, FAIL, Reason.ACCEPTED_DOMAIN, id="the domain"),
        pytest.param(
            {"accept_domains": frozenset({"bank.example"})},
            found(dmarc(author_domain="mail.bank.example")),
            Reason.ACCEPTED_DOMAIN,
            id="below a listed domain",
        ),
    ],
)
def test_proof_that_the_operator_named_lets_a_failure_through_and_says_so(
    rules: dict[str, object], evaluation: Evaluation, reason: Reason
) -> None:
    decision = decide(evaluation, replace(ENFORCING, **rules))  # type: ignore[arg-type]
    assert (decision.outcome, decision.reason) == (Outcome.ACCEPT, reason)
    assert decision.detail.startswith(reason.value)
    assert decision.detail.endswith("policy reject not applied")
    assert decision.setting in rules


@pytest.mark.parametrize(
    ("rules", "changes"),
    [
        pytest.param(
            {"forwarder_names": frozenset({"forwarder.example"})},
            {"iprev": IprevResult(Result.FAIL, "192.0.2.9", "mx.forwarder.example")},
            id="a name that does not lead back",
        ),
        pytest.param(
            {"forwarder_names": frozenset({"forwarder.example"})},
            {"iprev": IprevResult(Result.PASS, "192.0.2.9", "notforwarder.example")},
            id="a name that only ends alike",
        ),
        pytest.param(
            {"forwarder_names": frozenset({"forwarder.example"})},
            {"iprev": IprevResult(Result.PASS, "192.0.2.9", "")},
            id="no name at all",
        ),
        pytest.param(
            {"trusted_sealers": frozenset({"sealer.example"})},
            {"arc": ArcResult(Result.FAIL, "", 1, ("sealer.example",), ("bank.example",))},
            id="a broken chain",
        ),
        pytest.param(
            {"trusted_sealers": frozenset({"sealer.example"})},
            {"arc": ArcResult(Result.PASS, "", 2, ("sealer.example", "evil.example"), ("bank.example",))},
            id="the trusted seal is not the newest",
        ),
        pytest.param(
            {"trusted_sealers": frozenset({"sealer.example"})},
            {"arc": ArcResult(Result.PASS, "", 1, ("sealer.example",), ("other.example",))},
            id="the sealer saw somebody else pass",
        ),
        pytest.param(
            {"mailing_lists": frozenset({"lists.example"})},
            {"dkim": (DkimResult(Result.FAIL, signing_domain="lists.example"),)},
            id="the list's signature does not verify",
        ),
        pytest.param(
            {"mailing_lists": frozenset({"lists.example"})},
            {"dkim": (DkimResult(Result.PASS, signing_domain="evil.lists.example"),)},
            id="below the list's domain",
        ),
        pytest.param({"forwarder_networks": (ipaddress.ip_network("198.51.100.0/24"),)}, {}, id="from another network"),
        pytest.param({"accept_domains": frozenset({"mail.bank.example"})}, {}, id="above a listed domain"),
    ],
)
def test_what_only_looks_like_proof_lets_nothing_through(rules: dict[str, object], changes: dict[str, object]) -> None:
    decision = decide(replace(FAIL, **changes), replace(ENFORCING, **rules))  # type: ignore[arg-type]
    assert decision.outcome is Outcome.REJECT


def test_an_excepted_author_domain_does_not_hide_another_that_fails() -> None:
    both = found(dmarc(author_domain="friend.example"), dmarc(author_domain="bank.example"))
    decision = decide(both, replace(ENFORCING, accept_domains=frozenset({"friend.example"})))
    assert (decision.outcome, decision.dmarc.author_domain) == (Outcome.REJECT, "bank.example")


def test_the_severest_of_several_author_domains_counts() -> None:
    mild, severe = dmarc(policy=QUARANTINE), dmarc(author_domain="other.example")
    assert decide(found(mild, severe), ENFORCING).outcome is Outcome.REJECT
    assert decide(found(severe, mild), ENFORCING).outcome is Outcome.REJECT


def test_a_result_that_counts_beyond_those_of_the_domains_is_heard() -> None:
    passing = dmarc(Result.PASS)
    hidden = found(passing, worst_dmarc=dmarc(Result.PERMERROR, QUARANTINE))
    assert decide(hidden, ENFORCING).outcome is Outcome.QUARANTINE


def test_own_domains_are_rejected_whatever_speaks_for_a_forwarder() -> None:
    rules = replace(ENFORCING, enforce=QUARANTINE, reject_domains=frozenset({"bank.example"}))
    decision = decide(replace(FAIL, hints=tuple(ForwarderHint)), rules)
    assert (decision.outcome, decision.setting) == (Outcome.REJECT, "reject_domains")


def test_own_domains_are_not_rejected_where_nothing_is_enforced() -> None:
    rules = EnforcementRules(enforce=NONE, reject_domains=frozenset({"bank.example"}))
    assert decide(FAIL, rules).outcome is Outcome.ACCEPT


def test_while_the_dns_is_away_nobody_waits_for_a_silent_name() -> None:
    silent = found(dmarc(Result.TEMPERROR, REJECT), is_dns_away=True)
    decision = decide(silent, ENFORCING)
    assert (decision.outcome, decision.reason) == (Outcome.ACCEPT, Reason.TEMPERROR)


def test_a_silent_name_is_accepted_where_the_operator_says_so() -> None:
    rules = replace(ENFORCING, tempfail_on_silent_identifier=False)
    assert decide(found(dmarc(Result.TEMPERROR, REJECT)), rules).outcome is Outcome.ACCEPT


def test_no_exception_holds_for_more_author_domains_than_may_be_tried() -> None:
    rules = replace(ENFORCING, accept_domains=frozenset({"bank.example"}))
    assert decide(found(dmarc(Result.PERMERROR, QUARANTINE)), rules).outcome is Outcome.QUARANTINE


@pytest.mark.parametrize(
    ("policy", "enforce", "outcome"),
    [
        pytest.param(None, QUARANTINE, Outcome.TEMPFAIL, id="the policy is unknown"),
        pytest.param(REJECT, QUARANTINE, Outcome.TEMPFAIL, id="the policy is reject"),
        pytest.param(NONE, QUARANTINE, Outcome.ACCEPT, id="nothing is at stake"),
        pytest.param(None, NONE, Outcome.ACCEPT, id="nothing is enforced"),
    ],
)
def test_a_temporary_error_defers_only_where_a_policy_may_be_at_stake(
    policy: Disposition | None, enforce: Disposition, outcome: Outcome
) -> None:
    rules = EnforcementRules(enforce=enforce, tempfail_on_temperror=True)
    assert decide(found(dmarc(Result.TEMPERROR, policy)), rules).outcome is outcome


@pytest.mark.parametrize(
    ("wanted", "enforce", "outcome"),
    [
        pytest.param(QUARANTINE, REJECT, Outcome.QUARANTINE, id="quarantined"),
        pytest.param(REJECT, REJECT, Outcome.REJECT, id="rejected"),
        pytest.param(REJECT, QUARANTINE, Outcome.QUARANTINE, id="never more than enforce"),
        pytest.param(REJECT, NONE, Outcome.ACCEPT, id="label only"),
        pytest.param(NONE, REJECT, Outcome.ACCEPT, id="accepted"),
    ],
)
def test_mail_without_an_author_domain_meets_what_the_operator_said(
    wanted: Disposition, enforce: Disposition, outcome: Outcome
) -> None:
    nobody = found(dmarc(Result.PERMERROR, None, author_domain=""))
    decision = decide(nobody, EnforcementRules(enforce=enforce, no_author_domain=wanted))
    assert (decision.outcome, decision.reason) == (outcome, Reason.NO_AUTHOR)


@pytest.mark.parametrize(
    ("rules", "outcome"),
    [
        pytest.param(EnforcementRules(), Outcome.QUARANTINE, id="quarantined"),
        pytest.param(EnforcementRules(REJECT, REJECT), Outcome.QUARANTINE, id="never rejected"),
        pytest.param(EnforcementRules(no_author_domain=NONE), Outcome.ACCEPT, id="accepted where the operator says so"),
        pytest.param(EnforcementRules(tempfail_on_temperror=True), Outcome.TEMPFAIL, id="deferred"),
        pytest.param(EnforcementRules(enforce=NONE), Outcome.ACCEPT, id="label only"),
    ],
)
def test_a_silent_domain_beside_another_author_does_not_buy_delivery(rules: EnforcementRules, outcome: Outcome) -> None:
    silent = dmarc(Result.TEMPERROR, None, "silent.example")
    assert decide(found(silent, dmarc(Result.TEMPERROR, None)), rules).outcome is outcome


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param(
            EnforcementRules(forwarder_networks=(ipaddress.ip_network("192.0.2.0/24"),)), id="a listed network"
        ),
        pytest.param(EnforcementRules(forwarder_names=frozenset({"forwarder.example"})), id="a confirmed name"),
        pytest.param(EnforcementRules(mailing_lists=frozenset({"lists.example"})), id="a signed list"),
    ],
)
@pytest.mark.parametrize(
    "doubtful",
    [
        pytest.param(dmarc(Result.TEMPERROR, REJECT), id="a silent name"),
        pytest.param(dmarc(Result.PERMERROR, None, author_domain=""), id="no author domain"),
    ],
)
def test_what_lets_a_failure_through_lets_a_doubt_through(rules: EnforcementRules, doubtful: DmarcResult) -> None:
    assert decide(found(doubtful), EnforcementRules()).outcome is not Outcome.ACCEPT
    decision = decide(found(doubtful), rules)
    assert (decision.outcome, decision.reason in OVERRIDES) == (Outcome.ACCEPT, True)


def test_proof_for_another_author_excuses_no_missing_one() -> None:
    rules = EnforcementRules(trusted_sealers=frozenset({"sealer.example"}), accept_domains=frozenset({"bank.example"}))
    assert decide(found(dmarc(Result.PERMERROR, None, author_domain="")), rules).outcome is Outcome.QUARANTINE


def test_a_trusted_seal_excuses_a_silent_name_of_the_author_it_saw_pass() -> None:
    rules = EnforcementRules(trusted_sealers=frozenset({"sealer.example"}))
    assert decide(found(dmarc(Result.TEMPERROR, REJECT)), rules).reason is Reason.TRUSTED_SEALER
    assert decide(found(dmarc(Result.TEMPERROR, REJECT, "other.example")), rules).outcome is Outcome.TEMPFAIL
