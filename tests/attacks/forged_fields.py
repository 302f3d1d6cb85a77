"""Fields that only we may write, written by a stranger: Authentication-Results in every spelling, and our quarantine mark.

The message is the bank's, so that it is delivered and somebody could read what was forged. Published as CVE-2022-48521.
"""

from __future__ import annotations

from tests.attacks.controls import SIGNED
from tests.attacks.messages import message, with_field
from tests.attacks.row import BY_BANK, Attack, Fate

LIE = b"dmarc=pass (forged) header.from=bank.example"
OURS = b"Authentication-Results: mx.receiver.example; " + LIE
FOREIGN = b"Authentication-Results: mx.other.example; dkim=pass (foreign) header.d=bank.example"


def row(identity: str, *fields: bytes) -> Attack:
    """The bank's message, with fields somebody put on top."""
    octets = SIGNED
    for field in reversed(fields):
        octets = with_field(octets, field)
    return Attack(identity, octets, "pass", Fate.ACCEPTED, origin=BY_BANK, dkim=("pass",))


def spelled(identity: str, value: bytes) -> Attack:
    """A forged field between two foreign ones."""
    return row(identity, FOREIGN, b"Authentication-Results:" + value, FOREIGN)


ROWS = (
    row("control-foreign-results-stay", FOREIGN),
    row("forged-results-are-removed", OURS),
    row("five-forged-results-are-all-removed", OURS, OURS, FOREIGN, OURS, FOREIGN, OURS, OURS),  # CVE-2022-48521
    row("sixty-four-forged-results-are-all-removed", *[OURS] * 64),
    row("foreign-results-hide-no-forged-one-behind-them", *[FOREIGN] * 60, OURS),
    row(
        "forged-results-under-a-name-in-other-case-are-removed", b"AUTHENTICATION-results: mx.receiver.example; " + LIE
    ),
    row(
        "forged-results-with-a-space-before-the-colon-are-removed",
        FOREIGN,
        b"Authentication-Results : mx.receiver.example; " + LIE,
        FOREIGN,
    ),
    row("forged-results-below-the-message's-own-fields-are-removed", b"Received: from a by b", OURS),
    spelled("our-id-in-upper-case-is-ours", b" MX.Receiver.EXAMPLE; " + LIE),
    spelled("our-id-in-quotes-is-ours", b' "mx.receiver.example"; ' + LIE),
    spelled("our-id-in-quotes-with-escapes-is-ours", rb' "mx\.receiver.\example"; ' + LIE),
    spelled("our-id-behind-a-comment-is-ours", b" (mx.other.example;) mx.receiver.example; " + LIE),
    spelled("our-id-behind-nested-comments-is-ours", b" (a(b;)c;)(d) mx.receiver.example; " + LIE),
    spelled("our-id-with-a-version-is-ours", b" mx.receiver.example 1; " + LIE),
    spelled("our-id-with-another-version-is-ours", b" mx.receiver.example 2; " + LIE),
    spelled("our-id-on-the-next-line-is-ours", b"\r\n mx.receiver.example;\r\n " + LIE),
    spelled("our-id-without-a-space-is-ours", b"mx.receiver.example;" + LIE),
    spelled("our-id-behind-tabs-is-ours", b"\t\t mx.receiver.example\t; " + LIE),
    spelled("our-id-with-a-final-dot-is-ours", b" mx.receiver.example.; " + LIE),
    spelled("our-id-in-full-width-letters-is-ours", " ｍｘ.receiver.example; ".encode() + LIE),
    spelled("id-as-an-encoded-word-is-not-certain", b" =?utf-8?Q?mx.receiver.example?=; " + LIE),
    spelled("id-of-8-bit-octets-is-not-certain", b" mx.receiver.ex\xe4mple; " + LIE),
    spelled("results-without-an-id-are-removed", b" " + LIE),
    spelled("results-with-a-comment-for-an-id-are-removed", b" (mx.other.example); " + LIE),
    spelled("results-with-an-empty-id-are-removed", b" ; " + LIE),
    spelled("results-with-two-ids-are-removed", b" mx.other.example mx.receiver.example; " + LIE),
    spelled("id-that-does-not-end-in-a-semicolon-is-not-certain", b" mx.other.example " + LIE),
    spelled("quotes-that-do-not-end-are-not-certain", b' "mx.other.example; ' + LIE),
    spelled("comment-that-does-not-end-is-not-certain", b" (mx.other.example; " + LIE),
    spelled(
        "thousand-nested-comments-are-not-certain", b" " + b"(" * 1000 + b")" * 1000 + b" mx.receiver.example; " + LIE
    ),
    spelled("results-of-forty-thousand-octets-are-not-certain", b" mx.other.example; (" + b"x" * 40_000 + b") " + LIE),
    spelled("nul-in-the-id-is-not-certain", b" mx.receiver\0.example; " + LIE),
    spelled("bare-cr-in-the-field-is-not-certain", b" mx.other.example\rmx.receiver.example; " + LIE),
    row("forged-quarantine-mark-is-removed", b"X-Mailward-Quarantine: forged"),
    row("three-forged-quarantine-marks-are-all-removed", *[b"X-Mailward-Quarantine: forged"] * 3),
    row("forged-quarantine-mark-in-other-case-is-removed", b"x-MAILWARD-quarantine: forged"),
    row("forged-quarantine-mark-with-a-space-before-the-colon-is-removed", b"X-Mailward-Quarantine : forged"),
    Attack(
        "forged-results-on-a-forgery-change-nothing",
        with_field(message(b"From: ceo@bank.example", b"List-Id: <x.example>"), OURS),
        fate=Fate.QUARANTINED,
    ),
)
