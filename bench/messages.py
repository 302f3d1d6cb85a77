"""The messages that are sent: generated, the same in every run.

Twelve header fields, as a mail program's message has when Postfix hands it to a milter. The 4 kB one is text;
the large ones are an attachment in base64, which is what makes mail large, or text, whose spaces are work.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

HEADER = """\
Received: from client.example.com (client.example.com [192.0.2.10])
\tby mail.example.com (Postfix) with ESMTPSA id 4QABCDEF12
\tfor <rcpt@example.net>; Thu, 15 Jan 2026 09:30:00 +0000 (UTC)
Date: Thu, 15 Jan 2026 10:30:00 +0100
From: "Some Sender" <sender@{domain}>
To: Some Recipient <rcpt@example.net>
Cc: Another Recipient <another@example.net>, third@example.org
Reply-To: sender@{domain}
Subject: The minutes of last week's meeting, and what is still open
Message-ID: <20260115093000.4711@{domain}>
User-Agent: A Mail Program 12.3
MIME-Version: 1.0
Content-Type: {content_type}
Content-Transfer-Encoding: {encoding}

"""
TEXT = "the quick brown fox jumps over a lazy dog while seven wizards judge my vow of black quartz"
WORDS = TEXT.split()
SMALL = 4 * 1024
MEGABYTE = 1024 * 1024
BASE64_LINE_OCTETS = 57  # 76 characters, as mail programs write


class MessageFolder:
    """Message files, written at first use."""

    def __init__(self, folder: Path, domain: str) -> None:
        self._folder = folder
        self._domain = domain

    def small(self) -> Path:
        """Return the 4 kB message."""
        return self.small_of(self._domain)

    def small_of(self, domain: str) -> Path:
        """Return the 4 kB message from an author in `domain`, which may hold a `%d` for the driver."""
        return self._write(f"small-{domain.replace('%', '')}.eml", text_lines(), SMALL, "8bit", domain)

    def attachment(self, megabytes: int) -> Path:
        """Return a message of this size in base64."""
        name = f"attachment-{megabytes}.eml"
        return self._write(name, base64_lines(), megabytes * MEGABYTE, "base64", self._domain)

    def text(self, megabytes: int) -> Path:
        """Return a message of this size in words."""
        return self._write(f"text-{megabytes}.eml", text_lines(), megabytes * MEGABYTE, "8bit", self._domain)

    def _write(self, name: str, lines: Iterator[str], size: int, encoding: str, domain: str) -> Path:
        path = self._folder / name
        if path.exists():
            return path
        content_type = "application/octet-stream" if encoding == "base64" else "text/plain; charset=utf-8"
        header = HEADER.format(domain=domain, content_type=content_type, encoding=encoding)
        with path.open("w", encoding="ascii", newline="") as file:
            written = file.write(header.replace("\n", "\r\n"))
            while written < size:
                written += file.write(next(lines) + "\r\n")
        return path


def text_lines() -> Iterator[str]:
    """Yield lines of words, for ever; some lines end in white space, some are empty, as text has it."""
    number = 0
    while True:
        number += 1
        count = 9 + number * 7 % 6
        line = " ".join(WORDS[(number * 5 + place * 3) % len(WORDS)] for place in range(count))
        yield "" if number % 8 == 0 else line + ("  " if number % 5 == 0 else "")


def base64_lines() -> Iterator[str]:
    """Yield lines of base64 that do not compress, for ever."""
    octets = b""
    number = 0
    while True:
        while len(octets) < BASE64_LINE_OCTETS:
            number += 1
            octets += hashlib.sha512(number.to_bytes(8, "big")).digest()
        yield base64.b64encode(octets[:BASE64_LINE_OCTETS]).decode("ascii")
        octets = octets[BASE64_LINE_OCTETS:]
