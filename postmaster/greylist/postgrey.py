"""postgrey's database, as db_dump prints it: postgrey.db (triplets) and postgrey_clients.db (its automatic whitelist).

db_dump joins the environment that a running postgrey keeps in its folder: the file alone lacks what was written lately.
It runs as the folder's owner: the folder's files steer it, and are no reason for root to trust that account.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mailward.model.greylist import OriginRecord, Triplet, TripletRecord, Windows
from mailward.policy.greylist_key import UNKNOWN_NETWORK, compared_recipient, compared_sender, network_of
from postmaster.greylist.records import Item, Kind, Skipped

TRIPLETS, CLIENTS = "postgrey.db", "postgrey_clients.db"
PROGRAMS = ("db5.3_dump", "db_dump")
PACKAGE = "db-util"
MAX_LINE = 16 * 1024  # octets; an address has at most some hundred, and an octet is printed as three
CHUNK = 64 * 1024
STALL_SECONDS = 30.0  # a postgrey that was killed may have left a lock, for which db_dump waits for ever
MAX_PASSES = 2**31
MAX_WORDS = 300

_ESCAPE = re.compile(rb"\\(\\|[0-9a-fA-F]{2})")
_HASHED = re.compile(rb"[0-9a-f]{40}")
_TIMES = re.compile(rb"([0-9]{1,12}),([0-9]{1,12})(?:,.*)?", re.DOTALL)
_DOMAIN = re.compile(r"@([a-z0-9.-]+)\Z")
# --lookup-by-host writes "192.0.2.7/32"; a sender that is only "32" is none.
_NETWORK = re.compile(rb"([0-9a-f.:]{2,45})(?:/(?:32|128)(?=/[^/]*/))?/(.*)", re.DOTALL | re.IGNORECASE)

HASHED = "hashed by postgrey's --privacy, which cannot be undone"
UNREADABLE = "not as postgrey has them"

Pairs = Iterator[tuple[bytes, bytes]]


class DumpFailed(Exception):
    """The database could not be read; the message says why."""


class DumpMissing(Exception):
    """db_dump is not installed."""


@dataclass(frozen=True, slots=True)
class Database:
    """The two databases as they are being read; `octets` is about how much there is."""

    clients: Pairs
    triplets: Pairs
    octets: int


@contextlib.contextmanager
def open_database(folder: Path) -> Iterator[Database]:
    """Start to read the databases of a folder. Raises DumpMissing, and DumpFailed while it is read."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise DumpMissing
    with contextlib.ExitStack() as stack:
        pairs: dict[str, Pairs] = {}
        for name in (CLIENTS, TRIPLETS):
            is_there = (folder / name).exists()  # without an automatic whitelist there is none
            pairs[name] = stack.enter_context(_dump(program, folder, name)) if is_there else iter(())
        octets = sum((folder / name).stat().st_size for name in (CLIENTS, TRIPLETS) if (folder / name).exists())
        yield Database(pairs[CLIENTS], pairs[TRIPLETS], octets)


def read_database(
    database: Database, windows: Windows, prefixes: tuple[int, int], advance: Callable[[int], None]
) -> Iterator[Item]:
    """Yield what postgrey knows as records of ours. Raises DumpFailed.

    A triplet that has passed passes for the client's network as postgrey has it, and for whatever client SPF lets send for
    the sender's domain: that is the origin under which such a triplet is looked for.
    """
    for key, value in database.clients:
        advance(len(key) + len(value))
        yield _read_client(key, value, windows, prefixes)
    for key, value in database.triplets:
        advance(len(key) + len(value))
        yield from _read_triplet(key, value, windows, prefixes)


def _read_client(key: bytes, value: bytes, windows: Windows, prefixes: tuple[int, int]) -> Item:
    numbers = _TIMES.fullmatch(value)
    origin = network_of(key.decode("latin-1"), *prefixes)
    if _HASHED.fullmatch(key):
        return Skipped(Kind.ORIGIN, HASHED)
    if numbers is None or origin == UNKNOWN_NETWORK:
        return Skipped(Kind.ORIGIN, UNREADABLE)
    passes, last = int(numbers[1]), float(numbers[2])
    return OriginRecord(origin, min(max(passes, 1), MAX_PASSES), last, last + windows.remember)


