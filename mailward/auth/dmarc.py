"""DMARC (RFC 9989): may these authenticated identifiers speak for the author domain, and what if not.

SPF and DKIM results go in, a result for each author domain comes out. The policy that comes with it is what the domain asks
for; what is done with the message is decided elsewhere. HELO's SPF result never counts (RFC 9989 4.4.2).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from mailward.auth.dmarc_record import PolicyRecord, Psd
from mailward.auth.tree_walk import Alignment, Site, TreeWalks
from mailward.model.dns import Answer, Question
from mailward.model.results import (
    Authors,
    Disposition,
    DkimResult,
    DmarcResult,
    FromFault,
    Result,
    SpfIdentity,
    SpfResult,
)

MAX_AUTHOR_DOMAINS = 10  # RFC 9989 11.5 asks for a limit: each one may cost ten DNS queries and more

_FAULTS = {
    FromFault.MISSING: "there is no From field",
    FromFault.SEVERAL_FIELDS: "there are several From fields",
    FromFault.MALFORMED: "the From field is malformed",
    FromFault.NO_DOMAIN: "the From field names no domain",
}
_FAILED_SEVERITY = {Disposition.REJECT: 6, Disposition.QUARANTINE: 5, Disposition.NONE: 2, None: 2}
_SEVERITY = {Result.TEMPERROR: 4, Result.PERMERROR: 3, Result.NONE: 1, Result.PASS: 0}
_STRICTNESS = (None, Disposition.NONE, Disposition.QUARANTINE, Disposition.REJECT)


@dataclass(frozen=True, slots=True)
class _Identifier:
    """A domain that SPF or DKIM spoke of; where it did not pass, it may yet, for the DNS did not answer."""

    method: str
    domain: str
    is_passed: bool

    def __str__(self) -> str:
        return f"{self.method}={self.domain}"


@dataclass(frozen=True, slots=True)
class _Policy:
    """The record that applies (None: no DMARC), where it stands, and the disposition (None: the DNS did not say which)."""

    record: PolicyRecord
    domain: str
    disposition: Disposition | None


class _Unanswered(Exception):
    """The DNS did not answer where no policy can be told without."""


def evaluate(
    author_domain: str, spf: SpfResult, dkim: Sequence[DkimResult], ask: Callable[[Question], Answer]
) -> DmarcResult:
    """Evaluate one author domain (normalized).

    `spf` is the MAILFROM identity's result; ValueError for HELO's. `dkim` is as long as the verifier's own limit allows.
    """
    return evaluate_all(Authors((author_domain,) if author_domain else ()), spf, dkim, ask)[1]


def evaluate_all(
    authors: Authors, spf: SpfResult, dkim: Sequence[DkimResult], ask: Callable[[Question], Answer]
) -> tuple[tuple[DmarcResult, ...], DmarcResult]:
    """Evaluate every author domain; return the results, and the one that counts: see `Policies`."""
    return Policies(authors, ask).evaluate(spf, dkim)


class Policies:
    """The policies of a message's author domains, found when it is made; then what SPF and DKIM found is held against them.

    Made before SPF and DKIM ask anything: which names they ask about the sender chooses, and silent ones of his own must
    not use up the time and the queries that tell the author domain's policy.
    """

    def __init__(self, authors: Authors, ask: Callable[[Question], Answer], identifiers: Collection[str] = ()) -> None:
        """`identifiers` are the domains that SPF and DKIM may yet speak of."""
        self._authors = authors
        self._walks = TreeWalks(ask)
        self._tried = authors.domains[:MAX_AUTHOR_DOMAINS]
        public = [author_domain for author_domain in self._tried if _is_public(author_domain)]
        for author_domain in public:  # before any walk: deep names must not use up the queries either
            self._walks.site(author_domain)
        self._found = {author_domain: _look_for(author_domain, self._walks, identifiers) for author_domain in public}

    def evaluate(self, spf: SpfResult, dkim: Sequence[DkimResult]) -> tuple[tuple[DmarcResult, ...], DmarcResult]:
        """Return a result for each author domain, and the one that counts: the worst (RFC 9989 11.5).

        So a message passes only if each of its author domains does. A message that names none, or more than may be tried, is
        a PERMERROR; the latter with a policy of at least quarantine, which is meant to be applied as if to a failure.
        `spf` is the MAILFROM identity's result; ValueError for HELO's.
        """
        identifiers, authors = _identifiers(spf, dkim), self._authors
        if not self._tried:
            fault = _FAULTS[authors.fault or FromFault.NO_DOMAIN]
            nobody = DmarcResult(Result.PERMERROR, "", reason=f"{fault}: no author domain can be told")
            return (nobody,), nobody
        results = tuple(
            [
                _evaluate(author_domain, self._found.get(author_domain), identifiers, self._walks)
                for author_domain in self._tried
            ]
        )
        worst = max(results, key=_severity)  # the first of equals
        if len(authors.domains) > MAX_AUTHOR_DOMAINS:
            return results, _too_many(worst)
        if authors.fault:
            worst = replace(worst, reason="; ".join(filter(None, (_FAULTS[authors.fault], worst.reason))))
        return results, worst


def _identifiers(spf: SpfResult, dkim: Iterable[DkimResult]) -> tuple[_Identifier, ...]:
    """Return what passed, then what may yet pass; a result that is neither counts for nothing (RFC 9989 4.4)."""
    if spf.identity is SpfIdentity.HELO:
        raise ValueError("the HELO identity never counts for DMARC")
    # An SPF or DKIM permerror is no error of the DNS but of what stands in it, which is a failure to authenticate.
    found = [("dkim", result.signing_domain, result.result) for result in dkim]
    found.append(("spf", spf.domain, spf.result))
    return tuple(
        dict.fromkeys(
            _Identifier(method, domain, wanted is Result.PASS)
            for wanted in (Result.PASS, Result.TEMPERROR)
            for method, domain, result in found
            if result is wanted and domain
        )
    )


def _look_for(author_domain: str, walks: TreeWalks, identifiers: Collection[str]) -> _Policy | _Unanswered | None:
    """Find the policy; None where there is none, the exception where it cannot be told.

    Where alignment may need the names above as well they are asked about now, while a stranger has not yet used up the
    message's queries: what they do not answer leaves alignment in doubt, and doubt is no failure.
    """
    try:
        policy = _discover(author_domain, walks)
    except _Unanswered as error:
        return error
    top = author_domain.rpartition(".")[2]
    if policy and any(name != author_domain and name.rpartition(".")[2] == top for name in identifiers):
        walks.walk(author_domain)
    return policy


def _is_public(author_domain: str) -> bool:
    """Say whether a domain can be anybody's: with two labels at least, and no number at the end, which is an address."""
    return "." in author_domain and not author_domain.rpartition(".")[2].isdigit()


