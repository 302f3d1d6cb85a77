"""Messages are counted by their domain, as the configuration names it, so that one whose mail leaves unsigned is noticed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from mailward.daemon.metrics import NAMED_SLOTS
from tests.programs.signer import Signer
from tests.support.milter_client import MilterSession

COUNTED = re.compile(r'domain_(messages|signed)_total\{domain="(.*)"\}')


def counted(signer: Signer) -> dict[str, dict[str, int]]:
    """Return the numbers that are not zero, by what they count and the domain."""
    found: dict[str, dict[str, int]] = {"messages": {}, "signed": {}}
    for name, value in signer.metrics().items():
        if value and (match := COUNTED.fullmatch(name)):
            found[match[1]][match[2]] = int(value)
    return found


def send_from(signer: Signer, *domains: str) -> None:
    for domain in domains:
        assert signer.send([(b"From", f" a@{domain}".encode())]).reply == "a"


def test_a_domain_counts_what_is_below_it(start_signer: Callable[..., Signer]) -> None:
    signer = start_signer()
    send_from(signer, "example.com", "news.example.com", "keyless.example")
    assert counted(signer) == {"messages": {"example.com": 2}, "signed": {"example.com": 2}}


def test_mail_that_a_login_has_no_right_to_is_counted_and_not_as_signed(
    start_signer: Callable[..., Signer], folder: Path
) -> None:
    logins = folder / "logins"
    logins.write_text("bob@example.org example.org\n")
    signer = start_signer(f'logins = "{logins}"')
    session = MilterSession(signer.socket_path)
    session.connect()
    assert session.message([(b"From", b" a@example.com")], login=b"bob@example.org").reply == "a"
    session.close()
    assert counted(signer) == {"messages": {"example.com": 1}, "signed": {}}


def test_domains_beyond_the_slots_are_counted_together(start_signer: Callable[..., Signer], folder: Path) -> None:
    names = [f"d{number}.example" for number in range(NAMED_SLOTS + 3)]
    table = folder / "signing-table"
    table.write_text("".join(f"{name} rsa rsa.pem\n" for name in names))
    signer = start_signer(f'table = "{table}"')
    send_from(signer, *names)
    found = counted(signer)
    assert found["messages"] == found["signed"] == {**dict.fromkeys(names[: NAMED_SLOTS - 1], 1), "other": 4}