def _read_triplet(key: bytes, value: bytes, windows: Windows, prefixes: tuple[int, int]) -> Iterator[Item]:
    if _HASHED.fullmatch(key):
        yield Skipped(Kind.TRIPLET, HASHED)
        return
    parts, times = _split_key(key), _TIMES.fullmatch(value)
    origin = network_of(parts[0].decode("latin-1"), *prefixes) if parts else UNKNOWN_NETWORK
    if parts is None or times is None or origin == UNKNOWN_NETWORK:
        yield Skipped(Kind.TRIPLET, UNREADABLE)
        return
    first, last = float(times[1]), float(times[2])
    triplet = Triplet(origin, compared_sender(parts[1]), compared_recipient(parts[2]))
    if last - first < windows.delay:
        yield TripletRecord(triplet, first, 0.0, first + windows.retry_window)
        return
    yield TripletRecord(triplet, first, last, last + windows.remember)
    if domain := _DOMAIN.search(triplet.mail_from):
        vouched = Triplet(domain[1], triplet.mail_from, triplet.rcpt_to)
        yield TripletRecord(vouched, first, last, last + windows.remember)


def _split_key(key: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Part "network/sender/recipient"; None for what can be parted in no way, or in more than one."""
    match = _NETWORK.fullmatch(key)
    if match is None:
        return None
    network, rest = match.groups()
    if rest.startswith(b"/"):
        return network, b"", rest[1:]
    found = []
    for slash in re.finditer(b"/", rest):
        sender, recipient = rest[: slash.start()], rest[slash.end() :]
        # Slashes may stand in a local part, in a domain never.
        if recipient and b"/" not in sender.rpartition(b"@")[2] and b"/" not in recipient.rpartition(b"@")[2]:
            found.append((network, sender, recipient))
    whole = [parts for parts in found if b"@" in parts[1]] or found
    return whole[0] if len(whole) == 1 else None


@contextlib.contextmanager
def _dump(program: str, folder: Path, name: str) -> Iterator[Pairs]:
    owner = folder.stat()
    account = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    with tempfile.TemporaryFile() as words:
        child = subprocess.Popen(  # noqa: S603 - a fixed program, and a folder the operator named
            [program, "-p", "-h", str(folder.resolve()), name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=words,
            env={"PATH": os.defpath, "LC_ALL": "C"},
            **account,  # type: ignore[call-overload]
        )
        assert child.stdout is not None
        try:
            yield _pairs(_data_lines(_lines(child.stdout.fileno()), lambda: _verdict(child, words, name)))
        finally:
            child.kill()
            child.wait()
            child.stdout.close()


def _pairs(lines: Iterator[bytes]) -> Pairs:
    for key in lines:
        value = next(lines, None)
        if value is None:
            raise DumpFailed("db_dump printed a key without a value")
        yield _unescape(key), _unescape(value)


def _data_lines(lines: Iterator[bytes], verdict: Callable[[], str]) -> Iterator[bytes]:
    """Yield the lines between header and end. Raises DumpFailed where the end is missing."""
    is_data = False
    for line in lines:
        if line == b"DATA=END":
            return
        if is_data:
            yield line[1:]
        elif line == b"HEADER=END":
            is_data = True
    raise DumpFailed(verdict())


def _lines(descriptor: int) -> Iterator[bytes]:
    """Yield a pipe's lines without their ends. Raises DumpFailed where one is too long, or none comes."""
    held = b""
    while True:
        readable, _, _ = select.select([descriptor], [], [], STALL_SECONDS)
        if not readable:
            raise DumpFailed(
                f"db_dump has said nothing for {STALL_SECONDS:.0f} s: stop postgrey, copy {TRIPLETS} and {CLIENTS} "
                "elsewhere and import that folder"
            )
        chunk = os.read(descriptor, CHUNK)
        if not chunk:
            return
        *lines, held = (held + chunk).split(b"\n")
        if len(held) > MAX_LINE or any(len(line) > MAX_LINE for line in lines):
            raise DumpFailed("this is no database of postgrey's: db_dump printed a line without end")
        yield from lines


def _verdict(child: subprocess.Popen[bytes], words: IO[bytes], name: str) -> str:
    """Return what db_dump said when it failed."""
    child.wait()
    words.seek(0)
    said = words.readline(MAX_WORDS).decode("utf-8", "replace").strip()
    return f"{name}: {said or f'db_dump ended with status {child.returncode}'}"


def _unescape(printed: bytes) -> bytes:
    if b"\\" not in printed:
        return printed
    return _ESCAPE.sub(lambda match: b"\\" if match[1] == b"\\" else bytes((int(match[1], 16),)), printed)
