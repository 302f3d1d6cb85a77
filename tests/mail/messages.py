"""Messages of every shape that real mail has: each a named builder of raw bytes with CRLF line ends."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.mail.domains import BUECHER, EXAMPLE_COM, HOSTED, TABLED, Domain

ALICE = "alice@example.com"
EIGHT_BIT = ("BODY=8BITMIME",)
INTERNATIONAL = ("SMTPUTF8", "BODY=8BITMIME")
MEGABYTE = 1024 * 1024

DATE = "Date: Sat, 21 Nov 2026 12:00:00 +0000"
MESSAGE_ID = "Message-ID: <shape@example.com>"


@dataclass(frozen=True, slots=True)
class Shape:
    """A message as a customer submits it, and the domain whose signatures it must come out with."""

    behaviour: str
    make: Callable[[], bytes]
    mail_from: str = ALICE
    options: Sequence[str] = ()
    domain: Domain = EXAMPLE_COM


def message(*fields: str, body: bytes = b"Hello.\r\n", author: str = "Alice <alice@example.com>") -> bytes:
    """Return an ordinary message with these fields after its usual ones."""
    usual = (f"From: {author}", "To: Bob <bob@receiver.example>", DATE, MESSAGE_ID)
    names = {field.partition(":")[0].lower() for field in fields}
    header = [field for field in usual if field.partition(":")[0].lower() not in names] + list(fields)
    return "".join(f"{field}\r\n" for field in header).encode("utf-8", "surrogateescape") + b"\r\n" + body


def multipart(attachment: bytes) -> bytes:
    """Return a MIME message with text, HTML and an attachment."""
    encoded = base64.encodebytes(attachment).replace(b"\n", b"\r\n")
    body = (
        b"This is a multi-part message in MIME format.\r\n"
        b"--outer\r\nContent-Type: multipart/alternative; boundary=inner\r\n\r\n"
        b"--inner\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nSee attachment.\r\n\r\n"
        b"--inner\r\nContent-Type: text/html\r\n\r\n<p>See attachment.</p>\r\n\r\n--inner--\r\n\r\n"
        b"--outer\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n"
        b'Content-Disposition: attachment; filename="a.bin"\r\n\r\n' + encoded + b"\r\n--outer--\r\n"
    )
    return message("MIME-Version: 1.0", 'Content-Type: multipart/mixed;\r\n\tboundary="outer"', body=body)


def noise(size: int) -> bytes:
    """Return the same pseudo-random octets every time."""
    return random.Random(size).randbytes(size)


def long_lines(size: int) -> bytes:
    """Return a body of that many octets, base64 in ordinary lines."""
    return base64.encodebytes(noise(size * 3 // 4)).replace(b"\n", b"\r\n")


def references(octets: int) -> str:
    """Return a References field of about that size, one id a line."""
    one = "\r\n <0123456789abcdef0123456789abcdef@news.example.com>"
    return "References:" + one * (octets // len(one))


EIGHT_BIT_BODY = "Grüße aus Köln, 日本, Привет.\r\n".encode() * 20
MIME_8BIT = ("MIME-Version: 1.0", "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 8bit")

BODIES = (
    Shape("plain-text", message),
    Shape("body-8-bit", lambda: message(*MIME_8BIT, body=EIGHT_BIT_BODY), options=EIGHT_BIT),
    Shape("body-8-bit-undeclared", lambda: message(body=EIGHT_BIT_BODY)),
    Shape("body-empty", lambda: message(body=b"")),
    Shape("body-of-blank-lines-only", lambda: message(body=b"\r\n" * 7)),
    Shape("body-of-white-space-only", lambda: message(body=b" \r\n\t \r\n  \r\n")),
    Shape("body-ends-in-blank-lines", lambda: message(body=b"Hello.\r\n\r\n\r\n\r\n")),
    Shape("body-with-trailing-white-space", lambda: message(body=b"Hello. \t \r\n  indented\t\ttabs  \r\n")),
    Shape("body-with-dots-at-line-starts", lambda: message(body=b".\r\n..\r\n.hidden\r\n...\r\n")),
    Shape("body-with-from-at-line-start", lambda: message(body=b"From here on.\r\n>From there.\r\n")),
    Shape("body-line-over-998-octets", lambda: message(body=b"x" * 5000 + b"\r\n" + b"word " * 4000 + b"\r\n")),
    Shape("body-line-of-20-kb-of-spaces", lambda: message(body=b"a" + b" " * 20000 + b"b\r\n")),
    Shape("body-with-bare-cr", lambda: message(body=b"one\rtwo\r\nthree\r\r\nfour\r \r\n")),
    Shape("body-with-bare-lf", lambda: message(body=b"one\ntwo\r\n\nthree\n")),
    Shape("body-with-control-characters", lambda: message(body=bytes(range(1, 10)) + b"\x0b\x0c\x1b[31m\x7f\r\n")),
    Shape("attachment-of-1-mb", lambda: multipart(noise(MEGABYTE))),
    Shape("body-of-10-mb", lambda: message(body=long_lines(10 * MEGABYTE))),
)

HEADERS = (
    Shape("no-date-and-no-message-id", lambda: b"From: alice@example.com\r\nTo: b@receiver.example\r\n\r\nHello.\r\n"),
    Shape("no-to-and-no-subject", lambda: f"From: {ALICE}\r\n{DATE}\r\n{MESSAGE_ID}\r\n\r\nHello.\r\n".encode()),
    Shape("addresses-completed-by-postfix", lambda: message("To: bob, carol (here)", author="Alice <alice>")),
    Shape("author-rewritten-by-postfix", lambda: message(author="Alice <old.alice@example.com>")),
    Shape("bcc-removed-by-postfix", lambda: message("Bcc: secret@receiver.example", "Return-Path: <x@y.example>")),
    Shape(
        "list-unsubscribe-one-click",
        lambda: message(
            "List-Unsubscribe: <mailto:u@example.com?subject=leave>,\r\n <https://example.com/u/0123456789>",
            "List-Unsubscribe-Post: List-Unsubscribe=One-Click",
        ),
    ),
    Shape("thousands-of-fields", lambda: message(*(f"X-Field-{number}: value {number}" for number in range(3000)))),
    Shape("references-of-60-kb", lambda: message(references(60_000))),
    Shape("references-of-90-kb", lambda: message(references(90_000))),
    Shape("subject-folded-over-many-lines", lambda: message("Subject: a" + "\r\n very long\r\n\t subject " * 60)),
    Shape("subject-of-3-kb-unfolded", lambda: message("Subject: " + "all on one line " * 200)),
    Shape("subject-without-any-space", lambda: message("Subject:" + "x" * 2000)),
    Shape("subject-in-encoded-words", lambda: message("Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\n =?utf-8?B?w7w=?=")),
    Shape("subject-in-raw-utf-8", lambda: message("Subject: Grüße aus Köln")),
    Shape("subject-in-raw-latin-1", lambda: message("Subject: Gr\udcfc\udcdfe")),
    Shape("subject-empty", lambda: message("Subject:", "Comments: ", "Keywords:  \t")),
    Shape("subject-twice", lambda: message("Subject: one", "X-Between: x", "Subject: two")),
    Shape("field-names-in-odd-case", lambda: message("sUBJECT: x", "mime-VERSION: 1.0", "X-ODD-case: y")),
)

AUTHORS = (
    Shape(
        "author-in-quotes-with-commas",
        lambda: message(author='"Doe, Alice, \\"the\\" <x@evil.example>" <alice@example.com>'),
    ),
    Shape("author-with-comments", lambda: message(author="(a) Alice (b, c <d@e.example>) <alice@example.com> (f)")),
    Shape("author-without-brackets", lambda: message(author="alice@example.com (Alice)")),
    Shape("author-folded", lambda: message(author='"Alice"\r\n\t<alice@example.com>')),
    Shape("author-domain-in-upper-case", lambda: message(author="Alice <alice@EXAMPLE.Com>")),
    Shape(
        "two-authors-of-one-domain", lambda: message("Sender: alice@example.com", author="a@example.com, b@example.com")
    ),
    Shape("author-in-a-subdomain", lambda: message(author="shop@news.shop.example.com")),
    Shape("author-in-another-domain-than-the-envelope", message, mail_from="bounces+7@lists.example.net"),
    Shape("empty-envelope-sender", message, mail_from=""),
    Shape(
        "author-international-local-part",
        lambda: message("Subject: Grüße", author="Jörg <jörg@example.com>"),
        mail_from="jörg@example.com",
        options=INTERNATIONAL,
    ),
    Shape(
        "author-international-domain",
        lambda: message(author="Bücher <info@bücher.example>"),
        mail_from="info@bücher.example",
        options=INTERNATIONAL,
        domain=BUECHER,
    ),
    Shape("author-a-label-domain", lambda: message(author="info@xn--bcher-kva.example"), domain=BUECHER),
    Shape("signed-for-customer-and-provider", lambda: message(author="x@hosted.example"), domain=HOSTED),
    Shape("key-from-the-signing-table", lambda: message(author="x@tabled.example"), domain=TABLED),
)

SHAPES = BODIES + HEADERS + AUTHORS
