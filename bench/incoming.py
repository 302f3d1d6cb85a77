"""Incoming mail for the verifiers: signed messages, the envelope they come with, and the zones that vouch for them.

The signatures are made here, by no program that is measured: relaxed/relaxed, rsa-sha256, as most mail has them.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from bench.keys import Key, sign_sha256
from bench.messages import MessageFolder
from tests.support.nameserver import txt_record

DOMAIN = "example.com"
DOMAINS_ZONE = "example"  # d0.example, d1.example, ...: where every message comes from another domain
CLIENT_ADDRESS = "192.0.2.10"
HELO = "client.example.com"
SIGNED_FIELDS = (
    *("From", "To", "Cc", "Reply-To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type"),
    "Content-Transfer-Encoding",
)
SPF = "v=spf1 ip4:198.51.100.0/24 ip4:192.0.2.0/24 -all"
DMARC = "v=DMARC1; p=reject; rua=mailto:dmarc@example.com"
SIGNING_TIME = 1768469400  # Thu, 15 Jan 2026 09:30:00 UTC, as the Date field has it
TAG_WIDTH = 72
SPACES = re.compile(rb"[ \t]+")


class IncomingMail:
    """Signed messages of one domain, or of many; files of `folder`, written at first use."""

    def __init__(self, folder: Path, key: Key) -> None:
        self._folder = folder
        self._key = key

    def small(self) -> Path:
        """Return the 4 kB message from `DOMAIN`."""
        return self._signed("small", MessageFolder(self._plain(), DOMAIN).small())

    def text(self, megabytes: int) -> Path:
        """Return a message of words."""
        return self._signed(f"text-{megabytes}", MessageFolder(self._plain(), DOMAIN).text(megabytes))

    def attachment(self, megabytes: int) -> Path:
        """Return a message of base64."""
        return self._signed(f"attachment-{megabytes}", MessageFolder(self._plain(), DOMAIN).attachment(megabytes))

    def small_of_many(self, count: int) -> Path:
        """Return a folder of `count` 4 kB messages; the n-th, in the order of names, is from `d<n>.example`."""
        folder = self._folder / f"of-{count}-domains"
        if not folder.exists():
            folder.mkdir()
            template = MessageFolder(self._plain(), "DOMAIN").small().read_bytes()
            for number in range(count):
                domain = f"d{number}.{DOMAINS_ZONE}"
                message = template.replace(b"DOMAIN", domain.encode())
                (folder / f"{number:06}.eml").write_bytes(sign(message, domain, self._key))
        return folder

    def with_fields(self, message: Path, fields: str, name: str) -> Path:
        """Return a message like `message` that has `fields` on top, as the milter before left it."""
        path = self._folder / f"{message.stem}-{name}.eml"
        path.write_bytes(fields.replace("\n", "\r\n").encode() + message.read_bytes())
        return path

    def _plain(self) -> Path:
        folder = self._folder / "unsigned"
        folder.mkdir(exist_ok=True)
        return folder

    def _signed(self, name: str, unsigned: Path) -> Path:
        path = self._folder / f"incoming-{name}.eml"
        if not path.exists():
            path.write_bytes(sign(unsigned.read_bytes(), DOMAIN, self._key))
        return path


def zones(key: Key, many: int) -> dict[str, str]:
    """Return the zones of `DOMAIN`, of the client's address, and of `many` more domains."""
    own = [
        txt_record("@", SPF),
        txt_record("_dmarc", DMARC),
        txt_record(f"{key.selector}._domainkey", key.record),
        "@ IN MX 10 client",
        f"client IN A {CLIENT_ADDRESS}",
    ]
    others = []
    for number in range(many):
        others.append(txt_record(f"d{number}", SPF))
        others.append(f"mail.d{number} IN A {CLIENT_ADDRESS}")
        others.append(txt_record(f"_dmarc.d{number}", DMARC))
        others.append(txt_record(f"{key.selector}._domainkey.d{number}", key.record))
    return {
        DOMAIN: "\n".join(own),
        DOMAINS_ZONE: "\n".join(others),
        "2.0.192.in-addr.arpa": f"10 IN PTR {HELO}.",
    }


def sign(message: bytes, domain: str, key: Key) -> bytes:
    """Put a DKIM-Signature field (RFC 6376) on top of a message with CRLF line ends and one field of each signed name."""
    head, _, body = message.partition(b"\r\n\r\n")
    fields = {line.partition(b":")[0].lower(): line for line in re.split(rb"\r\n(?![ \t])", head)}
    body_hash = base64.b64encode(hashlib.sha256(relaxed_body(body)).digest()).decode()
    names = ":".join(SIGNED_FIELDS).replace(":Reply", ":\r\n\t Reply").replace(":MIME", ":\r\n\t MIME")
    field = (
        f"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d={domain}; s={key.selector};\r\n\tt={SIGNING_TIME};"
        f" h={names};\r\n\tbh={body_hash};\r\n\tb="
    ).encode()
    covered = [relaxed_field(fields[name.lower().encode()]) + b"\r\n" for name in SIGNED_FIELDS]
    signature = base64.b64encode(sign_sha256(key, b"".join(covered) + relaxed_field(field))).decode()
    folded = "\r\n\t ".join(signature[start : start + TAG_WIDTH] for start in range(0, len(signature), TAG_WIDTH))
    return field + folded.encode() + b"\r\n" + message


def relaxed_field(line: bytes) -> bytes:
    r"""Return a field's relaxed canonical form, without its line end (RFC 6376 3.4.2).

    >>> relaxed_field(b"Subject : a \r\n\tb ")
    b'subject:a b'
    """
    name, _, value = line.partition(b":")
    return name.strip().lower() + b":" + SPACES.sub(b" ", value.replace(b"\r\n", b"")).strip()


def relaxed_body(body: bytes) -> bytes:
    r"""Return a body's relaxed canonical form (RFC 6376 3.4.4).

    >>> relaxed_body(b" C \r\nD \t E\r\n\r\n")
    b' C\r\nD E\r\n'
    """
    lines = [SPACES.sub(b" ", line).rstrip(b" ") for line in body.split(b"\r\n")]
    text = b"\r\n".join(lines).rstrip(b"\r\n")
    return text + b"\r\n" if text else b""
