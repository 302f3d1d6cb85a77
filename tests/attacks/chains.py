"""ARC chains and mailing lists: what lets a failing message through, and all that only looks like it.

The operator trusts what world.py says: seals of forwarder.example, the list of list.example, clients whose names are below
friend.example. Whatever else speaks for a forwarder only turns
a refusal into quarantine: RFC 9989 7.4.
"""

from __future__ import annotations

from dataclasses import replace

from tests.attacks.controls import PLAIN, SIGNED
from tests.attacks.keys import make_rsa
from tests.attacks.messages import Seal, message, replaced, seal, sign, with_field
from tests.attacks.row import BY_ATTACKER, BY_FORWARDER, BY_LIST, FRIEND, Attack, Fate, Origin
from tests.attacks.zones import ATTACKER_KEY, FORWARDER_KEY, LIST_KEY, NOT_LIST_KEY

ACCEPTED, QUARANTINED, REFUSED = Fate.ACCEPTED, Fate.QUARANTINED, Fate.REFUSED
SAW_A_PASS = b"forwarder.example; dkim=pass header.d=bank.example; dmarc=pass header.from=bank.example"
SAW_A_FAILURE = b"forwarder.example; dkim=none; dmarc=fail header.from=bank.example"
TRUSTED = Seal(FORWARDER_KEY, SAW_A_PASS)
EVIL = Seal(ATTACKER_KEY, SAW_A_PASS)
FOOTER = replaced(SIGNED, b"at once.\r\n", b"at once.\r\n-- \r\nThe list's footer\r\n")
SEALED = seal(FOOTER, TRUSTED)
LIST_ID = b"List-Id: <news.list.example>"


def chained(identity: str, octets: bytes, arc: str, fate: Fate = QUARANTINED, origin: Origin = BY_ATTACKER) -> Attack:
    """A forgery with a chain, from the attacker's server."""
    return Attack(identity, octets, fate=fate, arc=arc, origin=origin)


def fifty_one() -> bytes:
    """Return a message with one set more than RFC 8617 allows, all of them valid."""
    octets = PLAIN
    for _ in range(51):
        octets = seal(octets, TRUSTED)
    return octets


def listed(identity: str, octets: bytes, fate: Fate, dkim: tuple[str, ...] | None = None) -> Attack:
    """A message from the list's server."""
    return Attack(identity, octets, fate=fate, origin=BY_LIST, spf="pass", dkim=dkim)


SET = b"ARC-Seal: %s\r\nARC-Message-Signature: %s\r\nARC-Authentication-Results: %s\r\n"
CHAINS = (
    chained("control-trusted-sealer-that-saw-a-pass-lets-through", SEALED, "pass", ACCEPTED, origin=BY_FORWARDER),
    chained("untrusted-sealer-lets-nothing-through", seal(PLAIN, EVIL), "pass"),
    chained("untrusted-seal-on-top-of-a-trusted-one-lets-nothing-through", seal(SEALED, EVIL), "pass"),
    chained(
        "trusted-sealer-that-saw-a-failure-lets-nothing-through",
        seal(PLAIN, replace(TRUSTED, results=SAW_A_FAILURE)),
        "pass",
    ),
    chained(
        "trusted-sealer-that-saw-another-author-pass-lets-nothing-through",
        seal(PLAIN, replace(TRUSTED, results=b"forwarder.example; dmarc=pass header.from=attacker.example")),
        "pass",
    ),
    chained(
        "pass-in-a-comment-of-a-trusted-sealer-is-no-pass",
        seal(PLAIN, replace(TRUSTED, results=b"forwarder.example; spf=none (x; dmarc=pass header.from=bank.example)")),
        "pass",
    ),
    chained(
        "pass-in-quotes-of-a-trusted-sealer-is-no-pass",
        seal(
            PLAIN,
            replace(TRUSTED, results=b'forwarder.example; spf=none reason="; dmarc=pass header.from=bank.example"'),
        ),
        "pass",
    ),
    chained(
        "pass-of-two-contradicting-results-is-no-pass",
        seal(PLAIN, replace(TRUSTED, results=SAW_A_PASS + b"; dmarc=fail header.from=bank.example")),
        "pass",
    ),
    chained(
        "seal-in-a-trusted-name-with-another-key-fails", seal(PLAIN, replace(TRUSTED, key=ATTACKER_KEY.key)), "fail"
    ),
    chained("seal-under-a-selector-that-does-not-exist-fails", replaced(SEALED, b"s=f1", b"s=f2"), "fail"),
    chained(
        "sealed-results-that-were-changed-fail",
        replaced(seal(PLAIN, replace(TRUSTED, results=SAW_A_FAILURE)), b"dmarc=fail", b"dmarc=pass"),
        "fail",
    ),
    chained("body-changed-after-the-seal-fails", SEALED + b"Pay here.\r\n", "fail"),
    chained(
        "author-changed-after-the-seal-fails",
        replaced(seal(message(b"From: x@attacker.example"), TRUSTED), b"x@attacker", b"ceo@bank"),
        "fail",
    ),
    chained(
        "second-from-on-top-of-a-sealed-message-fails",
        with_field(seal(message(b"From: x@attacker.example"), TRUSTED), b"From: ceo@bank.example"),
        "fail",
    ),
    chained("second-subject-on-top-of-a-sealed-message-fails", with_field(SEALED, b"Subject: Pay now"), "fail"),
    chained(
        "seal-that-covers-no-author-fails",
        replaced(
            seal(message(b"From: x@attacker.example"), replace(TRUSTED, names=b"to:subject")),
            b"x@attacker",
            b"ceo@bank",
        ),
        "fail",
    ),
    chained("chain-with-a-hole-fails", seal(seal(PLAIN, TRUSTED), TRUSTED, 3), "fail"),
    chained("chain-that-starts-at-two-fails", seal(PLAIN, replace(TRUSTED, cv=b"pass"), 2), "fail"),
    chained("two-sets-of-one-instance-fail", seal(seal(PLAIN, TRUSTED), TRUSTED, 1), "fail"),
    chained("first-seal-that-says-pass-fails", seal(PLAIN, replace(TRUSTED, cv=b"pass")), "fail"),
    chained("later-seal-that-says-none-fails", seal(SEALED, replace(TRUSTED, cv=b"none")), "fail"),
    chained("newest-seal-that-says-fail-fails", seal(SEALED, replace(TRUSTED, cv=b"fail")), "fail"),
    chained("seal-with-an-h-tag-fails", seal(PLAIN, replace(TRUSTED, tags=b" h=from:to;")), "fail"),
    chained(
        "trusted-seal-over-a-forged-older-one-fails", seal(seal(PLAIN, replace(EVIL, key=make_rsa())), TRUSTED), "fail"
    ),
    chained("fifty-one-sets-fail", fifty_one(), "fail"),
    chained(
        "seal-without-the-rest-of-its-set-fails",
        b"ARC-Seal: i=1; cv=none; a=rsa-sha256; d=forwarder.example; s=f1; b=AAAA\r\n" + PLAIN,
        "fail",
    ),
    chained(
        "results-without-a-seal-fail-and-say-nothing-for-a-forwarder",
        b"ARC-Authentication-Results: i=1; " + SAW_A_PASS + b"\r\n" + PLAIN,
        "fail",
        REFUSED,
    ),
    chained("set-of-nothing-but-instances-fails", SET % (b"i=1;", b"i=1;", b"i=1;") + PLAIN, "fail"),
    chained(
        "set-with-spaces-around-its-instances-fails", SET % (b" i = 1 ;", b" i = 1 ;", b" i = 1 ;") + PLAIN, "fail"
    ),
    chained("set-of-empty-fields-fails", SET % (b"", b"", b"") + PLAIN, "fail"),
    chained("set-with-an-instance-of-a-thousand-digits-fails", SET % ((b"i=" + b"1" * 1000,) * 3) + PLAIN, "fail"),
    chained("set-of-8-bit-octets-fails", SET % ((b"i=1; \xff\xfe=\xe4",) * 3) + PLAIN, "fail"),
    Attack(
        "trusted-seal-does-not-cover-a-second-author",
        seal(message(b"From: ceo@bank.example, a@strict.example"), TRUSTED),
        fate=QUARANTINED,
        author="strict.example",
        arc="pass",
    ),
)

