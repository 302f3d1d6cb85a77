"""DKIM signatures that prove less than they seem to: what they leave out, whose they are, which key made them, and replays.

The From field names the bank throughout; the message comes from the attacker's server. Published as A3 and A4 of
"Composition Kills" and its replays (Chen, Paxson and Jiang, 2020), and as CVE-2020-12272.
"""

from __future__ import annotations

import base64

from tests.attacks.controls import OVERSIGNED, PLAIN, SIGNED
from tests.attacks.messages import BODY, Signer, message, replaced, sign, with_field
from tests.attacks.row import BY_FORWARDER, Attack, Fate
from tests.attacks.zones import (
    ATTACKER_KEY,
    BANK_KEY,
    DOUBLE_QUOTE_KEY,
    EVEN_EXPONENT_KEY,
    EXPONENT_ONE_KEY,
    HUGE_KEY,
    NO_KEY,
    NOT_BANK_KEY,
    OTHER_TYPE_KEY,
    OTHER_VERSION_KEY,
    PARENTHESIS_KEY,
    QUOTE_KEY,
    REVOKED_KEY,
    SHA1_ONLY_KEY,
    SHORT_KEY,
    SILENT_DMARC_KEY,
    SILENT_KEY,
    STRICT_KEY,
    TESTING_KEY,
    TLSRPT_KEY,
    TOP_LEVEL_KEY,
)

QUARANTINED = Fate.QUARANTINED
MAYBE_FORWARDED = (
    QUARANTINED  # the bank signed this header: RFC 9989 7.4 does not let it be refused for the policy alone
)
JUNK = b"DKIM-Signature: v=1; a=rsa-sha256; d=%s; s=s1; h=from; bh=%s; b=AAAA\r\n"
NO_HASH = base64.b64encode(bytes(32))


def row(identity: str, octets: bytes, word: str, fate: Fate = Fate.REFUSED) -> Attack:
    """A forgery with one signature, and the result word it gets."""
    return Attack(identity, octets, fate=fate, dkim=(word,))


UNSIGNED_FROM = sign(message(b"From: nobody@bank.example"), BANK_KEY, names=b"to:subject:date")
WHAT_IS_SIGNED = (
    row("signature-that-leaves-out-from-is-no-pass", replaced(UNSIGNED_FROM, b"nobody@", b"ceo@"), "permerror"),
    row(
        "l-tag-with-appended-body-is-no-pass",
        sign(PLAIN, BANK_KEY, length=len(BODY)) + b"Pay here.\r\n",
        "policy",
        MAYBE_FORWARDED,
    ),
    row("l-tag-of-zero-signs-no-body", sign(PLAIN, BANK_KEY, length=0), "policy", MAYBE_FORWARDED),
    row(
        "l-tag-beyond-the-end-is-no-pass",
        sign(PLAIN, BANK_KEY, length=99999),
        "fail",
        MAYBE_FORWARDED,
    ),
    row("l-tag-that-is-no-number-is-no-pass", sign(PLAIN, BANK_KEY, tags=b" l=-1;"), "permerror"),
    row("changed-body-is-no-pass", replaced(SIGNED, b"please log in", b"please pay in"), "fail", MAYBE_FORWARDED),
    row("changed-subject-is-no-pass", replaced(SIGNED, b"Your account", b"Your refund"), "fail"),
    row(
        "nul-behind-a-signed-subject-hides-no-text",
        replaced(SIGNED, b"Your account", b"Your account\0 is closed"),
        "fail",
    ),
    row("changed-author-is-no-pass", replaced(SIGNED, b"The Bank <", b"The Boss <"), "fail"),
    row("second-subject-breaks-an-oversigned-signature", with_field(OVERSIGNED, b"Subject: Pay now"), "fail"),
    row("second-from-breaks-an-oversigned-signature", with_field(OVERSIGNED, b"From: boss@bank.example"), "fail"),
    row(
        "replay-with-a-content-type-breaks-an-oversigned-signature",
        with_field(OVERSIGNED, b"Content-Type: text/html"),
        "fail",
    ),
    row("replay-with-a-second-subject-is-no-pass", with_field(SIGNED, b"Subject: Pay now"), "policy"),
    row("replay-with-a-second-from-is-no-pass", with_field(SIGNED, b"From: boss@bank.example"), "policy"),
    row("replay-with-a-second-to-is-no-pass", with_field(SIGNED, b"To: you@receiver.example"), "policy"),
    row("replay-with-a-second-date-is-no-pass", with_field(SIGNED, b"Date: Sun, 22 Nov 2026 12:00:00 +0000"), "policy"),
    Attack(
        "replay-with-the-attackers-from-on-top-is-no-pass",
        with_field(SIGNED, b"From: x@attacker.example"),
        dkim=("policy",),
    ),
    row(
        "replay-with-a-second-subject-in-odd-spelling-is-no-pass",
        with_field(SIGNED, b"sUBJECT : Pay now"),
        "policy",
    ),
)

