"""Messages for the tests: parsed into fields and body as a milter would hand them over."""

from __future__ import annotations

import re
from pathlib import Path

from mailward.model.message import HeaderField

FIXTURES = Path(__file__).parent.parent / "fixtures"


def parse(message: bytes) -> tuple[list[HeaderField], bytes]:
    """Split a message with CRLF line ends into its header fields and its body."""
    head, _, body = message.partition(b"\r\n\r\n")
    fields = []
    for line in re.split(rb"\r\n(?![ \t])", head):
        name, _, raw_value = line.partition(b":")
        fields.append(HeaderField(name, raw_value))
    return fields, body


def fixture(name: str) -> tuple[list[HeaderField], bytes]:
    """Read a fixture as `parse` does; the files have LF line ends."""
    return parse((FIXTURES / name).read_bytes().replace(b"\n", b"\r\n"))
