"""A plan for people, in the columns of their terminal, and as JSON: what would change, from what to what, and why."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator

from postmaster.explain.layout import Page, Span, Tone
from postmaster.setup.change import Change, FileText, Finding, MainSetting, Plan, ServiceSetting, Weight
from postmaster.setup.postfix_facts import PostfixFacts
from postmaster.setup.postfix_lists import tokens

MAX_LINES = 200  # of one file: ours are shorter
_NOTHING = Span("(not set)", Tone.FAINT)
_TONES = {Weight.NOTE: Tone.FAINT, Weight.WARNING: Tone.DOUBT, Weight.REFUSAL: Tone.BAD}


def page_of(plan: Plan, facts: PostfixFacts | None, width: int) -> str:
    """Return the whole plan as text."""
    page = Page(width)
    for place, changes in itertools.groupby(plan.changes, key=lambda change: _place(change, facts)):
        page.heading(place)
        for change in changes:
            _show(page, change)
    if plan.findings:
        page.heading("Seen")
        for finding in sorted(plan.findings, key=lambda each: list(Weight).index(each.weight), reverse=True):
            page.row(finding.weight.value, Span(finding.text, _TONES[finding.weight]))
    return str(page)


def tree_of(plan: Plan, facts: PostfixFacts | None) -> dict[str, object]:
    """Return the plan for --json; the text of a secret file is left out."""
    return {
        "changes": [_change_tree(change, facts) for change in plan.changes],
        "findings": [{"weight": each.weight, "text": each.text} for each in plan.findings],
        "restarts": plan.restarts,
        "reloads": plan.reloads,
    }


def refusals(plan: Plan) -> list[Finding]:
    """Return what forbids to apply it."""
    return [finding for finding in plan.findings if finding.weight is Weight.REFUSAL]


def _place(change: Change, facts: PostfixFacts | None) -> str:
    if isinstance(change, FileText):
        return str(change.path)
    folder = facts.folder if facts else "."
    return f"{folder}/main.cf" if isinstance(change, MainSetting) else f"{folder}/master.cf, {change.service}"


def _show(page: Page, change: Change) -> None:
    if isinstance(change, FileText):
        page.row("why", change.why)
        page.row(
            "file", f"{change.mode:04o} {change.owner}:{change.group}", *(["(goes away)"] if change.new is None else [])
        )
        if not change.is_secret:
            for line in _difference(change):
                page.verbatim(line)
        return
    page.line(Span(change.name, Tone.STRONG))
    # There are lists without white space, in master.cf all of them, which no line would hold.
    old, new = (_spaced(each) for each in (change.old, change.new))
    if old is not None or new is None:
        page.row("  from", _value(old))
    page.row("  to", _value(new))
    page.row("  why", Span(change.why, Tone.FAINT))


def _spaced(text: str | None) -> str | None:
    """Return a list with a blank behind each comma; one that has blanks already stays as it is.

    >>> _spaced("a,{b,c=d}"), _spaced("a {b,c}"), _spaced("a, b")
    ('a, {b,c=d}', 'a {b,c}', 'a, b')
    """
    if text is None:
        return None
    found = tokens(text)
    ends = [*(token.start for token in found), len(text)][1:]
    gaps = (text[token.start + len(token.text) : end] for token, end in zip(found, ends, strict=True))
    return "".join(token.text + (", " if gap == "," else gap) for token, gap in zip(found, gaps, strict=True))


def _value(text: str | None) -> Span:
    if text is None:
        return _NOTHING
    return Span(text, is_copied=True) if text else Span("(empty)", Tone.FAINT)


def _difference(change: FileText) -> Iterator[str]:
    """Yield the lines that go and come; of those that say nothing to the program their number."""
    old, new = (_lines(octets) for octets in (change.old, change.new))
    lines = [line for line in difflib.ndiff(old, new) if line[0] in "+-"]
    telling = [line for line in lines if line[2:].strip() and not line[2:].lstrip().startswith("#")]
    yield from telling[:MAX_LINES]
    if len(telling) > MAX_LINES:
        yield f"... and {len(telling) - MAX_LINES} more lines"
    if len(telling) < len(lines):
        yield f"  ({len(lines) - len(telling)} lines of comments and blank lines)"


def _lines(octets: bytes | None) -> list[str]:
    return (octets or b"").decode("utf-8", "surrogateescape").splitlines()


def _change_tree(change: Change, facts: PostfixFacts | None) -> dict[str, object]:
    tree: dict[str, object] = {"where": _place(change, facts), "why": change.why}
    if isinstance(change, FileText):
        texts = {} if change.is_secret else {name: _text(getattr(change, name)) for name in ("old", "new")}
        return {
            "kind": "file",
            **tree,
            "mode": f"{change.mode:04o}",
            "owner": change.owner,
            "group": change.group,
            "secret": change.is_secret,
            **texts,
        }
    service = {"service": change.service} if isinstance(change, ServiceSetting) else {}
    kind = "service" if service else "main"
    return {"kind": kind, **tree, **service, "name": change.name, "old": change.old, "new": change.new}


def _text(octets: bytes | None) -> str | None:
    return None if octets is None else octets.decode("utf-8", "surrogateescape")
