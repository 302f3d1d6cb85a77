"""`mailward explain`: the verdict, the configuration behind it, where the envelope is from, and what it says when it cannot."""

from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner, Result

from mailward.model.message import HeaderField
from postmaster.__main__ import main
from postmaster.explain.command import explain
from tests.auth.forge import NOW
from tests.postmaster.explaining import FIELDS, Postmaster, octets, signed

EX_DATAERR, EX_NOINPUT, EX_CONFIG = 65, 66, 78


def test_a_good_message_is_explained_step_by_step(postmaster: Postmaster) -> None:
    done = postmaster.run(octets(signed()))
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    for words in (
        "ACCEPTED DMARC passes for example.com: dkim=example.com, spf=example.com.",
        "client 192.0.2.7 (--client-ip)",
        "pass example.com by ip4:192.0.2.7 (0 of 10 lookups) ip4:192.0.2.7 match: pass",
        "signature 1 pass d=example.com s=sel a=rsa-sha256 c=relaxed/relaxed 2048 bits",
        "covers From, To leaves out Subject",
        "_dmarc.example.com: v=DMARC1; p=reject; sp=quarantine; np=none",
        "policy reject (p= of its own record)",
        "dkim=example.com pass aligned (it is the author domain)",
        "pass 192.0.2.7 mail.example.com",
        'sel._domainkey.example.com TXT "v=DKIM1;',
        "Verdict ACCEPTED It is delivered.",
        "adds Authentication-Results: mx.receiver.example; dkim=pass",
    ):
        assert words in text
    assert "\x1b" not in done.output
    assert max(map(len, done.output.splitlines())) <= 100


def test_a_terminal_has_colours_unless_they_are_unwanted(postmaster: Postmaster) -> None:
    path = postmaster.folder / "message.eml"
    path.write_bytes(octets(signed()))
    options = ["explain", str(path), "--client-ip", "192.0.2.7", "--mail-from", "", "--zone", str(postmaster.zone)]
    options += ["--now", str(NOW)]
    coloured = (
        CliRunner(env={"NO_COLOR": None, "TERM": "xterm"})
        .invoke(main, [*options, "--config", str(postmaster.config)], color=True)
        .output
    )
    plain = (
        CliRunner(env={"NO_COLOR": "1"}).invoke(main, [*options, "--config", str(postmaster.config)], color=True).output
    )
    assert click.style("pass", fg="green") in coloured
    assert "\x1b" not in plain
    assert [line for line in click.unstyle(coloured).split("\n") if " ms" not in line] == [
        line for line in plain.split("\n") if " ms" not in line
    ]


FORGED = [HeaderField(b"Authentication-Results", b" mx.receiver.example; dmarc=pass"), *FIELDS]
NO_AUTHOR = [HeaderField(b"From", b" nobody"), *FIELDS[1:]]
FORWARDED = [HeaderField(b"List-Id", b" <l.example.net>"), *FIELDS]
STRANGER = {"client": "203.0.113.5", "mail_from": "x@example.org"}


@pytest.mark.parametrize(
    ("fields", "envelope", "configuration", "word", "setting"),
    [
        pytest.param(FIELDS, {}, "", "ACCEPTED", "none: nothing that is configured", id="accepted"),
        pytest.param(
            FIELDS,
            STRANGER,
            "",
            "QUARANTINED",
            'auth-verify.enforce = "quarantine" (default)',
            id="quarantined by default",
        ),
        pytest.param(
            FIELDS, STRANGER, 'enforce = "reject"', "REJECTED", 'enforce = "reject" ({config}:4)', id="rejected"
        ),
        pytest.param(
            FIELDS,
            STRANGER,
            '\nenforce = "quarantine"\nquarantine = "hold"',
            "QUARANTINED It goes to Postfix's hold queue",
            'quarantine = "hold" ({config}:6)',
            id="held",
        ),
        pytest.param(
            FIELDS, STRANGER, 'enforce = "none"', "ACCEPTED", 'enforce = "none" ({config}:4)', id="not enforced"
        ),
        pytest.param(
            FORWARDED, STRANGER, 'enforce = "reject"', "QUARANTINED", "there is a List-Id field", id="maybe forwarded"
        ),
        pytest.param(FIELDS, STRANGER, "shadow = true", "ACCEPTED", "shadow = true ({config}:4)", id="shadow"),
        pytest.param(
            NO_AUTHOR, STRANGER, "", "QUARANTINED", 'no_author_domain = "quarantine" (default)', id="no author domain"
        ),
        pytest.param(
            FIELDS,
            STRANGER,
            'forwarder_networks = ["198.51.100.0/24", "203.0.113.0/24"]',
            "ACCEPTED",
            'forwarder_networks = ["198.51.100.0/24", "203.0.113.0/24"] ({config}:4)',
            id="a trusted forwarder",
        ),
        pytest.param(
            FIELDS, STRANGER, 'accept_domains = ["example.com"]', "ACCEPTED", "({config}:4)", id="an accepted domain"
        ),
        pytest.param(
            FORWARDED,
            STRANGER,
            'enforce = "reject"\nreject_domains = [\n  "example.com",\n]',
            "REJECTED",
            "({config}:5)",
            id="our own domain",
        ),
        pytest.param(
            FIELDS,
            {"client": "127.0.0.1"},
            "",
            "ACCEPTED",
            'networks = ["127.0.0.0/8", "::1/128"] (default)',
            id="this machine",
        ),
    ],
)
def test_each_verdict_names_the_configuration_behind_it(
    postmaster: Postmaster,
    fields: list[HeaderField],
    envelope: dict[str, str],
    configuration: str,
    word: str,
    setting: str,
) -> None:
    postmaster.configure(configuration)
    done = postmaster.run(octets(fields), **envelope)
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    first, _, rest = word.partition(" ")
    assert text.startswith(first)
    assert rest in text
    assert setting.replace("{config}", str(postmaster.config)) in text


