"""What each method found, and why: SPF, DKIM, ARC, DMARC, iprev."""

from __future__ import annotations

import datetime

from mailward.model.results import Evaluation, ForwarderHint, Result, SpfResult
from postmaster.explain.alignment import AuthorReport, Identifier
from postmaster.explain.explanation import Explanation, SignatureReport
from postmaster.explain.layout import INDENT, LABEL, Page, Span, Tone

MAX_TERM = 40  # columns of an SPF term
MAX_LOOKUPS = 10  # RFC 7208 4.6.4

_TONES = {
    Result.PASS: Tone.GOOD,
    Result.FAIL: Tone.BAD,
    Result.PERMERROR: Tone.BAD,
    Result.SOFTFAIL: Tone.DOUBT,
    Result.TEMPERROR: Tone.DOUBT,
    Result.POLICY: Tone.DOUBT,
    Result.NEUTRAL: Tone.FAINT,
    Result.NONE: Tone.FAINT,
}
_RESULTS = {result.value: result for result in Result}
_HINTS = {
    ForwarderHint.LIST_ID: "there is a List-Id field",
    ForwarderHint.ARC: "there is an ARC set",
    ForwarderHint.DKIM_HEADER: "a signature of the author domain fits the header, and another body",
}


def show_methods(page: Page, explanation: Explanation, evaluation: Evaluation) -> None:
    """Write a section for each method."""
    is_null_sender = not explanation.sending.envelope.mail_from
    _show_spf(page, evaluation, explanation.void_lookups, is_null_sender=is_null_sender)
    _show_dkim(page, explanation)
    _show_arc(page, evaluation)
    for report in explanation.authors:
        _show_dmarc(page, report)
    _show_hints(page, evaluation)
    _show_iprev(page, evaluation)


def _result(result: Result) -> Span:
    return Span(result.value, _TONES[result])


def _show_spf(page: Page, evaluation: Evaluation, void_lookups: int, *, is_null_sender: bool) -> None:
    page.heading("SPF")
    _show_identity(page, "MAIL FROM", evaluation.spf_mailfrom, void_lookups)
    if is_null_sender:
        page.row("HELO", Span("the same: HELO's domain stands in for the null sender", Tone.FAINT))
    else:
        _show_identity(page, "HELO", evaluation.spf_helo, void_lookups)


def _show_identity(page: Page, label: str, spf: SpfResult, void_lookups: int) -> None:
    told = [f"by {spf.mechanism}"] if spf.mechanism else []
    told += [spf.reason] if spf.reason else []
    if spf.lookups or spf.terms:
        void = f", {spf.void_lookups} of {void_lookups} in vain" if spf.void_lookups else ""
        told.append(f"({spf.lookups} of {MAX_LOOKUPS} lookups{void})")
    page.row(label, _result(spf.result), spf.domain, *told)
    width = min(max((len(term.term) for term in spf.terms), default=0), MAX_TERM)
    above = [spf.domain]  # the records that lead to this one
    for term in spf.terms:
        if term.domain in above:
            del above[above.index(term.domain) + 1 :]
        else:
            above.append(term.domain)
            page.line(Span(f"{term.domain}:", Tone.FAINT), indent=_spf_indent(above) - INDENT)
        page.entry(
            Span(term.term), Span(term.outcome, _term_tone(term.outcome)), indent=_spf_indent(above), width=width
        )
    if spf.explanation:
        page.row("", "they explain:", f'"{spf.explanation}"')


def _spf_indent(above: list[str]) -> int:
    return INDENT + LABEL + 2 * INDENT * (len(above) - 1)


def _term_tone(outcome: str) -> Tone:
    words = outcome.split()
    if words[:1] == ["match:"]:
        return _TONES.get(_RESULTS.get(words[1], Result.NEUTRAL), Tone.PLAIN)
    return Tone.FAINT if words[:2] == ["no", "match"] else Tone.PLAIN


