"""The verifier's filter: a bug of ours in one message, as the operator wants it, and never with a forged field."""

from __future__ import annotations

from typing import cast

import pytest

from mailward.adapters.resolver import Resolver
from mailward.daemon import log
from mailward.daemon.metrics import Metrics
from mailward.inbound.judge import Judge
from mailward.model.dns import Answer, Question
from mailward.model.message import Transaction
from mailward.model.verdict import Action, DeleteField, Verdict
from milters.auth_verify.filter import METRICS, Verifier, VerifyMessage
from tests.inbound.mail import BODY, envelope, fields, signed

ID = "mx.our.example"


class Broken:
    """A resolver with a bug."""

    queries = 0

    def for_message(self) -> Broken:
        return self

    def ask(self, _question: Question) -> Answer:
        raise RuntimeError("a bug")


def judge_with_a_bug(metrics: Metrics, *, accepts: bool) -> Verdict:
    verifier = Verifier(
        Judge(ID, frozenset({ID})),
        cast(Resolver, Broken()),
        metrics.row(0),
        log.get("auth-verify"),
        accepts_after_own_bug=accepts,
    )
    header = [*fields(f"Authentication-Results: {ID}; dmarc=pass", "X-Mailward-Quarantine: no"), *signed()]
    message = VerifyMessage(verifier, Transaction("t", envelope(), header))
    assert message.end_of_header() is None
    message.body(BODY)
    return message.end_of_message()


def test_a_bug_lets_a_message_through_cleaned_where_the_operator_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    log.configure()
    metrics = Metrics("mailward_auth_verify", METRICS)
    verdict = judge_with_a_bug(metrics, accepts=True)
    assert (verdict.action, verdict.reason) == (Action.ACCEPT, "own-bug")
    assert set(verdict.edits) == {DeleteField("Authentication-Results", 1), DeleteField("X-Mailward-Quarantine", 1)}
    counted = {tuple(s.labels.values()): s.value for m in metrics.collect() for s in m.samples if "messages" in s.name}
    assert counted[("own-bug",)] == 1
    assert "RuntimeError: a bug" in capfd.readouterr().err


def test_a_bug_is_the_milter_edges_to_answer_otherwise() -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        judge_with_a_bug(Metrics("mailward_auth_verify", METRICS), accepts=False)
