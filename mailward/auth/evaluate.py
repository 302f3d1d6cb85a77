"""One message, every method, one Evaluation: who really sent this. No I/O: the DNS is the argument `ask`.

From cheap to dear: the header is read once, the body is hashed while it streams past, in no more forms than the signatures
that will be tried want, and a body hash that differs spares the look-up of its key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mailward.auth import arc, dkim_verify, dmarc, iprev, spf
from mailward.auth.author import author_domains
from mailward.auth.body_hash import BodyDigest, BodyForm, BodyHash
from mailward.auth.dkim import ReceivedHeader
from mailward.auth.dkim_verify import DkimLimits, Signature
from mailward.auth.spf import SpfLimits
from mailward.model.dns import Answer, Failure, Question
from mailward.model.domain import parents
from mailward.model.message import Envelope, HeaderField
from mailward.model.results import (
    Disposition,
    DkimResult,
    DmarcResult,
    Evaluation,
    ForwarderHint,
    Result,
    SpfIdentity,
    SpfResult,
)

Ask = Callable[[Question], Answer]


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds on what one message may make us do."""

    spf: SpfLimits = SpfLimits()
    dkim: DkimLimits = DkimLimits()


class _WatchedAsk:
    """An `ask` that remembers whether the DNS as a whole was away."""

    __slots__ = ("_ask", "is_dns_away")

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self.is_dns_away = False

    def __call__(self, question: Question) -> Answer:
        answer = self._ask(question)
        if answer.failure is Failure.AWAY:
            self.is_dns_away = True
        return answer


class Verification:
    """One message: made of its envelope and header, fed with its body, evaluated at its end."""

    __slots__ = ("_bodies", "_chain", "_envelope", "_header", "_limits", "_signatures", "authors")

    def __init__(self, envelope: Envelope, header: Sequence[HeaderField], limits: Limits, now: float) -> None:
        """`now` in seconds since 1970."""
        self._envelope = envelope
        self._limits = limits
        self._header = ReceivedHeader(header)
        self.authors = author_domains(header)
        self._signatures = dkim_verify.parse_signatures(self._header, self._tried_authors, limits.dkim, now)
        self._chain = arc.parse_chain(self._header, limits.dkim, now)
        forms = dkim_verify.body_forms(self._signatures)
        if self._chain.body_form is not None:
            forms.add(self._chain.body_form)
        self._bodies = {form: BodyHash(form.canonicalization, form.limit) for form in forms}

    def body(self, chunk: bytes) -> None:
        """Take the next octets of the body."""
        for body in self._bodies.values():
            body.update(chunk)

    def evaluate(self, ask: Ask) -> Evaluation:
        """Judge the message; its body is complete. Raises nothing but what `ask` raises.

        First comes what concerns the author domain: its policy, then the signatures that may be its own. The names asked about
        later are the sender's choice: with silent ones he may use up the message's time and queries, and no more.
        """
        envelope, limits = self._envelope, self._limits
        client, helo = envelope.client_address, envelope.helo
        ask = watched = _WatchedAsk(ask)
        policies = dmarc.Policies(self.authors, ask, self._identifiers())
        digests = {form: body.finish() for form, body in self._bodies.items()}
        dkim = {item.position: self._verify(item, digests, ask) for item in self._signatures if self._may_align(item)}
        spf_mailfrom = spf.check_mail_from(client, helo, envelope.mail_from, ask, limits.spf)
        for item in self._signatures:
            if item.position not in dkim:
                dkim[item.position] = self._verify(item, digests, ask)
        signatures = tuple([dkim[item.position] for item in self._signatures])
        results, worst = policies.evaluate(spf_mailfrom, signatures)
        hints = self._hints((*results, worst), signatures, ask)
        chain_body = digests[self._chain.body_form] if self._chain.body_form is not None else None
        arc_result = arc.verify_chain(self._chain, self._header, chain_body, ask, limits.dkim)
        return Evaluation(
            self.authors,
            iprev.check_iprev(client, ask),
            self._check_helo(spf_mailfrom, ask),
            spf_mailfrom,
            signatures,
            arc_result,
            results,
            worst,
            hints,
            watched.is_dns_away,
        )

    def _identifiers(self) -> set[str]:
        """Return the domains that SPF and DKIM may speak of."""
        identifiers = {item.seal.signing_domain for item in self._signatures if isinstance(item, Signature)}
        return {*identifiers, spf.mail_from_domain(self._envelope.mail_from, self._envelope.helo)}

    def _check_helo(self, spf_mailfrom: SpfResult, ask: Ask) -> SpfResult:
        """Judge the HELO identity; for the null sender that has been done (RFC 7208 2.4)."""
        envelope = self._envelope
        if not envelope.mail_from:
            return replace(spf_mailfrom, identity=SpfIdentity.HELO)
        return spf.check_helo(envelope.client_address, envelope.helo, ask, self._limits.spf)

    def _may_align(self, item: Signature | DkimResult) -> bool:
        """Say whether a signature may be the author domain's own; a result that is there already asks nothing."""
        return isinstance(item, Signature) and dkim_verify.may_align(item.seal.signing_domain, self._tried_authors)

    @property
    def _tried_authors(self) -> tuple[str, ...]:
        return self.authors.domains[: dmarc.MAX_AUTHOR_DOMAINS]

    def _verify(self, signature: Signature | DkimResult, digests: dict[BodyForm, BodyDigest], ask: Ask) -> DkimResult:
        if isinstance(signature, DkimResult):
            return signature
        return dkim_verify.verify(signature, self._header, digests[signature.body_form], ask, self._limits.dkim)

    def _hints(self, results: Sequence[DmarcResult], dkim: Sequence[DkimResult], ask: Ask) -> tuple[ForwarderHint, ...]:
        """Look for what speaks for a forwarder, where a failure may be enforced as reject (RFC 9989 7.4)."""
        failing = {result.author_domain for result in results if result.policy is Disposition.REJECT}
        if all(result.result is Result.PASS for result in results) or not failing:
            return ()
        hints = []
        if self._header.fields(b"list-id"):
            hints.append(ForwarderHint.LIST_ID)
        if self._header.fields(b"arc-seal"):
            hints.append(ForwarderHint.ARC)
        if any(self._was_signed_by(failing, signature, dkim, ask) for signature in self._signatures):
            hints.append(ForwarderHint.DKIM_HEADER)
        return tuple(hints)

    def _was_signed_by(
        self, author_domains: set[str], signature: Signature | DkimResult, dkim: Sequence[DkimResult], ask: Ask
    ) -> bool:
        """Say whether an author domain, or one above it, signed this header with another body."""
        if isinstance(signature, DkimResult) or not dkim[signature.position].is_body_changed:
            return False
        signing_domain = signature.seal.signing_domain
        if not any(signing_domain == author or signing_domain in parents(author) for author in author_domains):
            return False
        return dkim_verify.header_verifies(signature, self._header, ask, self._limits.dkim)
