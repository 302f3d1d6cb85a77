"""The demo's third part: a stranger who is put off once, and mail that flows on while greylisting cannot work."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.mail.greylisting import RECEIVER, Attempt, Client, Greylisting, seconds_left, values
from tests.support.processes import ProgramError, wait_until

MODE = "demo"
MODES = {MODE: 'delay = "2s"\nfield = true'}
STRANGER = Client("198.51.100.130")
SENDER, RECIPIENT = "news@sender.example", f"reader@{RECEIVER}"
PAUSE_SECONDS, PATIENCE_SECONDS = 0.2, 15.0


@dataclass(frozen=True, slots=True)
class Told:
    """What became of a scene, in words, and whether it is as it should be."""

    lines: tuple[str, ...]
    is_right: bool


def first_try(here: Greylisting) -> Told:
    """Send as somebody nobody has heard of."""
    attempt = here.attempt(STRANGER, SENDER, RECIPIENT, mode=MODE)
    return Told(
        (_answer(attempt), "a mail server comes again; most of what sends spam does not"), attempt.is_greylisted
    )


def retry(here: Greylisting) -> Told:
    """Come again, as mail servers do, once the delay is over."""
    attempt = here.attempt(STRANGER, SENDER, RECIPIENT, mode=MODE)
    if attempt.is_greylisted:
        time.sleep(seconds_left(attempt.recipients[0]))
        attempt = here.retry(STRANGER, SENDER, RECIPIENT, mode=MODE)
    fields = values(here.arrived(RECIPIENT), b"X-Greylist") if attempt.is_accepted else []
    lines = (_answer(attempt), *(f"X-Greylist: {field.decode()}" for field in fields), "it is in the Inbox")
    return Told(lines if fields else lines[:1], attempt.is_accepted and len(fields) == 1)


def known_without_resolver(here: Greylisting) -> Told:
    """Stop the resolver, and send as the one who has passed before."""
    here.nameserver.stop()
    attempt = here.attempt(STRANGER, SENDER, RECIPIENT, mode=MODE)
    return Told((_answer(attempt),), attempt.is_accepted)


def strangers_without_resolver(here: Greylisting) -> Told:
    """Send as ever new strangers, from domains nobody has asked about, until one is accepted; then as one more."""
    began, put_off = time.monotonic(), 0
    attempt = _from_new_domain(here)
    while not attempt.is_accepted and time.monotonic() - began < PATIENCE_SECONDS:
        put_off += 1
        time.sleep(PAUSE_SECONDS)
        attempt = _from_new_domain(here)
    found_out, again = time.monotonic() - began, time.monotonic()
    another = _from_new_domain(here)
    milliseconds = (time.monotonic() - again) * 1000
    greylister = here.greylisters[MODE]
    is_told = bool(greylister.log_lines("dns-away")) and greylister.metrics()['reasons_total{reason="dns-away"}'] > 0
    lines = (
        f"{_answer(attempt)} {found_out:.1f} s after the first question that nobody answered; {put_off} were put off until then",
        f"{_answer(another)}, the next one, within {milliseconds:.0f} ms: nobody waits for what is away",
        "greylisting stands aside; log, counters and status page say so" if is_told else "and nothing is said about it",
    )
    return Told(lines, attempt.is_accepted and another.is_accepted and is_told)


def resolver_is_back(here: Greylisting) -> Told:
    """Start it again, and send as strangers until one is put off."""
    began = time.monotonic()
    here.nameserver.start()
    answers: list[str] = []

    def is_greylisting() -> bool:
        attempt = _from_new_domain(here)
        answers.append(_answer(attempt))
        return attempt.is_greylisted

    try:
        wait_until(is_greylisting, "greylisting to be back", seconds=PATIENCE_SECONDS)
    except ProgramError as error:
        return Told((answers[-1], str(error)), is_right=False)
    return Told((answers[-1], f"greylisting was back by itself, after {time.monotonic() - began:.1f} s"), is_right=True)


Scene = tuple[str, Callable[[Greylisting], Told]]
SCENES: tuple[Scene, ...] = (
    (f"{STRANGER.address}: a stranger, for the first time", first_try),
    (f"{STRANGER.address}: the same stranger, who comes again", retry),
    (f"{STRANGER.address}: the resolver has just been stopped, and the same one writes again", known_without_resolver),
    ("new strangers, while the resolver is away", strangers_without_resolver),
    ("new strangers, and the resolver is there again", resolver_is_back),
)


def play_greylisting(here: Greylisting, first: int) -> list[int]:
    """Play every scene, numbered from `first`; return the numbers of those that did not end as they should."""
    numbered = list(enumerate(SCENES, first))
    return [number for number, scene in numbered if not _play_scene(here, number, scene)]


def _play_scene(here: Greylisting, number: int, scene: Scene) -> bool:
    way, act = scene
    told = act(here)
    print(f"{number}. port 25, {way}")
    for line in told.lines:
        print("   " + line)
    print(flush=True)
    return told.is_right


def _from_new_domain(here: Greylisting) -> Attempt:
    """Send as a stranger whose domain nobody has asked the DNS about."""
    client = here.new_client()
    sender = f"news@{client.address.replace('.', '-')}.example"
    return here.attempt(client, sender, RECIPIENT, mode=MODE)


def _answer(attempt: Attempt) -> str:
    """Say how a message to one recipient was answered."""
    reply = attempt.ending or attempt.recipients[0]
    return "accepted" if attempt.is_accepted else f"put off: {reply.code} {reply.text}"
