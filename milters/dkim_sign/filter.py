"""The way of one message through the signer: collect, choose the keys at the end of the header, hash the body, sign.

Never keeps a body; never sees a message it will not sign beyond its header.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from mailward.adapters.key_files import KeyCache, KeyFileError
from mailward.auth.author import author_domains
from mailward.auth.body_hash import BodyHash
from mailward.auth.dkim_sign import SignedHeader, SigningKey, SigningRules, TooManyFields
from mailward.auth.keys import Algorithm, PrivateKey
from mailward.auth.line_length import LongLineDetector, has_long_line
from mailward.daemon.log import Log
from mailward.daemon.metrics import NAMED_AT_LOAD, Counter, Histogram, Row
from mailward.daemon.milter_service import HEADER_TOO_LARGE, NOT_JUDGED, SESSION_METRICS, TOO_MANY_FIELDS_REPLY
from mailward.daemon.shown import Part, Shown, Tone
from mailward.model.message import Transaction
from mailward.model.results import FromFault
from mailward.model.verdict import Action, InsertField, Reply, Verdict
from mailward.policy.signing import KeyRef, SigningPolicy, Unsigned, choose_published, select
from milters.dkim_sign.publication import PublicationWatch

SIGNED = "signed"
KEY_UNUSABLE = "key-unusable"
DOMAIN = "domain"  # the label that the configuration names
DOMAIN_MESSAGES, DOMAIN_SIGNED = "domain_messages", "domain_signed"
VERDICTS = (SIGNED, *(why.value for why in Unsigned), KEY_UNUSABLE, *NOT_JUDGED)

METRICS = (
    Counter("messages", "Messages, by what became of them.", "verdict", VERDICTS),
    Counter("signatures", "Signatures made, by algorithm.", "algorithm", ("rsa-sha256", "ed25519-sha256")),
    Counter(
        "long_lines", "Signed messages with a line over 998 octets: the next server may cut it and break the signature."
    ),
    Counter("unpublished", "Messages signed with a key none of whose domain's records is published."),
    Counter(
        DOMAIN_MESSAGES,
        "Messages that may be signed, by the author domain as the configuration names it.",
        DOMAIN,
        NAMED_AT_LOAD,
    ),
    Counter(DOMAIN_SIGNED, "Those of them that were signed.", DOMAIN, NAMED_AT_LOAD),
    Histogram("seconds", "Time from the end of the header to the answer at the end of the message."),
    *SESSION_METRICS,
)

_LEFT_UNSIGNED = tuple(why.value for why in Unsigned if why is not Unsigned.NOT_OURS)

SHOWN = (
    Shown(
        "Messages",
        (
            Part("signed", "messages", (SIGNED,), Tone.GOOD),
            Part("not authenticated", "messages", (Unsigned.NOT_OURS.value,), Tone.PLAIN),
            Part("ours, but left unsigned", "messages", _LEFT_UNSIGNED, Tone.ODD),
            Part("could not be signed", "messages", (KEY_UNUSABLE, *NOT_JUDGED), Tone.BAD),
        ),
        seconds="seconds",
    ),
)


@dataclass(frozen=True, slots=True)
class Signer:
    """All that signing needs and that outlives a message."""

    policy: SigningPolicy
    rules: SigningRules
    keys: KeyCache
    publication: PublicationWatch
    metrics: Row
    log: Log
    on_key_error: Action


class SignMessage:
    """One message on its way (the MessageFilter of mailward.milter.adapter)."""

    __slots__ = (
        "_author_domains",
        "_body_hash",
        "_body_lines",
        "_domain",
        "_keys",
        "_signed_header",
        "_signer",
        "_started",
        "_transaction",
    )

    def __init__(self, signer: Signer, transaction: Transaction) -> None:
        self._signer = signer
        self._transaction = transaction
        self._author_domains: tuple[str, ...] = ()
        self._domain = ""  # the first of them as the configuration names it
        self._signed_header: SignedHeader | None = None
        self._keys: list[SigningKey] = []
        self._body_hash = BodyHash(signer.rules.canonicalizations.body)
        self._body_lines = LongLineDetector()
        self._started = 0.0

    def end_of_header(self) -> Verdict | None:
        """Choose the keys; where there is none the message passes now, and its body never comes here."""
        self._started = time.perf_counter()
        try:
            unsigned = self._choose()
            if unsigned is not None:
                return self._pass_unsigned(unsigned)
            self._signed_header = SignedHeader(self._transaction.header, self._signer.rules)
        except KeyFileError as error:
            return self._key_unusable(str(error))
        except TooManyFields:
            return self._refuse_header()
        return None

    def body(self, chunk: bytes) -> None:
        """Hash the next octets of the body."""
        self._body_hash.update(chunk)
        self._body_lines.update(chunk)

    def end_of_message(self) -> Verdict:
        """Sign with every key; the first key's field ends up on top."""
        assert self._signed_header is not None  # the milter edge sees to it that the header comes first
        body_digest = self._body_hash.digest()
        now = int(time.time())
        fields = [self._signed_header.sign(key, body_digest, now) for key in self._keys]
        self._report_signed()
        edits = tuple(InsertField(field.name.decode(), field.raw_value.decode()) for field in reversed(fields))
        return Verdict(Action.ACCEPT, SIGNED, edits)

    def _choose(self) -> Unsigned | None:
        """Find the keys for this message, RSA first; or say why there are none."""
        signer, envelope = self._signer, self._transaction.envelope
        if not signer.policy.accepts_client(envelope):
            return Unsigned.NOT_OURS
        authors = author_domains(self._transaction.header)
        self._author_domains = authors.domains
        if authors.fault is FromFault.SEVERAL_FIELDS:
            return Unsigned.SEVERAL_FROM
        if authors.fault is FromFault.MALFORMED and not authors.domains:
            return Unsigned.MALFORMED_FROM
        self._count_domain()
        selection = select(signer.policy, envelope, authors.domains)
        if selection.unsigned is not None:
            return selection.unsigned
        keys = self._read_keys(selection.keys)
        choice = choose_published(tuple(keys), signer.publication.state_of)
        for domain in choice.unpublished_domains:
            signer.metrics.count("unpublished")
            signer.publication.complain(domain)
        self._keys = [SigningKey(ref.signing_domain, ref.selector, keys[ref]) for ref in choice.keys]
        return None

    def _count_domain(self) -> None:
        """Count the message for its domain, if that is one that mail is to be signed for."""
        if self._author_domains:
            self._domain = domain_label(self._signer.policy.table.name_of(self._author_domains[0]))
        if self._domain:
            self._signer.metrics.count(DOMAIN_MESSAGES, self._domain)

    def _read_keys(self, refs: Sequence[KeyRef]) -> dict[KeyRef, PrivateKey]:
        """Read the keys, RSA before Ed25519. One that cannot be read steps back while its domain has another.

        Raises KeyFileError where a domain has no other.
        """
        keys: dict[KeyRef, PrivateKey] = {}
        faults: dict[KeyRef, KeyFileError] = {}
        for ref in refs:
            try:
                keys[ref] = self._signer.keys.get(ref.file)
            except KeyFileError as fault:
                self._signer.log.critical("key-unusable", file=ref.file, fault=str(fault))
                faults[ref] = fault
        for unreadable, error in faults.items():
            if all(ref.signing_domain != unreadable.signing_domain for ref in keys):
                raise error
        return dict(sorted(keys.items(), key=lambda item: item[1].algorithm is not Algorithm.RSA_SHA256))

    def _pass_unsigned(self, unsigned: Unsigned) -> Verdict:
        self._signer.metrics.count("messages", unsigned.value)
        self._log_message("unsigned", unsigned.value)
        return Verdict(Action.ACCEPT, unsigned.value)

    def _key_unusable(self, fault: str) -> Verdict:
        """Answer for a key that cannot be read: as configured, wait for the operator or let the mail go unsigned."""
        signer = self._signer
        signer.metrics.count("messages", KEY_UNUSABLE)
        self._log_message(signer.on_key_error.value, KEY_UNUSABLE, fault)
        reply = (
            Reply(451, "4.7.5", "The signing key cannot be used; try again later")
            if signer.on_key_error is Action.TEMPFAIL
            else None
        )
        return Verdict(signer.on_key_error, KEY_UNUSABLE, reply=reply)

    def _refuse_header(self) -> Verdict:
        self._signer.metrics.count("messages", HEADER_TOO_LARGE)
        self._log_message(Action.REJECT.value, HEADER_TOO_LARGE)
        return Verdict(Action.REJECT, HEADER_TOO_LARGE, reply=TOO_MANY_FIELDS_REPLY)

    def _report_signed(self) -> None:
        metrics = self._signer.metrics
        metrics.count("messages", SIGNED)
        if self._domain:
            metrics.count(DOMAIN_SIGNED, self._domain)
        for key in self._keys:
            metrics.count("signatures", key.private_key.algorithm.value)
        metrics.observe("seconds", time.perf_counter() - self._started)
        warning = ""
        if self._body_lines.found or has_long_line(self._transaction.header):
            metrics.count("long_lines")
            warning = "line-over-998-octets"
        self._log_message(SIGNED, "", warning)

    def _log_message(self, verdict: str, reason: str, warning: str = "") -> None:
        transaction, envelope = self._transaction, self._transaction.envelope
        self._signer.log.info(
            "message",
            session=transaction.session_id,
            queue_id=transaction.queue_id,
            client=envelope.client_address,
            login=envelope.login,
            mail_from=envelope.mail_from,
            author_domain=" ".join(self._author_domains),
            verdict=verdict,
            reason=reason,
            signatures=" ".join([f"{key.signing_domain}/{key.selector}" for key in self._keys]),
            warning=warning,
            ms=f"{(time.perf_counter() - self._started) * 1000:.1f}",
        )


def domain_label(name: str) -> str:
    """Return what a name of the signing table is called in the metrics: a domain and what is below it are one.

    >>> domain_label("example.com"), domain_label(".example.com"), domain_label("*"), domain_label("")
    ('example.com', 'example.com', '*', '')
    """
    return name.lstrip(".")
