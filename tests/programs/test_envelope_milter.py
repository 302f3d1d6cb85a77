"""The milter edge of a program that judges recipients and never sees the content, with a real libmilter."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs.signer import ROOT
from tests.support.milter_client import NO_BODY, NO_DATA, NO_END_OF_HEADER, NO_HEADER, NO_RCPT, MilterSession
from tests.support.processes import Program, answers_on_socket, open_folder, wait_until


@pytest.fixture(scope="module")
def milter() -> Iterator[Program]:
    with open_folder() as folder:
        path = folder / "envelope.sock"
        command = [sys.executable, "-m", "tests.programs.envelope_milter", str(path)]
        program = Program("envelope", command, folder, is_ready=lambda: answers_on_socket(path), working_folder=ROOT)
        program.start()
        yield program
        program.stop()


@pytest.fixture
def session(milter: Program) -> Iterator[MilterSession]:
    opened = open_session(milter)
    yield opened
    opened.close()


def open_session(milter: Program) -> MilterSession:
    opened = MilterSession(str(Path(milter.folder / "envelope.sock")))
    opened.connect()
    opened.helo()
    return opened


def test_neither_header_nor_body_is_asked_for(session: MilterSession) -> None:
    assert session.steps & (NO_HEADER | NO_END_OF_HEADER | NO_BODY) == NO_HEADER | NO_END_OF_HEADER | NO_BODY
    assert not session.steps & (NO_RCPT | NO_DATA)


def test_only_the_recipient_concerned_is_deferred(session: MilterSession) -> None:
    session.mail(b"a@example.com")
    assert session.recipient(b"one@example.net").reply == "c"
    deferred = session.recipient(b"defer@example.net")
    assert (deferred.reply, deferred.text) == ("y", "450 4.7.1 Come again in 60 seconds")
    assert session.recipient(b"two@example.net").reply == "c"
    assert session.data().reply == "a"


def test_a_refusal_is_one_line_of_printable_text(session: MilterSession) -> None:
    session.mail(b"a@example.com")
    assert session.recipient(b"refuse@example.net").text == "550 5.7.1 100%% noX-Evil: 1"  # Postfix makes one of two


def test_the_queue_id_and_every_recipient_are_known_at_data(milter: Program, session: MilterSession) -> None:
    session.mail(b"known@example.com")
    session.recipient(b"defer@known.example")
    session.recipient(b"c@known.example")
    session.data("4QKNOWN")
    line = '{"rcpt_to": ["defer@known.example", "c@known.example"], "queue_id": "4QKNOWN"}'
    wait_until(lambda: line in milter.output(), "the filter's line")


def test_a_message_deferred_at_its_end_is_deferred_as_a_whole(session: MilterSession) -> None:
    session.mail(b"")
    assert session.recipient(b"b@example.net").reply == "c"
    assert session.data().reply == "c"
    assert session.end_of_message().text == "450 4.7.1 Come again in 60 seconds"
    session.mail(b"a@example.com")
    assert session.recipient(b"defer@example.net").reply == "y"


def test_a_field_is_added_at_the_end_without_the_content(session: MilterSession) -> None:
    session.mail(b"field")
    session.recipient(b"b@example.net")
    assert session.data().reply == "c"
    outcome = session.end_of_message()
    assert (outcome.reply, outcome.inserted("X-Told")) == ("a", [b" yes"])


@pytest.mark.parametrize(("mail_from", "reply"), [(b"a@example.com", "a"), (b"field", "a"), (b"", "y")])
def test_an_mta_that_does_not_say_data_is_answered_at_the_end(
    milter: Program, session: MilterSession, mail_from: bytes, reply: str
) -> None:
    session.mail(mail_from)
    session.recipient(b"b@old.example")
    assert session.end_of_message("4QOLD").reply == reply
    line = '{"rcpt_to": ["b@old.example"], "queue_id": "4QOLD"}'
    wait_until(lambda: line in milter.output(), "the filter's line")
    assert '{"failed": "end-of-message"}' not in milter.output()


@pytest.mark.parametrize("stage", ["rcpt", "data"])
def test_what_is_raised_becomes_the_programs_own_failure_verdict(milter: Program, stage: str) -> None:
    session = open_session(milter)
    session.mail(b"raise-at-data" if stage == "data" else b"a@example.com")
    reply = session.recipient(b"raise@example.net" if stage == "rcpt" else b"b@example.net").reply
    assert reply == ("a" if stage == "rcpt" else "c")
    if stage == "data":
        assert session.data().reply == "a"
    session.close()
    wait_until(lambda: f'{{"failed": "{stage}"}}' in milter.output(), "the report of the exception")
    again = open_session(milter)
    again.mail(b"a@example.com")
    assert again.recipient(b"defer@example.net").reply == "y"
    again.close()


def test_a_second_message_of_a_session_is_judged_by_itself(session: MilterSession) -> None:
    session.mail(b"a@example.com")
    session.recipient(b"defer@example.net")
    session.abort()
    session.mail(b"field")
    assert session.recipient(b"b@example.net").reply == "c"
    assert session.data().reply == "c"
    assert session.end_of_message().reply == "a"


def test_sessions_beyond_the_limit_get_the_failure_verdict(milter: Program) -> None:
    kept = [open_session(milter) for _ in range(2)]
    refused = open_session(milter)
    refused.mail(b"a@example.com")
    assert refused.recipient(b"defer@example.net").reply == "a"
    for session in (*kept, refused):
        session.close()