WHOSE_IT_IS = (
    row("signature-of-the-attacker-is-not-aligned", sign(PLAIN, ATTACKER_KEY), "pass"),
    row(
        "i-tag-of-the-victim-under-the-attackers-d-is-no-pass",
        sign(PLAIN, ATTACKER_KEY, tags=b" i=ceo@bank.example;"),
        "permerror",
    ),
    row(
        "i-tag-with-two-at-signs-is-read-at-the-last",
        sign(PLAIN, ATTACKER_KEY, tags=b" i=x@attacker.example@bank.example;"),
        "permerror",
    ),
    row("signature-of-a-top-level-domain-is-no-pass", sign(PLAIN, TOP_LEVEL_KEY), "permerror"),
    row("domain-that-ends-in-the-victims-letters-is-not-aligned", sign(PLAIN, NOT_BANK_KEY), "pass"),
    row("parenthesis-in-d-does-not-cut-the-domain", sign(PLAIN, PARENTHESIS_KEY), "permerror"),  # CVE-2020-12272
    row("single-quote-in-d-does-not-cut-the-domain", sign(PLAIN, QUOTE_KEY), "permerror"),
    row("double-quote-in-d-does-not-cut-the-domain", sign(PLAIN, DOUBLE_QUOTE_KEY), "permerror"),
    row(
        "white-space-in-d-does-not-cut-the-domain",
        sign(PLAIN, ATTACKER_KEY, d=b"bank.example .attacker.example"),
        "permerror",
    ),
    row(
        "fold-in-d-does-not-cut-the-domain",
        sign(PLAIN, ATTACKER_KEY, d=b"bank.example\r\n .attacker.example"),
        "permerror",
    ),
    row("encoded-word-in-d-is-no-domain", sign(PLAIN, ATTACKER_KEY, d=b"=?utf-8?Q?bank.example?="), "permerror"),
    row(
        "nul-in-d-does-not-cut-the-domain",
        sign(PLAIN, ATTACKER_KEY, d=b"bank.example\0.attacker.example"),
        "permerror",
    ),
    row("trailing-dot-in-d-is-no-domain", sign(PLAIN, ATTACKER_KEY, d=b"bank.example."), "permerror"),
    row(
        "nul-in-the-selector-does-not-cut-the-name",
        sign(PLAIN, ATTACKER_KEY, d=b"bank.example", s=b"a1._domainkey.attacker.example.\0.any"),
        "permerror",
    ),
    row(
        "selector-that-ends-in-a-dot-does-not-end-the-name",
        sign(PLAIN, ATTACKER_KEY, d=b"bank.example", s=b"a1._domainkey.attacker.example."),
        "permerror",
    ),
    row(
        "selector-of-many-labels-stays-below-d",
        sign(PLAIN, ATTACKER_KEY, d=b"bank.example", s=b"a1._domainkey.attacker.example"),
        "permerror",
    ),
    row(
        "selector-with-a-hash-sign-is-no-selector",
        sign(PLAIN, ATTACKER_KEY, d=b"bank.example", s=b"a1._domainkey.attacker.example#"),
        "permerror",
    ),
    row("d-twice-is-no-tag-list", sign(PLAIN, ATTACKER_KEY, tags=b" d=bank.example;"), "permerror"),
    row("tag-names-in-upper-case-are-other-tags", replaced(sign(PLAIN, BANK_KEY), b" d=bank", b" D=bank"), "permerror"),
    row("unknown-version-is-no-pass", replaced(sign(PLAIN, BANK_KEY), b"v=1", b"v=2"), "permerror"),
    row("signature-without-a-version-is-no-pass", replaced(sign(PLAIN, BANK_KEY), b"v=1; ", b""), "permerror"),
    row(
        "unknown-canonicalization-is-no-pass",
        replaced(sign(PLAIN, BANK_KEY), b"relaxed/relaxed", b"nowsp/nowsp"),
        "permerror",
    ),
    row("query-method-that-nobody-knows-is-no-pass", sign(PLAIN, BANK_KEY, tags=b" q=http/txt;"), "permerror"),
    row("empty-signature-is-no-pass", JUNK % (b"bank.example", NO_HASH) + PLAIN, "fail"),
    row(
        "silent-signing-domain-of-the-attacker-makes-no-temperror",
        sign(PLAIN, SILENT_KEY),
        "temperror",
    ),
    row("silent-policy-of-the-attackers-domain-makes-no-temperror", sign(PLAIN, SILENT_DMARC_KEY), "pass"),
)

