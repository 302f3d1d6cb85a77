"""The way of one incoming message: who is judged, what becomes of it, which fields change."""

from __future__ import annotations

import ipaddress

import pytest

from mailward.inbound.judge import (
    AUTHENTICATION_RESULTS,
    MAX_DELETIONS,
    QUARANTINE_FIELD,
    TOO_MANY_FORGED,
    Judge,
    Trust,
)
from mailward.model.dns import Answer, Failure, Question, failed
from mailward.model.message import Envelope, HeaderField, Transaction
from mailward.model.results import Disposition, ForwarderHint, Result
from mailward.model.verdict import Action
from mailward.policy.enforcement import EnforcementRules, Outcome, Reason
from tests.inbound.mail import (
    BODY,
    CLIENT,
    HEADER,
    NOW,
    ZONE,
    deleted,
    envelope,
    fields,
    inserted,
    judge_message,
    signed,
)
from tests.support.zone import Zone

ID = "mx.our.example"
JUDGE = Judge(ID, frozenset({ID, "old.our.example"}), networks=(ipaddress.ip_network("10.0.0.0/8"),))
REJECTING = Judge(ID, frozenset({ID}), rules=EnforcementRules(enforce=Disposition.REJECT))
FORGED = fields("From: Alice <alice@bank.example>", "To: bob@our.example", "Subject: Pay now")


def results_of(field: str) -> list[str]:
    """Return `method=result` of each result in a field."""
    parts = "".join(field.split("\r\n")).split(";")
    return [part.split()[0] for part in parts[1:]]


def test_a_signed_message_passes_with_one_field_and_no_other_change() -> None:
    judgement = judge_message(JUDGE, envelope(CLIENT), signed())
    assert judgement.verdict.action is Action.ACCEPT
    assert judgement.decision is not None
    assert (judgement.decision.outcome, judgement.decision.reason) == (Outcome.ACCEPT, Reason.PASS)
    (field,) = inserted(judgement, AUTHENTICATION_RESULTS)
    assert results_of(field) == ["dkim=pass", "spf=pass", "spf=none", "dmarc=pass", "arc=none", "iprev=pass"]
    assert len(judgement.verdict.edits) == 1


def test_a_signature_alone_is_enough() -> None:
    judgement = judge_message(REJECTING, envelope(mail_from=b"bounce@elsewhere.example"), signed())
    assert judgement.evaluation is not None
    assert judgement.evaluation.worst_dmarc.aligned == ("dkim=bank.example",)
    assert judgement.verdict.action is Action.ACCEPT


def test_a_forged_message_is_quarantined_by_a_field() -> None:
    judgement = judge_message(JUDGE, envelope(), FORGED)
    assert judgement.verdict.action is Action.ACCEPT
    assert inserted(judgement, QUARANTINE_FIELD) == [" dmarc"]
    (field,) = inserted(judgement, AUTHENTICATION_RESULTS)
    assert "dmarc=fail" in results_of(field)
    assert "policy.dmarc=reject" in field
    assert "applied as quarantine" in field.replace("\r\n", "")


def test_a_forged_message_goes_to_the_hold_queue_where_that_is_configured() -> None:
    holding = Judge(ID, frozenset({ID}), holds=True)
    judgement = judge_message(holding, envelope(), FORGED)
    assert judgement.verdict.action is Action.HOLD
    assert not inserted(judgement, QUARANTINE_FIELD)


def test_a_forged_message_is_rejected_where_the_operator_rejects() -> None:
    verdict = judge_message(REJECTING, envelope(), FORGED).verdict
    assert verdict.action is Action.REJECT
    assert verdict.reply is not None
    assert (verdict.reply.code, verdict.reply.enhanced_code) == (550, "5.7.1")
    assert "DMARC" in verdict.reply.text
    assert "bank.example" in verdict.reply.text


@pytest.mark.parametrize(
    ("header", "body", "hint"),
    [
        pytest.param([*FORGED, *fields("List-Id: <l.lists.example>")], BODY, ForwarderHint.LIST_ID, id="List-Id"),
        pytest.param([*fields("ARC-Seal: i=1; nonsense"), *FORGED], BODY, ForwarderHint.ARC, id="an ARC set"),
        pytest.param(signed(), BODY + b"-- \r\nlist\r\n", ForwarderHint.DKIM_HEADER, id="a signed header"),
    ],
)
def test_what_speaks_for_a_forwarder_is_quarantined_instead(
    header: list[HeaderField], body: bytes, hint: ForwarderHint
) -> None:
    judgement = judge_message(REJECTING, envelope(), header, body)
    assert judgement.evaluation is not None
    assert hint in judgement.evaluation.hints
    assert inserted(judgement, QUARANTINE_FIELD) == [" dmarc"]


