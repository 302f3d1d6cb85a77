"""Canonical bodies: against dkimpy's as the oracle, cut everywhere, and in linear time on what makes dkimpy quadratic."""

from __future__ import annotations

import hashlib
import sys
from itertools import pairwise
from types import FrameType
from typing import Any

import pytest
from dkim.canonicalization import Relaxed, Simple
from hypothesis import given
from hypothesis import strategies as st

from mailward.auth.body_hash import BodyDigest, BodyHash, Canonicalization

ORACLE = {Canonicalization.SIMPLE: Simple.canonicalize_body, Canonicalization.RELAXED: Relaxed.canonicalize_body}
PIECES = (b" ", b"\t", b"\r\n", b"\r", b"\n", b"a", b"bc", b"  ", b" \r\n", b"\r\n\r\n", b"\xff\x00", b" \t \r\n")

bodies = st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join) | st.binary(max_size=60)


def hash_in_pieces(body: bytes, cuts: list[int], canonicalization: Canonicalization) -> bytes:
    body_hash = BodyHash(canonicalization)
    borders = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    for start, end in pairwise(borders):
        body_hash.update(body[start:end])
    return body_hash.digest()


@pytest.mark.parametrize("canonicalization", list(Canonicalization))
@given(body=bodies, cuts=st.lists(st.integers(0, 60), max_size=6))
def test_agrees_with_dkimpy_however_the_body_is_cut(
    canonicalization: Canonicalization, body: bytes, cuts: list[int]
) -> None:
    # An MTA ends a body with a line end; without one dkimpy keeps white space that stands at the end of a line.
    body = body if body.endswith(b"\r\n") or not body else body + b"\r\n"
    expected = hashlib.sha256(ORACLE[canonicalization](body)).digest()
    assert hash_in_pieces(body, cuts, canonicalization) == expected


@pytest.mark.parametrize("canonicalization", list(Canonicalization))
@given(body=bodies)
def test_octet_by_octet_is_the_same_as_whole(canonicalization: Canonicalization, body: bytes) -> None:
    whole = hash_in_pieces(body, [], canonicalization)
    assert hash_in_pieces(body, list(range(len(body))), canonicalization) == whole


@pytest.mark.parametrize("canonicalization", list(Canonicalization))
@given(body=bodies, limit=st.integers(0, 80), chunk=st.integers(1, 30))
def test_a_limit_hashes_the_first_octets_of_the_canonical_body(
    canonicalization: Canonicalization, body: bytes, limit: int, chunk: int
) -> None:
    body = body if body.endswith(b"\r\n") or not body else body + b"\r\n"
    canonical = ORACLE[canonicalization](body)
    limited, whole = BodyHash(canonicalization, limit), BodyHash(canonicalization)
    for at in range(0, len(body), chunk):
        limited.update(body[at : at + chunk])
        whole.update(body[at : at + chunk])
    assert limited.finish() == BodyDigest(hashlib.sha256(canonical[:limit]).digest(), len(canonical))
    assert whole.finish() == BodyDigest(hashlib.sha256(canonical).digest(), len(canonical))


@pytest.mark.parametrize(
    ("canonicalization", "body", "canonical"),
    [
        pytest.param(Canonicalization.SIMPLE, b"", b"\r\n", id="simple: an empty body is one line end"),
        pytest.param(Canonicalization.RELAXED, b"", b"", id="relaxed: an empty body is nothing"),
        pytest.param(Canonicalization.SIMPLE, b"\r\n\r\n", b"\r\n", id="simple: blank lines are an empty body"),
        pytest.param(
            Canonicalization.RELAXED, b" \r\n\t\r\n", b"", id="relaxed: lines of white space are an empty body"
        ),
        pytest.param(Canonicalization.SIMPLE, b"x", b"x\r\n", id="simple: the last line gets its line end"),
        pytest.param(
            Canonicalization.RELAXED, b"x \t", b"x\r\n", id="relaxed: white space at the end of the last line"
        ),
        pytest.param(Canonicalization.SIMPLE, b"x \r\n", b"x \r\n", id="simple: white space stays"),
        pytest.param(
            Canonicalization.RELAXED, b" x\r\n", b" x\r\n", id="relaxed: white space before text is one space"
        ),
        pytest.param(Canonicalization.RELAXED, b"a\r b\r\n", b"a\r b\r\n", id="relaxed: a bare CR is content"),
        pytest.param(Canonicalization.RELAXED, b"a\nb\r\n", b"a\nb\r\n", id="relaxed: a bare LF is content"),
        pytest.param(Canonicalization.SIMPLE, b"a\r\n\r", b"a\r\n\r\r\n", id="simple: a bare CR at the very end"),
        pytest.param(
            Canonicalization.SIMPLE, b"a\r\n\r\r\n\r\n", b"a\r\n\r\r\n", id="simple: a bare CR before blank lines"
        ),
        pytest.param(
            Canonicalization.RELAXED, b" C \r\nD \t E\r\n\r\n\r\n", b" C\r\nD E\r\n", id="relaxed: RFC 6376 3.4.5"
        ),
        pytest.param(
            Canonicalization.SIMPLE, b" C \r\nD \t E\r\n\r\n\r\n", b" C \r\nD \t E\r\n", id="simple: RFC 6376 3.4.5"
        ),
    ],
)
def test_canonical_form(canonicalization: Canonicalization, body: bytes, canonical: bytes) -> None:
    assert hash_in_pieces(body, [], canonicalization) == hashlib.sha256(canonical).digest()


def test_a_million_blank_lines_before_text_are_content() -> None:
    body_hash = BodyHash(Canonicalization.RELAXED)
    for _ in range(100):
        body_hash.update(b"\r\n" * 10_000)
    body_hash.update(b"x\r\n")
    assert body_hash.digest() == hashlib.sha256(b"\r\n" * 1_000_000 + b"x\r\n").digest()


HOSTILE = {
    "spaces": b" ",
    "tabs": b"\t",
    "spaces and line ends": b" \r\n",
    "carriage returns": b"\r",
    "blank lines": b"\r\n",
    "words": b"a  ",
}


def steps(body: bytes, canonicalization: Canonicalization) -> int:
    """Return how many lines of Python run while `body` is hashed in chunks as libmilter cuts them."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    body_hash = BodyHash(canonicalization)
    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        for at in range(0, len(body), 65_535):
            body_hash.update(body[at : at + 65_535])
        body_hash.digest()
    finally:
        sys.settrace(previous)
    return count


@pytest.mark.parametrize("canonicalization", list(Canonicalization))
@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE.keys())
def test_work_grows_with_the_length_and_not_with_its_square(canonicalization: Canonicalization, unit: bytes) -> None:
    short = steps(unit * (2**20 // len(unit)), canonicalization)
    long = steps(unit * (2**22 // len(unit)), canonicalization)
    assert long <= 4.5 * short
    assert short <= 17 * 40  # a megabyte is seventeen chunks, and no line of ours runs for each octet


def test_nothing_is_kept_of_what_was_hashed() -> None:
    body_hash = BodyHash(Canonicalization.RELAXED)
    for _ in range(50):
        body_hash.update(b"x" * 60_000 + b" \t" * 2_000)
        assert len(body_hash._held) <= 2
