"""SPF passes for the wrong name: HELO, odd MAIL FROM addresses, domains that do not exist, records that never end.

Published as CVE-2019-20790 and CVE-2020-12272, and as A1, A2 and A5 to A7 of "Composition Kills" (Chen, Paxson and Jiang, 2020).
"""

from __future__ import annotations

from dataclasses import replace

from tests.attacks.controls import PLAIN
from tests.attacks.messages import message
from tests.attacks.row import BY_ATTACKER, BY_BANK, Attack, Fate, InPostfix

REFUSES = InPostfix("refuses")


def row(identity: str, mail_from: bytes, spf: str | None = None, postfix: InPostfix | None = None) -> Attack:
    """A forgery whose envelope is the attack."""
    return Attack(identity, PLAIN, origin=replace(BY_ATTACKER, mail_from=mail_from), spf=spf, postfix=postfix)


def helo(identity: str, name: bytes) -> Attack:
    """A forgery whose HELO is the attack: of the null sender, for whom HELO counts."""
    return Attack(identity, PLAIN, origin=replace(BY_ATTACKER, helo=name, mail_from=b""))


ROWS = (
    row("helo-pass-does-not-stand-in-for-mail-from", b"any@notexist.bank.example", "none"),  # CVE-2019-20790
    row("mail-from-of-a-domain-without-spf-is-no-pass", b"any@mail2.bank.example", "none"),
    helo("null-sender-with-the-attackers-helo-is-not-aligned", b"mail.attacker.example"),
    helo("null-sender-with-the-victims-helo-fails", b"mail.bank.example"),
    helo("null-sender-with-a-non-existent-helo-is-no-pass", b"notexist.bank.example"),
    helo("helo-with-a-parenthesis-is-no-domain", b"bank.example(.attacker.example"),
    helo("helo-with-a-quote-is-no-domain", b"bank.example'a.attacker.example"),
    helo("helo-that-writes-results-writes-none", b"x;dmarc=pass(header.from=bank.example"),
    helo("helo-with-an-encoded-word-is-no-domain", b"=?utf-8?Q?mail.bank.example?="),
    helo("helo-with-8-bit-octets-is-no-domain", b"b\xe4nk.example"),
    helo("helo-that-is-an-address-literal-is-no-domain", b"[192.0.2.10]"),
    row("open-spf-record-of-the-attacker-is-not-aligned", b"x@open.attacker.example", "pass"),
    row("parenthesis-before-the-local-part-changes-no-domain", b"(any@bank.example"),
    row(
        "parenthesis-in-mail-from-does-not-cut-the-domain",
        b"any@bank.example(.attacker.example",
        postfix=InPostfix("changes"),  # the milter sees it as it was sent; Return-Path has another address
    ),
    row("quote-in-mail-from-does-not-cut-the-domain", b"any@bank.example'a.attacker.example", postfix=REFUSES),
    row("second-at-sign-in-mail-from-does-not-name-the-victim", b"any@bank.example'@any.attacker.example"),
    row("route-in-mail-from-does-not-name-the-victim", b"@bank.example,@any.example:'any@attacker.example"),
    row("nul-in-mail-from-does-not-cut-the-domain", b"any@bank.example\0.attacker.example", postfix=REFUSES),
    row("encoded-word-in-mail-from-is-no-domain", b"any@=?utf-8?Q?bank.example?=", postfix=REFUSES),
    row("address-literal-in-mail-from-is-no-domain", b"any@[192.0.2.10]"),
    row("mail-from-of-one-label-is-no-domain", b"any@bank"),
    row("mail-from-without-a-domain-is-not-completed", b"bank.example"),
    row("local-part-that-writes-results-writes-none", b'"x; dmarc=pass header.from=bank.example"@attacker.example'),
    row("local-part-with-macro-letters-is-only-text", b"%{d}%{i}@macro.attacker.example"),
    row("endless-spf-record-is-permerror", b"x@endless.attacker.example", "permerror"),
    row("spf-record-of-fourteen-includes-is-permerror", b"x@bomb0.attacker.example", "permerror"),
    row("silent-mail-from-domain-of-the-attacker-makes-no-temperror", b"x@silent.example", "temperror"),
    row("a-domain-that-ends-in-the-victims-letters-is-another", b"x@notbank.example"),
    Attack(
        "mail-from-of-the-parent-of-a-strict-domain-is-not-aligned",
        message(b"From: a@strict.example"),
        author="strict.example",
        origin=replace(BY_BANK, mail_from=b"a@news.strict.example"),
        spf="pass",
    ),
    Attack(
        "mail-from-that-may-send-for-the-author-proves-the-author-only",
        message(b"From: a@monitor.example", b"Sender: ceo@bank.example"),
        "fail",
        Fate.ACCEPTED,
        author="monitor.example",
        origin=BY_BANK,
        spf="pass",
    ),
)
