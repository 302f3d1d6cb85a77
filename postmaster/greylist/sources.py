"""What an import reads from: which kind of file this is, opened before the account is changed, and read bit by bit."""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import BinaryIO

import click

from mailward.model.greylist import Entry, EntryKind
from mailward.settings.client_lists import read_postgrey_clients, read_postgrey_recipients
from postmaster.explain.layout import printable
from postmaster.greylist import records_file
from postmaster.greylist.entries import MAX_NOTE
from postmaster.greylist.opening import Greylist
from postmaster.greylist.postgrey import TRIPLETS, open_database, read_database
from postmaster.greylist.records import Item, Kind, Skipped
from postmaster.progress import Advance

MAX_TOLD = 20  # lines

_SAFE = re.compile("[ -~]*")


class Form(Enum):
    """What kind of file is imported."""

    EXPORT = "export"
    CLIENTS = "postgrey-clients"
    RECIPIENTS = "postgrey-recipients"
    DATABASE = "postgrey-database"


class NoSource(Exception):
    """The file is none of the kinds; the message says what it is, or what was expected."""


@dataclass(frozen=True, slots=True)
class Source:
    """What is read, how many octets it has about, and its records; `read` may raise NotAnExport, DumpFailed, OSError."""

    form: Form
    octets: int
    read: Callable[[Greylist, Advance], Iterator[Item]]


@contextlib.contextmanager
def open_source(name: str, form: Form | None) -> Iterator[Source]:
    """Open a file, a folder with postgrey's database, or stdin (`-`).

    Raises OSError, NoSource, NotAnExport, DumpMissing.
    """
    path = Path(name)
    if name != "-" and path.is_file() and path.name == TRIPLETS:
        path = path.parent
    if name != "-" and path.is_dir():
        if form not in (None, Form.DATABASE):
            raise NoSource("is a folder")
        with _open_database(path) as source:
            yield source
        return
    if form is Form.DATABASE:
        raise NoSource(f"expected a folder with {TRIPLETS}")
    with contextlib.ExitStack() as stack:
        stream = sys.stdin.buffer if name == "-" else stack.enter_context(path.open("rb"))
        first = stream.readline(records_file.MAX_LINE + 1)
        form = form or _form_of(path.name, first)
        if form is Form.EXPORT:
            records_file.read_header(first)
            yield Source(form, _size(stream), lambda _greylist, advance: _read_export(stream, advance))
            return
        if name == "-":
            raise NoSource("expected an export on stdin")
        items = _read_whitelist(path, form)
        yield Source(form, 0, lambda greylist, _advance: (_dated(item, greylist.now) for item in items))


def _form_of(name: str, first: bytes) -> Form:
    if records_file.is_header(first):
        return Form.EXPORT
    if name.startswith("whitelist_clients"):
        return Form.CLIENTS
    if name.startswith("whitelist_recipients"):
        return Form.RECIPIENTS
    raise NoSource(
        "expected an export, postgrey's whitelist_clients* or whitelist_recipients*, or the folder of its database; "
        "--as says which"
    )


@contextlib.contextmanager
def _open_database(folder: Path) -> Iterator[Source]:
    if not (folder / TRIPLETS).exists():
        raise NoSource(f"has no {TRIPLETS}: expected the folder of postgrey's database, such as /var/lib/postgrey")
    with open_database(folder) as database:

        def read(greylist: Greylist, advance: Advance) -> Iterator[Item]:
            prefixes = (greylist.ipv4_prefix, greylist.ipv6_prefix)
            return read_database(database, greylist.windows, prefixes, advance)

        yield Source(Form.DATABASE, database.octets, read)


def _read_export(stream: BinaryIO, advance: Advance) -> Iterator[Item]:
    def lines() -> Iterator[bytes]:
        while line := stream.readline(records_file.MAX_LINE + 1):
            advance(len(line))
            yield line

    return records_file.read_records(lines())


def _read_whitelist(path: Path, form: Form) -> list[Item]:
    """Read a whitelist of postgrey's as entries; each line that cannot be used is told on stderr."""
    subjects: list[tuple[EntryKind, str]] = []
    if form is Form.CLIENTS:
        clients = read_postgrey_clients(path)
        subjects += [(EntryKind.NETWORK, str(network)) for network in clients.networks]
        subjects += [(EntryKind.NAME, name) for name in clients.names]
        mistakes, translated = clients.mistakes, clients.translated
    else:
        recipients = read_postgrey_recipients(path)
        subjects += [(EntryKind.RECIPIENT, recipient) for recipient in recipients.recipients]
        mistakes, translated = recipients.mistakes, recipients.translated
    for mistake in mistakes[:MAX_TOLD]:
        # What a mistake quotes of the file has been escaped already.
        told = mistake.expected if _SAFE.fullmatch(mistake.expected) else printable(mistake.expected)
        click.echo(f"mailward: {printable(mistake.file)}: {mistake.where}: {told}", err=True)
    if len(mistakes) > MAX_TOLD:
        click.echo(f"mailward: and {len(mistakes) - MAX_TOLD} lines more", err=True)
    was = {each.subject: f": {each.pattern}" for each in translated}
    entries = [
        Entry(kind, subject, True, 0.0, note=f"{path.name}{was.get(subject, '')}"[:MAX_NOTE])
        for kind, subject in subjects
    ]
    return [*entries, *(Skipped(Kind.ENTRY, "of lines that cannot be used") for _ in mistakes)]


def _dated(item: Item, now: float) -> Item:
    return replace(item, added_at=now) if isinstance(item, Entry) else item


def _size(stream: BinaryIO) -> int:
    try:
        status = os.fstat(stream.fileno())
    except (OSError, io.UnsupportedOperation):
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
