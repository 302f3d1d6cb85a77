"""One SPF question as most tests put it, and what was asked of the DNS for it."""

from __future__ import annotations

from mailward.auth.spf import SpfLimits, check_mail_from
from mailward.model.results import SpfResult
from tests.support.zone import Zone

CLIENT = "192.0.2.1"
HELO = b"mail.example.com"
LIMITS = SpfLimits()


def judge(record: str, zone: str = "", mail_from: bytes = b"a@example.com", client: str = CLIENT) -> SpfResult:
    return check_mail_from(client, HELO, mail_from, Zone(f"example.com TXT {record}\n{zone}"), LIMITS)


def asked(zone: Zone) -> list[tuple[str, str]]:
    return [(question.name, question.record_type.value) for question in zone.asked]