WHICH_KEY = (
    row("rsa-sha1-proves-nothing", sign(PLAIN, BANK_KEY, algorithm=b"rsa-sha1"), "permerror"),
    row("expired-signature-is-no-pass", sign(PLAIN, BANK_KEY, tags=b" t=1000000000; x=1000000001;"), "permerror"),
    row("signature-from-the-future-is-no-pass", sign(PLAIN, BANK_KEY, tags=b" t=99999999999;"), "permerror"),
    row(
        "signature-that-expires-before-it-was-made-is-no-pass",
        sign(PLAIN, BANK_KEY, tags=b" t=1000000000; x=999999999;"),
        "permerror",
    ),
    row("key-in-test-mode-is-unsigned-mail", sign(PLAIN, TESTING_KEY), "none"),
    row("key-of-512-bits-is-no-pass", sign(PLAIN, SHORT_KEY), "policy"),
    row("key-with-exponent-one-that-anybody-has-is-no-pass", sign(PLAIN, EXPONENT_ONE_KEY), "permerror"),
    row("key-with-an-even-exponent-is-no-pass", sign(PLAIN, EVEN_EXPONENT_KEY), "permerror"),
    row("key-of-16384-bits-costs-no-arithmetic", sign(PLAIN, HUGE_KEY), "permerror"),
    row("revoked-key-is-no-pass", sign(PLAIN, REVOKED_KEY), "permerror"),
    row("strict-key-signs-for-no-subdomain", sign(PLAIN, STRICT_KEY, tags=b" i=@news.bank.example;"), "permerror"),
    row("key-for-sha1-alone-verifies-no-sha256", sign(PLAIN, SHA1_ONLY_KEY), "permerror"),
    row("key-for-another-service-verifies-no-mail", sign(PLAIN, TLSRPT_KEY), "permerror"),
    row("key-of-another-version-is-no-key", sign(PLAIN, OTHER_VERSION_KEY), "permerror"),
    row("key-of-another-type-is-no-key", sign(PLAIN, OTHER_TYPE_KEY), "permerror"),
    row("selector-that-does-not-exist-is-a-failure-and-no-temperror", sign(PLAIN, NO_KEY), "permerror"),
    row(
        "key-of-the-attacker-under-the-victims-selector-is-no-pass",
        sign(PLAIN, Signer(b"bank.example", b"s1", ATTACKER_KEY.key)),
        "fail",
    ),
)

JUNK_FIRST = b"".join(JUNK % (b"j%d.example" % n, NO_HASH) for n in range(40))
MANY = (
    Attack(
        "good-signature-behind-forty-bad-ones-is-found",
        JUNK_FIRST + SIGNED,
        "pass",
        Fate.ACCEPTED,
        origin=BY_FORWARDER,
    ),
    Attack("a-thousand-signatures-prove-nothing", JUNK % (b"bank.example", NO_HASH) * 1000 + PLAIN),
    Attack(
        "fifty-valid-signatures-of-the-attacker-prove-nothing",
        sign(PLAIN, ATTACKER_KEY).partition(b"To:")[0].partition(b"From:")[0] * 50 + PLAIN,
    ),
)

ROWS = (*WHAT_IS_SIGNED, *WHOSE_IT_IS, *WHICH_KEY, *MANY)
