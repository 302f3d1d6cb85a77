"""What every store keeps of accounts: one swap at a time, a version that tells of it, an audit log, notes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from mailward.model.accounts import AUTOMATIC, Account, AuditEntry, Incident, Raise, Suspension
from mailward.model.limits import Charging, Sent
from mailward.model.ports import LimitRecords
from tests.adapters.stores_support import Place
from tests.support.limit_dialogues import charge

START = float(int(time.time()))
THREADS = 8

INCIDENT = Incident(START, "account-recipients", 3, START + 1.25, START + 2.5, "opened", START + 3.75, 2)
SUSPENSION = Suspension(
    START + 0.5, "root", "sends spam: \"quoted\", 'quoted', {and} so|on; ünïcode ✉\n\ttab \\ %s \x01"
)
RAISES = (Raise(1000, 3600.0, START + 7200.5, "account-recipients"), Raise(2**53 - 1, 0.5, START + 1e9))
FULL = Account("alice@example.com", INCIDENT, SUSPENSION, RAISES, True)
SUSPENDED = Account("alice@example.com", suspension=SUSPENSION)
PLAIN = Account("alice@example.com")


@pytest.fixture
def store(place: Place) -> Iterator[LimitRecords]:
    place.clear()
    opened = place.open_limits()
    yield opened
    opened.close()


@pytest.fixture
def other(place: Place, store: LimitRecords) -> Iterator[LimitRecords]:
    """Another store on the same state, as another process would have it."""
    opened = place.open_limits()
    yield opened
    opened.close()


def entry(number: int = 0, account: str = "alice@example.com") -> AuditEntry:
    return AuditEntry(START + number, AUTOMATIC, "suspend", account, f"why {number}", "active", "suspended")


@pytest.mark.parametrize(
    "account",
    [
        pytest.param(FULL, id="everything"),
        pytest.param(SUSPENDED, id="suspended"),
        pytest.param(replace(PLAIN, incident=INCIDENT), id="an incident"),
        pytest.param(replace(PLAIN, raises=RAISES[1:]), id="a raise of every limit"),
        pytest.param(replace(PLAIN, is_tightened=True), id="tightened"),
        pytest.param(replace(FULL, name="{a}:b|c *'\"\\;ü✉"), id="a strange name"),
        pytest.param(replace(FULL, name="a" * 320), id="a long name"),
        pytest.param(
            replace(PLAIN, raises=tuple(Raise(n, 60.0, START + n / 3, f"l{n}") for n in range(20))), id="many raises"
        ),
    ],
)
def test_an_account_is_kept_as_it_is(store: LimitRecords, other: LimitRecords, account: Account) -> None:
    plain = Account(account.name)
    assert store.account(account.name) == plain
    assert store.swap(plain, account)
    assert other.account(account.name) == account
    assert dict(other.accounts()) == {account.name: account}
    assert not other.swap(plain, plain)
    assert other.swap(account, plain)
    assert store.account(account.name) == plain
    assert dict(store.accounts()) == {}


def test_only_who_knows_what_is_there_puts_something_in_its_place(store: LimitRecords, other: LimitRecords) -> None:
    assert store.swap(PLAIN, SUSPENDED, [entry(1)])
    assert not other.swap(PLAIN, FULL, [entry(2)])
    assert not other.swap(FULL, PLAIN, [entry(3)])
    assert not other.swap(replace(SUSPENDED, suspension=replace(SUSPENSION, why="")), PLAIN, [entry(4)])
    assert other.account(PLAIN.name) == SUSPENDED
    assert list(other.audit_log()) == [entry(1)]
    assert other.swap(SUSPENDED, FULL, [entry(5), entry(6)])
    assert list(store.audit_log()) == [entry(6), entry(5), entry(1)]


def test_a_swap_of_one_leaves_the_others(store: LimitRecords) -> None:
    bob = replace(FULL, name="bob@example.com")
    assert store.swap(Account(bob.name), bob)
    assert store.swap(PLAIN, FULL)
    assert dict(store.accounts()) == {bob.name: bob, FULL.name: FULL}
    assert store.swap(FULL, PLAIN)
    assert dict(store.accounts()) == {bob.name: bob}


def test_the_version_tells_that_an_account_has_changed(store: LimitRecords, other: LimitRecords) -> None:
    versions = [store.accounts_version()]
    assert other.accounts_version() == versions[0]
    for old, new in ((PLAIN, SUSPENDED), (SUSPENDED, FULL), (FULL, PLAIN), (PLAIN, FULL)):
        assert other.swap(old, new)
        versions.append(store.accounts_version())
        assert other.accounts_version() == versions[-1]
    assert len(set(versions)) == len(versions)


def test_the_version_stays_where_no_account_changes(store: LimitRecords) -> None:
    assert store.swap(PLAIN, FULL)
    version = store.accounts_version()
    assert not store.swap(PLAIN, SUSPENDED, [entry()])
    store.charge([Charging((charge("alice/hour"),), Sent("alice", "4bXyz1"))], START)
    store.put_note("note", "value")
    store.audit(entry())
    store.tend(START)
    store.probe()
    store.reset("sasl_username=alice")
    assert store.accounts_version() == version


def test_counters_and_accounts_of_one_name_leave_each_other_alone(store: LimitRecords) -> None:
    assert store.swap(Account("alice"), replace(FULL, name="alice"))
    store.charge([Charging((charge("alice/hour=5"),))], START)
    assert store.reset("sasl_username=alice") == 1
    assert store.account("alice") == replace(FULL, name="alice")
    store.charge([Charging((charge("alice/hour=5"),))], START)
    assert store.swap(replace(FULL, name="alice"), Account("alice"))
    assert len(store.counters("sasl_username=alice")) == 1


def test_many_accounts(store: LimitRecords) -> None:
    accounts = {f"a{number}": replace(FULL, name=f"a{number}") for number in range(200)}
    for account in accounts.values():
        assert store.swap(Account(account.name), account)
    assert dict(store.accounts()) == accounts


def test_of_many_who_swap_at_once_one_does(store: LimitRecords, other: LimitRecords) -> None:
    both, start = (store, other), threading.Barrier(THREADS)
    changed = [replace(PLAIN, suspension=replace(SUSPENSION, by=f"thread {number}")) for number in range(THREADS)]

    def swap(number: int) -> bool:
        start.wait()
        return both[number % 2].swap(PLAIN, changed[number], [entry(number)])

    with ThreadPoolExecutor(THREADS) as pool:
        done = list(pool.map(swap, range(THREADS)))
    assert done.count(True) == 1
    assert store.account(PLAIN.name) == changed[done.index(True)]
    assert list(store.audit_log()) == [entry(done.index(True))]


def test_many_who_swap_again_until_it_is_done_lose_nothing(store: LimitRecords, other: LimitRecords) -> None:
    both = (store, other)

    def add_raises(number: int) -> None:
        for turn in range(3):
            raised, is_done = Raise(number, 60.0, START, f"{number}.{turn}"), False
            while not is_done:
                old = both[number % 2].account(PLAIN.name)
                is_done = both[number % 2].swap(old, replace(old, raises=(*old.raises, raised)), [entry(number)])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add_raises, range(4)))
    assert len({raised.limit for raised in store.account(PLAIN.name).raises}) == 12
    assert len(store.audit_log()) == 12


def test_the_audit_log_is_read_from_its_end(store: LimitRecords, other: LimitRecords) -> None:
    alice = [entry(number) for number in range(0, 40, 2)]
    bob = [entry(number, "bob@example.com") for number in range(1, 41, 2)]
    both = [each for pair in zip(alice, bob, strict=True) for each in pair]
    for each in both:
        store.audit(each)
    assert list(other.audit_log()) == both[::-1]
    assert list(other.audit_log(most=3)) == both[:-4:-1]
    assert list(other.audit_log("alice@example.com")) == alice[::-1]
    assert list(other.audit_log("bob@example.com", 2)) == bob[:-3:-1]
    assert list(other.audit_log("nobody@example.com")) == []


def test_equal_entries_are_entries_of_their_own(store: LimitRecords) -> None:
    for _time in range(3):
        store.audit(entry())
    assert list(store.audit_log()) == [entry()] * 3


def test_an_entry_is_kept_as_it_is(store: LimitRecords) -> None:
    strange = AuditEntry(START + 0.25, "rööt", "hold-queue", "{a}:b|c *'\"\\;ü✉", SUSPENSION.why, "", "a\nb\x00c")
    store.audit(strange)
    assert list(store.audit_log(strange.account)) == [strange]


def test_notes(store: LimitRecords, other: LimitRecords) -> None:
    assert dict(store.notes()) == {}
    store.put_note("configured", '{"limits": ["ü✉", "a\\nb"]}')
    store.put_note("started", str(START))
    other.put_note("started", "")
    assert dict(store.notes()) == {"configured": '{"limits": ["ü✉", "a\\nb"]}', "started": ""}


def test_what_was_kept_is_there_when_it_is_opened_again(place: Place, store: LimitRecords) -> None:
    assert store.swap(PLAIN, FULL, [entry(1)])
    store.put_note("configured", "yes")
    version = store.accounts_version()
    store.close()
    again = place.open_limits()
    try:
        assert again.account(FULL.name) == FULL
        assert list(again.audit_log()) == [entry(1)]
        assert dict(again.notes()) == {"configured": "yes"}
        assert again.accounts_version() == version
    finally:
        again.close()