def test_the_file_of_conf_d_that_decides_is_named(postmaster: Postmaster) -> None:
    extra = postmaster.folder / "conf.d"
    extra.mkdir()
    postmaster.configure('enforce = "none"')
    (extra / "strict.toml").write_text('# ours\n[auth-verify]\n  enforce   =   "reject"\n')
    settings = postmaster.json(octets(FIELDS), **STRANGER)["verdict"]["settings"]
    assert settings == [
        {"key": "auth-verify.enforce", "value": '"reject"', "file": str(extra / "strict.toml"), "line": 3}
    ]


def test_what_the_dns_leaves_open_is_told(postmaster: Postmaster) -> None:
    postmaster.configure('on_temperror = "tempfail"')
    postmaster.config.write_text(
        postmaster.config.read_text() + '[dns]\nnameservers = ["127.0.0.1:9"]\ntimeout = "50ms"\ndeadline = "100ms"\n'
    )
    path = postmaster.folder / "message.eml"
    path.write_bytes(octets(FIELDS))
    done = postmaster.bare(str(path), "--client-ip", "192.0.2.7", "--mail-from", "", "--config", str(postmaster.config))
    text = " ".join(done.output.split())
    assert text.startswith("DEFERRED The DNS leaves open whether DMARC passes")
    assert "451 4.4.3" in text
    assert f'on_temperror = "tempfail" ({postmaster.config}:4)' in text
    assert "adds nothing: the message is not accepted" in text


RECEIVED = HeaderField(
    b"Received",
    b" from mail.example.com (mail.example.com [192.0.2.7])\r\n\tby mx.receiver.example (Postfix) with ESMTP id 4X\r\n"
    b"\tfor <suzie@receiver.example>; Sat, 21 Nov 2026 12:00:00 +0000",
)
RETURN_PATH = HeaderField(b"Return-Path", b" <joe@example.com>")
CLAIM = FORGED[0]


def stored(postmaster: Postmaster, fields: list[HeaderField], *options: str) -> Result:
    path = postmaster.folder / "message.eml"
    path.write_bytes(octets(fields).replace(b"\r\n", b"\n"))
    return postmaster.bare(str(path), "--zone", str(postmaster.zone), "--config", str(postmaster.config), *options)


def test_the_envelope_is_read_from_the_fields_on_top(postmaster: Postmaster) -> None:
    found = json.loads(stored(postmaster, [RETURN_PATH, RECEIVED, *FIELDS], "--json").output)
    source = "Received field 1, by mx.receiver.example"
    assert found["envelope"]["client_address"] == {"value": "192.0.2.7", "source": source}
    assert found["envelope"]["mail_from"] == {"value": "joe@example.com", "source": "Return-Path field"}
    assert found["envelope"]["time"]["value"] == "2026-11-21 12:00:00 UTC"
    assert (found["verdict"]["action"], found["stored_results"]) == ("accept", None)


def test_what_was_written_when_the_message_came_in_is_compared(postmaster: Postmaster) -> None:
    first = json.loads(stored(postmaster, [RETURN_PATH, RECEIVED, *FIELDS], "--json").output)["authentication_results"]
    same = HeaderField(b"Authentication-Results", b" " + first.replace("; ", ";\r\n ").encode())
    text = " ".join(stored(postmaster, [RETURN_PATH, same, RECEIVED, *FIELDS]).output.split())
    assert "then the field that was written when it came in says the same" in text
    text = " ".join(stored(postmaster, [RETURN_PATH, CLAIM, RECEIVED, *FIELDS]).output.split())
    assert "says otherwise" in text
    assert text.endswith("Authentication-Results: mx.receiver.example; dmarc=pass")