def test_another_domains_signature_over_a_changed_body_speaks_for_nothing() -> None:
    header = [*signed()[:1], *fields("From: ceo@mild.example", "To: bob@our.example", "Subject: Hello")]
    zone = ZONE.replace("p=quarantine", "p=reject")
    judgement = judge_message(REJECTING, envelope(), header, BODY + b"more", zone=zone)
    assert judgement.evaluation is not None
    assert judgement.evaluation.hints == ()
    assert judgement.verdict.action is Action.REJECT


def test_hints_are_looked_for_only_where_a_failure_may_be_rejected() -> None:
    header = [*fields("List-Id: <l.lists.example>", "From: x@mild.example")]
    judgement = judge_message(JUDGE, envelope(mail_from=b"x@mild.example"), header)
    assert judgement.evaluation is not None
    assert judgement.evaluation.worst_dmarc.result is Result.FAIL
    assert judgement.evaluation.hints == ()


def test_every_field_that_claims_to_be_ours_goes_last_first() -> None:
    header = [
        *fields("Authentication-Results: mx.our.example; dmarc=pass"),
        *fields("authentication-results: elsewhere.example; spf=pass"),
        *fields("Authentication-Results: (x) MX.OUR.example; dmarc=pass", "X-Mailward-Quarantine: no"),
        *fields("Authentication-Results: old.our.example 1; dkim=pass", "x-mailward-quarantine: none"),
        *signed(),
    ]
    judgement = judge_message(JUDGE, envelope(CLIENT), header)
    assert deleted(judgement, AUTHENTICATION_RESULTS) == [4, 3, 1]
    assert deleted(judgement, QUARANTINE_FIELD) == [2, 1]
    assert judgement.forged == 3


def test_shadow_mode_does_nothing_and_says_what_it_would_do() -> None:
    shadow = Judge(ID, frozenset({ID}), rules=REJECTING.rules, is_shadow=True)
    judgement = judge_message(shadow, envelope(), FORGED)
    assert judgement.verdict.action is Action.ACCEPT
    assert not inserted(judgement, QUARANTINE_FIELD)
    assert judgement.decision is not None
    assert judgement.decision.outcome is Outcome.REJECT
    assert "would be reject" in inserted(judgement, AUTHENTICATION_RESULTS)[0]


@pytest.mark.parametrize(
    ("sent", "trust", "result"),
    [
        pytest.param(envelope(login="alice"), Trust.AUTHENTICATED, "auth=pass", id="logged in"),
        pytest.param(envelope("10.1.2.3"), Trust.NETWORK, "none", id="a listed network"),
        pytest.param(envelope("::ffff:10.1.2.3"), Trust.NETWORK, "none", id="a listed network in mapped form"),
        pytest.param(envelope(""), Trust.NETWORK, "none", id="no network client"),
    ],
)
def test_ours_are_labelled_cleaned_and_never_judged(sent: Envelope, trust: Trust, result: str) -> None:
    judgement = judge_message(
        REJECTING if trust is Trust.AUTHENTICATED else JUDGE,
        sent,
        [*fields("Authentication-Results: mx.our.example; dmarc=pass"), *FORGED],
        zone="",
    )
    assert (judgement.trust, judgement.evaluation) == (trust, None)
    assert judgement.verdict.action is Action.ACCEPT
    (field,) = inserted(judgement, AUTHENTICATION_RESULTS)
    assert results_of(field) == [result]
    assert deleted(judgement, AUTHENTICATION_RESULTS) == [1]


SILENT = (
    "bank.example TEMPFAIL\ns1._domainkey.bank.example TEMPFAIL\n_dmarc.bank.example TEMPFAIL\nmx.bank.example TEMPFAIL"
)


def test_a_silent_dns_is_neither_pass_nor_fail() -> None:
    judgement = judge_message(REJECTING, envelope(), signed(), zone=SILENT)
    assert judgement.verdict.action is Action.ACCEPT
    (field,) = inserted(judgement, AUTHENTICATION_RESULTS)
    assert results_of(field)[:4] == ["dkim=temperror", "spf=temperror", "spf=temperror", "dmarc=temperror"]


