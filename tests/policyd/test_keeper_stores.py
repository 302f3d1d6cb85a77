"""Incidents over the stores that machines really share: what a lease and a swap are made of comes back as it was written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mailward.adapters.account_changes import change_account
from mailward.adapters.stores import open_limits
from mailward.model.ports import LimitRecords
from mailward.model.state import Durability, RedisState, SqliteState
from mailward.policy import incidents
from policyd.keeper import INCIDENTS_OPENED
from policyd.kicking import KICKS
from policyd.notice import News
from policyd.telling import NOTIFICATIONS
from tests.policyd.incident_support import ALICE, Clock, Kicks, Machine, Told, turns, until
from tests.policyd.test_keeper import QUIET, play
from tests.support.processes import open_folder
from tests.support.redis import Redis, state_of

PATIENCE = 20.0  # seconds a store may take on a busy machine


@pytest.fixture(params=["sqlite", "redis"])
def stores(request: pytest.FixtureRequest) -> Iterator[list[LimitRecords]]:
    """Open one store as three machines would."""
    with ExitStack() as stack:
        folder = stack.enter_context(open_folder())
        state = sqlite(folder) if request.param == "sqlite" else redis(folder, stack)
        opened = [open_limits(state, Durability.PROCESS, PATIENCE) for _ in range(3)]
        for store in opened:
            stack.callback(store.close)
        yield opened


def sqlite(folder: Path) -> SqliteState:
    return SqliteState(folder)


def redis(folder: Path, stack: ExitStack) -> RedisState:
    server = Redis(folder)
    stack.callback(server.stop)
    server.start()
    return state_of(server.address)


def test_three_machines_open_suspend_tell_kick_and_close_as_one(
    stores: list[LimitRecords], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    clock.now += 0.123456789  # what a lease has behind the point must come back, too
    clock.install(monkeypatch)

    async def dialogue() -> None:
        mail, kicks = Told(), [Kicks() for _ in stores]
        mail.failures = 1
        machines = [Machine(store, mail, kickers=[kicker]) for store, kicker in zip(stores, kicks, strict=True)]
        for machine in machines:
            machine.keeper.hit(ALICE, "account-recipients", 6, hits=2)
        await until(lambda: all(kicker.kicked for kicker in kicks), *machines)
        await until(lambda: mail.asked == 1, *machines)
        assert not mail.notices
        for _ in range(10):
            clock.now += 3
            await turns(*machines, rounds=1)
        await until(lambda: bool(mail.notices), *machines)
        await turns(*machines)
        assert mail.news() == [News.OPENED]
        assert [kicker.kicked for kicker in kicks] == [[ALICE]] * 3
        change_account(stores[0], ALICE, lambda account: incidents.resume(account, "root", "new password", clock.now))
        clock.now += QUIET
        await until(lambda: not any(machine.keeper.accounts for machine in machines), *machines)
        assert mail.news() == [News.OPENED, News.CLOSED]
        log = [entry.action for entry in reversed(stores[1].audit_log(ALICE))]
        assert sorted(log) == sorted(
            ["incident-opened", "suspend", "kick", "kick", "kick", "resume", "incident-closed"]
        )
        for name, value, amount in ((INCIDENTS_OPENED, "", 1), (NOTIFICATIONS, "sent", 2), (KICKS, "kicked", 3)):
            assert sum(machine.numbers[name, value] for machine in machines) == amount

    play(dialogue())