def _show_dkim(page: Page, explanation: Explanation) -> None:
    if not explanation.signatures:
        page.heading("DKIM", Span("no signature", Tone.FAINT))
        return
    page.heading("DKIM")
    for report in explanation.signatures:
        _show_signature(page, report)


def _show_signature(page: Page, report: SignatureReport) -> None:
    result = report.result
    parts = {
        "d": result.signing_domain,
        "s": result.selector,
        "a": result.algorithm,
        "c": report.canonicalization,
        "l": "" if report.body_limit is None else str(report.body_limit),
        "i": "" if result.auid == f"@{result.signing_domain}" else result.auid,
    }
    bits = [f"{result.key_bits} bits"] if result.key_bits else []
    page.row(f"signature {result.position + 1}", _result(result.result), *_tags(parts), *bits)
    if result.reason:
        page.row("", Span(result.reason, _TONES[result.result]))
    times = [("signed", report.signed_at), ("expires", report.expires_at)]
    told = [f"{word} {_date(seconds)}" for word, seconds in times if seconds is not None]
    if told:
        page.row("", Span(", ".join(told), Tone.FAINT))
    if report.signed:
        page.row("", Span("covers", Tone.FAINT), Span(", ".join(report.signed), Tone.FAINT))
    if report.unsigned:
        page.row("", "leaves out", ", ".join(report.unsigned))


def _tags(parts: dict[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in parts.items() if value]


def _date(seconds: int) -> str:
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s after 1970"


def _show_arc(page: Page, evaluation: Evaluation) -> None:
    arc = evaluation.arc
    page.heading("ARC", _result(arc.result), arc.reason)
    if arc.instances:
        page.row("sets", str(arc.instances))
    if arc.sealers:
        page.row("sealed by", ", ".join(arc.sealers), Span("(the first one first)", Tone.FAINT))
        page.row("they saw", f"DMARC pass for {', '.join(arc.passed_author_domains) or 'nobody'}")


def _show_dmarc(page: Page, report: AuthorReport) -> None:
    result = report.result
    author = f"{result.author_domain}:" if result.author_domain and result.reason else result.author_domain
    page.heading("DMARC", _result(result.result), author, result.reason)
    for number, step in enumerate(result.walk):
        words = step.outcome if step.is_record else Span(step.outcome, Tone.FAINT)
        page.row("" if number else "tree walk", f"_dmarc.{step.name}:", words)
    if result.organizational_domain:
        page.row("org. domain", result.organizational_domain)
    if result.policy_domain:
        policy = result.policy.value if result.policy else "unknown"
        page.row("policy", Span(policy, Tone.STRONG), Span(f"({report.policy_words})" * bool(report.policy_words)))
    for number, identifier in enumerate(report.identifiers):
        _show_identifier(page, "" if number else "alignment", identifier)


def _show_identifier(page: Page, label: str, identifier: Identifier) -> None:
    if identifier.is_aligned is None:
        is_open = identifier.result in (Result.PASS, Result.TEMPERROR)
        verdict = Span("not known", Tone.DOUBT) if is_open else Span("counts for nothing", Tone.FAINT)
    elif not identifier.is_aligned:
        verdict = Span("not aligned", Tone.DOUBT)
    elif identifier.result is Result.PASS:
        verdict = Span("aligned", Tone.GOOD)
    else:
        verdict = Span("aligned, were it a pass")
    name = f"{identifier.method}={identifier.domain}"
    page.row(label, name, _result(identifier.result), verdict, Span(f"({identifier.words})", Tone.FAINT))


def _show_hints(page: Page, evaluation: Evaluation) -> None:
    if evaluation.hints:
        page.heading("Forwarded?", "maybe:", ", ".join(_HINTS[hint] for hint in evaluation.hints))


def _show_iprev(page: Page, evaluation: Evaluation) -> None:
    iprev = evaluation.iprev
    page.heading("iprev", _result(iprev.result), iprev.address, iprev.name, iprev.reason)
