"""What holds for accounts, kept in memory and in step with the store; hits written to it, incidents opened, closed and told.

Once a second: hits that were gathered are written, accounts are read anew where one has changed, what time asks for is done.
Several of these share a store: each change is a swap, and who has made it logs and counts it. The store may be away: hits
wait, bounded, and what was known holds on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mailward.adapters.account_changes import change_account
from mailward.model.accounts import Account, AuditEntry
from mailward.model.errors import StoreError
from mailward.model.ports import AccountStore, Counts, OnEvent
from mailward.policy import incidents
from mailward.policy.incidents import Step
from policyd.kicking import Kicker, Kicking
from policyd.notify import Channel
from policyd.telling import Telling

INCIDENTS_OPEN = "incidents_open"  # gauges
ACCOUNTS_SUSPENDED = "accounts_suspended"
INCIDENTS_OPENED = "incidents_opened"  # counter

TURN_SECONDS = 1.0
CLOSE_SECONDS = 5.0  # for what is being told and kicked; what is left is done again by whoever is there
MAX_GATHERED = 10_000  # accounts and limits with hits that are not written yet; about 2 MB

# How events of the audit log are logged: where somebody must act, and where all is well again.
_LEVELS = {"suspend": "critical", "incident-opened": "warning", "tighten": "warning"}


@dataclass(frozen=True, slots=True)
class KeeperRules:
    """When an incident is over, and how long its opening waits for what follows at once. `machine`: the authserv_id.

    `shows_gauges` is false in all but one of several processes of a program, whose gauges are added up.
    """

    quiet_seconds: float = 3600.0
    settle_seconds: float = 10.0
    machine: str = "localhost"
    shows_gauges: bool = True
    turn_seconds: float = TURN_SECONDS


@dataclass(slots=True)
class _Hits:
    """Hits of one account at one limit; `networks` is above 0 where it was logins from so many networks instead."""

    hits: int = 0
    suspend_after: int = 0
    networks: int = 0


class Keeper:
    """Keeps the accounts. hit(), many_networks() and accounts are for the event loop's own thread."""

    def __init__(
        self,
        store: AccountStore,
        rules: KeeperRules,
        channels: Sequence[Channel],
        kickers: Sequence[Kicker],
        metrics: Counts,
        on_event: OnEvent,
    ) -> None:
        self._store = store
        self._rules = rules
        self._metrics = metrics
        self._on_event = on_event
        self._accounts: dict[str, Account] = {}
        self._version: str | None = None
        self._gathered: dict[tuple[str, str], _Hits] = {}
        self._dropped = 0
        self._is_away = False
        self._shown = {INCIDENTS_OPEN: 0, ACCOUNTS_SUSPENDED: 0}
        self._telling = Telling(channels, rules.settle_seconds, rules.machine, self.change, metrics, on_event)
        self._kicking = Kicking(kickers, self._audit, metrics, on_event)

    @property
    def accounts(self) -> Mapping[str, Account]:
        """Return every account of which there is something to remember, as it was a second ago."""
        return self._accounts

    def hit(self, account: str, limit: str, suspend_after: int, hits: int = 1) -> None:
        """Take note that an account has reached a limit; written within a second or so."""
        gathered = self._gather(account, limit)
        if gathered is not None:
            gathered.hits += hits
            gathered.suspend_after = suspend_after

    def many_networks(self, account: str, networks: int) -> None:
        """Take note that an account logs in from more networks than one person has."""
        gathered = self._gather(account, incidents.LOGIN_NETWORKS)
        if gathered is not None:
            gathered.networks = max(networks, gathered.networks)

    async def run(self) -> None:
        """Do all there is to do, for as long as the process lives."""
        while True:
            started = time.monotonic()
            await self.turn()
            await asyncio.sleep(max(0.0, started + self._rules.turn_seconds - time.monotonic()))

    async def turn(self) -> None:
        """Do what is due. Once before the first request, and what the store knows of suspended accounts holds from then on."""
        try:
            await self._write_hits()
            await self._read()
            await self._let_time_pass()
            self._store_is(None)
        except StoreError as error:
            self._store_is(error)
        except Exception as error:  # noqa: BLE001 - without these turns nobody would be suspended or told any more
            self._on_event("error", "keeper-failed", reason=repr(error))
        self._show()
        self._kicking.step(self._accounts)
        self._telling.step(self._accounts, time.time())

    async def close(self) -> None:
        """Write the hits that are left, and end what has begun; after run() has been cancelled."""
        try:
            await self._write_hits()
        except StoreError as error:
            self._on_event("error", "hits-lost", hits=len(self._gathered), reason=str(error))
        await asyncio.gather(self._telling.close(CLOSE_SECONDS), self._kicking.close(CLOSE_SECONDS))

    async def change(self, name: str, change: Callable[[Account], Step]) -> Account:
        """Change an account in the store, and tell what has been done. Raises StoreError."""
        done: list[AuditEntry] = []

        def remembering(account: Account) -> Step:
            step = change(account)
            done[:] = step[1]  # of the try that was not overtaken
            return step

        account = await asyncio.to_thread(change_account, self._store, name, remembering)
        self._put(account)
        for entry in done:
            if entry.action == "incident-opened":
                self._metrics.count(INCIDENTS_OPENED)
            level = _LEVELS.get(entry.action, "info")
            self._on_event(level, entry.action, account=entry.account, reason=entry.why, before=entry.before)
        return account

    def _gather(self, account: str, limit: str) -> _Hits | None:
        gathered = self._gathered.get((account, limit))
        if gathered is None:
            if len(self._gathered) >= MAX_GATHERED:
                self._dropped += 1
                return None
            gathered = self._gathered[account, limit] = _Hits()
        return gathered

    async def _write_hits(self) -> None:
        """Write what was gathered; what the store does not take is kept for the next turn, with what comes meanwhile."""
        for (account, limit), gathered in list(self._gathered.items()):
            del self._gathered[account, limit]
            try:
                await self.change(account, _step_of(limit, gathered))
            except (StoreError, asyncio.CancelledError):
                self._keep(account, limit, gathered)
                raise
            except Exception as error:  # noqa: BLE001 - one name that a store cannot take must not hold up all others
                self._on_event("error", "hits-lost", account=account, reason=repr(error))
        if self._dropped:
            self._on_event("error", "hits-dropped", hits=self._dropped)
            self._dropped = 0

    def _keep(self, account: str, limit: str, gathered: _Hits) -> None:
        newer = self._gathered.setdefault((account, limit), gathered)
        if newer is not gathered:
            newer.hits += gathered.hits
            newer.networks = max(newer.networks, gathered.networks)

    async def _read(self) -> None:
        """Read the accounts anew where any has changed, by whomever."""
        version = await asyncio.to_thread(
            self._store.accounts_version
        )  # first: what changes after it is seen next time
        if version != self._version:
            self._accounts = dict(await asyncio.to_thread(self._store.accounts))
            self._version = version

    async def _let_time_pass(self) -> None:
        """Close incidents that are quiet, end raises that are over."""
        quiet, now = self._rules.quiet_seconds, time.time()
        for account in [one for one in self._accounts.values() if one.incident is not None or one.raises]:
            if incidents.step(account, quiet, now)[0] != account:
                await self.change(account.name, lambda account: incidents.step(account, quiet, time.time()))

    def _put(self, account: Account) -> None:
        if account.is_plain:
            self._accounts.pop(account.name, None)
        else:
            self._accounts[account.name] = account

    async def _audit(self, entry: AuditEntry) -> None:
        try:
            await asyncio.to_thread(self._store.audit, entry)
        except StoreError as error:
            self._on_event("error", "audit-failed", action=entry.action, account=entry.account, reason=str(error))

    def _store_is(self, error: StoreError | None) -> None:
        """Tell once that the store is away, and once that it is back."""
        if error is not None and not self._is_away:
            self._on_event("error", "accounts-away", reason=error.failure.value)
        elif error is None and self._is_away:
            self._on_event("info", "accounts-back")
        self._is_away = error is not None

    def _show(self) -> None:
        """Set the gauges to what the store holds, whoever has changed it."""
        if not self._rules.shows_gauges:
            return
        accounts = self._accounts.values()
        are_open = sum(1 for one in accounts if one.incident is not None and not one.incident.closed_at)
        suspended = sum(1 for one in accounts if one.suspension is not None)
        for name, amount in ((INCIDENTS_OPEN, are_open), (ACCOUNTS_SUSPENDED, suspended)):
            if amount != self._shown[name]:
                self._metrics.count(name, amount=amount - self._shown[name])
                self._shown[name] = amount


def _step_of(limit: str, gathered: _Hits) -> Callable[[Account], Step]:
    """Return what hits do to an account."""
    if gathered.networks:
        return lambda account: incidents.many_networks(account, gathered.networks, time.time())
    return lambda account: incidents.hit(account, limit, gathered.hits, gathered.suspend_after, time.time())
