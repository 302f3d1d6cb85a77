"""DMARC in words: which record applied and why, and what each identifier's domain has to do with the author's.

Told from the answers the decision had; no question is asked again, and none that it did not need.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mailward.auth.dmarc_record import PolicyRecord
from mailward.auth.tree_walk import Alignment, TreeWalks
from mailward.model.results import DmarcResult, Evaluation, Result
from postmaster.explain.recorder import NotAsked, Recorder

_TEST_MODE = re.compile(r";[ \t]*+t[ \t]*+=[ \t]*+y[ \t]*+(?:;|\Z)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Identifier:
    """A domain that SPF or DKIM spoke of; `is_aligned` is None where the decision did not need to know."""

    method: str
    domain: str
    result: Result
    is_aligned: bool | None
    words: str


@dataclass(frozen=True, slots=True)
class AuthorReport:
    """The result for one author domain, why that policy, and each identifier's alignment."""

    result: DmarcResult
    policy_words: str
    identifiers: tuple[Identifier, ...]


def report_authors(evaluation: Evaluation, recorder: Recorder) -> tuple[AuthorReport, ...]:
    """Explain the result of each author domain."""
    walks = TreeWalks(recorder.replay)
    worst = evaluation.worst_dmarc  # it has the faults of the From field, too
    results = [worst if result.author_domain == worst.author_domain else result for result in evaluation.dmarc]
    return tuple(
        AuthorReport(result, _policy_words(result, walks), _identifiers(result, evaluation, walks))
        for result in results
    )


def _policy_words(result: DmarcResult, walks: TreeWalks) -> str:
    """Say by which tag of which record the policy is what it is (RFC 9989 4.7)."""
    record = _record(result, walks)
    if record is None or result.policy is None:
        return ""
    if result.policy_domain == result.author_domain:
        words = "p= of its own record"
    elif record.subdomain_policy is record.nonexistent_policy:
        words = f"sp= of the record of {result.policy_domain}, or p= where there is none"
    else:
        try:
            does_exist = walks.does_exist(result.author_domain)
        except NotAsked:
            does_exist = True
        tag, claim = ("sp=", "exists") if does_exist else ("np=", "does not exist")
        words = f"{tag} of the record of {result.policy_domain}, for {result.author_domain} {claim}"
    return words + (", one step milder for t=y" if _TEST_MODE.search(record.text) else "")


def _record(result: DmarcResult, walks: TreeWalks) -> PolicyRecord | None:
    if not result.policy_domain:
        return None
    try:
        return walks.site(result.policy_domain).record
    except NotAsked:
        return None


def _identifiers(result: DmarcResult, evaluation: Evaluation, walks: TreeWalks) -> tuple[Identifier, ...]:
    found = [("dkim", one.signing_domain, one.result) for one in evaluation.dkim]
    found.append(("spf", evaluation.spf_mailfrom.domain, evaluation.spf_mailfrom.result))
    record = _record(result, walks)
    identifiers = []
    for method, domain, outcome in dict.fromkeys(found):
        if not domain or not result.author_domain:
            continue
        is_strict = record is not None and (record.is_dkim_strict if method == "dkim" else record.is_spf_strict)
        is_aligned, words = _alignment(result.author_domain, domain, f"a{method}=s" if is_strict else "", walks)
        identifiers.append(Identifier(method, domain, outcome, is_aligned, words))
    return tuple(identifiers)


def _alignment(author_domain: str, domain: str, strict: str, walks: TreeWalks) -> tuple[bool | None, str]:
    """Compare an identifier's domain with the author's, as the decision does (RFC 9989 4.10.2)."""
    if domain == author_domain:
        return True, "it is the author domain"
    if strict:
        return False, f"not the author domain itself, as {strict} asks for"
    if domain.rpartition(".")[2] != author_domain.rpartition(".")[2]:
        return False, "another organizational domain"
    try:
        alignment = walks.alignment(author_domain, domain)
        shared = walks.walk(author_domain).organizational_domain
    except NotAsked:
        return None, "not looked into: nothing depended on it"
    if alignment is Alignment.UNKNOWN:
        return None, "the DNS did not tell its organizational domain"
    if alignment is Alignment.ALIGNED:
        return True, f"the same organizational domain, {shared}"
    return False, "another organizational domain"
