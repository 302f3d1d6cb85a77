"""Structured fields: cut into tokens for certain or not at all, and what is written stays what it is."""

from __future__ import annotations

import contextlib
import gc
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailward.auth.structured import MAX_READ, Malformed, fold, harmless, quoted, segments


def cut(raw_value: bytes) -> list[str]:
    return [" ".join(f"{token.kind}:{token.text}" for token in part) for part in segments(raw_value)]


@pytest.mark.parametrize(
    ("raw_value", "parts"),
    [
        pytest.param(b"", [""], id="nothing"),
        pytest.param(b" a.example; b=c", ["w:a.example", "w:b =:= w:c"], id="words, an equals sign, a semicolon"),
        pytest.param(b" a (b; c=d) e", ["w:a w:e"], id="a comment holds no semicolon"),
        pytest.param(b"a(b)c", ["w:a w:c"], id="a comment parts words"),
        pytest.param(b"((a)(b (c)))d", ["w:d"], id="nested comments"),
        pytest.param(rb"(a\)b)c", ["w:c"], id="an escaped parenthesis"),
        pytest.param(b'(a " b)c', ["w:c"], id="a quote in a comment is no quote"),
        pytest.param(b'"a; (b"', ["q:a; (b"], id="a quoted string holds no semicolon and no comment"),
        pytest.param(rb'"a\"\\b"', ['q:a"\\b'], id="escapes in a quoted string"),
        pytest.param(b'"a"@b', ["q:a w:@b"], id="a quoted local part"),
        pytest.param(b"a\r\n\tb\n c", ["w:a w:b w:c"], id="folds"),
        pytest.param(b"h.b=a/+b==", ["w:h.b =:= w:a/+b =:= =:="], id="base64"),
        pytest.param("b\u00fccher (\u00a0)".encode(), ["w:b\u00fccher"], id="UTF-8"),
        pytest.param(b"ip=2001:db8::1;", ["w:ip =:= w:2001:db8::1", ""], id="unquoted IPv6, a semicolon at the end"),
    ],
)
def test_a_field_is_cut(raw_value: bytes, parts: list[str]) -> None:
    assert cut(raw_value) == parts


@pytest.mark.parametrize(
    "raw_value",
    [
        pytest.param(b"a (b", id="a comment that does not end"),
        pytest.param(b"a (b\\", id="a comment that ends in an escape"),
        pytest.param(b"a) b", id="a comment that never began"),
        pytest.param(b'a "b', id="quotes that do not end"),
        pytest.param(b'a "b\\"', id="quotes that end escaped"),
        pytest.param(b"a \\b", id="an escape outside of quotes"),
        pytest.param(b"a\x00b", id="NUL"),
        pytest.param(b"a (\x00)", id="NUL in a comment"),
        pytest.param(b"a\rb", id="CR alone"),
        pytest.param(b"a\nb", id="LF alone"),
        pytest.param(b"a\r\nb", id="a line that is no fold"),
        pytest.param(b"a\x0bb", id="vertical tab"),
        pytest.param(b"a\xff", id="no UTF-8"),
        pytest.param("a\u00a0b".encode(), id="white space only some readers know"),
        pytest.param(b"(" * 1000 + b")" * 1000, id="a thousand nested comments"),
        pytest.param(b"a" * (MAX_READ + 1), id="too long"),
    ],
)
def test_what_cannot_be_cut_for_certain_is_refused(raw_value: bytes) -> None:
    with pytest.raises(Malformed):
        segments(raw_value)


@pytest.mark.parametrize("piece", [b"(", b'"', b"()", b'"" ', b"\\", b";", b"= ", b'(a\\"', b"\r\n ", b'("'])
def test_cutting_takes_time_in_proportion(piece: bytes, request: pytest.FixtureRequest) -> None:
    def seconds(raw_value: bytes) -> float:
        begin = time.thread_time()
        for _ in range(10):
            with contextlib.suppress(Malformed):
                segments(raw_value)
        return time.thread_time() - begin

    request.addfinalizer(gc.enable)
    gc.disable()  # it would look through all that thousands of tests have left behind, again and again

    short, long = piece * (2_000 // len(piece)), piece * (32_000 // len(piece))
    assert seconds(long) < 16 * 8 * seconds(short) + 0.1


@given(st.text('ab.;="\\() \r\n\t\u00e9\x00', max_size=40).map(str.encode) | st.binary(max_size=40))
def test_any_octets_are_cut_or_refused(raw_value: bytes) -> None:
    try:
        parts = segments(raw_value)
    except Malformed:
        return
    assert len(parts) <= raw_value.count(b";") + 1
    assert all(token.kind in ("w", "q", "=") for part in parts for token in part)


ANY_TEXT = st.text(st.sampled_from('ab "\\();@=\r\n\x00\x7f\u00e9\u2028\udcff') | st.characters(), max_size=60)


@given(ANY_TEXT)
def test_a_quoted_string_is_one_token_of_printable_ascii(text: str) -> None:
    written = quoted(text, 50)
    assert written.isascii()
    assert written.isprintable()
    [[token]] = segments(written.encode())
    assert token.kind == "q"
    if len(text) <= 50 and text.isascii() and text.isprintable():
        assert token.text == " ".join(text.split())


@given(ANY_TEXT)
def test_harmless_text_ends_nothing(text: str) -> None:
    written = harmless(text, 50)
    assert written.isascii()
    assert written == "" or written.isprintable()
    assert len(written) <= 50
    assert not set(written) & set('"\\();')


@pytest.mark.parametrize("room", [10, 40, 77])
@given(words=st.lists(st.text("abc=", min_size=1, max_size=90), min_size=1, max_size=30))
def test_folding_loses_nothing_and_keeps_lines_short(words: list[str], room: int) -> None:
    text = " ".join(words)
    folded = fold(text, room)
    assert folded.replace("\r\n ", " ") == text
    first, *others = folded.split("\r\n")
    assert len(first) <= room or " " not in first
    assert all(len(line) <= 78 or " " not in line[1:] for line in others)
    assert all(line.strip() for line in folded.split("\r\n"))
