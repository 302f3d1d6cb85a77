"""What limits count, and what holds for accounts, in dictionaries: for the time in which a store is away, and for tests.

It ends with the process, and nobody shares it. Bounded: where there is no more room, the counters that were charged longest ago
make it, so that nobody pushes out the counters of an account that goes on sending.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar

from mailward.model.accounts import Account, AuditEntry
from mailward.model.errors import StoreError, StoreFailure
from mailward.model.limits import KNOWN, Charging, CounterKey, CounterRecord, Outcome, Sent
from mailward.model.state import StateSize
from mailward.policy import ratelimit

MAX_OCTETS = 64 * 1024 * 1024  # of counters: some 60,000 accounts with three limits each
COUNTER_OCTETS = 600  # what a counter takes beside its value: keys, record, rows of dictionaries
MAX_ACCOUNTS = 100_000  # with something to remember; each has reached a limit, or an operator has named it
MAX_AUDIT_ENTRIES = 100_000
MAX_NOTES = 1000
MAX_SENT = 5000  # of an account
MAX_SENT_IN_ALL = 200_000
SENT_SECONDS = 5 * 86400.0  # as long as Postfix keeps mail in its queue
STEP_OF_TENDING = 500  # counters looked at in one step: less than a millisecond

Key = TypeVar("Key")
Value = TypeVar("Value")


class MemoryLimits:
    """A LimitRecords over dictionaries and one lock; the definition in mailward.policy.ratelimit does all the thinking."""

    def __init__(self, max_octets: int = MAX_OCTETS) -> None:
        self._lock = threading.Lock()
        self._max_octets = max_octets
        self._octets = 0
        self._counters: dict[CounterKey, CounterRecord] = {}  # those charged longest ago first
        self._keys_of: dict[str, dict[CounterKey, None]] = {}  # of each owner
        self._sent: dict[str, deque[tuple[float, str]]] = {}  # of each account, the oldest first
        self._sent_in_all = 0
        self._accounts: dict[str, Account] = {}
        self._version = 0
        self._audit_log: deque[AuditEntry] = deque(maxlen=MAX_AUDIT_ENTRIES)
        self._notes: dict[str, str] = {}

    def charge(self, chargings: Sequence[Charging], now: float | None = None) -> list[Outcome]:
        """Charge requests one after the other."""
        now = _clock(now)
        with self._lock:
            return [self._charge_one(charging, now) for charging in chargings]

    def _charge_one(self, charging: Charging, now: float) -> Outcome:
        records = ((key, self._counters.get(key)) for key in ratelimit.counters_of(charging))
        values = {key: record.value for key, record in records if record is not None and record.expires > now}
        outcome, changes = ratelimit.charge(charging, values, now)
        for key, kept in changes.items():
            self._put(CounterRecord(key, kept.value, kept.expires))
        if outcome.is_charged and charging.sent is not None:
            self._note_sent(charging.sent, now)
        return outcome

    def _put(self, record: CounterRecord) -> None:
        self._forget(record.key)  # so that the dictionary's order is that of charging
        self._counters[record.key] = record
        self._keys_of.setdefault(record.key.owner, {})[record.key] = None
        self._octets += _octets(record)
        while self._octets > self._max_octets:
            self._forget(next(iter(self._counters)))

    def _forget(self, key: CounterKey) -> None:
        record = self._counters.pop(key, None)
        if record is None:
            return
        self._octets -= _octets(record)
        keys = self._keys_of[key.owner]
        del keys[key]
        if not keys:
            del self._keys_of[key.owner]

    def _note_sent(self, sent: Sent, now: float) -> None:
        of_account = self._sent.pop(sent.account, deque())
        if len(of_account) >= MAX_SENT:
            of_account.popleft()
            self._sent_in_all -= 1
        of_account.append((now, sent.queue_id))
        self._sent[sent.account] = of_account
        self._sent_in_all += 1
        while self._sent_in_all > MAX_SENT_IN_ALL:
            self._sent_in_all -= len(self._sent.pop(next(iter(self._sent))))

    def probe(self) -> None:
        """Do nothing: a dictionary is always there."""

    def size(self) -> StateSize | None:
        """Say nothing: there is no file."""
        return None

    def tend(self, now: float | None = None) -> None:
        """Forget what has expired among what was looked at longest ago; the rest goes to the end of the queue."""
        now = _clock(now)
        with self._lock:
            for key, record in _first(self._counters):
                if record.expires <= now:
                    self._forget(key)
                else:
                    _to_the_end(self._counters, key)
            for account, of_account in _first(self._sent):
                while of_account and of_account[0][0] <= now - SENT_SECONDS:
                    of_account.popleft()
                    self._sent_in_all -= 1
                _to_the_end(self._sent, account)
                if not of_account:
                    del self._sent[account]

    def close(self) -> None:
        """Do nothing: the memory goes with its last owner."""

    def counters(self, owner: str) -> Sequence[CounterRecord]:
        """Return an owner's counters, expired ones too."""
        with self._lock:
            return [self._counters[key] for key in self._keys_of.get(owner, ())]

    def all_counters(self) -> Iterator[CounterRecord]:
        """Yield every counter as it is now, but the sets of known items."""
        with self._lock:
            records = [record for record in self._counters.values() if record.key.limit != KNOWN]
        return iter(records)

    def reset(self, owner: str) -> int:
        """Forget what is counted of an owner, but not the items it knows; return how many counters there were."""
        with self._lock:
            keys = [key for key in self._keys_of.get(owner, ()) if key.limit != KNOWN]
            for key in keys:
                self._forget(key)
            return len(keys)

    def sent(self, account: str, now: float | None = None) -> Sequence[tuple[float, str]]:
        """Return when an account handed which queue ids to Postfix in the last five days, the newest first."""
        since = _clock(now) - SENT_SECONDS
        with self._lock:
            return [(at, queue_id) for at, queue_id in reversed(self._sent.get(account, ())) if at > since]

    def accounts_version(self) -> str:
        """Return how many times an account has changed."""
        with self._lock:
            return str(self._version)

    def accounts(self) -> Mapping[str, Account]:
        """Return every account of which there is something to remember, by its name."""
        with self._lock:
            return dict(self._accounts)

    def account(self, name: str) -> Account:
        """Return one account; a plain one where nothing is remembered."""
        with self._lock:
            return self._accounts.get(name) or Account(name)

    def swap(self, old: Account, new: Account, entries: Sequence[AuditEntry] = ()) -> bool:
        """Put `new` in the place of `old` and add the entries to the audit log; False if it is not `old` any more."""
        with self._lock:
            if self._accounts.get(old.name, Account(old.name)) != old:
                return False
            if new.is_plain:
                self._accounts.pop(new.name, None)
            elif len(self._accounts) >= MAX_ACCOUNTS and new.name not in self._accounts:
                raise StoreError(StoreFailure.FULL, f"there are {MAX_ACCOUNTS} accounts already")
            else:
                self._accounts[new.name] = new
            self._version += 1
            self._audit_log.extend(entries)
            return True

    def audit(self, entry: AuditEntry) -> None:
        """Add to the audit log; of too many the oldest go."""
        with self._lock:
            self._audit_log.append(entry)

    def audit_log(self, account: str = "", most: int = 1000) -> Sequence[AuditEntry]:
        """Return the newest entries, of one account or of all, the newest first."""
        with self._lock:
            entries = (entry for entry in reversed(self._audit_log) if not account or entry.account == account)
            return list(islice(entries, most))

    def put_note(self, name: str, value: str) -> None:
        """Keep a small fact for the command to show."""
        with self._lock:
            if name not in self._notes and len(self._notes) >= MAX_NOTES:
                raise StoreError(StoreFailure.FULL, f"there are {MAX_NOTES} notes already")
            self._notes[name] = value

    def notes(self) -> Mapping[str, str]:
        """Return the facts that are kept."""
        with self._lock:
            return dict(self._notes)


def _clock(now: float | None) -> float:
    return time.time() if now is None else now


def _octets(record: CounterRecord) -> int:
    return len(record.value) + len(record.key.owner) + len(record.key.rest) + COUNTER_OCTETS


def _first(kept: dict[Key, Value]) -> list[tuple[Key, Value]]:
    return list(islice(kept.items(), STEP_OF_TENDING))


def _to_the_end(kept: dict[Key, Value], key: Key) -> None:
    kept[key] = kept.pop(key)
