"""An explanation as people read it: the verdict in a line, then what led to it in the order it was decided, then its effects."""

from __future__ import annotations

from collections.abc import Sequence

from mailward.inbound.judge import AUTHENTICATION_RESULTS
from mailward.model.dns import AnswerStatus, RecordType
from mailward.model.verdict import DeleteField, Edit
from postmaster.explain.envelope import Told
from postmaster.explain.explanation import Explanation, unfolded
from postmaster.explain.layout import INDENT, LABEL, Page, Span, Tone, from_octets
from postmaster.explain.page_methods import show_methods
from postmaster.explain.recorder import Asked
from postmaster.explain.words import summarize

MAX_RECORDS = 5  # of one answer
MAX_RECORD = 200  # characters of one record
MAX_KEY = 60  # of one that holds a key: the rest tells nobody anything
MAX_NAMES = 20  # author domains

_STATUS_WORDS = {AnswerStatus.NODATA: "no such record", AnswerStatus.NXDOMAIN: "no such name"}


def show(explanation: Explanation, width: int) -> str:
    """Return the page, with colours; `width` in columns."""
    page = Page(width)
    summary = summarize(explanation.judgement)
    page.entry(Span(summary.word.upper(), summary.tone), summary.why, indent=0, width=INDENT + LABEL - 1)
    _show_envelope(page, explanation)
    evaluation = explanation.judgement.evaluation
    if evaluation is not None:
        show_methods(page, explanation, evaluation)
        _show_dns(page, explanation)
    _show_verdict(page, explanation)
    return str(page)


def _show_envelope(page: Page, explanation: Explanation) -> None:
    sending, evaluation = explanation.sending, explanation.judgement.evaluation
    page.heading("Message", f"{explanation.header_fields} header fields, {explanation.body_octets} octets of body")
    _told(page, "client", sending.client, "none: this machine")
    _told(page, "HELO", sending.helo, "none")
    _told(page, "MAIL FROM", sending.mail_from, "<> (the null sender)")
    _told(page, "login", sending.login, "none")
    _told(page, "time", sending.judged_at, "")
    if evaluation is not None:
        authors = evaluation.authors
        fault = [Span(authors.fault.value, Tone.BAD)] if authors.fault else []
        page.row("author", _listed(authors.domains), *fault)
    for note in explanation.notes:
        page.row("note", note)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MAX_NAMES])
    return shown if len(names) <= MAX_NAMES else f"{shown} and {len(names) - MAX_NAMES} more"


def _told(page: Page, label: str, told: Told, if_empty: str) -> None:
    page.row(label, told.value or if_empty, Span(f"({told.source})", Tone.FAINT))


def _show_dns(page: Page, explanation: Explanation) -> None:
    asked = explanation.asked
    milliseconds = sum(one.milliseconds for one in asked)
    page.heading("DNS", f"{len(asked)} questions, {milliseconds:.1f} ms")
    for one in asked:
        _show_asked(page, one)


def _show_asked(page: Page, asked: Asked) -> None:
    time = "cached" if asked.answer.is_cached else f"{asked.milliseconds:.1f} ms"
    page.entry(
        Span(f"{time:>9}  {asked.method:<12}", Tone.FAINT),
        f"{asked.question.name} {asked.question.record_type.value}",
        *_answer(asked),
        indent=INDENT,
        width=23,
    )


def _answer(asked: Asked) -> list[Span]:
    answer = asked.answer
    if answer.status is AnswerStatus.TEMPFAIL:
        return [Span(answer.reason or "no answer", Tone.BAD)]
    stale = [Span("(stale: the DNS is away)", Tone.DOUBT)] if answer.is_stale else []
    if not answer.records:
        return [Span(_STATUS_WORDS.get(answer.status, ""), Tone.DOUBT), *stale]
    shown = [_record(from_octets(record), asked) for record in answer.records[:MAX_RECORDS]]
    more = len(answer.records) - len(shown)
    return [Span(", ".join(shown)), *([Span(f"and {more} more", Tone.FAINT)] if more else []), *stale]


def _record(record: str, asked: Asked) -> str:
    """Return a record, clipped; text in quotes."""
    longest = MAX_KEY if asked.method in ("dkim", "arc") else MAX_RECORD
    rest = "..." if len(record) > longest else ""
    if asked.question.record_type is RecordType.TXT:
        return f'"{record[:longest]}"{rest}'
    return record[:longest].removesuffix(".") + rest


def _show_verdict(page: Page, explanation: Explanation) -> None:
    summary = summarize(explanation.judgement)
    page.heading("Verdict", Span(summary.word.upper(), summary.tone), summary.what)
    page.row("why", summary.why)
    for source in explanation.sources:
        page.row("setting", f"{source.key} = {source.value}", Span(f"({source})", Tone.FAINT))
    if not explanation.sources:
        page.row("setting", Span("none: nothing that is configured had a part in this", Tone.FAINT))
    for edit in explanation.judgement.verdict.edits:
        _show_edit(page, edit)
    if explanation.judgement.verdict.reply is not None:
        page.row("adds", Span("nothing: the message is not accepted", Tone.FAINT))
    _show_comparison(page, explanation)


def _show_edit(page: Page, edit: Edit) -> None:
    if isinstance(edit, DeleteField):
        page.row("deletes", f"{edit.name} (number {edit.occurrence} of that name)")
    elif "\r\n" not in edit.raw_value:
        page.row("adds", f"{edit.name}:{edit.raw_value}")
    else:
        page.row("adds")
        _show_field(page, edit.name, edit.raw_value)


def _show_field(page: Page, name: str, raw_value: str) -> None:
    """Show a field as it stands in the message: ours have lines of 78 columns, which fit any terminal."""
    for line in f"{name}:{raw_value}".split("\r\n"):
        page.verbatim(line)


def _show_comparison(page: Page, explanation: Explanation) -> None:
    """Say whether the message was treated otherwise when it came in."""
    if not explanation.stored_field:
        return
    if unfolded(explanation.stored_field) == unfolded(explanation.field):
        page.row("then", Span("the field that was written when it came in says the same", Tone.GOOD))
        return
    otherwise = (
        "the field that was written when it came in says otherwise; DNS, configuration or message have changed since:"
    )
    page.row("then", Span(otherwise, Tone.DOUBT))
    _show_field(page, AUTHENTICATION_RESULTS, explanation.stored_field)
