"""A message in a file, read as a milter would see it, and who sent it, told by options or by the fields on top."""

from __future__ import annotations

import io
from typing import BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailward.model.message import HeaderField
from postmaster.explain.envelope import Given, Received, Untold, find_sending, read_received
from postmaster.explain.layout import Page, Span, printable
from postmaster.explain.stored_message import MAX_HEADER_FIELDS, HeaderTooLarge, StoredMessage

NOW = 1_795_000_000.0


def read(octets: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    message = StoredMessage(io.BytesIO(octets))
    body = b"".join(message.body())
    assert message.body_octets == len(body)
    return [(field.name, field.raw_value) for field in message.header], body


@pytest.mark.parametrize(
    ("octets", "header", "body"),
    [
        pytest.param(b"A: 1\r\nB: 2\r\n\r\nx\r\n", [(b"A", b" 1"), (b"B", b" 2")], b"x\r\n", id="CRLF"),
        pytest.param(b"A: 1\nB: 2\n\nx\ny\n", [(b"A", b" 1"), (b"B", b" 2")], b"x\r\ny\r\n", id="LF becomes CRLF"),
        pytest.param(b"A: 1\n\t2\n  3\n\n", [(b"A", b" 1\r\n\t2\r\n  3")], b"", id="folds are CRLF + white space"),
        pytest.param(b"From a@b Sat\nA: 1\n\nx", [(b"A", b" 1")], b"x", id="the From line of an mbox is skipped"),
        pytest.param(
            b"A:1\nB :2\n\n", [(b"A", b"1"), (b"B ", b"2")], b"", id="the name and its space stay as they are"
        ),
        pytest.param(b"A: 1\n", [(b"A", b" 1")], b"", id="no body"),
        pytest.param(b"A: 1", [(b"A", b" 1")], b"", id="no line end"),
        pytest.param(b"\nx\n", [], b"x\r\n", id="no header"),
        pytest.param(b"", [], b"", id="nothing at all"),
        pytest.param(b"no field\nx\n", [], b"no field\r\nx\r\n", id="a line that is no field begins the body"),
        pytest.param(b" A: 1\n\nx", [], b" A: 1\r\n\r\nx", id="a fold of nothing begins the body"),
        pytest.param(b"\xc3\xa4: 1\n\nx", [], b"\xc3\xa4: 1\r\n\r\nx", id="a name of 8-bit octets is none"),
        pytest.param(b"A: \xff\x00\x1b\n\n", [(b"A", b" \xff\x00\x1b")], b"", id="any octets stay in a value"),
        pytest.param(b"\n\r\r\n\r", [], b"\r\r\n\r", id="a CR alone stays"),
    ],
)
def test_a_message_is_cut_as_postfix_cuts_it(octets: bytes, header: list[tuple[bytes, bytes]], body: bytes) -> None:
    assert read(octets) == (header, body)


@given(st.binary(max_size=300), st.lists(st.sampled_from([b"\r", b"\n", b"a", b":", b" ", b"\r\n", b"A: b\n"])))
def test_any_octets_are_a_message(octets: bytes, parts: list[bytes]) -> None:
    for message in (octets, b"".join(parts)):
        header, body = read(message)
        assert all(name for name, _ in header)
        assert b"\n" not in body.replace(b"\r\n", b"")


def test_a_line_end_between_two_chunks_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postmaster.explain.stored_message.CHUNK", 1)
    assert read(b"\na\r\nb\nc\r\r\nd\r") == ([], b"a\r\nb\r\nc\r\r\nd\r")


class Octets(io.RawIOBase):
    """A message of an empty header and as many octets as wanted, made while it is read."""

    def __init__(self, size: int) -> None:
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        size = min(self._left, len(buffer))
        self._left -= size
        buffer[:size] = b"\n" * size
        return size


def test_a_huge_body_is_never_held_whole() -> None:
    message = StoredMessage(cast(BinaryIO, io.BufferedReader(Octets(50_000_001))))
    assert max(len(chunk) for chunk in message.body()) <= 2 * 64 * 1024
    assert message.body_octets == 100_000_000


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"A: 1\n" * (MAX_HEADER_FIELDS + 1), id="too many fields"),
        pytest.param(b"A: " + b"x" * 17_000_000, id="one endless field"),
        pytest.param((b"A: 1\n" + b" x" * 500 + b"\n") * 17_000, id="too many octets in folds"),
    ],
)
def test_a_header_beyond_the_milters_bounds_is_not_judged(octets: bytes) -> None:
    with pytest.raises(HeaderTooLarge):
        StoredMessage(io.BytesIO(octets))


