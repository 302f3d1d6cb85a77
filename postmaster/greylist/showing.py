"""`show`: everything that is known of one client, domain, sender or recipient, and what would happen now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import click

from mailward.model.greylist import Entry, OriginRecord, TripletRecord
from mailward.policy.exemptions import Exemption, Exemptions
from postmaster.durations import ahead
from postmaster.explain.layout import printable
from postmaster.greylist.listing import MORE, VERSION, entry_tree, origin_tree, triplet_order, triplet_tree
from postmaster.greylist.opening import Greylist
from postmaster.greylist.standing import (
    Standing,
    entry_words,
    of_origin,
    origin_outlook,
    sender_text,
    triplet_outlook,
)
from postmaster.greylist.subject import Client, Domain, Mailbox, Pattern, Role, Subject
from postmaster.tables import Best, best_of, hint, labelled, print_json


@dataclass(frozen=True, slots=True)
class Known:
    """What was found of a subject; `correspondent_until` is 0.0 where nobody here has written to it."""

    entries: tuple[Entry, ...]
    origins: Best[OriginRecord]
    triplets: Best[TripletRecord]
    correspondent_until: float
    off_until: float
    exemption: Exemption | None

    @property
    def is_nothing(self) -> bool:
        """Whether nothing at all is known."""
        return not (self.entries or self.origins.total or self.triplets.total or self.correspondent_until)


def show_subject(greylist: Greylist, subject: Subject, exemptions: Exemptions, limit: int, *, is_json: bool) -> bool:
    """Print what is known; say whether anything is. `exemptions` are the configuration's."""
    known = _find(greylist, subject, exemptions, limit)
    if is_json:
        print_json(
            {
                "version": VERSION,
                "time": greylist.now,
                "subject": str(subject),
                "off_until": known.off_until,
                "outlook": _outlook(known, subject, greylist),
                "entries": [entry_tree(entry) for entry in known.entries],
                "origins": [origin_tree(record, greylist) for record in known.origins.rows],
                "origins_left_out": known.origins.left_out,
                "correspondent_until": known.correspondent_until,
                "triplets": [triplet_tree(record, greylist) for record in known.triplets.rows],
                "triplets_left_out": known.triplets.left_out,
            }
        )
    else:
        _print(known, subject, greylist)
    return not known.is_nothing


def _find(greylist: Greylist, subject: Subject, exemptions: Exemptions, limit: int) -> Known:
    store, orders = greylist.store, greylist.store.orders()
    origins = (record for record in store.origins() if subject.has_origin(record.origin))
    triplets = (record for record in greylist.triplets() if subject.touches(record.triplet))
    return Known(
        tuple(entry for entry in orders.entries if subject.is_met_by(entry)),
        best_of(origins, limit, lambda record: (-record.passes, record.origin)),
        best_of(triplets, limit, triplet_order),
        _correspondent_until(greylist, subject),
        orders.off_until,
        _exemption(subject, exemptions),
    )


def _exemption(subject: Subject, exemptions: Exemptions) -> Exemption | None:
    """Return by which list of the configuration the subject passes, as far as it alone decides."""
    match subject:
        case Client():
            found = exemptions.find(str(subject), "unknown", b"", b"") if subject.is_address else None
        case Domain():
            found = exemptions.find("", subject.name, b"", b"")
        case Mailbox():
            found = exemptions.find("", "unknown", subject.octets, b"")
            if found.exemption is None and subject.octets:
                found = exemptions.find("", "unknown", b"", subject.octets)
        case Pattern():
            found = None
    return found.exemption if found is not None else None


def _correspondent_until(greylist: Greylist, subject: Subject) -> float:
    if not isinstance(subject, Mailbox) or subject.role is Role.RECIPIENT or not subject.address:
        return 0.0
    for address, expires in greylist.store.correspondents():
        if address == subject.address and expires > greylist.now:
            return expires
    return 0.0


def _outlook(known: Known, subject: Subject, greylist: Greylist) -> str:
    """Say what becomes of the next message, as far as that follows from what is known here."""
    if known.off_until:
        return f"passes: greylisting is switched off until {ahead(known.off_until, greylist.now)}"
    of_all = [entry for entry in known.entries if _is_of_all(entry, subject)]
    if not all(entry.is_allowed for entry in of_all):
        return "is delayed until its own retry, whatever was earned: denied"
    if known.exemption is not None:
        return f"passes at once: {_EXEMPTION_WORDS[known.exemption]}"
    if of_all:
        return "passes at once: allowed"
    for record in known.origins.rows:
        if of_origin(record, greylist.windows, greylist.now) is Standing.WHITELISTED and subject.is_in(record.origin):
            return _WHITELISTED[type(subject)]
    if known.correspondent_until:
        return "passes where SPF passes for it: somebody here has written to it"
    if known.triplets.rows:
        return "as each triplet below says"
    return "is delayed like everybody who was never seen before, unless another part of the mail exempts it"


def _is_of_all(entry: Entry, subject: Subject) -> bool:
    """Say whether the entry speaks of all that the subject is, and not of a part."""
    match subject:
        case Client():
            return subject.is_within(entry)
        case Domain():
            return not entry.subject.endswith(("." + subject.name, "@" + subject.name))
        case _:
            return True


_WHITELISTED: Mapping[type[Subject], str] = {
    Client: "passes at once: whitelisted, having come back so often; where SPF passes, the sender's domain counts instead",
    Domain: "passes at once where SPF passes for it: whitelisted, having come back so often",
}

_EXEMPTION_WORDS = {
    Exemption.AUTHENTICATED: "it is authenticated",
    Exemption.NETWORK: "the configuration's `networks` have it",
    Exemption.NAME: "the configuration's `names` have it as a client's",
    Exemption.SENDER: "the configuration's `senders` have it",
    Exemption.RECIPIENT: "the configuration's `recipients` have it",
    Exemption.NON_RETRIER: "it is on a list of clients that do not retry",
    Exemption.ALLOWED: "allowed",
}


def _print(known: Known, subject: Subject, greylist: Greylist) -> None:
    windows, now = greylist.windows, greylist.now
    click.echo(printable(str(subject)))
    rows = [("now", _outlook(known, subject, greylist))]
    rows += [("entry", entry_words(entry, now) + (f" ({entry.note})" if entry.note else "")) for entry in known.entries]
    rows += [("origin", f"{record.origin}: {origin_outlook(record, windows, now)}") for record in known.origins.rows]
    if known.correspondent_until:
        rows.append(("written to", f"by somebody here; remembered until {ahead(known.correspondent_until, now)}"))
    labelled(rows)
    hint(known.origins, "origins", MORE)
    for record in known.triplets.rows:
        triplet = record.triplet
        parts = (triplet.origin, sender_text(triplet.mail_from), triplet.rcpt_to)
        click.echo("  triplet  " + "  ".join(printable(part) for part in parts))
        click.echo(f"    {triplet_outlook(record, windows, now)}")
    hint(known.triplets, "triplets", MORE)
    if known.is_nothing:
        click.echo("  Nothing else is known of it.")
