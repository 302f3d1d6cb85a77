"""Messages for the tests of judging: a signed one, what becomes of it on the way, and the DNS that knows its domain."""

from __future__ import annotations

from collections.abc import Sequence

from mailward.auth.body_hash import BodyHash
from mailward.auth.dkim_sign import SignedHeader, SigningKey, SigningRules
from mailward.auth.keys import generate_ed25519
from mailward.inbound.judge import Judge, Judgement
from mailward.model.message import Envelope, HeaderField, Transaction
from mailward.model.verdict import DeleteField, InsertField
from tests.support.zone import Zone

NOW = 1_790_000_000
KEY = generate_ed25519()
BODY = b"Hello,\r\n\r\nthis is the body.\r\n"
CLIENT, STRANGER = "192.0.2.9", "203.0.113.7"

ZONE = f"""
bank.example TXT v=spf1 ip4:192.0.2.0/24 -all
s1._domainkey.bank.example TXT {KEY.record}
_dmarc.bank.example TXT v=DMARC1; p=reject
mild.example TXT v=spf1 -all
_dmarc.mild.example TXT v=DMARC1; p=quarantine
mx.bank.example A 192.0.2.9
9.2.0.192.in-addr.arpa PTR mx.bank.example.
"""


def fields(*lines: str) -> list[HeaderField]:
    """Make header fields of lines `Name: value`."""
    return [HeaderField(name.encode(), value.encode()) for name, _, value in (line.partition(":") for line in lines)]


HEADER = fields("From: Alice <alice@bank.example>", "To: bob@our.example", "Subject: Hello")


def signed(header: Sequence[HeaderField] = HEADER, body: bytes = BODY) -> list[HeaderField]:
    """Return the header with a signature of bank.example on top."""
    digest = BodyHash(SigningRules().canonicalizations.body)
    digest.update(body)
    key = SigningKey("bank.example", "s1", KEY)
    return [SignedHeader(header, SigningRules()).sign(key, digest.digest(), NOW), *header]


def envelope(client: str = STRANGER, mail_from: bytes = b"alice@bank.example", login: str = "") -> Envelope:
    return Envelope(client, "unknown", "", b"mx.bank.example", mail_from, login=login)


def judge_message(
    judge: Judge,
    sent: Envelope,
    header: Sequence[HeaderField] = HEADER,
    body: bytes = BODY,
    zone: str = ZONE,
    now: float = NOW + 60,
) -> Judgement:
    """Run one message through; the body comes in two chunks."""
    incoming = judge.begin(Transaction("t", sent, list(header)), now)
    incoming.body(body[:5])
    incoming.body(body[5:])
    return incoming.judge(Zone(zone))


def inserted(judgement: Judgement, name: str) -> list[str]:
    """Return the values of the fields of that name that are added."""
    return [e.raw_value for e in judgement.verdict.edits if isinstance(e, InsertField) and e.name == name]


def deleted(judgement: Judgement, name: str) -> list[int]:
    """Return which occurrences of a field are deleted, in that order."""
    return [e.occurrence for e in judgement.verdict.edits if isinstance(e, DeleteField) and e.name == name]
