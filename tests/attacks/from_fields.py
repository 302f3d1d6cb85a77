"""Who is the author? Several From fields, and fields that two readers read differently.

All but the first group come from the attacker's own server, pass SPF for his domain and carry his valid signature: what is at
stake is only whose message it is. A field that cannot be read for certain never passes, whatever passes for its parts.

Published as CVE-2019-16378 and CVE-2021-34555, as the ambiguous From fields of "Composition Kills" (Chen, Paxson and Jiang,
USENIX Security 2020: its A8 to A19) and as A4 to A7, A12 and A14 of "Weak Links in Authentication Chains" (Shen et al., 2021).
"""

from __future__ import annotations

import base64
from dataclasses import replace

from tests.attacks.messages import message, sign, without_field
from tests.attacks.row import BY_ATTACKER, Attack, Fate, InPostfix
from tests.attacks.zones import ATTACKER_KEY, HOMOGRAPH_KEY

QUARANTINED, ACCEPTED = Fate.QUARANTINED, Fate.ACCEPTED
EVE, CEO = b"x@attacker.example", b"ceo@bank.example"
ENCODED = b"=?utf-8?B?" + base64.b64encode(b"<ceo@bank.example>") + b"?="
TWELVE = b", ".join(b"x@d%d.attacker.example" % n for n in range(12))


def by_eve(*fields: bytes, names: bytes = b"from:to:subject:date") -> bytes:
    """Return the attacker's message with these fields, signed by him."""
    return sign(message(*fields), ATTACKER_KEY, names=names)


def victims(identity: str, value: bytes) -> Attack:
    """A From field whose author is the bank, for whoever reads it by the grammar."""
    return Attack(identity, by_eve(b"From: " + value))


def unreadable(identity: str, *fields: bytes, postfix: InPostfix | None = None) -> Attack:
    """A header without an author that everybody would agree on."""
    return Attack(identity, by_eve(*fields), "permerror", QUARANTINED, author="", postfix=postfix)


def suspected(identity: str, value: bytes) -> Attack:
    """A From field nobody can read for certain, in which the bank stands: it is judged as if the bank were the author."""
    return Attack(identity, by_eve(b"From: " + value))


def eves(identity: str, *fields: bytes) -> Attack:
    """A message that is the attacker's own, whatever it looks like, and says so."""
    return Attack(identity, by_eve(*fields), "pass", ACCEPTED, author="attacker.example")


SEVERAL = (
    Attack("second-from-field-on-top-is-judged-too", by_eve(b"From: " + CEO, b"From: " + EVE), dkim=("policy",)),
    Attack("second-from-field-below-is-judged-too", by_eve(b"From: " + EVE, b"From: " + CEO)),
    Attack("second-from-field-with-a-space-before-the-colon-is-judged-too", by_eve(b"From: " + EVE, b"From : " + CEO)),
    Attack("second-from-field-in-other-case-is-judged-too", by_eve(b"From: " + EVE, b"fROM: " + CEO)),
    Attack("nine-from-fields-hide-none", by_eve(*[b"From: " + EVE] * 9, b"From: " + CEO)),
    Attack(
        "second-from-field-that-cannot-be-read-is-no-pass-of-the-first",
        by_eve(b"From: " + EVE, b"From: " + ENCODED),
        "permerror",
        QUARANTINED,
        author="",
    ),
    Attack("two-authors-in-one-field-are-both-judged", by_eve(b"From: <" + EVE + b">, <" + CEO + b">")),
    Attack("two-authors-in-the-other-order-are-both-judged", by_eve(b"From: <" + CEO + b">, <" + EVE + b">")),
    Attack("bare-address-before-another-is-an-author", by_eve(b"From: " + CEO + b",<" + EVE + b">")),
    Attack(
        "victim-behind-more-passing-authors-than-are-tried-is-no-pass",
        by_eve(b"From: " + TWELVE + b", " + CEO),
        "permerror",
        QUARANTINED,
        author="d0.attacker.example",
    ),
    Attack(
        "victim-behind-eight-passing-authors-is-judged",
        by_eve(b"From: " + TWELVE[: TWELVE.index(b"x@d8") - 2] + b"," + CEO),
    ),
    victims("author-in-a-group-is-an-author", b"Friends: " + EVE + b", " + CEO + b";"),
)

