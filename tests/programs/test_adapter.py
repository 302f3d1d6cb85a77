"""The milter edge with a real libmilter: every octet arrives, nothing raised lets a message through."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.programs.signer import ROOT
from tests.support.milter_client import EVERYTHING, LEADING_SPACE, NO_DATA, NO_END_OF_HEADER, Dropped, MilterSession
from tests.support.processes import Program, answers_on_socket, open_folder, wait_until

FROM = (b"From", b" a@example.com")


class ProbeMilter(Program):
    """The probe as a process."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "probe.sock")
        command = [sys.executable, "-m", "tests.programs.probe_milter", self.path]
        ready = lambda: answers_on_socket(Path(self.path))
        super().__init__("probe", command, folder, is_ready=ready, working_folder=ROOT)

    def session(self, **options: Any) -> MilterSession:
        """Open a session up to HELO."""
        session = MilterSession(self.path, **options)
        session.connect()
        session.helo()
        return session

    def seen(self) -> list[dict[str, Any]]:
        """Return what the probe has written."""
        return [json.loads(line) for line in self.output().splitlines() if line.startswith("{")]

    def last(self) -> dict[str, Any]:
        """Return the last message it has seen."""
        return [line for line in self.seen() if "header" in line][-1]


@pytest.fixture(scope="module")
def probe() -> Iterator[ProbeMilter]:
    with open_folder() as folder:
        milter = ProbeMilter(folder)
        milter.start()
        yield milter
        milter.stop()


def latin(octets: bytes) -> str:
    return octets.decode("latin-1")


def test_envelope_macros_and_header_arrive_as_they_are(probe: ProbeMilter) -> None:
    session = MilterSession(probe.path)
    session.connect("2001:db8::1", b"mx.example.net", daemon="ORIGINATING")
    session.helo(b"helo.example")
    fields = [FROM, (b"Subject", b"  two spaces\n\tand a fold "), (b"X-Latin", b" caf\xe9"), (b"X-Empty", b"")]
    outcome = session.message(fields, login="jörg".encode(), mail_from="ü@example.com".encode(), queue_id="4QID")
    session.close()
    seen = probe.last()
    assert outcome.reply == "a"
    assert seen["client"] == ["2001:db8::1", "mx.example.net", "ORIGINATING"]
    assert (seen["helo"], seen["queue_id"], seen["login"][0]) == ("helo.example", "4QID", "jörg")
    assert seen["mail_from"] == latin("ü@example.com".encode())
    assert seen["rcpt_to"] == ["rcpt@example.net"]
    assert seen["header"] == [
        ["From", " a@example.com"],
        ["Subject", "  two spaces\r\n\tand a fold "],
        ["X-Latin", latin(b" caf\xe9")],
        ["X-Empty", ""],
    ]


@pytest.mark.parametrize("octets", [b"caf\xe9.example", b"\xff\xfe", b"a\xc3"], ids=repr)
def test_a_helo_that_is_no_utf8_leaves_the_session_alive(probe: ProbeMilter, octets: bytes) -> None:
    session = MilterSession(probe.path)
    session.connect()
    session.helo(octets)
    assert session.message([FROM]).reply == "a"
    assert probe.last()["helo"] == ""
    session.close()


def test_addresses_and_login_that_are_no_utf8_leave_the_session_alive(probe: ProbeMilter) -> None:
    session = probe.session()
    assert session.message([FROM], mail_from=b"\xff@example.com").reply == "a"
    assert probe.last()["mail_from"] == latin(b"\xff@example.com")
    # Whose rights to ask for cannot be told: such a message must not pass as one without a login.
    assert session.message([FROM], login=b"\xff\xfe").text == "451 4.3.0 failed at login"
    session.close()


def test_a_client_name_that_is_no_utf8_passes_nothing_as_unknown(probe: ProbeMilter) -> None:
    session = MilterSession(probe.path)
    session.connect(name=b"\xff.example")
    assert session.message([FROM]).text == "451 4.3.0 failed at connect"
    session.close()


def test_an_end_of_message_without_an_end_of_header_is_no_message(probe: ProbeMilter) -> None:
    session = probe.session()
    session.steps |= NO_END_OF_HEADER
    assert session.message([], b"").text == "451 4.3.0 failed at end-of-message"
    session.close()


@pytest.mark.parametrize("size", [64_000, 66_000, 100_000, 102_400], ids=str)
def test_header_fields_beyond_libmilters_own_limit_pass(probe: ProbeMilter, size: int) -> None:
    session = probe.session()
    value = b" " + b"x" * (size - 1)
    assert session.message([FROM, (b"References", value)]).reply == "a"
    assert probe.last()["header"][1] == ["References", latin(value)]
    session.close()


def test_thousands_of_header_fields_pass_and_twenty_thousand_do_not(probe: ProbeMilter) -> None:
    session = probe.session()
    assert session.message([FROM, *[(b"X", b" y")] * 5_000]).reply == "a"
    assert len(probe.last()["header"]) == 5_001
    outcome = session.message([FROM, *[(b"X", b" y")] * 20_001])
    assert outcome.text.startswith("451 4.3.0 failed at header-too-large")
    assert session.message([FROM]).reply == "a"
    session.close()


