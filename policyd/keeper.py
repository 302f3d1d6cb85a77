"""What holds for accounts, kept in memory and in step with the store; hits written to it, incidents opened, closed and told.

Once a second: hits that were gathered are written, accounts are read anew where one has changed, what time asks for is done.
Several of these share a store: each change is a swap, and who has made it logs and counts it. The store may be away: hits
wait, bounded, and what was known holds on. It may be begun anew, as a damaged file is: what was known is put back.

There is one for as long as the process lives: another configuration changes what it goes by, and nothing of what it knows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from mailward.adapters.account_changes import change_account
from mailward.model.accounts import Account, AuditEntry
from mailward.model.errors import StoreError
from mailward.model.ports import AccountStore, Counts, OnEvent
from mailward.policy import incidents
from mailward.policy.incidents import Step
from policyd.kicking import Kicker, Kicking
from policyd.lost_accounts import WHY, is_another_store, put_back
from policyd.notify import Channel
from policyd.store_threads import StoreThreads
from policyd.telling import Telling

INCIDENTS_OPEN = "incidents_open"  # gauges
ACCOUNTS_SUSPENDED = "accounts_suspended"
INCIDENTS_OPENED = "incidents_opened"  # counter

TURN_SECONDS = 1.0
WRITE_SECONDS = 5.0  # for the last hits
CLOSE_SECONDS = 3.0  # for what is being told and kicked; what is left is done again by whoever is there
MAX_GATHERED = 10_000  # accounts and limits with hits that are not written yet; about 2 MB

Configuration = tuple["KeeperRules", Sequence[Channel], Sequence[Kicker]]

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
        threads: StoreThreads,
    ) -> None:
        """`threads` is how the store is called."""
        self._store = store
        self._threads = threads
        self._rules = rules
        self._next: Configuration | None = None
        self._turning = asyncio.Lock()
        self._ending = asyncio.Event()
        self._writing: asyncio.Task[StoreError | None] | None = None
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

    def configure(self, rules: KeeperRules, channels: Sequence[Channel], kickers: Sequence[Kicker]) -> None:
        """Go on with another configuration from the next turn on; of several, with the last."""
        self._next = (rules, tuple(channels), tuple(kickers))

    async def run(self) -> None:
        """Do all there is to do, until close()."""
        while not self._ending.is_set():
            started = time.monotonic()
            await self.turn()
            with suppress(TimeoutError):
                pause = max(0.0, started + self._rules.turn_seconds - time.monotonic())
                await asyncio.wait_for(self._ending.wait(), pause)

    async def turn(self) -> None:
        """Do what is due. Once before the first request, and what the store knows of suspended accounts holds from then on."""
        async with self._turning:
            self._take_configuration()
            await self._do_what_is_due()

    def _take_configuration(self) -> None:
        if self._next is None:
            return
        (self._rules, channels, kickers), self._next = self._next, None
        self._telling.configure(channels, self._rules.settle_seconds, self._rules.machine)
        self._kicking.configure(kickers)

    async def _do_what_is_due(self) -> None:
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
        """End run() with its turn, write the hits that are left, and end what has begun; all of it within some seconds."""
        self._ending.set()
        try:
            await asyncio.wait_for(self._write_last_hits(), WRITE_SECONDS)
        except (StoreError, TimeoutError) as error:
            self._on_event("error", "hits-lost", hits=len(self._gathered), reason=str(error) or "time-out")
        await asyncio.gather(self._telling.close(CLOSE_SECONDS), self._kicking.close(CLOSE_SECONDS))

    async def change(self, name: str, change: Callable[[Account], Step]) -> Account:
        """Change an account in the store, and tell what has been done. Raises StoreError."""
        done: list[AuditEntry] = []

        def remembering(account: Account) -> Step:
            step = change(account)
            done[:] = step[1]  # of the try that was not overtaken
            return step

        account, is_known = await self._threads.call(self._changed, name, remembering)
        if is_known:
            self._put(account)
        for entry in done:
            if entry.action == "incident-opened":
                self._metrics.count(INCIDENTS_OPENED)
            level = _LEVELS.get(entry.action, "info")
            self._on_event(level, entry.action, account=entry.account, reason=entry.why, before=entry.before)
        return account

    def _changed(self, name: str, change: Callable[[Account], Step]) -> tuple[Account, bool]:
        """Change an account, in a thread; say whether that was in the store whose accounts are known.

        One that was begun anew a moment ago knows of no suspension: what it says of an account must not hide what was known.
        """
        account = change_account(self._store, name, change)
        try:
            return account, not is_another_store(self._store.accounts_version(), self._version)
        except StoreError:  # but it is changed; the next reading shows it
            return account, False

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
            # A thread that is asked cannot be called back: whoever is cancelled meanwhile must not have it written again.
            self._writing = asyncio.get_running_loop().create_task(self._write(account, limit, gathered))
            if (error := await asyncio.shield(self._writing)) is not None:
                raise error
        if self._dropped:
            self._on_event("error", "hits-dropped", hits=self._dropped)
            self._dropped = 0

    async def _write(self, account: str, limit: str, gathered: _Hits) -> StoreError | None:
        """Write hits to their end; return why the store did not take them, who are kept then."""
        try:
            await self.change(account, _step_of(limit, gathered))
        except StoreError as error:
            self._keep(account, limit, gathered)
            return error
        except Exception as error:  # noqa: BLE001 - one name that a store cannot take must not hold up all others
            self._on_event("error", "hits-lost", account=account, reason=repr(error))
        return None

    async def _write_last_hits(self) -> None:
        async with self._turning:
            if self._writing is not None:
                await asyncio.shield(self._writing)
            await self._write_hits()

    def _keep(self, account: str, limit: str, gathered: _Hits) -> None:
        newer = self._gathered.setdefault((account, limit), gathered)
        if newer is not gathered:
            newer.hits += gathered.hits
            newer.networks = max(newer.networks, gathered.networks)

    async def _read(self) -> None:
        """Read the accounts anew where any has changed, by whomever."""
        version = await self._threads.call(
            self._store.accounts_version
        )  # first: what changes after it is seen next time
        if version == self._version:
            return
        if is_another_store(version, self._version):
            await self._put_back()
        self._accounts = dict(await self._threads.call(self._store.accounts))
        self._version = version

    async def _put_back(self) -> None:
        """Write what was known to a store that was begun anew; again in the next turn where that fails."""
        known, written = list(self._accounts.values()), 0
        for account in known:
            try:
                written += await self._threads.call(put_back, self._store, account, time.time())
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001 - one that cannot be written must not hold up all others
                self._on_event("error", "account-lost", account=account.name, reason=repr(error))
        suspended = sum(1 for account in known if account.suspension is not None)
        numbers = {"known": len(known), "suspended": suspended, "written": written}
        self._on_event("critical", "accounts-put-back", **numbers, reason=WHY)

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
            await self._threads.call(self._store.audit, entry)
        except StoreError as error:
            self._on_event("error", "audit-failed", action=entry.action, account=entry.account, reason=str(error))

    def _store_is(self, error: StoreError | None) -> None:
        """Tell once that the store is away, and once that it is back."""
        if error is not None and not self._is_away:
            self._on_event("error", "accounts-away", reason=error.failure.value, detail=error.detail)
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