POSTFIX = (
    b" from mail.example.org (mail.example.org [192.0.2.7])\r\n"
    b"\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)\r\n\t key-exchange X25519)\r\n"
    b'\t(Client CN "x (by evil.example with ESMTPA id) [203.0.113.9]", Issuer "y" (not verified))\r\n'
    b"\tby mx.example.net (Postfix) with ESMTPS id 4XyZ\r\n"
    b"\tfor <bob@example.net>; Sat, 21 Nov 2026 12:00:04 +0100 (CET)"
)
AT_NOON = 1_795_258_804.0
LMTP = b" from imap.example.net ([127.0.0.1])\r\n\tby imap.example.net with LMTP id a; Sat, 21 Nov 2026 12:00:05 +0100"


def postfix(client: bytes = b"(mail.example.org [192.0.2.7])", with_: bytes = b"ESMTP", more: bytes = b"") -> bytes:
    return b" from helo.example " + client + more + b" by mx.example.net (Postfix) with " + with_ + b" id 4X; no date"


@pytest.mark.parametrize(
    ("raw_value", "expected"),
    [
        pytest.param(
            POSTFIX,
            Received(1, "mail.example.org", "mail.example.org", "192.0.2.7", "mx.example.net", "", AT_NOON),
            id="what a client's certificate says is no part of the field",
        ),
        pytest.param(
            postfix(b"(unknown [IPv6:2001:db8::1])"),
            Received(1, "helo.example", "unknown", "2001:db8::1", "mx.example.net"),
            id="an IPv6 client without a name",
        ),
        pytest.param(
            postfix(with_=b"ESMTPSA", more=b" (Authenticated sender: alice)"),
            Received(1, "helo.example", "mail.example.org", "192.0.2.7", "mx.example.net", "alice"),
            id="a client that logged in",
        ),
        pytest.param(
            postfix(with_=b"UTF8SMTPSA"),
            Received(1, "helo.example", "mail.example.org", "192.0.2.7", "mx.example.net", "unknown"),
            id="a client that logged in, and nobody wrote as whom",
        ),
        pytest.param(
            b" by mx.example.net (Postfix, from userid 1000)\r\n\tid 4X; Sat, 21 Nov 2026 12:00:04 +0100",
            Received(1, by="mx.example.net", time=AT_NOON),
            id="sendmail(1) has no client",
        ),
        pytest.param(
            b" from with (name.example [192.0.2.7]) by by (Postfix) with SMTP id 4X; ",
            Received(1, "with", "name.example", "192.0.2.7", "by"),
            id="names that look like the grammar's words",
        ),
        pytest.param(postfix(b"(mail.example.org [300.0.2.7])"), None, id="no address"),
        pytest.param(postfix(b"([192.0.2.7] helo=x)"), None, id="another program's form"),
        pytest.param(b" by 2002:a05:6402 with SMTP id x; Sat, 21 Nov 2026 12:00:04 +0100", None, id="no client at all"),
        pytest.param(b" from " + b"(" * 8000, None, id="parentheses without end"),
        pytest.param(b" from x" * 10_000, None, id="longer than any"),
        pytest.param(b"", None, id="nothing"),
    ],
)
def test_a_received_field_tells_the_client(raw_value: bytes, expected: Received | None) -> None:
    assert read_received(raw_value, 1) == expected


@given(st.binary(max_size=200) | st.from_regex(rb"\A from \S+ \(.{0,20}\[.{0,20}\]\).{0,20} by .{0,30};.{0,40}\Z"))
def test_any_octets_are_a_received_field(raw_value: bytes) -> None:
    found = read_received(raw_value, 1)
    assert found is None or found.by