def _evaluate(
    author_domain: str, policy: _Policy | _Unanswered | None, identifiers: Sequence[_Identifier], walks: TreeWalks
) -> DmarcResult:
    if not _is_public(author_domain):
        return DmarcResult(Result.PERMERROR, "", "an author's domain is no public domain name")
    if isinstance(policy, _Unanswered):
        return _shown(DmarcResult(Result.TEMPERROR, author_domain, str(policy)), walks)
    if policy is None:
        return _shown(DmarcResult(Result.NONE, author_domain, "no policy record"), walks)
    if policy.record.policy is None:  # RFC 9989 4.10.1: no DMARC processing
        reason = policy.record.fault
        return _shown(DmarcResult(Result.NONE, author_domain, reason, policy_domain=policy.domain), walks)
    result, reason, aligned = _judge(author_domain, policy, identifiers, walks)
    reason = "; ".join(filter(None, (reason, policy.record.fault)))
    found = DmarcResult(result, author_domain, reason, policy.disposition, policy.domain, aligned=aligned)
    return _shown(found, walks)


def _discover(author_domain: str, walks: TreeWalks) -> _Policy | None:
    """Find the record that applies: the author domain's, its organizational domain's, its PSD's (RFC 9989 4.10.1).

    Raises _Unanswered where it cannot be told.
    """
    site = walks.site(author_domain)
    if site.is_unanswered:
        raise _Unanswered(f"the DNS did not answer for _dmarc.{author_domain}")
    if site.record:
        return _Policy(site.record, author_domain, site.record.policy)
    walk = walks.walk(author_domain)
    for above in walk.sites:
        if above.is_unanswered:
            raise _Unanswered(f"the DNS did not answer for _dmarc.{above.name}")
    found = {above.name: above.record for above in walk.sites if above.record}
    for domain in (walk.organizational_domain, _public_suffix(walk.sites)):
        record = found.get(domain)
        if record:
            return _Policy(record, domain, _disposition_below(record, author_domain, walks))
    return None