def test_a_silent_dns_defers_where_that_is_configured() -> None:
    rules = EnforcementRules(enforce=Disposition.REJECT, tempfail_on_temperror=True)
    verdict = judge_message(Judge(ID, rules=rules), envelope(), signed(), zone=SILENT).verdict
    assert verdict.action is Action.TEMPFAIL
    assert verdict.reply is not None
    assert verdict.reply.code == 451


def test_received_spf_stands_below_our_field() -> None:
    judgement = judge_message(Judge(ID, frozenset({ID}), writes_received_spf=True), envelope(CLIENT), signed())
    names = [edit.name for edit in judgement.verdict.edits]
    assert names == ["Received-SPF", AUTHENTICATION_RESULTS]  # each goes on top of those before it
    assert inserted(judgement, "Received-SPF")[0].startswith(" pass")


def test_the_null_senders_identity_is_that_of_helo() -> None:
    zone = ZONE + "mx.bank.example TXT v=spf1 ip4:192.0.2.9 -all\n"
    judgement = judge_message(REJECTING, envelope(CLIENT, b""), HEADER, zone=zone)
    assert judgement.evaluation is not None
    assert judgement.evaluation.spf_mailfrom.domain == "mx.bank.example"
    assert judgement.evaluation.worst_dmarc.aligned == ("spf=mx.bank.example",)


def test_a_helo_that_passes_does_not_stand_in_for_a_sender_that_is_there() -> None:
    zone = ZONE + "mx.bank.example TXT v=spf1 ip4:203.0.113.7 -all\n"
    judgement = judge_message(REJECTING, envelope(mail_from=b"x@evil.example"), FORGED, zone=zone)
    assert judgement.evaluation is not None
    assert judgement.evaluation.spf_helo.result is Result.PASS
    assert judgement.verdict.action is Action.REJECT


def test_a_message_with_more_forged_fields_than_postfix_can_delete_is_refused() -> None:
    header = [*fields(*["X-Mailward-Quarantine: none"] * (MAX_DELETIONS + 1)), *signed()]
    for sent in (envelope(CLIENT), envelope(login="alice")):
        verdict = judge_message(JUDGE, sent, header).verdict
        assert (verdict.action, verdict.reason, verdict.edits) == (Action.REJECT, TOO_MANY_FORGED, ())
        assert verdict.reply is not None
        assert verdict.reply.code == 552


def test_as_many_forged_fields_as_postfix_can_delete_are_deleted() -> None:
    header = [*fields(*["X-Mailward-Quarantine: none"] * MAX_DELETIONS), *signed()]
    assert len(deleted(judge_message(JUDGE, envelope(CLIENT), header), QUARANTINE_FIELD)) == MAX_DELETIONS


@pytest.mark.parametrize("budget", range(3, 12))
def test_using_up_the_messages_queries_makes_no_doubt_of_a_failure(budget: int) -> None:
    zone = Zone(
        ZONE + "evil.example TXT v=spf1 a:1.evil.example a:2.evil.example a:3.evil.example a:4.evil.example ?all"
    )

    def ask(question: Question) -> Answer:
        return zone(question) if len(zone.asked) < budget else failed(Failure.BUDGET)

    incoming = JUDGE.begin(Transaction("t", envelope(mail_from=b"x@evil.example"), FORGED), NOW)
    decision = incoming.judge(ask).decision
    assert decision is not None
    assert (decision.dmarc.result, decision.outcome) == (Result.FAIL, Outcome.QUARANTINE)


@pytest.mark.parametrize(
    ("failure", "action"),
    [
        pytest.param(Failure.TIMEOUT, Action.TEMPFAIL, id="only the names the sender chose are silent"),
        pytest.param(Failure.BUDGET, Action.TEMPFAIL, id="the sender has used up the queries"),
        pytest.param(Failure.AWAY, Action.ACCEPT, id="the DNS is away"),
    ],
)
def test_under_a_known_policy_silence_defers_unless_the_whole_dns_is_away(failure: Failure, action: Action) -> None:
    zone = Zone(ZONE)

    def ask(question: Question) -> Answer:
        return zone(question) if question.name.startswith("_dmarc.") else failed(failure)

    incoming = JUDGE.begin(Transaction("t", envelope(mail_from=b"x@bank.example"), signed()), NOW)
    judgement = incoming.judge(ask)
    assert judgement.decision is not None
    assert judgement.decision.dmarc.result is Result.TEMPERROR
    assert judgement.verdict.action is action