LISTS = (
    listed("list-id-alone-lets-nothing-through", with_field(FOOTER, LIST_ID), QUARANTINED, dkim=("fail",)),
    Attack("list-id-of-a-stranger-only-softens-a-refusal", with_field(PLAIN, LIST_ID), fate=QUARANTINED),
    listed(
        "control-signature-of-a-named-list-lets-through",
        sign(with_field(FOOTER, LIST_ID), LIST_KEY),
        ACCEPTED,
        dkim=("pass", "fail"),
    ),
    listed(
        "signature-of-a-list-that-nobody-named-lets-nothing-through", sign(PLAIN, NOT_LIST_KEY), REFUSED, dkim=("pass",)
    ),
    listed(
        "named-lists-signature-with-another-key-lets-nothing-through",
        sign(PLAIN, replace(LIST_KEY, key=ATTACKER_KEY.key)),
        REFUSED,
        dkim=("fail",),
    ),
    listed(
        "message-changed-after-the-list-signed-it-is-not-let-through",
        sign(PLAIN, LIST_KEY) + b"Pay here.\r\n",
        REFUSED,
        dkim=("fail",),
    ),
    listed("named-lists-mail-from-without-its-signature-lets-nothing-through", PLAIN, REFUSED),
)

BY_FRIEND = replace(BY_ATTACKER, client=FRIEND)
NAMES = (
    Attack("control-named-forwarder-lets-through", PLAIN, fate=ACCEPTED, origin=BY_FRIEND),
    Attack(
        "pointer-record-that-claims-a-named-forwarder-lets-nothing-through",
        PLAIN,
        origin=replace(BY_ATTACKER, client="203.0.113.67"),
    ),
    Attack(
        "name-that-ends-in-a-named-forwarders-letters-lets-nothing-through",
        PLAIN,
        origin=replace(BY_ATTACKER, client="203.0.113.68"),
    ),
    Attack(
        "helo-of-a-named-forwarder-lets-nothing-through",
        PLAIN,
        origin=replace(BY_ATTACKER, helo=b"out.friend.example"),
    ),
    Attack(
        "control-excepted-author-domain-is-delivered",
        message(b"From: a@accepted.example"),
        "fail",
        ACCEPTED,
        "accepted.example",
    ),
    Attack("excepted-author-domain-hides-no-other", message(b"From: a@accepted.example, ceo@bank.example")),
    Attack(
        "excepted-author-domain-in-mail-from-excepts-nothing",
        PLAIN,
        origin=replace(BY_ATTACKER, mail_from=b"a@accepted.example"),
    ),
)

ROWS = (*CHAINS, *LISTS, *NAMES)
