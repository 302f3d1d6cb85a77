"""Postfix's queue: which messages are in it, and putting some of them on hold and back. Only root may do the latter.

Queue ids are used again for other messages. One is believed only together with the second at which its message arrived.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

QUEUE_ID = re.compile(r"[0-9A-Za-z]{6,40}")
HOLD = "hold"
PATH = f"/usr/sbin:/sbin:{os.defpath}"
SECONDS = 600.0  # a queue of a million messages is listed in less
MAX_WORDS = 300  # of what a program says when it fails

# How long before it was counted a message may have arrived (Postfix takes the time at MAIL; a long one takes its time), and
# how far another machine's clock may be ahead of this one's. The smaller the latter, the less can an id have been used again.
LONGEST_SECONDS = 6 * 3600.0
AHEAD_SECONDS = 10.0


class NoPostfix(Exception):
    """Postfix's programs are not here."""


class QueueFailed(Exception):
    """One of them failed; the text is what it said, not escaped."""


@dataclass(frozen=True, slots=True, order=True)
class Message:
    """A message in the queue: its id and when it arrived, in whole seconds, are those of no other."""

    queue_id: str
    arrived_at: int


class Queue:
    """The queue of one Postfix: of that whose main.cf is in `folder`, or the machine's own."""

    def __init__(self, folder: Path | None = None) -> None:
        self._options = () if folder is None else ("-c", str(folder))

    def listed(self, wanted: Set[str]) -> dict[Message, bool]:
        """Return the messages with one of these ids, and whether each is on hold. Raises NoPostfix, QueueFailed."""
        found: dict[Message, bool] = {}
        if wanted:
            for message, is_held in _messages(self._run("postqueue", "-j").split("\n")):
                if message.queue_id in wanted:
                    found[message] = is_held or found.get(message, False)  # one that moves meanwhile may come twice
        return found

    def hold(self, messages: Iterable[Message]) -> None:
        """Put messages on hold; those that have left meanwhile are not minded. Raises NoPostfix, QueueFailed."""
        self._move("-h", messages)

    def release(self, messages: Iterable[Message]) -> None:
        """Take messages off hold: they are tried at Postfix's next queue run. Raises NoPostfix, QueueFailed."""
        self._move("-H", messages)

    def _move(self, option: str, messages: Iterable[Message]) -> None:
        # ALL would be every message there is.
        ids = sorted({message.queue_id for message in messages if QUEUE_ID.fullmatch(message.queue_id)})
        if ids:
            self._run("postsuper", option, "-", words="".join(f"{queue_id}\n" for queue_id in ids))

    def _run(self, program: str, *options: str, words: str = "") -> str:
        path = shutil.which(program, path=PATH)
        if path is None:
            raise NoPostfix
        try:
            done = subprocess.run(  # noqa: S603 - a fixed program; what strangers choose goes to its stdin, verified
                [path, *self._options, *options],
                input=words.encode("ascii"),
                capture_output=True,
                timeout=SECONDS,
                env={"PATH": PATH, "LC_ALL": "C"},
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise QueueFailed(f"{program} took longer than {SECONDS:.0f} s") from None
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip()[-MAX_WORDS:]
            raise QueueFailed(said or f"{program} ended with status {done.returncode}")
        return done.stdout.decode("utf-8", "replace")


def _messages(lines: Iterable[str]) -> Iterator[tuple[Message, bool]]:
    """Read what `postqueue -j` prints, an object in each line; what is none of them is passed over."""
    for line in lines:
        try:
            tree = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(tree, dict):
            continue
        queue_id, arrived_at = tree.get("queue_id"), tree.get("arrival_time")
        if isinstance(queue_id, str) and QUEUE_ID.fullmatch(queue_id) and isinstance(arrived_at, int):
            yield Message(queue_id, arrived_at), tree.get("queue_name") == HOLD


def ids_of(sent: Iterable[tuple[float, str]]) -> frozenset[str]:
    """Return the queue ids that look like some of Postfix's."""
    return frozenset(queue_id for _, queue_id in sent if QUEUE_ID.fullmatch(queue_id))


def of_account(sent: Sequence[tuple[float, str]], listed: Mapping[Message, bool]) -> dict[Message, bool]:
    """Return which of the listed messages an account sent: their id was counted as its, after they had arrived.

    >>> listed = {Message("4ABCDEF", 1000): False, Message("4BCDEFG", 2000): False}
    >>> list(of_account([(1002.5, "4ABCDEF"), (1002.5, "4BCDEFG")], listed))
    [Message(queue_id='4ABCDEF', arrived_at=1000)]
    """
    times: dict[str, list[float]] = {}
    for at, queue_id in sent:
        times.setdefault(queue_id, []).append(at)
    return {
        message: is_held
        for message, is_held in listed.items()
        if any(
            at - LONGEST_SECONDS <= message.arrived_at <= at + AHEAD_SECONDS for at in times.get(message.queue_id, ())
        )
    }
