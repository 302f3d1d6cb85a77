"""Honest mail, and the plain forgery: without these the other rows would prove nothing."""

from __future__ import annotations

from dataclasses import replace

from tests.attacks.messages import message, replaced, sign, with_field
from tests.attacks.row import ATTACKER, BY_ATTACKER, BY_BANK, BY_FORWARDER, Attack, Fate, Origin
from tests.attacks.zones import ATTACKER_KEY, BANK_ED25519, BANK_KEY, FLAKY_KEY, NEWS_KEY

ACCEPTED = Fate.ACCEPTED
NEWS = b"bounces@news.bank.example"
PLAIN = message(b"From: The Bank <ceo@bank.example>")
SIGNED = sign(PLAIN, BANK_KEY)
OVERSIGNED = sign(PLAIN, BANK_KEY, names=b"from:from:to:to:subject:subject:date:date:content-type")


def honest(
    identity: str,
    octets: bytes,
    origin: Origin = BY_BANK,
    *,
    dkim: tuple[str, ...] | None = None,
    spf: str | None = None,
) -> Attack:
    """A message that passes and is delivered."""
    return Attack(identity, octets, "pass", ACCEPTED, origin=origin, dkim=dkim, spf=spf)


def stranger(identity: str, author: bytes, dmarc: str, fate: Fate = ACCEPTED) -> Attack:
    """An unsigned message of `author` from the attacker's server."""
    return Attack(identity, message(b"From: a@" + author), dmarc, fate, author.decode())


ROWS = (
    honest("control-signed-mail-from-its-own-server-passes", SIGNED, dkim=("pass",), spf="pass"),
    honest("control-unsigned-mail-from-its-own-server-passes", PLAIN, dkim=("none",), spf="pass"),
    honest("control-signed-mail-passes-from-anywhere", SIGNED, BY_FORWARDER, dkim=("pass",), spf="pass"),
    honest("control-signed-mail-passes-from-a-stranger", SIGNED, replace(BY_BANK, client=ATTACKER), dkim=("pass",), spf="fail"),
    honest("control-ed25519-signature-passes", sign(PLAIN, BANK_ED25519), BY_FORWARDER, dkim=("pass",)),
    honest("control-simple-canonicalization-passes", sign(PLAIN, BANK_KEY, forms=b"simple/simple"), BY_FORWARDER),
    honest("control-oversigned-mail-passes", OVERSIGNED, BY_FORWARDER, dkim=("pass",)),
    honest("control-signature-of-a-subdomain-is-aligned", sign(PLAIN, NEWS_KEY), BY_FORWARDER, dkim=("pass",)),
    honest("control-mail-from-of-a-subdomain-is-aligned", PLAIN, replace(BY_BANK, mail_from=NEWS), spf="pass"),
    honest("control-null-sender-is-judged-by-helo", PLAIN, replace(BY_BANK, mail_from=b""), spf="pass"),
    honest("control-full-body-length-passes", sign(PLAIN, BANK_KEY, length=len(PLAIN.partition(b"\r\n\r\n")[2]))),
    honest(
        "control-second-signature-may-fail",
        replaced(sign(sign(PLAIN, BANK_KEY), ATTACKER_KEY), b"s=a1", b"s=a2"),
        BY_FORWARDER,
        dkim=("permerror", "pass"),
    ),
    honest("control-added-received-fields-break-nothing", with_field(SIGNED, b"Received: from a by b"), BY_FORWARDER),
    Attack("control-plain-forgery-is-refused", PLAIN, dkim=("none",), spf="pass"),
    Attack(
        "control-forgery-with-the-victims-mail-from-is-refused",
        PLAIN,
        origin=replace(BY_ATTACKER, mail_from=b"ceo@bank.example"),
        spf="fail",
    ),
    stranger("control-quarantine-policy-is-quarantined", b"shop.example", "fail", Fate.QUARANTINED),
    stranger("control-policy-none-is-delivered", b"monitor.example", "fail"),
    stranger("control-domain-without-a-record-is-delivered", b"norecord.example", "none"),
    stranger("control-silent-nameservers-of-the-author-are-temperror", b"silent.example", "temperror"),
    Attack(
        "control-silent-key-of-the-author-comes-later",
        sign(message(b"From: a@flaky.example"), FLAKY_KEY),
        "temperror",
        Fate.DEFERRED,
        "flaky.example",
        dkim=("temperror",),
    ),
)  # fmt: skip
