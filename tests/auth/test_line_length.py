"""Lines over 998 octets are found wherever the chunks are cut, and no others."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailward.auth.line_length import MAX_LINE, LongLineDetector, has_long_line
from mailward.model.message import HeaderField

lines = st.lists(st.sampled_from([0, 1, 500, 996, 997, 998, 999, 1000, 1500, 2500]), max_size=8)


def detect(body: bytes, cuts: list[int]) -> bool:
    detector = LongLineDetector()
    borders = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    for start, end in pairwise(borders):
        detector.update(body[start:end])
    return detector.found


@given(lengths=lines, cuts=st.lists(st.integers(0, 12_000), max_size=5))
def test_agrees_with_splitting_the_body_into_lines(lengths: list[int], cuts: list[int]) -> None:
    body = b"".join(b"x" * length + b"\r\n" for length in lengths)
    assert detect(body, cuts) == any(length > MAX_LINE for length in lengths)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        pytest.param(b"x" * 998, False, id="998 octets without a line end"),
        pytest.param(b"x" * 999, True, id="999 octets without a line end"),
        pytest.param(b"x" * 998 + b"\r", False, id="998 octets and half a line end"),
        pytest.param(b"x" * 998 + b"\r\n", False, id="998 octets and a line end"),
    ],
)
def test_borders(body: bytes, found: bool) -> None:
    assert detect(body, []) is found
    assert detect(body, [1, 997, 998]) is found


@pytest.mark.parametrize(
    ("raw_value", "is_long"),
    [
        pytest.param(b" " + b"x" * 989, False, id="998 octets with name and colon"),
        pytest.param(b" " + b"x" * 990, True, id="999 octets with name and colon"),
        pytest.param(b" x\r\n " * 1000, False, id="long, but folded"),
        pytest.param(b" x\r\n " + b"y" * 998, True, id="a long line behind a fold"),
    ],
)
def test_header_fields(raw_value: bytes, is_long: bool) -> None:
    assert has_long_line([HeaderField(b"From", b" a@b.c"), HeaderField(b"Subject", raw_value)]) is is_long