NO_AUTHOR = (
    Attack(
        "missing-from-field-is-quarantined",
        without_field(by_eve(b"From: " + EVE), b"From"),
        "permerror",
        QUARANTINED,
        "",
    ),
    unreadable("sender-does-not-stand-in-for-from", b"From:", b"Sender: " + EVE),
    unreadable("resent-from-does-not-stand-in-for-from", b"From:", b"Resent-From: " + EVE),
    unreadable("empty-group-names-no-author", b"From: undisclosed:;"),
    unreadable("name-without-an-address-names-no-author", b"From: The CEO"),
    Attack(
        "from-folded-before-its-colon-ends-the-header",
        message(b"Subject: x", b"From", b" : " + EVE, b"From: " + CEO).replace(b"From:\r\n", b"From\r\n"),
        "permerror",
        QUARANTINED,
        "",
    ),
    Attack(
        "from-with-a-space-before-its-name-is-no-field",
        b" From: " + EVE + b"\r\n" + message(b"From: " + CEO),
        "permerror",
        QUARANTINED,
        "",
    ),
)

READ_RIGHT = (
    Attack("from-field-with-a-space-before-the-colon-is-a-from-field", by_eve(b"From : " + CEO)),
    victims("route-before-the-address-is-not-the-author", b"<@attacker.example,@any.example:ceo@bank.example>"),
    victims("comment-with-an-address-is-not-the-author", b"ceo@bank.example (x@attacker.example)"),
    victims("comment-inside-the-address-is-not-the-domain", b"ceo(@attacker.example)@bank.example"),
    victims("nested-comments-are-skipped", b"(a(b(c<x@attacker.example>)))ceo@bank.example"),
    victims("escaped-parenthesis-does-not-end-a-comment", rb"(\) <x@attacker.example>) <ceo@bank.example>"),
    victims("quoted-bracket-does-not-open-an-address", b'"<x@attacker.example>" <ceo@bank.example>'),
    victims("escaped-quote-does-not-end-a-name", rb'"\" <x@attacker.example>" <ceo@bank.example>'),
    victims("upper-case-is-the-same-domain", b"CEO@BANK.EXAMPLE"),
    victims("white-space-inside-the-domain-is-read-as-the-grammar-says", b"ceo@bank .\r\n example"),
    victims("8-bit-octets-in-the-name-hide-no-author", b"B\xe4nk <ceo@bank.example>"),
    victims("full-width-letters-are-the-domain-they-stand-for", "ceo@ｂａｎｋ.example".encode()),
    victims("full-width-dot-is-a-dot", "ceo@bank。example".encode()),
    Attack(
        "u-label-has-the-policy-of-its-a-label",
        by_eve("From: c@bücher.example".encode()),
        author="xn--bcher-kva.example",
    ),
    Attack(
        "a-label-in-upper-case-has-its-policy", by_eve(b"From: c@XN--BCHER-KVA.example"), author="xn--bcher-kva.example"
    ),
    Attack(
        "homograph-is-named-by-its-a-label",
        sign(message("From: ceo@b\u0430nk.example".encode()), HOMOGRAPH_KEY),
        "none",
        ACCEPTED,
        author="xn--bnk-6cd.example",
        origin=replace(BY_ATTACKER, mail_from=b"x@xn--bnk-6cd.example"),
    ),
)
LOOKS_LIKE_THE_VICTIM = (
    eves("quoted-name-that-is-an-address-is-only-a-name", b'From: "ceo@bank.example" <x@attacker.example>'),
    eves("encoded-name-that-is-an-address-is-only-a-name", b"From: " + ENCODED + b" <x@attacker.example>"),
    eves("encoded-address-with-the-attackers-behind-it-is-only-a-name", b"From: " + ENCODED + b"<x@attacker.example>,"),
    eves("local-part-that-is-an-address-is-only-a-local-part", b'From: "ceo@bank.example"@attacker.example'),
    eves("victim-in-a-comment-is-not-the-author", b"From: (ceo@bank.example) x@attacker.example"),
    eves("sender-of-the-victim-is-not-the-author", b"From: " + EVE, b"Sender: " + CEO),
    eves("resent-from-of-the-victim-is-not-the-author", b"From: " + EVE, b"Resent-From: " + CEO),
    eves("folded-continuation-that-looks-like-from-is-none", b"From: " + EVE, b"X: y\r\n From: " + CEO),
)

