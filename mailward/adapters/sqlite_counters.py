"""What limits count, and what holds for accounts, in a SQLite file (mailward.model.ports.LimitRecords).

All requests of a call are charged in one transaction, which takes the file's write lock before it reads: what is read is what
is changed. One statement reads all their counters, and one writes those that have changed; both, the lock and the commit are
12 us of 32 for a request, in calls of eight, that three counters of one owner count; 19 where any of a million owners sends.
Nothing is remembered between two calls: other processes charge the same counters.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mailward.adapters import sqlite_accounts
from mailward.adapters.sqlite_accounts import SqliteAccounts
from mailward.adapters.sqlite_charging import REST_MASK, SEPARATOR, Counters, next_key, owner_key_of, record_of
from mailward.adapters.sqlite_file import SqliteFile
from mailward.adapters.sqlite_link import MAX_OCTETS, Connection, Row, Schema
from mailward.adapters.sqlite_room import Room
from mailward.adapters.sqlite_rows import BATCH, HIGHEST_KEY, LOWEST_KEY, clean
from mailward.adapters.sqlite_upkeep import Table, Upkeep
from mailward.model.accounts import Account, AuditEntry
from mailward.model.limits import KNOWN, Charging, CounterRecord, Outcome, Sent
from mailward.model.state import Durability, StateSize

FILE = "policyd.sqlite"
SENT_SECONDS = 5 * 86400.0  # as long as Postfix keeps mail in its queue
# Most often one process counts, and who sends now sends again soon: that a hundred accounts' pages stay in the cache, wherever
# among a million they lie, is 2 us a request.
CACHE_KIB = 2048
MOST_SENT = 5000  # of an account that are returned
SENT_SLOT = 60  # seconds whose messages of one account are one row: the one who sends most rewrites some kilobytes
SENT_OCTETS = 65536  # of a row; two thousand messages a minute are no person
MOST_TRIES = 8  # at a place for a row, until it takes another's

SCHEMA = Schema(
    application_id=0x6D777031,  # "mwp1"
    migrations=(
        (
            "CREATE TABLE counters (key INTEGER PRIMARY KEY, written_at INTEGER NOT NULL, expires REAL NOT NULL,"
            " name TEXT NOT NULL, value BLOB NOT NULL)",
            "CREATE TABLE sent (key INTEGER PRIMARY KEY, written_at INTEGER NOT NULL, account TEXT NOT NULL,"
            " messages TEXT NOT NULL)",
            "CREATE TABLE probes (key INTEGER PRIMARY KEY, written_at REAL NOT NULL)",
            *sqlite_accounts.TABLES,
        ),
    ),
    page_octets=1024,  # the counters of some accounts; four times as much a request makes a twentieth fewer requests a second
)
FIND = "SELECT key, name, value, expires FROM counters WHERE key IN ({})"
FINDABLE = (
    1,
    3,
    6,
    12,
    24,
    48,
    96,
    192,
)  # so many keys at once: each number is a statement, and Python keeps a hundred
ADD = "INSERT OR REPLACE INTO counters (value, expires, written_at, key, name) VALUES (?, ?, ?, ?, ?)"
CHANGE = "UPDATE counters SET value = ?, expires = ?, written_at = ? WHERE key = ?"
OF_OWNER = "key BETWEEN ? AND ? AND substr(name, 1, ?) = ?"
IS_KNOWN = f"instr(name, char(10) || '{KNOWN}' || char(10)) > 0"
# The sets of known items are the largest rows, and are not read.
SCAN = (
    f"SELECT key, name, CASE WHEN {IS_KNOWN} THEN NULL ELSE value END, expires"  # noqa: S608
    " FROM counters WHERE key >= ?"
    f" ORDER BY key LIMIT {BATCH}"
)
SEND = (
    "INSERT INTO sent VALUES (?, ?, ?, ?) ON CONFLICT (key)"  # noqa: S608
    " DO UPDATE SET written_at = excluded.written_at, account = excluded.account,"
    f" messages = CASE WHEN account = excluded.account AND length(messages) < {SENT_OCTETS}"
    " THEN messages ELSE '' END || excluded.messages"
)
# Where room is short, what nobody has charged for some time goes: strangers make counters, too. Not those of who has logged in,
# nor what they know: those are as many as there are accounts.
COUNTER_GONE = "expires <= ?1 OR written_at <= ?2 AND substr(name, 1, 5) <> 'sasl_'"
SENT_GONE = f"written_at <= ?1 - {SENT_SECONDS} OR written_at <= ?2"


class SqliteLimits:
    """A LimitRecords over `<folder>/policyd.sqlite`, which is kept below `max_octets`."""

    def __init__(self, folder: Path, durability: Durability, timeout: float, max_octets: int = MAX_OCTETS) -> None:
        self._file = SqliteFile(folder / FILE, SCHEMA, durability, timeout, max_octets, CACHE_KIB)
        self._accounts = SqliteAccounts(self._file)
        self._room = Room(self._file)
        self.upkeep = Upkeep(self._file, (Table("counters", COUNTER_GONE), Table("sent", SENT_GONE)))

    def charge(self, chargings: Sequence[Charging], now: float | None = None) -> list[Outcome]:
        """Charge requests one after the other, and write what has changed in one transaction."""
        self._room.require()

        def charged(connection: Connection) -> list[Outcome]:
            at = _clock(now)  # under the lock: no process charges by an earlier clock than the one before it
            counters = Counters(chargings)
            there = _find(connection, counters, at)
            outcomes = [counters.charge(number, charging, at) for number, charging in enumerate(chargings)]
            _write(connection, counters, there, at)
            for charging, outcome in zip(chargings, outcomes, strict=True):
                if charging.sent is not None and outcome.is_charged:
                    connection.execute(SEND, _sent_row(charging.sent, at))
            return outcomes

        return self._file.transact(charged)

    def probe(self) -> None:
        """Write something that nobody reads, as a charge would."""
        self._room.probe()

    def size(self) -> StateSize | None:
        """Return how large the file is."""
        return self._room.size()

    def tend(self, now: float | None = None) -> None:
        """Do a small step of housekeeping: of all processes, one does it."""
        self._room.look()
        self.upkeep.step(_clock(now))

    def close(self) -> None:
        """Let go of files; a later call opens them again."""
        self.upkeep.close()
        self._file.close()

    def counters(self, owner: str) -> Sequence[CounterRecord]:
        """Return an owner's counters, expired ones too."""
        statement = f"SELECT name, value, expires FROM counters WHERE {OF_OWNER} ORDER BY key"  # noqa: S608
        return [record_of(*row) for row in self._file.query(statement, _rows_of(owner))]

    def all_counters(self) -> Iterator[CounterRecord]:
        """Yield every counter but the sets of known items, a batch at a time: nothing is locked in between."""
        lowest = LOWEST_KEY
        while rows := self._file.query_if_there(SCAN, (lowest,)):
            yield from (record_of(name, value, expires) for _, name, value, expires in rows if value is not None)
            if rows[-1][0] == HIGHEST_KEY:
                return
            lowest = rows[-1][0] + 1

    def reset(self, owner: str) -> int:
        """Forget what is counted of an owner, but not the items it knows; return how many counters there were."""
        statement = f"DELETE FROM counters WHERE {OF_OWNER} AND NOT {IS_KNOWN}"  # noqa: S608
        return self._file.transact(lambda connection: connection.execute(statement, _rows_of(owner)).rowcount)

    def sent(self, account: str, now: float | None = None) -> Sequence[tuple[float, str]]:
        """Return when an account handed which queue ids to Postfix in the last five days, the newest first."""
        lowest, since = owner_key_of(account), _clock(now) - SENT_SECONDS
        rows = self._file.query(
            "SELECT messages FROM sent WHERE key BETWEEN ? AND ? AND account = ? AND written_at >= ?"
            " ORDER BY written_at DESC LIMIT ?",
            (lowest, lowest + REST_MASK, clean(account), int(since), MOST_SENT),
        )
        messages = [line.split(" ", 1) for (lines,) in rows for line in lines.splitlines()]
        found = [(float(at), queue_id) for at, queue_id in messages if float(at) > since]
        return sorted(found, reverse=True)[:MOST_SENT]

    def accounts_version(self) -> str:
        """Return something that is another each time an account has changed."""
        return self._accounts.accounts_version()

    def accounts(self) -> Mapping[str, Account]:
        """Return every account of which there is something to remember, by its name."""
        return self._accounts.accounts()

    def account(self, name: str) -> Account:
        """Return one account; a plain one where nothing is remembered."""
        return self._accounts.account(name)

    def swap(self, old: Account, new: Account, entries: Sequence[AuditEntry] = ()) -> bool:
        """Put `new` in the place of `old` and add the entries to the audit log; False if it is not `old` any more."""
        return self._accounts.swap(old, new, entries)

    def audit(self, entry: AuditEntry) -> None:
        """Add to the audit log."""
        self._accounts.audit(entry)

    def audit_log(self, account: str = "", most: int = 1000) -> Sequence[AuditEntry]:
        """Return the newest entries, of one account or of all, the newest first."""
        return self._accounts.audit_log(account, most)

    def put_note(self, name: str, value: str) -> None:
        """Keep a small fact for the command to show."""
        self._accounts.put_note(name, value)

    def notes(self) -> Mapping[str, str]:
        """Return the facts that are kept."""
        return self._accounts.notes()


