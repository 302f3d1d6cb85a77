"""Makes DKIM and ARC signatures of every kind, good and bad: also what no honest signer would write.

Nothing of the verifier is used here, so that a hole in it cannot hide itself.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence

from dkim.canonicalization import Relaxed, Simple

from mailward.auth.body_hash import Canonicalization
from mailward.auth.dkim import canonical_field
from mailward.auth.keys import PrivateKey, generate_ed25519, generate_rsa
from mailward.model.dns import Answer, AnswerStatus, Question, RecordType
from mailward.model.message import HeaderField, by_name, pick_bottom_up

NOW = 1_795_000_000
RSA = generate_rsa(1024)
RSA_2048 = generate_rsa(2048)
ED25519 = generate_ed25519()
RELAXED, SIMPLE = Canonicalization.RELAXED, Canonicalization.SIMPLE

MESSAGE = (
    b"Received: from a.example.net by mx.example.org; Sat, 21 Nov 2026 10:00:00 +0000\r\n"
    b"From: Joe <joe@example.com>\r\n"
    b"To: Suzie <suzie@example.org>\r\n"
    b"Subject:  Is dinner\r\n\tready? \r\n"
    b"Date: Sat, 21 Nov 2026 10:00:00 +0000\r\n"
    b"Message-ID: <1@example.com>\r\n"
    b"MIME-Version: 1.0\r\n"
    b"\r\n"
    b"Hi. \r\n"
    b"\r\n"
    b"We lost the  game. Are you hungry yet?\r\n"
    b"\r\n"
)
BODY = MESSAGE.partition(b"\r\n\r\n")[2]


class Zone:
    """Answers questions for TXT records from a dictionary, and remembers what was asked."""

    def __init__(self, records: Mapping[str, Answer | bytes | str | Sequence[bytes]]) -> None:
        self._answers = {name: _answer(value) for name, value in records.items()}
        self.asked: list[str] = []

    def ask(self, question: Question) -> Answer:
        assert question.record_type is RecordType.TXT
        self.asked.append(question.name)
        return self._answers.get(question.name, Answer(AnswerStatus.NXDOMAIN))


def _answer(value: Answer | bytes | str | Sequence[bytes]) -> Answer:
    if isinstance(value, Answer):
        return value
    if isinstance(value, bytes | str):
        value = [value.encode() if isinstance(value, str) else value]
    return Answer(AnswerStatus.FOUND, tuple(value), 300)


def record(key: PrivateKey, flags: str = "") -> str:
    """Return the text of a key record, with more tags where `flags` has any."""
    return key.record + flags


def dkim_tags(**changes: str | None) -> dict[str, str]:
    """Return the tags of a good signature, changed; None leaves a tag out."""
    tags: dict[str, str | None] = {
        "v": "1",
        "a": "rsa-sha256",
        "c": "relaxed/relaxed",
        "d": "example.com",
        "s": "sel",
        "t": str(NOW),
        "h": "from:to:subject:date:message-id:mime-version",
    }
    tags |= changes
    return {name: value for name, value in tags.items() if value is not None}


def dkim_signature(
    fields: Sequence[HeaderField],
    body: bytes,
    key: PrivateKey,
    tags: Mapping[str, str],
    name: bytes = b"DKIM-Signature",
    last: str = "",
) -> HeaderField:
    """Sign as the tags say; `last` is put behind b=. bh= and b= are computed unless the tags have them."""
    tags = dict(tags)
    header_form, _, body_form = tags.get("c", "simple/simple").partition("/")
    tags.setdefault("bh", body_hash(body, body_form or "simple", tags.get("l")))
    signature = tags.pop("b", "")
    unsigned = " " + "; ".join(f"{tag}={value}" for tag, value in tags.items()) + ";\r\n\tb="
    form = Canonicalization(header_form) if header_form in ("simple", "relaxed") else RELAXED
    names = [item.strip().lower().encode("utf-8") for item in tags.get("h", "").split(":")]
    groups: dict[bytes, list[HeaderField]] = {}
    for field in fields:
        groups.setdefault(field.name.rstrip().lower(), []).append(field)
    hashed = hashlib.sha256(b"".join(canonical_field(field, form) for field in pick_bottom_up(groups, names)))
    hashed.update(canonical_field(HeaderField(name, (unsigned + last.lstrip(" \t\r\n")).encode("utf-8")), form)[:-2])
    signature = signature or base64.b64encode(key.sign(hashed.digest())).decode()
    folded = "\r\n\t ".join(signature[at : at + 60] for at in range(0, len(signature), 60))
    return HeaderField(name, (unsigned + folded + last).encode("utf-8"))


def body_hash(body: bytes, form: str, limit: str | None = None) -> str:
    """Return bh= of a body, of its first `limit` canonical octets where there is a limit."""
    canonical = (Simple if form == "simple" else Relaxed).canonicalize_body(body)
    octets = canonical[: int(limit)] if limit is not None and limit.isdecimal() else canonical
    return base64.b64encode(hashlib.sha256(octets).digest()).decode()


def arc_set(
    fields: Sequence[HeaderField],
    body: bytes,
    key: PrivateKey,
    instance: int,
    signature_tags: Mapping[str, str | None] = {},
    seal_tags: Mapping[str, str | None] = {},
    payload: str = " lists.example.org; dmarc=pass header.from=example.com",
) -> list[HeaderField]:
    """Return the three fields of a set for a message whose older sets are among `fields`, the seal first."""
    results = HeaderField(b"ARC-Authentication-Results", f" i={instance};{payload}".encode())
    names = {"v": None, "i": str(instance), "h": "from:to:subject:date:message-id", "d": "lists.example.org"}
    tags = dkim_tags(**{**names, **signature_tags})
    message_signature = dkim_signature(fields, body, key, tags, b"ARC-Message-Signature")
    seal: dict[str, str | None] = {
        "i": str(instance),
        "a": "rsa-sha256",
        "t": str(NOW),
        "cv": "none" if instance == 1 else "pass",
        "d": "lists.example.org",
        "s": "sel",
        **seal_tags,
    }
    value = " " + "; ".join(f"{tag}={text}" for tag, text in seal.items() if text is not None) + "; b="
    hashed = hashlib.sha256()
    groups = by_name(fields)
    older = zip(
        *(groups.get(n, [])[::-1] for n in (b"arc-authentication-results", b"arc-message-signature", b"arc-seal")),
        strict=False,
    )
    for field in [*(field for old in older for field in old), results, message_signature]:
        hashed.update(canonical_field(field, RELAXED))
    hashed.update(canonical_field(HeaderField(b"ARC-Seal", value.encode()), RELAXED)[:-2])
    signed = value.encode() + base64.b64encode(key.sign(hashed.digest()))
    return [HeaderField(b"ARC-Seal", signed), message_signature, results]


def unparse(fields: Sequence[HeaderField], body: bytes) -> bytes:
    """Return the message as octets."""
    return b"".join(field.name + b":" + field.raw_value + b"\r\n" for field in fields) + b"\r\n" + body
