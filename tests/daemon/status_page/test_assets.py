"""The page's colours by day and by night: text can be read, and bars can be seen, on what is behind them (WCAG 2)."""

from __future__ import annotations

import re

import pytest

from mailward.daemon.shown import Tone
from mailward.daemon.status_page.assets import STYLE

SCHEMES = [dict(re.findall(r"--(\w+):(#[0-9a-f]+)", block)) for block in re.findall(r":root\{([^}]*)\}", STYLE)]
TEXT = ("ink", "dim", "link", "good", "odd", "bad")


def brightness(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted(map(brightness, (one, other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("behind", ["paper", "card"])
@pytest.mark.parametrize("scheme", SCHEMES, ids=["day", "night"])
def test_text_can_be_read_and_bars_can_be_seen(scheme: dict[str, str], behind: str) -> None:
    assert {name for name in TEXT if contrast(scheme[name], scheme[behind]) < 4.5} == set()
    assert {tone for tone in Tone if contrast(scheme[tone.value], scheme[behind]) < 3.0} == set()


def test_there_are_two_schemes() -> None:
    assert len(SCHEMES) == 2
