"""How a record stands now, and what follows from it, in a word and in words. No I/O."""

from __future__ import annotations

from enum import Enum

from mailward.model.greylist import Entry, EntryKind, OriginRecord, TripletRecord, Windows
from mailward.policy.greylist import is_whitelisted
from postmaster.durations import ago, ahead, clock, in_words
from postmaster.greylist.subject import NULL_SENDER


class Standing(Enum):
    """How a triplet or an origin stands."""

    WAITING = "waiting"
    PASSED = "passed"
    EXPIRED = "expired"
    WHITELISTED = "whitelisted"
    ON_THE_WAY = "on the way"


def of_triplet(record: TripletRecord, now: float) -> Standing:
    """Say how a triplet stands by itself."""
    if record.expires <= now:
        return Standing.EXPIRED
    return Standing.PASSED if record.passed_at else Standing.WAITING


def of_origin(record: OriginRecord, windows: Windows, now: float) -> Standing:
    """Say how an origin stands."""
    if record.expires <= now:
        return Standing.EXPIRED
    return Standing.WHITELISTED if is_whitelisted(record, windows) else Standing.ON_THE_WAY


def last_event(record: TripletRecord) -> float:
    """Return when a triplet was last heard of, as far as that is kept."""
    return max(record.first_seen, record.passed_at)


def triplet_outlook(record: TripletRecord, windows: Windows, now: float) -> str:
    """Say what becomes of the triplet's next message, and when."""
    standing = of_triplet(record, now)
    if standing is Standing.EXPIRED:
        return f"starts over: its time was over at {clock(record.expires)}"
    if standing is Standing.PASSED:
        return (
            f"passes, since {clock(record.passed_at)}; forgotten at {ahead(record.expires, now)} unless it comes again"
        )
    passes_from = record.first_seen + windows.delay
    if passes_from > now:
        return f"passes from {ahead(passes_from, now)} on, if it is tried again before {clock(record.expires)}"
    return f"passes at its next try, if that is before {ahead(record.expires, now)}"


def origin_outlook(record: OriginRecord, windows: Windows, now: float) -> str:
    """Say what an origin has earned."""
    standing = of_origin(record, windows, now)
    if standing is Standing.EXPIRED:
        return f"forgotten since {clock(record.expires)}"
    if standing is Standing.WHITELISTED:
        return (
            f"whitelisted after {record.passes} passes: whatever it sends passes; "
            f"forgotten at {ahead(record.expires, now)} unless it comes again"
        )
    passes = f"{record.passes} pass" + ("es" if record.passes != 1 else "")
    if not windows.passes_to_whitelist:
        return f"{passes}, the last at {ago(record.counted_at, now)}; nothing is whitelisted, for `auto_whitelist` is 0"
    return (
        f"{passes} of {windows.passes_to_whitelist}, the last at {ago(record.counted_at, now)}; "
        f"the next counts {in_words(windows.pass_interval)} after it"
    )


def entry_words(entry: Entry, now: float) -> str:
    """Return an entry's meaning: what is allowed or denied, and until when."""
    until = f"until {ahead(entry.until, now)}" if entry.until else "for good"
    return f"{entry_verb(entry)} {entry.kind.value} {subject_text(entry)}, {until}"


def entry_verb(entry: Entry) -> str:
    """Return the command that made the entry."""
    return "allow" if entry.is_allowed else "deny"


def subject_text(entry: Entry) -> str:
    """Return what an entry speaks of, visible even where it is the null sender."""
    return entry.subject or (NULL_SENDER if entry.kind is EntryKind.SENDER else '""')


def sender_text(mail_from: str) -> str:
    """Return a sender, visible even where it is the null sender."""
    return mail_from or NULL_SENDER
