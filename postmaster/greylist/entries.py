"""`allow`, `deny` and `forget`: what the operator orders, and what greylisting shall no longer know."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator

import click

from mailward.model.greylist import Entry, EntryKind, TripletRecord
from mailward.policy.subjects import normalize_subject
from postmaster.explain.layout import printable
from postmaster.greylist.opening import Greylist
from postmaster.greylist.standing import entry_verb, entry_words, sender_text, subject_text
from postmaster.greylist.subject import NoSubject, Role, Subject
from postmaster.progress import counted, progress

MAX_NOTE = 200
MAX_ENTRIES = 10_000  # every worker holds them all; longer lists belong into the configuration
BATCH = 10_000  # triplets that are found before any is forgotten: what is walked over does not change underfoot
SHOWN = 20

_KIND_OF = {Role.SENDER: EntryKind.SENDER, Role.RECIPIENT: EntryKind.RECIPIENT}


class TooMany(Exception):
    """There are as many entries as there may be."""


def read_entry_subject(text: str, role: Role) -> tuple[EntryKind, str]:
    """Return what an entry shall speak of. Raises NoSubject that says what was expected.

    >>> read_entry_subject("192.0.2.7", Role.ANY), read_entry_subject("MX.Example.com", Role.ANY)
    ((<EntryKind.NETWORK: 'network'>, '192.0.2.7/32'), (<EntryKind.NAME: 'name'>, 'mx.example.com'))
    """
    kind = _KIND_OF.get(role) or (EntryKind.NETWORK if _looks_like_network(text) else EntryKind.NAME)
    if role is Role.ANY and "@" in text:
        raise NoSubject("expected --sender or --recipient with an address: say which of them it is")
    if role is not Role.ANY and _looks_like_network(text):
        raise NoSubject(f"expected a {role.value}'s address or domain, found a client's network")
    try:
        subject = normalize_subject(kind, text.strip())
    except ValueError as error:
        raise NoSubject(str(error)) from None
    if kind is EntryKind.SENDER and "@" not in subject and "." not in subject:
        raise NoSubject("expected a domain of two labels or more: this one is a whole top-level domain")
    return kind, subject


def add_entry(greylist: Greylist, entry: Entry) -> None:
    """Order it, and say what is in force now. Raises TooMany."""
    known = {(other.kind, other.subject): other for other in greylist.store.orders().entries}
    before = known.get((entry.kind, entry.subject))
    if before is None and len(known) >= MAX_ENTRIES:
        raise TooMany
    greylist.store.set_entry(entry)
    instead = f" (it was: {entry_words(before, greylist.now)})" if before else ""
    click.echo(printable(entry_words(entry, greylist.now) + instead))
    if not entry.is_allowed:
        click.echo(
            "Only a triplet's own retry lets it pass now, whatever it has earned; what authenticates still passes."
        )


def forget_subject(greylist: Greylist, subject: Subject, *, is_dry_run: bool) -> bool:
    """Forget entries, origins and triplets of a subject, say which; say whether there were any."""
    store, verb = greylist.store, "would forget" if is_dry_run else "forgot"
    forgotten: Counter[str] = Counter()
    for entry in store.orders().entries:
        if subject.covers(entry) and (is_dry_run or store.remove_entry(entry)):
            forgotten["entries"] += 1
            _tell(f"{verb} entry: {entry_verb(entry)} {entry.kind.value} {subject_text(entry)}", forgotten["entries"])
    for origin in [record.origin for record in store.origins() if subject.has_origin(record.origin)]:
        if is_dry_run or store.forget_origin(origin):
            forgotten["origins"] += 1
            _tell(f"{verb} origin: {origin}", forgotten["origins"])
    _forget_triplets(greylist, subject, forgotten, is_dry_run=is_dry_run)
    counts = ", ".join(f"{forgotten[kind]} {kind}" for kind in ("entries", "origins", "triplets"))
    click.echo(f"{verb[0].upper()}{verb[1:]} {counts}.")
    return bool(forgotten)


def _forget_triplets(greylist: Greylist, subject: Subject, forgotten: Counter[str], *, is_dry_run: bool) -> None:
    verb, first = "would forget" if is_dry_run else "forgot", list[TripletRecord]()
    for record in _of(subject, greylist.triplets()) if is_dry_run else _forgotten(greylist, subject):
        forgotten["triplets"] += 1
        if len(first) <= SHOWN:
            first.append(record)
    for number, record in enumerate(first, 1):
        _tell(_triplet_words(record, verb), number)


def _forgotten(greylist: Greylist, subject: Subject) -> Iterator[TripletRecord]:
    """Forget triplets and yield each that was there, with one bar for all of them; print nothing meanwhile."""
    store = greylist.store
    with progress(store.count_triplets(), "triplets") as advance:
        while batch := list(itertools.islice(_of(subject, counted(store.triplets(), advance)), BATCH)):
            gone = [record for record in batch if store.forget_triplet(record.triplet)]
            yield from gone
            if len(batch) < BATCH or not gone:
                return


def _of(subject: Subject, records: Iterable[TripletRecord]) -> Iterator[TripletRecord]:
    return (record for record in records if subject.has_triplet(record.triplet))


def _triplet_words(record: TripletRecord, verb: str) -> str:
    triplet = record.triplet
    return f"{verb} triplet: {triplet.origin}  {sender_text(triplet.mail_from)}  {triplet.rcpt_to}"


def _tell(words: str, number: int) -> None:
    if number <= SHOWN:
        click.echo(printable(words))
    elif number == SHOWN + 1:
        click.echo("...")


def _looks_like_network(text: str) -> bool:
    return ":" in text or "/" in text or text.strip("[]").replace(".", "").isdecimal()
