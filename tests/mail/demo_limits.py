"""The demo's fourth part: an account goes wild, mailward-policyd stops it and tells the postmaster once, and it is given back."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.mail.limiting import ALICE, BOB, Limiting, Tally
from tests.support.processes import ProgramError, wait_until

MODE = "demo"
MODES = {MODE: ""}  # the limits of a fresh install
INCIDENTS = 'settle = "1s"'
MESSAGES, LANES = 600, 4
PATIENCE_SECONDS = 30.0
MEANINGS = {"250": "accepted", "450": "deferred", "554": "refused for good"}


@dataclass(slots=True)
class Story:
    """What has happened so far."""

    here: Limiting
    spam: Tally = field(default_factory=Tally)


@dataclass(frozen=True, slots=True)
class Told:
    """What became of a scene, in words, and whether it is as it should be."""

    lines: tuple[str, ...]
    is_right: bool


def goes_wild(story: Story) -> Told:
    """Send as whoever has stolen the password, to ever new recipients and as fast as Postfix answers."""
    began = time.monotonic()
    story.spam = story.here.send_many(ALICE, MESSAGES, mode=MODE, lanes=LANES)
    seconds = time.monotonic() - began
    lines = [f"{MESSAGES} messages in {seconds:.1f} s, over {LANES} sessions:"]
    for kind, text in sorted(story.spam.texts.items()):
        example = "" if kind.startswith("250") else f", such as: {text}"
        lines.append(f"{story.spam.replies[kind]:>4} {MEANINGS.get(kind[:3], kind)}{example}")
    accepted = len(story.spam.accepted)
    return Told(tuple(lines), 0 < accepted <= 100)


def is_suspended(story: Story) -> Told:
    """Wait for the suspension, and try what a thief would try next."""
    here = story.here
    wait_until(lambda: not here.can_log_in(ALICE), "the login to be denied", seconds=PATIENCE_SECONDS)
    lines = (f"{ALICE}'s login over IMAP, with the right password: denied",)
    reply = here.send(BOB, *here.new_recipients(1), mode=MODE)
    is_accepted = reply.code == 250
    return Told(
        (*lines, f"{BOB}, the neighbour: message {'accepted' if is_accepted else 'REFUSED'}, login let in"),
        is_accepted and here.can_log_in(BOB),
    )


def is_told(story: Story) -> Told:
    """Wait for the postmaster's mail."""
    wait_until(lambda: bool(story.here.notifications()), "the notification", seconds=PATIENCE_SECONDS)
    notifications = story.here.notifications()
    header, _, body = notifications[0].replace("\r\n", "\n").partition("\n\n")
    subject = next((line for line in header.splitlines() if line.lower().startswith("subject:")), "")
    return Told((subject, *quoted(body)), len(notifications) == 1 and ALICE in body)


def is_shown(story: Story) -> Told:
    """Ask as the operator does."""
    shown = story.here.first.order("show", ALICE)
    return Told(quoted(shown), "suspended" in shown)


def is_given_back(story: Story) -> Told:
    """Give the account back, and send as its owner."""
    here = story.here
    printed = here.first.order("resume", ALICE, "--why", "password changed")
    wait_until(lambda: here.can_log_in(ALICE), "the login to be let in again", seconds=PATIENCE_SECONDS)
    (recipient,) = here.new_recipients(1)

    def is_accepted() -> bool:
        return here.send(ALICE, recipient, mode=MODE).code == 250

    wait_until(is_accepted, "mail to go out again", seconds=PATIENCE_SECONDS)
    return Told((*quoted(printed), f"{ALICE}: login let in, message accepted"), is_right=True)


Scene = tuple[str, Callable[[Story], Told]]
SCENES: tuple[Scene, ...] = (
    (f"submission, {ALICE}: the account is stolen, and writes to {MESSAGES} strangers", goes_wild),
    ("what the thief can do now, and what the neighbour can", is_suspended),
    ("the mail that the postmaster gets, one for all of it", is_told),
    (f"mailward limits show {ALICE}", is_shown),
    (f"mailward limits resume {ALICE} --why 'password changed'", is_given_back),
)


def play_limits(here: Limiting, first: int) -> list[int]:
    """Play every scene, numbered from `first`; return the numbers of those that did not end as they should."""
    story = Story(here)
    numbered = list(enumerate(SCENES, first))
    return [number for number, scene in numbered if not _play_scene(story, number, scene)]


def _play_scene(story: Story, number: int, scene: Scene) -> bool:
    way, act = scene
    try:
        told = act(story)
    except ProgramError as error:
        told = Told((str(error),), is_right=False)
    print(f"{number}. {way}")
    for line in told.lines:
        print("   " + line)
    print(flush=True)
    return told.is_right


def quoted(text: str) -> tuple[str, ...]:
    """Return lines as they stand, marked as somebody else's."""
    return tuple(f"| {line}".rstrip() for line in textwrap.dedent(text).strip("\n").splitlines())
