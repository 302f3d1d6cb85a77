"""Counters and accounts in their SQLite file: what survives KILL, who waits for whom, that it stays small, what nobody changes.

What it answers is in test_limits.py, for every store alike; what happens to files in test_sqlite_file.py.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from mailward.adapters import sqlite_charging, sqlite_counters
from mailward.adapters.account_changes import change_account
from mailward.adapters.sqlite_counters import FILE, SqliteLimits
from mailward.adapters.stores import open_limits
from mailward.model.accounts import Account, AuditEntry, Incident, Raise, Suspension
from mailward.model.errors import StoreError, StoreFailure
from mailward.model.limits import KNOWN, Charge, Charging, CounterKey, Kind, Outcome, Sent, Window
from mailward.model.state import Durability, SqliteState
from mailward.policy import incidents, ratelimit
from tests.adapters.sqlite_sightings import GENEROUS, START, size_of
from tests.adapters.sqlite_support import in_a_fork, locked_by_another_process, overwrite, small_file_system

DAY = 86400.0
LIMITS = ("recipients", "first", "surge")
WINDOWS = (Window(100, 3600.0), Window(500, DAY))
BOUND = 1024 * 1024
MANY_STEPS = 3000  # of housekeeping; a file that small is walked through in some tens


def open_store(folder: Path, timeout: float = GENEROUS, durability: Durability = Durability.PROCESS) -> SqliteLimits:
    return SqliteLimits(folder, durability, timeout)


@pytest.fixture
def store(folder: Path) -> Iterator[SqliteLimits]:
    opened = open_store(folder)
    yield opened
    opened.close()


def request(owner: str, *limits: str, most: int = 100, seconds: float = 3600.0, sent: str = "") -> Charging:
    charges = (Charge(CounterKey(owner, limit), (Window(most, seconds),)) for limit in limits or LIMITS)
    return Charging(tuple(charges), Sent(owner, sent) if sent else None)


def total(store: SqliteLimits, owner: str, now: float | None = START) -> int:
    """Return what is counted of an owner, and change nothing."""
    (outcome,) = store.charge([Charging((Charge(CounterKey(owner, LIMITS[0]), (Window(0, 3600.0),), 0),))], now)
    return outcome.readings[0].totals[0]


def tend(store: SqliteLimits, at: float) -> None:
    """Do the housekeeping until all rows have been looked at, if it is time for that."""
    for _ in range(MANY_STEPS):
        store.tend(START + at)
        if store.upkeep.is_at_rest:
            return
    raise AssertionError("there is no end of it")


def failure_of(act: Callable[[], object]) -> StoreFailure:
    with pytest.raises(StoreError) as caught:
        act()
    return caught.value.failure


def owners(store: SqliteLimits) -> set[str]:
    return {record.key.owner for record in store.all_counters()}


# What a call does.


def test_requests_of_a_call_are_charged_one_after_the_other_as_the_definition_does_it(store: SqliteLimits) -> None:
    randomness, values = random.Random(5), dict[CounterKey, bytes]()
    for call in range(60):
        now = START + call * 400.0
        chargings = [some_request(randomness) for _ in range(randomness.randint(1, 8))]
        expected = []
        for charging in chargings:
            outcome, changes = ratelimit.charge(charging, values, now)
            expected.append(outcome)
            values.update({key: kept.value for key, kept in changes.items()})
        assert store.charge(chargings, now) == expected
    for owner in ("a", "b"):
        assert {record.key: record.value for record in store.counters(owner)} == {
            key: value for key, value in values.items() if key.owner == owner
        }
    assert {record.key for record in store.all_counters()} == {key for key in values if key.limit != KNOWN}


def some_request(randomness: random.Random) -> Charging:
    keys = randomness.sample([CounterKey(owner, limit) for owner in ("a", "b") for limit in LIMITS], 3)
    kinds = dict(zip(LIMITS, Kind, strict=True))
    return Charging(
        tuple(
            Charge(
                key, (Window(12, 3600.0), Window(20, DAY)), 1, kinds[key.limit], bytes([randomness.randrange(9)] * 4)
            )
            for key in keys
        )
    )


def test_a_call_is_one_transaction(folder: Path, store: SqliteLimits) -> None:
    store.charge([request(f"client_address={number}", sent="4Xabc") for number in range(8)], START)

    def commits() -> int:
        """Count the frames of the log that end a transaction: those that say how large the file is then."""
        log = (folder / f"{FILE}-wal").read_bytes()
        return sum(
            log[at + 4 : at + 8] != b"\0\0\0\0" for at in range(32, len(log), 24 + sqlite_counters.SCHEMA.page_octets)
        )

    before = commits()
    store.charge([request(f"client_address={number}", sent="4Xabd") for number in range(4, 60)], START)
    assert commits() == before + 1


def test_refused_requests_and_looks_write_nothing(folder: Path, store: SqliteLimits) -> None:
    full = request("all", most=0, sent="4Xabc")
    store.charge([request("all")], START)
    before = size_of(folder / f"{FILE}-wal")
    assert [outcome.is_charged for outcome in store.charge([full] * 8, START)] == [False] * 8
    assert total(store, "all") == 1
    assert size_of(folder / f"{FILE}-wal") == before
    assert store.sent("all", START) == []


def test_a_call_of_many_requests_is_answered(store: SqliteLimits) -> None:
    outcomes = store.charge([request(f"client_address={number}") for number in range(300)] * 2, START)
    assert [outcome.readings[0].totals for outcome in outcomes] == [(1,)] * 300 + [(2,)] * 300
    assert store.charge([], START) == []
    assert store.charge([Charging(())], START) == [Outcome(True, ())]


def test_what_has_expired_is_not_there(store: SqliteLimits) -> None:
    first = Charging((Charge(CounterKey("a", "first"), (Window(9, 3600.0),), 1, Kind.FIRST_TIME, b"item"),))
    for at, is_known in ((0.0, False), (1.0, True), (179 * DAY, True), (181 * DAY, False)):
        (outcome,) = store.charge([first], START + at)
        assert outcome.readings[0].is_known is is_known


# What survives, and who waits.


@pytest.mark.parametrize("durability", Durability)
def test_killed_at_any_moment_the_counts_are_those_that_were_answered(folder: Path, durability: Durability) -> None:
    """A process charges batches and says each answer; killed, at most the one batch may be there that it had not said yet."""
    randomness = random.Random(13)
    for turn in range(6):
        owner, (reading, writing) = f"sasl_username={turn}", os.pipe()
        child = os.fork()
        if child == 0:
            try:
                store = open_store(folder, durability=durability)
                while True:
                    outcomes = store.charge([request(owner, most=10**6)] * 4, START)
                    os.write(writing, f"{outcomes[-1].readings[0].totals[0]}\n".encode())
            finally:
                os._exit(1)
        os.close(writing)
        with os.fdopen(reading) as answers:
            answered = int(answers.readline())
            time.sleep(randomness.random() * 0.05)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            answered = max([answered, *(int(line) for line in answers if line.endswith("\n"))])
        store = open_store(folder)
        assert total(store, owner) in (answered, answered + 4)
        assert len({record.value for record in store.counters(owner)}) == 1, "all counters of a request, or none"
        store.close()
    assert not list(folder.glob("*.damaged-*"))


def test_two_processes_charge_one_limit_and_never_exceed_it(folder: Path) -> None:
    store = open_store(folder)
    store.probe()
    children = []
    for _ in range(2):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                other = open_store(folder)
                charged = [other.charge([request("all", most=500)] * 3, START) for _ in range(150)]
                os.write(writing, str(sum(one.is_charged for outcomes in charged for one in outcomes)).encode())
            finally:
                os._exit(0)
        os.close(writing)
        children.append((child, reading))
    counts = []
    for child, reading in children:
        with os.fdopen(reading) as answer:
            counts.append(int(answer.read()))
        os.waitpid(child, 0)
    assert sum(counts) == 500 == total(store, "all")
    store.close()


def test_two_threads_charge_one_limit_and_never_exceed_it(store: SqliteLimits) -> None:
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda _: store.charge([request("all", most=100)], START)[0].is_charged, range(150)))
    assert sum(outcomes) == 100


def test_a_locked_file_is_read_and_not_waited_for_longer_than_the_budget(folder: Path) -> None:
    store = open_store(folder, 0.3)
    store.charge([request("all", sent="4Xabc")], START)
    store.swap(Account("ann"), Account("ann", is_tightened=True))
    with locked_by_another_process(folder / FILE):
        assert failure_of(lambda: store.charge([request("all")], START)) is StoreFailure.TIMEOUT
        assert failure_of(store.probe) is StoreFailure.TIMEOUT
        assert failure_of(lambda: store.swap(Account("eve"), Account("eve"))) is StoreFailure.TIMEOUT
        assert store.account("ann").is_tightened
        assert list(store.accounts()) == ["ann"]
        assert store.accounts_version()
        assert len(store.counters("all")) == len(list(store.all_counters())) == 3
        assert store.sent("all", START) == [(START, "4Xabc")]
    assert store.charge([request("all")], START)[0].readings[0].totals == (2,), "what was refused was not charged"
    store.close()


def test_a_damaged_file_is_set_aside_and_counting_goes_on(folder: Path, store: SqliteLimits) -> None:
    store.charge([request("all")], START)
    version = store.accounts_version()
    store.close()
    overwrite(folder / FILE, 0, 8192)
    assert failure_of(lambda: store.charge([request("all")], START)) is StoreFailure.DAMAGED
    assert store.charge([request("all")], START)[0].readings[0].totals == (1,)
    assert len(list(folder.glob("*.damaged-*"))) >= 1
    assert store.accounts_version() != version, "the accounts are others now"


def test_a_file_of_a_newer_version_is_left_alone(folder: Path) -> None:
    store = open_store(folder)
    store.charge([request("all")], START)
    store.close()

    def age() -> str:
        connection = sqlite3.connect(folder / FILE)
        connection.execute("PRAGMA user_version = 2")
        connection.close()
        return "aged"

    assert in_a_fork(age) == "aged"
    before = (folder / FILE).read_bytes()
    for act in (lambda: store.charge([request("all")], START), store.accounts, store.probe):
        assert failure_of(act) is StoreFailure.SCHEMA
    store.close()
    assert (folder / FILE).read_bytes() == before


def test_the_store_is_opened_by_its_name(folder: Path) -> None:
    store = open_limits(SqliteState(folder), Durability.PROCESS, GENEROUS)
    store.probe()
    assert (folder / FILE).exists()
    store.close()


# Rows.


def test_owners_with_one_hash_are_counted_apart(store: SqliteLimits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_charging, "place_of", sqlite_charging.place_of.__wrapped__)  # nothing from before
    monkeypatch.setattr(sqlite_charging, "owner_key_of", lambda owner: 0)
    monkeypatch.setattr(sqlite_counters, "owner_key_of", lambda owner: 0)
    for turn in range(1, 4):
        outcomes = store.charge([request("a"), request("b"), request("c"), request("a")], START)
        totals = [outcome.readings[0].totals[0] for outcome in outcomes]
        assert totals == [2 * turn - 1, turn, turn, 2 * turn]
    assert len(store.counters("b")) == 3
    assert store.reset("c") == 3
    assert [total(store, owner) for owner in "abc"] == [6, 3, 0]


def test_more_owners_with_one_hash_than_there_are_places_do_no_harm(
    store: SqliteLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_charging, "owner_key_of", lambda owner: 0)
    chargings = [request(f"sender={number}") for number in range(30)]
    for _ in range(3):
        assert all(outcome.is_charged for outcome in store.charge(chargings, START))
    assert len(owners(store)) <= 3 * sqlite_counters.MOST_TRIES


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param("\udcff\udcfe", id="octets that are no text"),
        pytest.param("müller@例え.example", id="other scripts"),
        pytest.param("a\0b", id="a zero octet"),
        pytest.param("x" * 5000, id="too long"),
        pytest.param("\r\n\t\x1b[31m", id="control characters"),
        pytest.param("", id="nothing"),
    ],
)
def test_texts_that_nobody_promised_do_no_harm(store: SqliteLimits, odd: str) -> None:
    strange = Charging((Charge(CounterKey(odd, odd, odd), WINDOWS),), Sent(odd, odd))
    for count in (1, 2):
        assert store.charge([strange], START)[0].readings[0].totals == (count, count)
    assert len(list(store.all_counters())) == 1
    store.counters(odd)
    store.reset(odd)
    assert len(store.sent(odd, START)) == 2
    tightened = Account(odd, is_tightened=True)
    assert store.swap(Account(odd), tightened, [AuditEntry(START, odd, odd, odd, odd, odd, odd)])
    assert store.account(odd) == tightened
    store.put_note(odd, odd)
    assert len(store.notes()) == len(store.audit_log(odd)) == 1


def test_numbers_that_are_none_are_refused_and_nothing_is_charged(store: SqliteLimits) -> None:
    store.charge([request("all")], START)
    for now in (float("nan"), float("inf")):
        with pytest.raises((StoreError, ValueError, OverflowError)):
            store.charge([request("all")], now)
    assert total(store, "all") == 1


def test_what_was_sent_is_kept_for_five_days_the_newest_five_thousand(store: SqliteLimits) -> None:
    for number in range(60):
        store.charge([request("ann", most=10**6, sent=f"4X{number}")] * 100, START + number * 30.0)
    store.charge([request("eve", sent="4Yabc")], START)
    found = store.sent("ann", START + 1800)
    assert len(found) == 5000
    assert found[0] == (START + 59 * 30.0, "4X59")
    assert found == sorted(found, reverse=True)
    assert store.sent("ann", START + 5 * DAY + 58 * 30) == [(START + 59 * 30.0, "4X59")] * 100
    assert store.sent("eve", START) == [(START, "4Yabc")]


def test_who_sends_more_in_a_minute_than_a_row_holds_loses_the_oldest(
    store: SqliteLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    randomness = random.Random(3)
    for _ in range(30):
        ids = [f"4X{randomness.randrange(10**9)}" for _ in range(200)]
        store.charge([request("ann", most=10**6, sent=queue_id) for queue_id in ids], START)
    ((octets,),) = store._file.query("SELECT sum(length(messages)) FROM sent")
    assert octets < 2 * sqlite_counters.SENT_OCTETS
    assert (START, ids[-1]) in store.sent("ann", START)


# The file stays small.


def test_what_has_expired_is_forgotten_and_its_room_used_again(folder: Path, store: SqliteLimits) -> None:
    sizes = []
    for turn in range(4):
        at = turn * 6 * DAY
        for first in range(0, 3000, 100):
            chargings = [request(f"client_address={turn}.{first + n}", sent="4Xabc") for n in range(100)]
            store.charge(chargings, START + at)
        assert len(owners(store)) == 3000
        tend(store, at + 3900)
        assert owners(store) == set()
        store._file.empty_log()
        sizes.append(size_of(folder / FILE))
    tend(store, 30 * DAY)
    assert store._file.query("SELECT count(*) FROM sent") == [(0,)]
    assert sizes[-1] < 1.2 * sizes[1], "from the second time on what was sent before makes room"


def test_a_flood_of_strangers_stays_below_the_bound_and_accounts_are_counted_on(folder: Path) -> None:
    store = SqliteLimits(folder, Durability.PROCESS, GENEROUS, BOUND)
    ann = request("sasl_username=ann", most=10**6, seconds=30 * DAY)
    for turn in range(40):
        at = turn * 1800.0
        store.charge([request(f"sender={turn}.{number}", seconds=DAY) for number in range(150)], START + at)
        assert store.charge([ann], START + at)[0].readings[0].totals == (turn + 1,)
        tend(store, at)
        assert size_of(folder / FILE) <= BOUND
    assert len(owners(store)) < 40 * 150 * 2 / 3
    store.close()


def test_a_disk_with_no_room_left_is_left_to_others(folder: Path) -> None:
    with small_file_system(folder, 8 * 1024 * 1024) as small:
        store = open_store(small)
        store.charge([request("all")], START)
        (small / "ballast").write_bytes(b"x" * (store._file.place.free_octets() - 300 * 1024))
        store.tend(START)
        assert failure_of(lambda: store.charge([request("all")], START)) is StoreFailure.FULL
        assert failure_of(store.probe) is StoreFailure.FULL
        (small / "ballast").unlink()
        store.probe()
        assert store.charge([request("all")], START)[0].readings[0].totals == (2,)
        store.close()


# Accounts, and the audit log that nobody changes.


def test_accounts_are_read_as_they_were_written(folder: Path, store: SqliteLimits) -> None:
    full = Account(
        "ann@example.com",
        Incident(START, "surge", 7, START + 0.1, told="opened", telling_until=START + 120),
        Suspension(START, "root", "why\nnot"),
        (Raise(1000, 3600.0, START + DAY), Raise(5, 0.5, START, "surge")),
        True,
    )
    versions = [store.accounts_version()]
    assert store.swap(Account(full.name), full)
    assert not store.swap(Account(full.name), Account(full.name))
    versions.append(store.accounts_version())
    with closing(open_store(folder)) as other:
        assert other.accounts() == {full.name: full}
    assert store.swap(full, Account(full.name))
    versions.append(store.accounts_version())
    assert store.accounts() == {}
    assert store.account(full.name).is_plain
    assert len(set(versions)) == 3


def test_changes_by_two_at_a_time_are_all_made(folder: Path) -> None:
    def raised(name: str) -> Callable[[Account], incidents.Step]:
        return lambda account: incidents.raise_limit(account, Raise(5, 60.0, START, name), "root", "why", START)

    stores = [open_store(folder) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        for number in range(10):
            changing = [pool.submit(change_account, store, "ann", raised(f"{number}")) for store in stores]
            changing += [pool.submit(change_account, store, "ann", raised(f"{number}b")) for store in stores]
            assert all(change.result().raises for change in changing)
    assert len(stores[0].account("ann").raises) == 20
    assert len(stores[0].audit_log("ann")) == 40
    for store in stores:
        store.close()


def test_a_change_that_changes_nothing_writes_nothing(store: SqliteLimits) -> None:
    assert change_account(store, "ann", lambda account: (account, ())) == Account("ann")
    assert store.audit_log() == []
    entry = AuditEntry(START, "root", "reset", "ann", "why")
    version = store.accounts_version()
    change_account(store, "ann", lambda account: (account, (entry,)))
    assert store.audit_log() == [entry]
    assert store.accounts_version() == version


def test_an_account_that_others_change_all_the_time_is_given_up(store: SqliteLimits) -> None:
    def slow(account: Account) -> incidents.Step:
        faster = Account("ann", suspension=None if account.suspension else Suspension(START, "root", "why"))
        assert store.swap(account, faster)
        return Account("ann", is_tightened=True), ()

    assert failure_of(lambda: change_account(store, "ann", slow)) is StoreFailure.OTHER


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM audit",
        "DELETE FROM audit WHERE key = 1",
        "UPDATE audit SET who = 'nobody'",
        "UPDATE audit SET key = key + 100",
        "INSERT OR REPLACE INTO audit SELECT 2, at, 'nobody', action, account, why, before, after FROM audit WHERE key = 1",
        "INSERT INTO audit SELECT 1000000, at, who, action, account, why, before, after FROM audit WHERE key = 1",
        "INSERT INTO audit SELECT -1, at, who, action, account, why, before, after FROM audit WHERE key = 1",
        "INSERT INTO audit SELECT -7, at, who, action, account, why, before, after FROM audit WHERE key = 1",
    ],
)
def test_the_audit_log_is_not_changed_by_sql_either(folder: Path, store: SqliteLimits, statement: str) -> None:
    entries = [AuditEntry(START + number, "root", "reset", "ann", "why") for number in range(3)]
    for entry in entries:
        store.audit(entry)

    def change() -> str:
        connection = sqlite3.connect(folder / FILE, isolation_level=None)
        try:
            return f"done: {connection.execute(statement).rowcount}"
        except sqlite3.IntegrityError as error:
            return str(error)
        finally:
            connection.close()

    assert in_a_fork(change).startswith(("the audit log", "of the audit log"))
    assert store.audit_log() == entries[::-1]


def test_of_too_many_entries_the_oldest_go(store: SqliteLimits) -> None:
    store._file.transact(
        lambda connection: connection.execute(
            "INSERT INTO audit (at, who, action, account, why, before, after) WITH RECURSIVE numbers(number) AS"
            " (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < 100000)"
            " SELECT number, 'root', 'reset', 'ann', '', '', '' FROM numbers"
        )
    )
    assert len(store.audit_log(most=10**6)) == 100_000
    entry = AuditEntry(START, "root", "suspend", "eve", "why")
    assert store.swap(Account("eve"), Account("eve", is_tightened=True), [entry])
    log = store.audit_log(most=10**6)
    assert len(log) == 100_000
    assert log[0] == entry
    assert log[-1].at == 2.0
    assert store.audit_log("eve") == [entry]
