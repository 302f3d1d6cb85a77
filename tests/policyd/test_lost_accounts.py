"""A damaged or removed SQLite state gives no suspended account back: who kept it in memory writes it to the new file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mailward.adapters.account_changes import change_account
from mailward.adapters.sqlite_counters import FILE
from mailward.adapters.stores import open_limits
from mailward.model.accounts import Account, Raise
from mailward.model.errors import StoreError, StoreFailure
from mailward.model.ports import LimitRecords
from mailward.model.state import Durability, SqliteState
from mailward.policy import incidents
from policyd.lost_accounts import PUT_BACK
from policyd.notice import News
from tests.adapters.sqlite_support import overwrite
from tests.policyd.incident_support import ALICE, START, Clock, Machine, Store, Told, turns, until
from tests.policyd.test_keeper import play
from tests.policyd.test_keeper_stores import PATIENCE
from tests.support.processes import open_folder

BOB, CAROL = "bob@example.com", "carol@example.com"
RAISED = Raise(1000, 3600.0, START + 86400.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    made.install(monkeypatch)
    return made


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as made:
        yield made


@pytest.fixture
def stores(folder: Path) -> Iterator[list[LimitRecords]]:
    """The file as two processes and the operator's command have it."""
    with ExitStack() as stack:
        opened = [open_limits(SqliteState(folder), Durability.PROCESS, PATIENCE) for _ in range(3)]
        for store in opened:
            stack.callback(store.close)
        yield opened


def damage(folder: Path, stores: list[LimitRecords]) -> None:
    for store in stores:
        store.close()  # what was opened before sees what is in the log still
    overwrite(folder / FILE)


def remove(folder: Path, _stores: list[LimitRecords]) -> None:
    (folder / FILE).unlink()


ENDS: dict[str, tuple[Callable[[Path, list[LimitRecords]], None], list[StoreFailure]]] = {
    "damaged": (damage, [StoreFailure.DAMAGED]),
    "removed": (remove, []),
}


def resume(store: LimitRecords, name: str) -> Account:
    return change_account(store, name, lambda account: incidents.resume(account, "root", "new password", START))


async def known(*machines: Machine) -> None:
    """Alice is suspended, Bob may do more, Carol has an incident; and every machine knows."""
    first, store = machines[0], machines[0].store
    first.keeper.hit(ALICE, "account-surge", 1)
    first.keeper.hit(CAROL, "account-recipients", 50, hits=40)
    change_account(store, BOB, lambda account: incidents.raise_limit(account, RAISED, "root", "mailing", START))
    await turns(*machines)
    assert all(set(machine.keeper.accounts) == {ALICE, BOB, CAROL} for machine in machines)


@pytest.mark.parametrize(("end", "met"), ENDS.values(), ids=ENDS.keys())
def test_what_was_known_is_written_to_the_file_that_is_begun_anew(
    clock: Clock,
    folder: Path,
    stores: list[LimitRecords],
    end: Callable[[Path, list[LimitRecords]], None],
    met: list[StoreFailure],
) -> None:
    async def dialogue() -> None:
        machine = Machine(stores[0])
        await known(machine)
        before = dict(machine.keeper.accounts)
        end(folder, stores)
        await until(lambda: "accounts-put-back" in machine.events.names(), machine)
        assert machine.keeper.accounts == stores[2].accounts() == before
        (told,) = [(level, fields) for level, event, fields in machine.events if event == "accounts-put-back"]
        assert told[0] == "critical"
        assert (told[1]["known"], told[1]["suspended"], told[1]["written"]) == (3, 1, 3)
        (entry,) = stores[2].audit_log(ALICE)
        assert entry.action == PUT_BACK
        assert entry.after.startswith("suspended by mailward-policyd: limit account-surge reached")
        assert [error.failure for error in machine.failures] == met
        await turns(machine)
        assert machine.events.names().count("accounts-put-back") == 1

    play(dialogue())


def test_a_damage_that_another_program_met_gives_nobody_back(
    clock: Clock, folder: Path, stores: list[LimitRecords]
) -> None:
    async def dialogue() -> None:
        machine = Machine(stores[0], Told())
        await known(machine)
        clock.now += 11  # carol's incident is told now, and changed for that
        damage(folder, stores)
        with pytest.raises(StoreError):
            stores[2].accounts()
        assert not stores[2].accounts()
        machine.keeper.hit(CAROL, "account-recipients", 50, hits=10)
        while "accounts-put-back" not in machine.events.names():
            assert machine.keeper.accounts[ALICE].suspension is not None
            await turns(machine, rounds=1)
        await turns(machine)
        assert machine.keeper.accounts[ALICE].suspension is not None
        carol = stores[2].account(CAROL).incident
        assert carol is not None
        assert carol.hits == 50, "what it had before counts"

    play(dialogue())


def test_what_an_operator_does_after_it_was_put_back_holds(
    clock: Clock, folder: Path, stores: list[LimitRecords]
) -> None:
    async def dialogue() -> None:
        first, second = Machine(stores[0]), Machine(stores[1])
        await known(first, second)
        remove(folder, stores)
        await until(lambda: "accounts-put-back" in first.events.names(), first)
        resume(stores[2], ALICE)
        await until(lambda: "accounts-put-back" in second.events.names(), second)
        await turns(first, second)
        assert [one.keeper.accounts[ALICE].suspension for one in (first, second)] == [None, None]
        assert stores[2].account(ALICE).suspension is None

    play(dialogue())


def test_what_was_told_is_not_told_again(clock: Clock, folder: Path, stores: list[LimitRecords]) -> None:
    async def dialogue() -> None:
        mail = Told()
        machine = Machine(stores[0], mail, settle=0.0)
        machine.keeper.hit(ALICE, "account-surge", 1)
        await until(lambda: bool(mail.notices), machine)
        await turns(machine)
        remove(folder, stores)
        await until(lambda: "accounts-put-back" in machine.events.names(), machine)
        for _ in range(10):
            clock.now += 60
            await turns(machine, rounds=1)
        assert mail.news() == [News.OPENED]

    play(dialogue())


def test_a_file_that_comes_back_as_it_was_is_believed(clock: Clock, folder: Path, stores: list[LimitRecords]) -> None:
    async def dialogue() -> None:
        machine = Machine(stores[0])
        await known(machine)
        resume(stores[2], ALICE)
        aside = folder.with_name(folder.name + ".aside")
        folder.rename(aside)
        await until(lambda: "accounts-away" in machine.events.names(), machine)
        aside.rename(folder)
        await until(lambda: "accounts-back" in machine.events.names(), machine)
        assert machine.keeper.accounts[ALICE] == stores[2].account(ALICE)
        assert machine.keeper.accounts[ALICE].suspension is None
        assert "accounts-put-back" not in machine.events.names()

    play(dialogue())


def test_an_account_that_cannot_be_put_back_holds_up_nobody(clock: Clock) -> None:
    class Named(Store):
        """Has a name, as a file has."""

        name = "a"

        def accounts_version(self) -> str:
            return f"{self.name}-{super().accounts_version()}"

    async def dialogue() -> None:
        store = Named()
        machine = Machine(store)
        await known(machine)
        for name in (ALICE, BOB, CAROL):
            assert store.swap(store.account(name), Account(name))
        store.name, store.unwritable = "b", ALICE
        await turns(machine)
        assert set(machine.keeper.accounts) == {BOB, CAROL}
        assert machine.events.names().count("account-lost") == 1
        assert machine.keeper.accounts[BOB].raises == (RAISED,)

    play(dialogue())
