"""`mailward explain` of what a real Postfix and Dovecot have stored: it says what the milter did, and needs no option for it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from click.testing import CliRunner

from postmaster.__main__ import main
from tests.attacks.row import Attack
from tests.attacks.table import ATTACKS
from tests.mail.inbound import JUNK, Inbound

PLAIN = re.compile(rb"(?:[\w.+-]+@[\w.-]+)?")
# Every third: what the table says of each is tested elsewhere. Only what Postfix hands over as it came, and whose MAIL FROM
# stands in Return-Path as it came: Postfix completes what has no domain, and Dovecot reads and writes it anew.
STORED = [attack for attack in ATTACKS if attack.postfix is None and PLAIN.fullmatch(attack.origin.mail_from)][::3]


def explained(inbound: Inbound, octets: bytes, mode: str) -> Any:
    """Explain a stored message by the configuration of that mode's verifier."""
    config = inbound.verifiers[mode].configuration
    done = CliRunner().invoke(main, ["explain", "--json", "--config", str(config), "-"], input=octets)
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


def unfolded(raw_value: bytes) -> str:
    return re.sub(rb"\r?\n(?=[ \t])", b"", raw_value).decode("ascii").strip()


@pytest.mark.parametrize("attack", STORED, ids=[attack.id for attack in STORED])
def test_a_stored_message_is_explained_as_it_was_treated(inbound: Inbound, attack: Attack) -> None:
    arrived = inbound.deliver(attack.message, attack.origin, mode="quarantine")
    found = explained(inbound, arrived.octets.replace(b"\r\n", b"\n"), "quarantine")
    assert found["envelope"]["client_address"]["value"] == attack.origin.client
    assert found["authentication_results"] == unfolded(arrived.values(b"Authentication-Results")[0])
    assert found["stored_results"] == found["authentication_results"]
    assert (found["verdict"]["outcome"] == "quarantine") == (arrived.mailbox == JUNK)
