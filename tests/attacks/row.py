"""What a row of the table holds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

BANK, ATTACKER = "192.0.2.10", "203.0.113.66"
FORWARDER, LIST, FRIEND = "198.51.100.20", "198.51.100.30", "198.51.100.40"
AUTHSERV_ID = "mx.receiver.example"
FORGED, FOREIGN = b"forged", b"foreign"


@dataclass(frozen=True, slots=True)
class Origin:
    """Who hands the message over, and for whom: the client's address, its HELO, its MAIL FROM."""

    client: str
    helo: bytes
    mail_from: bytes


BY_BANK = Origin(BANK, b"mail.bank.example", b"ceo@bank.example")
BY_ATTACKER = Origin(ATTACKER, b"mail.attacker.example", b"x@attacker.example")
BY_FORWARDER = Origin(FORWARDER, b"out.forwarder.example", b"srs@forwarder.example")
BY_LIST = Origin(LIST, b"lists.list.example", b"bounces@list.example")


class Fate(Enum):
    """What becomes of a message: first with `enforce = "reject"`, then with "quarantine"."""

    ACCEPTED = ("accept", "accept")
    QUARANTINED = ("quarantine", "quarantine")
    REFUSED = ("reject", "quarantine")
    DEFERRED = ("tempfail", "tempfail")


@dataclass(frozen=True)
class InPostfix:
    """What Postfix itself does with a row before a milter sees it as it was sent.

    "refuses": the SMTP conversation ends in an error and the milter judges nothing. "changes": the milter sees other octets;
    `dmarc` and `fate` then say what becomes of those, where that differs.
    """

    act: str
    dmarc: str = ""
    fate: Fate | None = None
    author: str | None = None


@dataclass(frozen=True)
class Attack:
    """One message with its envelope, and what must be found and done.

    `id` says what is withstood. `author` is the author domain the result names, empty where there is none. `dkim`, `spf` (of
    the MAIL FROM identity) and `arc` are checked where they are given. Of Authentication-Results and X-Mailward-Quarantine
    fields, those whose text has "forged" in it must be gone and those with "foreign" must stay.
    """

    id: str
    message: bytes
    dmarc: str = "fail"
    fate: Fate = Fate.REFUSED
    author: str = "bank.example"
    origin: Origin = BY_ATTACKER
    dkim: tuple[str, ...] | None = None
    spf: str | None = None
    arc: str | None = None
    postfix: InPostfix | None = None

    @property
    def client(self) -> str:
        return self.origin.client

    @property
    def helo(self) -> bytes:
        return self.origin.helo

    @property
    def mail_from(self) -> bytes:
        return self.origin.mail_from
