"""Our own export: JSON lines, of all that is remembered and ordered.

The first line says what this is: {"mailward": "greylist", "version": 1, "written_at": SECONDS}. Then one record a line, told
apart by "record": origin, triplet, correspondent, entry. The last says how many there were: {"record": "end", "records": N}.
Times are seconds since 1970.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mailward.model.greylist import Entry, EntryKind, OriginRecord, Triplet, TripletRecord
from mailward.model.ports import GreylistRecords
from mailward.policy.greylist_key import MAX_KEY
from mailward.policy.subjects import normalize_subject
from postmaster.greylist.records import Correspondent, Item, Kind, Record, Skipped

VERSION = 1
MAX_LINE = 16 * 1024  # octets; three keys of 320 characters and some numbers are less than 2 kB
MAX_NUMBER = 2**53
MAX_PASSES = 2**31
MAX_NOTE = 200

_KEY = re.compile(rf"[!-~]{{1,{MAX_KEY}}}+")

NOT_OURS = "not as an export has them"


class NotAnExport(Exception):
    """The file is not ours, or from a newer version; the message says which."""


def header(now: float) -> str:
    """Return the first line of a file."""
    return _line({"mailward": "greylist", "version": VERSION, "written_at": round(now, 3)})


def footer(records: int) -> str:
    """Return the last line of a file with so many records."""
    return _line({"record": "end", "records": records})


def exported(store: GreylistRecords, now: float) -> Iterator[str]:
    """Yield the line of every record that has not expired."""
    for entry in store.orders().entries:
        yield _line(
            {
                "record": "entry",
                "kind": entry.kind.value,
                "subject": entry.subject,
                "is_allowed": entry.is_allowed,
                "added_at": entry.added_at,
                "until": entry.until,
                "note": entry.note,
            }
        )
    for origin in store.origins():
        if origin.expires > now:
            yield _line(
                {
                    "record": "origin",
                    "origin": origin.origin,
                    "passes": origin.passes,
                    "counted_at": origin.counted_at,
                    "expires": origin.expires,
                }
            )
    for address, expires in store.correspondents():
        if expires > now:
            yield _line({"record": "correspondent", "address": address, "expires": expires})
    for record in store.triplets():
        if record.expires > now:
            yield _line(
                {
                    "record": "triplet",
                    "origin": record.triplet.origin,
                    "mail_from": record.triplet.mail_from,
                    "rcpt_to": record.triplet.rcpt_to,
                    "first_seen": record.first_seen,
                    "passed_at": record.passed_at,
                    "expires": record.expires,
                }
            )


def is_header(line: bytes) -> bool:
    """Say whether a file with this first line is an export."""
    fields = _fields(line)
    return fields is not None and fields.get("mailward") == "greylist"


def read_header(line: bytes) -> None:
    """Read the first line. Raises NotAnExport."""
    fields = _fields(line)
    if fields is None or fields.get("mailward") != "greylist":
        raise NotAnExport("is no export of `mailward greylist export`")
    if fields.get("version") != VERSION:
        raise NotAnExport(f"was written by a newer Mailward: expected version {VERSION}")


def read_records(lines: Iterator[bytes]) -> Iterator[Item]:
    """Yield what the lines after the first say, whatever octets they are; at the end whether the file is whole."""
    for number, line in enumerate(lines):
        fields = _fields(line)
        if fields is not None and fields.get("record") == "end":
            if fields.get("records") != number:
                yield Skipped(Kind.FILE, f"missing: of those before the end {number} are here")
            return
        yield _read_record(fields)
    yield Skipped(Kind.FILE, "missing at the end")


def _read_record(fields: Mapping[str, Any] | None) -> Item:
    name = fields.get("record") if fields is not None else None
    reader = _READERS.get(name) if isinstance(name, str) else None
    if fields is None or reader is None:
        return Skipped(Kind.FILE, NOT_OURS)
    kind, read = reader
    try:
        return read(fields)
    except (KeyError, ValueError, TypeError):
        return Skipped(kind, NOT_OURS)


def _read_triplet(fields: Mapping[str, Any]) -> TripletRecord:
    mail_from = fields["mail_from"]
    triplet = Triplet(_key(fields["origin"]), mail_from and _key(mail_from), _key(fields["rcpt_to"]))
    if not isinstance(mail_from, str):
        raise ValueError
    return TripletRecord(triplet, _time(fields["first_seen"]), _time(fields["passed_at"]), _time(fields["expires"]))


def _read_origin(fields: Mapping[str, Any]) -> OriginRecord:
    passes = fields["passes"]
    if not isinstance(passes, int) or isinstance(passes, bool) or not 0 < passes <= MAX_PASSES:
        raise ValueError
    return OriginRecord(_key(fields["origin"]), passes, _time(fields["counted_at"]), _time(fields["expires"]))


def _read_correspondent(fields: Mapping[str, Any]) -> Correspondent:
    return Correspondent(_key(fields["address"]), _time(fields["expires"]))


def _read_entry(fields: Mapping[str, Any]) -> Entry:
    kind, note, is_allowed = EntryKind(fields["kind"]), fields["note"], fields["is_allowed"]
    if not isinstance(note, str) or not isinstance(is_allowed, bool) or not isinstance(fields["subject"], str):
        raise ValueError
    subject = normalize_subject(kind, fields["subject"])
    note = "".join(character for character in note[:MAX_NOTE] if character.isprintable())
    return Entry(kind, subject, is_allowed, _time(fields["added_at"]), _time(fields["until"]), note)


_READERS: Mapping[str, tuple[Kind, Callable[[Mapping[str, Any]], Record]]] = {
    "triplet": (Kind.TRIPLET, _read_triplet),
    "origin": (Kind.ORIGIN, _read_origin),
    "correspondent": (Kind.CORRESPONDENT, _read_correspondent),
    "entry": (Kind.ENTRY, _read_entry),
}


def _line(fields: Mapping[str, object]) -> str:
    return json.dumps(fields, separators=(",", ":")) + "\n"


def _fields(line: bytes) -> Mapping[str, Any] | None:
    """Return a line's object; None for what is none."""
    if len(line) > MAX_LINE:
        return None
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def _key(value: object) -> str:
    if not isinstance(value, str) or not _KEY.fullmatch(value):
        raise ValueError
    return value


def _time(value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= MAX_NUMBER:
        raise ValueError
    seconds = float(value)
    if not math.isfinite(seconds):
        raise ValueError
    return seconds
