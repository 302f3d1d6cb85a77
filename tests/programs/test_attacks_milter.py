"""The table of attacks straight into the running daemon by the milter protocol, the DNS from a real nameserver."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from tests.attacks.expected import assert_cleaned, assert_results, read_own_field
from tests.attacks.messages import Fields, split
from tests.attacks.row import AUTHSERV_ID, Attack, Fate
from tests.attacks.table import ATTACKS
from tests.attacks.world import SETTINGS, open_nameserver
from tests.support.milter_client import MilterSession, Outcome
from tests.support.processes import open_folder
from tests.support.verifier import Verifier

REPLIES = {Fate.ACCEPTED: "a", Fate.QUARANTINED: "a", Fate.REFUSED: "y", Fate.DEFERRED: "y"}


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    """One daemon and one nameserver for all rows."""
    with open_folder() as folder, open_nameserver(folder) as nameserver:
        daemon = Verifier(
            folder,
            f'enforce = "reject"\n{SETTINGS}',
            nameservers=[nameserver.endpoint],
            authserv_id=AUTHSERV_ID,
            workers=2,
        )
        daemon.start()
        try:
            yield daemon
        finally:
            daemon.stop()


# The protocol's strings end at the first NUL: what follows it in a header field no milter is ever shown.
CARRIED = [attack for attack in ATTACKS if not any(b"\0" in value for _, value in split(attack.message)[0])]


@pytest.mark.parametrize("attack", CARRIED, ids=[attack.id for attack in CARRIED])
def test_attack(verifier: Verifier, attack: Attack) -> None:
    fields, body = split(attack.message)
    outcome = send(verifier, attack, [(name, value.replace(b"\r\n", b"\n")) for name, value in fields], body)
    assert outcome.reply == REPLIES[attack.fate]
    if attack.fate is Fate.REFUSED:
        assert outcome.text.startswith("550 5.7.1 ")
        assert "DMARC" in outcome.text
        assert not attack.author or attack.author in outcome.text
        assert outcome.edits == []
        return
    if attack.fate is Fate.DEFERRED:
        assert outcome.text.startswith("451 4.4.3 ")
        return
    assert outcome.inserted("X-Mailward-Quarantine") == ([b" dmarc"] if attack.fate is Fate.QUARANTINED else [])
    (value,) = outcome.inserted("Authentication-Results")
    last_edit, octets = outcome.edits[-1]
    assert (last_edit, octets[:4]) == ("insert", bytes(4))  # on top of everything
    assert octets[4:].startswith(b"Authentication-Results\0")
    assert_results(attack, read_own_field(value))
    assert_cleaned(fields, after_deletions(fields, outcome))


def send(verifier: Verifier, attack: Attack, fields: Fields, body: bytes) -> Outcome:
    session = MilterSession(verifier.socket_path)
    try:
        session.connect(attack.client, b"client.example")
        session.helo(attack.helo)
        return session.message(fields, body, mail_from=attack.mail_from, queue_id="4QATTACK")
    finally:
        session.close()


def after_deletions(fields: Fields, outcome: Outcome) -> Fields:
    """Apply the deletions in their order, as the MTA does: the n-th field of a name is counted anew for each."""
    left = list(fields)
    for kind, octets in outcome.edits:
        if kind == "change":
            (occurrence,) = struct.unpack("!I", octets[:4])
            name, value, _ = octets[4:].split(b"\0")
            assert value == b"", "the daemon only ever deletes"
            at = [index for index, field in enumerate(left) if field[0].strip().lower() == name.lower()]
            del left[at[occurrence - 1]]
    return left


def test_no_row_was_a_bug_of_ours(verifier: Verifier) -> None:
    assert verifier.log_lines("own-bug") == []
    assert "Traceback" not in verifier.output(), verifier.output()[verifier.output().find("Traceback") :][:3000]


def test_the_protocol_carries_nearly_every_row() -> None:
    assert len(ATTACKS) - 10 < len(CARRIED) < len(ATTACKS)