def test_what_the_sender_wrote_is_never_taken_for_ours(postmaster: Postmaster) -> None:
    done = json.loads(stored(postmaster, [RETURN_PATH, RECEIVED, CLAIM, *FIELDS], "--json").output)
    assert done["stored_results"] is None
    assert done["verdict"]["edits"][0] == {"edit": "delete", "name": "Authentication-Results", "occurrence": 1}
    assert any("deletes one Authentication-Results field" in note for note in done["notes"])


def test_a_client_that_logged_in_is_not_judged(postmaster: Postmaster) -> None:
    found = postmaster.json(octets(FIELDS), "--login", "alice")
    assert (found["verdict"]["trust"], found["verdict"]["outcome"], found["dns"]) == ("authenticated", None, [])
    assert found["authentication_results"].startswith("mx.receiver.example; auth=pass smtp.auth=alice")
    assert "The client logged in" in postmaster.run(octets(FIELDS), "--login", "alice").output


def test_stdin_is_a_message(postmaster: Postmaster) -> None:
    options = ["--client-ip", "192.0.2.7", "--mail-from", "<joe@example.com>", "--zone", str(postmaster.zone)]
    done = CliRunner().invoke(
        main, ["explain", "-", *options, "--config", str(postmaster.config)], input=octets(FIELDS)
    )
    assert (done.exit_code, done.output.split()[0]) == (0, "ACCEPTED")


def test_several_zone_files_are_one(postmaster: Postmaster) -> None:
    extra = postmaster.folder / "extra"
    extra.write_text('$ORIGIN weak.example.\n@ TXT "v=other"\nmore TXT "v=spf1 ip4:192.0.2.7 -all"\n')
    found = postmaster.json(octets(FIELDS), "--zone", str(extra), mail_from="a@more.weak.example")
    assert found["spf"]["mailfrom"]["result"] == "pass"
    assert found["dmarc"][0]["policy"] == "reject"
    assert f"The answers are from {postmaster.zone}, {extra}, not from the DNS." in found["notes"]


@pytest.mark.parametrize(
    ("options", "status", "why"),
    [
        pytest.param(["{folder}/none.eml"], EX_NOINPUT, "none.eml: No such file", id="no such message"),
        pytest.param(["{folder}"], EX_NOINPUT, "Is a directory", id="a folder"),
        pytest.param(["{eml}", "--zone", "{folder}/none"], EX_NOINPUT, "none: No such file", id="no such zone file"),
        pytest.param(["{eml}", "--zone", "{eml}"], 2, "message.eml", id="a zone file that is none"),
        pytest.param(["{eml}", "--client-ip", "mail.example"], 2, "expected an IP address", id="a client that is none"),
        pytest.param(["{eml}", "--now", "yesterday"], 2, "expected a time", id="a time that is none"),
        pytest.param(
            ["{eml}", "--config", "{folder}/none.toml"], EX_CONFIG, "none.toml: cannot be read", id="no config"
        ),
        pytest.param(["{eml}", "--config", "{eml}"], EX_CONFIG, "message.eml", id="a config that is none"),
        pytest.param(["{large}"], EX_DATAERR, "552", id="a header too large"),
        pytest.param([], 2, "MESSAGE.eml", id="no message"),
    ],
)
def test_what_is_wrong_has_its_exit_status(postmaster: Postmaster, options: list[str], status: int, why: str) -> None:
    folder = postmaster.folder
    (folder / "message.eml").write_bytes(octets(FIELDS))
    (folder / "large.eml").write_bytes(b"A: 1\n" * 20_001)
    names = {"{folder}": str(folder), "{eml}": str(folder / "message.eml"), "{large}": str(folder / "large.eml")}
    for name, path in names.items():
        options = [option.replace(name, path) for option in options]
    done = postmaster.bare(
        *options, *(["--mail-from", "", "--client-ip", "::1"] if "--client-ip" not in options else [])
    )
    assert (done.exit_code, why in done.output) == (status, True), done.output


def test_a_client_that_cannot_be_told_names_the_option(postmaster: Postmaster) -> None:
    path = postmaster.folder / "message.eml"
    path.write_bytes(octets(FIELDS))
    done = postmaster.bare(str(path), "--zone", str(postmaster.zone))
    assert done.exit_code == 2
    assert "--client-ip" in done.output


def test_without_a_configuration_the_defaults_judge_and_that_is_told(
    postmaster: Postmaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, usual = postmaster.folder / "message.eml", postmaster.folder / "usual.toml"
    path.write_bytes(octets(FIELDS))
    config = next(option for option in explain.params if option.name == "config")
    monkeypatch.setattr(config, "default", usual)
    done = postmaster.bare(str(path), "--client-ip", "192.0.2.7", "--mail-from", "", "--zone", str(postmaster.zone))
    assert done.exit_code == 0, done.output
    assert f"There is no {usual}: judged by the defaults." in " ".join(done.output.split())