def header(*received: bytes, path: bytes | None = b" <bob@example.org>") -> list[HeaderField]:
    fields = [HeaderField(b"Return-Path", path)] if path is not None else []
    return [*fields, *(HeaderField(b"Received", raw_value) for raw_value in received)]


def test_the_topmost_received_field_tells_and_a_local_delivery_is_passed_over() -> None:
    sending = find_sending(header(LMTP, POSTFIX, postfix(b"(x [192.0.2.99])")), Given(), NOW)
    envelope = sending.envelope
    assert (envelope.client_address, envelope.helo) == ("192.0.2.7", b"mail.example.org")
    assert (envelope.mail_from, envelope.login) == (b"bob@example.org", "")
    assert sending.client.source == "Received field 2, by mx.example.net"
    assert (sending.time, sending.judged_at.value) == (AT_NOON, "2026-11-21 11:00:04 UTC")


def test_options_come_before_what_the_message_tells() -> None:
    options = Given("203.0.113.5", "other.example", "", "carol", 86400.0)
    sending = find_sending(header(POSTFIX), options, NOW)
    envelope = sending.envelope
    assert (envelope.client_address, envelope.helo) == ("203.0.113.5", b"other.example")
    assert (envelope.mail_from, envelope.login, sending.time) == (b"", "carol", 86400.0)
    sources = [sending.client.source, sending.helo.source, sending.mail_from.source, sending.login.source]
    assert sources == ["--client-ip", "--helo", "--mail-from", "--login"]


def test_another_received_field_can_be_asked_for() -> None:
    sending = find_sending(header(postfix(b"(localhost [127.0.0.1])"), POSTFIX), Given(received=2), NOW)
    assert sending.client.value == "192.0.2.7"


def test_without_a_date_that_can_be_read_it_is_now() -> None:
    assert find_sending(header(postfix()), Given(), NOW).time == NOW


@pytest.mark.parametrize(
    ("fields", "options", "option"),
    [
        pytest.param(header(), Given(), "--client-ip", id="no Received field"),
        pytest.param(
            header(b" gibberish", POSTFIX), Given(), "--client-ip", id="never the next field: it may be the sender's"
        ),
        pytest.param(header(POSTFIX, path=None), Given(), "--mail-from", id="no Return-Path"),
        pytest.param(header(POSTFIX, path=b" bob"), Given(), "--mail-from", id="a Return-Path that is none"),
        pytest.param(header(POSTFIX), Given(received=2), "--received 2", id="no such Received field"),
        pytest.param(
            header(b" gibberish"), Given(received=1), "--client-ip", id="a Received field that cannot be read"
        ),
    ],
)
def test_what_cannot_be_told_names_the_option_that_tells(
    fields: list[HeaderField], options: Given, option: str
) -> None:
    with pytest.raises(Untold, match=option):
        find_sending(fields, options, NOW)


@given(st.text(max_size=60), st.integers(min_value=20, max_value=120))
def test_nothing_passes_the_page_raw_or_runs_over_its_edge(text: str, width: int) -> None:
    page = Page(width)
    page.heading("Head", text)
    page.row("label", Span(text), text)
    page.line(text, indent=30)
    for line in str(page).replace("\x1b[1m", "").replace("\x1b[2m", "").replace("\x1b[0m", "").split("\n"):
        assert line.isascii()
        assert line.isprintable()
        assert len(line) <= max(width, 50)


def test_a_page_loses_nothing() -> None:
    page = Page(60)
    page.row("label", " ".join(f"word{number}" for number in range(60)), "x" * 200)
    text = str(page)
    assert [f"word{number}" in text for number in range(60)] == [True] * 60
    assert text.count("x") == 200


@given(st.text(), st.text())
def test_different_texts_are_never_shown_alike(one: str, other: str) -> None:
    assert printable(one).isascii()
    assert (printable(one) == printable(other)) == (one == other)


def test_an_octet_is_shown_as_an_octet() -> None:
    assert printable(b"\x1b[2J \xe2\x80\xae \xff".decode("utf-8", "surrogateescape")) == r"\x1b[2J \u{202e} \xff"
