"""Where Postfix calls us is seen, kept, and what can never count there is told once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailward.model.limits import Window
from mailward.policy.limits import DEFAULT_LIMITS, Count, Limit
from policyd.stages import (
    ENOUGH,
    ENOUGH_SECONDS_WITHOUT_LOGIN,
    ENOUGH_WITHOUT_LOGIN,
    FORGOTTEN_SECONDS,
    StageObserver,
    shown_note,
    stages_of,
)

NOW = 1_767_225_600.0
DATA = {"protocol_state": "DATA", "sasl_username": "alice"}


class Told:
    """What was counted and told."""

    def __init__(self) -> None:
        self.counted: list[tuple[str, str]] = []
        self.events: list[str] = []

    def count(self, name: str, value: str = "", amount: float = 1.0) -> None:
        self.counted.append((name, value))

    def on_event(self, level: str, event: str, **fields: object) -> None:
        self.events.append(f"{level} {event} {fields['limit']}: {fields['reason']}")


def observer(told: Told) -> StageObserver:
    return StageObserver(DEFAULT_LIMITS, told, told.on_event)


def test_a_limit_that_never_counts_is_told_once() -> None:
    told = Told()
    seeing = observer(told)
    for _ in range(ENOUGH - 1):
        seeing.saw(DATA, NOW)
    seeing.review("", NOW)
    assert not told.events
    seeing.saw(DATA, NOW)
    for _ in range(3):
        seeing.review("", NOW)
    assert told.counted == [("misplaced_limits", "account-first-time"), ("misplaced_limits", "account-surge")]
    assert told.events[0] == (
        "warning limit-misplaced account-first-time: it counts at RCPT, and Postfix calls at DATA only"
    )


@pytest.mark.parametrize(
    ("requests", "seconds", "is_told"),
    [
        pytest.param(ENOUGH_WITHOUT_LOGIN - 1, ENOUGH_SECONDS_WITHOUT_LOGIN, False, id="a quiet day"),
        pytest.param(ENOUGH_WITHOUT_LOGIN, ENOUGH_SECONDS_WITHOUT_LOGIN - 1, False, id="a busy morning"),
        pytest.param(ENOUGH_WITHOUT_LOGIN, ENOUGH_SECONDS_WITHOUT_LOGIN, True, id="a day of many"),
    ],
)
def test_that_nobody_logs_in_is_told_when_somebody_would_have(requests: int, seconds: float, is_told: bool) -> None:
    told = Told()
    of_all = Limit("all", ("all",), Count.FIRST_TIME, (Window(1, 60.0),))
    seeing = StageObserver((*DEFAULT_LIMITS, of_all), told, told.on_event)
    for number in range(requests):
        seeing.saw({"protocol_state": "DATA"}, NOW + (seconds if number else 0.0))
    seeing.review("", NOW + seconds)
    names = ["account-recipients", "account-first-time", "account-surge", "all"]
    assert told.counted == [("misplaced_limits", name) for name in (names if is_told else ["all"])]


def test_what_another_process_has_seen_counts() -> None:
    told = Told()
    seeing = observer(told)
    for _ in range(ENOUGH):
        seeing.saw(DATA, NOW)
    assert seeing.review(f"RCPT+login={NOW:.0f}", NOW) == f"DATA+login={NOW:.0f} RCPT+login={NOW:.0f}"
    assert not told.events


def test_the_note_changes_seldom() -> None:
    seeing = observer(Told())
    seeing.saw(DATA, NOW)
    note = seeing.review("", NOW)
    seeing.saw(DATA, NOW + 60)
    assert seeing.review(note, NOW + 60) == note
    seeing.saw(DATA, NOW + 7200)
    assert seeing.review(note, NOW + 7200) == f"DATA+login={NOW + 7200:.0f}"


@pytest.mark.parametrize("later", [FORGOTTEN_SECONDS + 1, -FORGOTTEN_SECONDS - 1])
def test_what_was_not_seen_for_a_week_is_forgotten(later: float) -> None:
    assert stages_of(f"RCPT={NOW:.0f}", NOW + later) == {}


@pytest.mark.parametrize("stage", ["", "rcpt", "RCPT x", "NEW"])
def test_an_unknown_stage_is_not_kept(stage: str) -> None:
    seeing = observer(Told())
    seeing.saw({"protocol_state": stage}, NOW)
    assert seeing.review("", NOW) == ""


@given(st.text(st.characters(), max_size=80))
def test_a_note_of_any_kind_is_read(note: str) -> None:
    stages = stages_of(note, NOW)
    assert stages_of(shown_note(stages), NOW) == stages
