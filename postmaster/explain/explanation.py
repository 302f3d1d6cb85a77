"""The milter's own decision about a stored message, and everything there is to say of how it came about."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mailward.auth import authres
from mailward.auth.dkim import ReceivedHeader
from mailward.auth.dkim_verify import parse_signatures
from mailward.auth.signature_field import SINGLETONS, Malformed, Signature, read_field_tags
from mailward.inbound.judge import AUTHENTICATION_RESULTS, Judge, Judgement, Trust
from mailward.model.dns import Answer, Question
from mailward.model.message import HeaderField, Transaction
from mailward.model.results import DkimResult, Evaluation
from mailward.model.verdict import InsertField
from mailward.policy.enforcement import Decision, Outcome, Reason
from mailward.settings.auth_verify import Settings, read_judge
from mailward.settings.load import Sections
from postmaster.explain.alignment import AuthorReport, report_authors
from postmaster.explain.envelope import Sending
from postmaster.explain.layout import from_octets
from postmaster.explain.recorder import Asked, Recorder
from postmaster.explain.source import Source, find_source
from postmaster.explain.stored_message import StoredMessage

MAX_NAMES = 100  # names of signed fields that are shown

_SECONDS = re.compile(rb"[0-9]{1,11}")


@dataclass(frozen=True, slots=True)
class SignatureReport:
    """One DKIM-Signature, its result, and what it covers; `canonicalization` is empty where the field could not be read.

    `signed` are the fields of the message that it covers; `unsigned` those that readers see, that are there, and that it
    does not cover. Times are in seconds since 1970, None where the signature does not say.
    """

    result: DkimResult
    canonicalization: str = ""
    body_limit: int | None = None
    signed: tuple[str, ...] = ()
    unsigned: tuple[str, ...] = ()
    signed_at: int | None = None
    expires_at: int | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """What `mailward explain` has to tell.

    `signatures` and `authors` are empty for mail that is not judged. `field` is the Authentication-Results field's raw value,
    empty where none is written; `stored_field` is that of the one that was written when the message came in, empty where
    the message has none. `sources` are the configuration keys behind the verdict.
    """

    sending: Sending
    header_fields: int
    body_octets: int
    asked: tuple[Asked, ...]
    judgement: Judgement
    signatures: tuple[SignatureReport, ...]
    authors: tuple[AuthorReport, ...]
    sources: tuple[Source, ...]
    void_lookups: int
    field: str
    stored_field: str
    notes: tuple[str, ...]


def explain(
    message: StoredMessage,
    sending: Sending,
    settings: Settings,
    sections: Sections,
    ask: Callable[[Question], Answer],
    clock: Callable[[], float],
    notes: Sequence[str] = (),
) -> Explanation:
    """Judge the message as the milter would, and explain it; `clock` measures the questions."""
    judge, recorder = _with_terms(read_judge(settings)), Recorder(ask, clock)
    incoming = judge.begin(Transaction("", sending.envelope, message.header), sending.time)
    for chunk in message.body():
        incoming.body(chunk)
    judgement = incoming.judge(recorder.ask)
    evaluation = judgement.evaluation
    stored_field = _stored_field(message.header, sending.received, judge)
    return Explanation(
        sending,
        len(message.header),
        message.body_octets,
        tuple(recorder.asked),
        judgement,
        _report_signatures(message.header, evaluation, judge, sending.time) if evaluation else (),
        report_authors(evaluation, recorder) if evaluation else (),
        _sources(judgement, judge, sending, settings, sections),
        judge.limits.spf.void_lookups,
        _own_field(judgement),
        stored_field,
        (*notes, *_notes(judgement, has_stored_field=bool(stored_field))),
    )


def _with_terms(judge: Judge) -> Judge:
    """Have SPF write down its terms: the one difference to the milter, and none in what comes out."""
    limits = judge.limits
    return replace(judge, limits=replace(limits, spf=replace(limits.spf, wants_terms=True)))


def _report_signatures(
    header: Sequence[HeaderField], evaluation: Evaluation, judge: Judge, now: float
) -> tuple[SignatureReport, ...]:
    grouped = ReceivedHeader(header)
    parsed = parse_signatures(grouped, evaluation.authors.domains, judge.limits.dkim, now)
    return tuple(
        _report_signature(result, signature, grouped) for result, signature in zip(evaluation.dkim, parsed, strict=True)
    )


def _report_signature(result: DkimResult, signature: Signature | DkimResult, header: ReceivedHeader) -> SignatureReport:
    field = header.fields(b"dkim-signature")[result.position]
    signed_at, expires_at = _times(field)
    if isinstance(signature, DkimResult):
        return SignatureReport(result, signed_at=signed_at, expires_at=expires_at)
    signed = dict.fromkeys(name for name in signature.signed_names if header.fields(name))
    return SignatureReport(
        result,
        str(signature.canonicalizations),
        signature.body_limit,
        tuple(_field_name(name, header) for name in list(signed)[:MAX_NAMES]),
        tuple(shown for name, shown in SINGLETONS.items() if name not in signed and header.fields(name)),
        signed_at,
        expires_at,
    )


def _field_name(name: bytes, header: ReceivedHeader) -> str:
    """Return a field's name as the message has it."""
    return SINGLETONS.get(name) or header.fields(name)[0].name.decode("ascii", "replace").strip()


