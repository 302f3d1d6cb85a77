"""What holds for accounts, the audit log and the notes, in policyd's SQLite file (mailward.model.ports.AccountStore).

An account is one row of JSON: few accounts have one, and all of them are read together. The audit log cannot be changed by SQL
either: triggers refuse what is no addition at its end, and no removal of what is older than the newest 100,000. (Who may write
the file can take the triggers away, or the file; this keeps honest programs honest.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple

from mailward.adapters.sqlite_file import SqliteFile
from mailward.adapters.sqlite_link import Change, Connection
from mailward.adapters.sqlite_rows import clean
from mailward.model.accounts import Account, AuditEntry, Incident, Raise, Suspension

AUDIT_ENTRIES = 100_000

TABLES = (
    "CREATE TABLE accounts (name TEXT PRIMARY KEY, account TEXT NOT NULL) WITHOUT ROWID",
    # Two files never have the same version: the one that is begun where another was set aside is a change, too.
    "CREATE TABLE version (key INTEGER PRIMARY KEY, file TEXT NOT NULL, changes INTEGER NOT NULL)",
    "INSERT INTO version VALUES (1, hex(randomblob(8)), 0)",
    "CREATE TABLE notes (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE audit (key INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, who TEXT NOT NULL, action TEXT NOT NULL,"
    " account TEXT NOT NULL, why TEXT NOT NULL, before TEXT NOT NULL, after TEXT NOT NULL)",
    "CREATE INDEX audit_of_account ON audit (account)",
    "CREATE TRIGGER audit_stays_as_it_is BEFORE UPDATE ON audit"
    " BEGIN SELECT raise(ABORT, 'the audit log is not changed'); END",
    "CREATE TRIGGER audit_stays BEFORE DELETE ON audit"  # noqa: S608 - the number is ours
    f" WHEN OLD.key > (SELECT max(key) FROM audit) - {AUDIT_ENTRIES}"
    " BEGIN SELECT raise(ABORT, 'of the audit log only the oldest go'); END",
    # A key that the statement names is known before the insertion, and one that SQLite is to find is -1: without this,
    # INSERT OR REPLACE would change a row without a trigger's being asked, and a high key make all the others old.
    "CREATE TRIGGER audit_grows_at_its_end BEFORE INSERT ON audit WHEN NEW.key <> -1"
    " BEGIN SELECT raise(ABORT, 'the audit log grows at its end'); END",
    "CREATE TRIGGER audit_begins_at_one AFTER INSERT ON audit WHEN NEW.key < 1"
    " BEGIN SELECT raise(ABORT, 'the audit log grows at its end'); END",
)
PUT = "INSERT OR REPLACE INTO accounts VALUES (?, ?)"
FORGET = "DELETE FROM accounts WHERE name = ?"
HAS_CHANGED = "UPDATE version SET changes = changes + 1"
AUDIT = "INSERT INTO audit (at, who, action, account, why, before, after) VALUES (?, ?, ?, ?, ?, ?, ?)"
AUDIT_IS_BOUNDED = f"DELETE FROM audit WHERE key <= (SELECT max(key) FROM audit) - {AUDIT_ENTRIES}"  # noqa: S608
AUDIT_COLUMNS = "at, who, action, account, why, before, after"


class SqliteAccounts:
    """An AccountStore over some tables of a file."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def accounts_version(self) -> str:
        """Return something that is another each time an account has changed."""
        rows = self._file.query("SELECT file, changes FROM version")
        return "-".join(map(str, rows[0])) if rows else ""

    def accounts(self) -> Mapping[str, Account]:
        """Return every account of which there is something to remember, by its name."""
        accounts = (_account_of(text) for (text,) in self._file.query("SELECT account FROM accounts"))
        return {account.name: account for account in accounts}

    def account(self, name: str) -> Account:
        """Return one account; a plain one where nothing is remembered."""
        rows = self._file.query("SELECT account FROM accounts WHERE name = ?", (clean(name),))
        return _account_of(rows[0][0]) if rows else Account(name)

    def swap(self, old: Account, new: Account, entries: Sequence[AuditEntry] = ()) -> bool:
        """Put `new` in the place of `old` and add the entries to the audit log; False if it is not `old` any more."""

        def swapped(connection: Connection) -> bool:
            row = connection.execute("SELECT account FROM accounts WHERE name = ?", (clean(old.name),)).fetchone()
            if (_account_of(row[0]) if row else Account(old.name)) != old:
                return False
            if new != old:
                _put(connection, new)
            _audit(connection, entries)
            return True

        return self._file.transact(swapped)

    def audit(self, entry: AuditEntry) -> None:
        """Add to the audit log."""
        self._file.transact(lambda connection: _audit(connection, [entry]))

    def audit_log(self, account: str = "", most: int = 1000) -> Sequence[AuditEntry]:
        """Return the newest entries, of one account or of all, the newest first."""
        of_account, values = ("WHERE account = ?", (clean(account),)) if account else ("", ())
        statement = f"SELECT {AUDIT_COLUMNS} FROM audit {of_account} ORDER BY key DESC LIMIT ?"  # noqa: S608
        return [AuditEntry(*row) for row in self._file.query(statement, (*values, max(0, most)))]

    def put_note(self, name: str, value: str) -> None:
        """Keep a small fact for the command to show."""
        self._file.change(Change("INSERT OR REPLACE INTO notes VALUES (?, ?)", (clean(name), clean(value))))

    def notes(self) -> Mapping[str, str]:
        """Return the facts that are kept."""
        return dict(self._file.query("SELECT name, value FROM notes"))


def _put(connection: Connection, account: Account) -> None:
    if account.is_plain:
        connection.execute(FORGET, (clean(account.name),))
    else:
        connection.execute(PUT, (clean(account.name), _text_of(account)))
    connection.execute(HAS_CHANGED)


def _audit(connection: Connection, entries: Sequence[AuditEntry]) -> None:
    rows = [tuple(clean(each) if isinstance(each, str) else each for each in astuple(entry)) for entry in entries]
    connection.executemany(AUDIT, rows)
    connection.execute(AUDIT_IS_BOUNDED)


def _text_of(account: Account) -> str:
    """Return an account as JSON: names of fields, so that a later version may add some. Octets that are no text stay."""
    named = {
        "name": account.name,
        "incident": _fields(account.incident),
        "suspension": _fields(account.suspension),
        "raises": [_fields(one) for one in account.raises],
        "is_tightened": account.is_tightened,
    }
    return json.dumps({name: value for name, value in named.items() if value}, separators=(",", ":"))


def _fields(record: Incident | Suspension | Raise | None) -> dict[str, object] | None:
    return {name: getattr(record, name) for name in record.__slots__} if record is not None else None


def _account_of(text: str) -> Account:
    found = json.loads(text)
    incident, suspension = found.get("incident"), found.get("suspension")
    return Account(
        found.get("name", ""),
        Incident(**incident) if incident else None,
        Suspension(**suspension) if suspension else None,
        tuple(Raise(**one) for one in found.get("raises", ())),
        found.get("is_tightened", False),
    )
