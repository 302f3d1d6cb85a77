"""Which messages this command has put on hold: the audit log says so. Pure.

Postfix's hold queue has also what others have put there, and keeps it longer than anybody remembers whose it was. So the
ids are noted before the messages are moved, and crossed out after they were released; what is noted and was never moved is
not on hold, or not the same message any more, and does no harm.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from mailward.model.accounts import AuditEntry
from postmaster.limits.queue import QUEUE_ID, Message

HOLD, RELEASE = "hold-queue", "release-queue"
PER_ENTRY = 50  # messages: some 1,200 characters


def entries_of(
    action: str, account: str, messages: Iterable[Message], *, who: str, why: str, now: float
) -> Iterator[AuditEntry]:
    """Yield the entries that note messages as put on hold, or as released."""
    ordered = iter(sorted(messages))
    while part := list(itertools.islice(ordered, PER_ENTRY)):
        noted = " ".join(f"{message.queue_id}@{message.arrived_at}" for message in part)
        before, after = ("", noted) if action == HOLD else (noted, "")
        yield AuditEntry(now, who, action, account, why, before, after)


def still_held(entries: Sequence[AuditEntry]) -> set[Message]:
    """Return what was put on hold and not released since; `entries` are an account's, the newest first."""
    held: set[Message] = set()
    for entry in reversed(entries):
        if entry.action == HOLD:
            held.update(_noted(entry.after))
        elif entry.action == RELEASE:
            held.difference_update(_noted(entry.before))
    return held


def _noted(text: str) -> Iterator[Message]:
    for word in text.split():
        queue_id, _, arrived_at = word.partition("@")
        if QUEUE_ID.fullmatch(queue_id) and arrived_at.isascii() and arrived_at.isdecimal() and len(arrived_at) < 16:
            yield Message(queue_id, int(arrived_at))