def _times(field: HeaderField) -> tuple[int | None, int | None]:
    try:
        tags = read_field_tags(field)
    except Malformed:
        return None, None
    signed_at, expires_at = (tags.get(name, b"") for name in (b"t", b"x"))
    return (
        int(signed_at) if _SECONDS.fullmatch(signed_at) else None,
        int(expires_at) if _SECONDS.fullmatch(expires_at) else None,
    )


def _sources(
    judgement: Judgement, judge: Judge, sending: Sending, settings: Settings, sections: Sections
) -> tuple[Source, ...]:
    """Return the configuration keys without which the verdict would be another."""
    names = []
    if judgement.trust is Trust.NETWORK and sending.envelope.client_address:
        names.append("networks")
    elif judgement.decision is not None:
        names += _settings_of(judgement.decision, judge)
    own = settings.auth_verify
    return tuple(find_source(sections, "auth-verify", name, getattr(own, name)) for name in dict.fromkeys(names))


def _settings_of(decision: Decision, judge: Judge) -> list[str]:
    names = [decision.setting] if decision.setting else []
    if decision.reason is Reason.TEMPERROR:
        names.append("on_temperror")
    if decision.outcome is Outcome.QUARANTINE:
        names.append("quarantine")
    if judge.is_shadow and decision.outcome is not Outcome.ACCEPT:
        names.append("shadow")
    return names


def _own_field(judgement: Judgement) -> str:
    edits = judgement.verdict.edits
    return next(
        (edit.raw_value for edit in edits if isinstance(edit, InsertField) and edit.name == AUTHENTICATION_RESULTS), ""
    )


def _stored_field(header: Sequence[HeaderField], received: int, judge: Judge) -> str:
    """Return our field from above the Received field that tells the client; further down anybody may have written one."""
    left = received
    for field in header:
        name = field.compared_name
        left -= name == b"received"
        if left <= 0:
            break
        if name == AUTHENTICATION_RESULTS.lower().encode() and authres.forged_fields([field], judge.own_ids):
            return from_octets(field.raw_value)
    return ""


def _notes(judgement: Judgement, *, has_stored_field: bool) -> list[str]:
    notes = []
    others = judgement.forged - has_stored_field
    if others:
        fields = "one Authentication-Results field" if others == 1 else f"{others} Authentication-Results fields"
        notes.append(f"The milter believes and keeps no results that claim to be ours, or may: it deletes {fields}.")
    if judgement.trust is Trust.NETWORK:
        notes.append(
            "If a content filter of yours handed the message back, --received 2 tells where it came from before."
        )
    return notes


def unfolded(raw_value: str) -> str:
    """Return a field's value on one line."""
    return raw_value.replace("\r\n", "").strip()
