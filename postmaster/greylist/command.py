"""mailward greylist - see and change what greylisting remembers

SYNOPSIS
    mailward greylist off DURATION | on
    mailward greylist list [--triplets] [--waiting] [--limit N] [--json]
    mailward greylist show ADDR [--limit N] [--json]
    mailward greylist allow|deny WHAT [--sender|--recipient] [--for DURATION] [--note TEXT]
    mailward greylist forget WHAT [--sender|--recipient] [--dry-run]
    mailward greylist stats [--json]
    mailward greylist export [FILE]
    mailward greylist import FILE [--as KIND]

DESCRIPTION
    Works on the state that the configuration names, beside the daemons that use it: SQLite or Redis. They see what was
    ordered within seconds. Run as root it becomes the account that owns the state's folder.

    off 2h              greylist nobody for so long; on: again from now on
    list                what was allowed and denied, and the origins that came back: whitelisted, or on the way to it.
                        --triplets: the triplets that wait or have passed, the latest first; --waiting: those that wait
    show ADDR           everything known of a client's address or network, a domain, a sender or recipient (<> is the null
                        sender), and what would happen to it now, and when
    allow WHAT          let pass at once. WHAT is a client's address, network or confirmed name (and what is below it); with
                        --sender or --recipient an address, a domain and what is below it, or a local part ("postmaster@")
    deny WHAT           never let pass without the triplet's own retry, whatever is allowed or was earned. deny wins
    forget WHAT         what was allowed or denied of just that; the origins and triplets of a client; an SPF domain's, and
                        those of senders in it; those of a sender or recipient. A recipient's domain takes --recipient
    stats               how much is remembered, and how many of those expected back came back in the last day
    export              everything that has not expired, as JSON lines, to FILE (0600, replaced once it is whole) or stdout
    import FILE         an export; postgrey's whitelist_clients* or whitelist_recipients*, which become `allow`; the folder of
                        postgrey's database (/var/lib/postgrey), postgrey running or not. What is known is never made worse,
                        an order of yours never replaced. It may be interrupted and begun anew

    An origin is a client's network, or the domain that SPF says the client may send for. postgrey knows networks only: a
    triplet of its that passed is taken for the network, and once more for the sender's domain.

    For example:

    mailward greylist import /var/lib/postgrey
    mailward greylist allow 192.0.2.0/24 --for 30d --note "new partner, ticket 4711"
    mailward greylist allow --recipient sales@example.com
    mailward greylist show 192.0.2.7

DIAGNOSTICS
    Exit status 0: done. 1: `show` and `forget` found nothing. 2: wrong options. 65: the file is not what it should be, or
    not whole (what was readable of an export is taken). 66: no such file. 69: db_dump is needed and not installed. 73: the
    export cannot be written. 75: the state is away, with the reason and what to do; or an order is over already by its
    clock. 77: permission denied. 78: the configuration is wrong.

BUGS
    Times are those of this machine's clock; those of the state are the clock's of its Redis. Keys that postgrey hashed
    (--privacy) cannot be imported. Correspondents are shown and carried over, but not forgotten before their time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import click

from mailward.model.greylist import Entry
from mailward.settings.greylist import Settings, read_exemptions
from postmaster.completion import ANY_FILE
from postmaster.configured import ConfiguredGroup, config_path
from postmaster.durations import ahead, read_duration
from postmaster.explain.layout import printable
from postmaster.greylist.counting import print_stats
from postmaster.greylist.entries import (
    MAX_ENTRIES,
    MAX_NOTE,
    TooMany,
    add_entry,
    forget_subject,
    read_entry_subject,
)
from postmaster.greylist.importing import Tally, take
from postmaster.greylist.listing import list_origins, list_triplets
from postmaster.greylist.opening import Greylist, opened
from postmaster.greylist.postgrey import PACKAGE, DumpFailed, DumpMissing
from postmaster.greylist.records_file import NotAnExport
from postmaster.greylist.showing import show_subject
from postmaster.greylist.sources import Form, NoSource, Source, open_source
from postmaster.greylist.subject import NoSubject, Role, Subject, read_subject
from postmaster.greylist.writing import write_export
from postmaster.opening import EX_TEMPFAIL, leave, read_settings
from postmaster.progress import progress

EX_DATAERR, EX_NOINPUT, EX_UNAVAILABLE, EX_CANTCREAT = 65, 66, 69, 73
DAY = 86400.0
MOST_OFF, MOST_FOR = 30 * DAY, 3650 * DAY
USUAL_LIMIT, MOST_SHOWN = 50, 100_000

Command = TypeVar("Command", bound=Callable[..., Any])

_LIMIT = click.option(
    "--limit", type=click.IntRange(1, MOST_SHOWN), default=USUAL_LIMIT, show_default=True, help="How many to show."
)
_JSON = click.option("--json", "is_json", is_flag=True, help="One JSON object.")
_FOR = click.option("--for", "lifetime", metavar="DURATION", help="For so long, such as 30d; default: for good.")
_NOTE = click.option("--note", default="", metavar="TEXT", help="Why; shown with the entry.")


def _roles(command: Command) -> Command:
    command = click.option("--recipient", "is_recipient", is_flag=True, help="WHAT is a recipient's.")(command)
    return click.option("--sender", "is_sender", is_flag=True, help="WHAT is a sender's.")(command)


@click.group(cls=ConfiguredGroup, help="See and change what greylisting remembers, beside the running daemons.")
def greylist() -> None:
    """Hold the sub-commands."""


def _settings() -> Settings:
    return read_settings(Settings, config_path())


@greylist.command(help="Greylist nobody for DURATION, such as 2h.")
@click.argument("duration")
def off(duration: str) -> None:
    """Switch greylisting off for a while."""
    seconds = read_duration(duration, MOST_OFF, "30d")
    with opened(_settings()) as greylist:
        until = greylist.now + seconds
        greylist.store.switch_off(until)
        _require_in_force(bool(greylist.store.orders().off_until))
        click.echo(f"Greylisting is off until {ahead(until, greylist.now)}; `mailward greylist on` ends that.")


@greylist.command(help="Greylist again from now on.")
def on() -> None:
    """Switch greylisting on."""
    with opened(_settings()) as greylist:
        was_off = bool(greylist.store.orders().off_until)
        greylist.store.switch_off(0.0)
        click.echo("Greylisting is on again." if was_off else "Greylisting is on; it was not switched off.")


@greylist.command("list", help="Print what was allowed and denied, and the origins that came back.")
@click.option("--triplets", "is_triplets", is_flag=True, help="Print triplets instead, the latest first.")
@click.option("--waiting", "is_waiting", is_flag=True, help="Print only the triplets that wait.")
@_LIMIT
@_JSON
def list_(is_triplets: bool, is_waiting: bool, limit: int, is_json: bool) -> None:
    """Print what is known, bounded."""
    with opened(_settings()) as greylist:
        if is_triplets or is_waiting:
            list_triplets(greylist, limit, is_waiting=is_waiting, is_json=is_json)
        else:
            list_origins(greylist, limit, is_json=is_json)


@greylist.command(
    help="Print everything known of ADDR: a client's address or network, a domain, a sender, a recipient."
)
@click.argument("addr")
@_LIMIT
@_JSON
def show(addr: str, limit: int, is_json: bool) -> None:
    """Print everything known of one subject."""
    subject = _subject(addr, Role.ANY, "ADDR")
    settings = _settings()
    exemptions = read_exemptions(settings.greylist)
    with opened(settings) as greylist:
        is_known = show_subject(greylist, subject, exemptions, limit, is_json=is_json)
    sys.exit(0 if is_known else 1)


@greylist.command(
    help="Let WHAT pass at once: a client's address, network or name; a sender's or recipient's address or domain."
)
@click.argument("what")
@_roles
@_FOR
@_NOTE
def allow(what: str, is_sender: bool, is_recipient: bool, lifetime: str | None, note: str) -> None:
    """Add an entry that lets pass."""
    _order(what, _role(is_sender, is_recipient), lifetime, note, is_allowed=True)


@greylist.command(help="Never let WHAT pass without its own retry, whatever is allowed or was earned.")
@click.argument("what")
@_roles
@_FOR
@_NOTE
def deny(what: str, is_sender: bool, is_recipient: bool, lifetime: str | None, note: str) -> None:
    """Add an entry that lets nothing pass."""
    _order(what, _role(is_sender, is_recipient), lifetime, note, is_allowed=False)


@greylist.command(help="Forget the entries, origins and triplets of WHAT.")
@click.argument("what")
@_roles
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Only say what would be forgotten.")
def forget(what: str, is_sender: bool, is_recipient: bool, is_dry_run: bool) -> None:
    """Forget one subject."""
    subject = _subject(what, _role(is_sender, is_recipient), "WHAT")
    with opened(_settings()) as greylist:
        is_known = forget_subject(greylist, subject, is_dry_run=is_dry_run)
    sys.exit(0 if is_known else 1)


@greylist.command(help="Print how much is remembered, and how many of those expected back came back.")
@_JSON
def stats(is_json: bool) -> None:
    """Print numbers."""
    with opened(_settings()) as greylist:
        print_stats(greylist, is_json=is_json)


@greylist.command(help="Write everything that has not expired to FILE or stdout, as JSON lines.")
@click.argument("file", type=ANY_FILE, default="-")
def export(file: str) -> None:
    """Write an export."""
    settings = _settings()
    try:
        write_export(file, lambda: opened(settings))
    except BrokenPipeError:
        raise  # whoever reads our stdout has seen enough, which click knows how to end
    except OSError as error:
        leave(EX_CANTCREAT, f"{printable(file)} cannot be written: {error.strerror}")


@greylist.command("import", help="Take an export, postgrey's whitelists, or its database (a folder) into the state.")
@click.argument("file", type=ANY_FILE)
@click.option(
    "--as", "form", type=click.Choice([form.value for form in Form]), help="What FILE is, if it does not show."
)
def import_(file: str, form: str | None) -> None:
    """Take records into the state."""
    settings, tally, shown = _settings(), Tally(), printable(file)
    try:
        with open_source(file, Form(form) if form else None) as source, opened(settings) as greylist:
            _take(source, greylist, tally)
    except DumpMissing:
        leave(EX_UNAVAILABLE, f"{shown}: reading postgrey's database takes db_dump: apt-get install {PACKAGE}")
    except OSError as error:
        leave(EX_NOINPUT, f"{shown}: {error.strerror}")
    except (NoSource, NotAnExport, DumpFailed) as error:
        leave(EX_DATAERR, f"{shown}: {printable(str(error))}")
    if not tally.is_file_whole:
        leave(EX_DATAERR, f"{shown} is damaged; what was readable has been taken")
    if not tally.taken and not tally.skipped:
        click.echo("There is nothing in it.")


def _take(source: Source, greylist: Greylist, tally: Tally) -> None:
    try:
        with progress(source.octets, "import") as advance:
            take(greylist, source.read(greylist, advance), tally)
    except KeyboardInterrupt:
        click.echo("\nmailward: interrupted; what was taken stays, and the same command takes the rest", err=True)
        raise
    finally:
        tally.show()


def _order(what: str, role: Role, lifetime: str | None, note: str, *, is_allowed: bool) -> None:
    if len(note) > MAX_NOTE or not note.isprintable():
        raise click.BadParameter(f"expected at most {MAX_NOTE} printable characters", param_hint="--note")
    seconds = read_duration(lifetime, MOST_FOR, "3650d") if lifetime is not None else 0.0
    try:
        kind, subject = read_entry_subject(what, role)
    except NoSubject as error:
        _refuse("WHAT", error)
    with opened(_settings()) as greylist:
        until = greylist.now + seconds if seconds else 0.0
        try:
            add_entry(greylist, Entry(kind, subject, is_allowed, greylist.now, until, note))
        except TooMany:
            raise click.ClickException(
                f"there are {MAX_ENTRIES} entries already; the configuration takes more"
            ) from None
        known = ((entry.kind, entry.subject) for entry in greylist.store.orders().entries)
        _require_in_force((kind, subject) in known)


def _require_in_force(is_in_force: bool) -> None:
    """Leave the program where the state, by its own clock, says that an order is over already."""
    if not is_in_force:
        leave(EX_TEMPFAIL, "by the clock of the state's server that is over already, and not in force: set the clocks")


def _role(is_sender: bool, is_recipient: bool) -> Role:
    if is_sender and is_recipient:
        raise click.UsageError("--sender and --recipient exclude each other")
    return Role.SENDER if is_sender else Role.RECIPIENT if is_recipient else Role.ANY


def _subject(text: str, role: Role, argument: str) -> Subject:
    try:
        return read_subject(text, role)
    except NoSubject as error:
        _refuse(argument, error)


def _refuse(argument: str, error: NoSubject) -> NoReturn:
    raise click.BadParameter(printable(str(error)), param_hint=argument) from None
