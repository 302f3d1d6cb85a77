"""`list`: what greylisting has learned, and what the operator has ordered; bounded, however much there is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import click

from mailward.model.greylist import Entry, OriginRecord, TripletRecord
from postmaster.durations import ahead, clock, in_words
from postmaster.greylist.opening import Greylist
from postmaster.greylist.standing import (
    Standing,
    entry_verb,
    last_event,
    of_origin,
    of_triplet,
    sender_text,
    subject_text,
)
from postmaster.tables import Best, best_of, hint, print_json, table

VERSION = 1
MORE = "--limit shows more, `mailward greylist export` all"


def list_origins(greylist: Greylist, limit: int, *, is_json: bool) -> None:
    """Print the operator's entries and the origins that are whitelisted or on the way."""
    now, orders = greylist.now, greylist.store.orders()
    entries = best_of(orders.entries, limit, lambda entry: (entry.is_allowed, entry.kind.value, entry.subject))
    origins = best_of(_origins(greylist), limit, lambda origin: (-origin.passes, -origin.counted_at, origin.origin))
    if is_json:
        print_json(
            {
                "version": VERSION,
                "time": now,
                "off_until": orders.off_until,
                "entries": [entry_tree(entry) for entry in entries.rows],
                "entries_left_out": entries.left_out,
                "origins": [origin_tree(origin, greylist) for origin in origins.rows],
                "origins_left_out": origins.left_out,
            }
        )
        return
    if orders.off_until:
        click.echo(f"Greylisting is switched off until {ahead(orders.off_until, now)}.\n")
    _print_entries(entries, now)
    click.echo()
    _print_origins(origins, greylist)


def list_triplets(greylist: Greylist, limit: int, *, is_waiting: bool, is_json: bool) -> None:
    """Print triplets, those heard of last at the top."""
    wanted = (Standing.WAITING,) if is_waiting else (Standing.WAITING, Standing.PASSED)
    records = (record for record in greylist.triplets() if of_triplet(record, greylist.now) in wanted)
    best = best_of(records, limit, triplet_order)
    if is_json:
        print_json(
            {
                "version": VERSION,
                "time": greylist.now,
                "triplets": [triplet_tree(record, greylist) for record in best.rows],
                "triplets_left_out": best.left_out,
            }
        )
        return
    what = "triplets that wait" if is_waiting else "triplets"
    if not best.rows:
        click.echo(f"No {what}.")
        return
    click.echo(f"{best.total} {what}, the latest first:")
    print_triplets(best, greylist)


def triplet_order(record: TripletRecord) -> tuple[object, ...]:
    """Return the key that sorts triplets: those heard of last come first."""
    triplet = record.triplet
    return (-last_event(record), triplet.origin, triplet.mail_from, triplet.rcpt_to)


def print_triplets(best: Best[TripletRecord], greylist: Greylist) -> None:
    """Print triplets as a table."""
    rows = []
    for record in best.rows:
        triplet = record.triplet
        parts = (triplet.origin, sender_text(triplet.mail_from), triplet.rcpt_to)
        rows.append((*_standing_cells(record, greylist), clock(record.first_seen), *parts))
    table(("state", "passes", "first seen", "origin", "sender", "recipient"), rows)
    hint(best, "triplets", MORE)


def triplet_tree(record: TripletRecord, greylist: Greylist) -> Mapping[str, object]:
    """Return a triplet for JSON."""
    return {
        "origin": record.triplet.origin,
        "mail_from": record.triplet.mail_from,
        "rcpt_to": record.triplet.rcpt_to,
        "state": of_triplet(record, greylist.now),
        "first_seen": record.first_seen,
        "passed_at": record.passed_at,
        "passes_from": record.passed_at or record.first_seen + greylist.windows.delay,
        "expires": record.expires,
    }


def origin_tree(record: OriginRecord, greylist: Greylist) -> Mapping[str, object]:
    """Return an origin for JSON."""
    return {
        "origin": record.origin,
        "state": of_origin(record, greylist.windows, greylist.now),
        "passes": record.passes,
        "counted_at": record.counted_at,
        "expires": record.expires,
    }


def entry_tree(entry: Entry) -> Mapping[str, object]:
    """Return an entry for JSON."""
    return {
        "order": entry_verb(entry),
        "kind": entry.kind,
        "subject": entry.subject,
        "added_at": entry.added_at,
        "until": entry.until,
        "note": entry.note,
    }


def _origins(greylist: Greylist) -> Iterator[OriginRecord]:
    return (record for record in greylist.store.origins() if record.expires > greylist.now)


def _standing_cells(record: TripletRecord, greylist: Greylist) -> tuple[str, str]:
    standing, now = of_triplet(record, greylist.now), greylist.now
    if standing is Standing.PASSED:
        return standing.value, "now"
    if standing is Standing.EXPIRED:
        return standing.value, "not: starts over"
    left = record.first_seen + greylist.windows.delay - now
    return standing.value, f"in {in_words(left + 1)}" if left > 0 else "at its next try"


def _print_entries(entries: Best[Entry], now: float) -> None:
    if not entries.rows:
        click.echo("No entries: nothing was allowed or denied with this command.")
        return
    click.echo("Allowed and denied with this command:")
    rows = [
        (
            entry_verb(entry),
            entry.kind.value,
            subject_text(entry),
            ahead(entry.until, now) if entry.until else "for good",
            entry.note,
        )
        for entry in entries.rows
    ]
    table(("order", "kind", "of", "until", "note"), rows)
    hint(entries, "entries", MORE)


def _print_origins(origins: Best[OriginRecord], greylist: Greylist) -> None:
    if not origins.rows:
        click.echo("No origins: nobody has come back after the delay yet.")
        return
    click.echo("Origins that came back after the delay:")
    rows = [
        (
            of_origin(record, greylist.windows, greylist.now).value,
            _passes_cell(record, greylist),
            clock(record.counted_at),
            clock(record.expires),
            record.origin,
        )
        for record in origins.rows
    ]
    table(("state", "passes", "last counted", "remembered until", "origin"), rows)
    hint(origins, "origins", MORE)


def _passes_cell(record: OriginRecord, greylist: Greylist) -> str:
    wanted = greylist.windows.passes_to_whitelist
    return f"{record.passes} of {wanted}" if record.passes < wanted else str(record.passes)