def _public_suffix(sites: Sequence[Site]) -> str:
    """Return the name of the record with psd=y; a walk ends there."""
    top = sites[-1]
    return top.name if top.record and top.record.psd is Psd.YES else ""


def _disposition_below(record: PolicyRecord, author_domain: str, walks: TreeWalks) -> Disposition | None:
    """Choose between sp and np; whether the author domain exists is asked only where that makes a difference."""
    if record.subdomain_policy is record.nonexistent_policy:
        return record.subdomain_policy
    does_exist = walks.does_exist(author_domain)
    if does_exist is None:
        return None
    return record.subdomain_policy if does_exist else record.nonexistent_policy


def _judge(
    author_domain: str, policy: _Policy, identifiers: Sequence[_Identifier], walks: TreeWalks
) -> tuple[Result, str, tuple[str, ...]]:
    """Return the result, its reason, and what passed and was aligned."""
    # Equal names are aligned in either mode (RFC 9989 4.10.2), and no question is needed to say so.
    equal = [identifier for identifier in identifiers if identifier.domain == author_domain]
    aligned = tuple(str(identifier) for identifier in equal if identifier.is_passed)
    if aligned:
        return Result.PASS, "", aligned
    doubt = f"{equal[0]} is not known for a temporary error" if equal else ""
    for identifier in _relaxed(author_domain, policy.record, identifiers):  # those that passed stand first
        alignment = walks.alignment(author_domain, identifier.domain)
        if alignment is Alignment.ALIGNED and identifier.is_passed:
            return Result.PASS, "", (str(identifier),)
        if alignment is Alignment.UNKNOWN:
            doubt = doubt or f"the DNS did not tell whether {identifier} is aligned"
        elif alignment is Alignment.ALIGNED:
            doubt = doubt or f"{identifier} is not known for a temporary error"
    if not doubt and policy.disposition is None:
        doubt = f"the DNS did not tell whether {author_domain} exists, and so which policy applies"
    if doubt:  # RFC 9989 5.3.6: neither pass nor fail
        return Result.TEMPERROR, doubt, ()
    return Result.FAIL, "nothing that passed is aligned" if identifiers else "neither SPF nor DKIM passed", ()


def _relaxed(author_domain: str, record: PolicyRecord, identifiers: Iterable[_Identifier]) -> list[_Identifier]:
    """Return the identifiers that a tree walk may find aligned: other names under the same top, in relaxed mode."""
    top = author_domain.rpartition(".")[2]
    return [
        identifier
        for identifier in identifiers
        if identifier.domain != author_domain
        and identifier.domain.rpartition(".")[2] == top
        and not (record.is_dkim_strict if identifier.method == "dkim" else record.is_spf_strict)
    ]


def _shown(result: DmarcResult, walks: TreeWalks) -> DmarcResult:
    """Add what was seen on the way; nothing more is asked."""
    walk = walks.walk_done(result.author_domain)
    if walk:
        steps = tuple(site.step for site in walk.sites)
        return replace(result, organizational_domain=walk.organizational_domain, walk=steps)
    # RFC 9989 4.10.2: where all are the same domain and it has a record, it is the organizational domain.
    organizational_domain = result.author_domain if result.result is Result.PASS else ""
    steps = (walks.site(result.author_domain).step,)
    return replace(result, organizational_domain=organizational_domain, walk=steps)


def _severity(result: DmarcResult) -> int:
    """Order results by how bad they are; RFC 9989 11.5: the strictest failing policy wins."""
    return _FAILED_SEVERITY[result.policy] if result.result is Result.FAIL else _SEVERITY[result.result]


def _too_many(worst: DmarcResult) -> DmarcResult:
    """Turn the worst of those tried into the result that counts: the rest must not hide behind them."""
    failed = worst.policy if worst.result is Result.FAIL else None
    policy = max(failed, Disposition.QUARANTINE, key=_STRICTNESS.index)
    reason = f"there are more than {MAX_AUTHOR_DOMAINS} author domains"
    return replace(worst, result=Result.PERMERROR, reason=reason, policy=policy, aligned=())
