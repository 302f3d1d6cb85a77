"""The table of attacks through the decision alone: no daemon, no MTA, the DNS from a dictionary."""

from __future__ import annotations

import dkim
import pytest

from mailward.auth.evaluate import Limits
from mailward.inbound.judge import Incoming, Judge, Judgement
from mailward.model.message import Envelope, HeaderField, Transaction
from mailward.model.results import Disposition
from mailward.model.verdict import Action, DeleteField, InsertField
from mailward.policy.enforcement import EnforcementRules, Outcome
from tests.attacks import chains, controls
from tests.attacks.expected import assert_cleaned, assert_results, read_own_field
from tests.attacks.messages import Fields, split
from tests.attacks.row import AUTHSERV_ID, Attack, Fate
from tests.attacks.table import ATTACKS, PEERS_PASS
from tests.attacks.world import TRUSTED
from tests.attacks.zones import RECORDS, ZONE_TEXT
from tests.support.zone import Zone

NOW = 1_795_267_200.0  # 21 November 2026
ROWS = pytest.mark.parametrize("attack", ATTACKS, ids=[attack.id for attack in ATTACKS])
MAX_QUESTIONS = 120  # the resolver's own budget for a message


def judge(enforce: Disposition) -> Judge:
    """Return the judge of the table's operator."""
    named = {key: frozenset({name}) for key, name in TRUSTED.items()}
    rules = EnforcementRules(enforce=enforce, **named)  # type: ignore[arg-type]
    return Judge(AUTHSERV_ID, own_ids=frozenset({AUTHSERV_ID}), limits=Limits(), rules=rules)


def begin(attack: Attack, enforce: Disposition, fields: Fields) -> Incoming:
    envelope = Envelope(
        attack.client, "client.example", "smtpd", attack.helo, attack.mail_from, [b"rcpt@receiver.example"]
    )
    header = [HeaderField(name, value) for name, value in fields]
    return judge(enforce).begin(Transaction("1.1", envelope, header, "4Q1"), NOW)


def run(attack: Attack, enforce: Disposition) -> tuple[Judgement, Fields, Zone]:
    fields, body = split(attack.message)
    incoming = begin(attack, enforce, fields)
    for at in range(0, len(body), 65_535):
        incoming.body(body[at : at + 65_535])
    zone = Zone(ZONE_TEXT)
    return incoming.judge(zone), fields, zone


@ROWS
def test_attack(attack: Attack) -> None:
    judgement, fields, zone = run(attack, Disposition.REJECT)
    assert judgement.decision is not None
    assert judgement.evaluation is not None
    assert judgement.decision.outcome is Outcome(attack.fate.value[0])
    assert judgement.decision.dmarc.result.value == attack.dmarc
    assert len(zone.asked) <= MAX_QUESTIONS
    if judgement.verdict.action is Action.REJECT:
        assert judgement.verdict.reply is not None
        assert judgement.verdict.reply.code == 550
        assert "DMARC" in judgement.verdict.reply.text
        return
    if attack.fate is Fate.DEFERRED:
        assert judgement.verdict.action is Action.TEMPFAIL
        return
    inserted = [edit for edit in judgement.verdict.edits if isinstance(edit, InsertField)]
    assert [edit.name for edit in inserted[:-1]] == ["X-Mailward-Quarantine"] * (attack.fate is Fate.QUARANTINED)
    assert_results(attack, read_own_field(inserted[-1].raw_value.encode("ascii")))
    assert_cleaned(fields, apply_deletions(fields, judgement))


@ROWS
def test_attack_where_the_operator_never_rejects(attack: Attack) -> None:
    judgement, _, _ = run(attack, Disposition.QUARANTINE)
    assert judgement.decision is not None
    assert judgement.decision.outcome is Outcome(attack.fate.value[1])
    if attack.fate is Fate.DEFERRED:
        assert judgement.verdict.action is Action.TEMPFAIL
        return
    assert judgement.verdict.action is Action.ACCEPT
    edits = judgement.verdict.edits
    marks = [edit for edit in edits if isinstance(edit, InsertField) and edit.name == "X-Mailward-Quarantine"]
    assert len(marks) == (attack.fate is not Fate.ACCEPTED)
    assert_results(
        attack,
        read_own_field(next(edit for edit in reversed(edits) if isinstance(edit, InsertField)).raw_value.encode()),
    )


def apply_deletions(fields: Fields, judgement: Judgement) -> Fields:
    """Apply the deletions in their order, as the MTA does: the n-th field of a name is counted anew for each."""
    left = list(fields)
    for edit in judgement.verdict.edits:
        if isinstance(edit, DeleteField):
            at = [index for index, (name, _) in enumerate(left) if name.strip().lower() == edit.name.lower().encode()]
            del left[at[edit.occurrence - 1]]
    return left


def key_of(name: bytes, timeout: float = 5) -> bytes | None:
    """Answer dkimpy's question for a key from the table's zone."""
    wanted = name.decode().removesuffix(".")
    found = [line.split(None, 2)[2] for line in RECORDS.splitlines() if line.split()[:2] == [wanted, "TXT"]]
    return found[0].encode() if found else None


@pytest.mark.parametrize(
    "octets", [controls.SIGNED, controls.OVERSIGNED, chains.SEALED.partition(b"\r\nDKIM-Signature")[0]]
)
def test_the_tables_own_signatures_hold_for_another_verifier(octets: bytes) -> None:
    if octets.startswith(b"ARC-Seal"):
        assert dkim.ARC(chains.SEALED).verify(dnsfunc=key_of)[0] == b"pass"
    else:
        assert dkim.DKIM(octets).verify(dnsfunc=key_of)


def test_the_ids_of_the_table_are_different_sentences() -> None:
    assert len({attack.id for attack in ATTACKS}) == len(ATTACKS) >= 70
    assert sum(attack.id.startswith("control-") for attack in ATTACKS) >= 10


def test_what_the_peers_let_pass_is_in_the_table_and_never_a_pass_of_ours() -> None:
    ours = {attack.id: attack.dmarc for attack in ATTACKS}
    assert len(PEERS_PASS) >= 3
    assert all(ours[identity] != "pass" for identity in PEERS_PASS)