SUSPECTED = (
    suspected("unquoted-name-that-is-another-address-is-suspected", b"ceo@bank.example <x@attacker.example>"),
    suspected("text-behind-the-address-is-suspected", b"<x@attacker.example>ceo@bank.example"),
    suspected("escaped-comma-between-two-addresses-is-suspected", rb"<ceo@bank.example>\,<x@attacker.example>"),
    suspected("closing-bracket-alone-is-suspected", b"ceo@bank.example>"),
    suspected("opening-bracket-alone-is-suspected", b"x <ceo@bank.example"),
    suspected("two-at-signs-are-suspected", b"ceo@bank.example@attacker.example"),
    suspected("two-at-signs-the-other-way-are-suspected", b"x@attacker.example@bank.example"),
    suspected("comments-nested-beyond-all-reason-are-suspected", b"(" * 500 + b")" * 500 + CEO),
    Attack(
        "bare-cr-in-the-field-hides-no-author",
        by_eve(b"From: <x@attacker.example>\rFrom: <ceo@bank.example>"),
    ),
    suspected("two-addresses-without-a-comma-are-suspected", b"<x@attacker.example> <ceo@bank.example>"),
)

UNREADABLE = (
    unreadable("a-hundred-from-fields-hide-none", *[b"From: " + EVE] * 99, b"From: " + CEO),
    unreadable("trailing-dot-leaves-no-author", b"From: ceo@bank.example."),
    unreadable("comment-that-does-not-end-leaves-no-author", b"From: ceo@bank.example (x@attacker.example"),
    unreadable("white-space-in-a-malformed-domain-leaves-no-author", b"From: CEO, Inc <ceo@bank .example>"),
    unreadable("white-space-behind-a-dot-leaves-no-author", b"From: CEO, Inc <ceo@bank. example>"),
    unreadable("comment-in-a-malformed-domain-leaves-no-author", b"From: CEO, Inc <ceo@bank.(x)example>"),
    unreadable("backslash-in-a-malformed-domain-leaves-no-author", b"From: CEO, Inc <ceo@bank\\.example>"),
    unreadable("unseen-character-in-the-domain-is-no-domain", "From: ceo@ban\ufe0fk.example".encode()),
    unreadable("joiner-between-latin-letters-is-no-domain", "From: ceo@ban\u200dk.example".encode()),
    unreadable("a-single-label-is-nobodys-domain", b"From: ceo@bank"),
    unreadable("numbers-with-dots-are-nobodys-domain", b"From: ceo@192.0.2.10"),
    unreadable("a-pass-beside-a-single-label-is-no-pass", b"From: x@attacker.example, ceo@bank"),
    unreadable(
        "encoded-word-as-an-address-is-no-pass-of-its-neighbour", b"From: " + ENCODED + b",<x@attacker.example>"
    ),
    unreadable(
        "encoded-address-as-a-local-part-is-no-pass",
        b"From: =?utf-8?q?ceo=40bank.example?==?utf-8?q?=00?=@attacker.example",
    ),
    unreadable("encoded-word-as-a-domain-is-no-domain", b"From: ceo@=?utf-8?Q?bank.example?="),
    unreadable(
        "encoded-address-in-quoted-printable-is-no-pass", b"From: =?utf-8?q?ceo=40bank.example?=,<x@attacker.example>"
    ),
    unreadable("encoded-address-in-utf-7-is-no-pass", b"From: =?utf-7?q?ceo+AEA-bank.example?=,<x@attacker.example>"),
    eves(
        "encoded-name-without-an-address-in-a-malformed-field-hides-nobody",
        b"From: =?utf-8?q?Doe?=, Inc. <x@attacker.example>",
    ),
    unreadable("ip-literal-is-nobodys-domain", b"From: ceo@[192.0.2.10]"),
    unreadable("8-bit-octets-in-the-domain-are-no-domain", b"From: ceo@b\xe4nk.example"),
    unreadable("invisible-characters-in-the-domain-are-no-domain", "From: ceo@ba\u200bnk.example".encode()),
    unreadable("right-to-left-override-in-the-domain-is-no-domain", "From: x@\u202eelpmaxe.knab".encode()),
    unreadable("quotes-in-the-domain-are-no-domain", b'From: ceo@"bank.example"'),
    unreadable(
        "nul-in-the-address-is-no-domain",
        b"From: ceo@bank.example\0.attacker.example",
        postfix=InPostfix("changes", "pass", ACCEPTED, "bank.example.attacker.example"),
    ),
    unreadable(
        "nul-hides-no-second-author",
        b"From: x@attacker.example\0, ceo@bank.example",
        postfix=InPostfix("changes", "fail", Fate.REFUSED, "bank.example"),
    ),
    unreadable("from-field-of-twenty-thousand-octets-is-not-read", b"From: " + EVE + b" (" + b"x" * 20_000 + b")"),
)

ROWS = (*SEVERAL, *NO_AUTHOR, *READ_RIGHT, *LOOKS_LIKE_THE_VICTIM, *SUSPECTED, *UNREADABLE)
