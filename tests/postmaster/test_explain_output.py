"""What `mailward explain` prints whatever a message holds: never an octet raw, always the milter's verdict, stable names."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from mailward.inbound.judge import Judgement
from mailward.model.dns import Answer, Question
from mailward.model.message import Envelope, HeaderField, Transaction
from mailward.settings.auth_verify import Settings, read_judge
from mailward.settings.load import Sections, read_sections, structure
from postmaster.__main__ import main
from postmaster.explain.as_json import as_json
from postmaster.explain.envelope import Given, find_sending
from postmaster.explain.explanation import Explanation, explain
from postmaster.explain.page import show
from postmaster.explain.stored_message import StoredMessage
from tests.attacks.messages import split
from tests.attacks.row import AUTHSERV_ID, Attack, Fate
from tests.attacks.table import ATTACKS
from tests.attacks.world import SETTINGS, open_nameserver
from tests.attacks.zones import ZONE_TEXT
from tests.support.processes import open_folder
from tests.support.zone import Zone

NOW = 1_795_267_200.0
# A message that passes, signed by its author domain.
CONTROL = next(attack for attack in ATTACKS if attack.id.startswith("control-"))


@cache
def configuration() -> tuple[Settings, Sections]:
    """Read what the table of attacks expects of the operator."""
    with open_folder() as folder:
        path = folder / "mailward.toml"
        path.write_text(f'authserv_id = "{AUTHSERV_ID}"\n[auth-verify]\nenforce = "reject"\n{SETTINGS}')
        sections = read_sections(path)
        return structure(sections, Settings), sections


def explained(attack: Attack) -> Explanation:
    message = StoredMessage(io.BytesIO(attack.message))
    origin = attack.origin
    helo, mail_from = (octets.decode("utf-8", "surrogateescape") for octets in (origin.helo, origin.mail_from))
    sending = find_sending(message.header, Given(origin.client, helo, mail_from, "", NOW), NOW)
    return explain(message, sending, *configuration(), Zone(ZONE_TEXT), clock())


def judged(attack: Attack) -> Judgement:
    """Judge as the milter does, from what the milter protocol would bring."""
    fields, body = split(attack.message)
    origin = attack.origin
    envelope = Envelope(client_address=origin.client, helo=origin.helo, mail_from=origin.mail_from)
    header = [HeaderField(name, value) for name, value in fields]
    incoming = read_judge(configuration()[0]).begin(Transaction("", envelope, header), NOW)
    incoming.body(body)
    return incoming.judge(Zone(ZONE_TEXT))


def clock() -> Callable[[], float]:
    return itertools.count().__next__


@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.id for attack in ATTACKS])
def test_every_attack_is_explained_as_it_is_judged_and_never_reaches_the_terminal(attack: Attack) -> None:
    explanation, judgement = explained(attack), judged(attack)
    assert explanation.judgement.verdict == judgement.verdict
    assert explanation.judgement.decision == judgement.decision
    assert all(asked.method for asked in explanation.asked)
    page = click.unstyle(show(explanation, 80))
    assert page.isascii()
    assert all(line.isprintable() for line in page.split("\n"))
    assert len(page) < 200_000
    text = as_json(explanation)
    assert text.isascii()
    assert json.loads(text)["verdict"]["action"] == judgement.verdict.action.value


TERMINAL = "\x1b]0;owned\x07\x1b[31m\x9b2J\u202e\u2066evil\x7f\b\r"


@pytest.mark.parametrize("option", ["--json", "--zone"], ids=["json", "page"])
def test_escape_sequences_everywhere_stay_visible_and_dead(option: str) -> None:
    hostile = TERMINAL.encode("utf-8").replace(b"\r", b"")
    names = (
        b"From",
        b"Subject",
        b"Received",
        b"Return-Path",
        b"DKIM-Signature",
        b"ARC-Seal",
        b"List-Id",
        b"Authentication-Results",
    )
    header = b"".join(name + b": " + hostile + b" v=1; d=" + hostile + b" <a@" + hostile + b">\n" for name in names)
    with open_folder() as folder:
        zone = folder / "zone"
        zone.write_text("example. TXT x\n")
        (folder / "message.eml").write_bytes(header + b"\n" + hostile)
        arguments = ["explain", str(folder / "message.eml"), "--client-ip", "192.0.2.7", "--zone", str(zone)]
        arguments += [
            "--helo",
            TERMINAL,
            "--mail-from",
            f"<{TERMINAL}@x>",
            "--login",
            "",
            *([option] if option == "--json" else []),
        ]
        done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert done.output.isascii()
    assert all(line.isprintable() for line in done.output.split("\n"))
    shown = json.loads(done.output)["envelope"]["helo"]["value"] if option == "--json" else done.output
    assert r"\x1b]0;owned\x07\x1b[31m\u{9b}2J\u{202e}\u{2066}evil\x7f\x08\x0d" in shown


def test_records_of_strangers_are_escaped_and_clipped() -> None:
    def ask(question: Question) -> Answer:
        records = (b"v=spf1 \x1b[2J" + b"\xff" * 5000,) * 60
        return Answer(Zone(f"{question.name} TXT x")(question).status, records)

    message = StoredMessage(io.BytesIO(CONTROL.message))
    sending = find_sending(message.header, Given(CONTROL.origin.client, "h.example", "a@b.example", "", NOW), NOW)
    explanation = explain(message, sending, *configuration(), ask, clock())
    page = click.unstyle(show(explanation, 100))
    assert page.replace("\n", "").isprintable()
    assert r"\x1b[2J" in page
    assert "and 55 more" in page
    assert len(page) < 40_000


def keys_of(value: Any) -> Any:
    """Return the names in a JSON value; of a list those of its first item."""
    if isinstance(value, dict):
        return {name: keys_of(item) for name, item in value.items()}
    return [keys_of(value[0])] if isinstance(value, list) and value and isinstance(value[0], dict) else None


TOLD = {"value": None, "source": None}
SPF = {
    "result": None,
    "domain": None,
    "reason": None,
    "mechanism": None,
    "lookups": None,
    "void_lookups": None,
    "explanation": None,
    "terms": [{"domain": None, "term": None, "outcome": None}],
}
NAMES = {
    "version": None,
    "message": {"header_fields": None, "body_octets": None},
    "envelope": {"client_address": TOLD, "helo": TOLD, "mail_from": TOLD, "login": TOLD, "time": TOLD},
    "notes": None,
    "dns": [
        dict.fromkeys(
            [
                "method",
                "name",
                "type",
                "status",
                "records",
                "ttl",
                "reason",
                "milliseconds",
                "nameserver",
                "is_cached",
                "is_stale",
            ]
        )
    ],
    "spf": {"mailfrom": SPF, "helo": SPF},
    "dkim": [
        dict.fromkeys(
            [
                "result",
                "reason",
                "position",
                "signing_domain",
                "selector",
                "auid",
                "algorithm",
                "signature_prefix",
                "key_bits",
                "is_body_changed",
                "canonicalization",
                "body_limit",
                "signed",
                "unsigned",
                "signed_at",
                "expires_at",
            ]
        )
    ],
    "arc": dict.fromkeys(("result", "reason", "instances", "sealers", "passed_author_domains", "is_temporary")),
    "iprev": dict.fromkeys(("result", "address", "name", "reason")),
    "dmarc": [
        dict.fromkeys(("result", "author_domain", "reason", "policy", "policy_domain", "organizational_domain"))
        | {"aligned": None, "walk": [dict.fromkeys(("name", "outcome", "is_record"))], "policy_words": None}
        | {"identifiers": [dict.fromkeys(("method", "domain", "result", "is_aligned", "words"))], "is_deciding": None}
    ],
    "author_fault": None,
    "hints": None,
    "verdict": {
        **dict.fromkeys(("trust", "action", "outcome", "reason", "detail", "what", "why", "reply")),
        "settings": None,
        "edits": [dict.fromkeys(("edit", "name", "value"))],
    },
    "authentication_results": None,
    "stored_results": None,
}


def test_the_names_of_the_json_object_stay() -> None:
    found = json.loads(as_json(explained(CONTROL)))
    assert found["version"] == 1
    assert keys_of(found) == NAMES


def test_the_names_of_what_a_rejection_adds() -> None:
    rejected = next(attack for attack in ATTACKS if attack.fate is Fate.REFUSED)
    found = json.loads(as_json(explained(rejected)))
    assert set(found["verdict"]["reply"]) == {"code", "enhanced_code", "text"}
    assert set(found["verdict"]["settings"][0]) == {"key", "value", "file", "line"}
    assert found["authentication_results"] is None
    assert set(found) == set(NAMES)


def test_of_mail_that_is_not_judged_nothing_is_made_up() -> None:
    message = StoredMessage(io.BytesIO(CONTROL.message))
    sending = find_sending(message.header, Given("127.0.0.1", "h", "", "", NOW), NOW)
    found = json.loads(as_json(explain(message, sending, *configuration(), Zone(), clock())))
    assert set(found) == set(NAMES)
    assert [name for name, value in found.items() if value is None] == [
        *("spf", "dkim", "arc", "iprev", "dmarc", "author_fault", "hints", "stored_results")
    ]


@pytest.fixture(scope="module")
def folder_with_nameserver() -> Iterator[Path]:
    with open_folder() as folder, open_nameserver(folder) as nameserver:
        (folder / "mailward.toml").write_text(
            f'authserv_id = "{AUTHSERV_ID}"\n[dns]\nnameservers = ["{nameserver.endpoint}"]\n'
        )
        (folder / "message.eml").write_bytes(CONTROL.message)
        yield folder


def test_the_dns_is_asked_and_what_was_asked_before_is_told(folder_with_nameserver: Path) -> None:
    folder, mail_from = folder_with_nameserver, CONTROL.origin.mail_from.decode()
    options = ["--client-ip", CONTROL.origin.client, "--helo", mail_from.partition("@")[2], "--mail-from", mail_from]
    options += ["--now", str(int(NOW)), "--json", "--config", str(folder / "mailward.toml")]
    done = CliRunner().invoke(main, ["explain", str(folder / "message.eml"), *options])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["dmarc"][0]["result"] == CONTROL.dmarc
    assert all(asked["milliseconds"] > 0 for asked in found["dns"])
    spf = [asked["is_cached"] for asked in found["dns"] if asked["name"] == mail_from.partition("@")[2]]
    assert spf == [False, True]  # MAIL FROM, then HELO
    assert all(asked["nameserver"] for asked in found["dns"] if asked["status"] == "found")
