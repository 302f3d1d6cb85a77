"""Plots as SVG: well-formed whatever is drawn, and as high as it should be."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailward.daemon.status_page.plots import HEIGHT, Row, bars

BAR = re.compile(r"M(\d+) ([\d.]+)h8v([\d.]+)h-8z")


def drawn(svg: str) -> dict[str, list[tuple[float, float, float]]]:
    """Return by colour each bar's left edge, top and height."""
    root = ElementTree.fromstring(svg)
    return {
        path.attrib["class"]: [tuple(map(float, bar)) for bar in BAR.findall(path.attrib["d"])]  # type: ignore[misc]
        for path in root.findall("path")
    }


def test_bars_stand_on_each_other_and_the_highest_fills_the_plot() -> None:
    paths = drawn(bars([Row("good", [1.0, 3.0]), Row("bad", [1.0, 1.0])], "x"))
    assert paths == {"good": [(0, 75, 25), (10, 25, 75)], "bad": [(0, 50, 25), (10, 0, 25)]}


def test_where_nothing_happened_nothing_is_drawn() -> None:
    assert drawn(bars([Row("good", [0.0] * 60), Row("bad", [0.0] * 60)], "x")) == {}
    assert drawn(bars([], "x")) == {}


@pytest.mark.parametrize("odd", [-5.0, math.nan, math.inf, -math.inf, 1e300])
def test_a_number_that_nobody_can_have_counted_is_not_drawn(odd: float) -> None:
    assert drawn(bars([Row("good", [5.0, odd]), Row("bad", [odd, 5.0])], "x")) == {
        "good": [(0, 0, 100)],
        "bad": [(10, 0, 100)],
    }
    assert drawn(bars([Row("good", [odd, 5.0]), Row("bad", [5.0, -5.0])], "x"))["good"] == [(10, 0, 100)]


def test_what_it_says_is_escaped() -> None:
    svg = bars([Row('"><script>', [1.0])], '"><script>alert(1)</script>')
    root = ElementTree.fromstring(svg)
    assert root.attrib["aria-label"] == '"><script>alert(1)</script>'
    assert [child.tag for child in root] == ["title", "path"]


@given(
    st.integers(1, 100).flatmap(
        lambda length: st.lists(st.lists(st.floats(0, 1e12), min_size=length, max_size=length), min_size=1, max_size=5)
    )
)
def test_no_numbers_leave_the_plot(rows: list[list[float]]) -> None:
    paths = drawn(bars([Row(f"t{number}", values) for number, values in enumerate(rows)], "x"))
    for boxes in paths.values():
        for _, top, height in boxes:
            assert -0.1 <= top <= HEIGHT + 0.1
            assert top + height <= HEIGHT + 0.2