@pytest.mark.parametrize("stage", ["end-of-header", "body", "end-of-message"])
def test_a_bug_at_any_stage_defers_the_message_and_not_the_next(probe: ProbeMilter, stage: str) -> None:
    session = probe.session()
    outcome = session.message([FROM, (b"X-Raise", b" " + stage.encode())])
    assert outcome.text == f"451 4.3.0 failed at {stage}"
    assert probe.seen()[-1] == {"exception": stage}
    assert session.message([FROM]).reply == "a"
    session.close()


def test_a_bug_where_no_reply_is_due_is_not_swallowed(probe: ProbeMilter) -> None:
    session = probe.session()
    outcome = session.message([FROM], mail_from=b"raise-at-mail")
    assert outcome.text == "451 4.3.0 failed at mail"
    assert session.message([FROM]).reply == "a"
    session.close()


@pytest.mark.parametrize("sender", [b"fail-to-report", b"fail-to-fail"])
@pytest.mark.parametrize("stage", ["end-of-header", "body", "end-of-message"])
def test_a_bug_that_cannot_even_be_reported_lets_nothing_through(probe: ProbeMilter, stage: str, sender: bytes) -> None:
    session = probe.session()
    outcome = session.message([FROM, (b"X-Raise", b" " + stage.encode())], mail_from=sender)
    assert outcome.reply == "t" or outcome.text == f"451 4.3.0 failed at {stage}"
    session.close()


@pytest.mark.parametrize(
    ("verdict", "reply", "text"),
    [
        ("accept", "a", ""),
        ("reject", "y", "550 5.7.1 100%% noX-Evil: 1 end"),
        ("tempfail", "y", "451 4.7.1 later"),
        ("discard", "d", ""),
    ],
)
def test_verdicts_become_replies(probe: ProbeMilter, verdict: str, reply: str, text: str) -> None:
    session = probe.session()
    outcome = session.message([FROM, (b"X-Verdict", verdict.encode())])
    assert (outcome.reply, outcome.text) == (reply, text)
    session.close()


def test_hold_becomes_quarantine(probe: ProbeMilter) -> None:
    session = probe.session()
    outcome = session.message([FROM, (b"X-Verdict", b"hold")])
    assert (outcome.reply, outcome.edits) == ("a", [("quarantine", b"looks odd\0")])
    session.close()


def test_edits_come_in_the_verdicts_order_and_keep_their_folds(probe: ProbeMilter) -> None:
    session = probe.session()
    outcome = session.message([FROM, (b"X-Verdict", b" edit")])
    assert outcome.edits == [
        ("change", b"\0\0\0\2" + b"X-Old\0\0"),
        ("change", b"\0\0\0\1" + b"X-Old\0\0"),
        ("insert", b"\0\0\0\0" + b"X-New\0 a\n b\0"),
    ]
    session.close()


def test_only_what_is_needed_is_negotiated(probe: ProbeMilter) -> None:
    session = probe.session()
    assert session.steps & LEADING_SPACE
    assert session.steps & NO_DATA
    assert session.macros == {0: "{daemon_name}", 2: "i {auth_authen}"}
    session.close()


def test_an_mta_without_leading_space_sees_the_same_message(probe: ProbeMilter) -> None:
    session = probe.session(offer=EVERYTHING & ~LEADING_SPACE)
    outcome = session.message([(b"From", b" a@example.com"), (b"X-Verdict", b" edit")])
    assert probe.last()["header"][0] == ["From", " a@example.com"]
    assert outcome.edits[-1][1].endswith(b"X-New\0a\n b\0")
    session.close()


def test_an_mta_that_waits_for_every_reply_is_answered(probe: ProbeMilter) -> None:
    session = probe.session(offer=0)
    assert session.message([FROM], b"x" * 200_000).reply == "a"
    session.close()


def test_an_aborted_message_leaves_nothing_for_the_next(probe: ProbeMilter) -> None:
    session = probe.session()
    session.message([(b"X-Raise", b"end-of-header")])
    session.abort()
    assert session.message([FROM]).reply == "a"
    assert probe.last()["header"] == [["From", " a@example.com"]]
    session.close()


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.0\r\n\r\n", b"\0\0\0\0", b"\xff" * 64, os.urandom(200)], ids=len)
def test_garbage_ends_its_own_session_only(probe: ProbeMilter, garbage: bytes) -> None:
    session = MilterSession(probe.path, timeout=2)
    session.send_raw(garbage)
    with contextlib.suppress(Dropped, OSError):
        session.message([FROM])
    session.close()
    other = probe.session()
    assert other.message([FROM]).reply == "a"
    other.close()


def test_a_body_in_single_octets_is_a_body(probe: ProbeMilter) -> None:
    session = probe.session()
    assert session.message([FROM], b"a\r\nb\r\n" * 50, chunk=1).reply == "a"
    wait_until(lambda: probe.last()["octets"] == 300, "all octets")
    session.close()
