"""policyd as a worker of the daemon: one event loop with everything in it, and one thread that looks after the store.

A reload replaces what the configuration says, not what is known: connections, counters and delivery attempts stay.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from mailward.adapters.guarded_counters import GuardedCounters
from mailward.daemon.log import LogEvents
from mailward.daemon.program import WorkerTools
from mailward.daemon.state_size import TELL_SECONDS, tell_size
from mailward.model.accounts import Account
from mailward.model.errors import ConfigError, StoreError
from mailward.model.limits import Outcome
from mailward.model.ports import CorrespondentStore, LimitRecords
from mailward.policy.logins import LoginRules
from policyd.acceptor import Acceptor
from policyd.attempts import Attempts
from policyd.correspondents import CorrespondentRecorder
from policyd.dovecot import DovecotServer
from policyd.keeper import Keeper, KeeperRules
from policyd.kicking import Kicker
from policyd.notify import NotifyRules, channels_of
from policyd.protocol import Attributes
from policyd.rules import Decision, Plan, Rules
from policyd.server import PolicyServer
from policyd.stages import NOTE, StageObserver
from policyd.store_threads import StoreThreads
from policyd.turn import Turn

LIMIT_HITS, SHADOW_HITS = "limit_hits", "shadow_hits"
BREAKERS_OPEN, STORE = "breakers_open", "store-away"

TICK_SECONDS = 1.0
REVIEW_SECONDS = 30.0  # how often it is looked where Postfix asks
WATCH_SECONDS = 0.25

# At the end, for each step; all of it is less than a drain_timeout of 20 s.
ANSWER_SECONDS = 3.0
WRITE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Configured:
    """What one reading of the configuration says, and a reload replaces. `limits` are the names for labels of metrics."""

    rules: Rules
    keeper: KeeperRules
    notify: NotifyRules
    kickers: tuple[Kicker, ...]
    logins: LoginRules
    api_key: str
    correspondents_seconds: float
    limits: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stores:
    """What a worker opens after the fork."""

    limits: Callable[[], LimitRecords]
    correspondents: Callable[[], CorrespondentStore]
    budget_seconds: float


class PolicyService:
    """A ReloadingServing of mailward.daemon.program."""

    def __init__(
        self,
        configured: Configured,
        read: Callable[[], Configured],
        stores: Stores,
        max_sessions: int,
        tools: WorkerTools,
    ) -> None:
        """`read` reads the configuration anew. Raises ConfigError."""
        self._configured = configured
        self._read = read
        self._tools = tools
        self._events = LogEvents(tools.log)
        self._store = stores.limits()
        self._guarded = GuardedCounters(self._store, stores.budget_seconds, tools.metrics, self._events)
        self._turn = Turn(self._guarded.charge, self._count_bug)
        self._attempts = Attempts()
        self._observer = self._make_observer()
        self._recorder = CorrespondentRecorder(
            stores.correspondents(), configured.correspondents_seconds, tools.metrics, self._events
        )
        self._server = PolicyServer(self._plan, self._conclude, self._turn, tools.metrics, tools.log, max_sessions)
        self._threads = StoreThreads(self._guarded.met)
        channels = channels_of(configured.notify, self._events)
        self._keeper = Keeper(
            self._store, configured.keeper, channels, configured.kickers, tools.metrics, self._events, self._threads
        )
        self._listener: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wants_end = False
        self._wake: asyncio.Event | None = None  # the loop's, once there is one
        self._has_ended = threading.Event()
        self._next: Configured | None = None  # what a reload has read, and the loop has not taken yet

    # ---- the Serving; all but run() are called from another thread ----

    def open(self, listener: socket.socket) -> None:
        """Remember what to accept from; the loop does it."""
        self._listener = listener

    def run(self) -> None:
        """Serve until the process ends."""
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        asyncio.run(self._serve())

    def stop_accepting(self) -> None:
        """Accept no more, answer what has been asked, write what has been gathered."""
        self._wants_end = True
        if self._loop is not None and self._wake is not None:
            self._loop.call_soon_threadsafe(self._wake.set)

    def is_idle(self) -> bool:
        """Say whether all of that is done."""
        return self._has_ended.is_set()

    def reload(self) -> None:
        """Read the configuration anew and go on with it."""
        try:
            configured = self._read()
        except ConfigError as error:  # between the supervisor's reading and ours
            for mistake in error.mistakes:
                self._tools.log.error("reload-refused", mistake=str(mistake))
            return
        except Exception:
            self._tools.log.exception("reload-refused")
            return
        self._next = configured
        if self._loop is not None:  # else it is taken at the beginning
            self._loop.call_soon_threadsafe(self._take_configuration)

    # ---- what the login server sees of the accounts ----

    @property
    def accounts(self) -> Mapping[str, Account]:
        """Return the accounts of which there is something to remember."""
        return self._keeper.accounts

    def many_networks(self, account: str, networks: int) -> None:
        """Take note that an account logs in from more networks than one person has."""
        self._keeper.many_networks(account, networks)

    # ---- the way of one request ----

    def _plan(self, request: Attributes) -> Plan:
        now = time.time()
        self._observer.saw(request, now)
        return self._configured.rules.plan(request, now, self._keeper.accounts, self._attempts)

    def _conclude(self, plan: Plan, outcome: Outcome | None) -> Decision:
        decision = plan.decide(outcome)
        if outcome is not None and outcome.is_charged:
            self._attempts.charged(plan, outcome)
        for hit in decision.hits:
            self._tools.metrics.count(LIMIT_HITS, hit.limit)
            if hit.account and self._attempts.is_first_hit(plan.instance):
                self._keeper.hit(hit.account, hit.limit, hit.suspend_after)
        for limit in decision.shadows:
            self._tools.metrics.count(SHADOW_HITS, limit)
        if plan.correspondents and not decision.is_refusal:
            self._recorder.add(plan.correspondents, time.monotonic())
        return decision

    # ---- serving ----

    async def _serve(self) -> None:
        assert self._listener is not None
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._take_configuration()
        await self._keeper.turn()  # who is suspended is so from the first request on
        recording = self._start(self._recorder.run())
        for work in (self._tick(), self._review(), self._tell_size(), self._keeper.run()):
            self._start(work)
        dovecot = await self._serve_dovecot()
        acceptor = Acceptor(self._listener, self._server.connection)
        acceptor.start()
        if not self._wants_end:
            await self._wake.wait()
        await self._end(acceptor, dovecot, recording)
        self._has_ended.set()
        await asyncio.Event().wait()  # the worker's other thread ends the process

    async def _end(self, acceptor: Acceptor, dovecot: DovecotServer | None, recording: asyncio.Task[None]) -> None:
        """Answer what was asked, then write what that has left: in this order, and each step within its time."""
        await self._within(ANSWER_SECONDS, "answers", self._answer_last(acceptor))
        self._server.close()
        if dovecot is not None:
            await self._within(ANSWER_SECONDS, "dovecot", dovecot.close())
        recording.cancel()
        await asyncio.gather(
            self._within(WRITE_SECONDS, "accounts", self._keeper.close()),
            self._within(WRITE_SECONDS, "correspondents", self._write_last_correspondents(recording)),
        )

    async def _answer_last(self, acceptor: Acceptor) -> None:
        await acceptor.stop()
        await asyncio.sleep(0.01)  # what has arrived by now is read
        self._server.stop_reading()
        while self._server.pending:
            await asyncio.sleep(0.01)

    async def _write_last_correspondents(self, recording: asyncio.Task[None]) -> None:
        await asyncio.wait([recording])
        await self._recorder.write()

    async def _within(self, seconds: float, step: str, work: Coroutine[Any, Any, None]) -> None:
        """Do a step of the end, which nothing must keep from coming."""
        try:
            await asyncio.wait_for(work, seconds)
        except TimeoutError:
            self._tools.log.warning("end-step-late", step=step, seconds=seconds)
        except Exception:
            self._tools.log.exception("end-step-failed", step=step)

    async def _serve_dovecot(self) -> DovecotServer | None:
        listener = self._tools.sockets.get("dovecot")
        if listener is None:
            return None
        server = DovecotServer(
            lambda: self._configured.logins,
            self._turn.charged,
            self,
            lambda: self._configured.api_key,
            self._tools.metrics,
            self._tools.log,
        )
        await server.start(listener)
        return server

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start what runs as long as the process; a bug that ends it ends the process, which is replaced."""
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._tools.log.critical("task-failed", reason=repr(error))
            os._exit(1)

    # ---- what is done beside the requests ----

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._server.expire(time.monotonic())

    async def _review(self) -> None:
        """Compare where Postfix asks with what the limits count, and keep it for --check."""
        while True:
            await asyncio.sleep(REVIEW_SECONDS)
            try:
                kept = (await self._threads.call(self._store.notes)).get(NOTE, "")
                note = self._observer.review(kept, time.time())
                if note != kept:
                    await self._threads.call(self._store.put_note, NOTE, note)
            except StoreError as error:
                self._tools.log.debug("stages-not-kept", reason=str(error))

    async def _tell_size(self) -> None:
        """Tell, now and then, how large the state is."""
        while True:
            try:
                size = await self._threads.call(self._store.size)
                if size is not None:
                    tell_size(self._tools.notes, size)
            except StoreError as error:
                self._tools.log.debug("size-not-known", reason=str(error))
            await asyncio.sleep(TELL_SECONDS)

    def _watch(self) -> None:
        """Look after the store, several times a second. A thread's whole life."""
        was_open = False
        while True:
            try:
                self._guarded.look_after()
                if self._guarded.is_open is not was_open:
                    was_open = not was_open
                    self._tools.metrics.count(BREAKERS_OPEN, STORE, 1 if was_open else -1)
            except Exception:
                self._tools.log.exception("watch-failed")
            time.sleep(WATCH_SECONDS)

    def _take_configuration(self) -> None:
        """Go on with what the last reload has read; what is under way, and what is known, stays."""
        configured, self._next = self._next, None
        if configured is None:
            return
        try:
            self._tools.name_values("limit", configured.limits)
            self._keeper.configure(configured.keeper, channels_of(configured.notify, self._events), configured.kickers)
        except Exception:
            self._tools.log.exception("reload-failed")
            return
        self._configured = configured
        self._recorder.lifetime_seconds = configured.correspondents_seconds
        self._observer = self._make_observer()

    def _make_observer(self) -> StageObserver:
        return StageObserver(self._configured.rules.limits, self._tools.metrics, self._events)

    def _count_bug(self) -> None:
        self._tools.metrics.count("own_bugs")
        self._tools.log.exception("own-bug")
