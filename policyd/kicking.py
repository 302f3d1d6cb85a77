"""Ending the sessions of suspended accounts: once for each suspension, through every way there is, until it has worked.

Each machine does so for itself, and again when it starts: which of them an account's sessions are with nobody knows, and to end
what has ended does nothing.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mailward.model.accounts import AUTOMATIC, Account, AuditEntry
from mailward.model.ports import Counts, OnEvent
from policyd.doveadm import Kicked

KICKS = "kicks"  # the counter; its values are
KICK_RESULTS = ("kicked", "nobody", "refused", "failed")

MAX_AT_ONCE = 4
AGAIN_SECONDS = (
    75.0  # after the start: Dovecot, where it found us away, asks nothing for up to a minute, and lets in who comes
)
FIRST_WAIT = 1.0
MAX_WAIT = 60.0


class Kicker(Protocol):
    """One way to end sessions."""

    async def kick(self, account: str) -> Kicked:
        """End every session of an account. Raises KickError."""


@dataclass(slots=True)
class _Kick:
    """A suspension, and through which ways its account has been kicked."""

    suspended_at: float
    done: list[Kicker] = field(default_factory=list)
    tries: int = 0
    next_at: float = 0.0  # monotonic
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class Kicking:
    """Looks at the accounts now and then, and kicks those that are suspended. `note` writes to the audit log."""

    def __init__(
        self,
        ways: Sequence[Kicker],
        note: Callable[[AuditEntry], Awaitable[None]],
        metrics: Counts,
        on_event: OnEvent,
        first_wait: float = FIRST_WAIT,
    ) -> None:
        self._ways = tuple(ways)
        self._note = note
        self._metrics = metrics
        self._on_event = on_event
        self._first_wait = first_wait
        self._kicks: dict[str, _Kick] = {}
        self._again_at = time.monotonic() + AGAIN_SECONDS

    def configure(self, ways: Sequence[Kicker]) -> None:
        """Go on with other ways; one that is equal to one there was has done what that one has done."""
        if self._ways != tuple(ways):
            self._ways = tuple(ways)
            for kick in self._kicks.values():
                kick.next_at = 0.0  # what failed may have been mended

    def step(self, accounts: Mapping[str, Account]) -> None:
        """Begin what is to be done; never waits."""
        for name in [name for name in self._kicks if not _is_suspended(accounts.get(name))]:
            self._forget(name)
        if time.monotonic() >= self._again_at:
            self._again_at = math.inf
            for earlier in self._kicks.values():
                earlier.done.clear()
        now, running = time.monotonic(), sum(1 for kick in self._kicks.values() if kick.task is not None)
        for name, account in accounts.items():
            if account.suspension is None:
                continue
            kick = self._kicks.get(name)
            if kick is None or kick.suspended_at != account.suspension.at:
                self._forget(name)
                kick = self._kicks[name] = _Kick(account.suspension.at)
            if kick.task is None and self._left(kick) and now >= kick.next_at and running < MAX_AT_ONCE:
                kick.task = asyncio.get_running_loop().create_task(self._kick(name, kick))
                running += 1

    async def close(self, seconds: float) -> None:
        """Wait for what has begun, but not for long."""
        tasks = [kick.task for kick in self._kicks.values() if kick.task is not None]
        await end_tasks(tasks, seconds)

    def _left(self, kick: _Kick) -> list[Kicker]:
        return [way for way in self._ways if way not in kick.done]

    def _forget(self, name: str) -> None:
        kick = self._kicks.pop(name, None)
        if kick is not None and kick.task is not None:
            kick.task.cancel()

    async def _kick(self, name: str, kick: _Kick) -> None:
        try:
            for way in self._left(kick):
                if await self._kick_through(way, name, is_first=not kick.tries):
                    kick.done.append(way)
        finally:
            wait = min(MAX_WAIT, self._first_wait * 2.0 ** min(kick.tries, 30))
            kick.tries += 1
            kick.next_at = time.monotonic() + wait * (0.75 + 0.5 * random.random())
            kick.task = None

    async def _kick_through(self, way: Kicker, name: str, *, is_first: bool) -> bool:
        """Say whether it is done."""
        try:
            kicked = await way.kick(name)
        except Exception as error:  # noqa: BLE001 - KickError; and a bug of ours is no reason to stop trying
            self._metrics.count(KICKS, "failed")
            if is_first:  # the counter tells the rest
                self._on_event("error", "kick-failed", account=name, reason=str(error) or repr(error))
            return False
        self._metrics.count(KICKS, kicked.value)
        if kicked is Kicked.REFUSED:
            self._on_event(
                "critical", "kick-refused", account=name, reason="the name is a mask or an address to Dovecot"
            )
            return True
        self._on_event("info", "sessions-ended", account=name, result=kicked.value)
        if kicked is Kicked.KICKED:
            await self._note(
                AuditEntry(time.time(), AUTOMATIC, "kick", name, "suspended", "logged in", "sessions ended")
            )
        return True


async def end_tasks(tasks: Sequence[asyncio.Task[None]], seconds: float) -> None:
    """Wait for tasks, then cancel those that are left."""
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=seconds)
    for task in late:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _is_suspended(account: Account | None) -> bool:
    return account is not None and account.suspension is not None
