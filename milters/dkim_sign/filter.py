"""The way of one message through the signer: collect, choose the keys at the end of the header, hash the body, sign.

Never keeps a body; never sees a message it will not sign beyond its header.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from mailward.adapters.key_files import KeyCache, KeyFileError
from mailward.auth.author import FromFault, author_domains
from mailward.auth.body_hash import BodyHash
from mailward.auth.dkim_sign import SignedHeader, SigningKey, SigningRules
from mailward.auth.keys import PrivateKey
from mailward.auth.line_length import LongLineDetector, has_long_line
from mailward.daemon.log import Log
from mailward.daemon.metrics import Counter, Gauge, Histogram, Row
from mailward.model.message import Transaction
from mailward.model.verdict import Action, InsertField, Reply, Verdict
from mailward.policy.signing import KeyRef, SigningPolicy, Unsigned, choose_published, select
from milters.dkim_sign.publication import PublicationWatch

SIGNED = "signed"
KEY_UNUSABLE = "key-unusable"
OWN_BUG = "own-bug"
HEADER_TOO_LARGE = "header-too-large"
TOO_MANY_SESSIONS = "too-many-sessions"
VERDICTS = (SIGNED, *(why.value for why in Unsigned), KEY_UNUSABLE, HEADER_TOO_LARGE, TOO_MANY_SESSIONS, OWN_BUG)

METRICS = (
    Counter("messages", "Messages, by what became of them.", "verdict", VERDICTS),
    Counter("signatures", "Signatures made, by algorithm.", "algorithm", ("rsa-sha256", "ed25519-sha256")),
    Counter(
        "long_lines", "Signed messages with a line over 998 octets: the next server may cut it and break the signature."
    ),
    Counter("unpublished", "Messages signed with a key none of whose domain's records is published."),
    Counter("sessions_opened", "Connections of the MTA."),
    Gauge("sessions", "Connections of the MTA that are open."),
    Histogram("seconds", "Time from the end of the header to the answer at the end of the message."),
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

    def private_key(self, ref: KeyRef) -> PrivateKey:
        """Return the private key behind a reference. Raises KeyFileError."""
        return self.keys.get(ref.file)


class SignMessage:
    """One message on its way (the MessageFilter of mailward.milter.adapter)."""

    __slots__ = ("_body_hash", "_body_lines", "_keys", "_refs", "_signer", "_started", "_transaction")

    def __init__(self, signer: Signer, transaction: Transaction) -> None:
        self._signer = signer
        self._transaction = transaction
        self._refs: tuple[KeyRef, ...] = ()
        self._keys: list[SigningKey] = []
        self._body_hash = BodyHash(signer.rules.canonicalizations.body)
        self._body_lines = LongLineDetector()
        self._started = 0.0

    def end_of_header(self) -> Verdict | None:
        """Choose the keys; where there is none the message passes now, and its body never comes here."""
        self._started = time.perf_counter()
        unsigned = self._choose()
        if unsigned is not None:
            return self._pass_unsigned(unsigned)
        try:
            self._keys = [
                SigningKey(ref.signing_domain, ref.selector, self._signer.private_key(ref)) for ref in self._refs
            ]
        except KeyFileError as error:
            return self._key_unusable(str(error))
        return None

    def body(self, chunk: bytes) -> None:
        """Hash the next octets of the body."""
        self._body_hash.update(chunk)
        self._body_lines.update(chunk)

    def end_of_message(self) -> Verdict:
        """Sign with every key; the first key's field ends up on top."""
        signed_header = SignedHeader(self._transaction.header, self._signer.rules)
        body_digest = self._body_hash.digest()
        now = int(time.time())
        fields = [signed_header.sign(key, body_digest, now) for key in self._keys]
        self._report_signed()
        edits = tuple(InsertField(field.name.decode(), field.raw_value.decode()) for field in reversed(fields))
        return Verdict(Action.ACCEPT, SIGNED, edits)

    def _choose(self) -> Unsigned | None:
        """Find the keys for this message, RSA first; or say why there are none."""
        signer, envelope = self._signer, self._transaction.envelope
        if not signer.policy.accepts_client(envelope):
            return Unsigned.NOT_OURS
        authors = author_domains(self._transaction.header)
        if authors.fault is FromFault.SEVERAL_FIELDS:
            return Unsigned.SEVERAL_FROM
        if authors.fault is FromFault.MALFORMED and not authors.domains:
            return Unsigned.MALFORMED_FROM
        selection = select(signer.policy, envelope, authors.domains)
        if selection.unsigned is not None:
            return selection.unsigned
        choice = choose_published(selection.keys, signer.publication.state_of)
        for domain in choice.unpublished_domains:
            signer.metrics.count("unpublished")
            signer.publication.complain(domain)
        self._refs = choice.keys
        return None

    def _pass_unsigned(self, unsigned: Unsigned) -> Verdict:
        self._signer.metrics.count("messages", unsigned.value)
        self._log_message("unsigned", unsigned.value)
        return Verdict(Action.ACCEPT, unsigned.value)

    def _key_unusable(self, fault: str) -> Verdict:
        """Answer for a key that cannot be read: as configured, wait for the operator or let the mail go unsigned."""
        signer = self._signer
        signer.metrics.count("messages", KEY_UNUSABLE)
        signer.log.critical("key-unusable", files=" ".join(ref.file for ref in self._refs), fault=fault)
        self._log_message(signer.on_key_error.value, KEY_UNUSABLE)
        reply = (
            Reply(451, "4.7.5", "The signing key cannot be used; try again later")
            if signer.on_key_error is Action.TEMPFAIL
            else None
        )
        return Verdict(signer.on_key_error, KEY_UNUSABLE, reply=reply)

    def _report_signed(self) -> None:
        metrics = self._signer.metrics
        metrics.count("messages", SIGNED)
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
            verdict=verdict,
            reason=reason,
            signatures=" ".join([f"{key.signing_domain}/{key.selector}" for key in self._keys]),
            warning=warning,
            ms=f"{(time.perf_counter() - self._started) * 1000:.1f}",
        )
