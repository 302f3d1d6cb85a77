"""What greylisting remembers and what follows from it, as a table of behaviours (tests/support/greylist_dialogues.py)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mailward.model.greylist import RETURN_BUCKET_SECONDS, Memory, Sighting, Windows
from mailward.policy import greylist
from mailward.policy.greylist import PASSES, Remembered
from tests.support.greylist_dialogues import (
    CORRESPONDENT_LIFETIME,
    DIALOGUES,
    FIVE_PASSES,
    RETURNS,
    Line,
    Paper,
    moment,
    read,
    triplet,
)

WINDOWS = Windows()
START = 1_800_000_000.0  # begins a bucket
A1 = triplet("A1")


def play(paper: Paper, line: Line, windows: Windows = WINDOWS) -> Sighting | None:
    now = START + line.at
    if line.memory is None:
        paper.record(line.triplet.mail_from, CORRESPONDENT_LIFETIME, now)
        return None
    return paper.sight(line.triplet, windows, now, correspondent=line.correspondent)


def played(dialogue: str, windows: Windows = WINDOWS) -> Paper:
    paper = Paper()
    for line in read(dialogue):
        sighting = play(paper, line, windows)
        assert (sighting and sighting.memory) == line.memory, line
    return paper


@pytest.mark.parametrize("dialogue", DIALOGUES.values(), ids=DIALOGUES.keys())
def test_sightings(dialogue: str) -> None:
    played(dialogue)


@pytest.mark.parametrize(("dialogue", "buckets"), RETURNS.values(), ids=RETURNS.keys())
def test_returns(dialogue: str, buckets: list[tuple[str, int, int]]) -> None:
    paper, last = played(dialogue), START + max(line.at for line in read(dialogue))
    found = [(each.start - START, each.expected, each.returned) for each in paper.returns(last)]
    assert found == [(moment(start), expected, returned) for start, expected, returned in buckets]


@pytest.mark.parametrize("dialogue", DIALOGUES.values(), ids=DIALOGUES.keys())
def test_what_a_sighting_says_agrees_with_what_is_kept(dialogue: str) -> None:
    paper = Paper()
    for line in read(dialogue):
        now = START + line.at
        before = Remembered(paper.triplets.get(line.triplet), paper.origins.get(line.triplet.origin))
        sighting = play(paper, line)
        if sighting is None:
            continue
        assert sighting.now == now
        if sighting.memory is not Memory.CORRESPONDENT:
            assert greylist.would_pass(before, WINDOWS, now) == (sighting.memory in greylist.PASSES)
        if sighting.memory in (Memory.ORIGIN, Memory.CORRESPONDENT):
            assert sighting.first_seen == 0.0
        else:
            assert sighting.first_seen == paper.triplets[line.triplet].first_seen


def test_a_whitelist_of_nobody() -> None:
    played(f"{FIVE_PASSES}\n 10h A6 first-sighting", replace(WINDOWS, passes_to_whitelist=0))


def test_a_whitelist_at_the_first_pass() -> None:
    played("0s A1 first-sighting\n 1m A1 retried\n 1m A2 whitelisted-origin", replace(WINDOWS, passes_to_whitelist=1))


def test_no_delay_at_all_still_wants_a_retry() -> None:
    played("0s A1 first-sighting\n 0s A1 retried\n 0s A1 passed-before", replace(WINDOWS, delay=0.0))


def test_a_longer_delay_holds_for_what_waits_already() -> None:
    paper = played("0s A1 first-sighting")
    sighting = play(paper, next(read("2m A1 too-early")), replace(WINDOWS, delay=300.0))
    assert sighting == Sighting(Memory.EARLY, START + 120, START)


@pytest.mark.parametrize(
    ("since_pass", "is_written"),
    [
        pytest.param("1s", False, id="a moment later nothing is written"),
        pytest.param("13h", False, id="within a 64th of the lifetime nothing is written"),
        pytest.param("14h", True, id="after that it is remembered anew"),
    ],
)
def test_what_passed_is_refreshed_in_parts(since_pass: str, is_written: bool) -> None:
    paper = played("0s A1 first-sighting\n 60s A1 retried")
    before = paper.triplets[A1].expires
    later = 60 + moment(since_pass)
    play(paper, Line(later, A1, False, Memory.PASSED))
    assert paper.triplets[A1].expires == (START + later + WINDOWS.remember if is_written else before)


def test_a_clock_set_back_shortens_no_memory() -> None:
    paper = played("30d A1 first-sighting\n 30d+60s A1 retried\n 0s A1 passed-before")
    assert paper.triplets[A1].expires == START + moment("66d+60s")


@pytest.mark.parametrize(
    ("memory", "since_first", "left"),
    [
        pytest.param(Memory.NEW, 0.0, 60, id="a first sighting waits for the whole delay"),
        pytest.param(Memory.LATE, 0.0, 60, id="so does one that starts over"),
        pytest.param(Memory.EARLY, 0.1, 60, id="parts of a second are rounded up"),
        pytest.param(Memory.EARLY, 45.0, 15, id="an early retry waits for what is left"),
        pytest.param(Memory.EARLY, 59.99, 1, id="never less than a second"),
        pytest.param(Memory.EARLY, -5.0, 65, id="behind a clock that is ahead, a little longer"),
        pytest.param(Memory.RETRIED, 60.0, 0, id="what passes waits no more"),
        pytest.param(Memory.PASSED, 3600.0, 0, id="nor what passed before"),
        pytest.param(Memory.ORIGIN, 0.0, 0, id="nor a whitelisted origin"),
        pytest.param(Memory.CORRESPONDENT, 0.0, 0, id="nor a correspondent"),
    ],
)
def test_seconds_left(memory: Memory, since_first: float, left: int) -> None:
    first_seen = 0.0 if memory in (Memory.ORIGIN, Memory.CORRESPONDENT) else START
    assert greylist.seconds_left(Sighting(memory, START + since_first, first_seen), WINDOWS) == left


def test_seconds_left_are_true() -> None:
    for early in range(60):
        paper = played("0s A1 first-sighting")
        sighting = play(paper, Line(early, A1, False, Memory.EARLY))
        assert sighting is not None
        left = greylist.seconds_left(sighting, WINDOWS)
        retry = play(paper, Line(early + left, A1, False, Memory.RETRIED))
        assert retry is not None
        assert retry.memory is Memory.RETRIED


@pytest.mark.parametrize("memory", Memory)
def test_every_memory_either_passes_or_waits(memory: Memory) -> None:
    assert (memory in PASSES) == (greylist.seconds_left(Sighting(memory, START, START), WINDOWS) == 0)


def test_buckets_are_whole() -> None:
    assert START % RETURN_BUCKET_SECONDS == 0
    assert greylist.bucket_of(START + 599.9) == START
    assert greylist.bucket_of(START + 600) == START + 600
