"""A message, a zone and a configuration in a folder, and `mailward explain` run on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from mailward.model.message import HeaderField
from postmaster.__main__ import main
from tests.auth.forge import BODY, NOW, RSA_2048, dkim_signature, dkim_tags
from tests.support.nameserver import txt_record

FIELDS = [
    HeaderField(b"From", b" Joe <joe@example.com>"),
    HeaderField(b"To", b" suzie@receiver.example"),
    HeaderField(b"Subject", b" Dinner"),
]
ZONE = [
    'example.com. TXT "v=spf1 ip4:192.0.2.7 include:_spf.example.net exists:%{i}.void.example -all"',
    '_spf.example.net. TXT "v=spf1 a:mail.example.net ~all"',
    "mail.example.net. A 192.0.2.8",
    '_dmarc.example.com. TXT "v=DMARC1; p=reject; sp=quarantine; np=none"',
    'weak.example. TXT "v=spf1 ~all"',
    '_dmarc.weak.example. TXT "v=DMARC1; p=none"',
    '_dmarc.strict.example. TXT "v=DMARC1; p=quarantine; aspf=s; t=y; sp=reject"',
    'out.strict.example. TXT "v=spf1 ip4:192.0.2.7 -all"',
    "7.2.0.192.in-addr.arpa. PTR mail.example.com.",
    "mail.example.com. A 192.0.2.7",
    'mail.example.com. TXT "v=spf1 ip4:192.0.2.7 -all"',
    txt_record("sel._domainkey.example.com.", RSA_2048.record),
    txt_record("sel._domainkey.lists.example.org.", RSA_2048.record),
]


def octets(fields: list[HeaderField], body: bytes = BODY) -> bytes:
    return b"".join(field.name + b":" + field.raw_value + b"\r\n" for field in fields) + b"\r\n" + body


def signed(fields: list[HeaderField] = FIELDS, body: bytes = BODY) -> list[HeaderField]:
    tags = dkim_tags(h="from:to:from:x-not-there", x=str(NOW + 86400))
    return [dkim_signature(fields, body, RSA_2048, tags), *fields]


class Postmaster:
    """A folder with a zone and a configuration, and the command run on messages in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.zone = folder / "zone"
        self.zone.write_text("\n".join(ZONE) + "\n")
        self.config = folder / "mailward.toml"
        self.configure("")

    def configure(self, auth_verify: str) -> None:
        self.config.write_text(f'authserv_id = "mx.receiver.example"\n\n[auth-verify]\n{auth_verify}\n')

    def run(
        self, message: bytes, *options: str, client: str = "192.0.2.7", mail_from: str = "joe@example.com"
    ) -> Result:
        path = self.folder / "message.eml"
        path.write_bytes(message)
        envelope = ["--client-ip", client, "--helo", "mail.example.com", "--mail-from", mail_from, "--now", str(NOW)]
        return self.bare(str(path), *envelope, "--zone", str(self.zone), "--config", str(self.config), *options)

    def bare(self, *options: str) -> Result:
        return CliRunner().invoke(main, ["explain", *options])

    def json(self, message: bytes, *options: str, **envelope: str) -> Any:
        done = self.run(message, "--json", *options, **envelope)
        assert done.exit_code == 0, done.output
        return json.loads(done.output)
