r"""An explanation as one JSON object, for programs. Names stay as they are; new ones may come.

    version         1
    message         header_fields, body_octets
    envelope        client_address, helo, mail_from, login, time: each with value and source (the option or field it is from)
    notes           [text]
    dns             [method (spf mailfrom, spf helo, dkim, arc, dmarc, iprev), name, type, status (found nodata nxdomain
                    tempfail), records, ttl, reason, milliseconds, nameserver, is_cached, is_stale], in the order asked
    spf             mailfrom, helo: each with result, domain, reason, mechanism, lookups, void_lookups, explanation,
                    terms [domain, term, outcome]
    dkim            [position, result, reason, signing_domain, selector, auid, algorithm, key_bits, canonicalization,
                    body_limit, signed, unsigned, signed_at, expires_at, signature_prefix, is_body_changed]
    arc             result, reason, instances, sealers, passed_author_domains, is_temporary
    iprev           result, address, name, reason
    dmarc           [author_domain, result, reason, policy, policy_domain, policy_words, organizational_domain, aligned,
                    walk [name, outcome, is_record], identifiers [method, domain, result, is_aligned, words], is_deciding]
    author_fault    why the author domains cannot be told, or null
    hints           [what speaks for a forwarder], where that was looked for
    verdict         trust (stranger authenticated network), action (accept tempfail reject hold), outcome (accept tempfail
                    quarantine reject, or null), reason, detail, what and why (sentences), reply (code, enhanced_code, text;
                    or null), settings [key, value, file, line], edits [edit (insert delete), name, value or occurrence]
    authentication_results  the field's value, unfolded; null where none is written
    stored_results  that of the field that was written when the message came in; null where it has none

For mail that is not judged (trust is not "stranger") spf, dkim, arc, iprev, dmarc, author_fault and hints are null. Text holds
printable ASCII alone: octets and control characters stand as \xNN, other characters as \u{N}, a backslash as two.
"""

from __future__ import annotations

from collections.abc import Mapping

from mailward.model.results import Evaluation
from mailward.model.verdict import Edit, InsertField
from postmaster.explain.alignment import AuthorReport
from postmaster.explain.envelope import Told
from postmaster.explain.explanation import Explanation, SignatureReport, unfolded
from postmaster.explain.layout import from_octets
from postmaster.explain.recorder import Asked
from postmaster.explain.words import summarize
from postmaster.json_text import fields_of, json_text

VERSION = 1

Plain = Mapping[str, object]


def as_json(explanation: Explanation) -> str:
    """Return the object's text."""
    return json_text(_tree(explanation))


def _tree(explanation: Explanation) -> Plain:
    sending, evaluation = explanation.sending, explanation.judgement.evaluation
    return {
        "version": VERSION,
        "message": {"header_fields": explanation.header_fields, "body_octets": explanation.body_octets},
        "envelope": {
            "client_address": _told(sending.client),
            "helo": _told(sending.helo),
            "mail_from": _told(sending.mail_from),
            "login": _told(sending.login),
            "time": _told(sending.judged_at),
        },
        "notes": explanation.notes,
        "dns": [_asked(asked) for asked in explanation.asked],
        **(_methods(explanation, evaluation) if evaluation else dict.fromkeys(_METHODS)),
        "verdict": _verdict(explanation),
        "authentication_results": unfolded(explanation.field) or None,
        "stored_results": unfolded(explanation.stored_field) or None,
    }


_METHODS = ("spf", "dkim", "arc", "iprev", "dmarc", "author_fault", "hints")


def _methods(explanation: Explanation, evaluation: Evaluation) -> Plain:
    decision = explanation.judgement.decision
    deciding = decision.dmarc.author_domain if decision else ""
    return {
        "spf": {
            name: fields_of(result, without=("identity", "match"))
            for name, result in (("mailfrom", evaluation.spf_mailfrom), ("helo", evaluation.spf_helo))
        },
        "dkim": [_signature(report) for report in explanation.signatures],
        "arc": evaluation.arc,
        "iprev": evaluation.iprev,
        "dmarc": [_author(report, deciding) for report in explanation.authors],
        "author_fault": evaluation.authors.fault,
        "hints": evaluation.hints,
    }


def _told(told: Told) -> Plain:
    return {"value": told.value, "source": told.source}


def _asked(asked: Asked) -> Plain:
    answer = asked.answer
    return {
        "method": asked.method,
        "name": asked.question.name,
        "type": asked.question.record_type,
        "status": answer.status,
        "records": [from_octets(record) for record in answer.records],
        "ttl": answer.ttl,
        "reason": answer.reason,
        "milliseconds": round(asked.milliseconds, 3),
        "nameserver": answer.nameserver,
        "is_cached": answer.is_cached,
        "is_stale": answer.is_stale,
    }


def _signature(report: SignatureReport) -> Plain:
    return {**fields_of(report.result), **fields_of(report, without=("result",))}


def _author(report: AuthorReport, deciding: str) -> Plain:
    return {
        **fields_of(report.result),
        "policy_words": report.policy_words,
        "identifiers": report.identifiers,
        "is_deciding": report.result.author_domain == deciding,
    }


def _verdict(explanation: Explanation) -> Plain:
    judgement = explanation.judgement
    decision, verdict, summary = judgement.decision, judgement.verdict, summarize(judgement)
    return {
        "trust": judgement.trust,
        "action": verdict.action,
        "outcome": decision.outcome if decision else None,
        "reason": verdict.reason,
        "detail": decision.detail if decision else "",
        "what": summary.what,
        "why": summary.why,
        "reply": verdict.reply,
        "settings": explanation.sources,
        "edits": [_edit(edit) for edit in verdict.edits],
    }


def _edit(edit: Edit) -> Plain:
    if isinstance(edit, InsertField):
        return {"edit": "insert", "name": edit.name, "value": unfolded(edit.raw_value)}
    return {"edit": "delete", "name": edit.name, "occurrence": edit.occurrence}