def _find(connection: Connection, counters: Counters, now: float) -> set[str]:
    """Read the counters; return the names of those that have a row. What has expired is not there, but its row is."""
    keys = list(counters.keys.values())
    rows: list[Row] = []
    for first in range(0, len(keys), FINDABLE[-1]):
        some = keys[first : first + FINDABLE[-1]]
        size = next(size for size in FINDABLE if size >= len(some))
        statement = FIND.format(", ".join("?" * size))
        rows += connection.execute(statement, some + some[-1:] * (size - len(some))).fetchall()
    if len(set(keys)) < len(keys) or any(counters.keys.get(name) != key for key, name, _, _ in rows):
        rows = _settle(connection, counters)
    kept = counters.kept
    for _, name, value, expires in rows:
        if expires > now:
            kept[name] = value
    return {row[1] for row in rows}


def _settle(connection: Connection, counters: Counters) -> list[Row]:
    """Find a place for each counter beside others whose keys are the same; return the rows that are theirs.

    There is a pair of such owners among a million. Where the one whose place it was is forgotten, the other begins anew,
    once; nobody gains by that who makes names up, as one more name would give him as much.
    """
    found, taken = [], set[int]()
    for name, key in counters.keys.items():
        for _ in range(MOST_TRIES):
            rows = connection.execute(FIND.format("?"), (key,)).fetchall()
            if key not in taken and (not rows or rows[0][1] == name):
                found += rows
                break
            key = next_key(key)
        counters.keys[name] = key
        taken.add(key)
    return found


def _write(connection: Connection, counters: Counters, there: set[str], now: float) -> None:
    added, changed, at = [], [], int(now)
    kept, keys = counters.kept, counters.keys
    for name, expires in counters.changed.items():
        row = (kept[name], expires, at, keys[name])
        if name in there:
            changed.append(row)
        else:
            added.append((*row, name))
    if changed:
        connection.executemany(CHANGE, changed)
    if added:
        connection.executemany(ADD, added)


def _sent_row(sent: Sent, now: float) -> Row:
    slot = int(now) // SENT_SLOT & REST_MASK
    queue_id = "".join(clean(sent.queue_id).split())
    return owner_key_of(sent.account) + slot, int(now), clean(sent.account), f"{now!r} {queue_id}\n"


def _rows_of(owner: str) -> Row:
    lowest, beginning = owner_key_of(owner), clean(owner) + SEPARATOR
    return lowest, lowest + REST_MASK, len(beginning), beginning


def _clock(now: float | None) -> float:
    return time.time() if now is None else now
