"""What holds for accounts, the audit log and the notes in Redis; all in one slot, so that one script changes them together.

mailward:limits:{accounts}           a hash: an account's name, the account as JSON
mailward:limits:{accounts} version   microseconds: when an account was changed last, about; each change has its own
mailward:limits:{accounts} audit     a stream of the last 100,000 entries, each as JSON
mailward:limits:{accounts} notes     a hash
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mailward.adapters.redis_counter_keys import text_of
from mailward.adapters.redis_finders import encode
from mailward.adapters.redis_link import Reply
from mailward.adapters.redis_servers import RedisServers, Script
from mailward.model.accounts import Account, AuditEntry, Incident, Raise, Suspension
from mailward.model.errors import StoreError, StoreFailure

ACCOUNTS = "mailward:limits:{accounts}"
VERSION, AUDIT, NOTES = (f"{ACCOUNTS} {name}" for name in ("version", "audit", "notes"))

MAX_ENTRIES = 100_000
MAX_DOCUMENT = 64 * 1024  # octets of an account; with twenty raises one has about 3,000
MAX_WORDS = 4000  # characters of each text in an entry of the audit log; what is longer is clipped
BATCH = 1000  # entries a round trip
NOT_OURS = (ArithmeticError, ValueError, LookupError, TypeError, RecursionError)  # what reading such a document raises

# KEYS: the accounts, version, audit log. ARGV: a name, what is kept of it or '', what shall be or '', entries for the log.
# Of two changes each has another version, also where a failover has taken some back: so it is the time, and never stands still.
SWAP = Script(
    f"local MAX_ENTRIES = {MAX_ENTRIES}\n"
    """
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
if ARGV[3] == '' then redis.call('HDEL', KEYS[1], ARGV[1]) else redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
local time = redis.call('TIME')
local version = math.max((tonumber(redis.call('GET', KEYS[2])) or 0) + 1, time[1] * 1000000 + time[2])
redis.call('SET', KEYS[2], string.format('%.0f', version))
for at = 4, #ARGV do redis.call('XADD', KEYS[3], 'MAXLEN', MAX_ENTRIES, '*', 'e', ARGV[at]) end
return 1
"""
)


class RedisAccounts:
    """An AccountStore on servers that its owner opens and closes; see RedisLimits."""

    def __init__(self, servers: RedisServers, timeout: float) -> None:
        self._servers = servers
        self._timeout = timeout

    def version(self) -> str:
        """Return something that is another each time an account has changed."""
        value = self._ask(VERSION, "GET")
        return value.decode("ascii", "replace") if isinstance(value, bytes) else ""

    def every(self) -> Mapping[str, Account]:
        """Return every account of which there is something to remember, by its name."""
        found = (_read_account(text_of(name), value) for name, value in _pairs(self._ask(ACCOUNTS, "HGETALL")))
        return {account.name: account for account in found if not account.is_plain}

    def one(self, name: str) -> Account:
        """Return one account; a plain one where nothing is remembered."""
        return _read_account(name, self._kept(name))

    def swap(self, old: Account, new: Account, entries: Sequence[AuditEntry]) -> bool:
        """Put `new` in the place of `old`, and add the entries to the audit log; False if it is not `old` any more."""
        kept = self._kept(old.name)
        if _read_account(old.name, kept) != old:
            return False
        wanted = b"" if new.is_plain else _write_account(new)
        arguments = (encode(old.name), kept, wanted, *map(_write_entry, entries))
        return bool(self._servers.run(SWAP, (ACCOUNTS, VERSION, AUDIT), arguments, self._deadline()))

    def audit(self, entry: AuditEntry) -> None:
        """Add to the audit log; the oldest go."""
        self._ask(AUDIT, "XADD", "MAXLEN", MAX_ENTRIES, "*", "e", _write_entry(entry))

    def audit_log(self, account: str, most: int) -> Sequence[AuditEntry]:
        """Return the newest entries, of one account or of all, the newest first. Each step has a budget of its own."""
        found: list[AuditEntry] = []
        newest = b"+"
        while len(found) < most and newest:
            batch = self._ask(AUDIT, "XREVRANGE", newest, "-", "COUNT", BATCH)
            entries = filter(None, (_read_entry(fields) for _, fields in batch))
            found += [entry for entry in entries if not account or entry.account == account]
            newest = _before(batch[-1][0]) if len(batch) == BATCH else b""
        return found[:most]

    def put_note(self, name: str, value: str) -> None:
        """Keep a small fact for the command to show."""
        self._ask(NOTES, "HSET", encode(name), encode(value[:MAX_WORDS]))

    def notes(self) -> Mapping[str, str]:
        """Return the facts that are kept."""
        return {text_of(name): text_of(value) for name, value in _pairs(self._ask(NOTES, "HGETALL"))}

    def _kept(self, name: str) -> bytes:
        value = self._ask(ACCOUNTS, "HGET", encode(name))
        return value if isinstance(value, bytes) else b""

    def _ask(self, key: str, word: str, *rest: str | bytes | int) -> Reply:
        (reply,) = self._servers.exchange(key, [(word, encode(key), *rest)], self._deadline())
        return reply

    def _deadline(self) -> float:
        return time.monotonic() + self._timeout


def _pairs(reply: Reply) -> list[tuple[bytes, bytes]]:
    if not isinstance(reply, list) or len(reply) % 2:
        raise StoreError(StoreFailure.OTHER, "what answers is no Redis")
    return list(zip(reply[::2], reply[1::2], strict=True))


def _before(entry_id: bytes) -> bytes:
    """Return the id before one of a stream's: Redis 5 has no way to say "below".

    >>> _before(b"1700000000000-5"), _before(b"1700000000000-0")
    (b'1700000000000-4', b'1699999999999-18446744073709551615')
    """
    milliseconds, _, number = entry_id.partition(b"-")
    if int(number):
        return b"%s-%d" % (milliseconds, int(number) - 1)
    return b"%d-%d" % (int(milliseconds) - 1, 2**64 - 1)


def _write_account(account: Account) -> bytes:
    document = json.dumps(asdict(account)).encode()
    if len(document) > MAX_DOCUMENT:
        raise StoreError(StoreFailure.OTHER, f"an account may have {MAX_DOCUMENT} octets")
    return document


def _read_account(name: str, document: bytes) -> Account:
    """Return an account; a plain one where there is none, or none of ours, which the next swap then replaces."""
    try:
        values = json.loads(document)
        return Account(
            name,
            _read_incident(values["incident"]) if values["incident"] else None,
            _read_suspension(values["suspension"]) if values["suspension"] else None,
            tuple(_read_raise(each) for each in values["raises"]),
            bool(values["is_tightened"]),
        )
    except NOT_OURS:
        return Account(name)


def _read_incident(values: Any) -> Incident:
    return Incident(
        opened_at=float(values["opened_at"]),
        cause=str(values["cause"]),
        hits=int(values["hits"]),
        last_hit_at=float(values["last_hit_at"]),
        closed_at=float(values["closed_at"]),
        told=str(values["told"]),
        telling_until=float(values["telling_until"]),
        refused=int(values.get("refused", 0)),
    )


def _read_suspension(values: Any) -> Suspension:
    return Suspension(float(values["at"]), str(values["by"]), str(values["why"]))


def _read_raise(values: Any) -> Raise:
    return Raise(int(values["most"]), float(values["seconds"]), float(values["until"]), str(values["limit"]))


def _write_entry(entry: AuditEntry) -> bytes:
    clipped = {name: value[:MAX_WORDS] if isinstance(value, str) else value for name, value in asdict(entry).items()}
    return json.dumps(clipped).encode()


def _read_entry(fields: Sequence[bytes]) -> AuditEntry | None:
    try:
        values = json.loads(fields[1])
        words = (str(values[name]) for name in ("who", "action", "account", "why", "before", "after"))
        return AuditEntry(float(values["at"]), *words)
    except NOT_OURS:
        return None
