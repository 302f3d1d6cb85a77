"""Telling of each incident once, over all machines that share a store.

Whoever is to tell takes the telling first, by a swap in the store, until a time (mailward.policy.incidents): nobody else tells
before. What could not be told is tried again with growing waits, and the telling is held meanwhile. A machine that dies
between sending and noting leaves what it held to the others, once that time is over: something may be told twice then, but
never not at all.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mailward.model.accounts import Account
from mailward.model.errors import StoreError
from mailward.model.ports import Counts, OnEvent
from mailward.policy import incidents
from mailward.policy.incidents import Step
from policyd.kicking import end_tasks
from policyd.notice import Notice, make_notice
from policyd.notify import TELL_SECONDS, Channel, NotifyError

NOTIFICATIONS = "notifications"  # the counter; its values are
NOTIFICATION_RESULTS = ("sent", "failed", "given-up")

MAX_AT_ONCE = 8  # accounts that are told of at a time
FIRST_WAIT = 5.0
MAX_WAIT = 600.0
MAX_TRIES = 8  # of one way, while another has told: about 15 minutes

Change = Callable[[str, Callable[[Account], Step]], Awaitable[Account]]


@dataclass(slots=True)
class _Telling:
    """What is being told of an account. `lease` is what the store says for as long as it is ours.

    `done` names the ways that have told: the same way may be another channel after a reload.
    """

    what: str = ""
    lease: float = 0.0
    done: list[str] = field(default_factory=list)
    tries: int = 0
    next_at: float = 0.0  # monotonic
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class Telling:
    """Looks at the accounts now and then, and tells what is to be told. `change` changes an account in the store."""

    def __init__(
        self,
        channels: Sequence[Channel],
        settle_seconds: float,
        machine: str,
        change: Change,
        metrics: Counts,
        on_event: OnEvent,
        first_wait: float = FIRST_WAIT,
    ) -> None:
        self._channels = tuple(channels)
        self._settle_seconds = settle_seconds
        self._machine = machine
        self._change = change
        self._metrics = metrics
        self._on_event = on_event
        self._first_wait = first_wait
        self._tellings: dict[str, _Telling] = {}

    def configure(self, channels: Sequence[Channel], settle_seconds: float, machine: str) -> None:
        """Go on with other channels. Who has been told is not told again, and what failed is tried now: it may be mended."""
        self._channels = tuple(channels)
        self._settle_seconds = settle_seconds
        self._machine = machine
        for telling in self._tellings.values():
            telling.next_at = 0.0

    def step(self, accounts: Mapping[str, Account], now: float) -> None:
        """Begin what is to be done; never waits."""
        monotonic = time.monotonic()
        running = sum(1 for telling in self._tellings.values() if telling.task is not None)
        for name in [name for name, one in self._tellings.items() if one.task is None and name not in accounts]:
            del self._tellings[name]
        for name, account in accounts.items():
            if account.incident is None or running >= MAX_AT_ONCE:
                continue
            telling = self._tellings.get(name)
            if telling is None and not incidents.to_tell(account, self._settle_seconds, now):
                continue
            if telling is None:
                telling = self._tellings[name] = _Telling()
            has_more = telling.done and incidents.untold(account, self._settle_seconds, now) != telling.what
            if telling.task is None and (monotonic >= telling.next_at or has_more):
                telling.task = asyncio.get_running_loop().create_task(self._tell(name, telling))
                running += 1

    async def close(self, seconds: float) -> None:
        """Wait for what has begun, but not for long: it is told again, by whoever is there."""
        await end_tasks([telling.task for telling in self._tellings.values() if telling.task is not None], seconds)

    async def _tell(self, name: str, telling: _Telling) -> None:
        try:
            notice = await self._take(name, telling)
            if notice is not None:
                await self._send(notice, telling)
                await self._settle_up(name, telling)
            if not telling.what:
                self._tellings.pop(name, None)
        except StoreError:  # the keeper tells of the store; what is done is known here, and noted once it is back
            telling.next_at = time.monotonic() + self._first_wait
            if not telling.what:
                self._tellings.pop(name, None)
        except Exception as error:  # noqa: BLE001 - a bug of ours, told now and then; the other accounts are told of
            telling.next_at = time.monotonic() + MAX_WAIT
            self._on_event("error", "telling-failed", account=name, reason=repr(error))
        finally:
            telling.task = None

    async def _take(self, name: str, telling: _Telling) -> Notice | None:
        """Take what is to be told now; None where there is nothing, or somebody else has it."""
        taken: list[tuple[str, Account]] = []
        settle = self._settle_seconds

        def take(account: Account) -> Step:
            taken.clear()
            now = time.time()
            if not _is_held(account, telling):
                what = incidents.to_tell(account, settle, now)
            else:
                what = incidents.untold(account, settle, now)
                if telling.done and what != telling.what:  # some know it, and there is more to tell by now
                    account = incidents.told(account, telling.what)
                    what = incidents.untold(account, settle, now)
            if not what:
                return account, ()
            taken.append((what, account))
            return incidents.take_telling(account, now), ()

        after = await self._change(name, take)
        if not taken:
            telling.what = ""
            return None
        what, account = taken[0]
        if what != telling.what:
            telling.what, telling.done, telling.tries = what, [], 0
        assert after.incident is not None
        telling.lease = after.incident.telling_until
        return make_notice(account, what, self._machine)

    async def _send(self, notice: Notice, telling: _Telling) -> None:
        """Send through every way that has not taken it yet."""
        waiting = self._left(telling)
        results = await asyncio.gather(*(self._send_through(channel, notice) for channel in waiting))
        telling.done += [channel.name for channel, is_sent in zip(waiting, results, strict=True) if is_sent]
        telling.tries += 1

    def _left(self, telling: _Telling) -> list[Channel]:
        return [channel for channel in self._channels if channel.name not in telling.done]

    async def _send_through(self, channel: Channel, notice: Notice) -> bool:
        """Say whether it was taken."""
        what = {"channel": channel.name, "account": notice.account, "news": notice.news.value}
        try:
            await asyncio.wait_for(channel.send(notice), TELL_SECONDS)
        except (NotifyError, TimeoutError) as error:
            self._metrics.count(NOTIFICATIONS, "failed")
            self._on_event("error", "notification-failed", **what, reason=str(error) or "time-out")
            return False
        except Exception as error:  # noqa: BLE001 - a bug of ours in one way must not keep the others from telling
            self._metrics.count(NOTIFICATIONS, "failed")
            self._on_event("error", "notification-failed", **what, reason=repr(error))
            return False
        self._metrics.count(NOTIFICATIONS, "sent")
        self._on_event("info", "notification-sent", **what)
        return True

    async def _settle_up(self, name: str, telling: _Telling) -> None:
        """Note that it is told, or hold the telling until the next try."""
        left = self._left(telling)
        if left and not (telling.done and telling.tries >= MAX_TRIES):
            wait = min(MAX_WAIT, self._first_wait * 2.0 ** min(telling.tries - 1, 30)) * (0.75 + 0.5 * random.random())
            telling.next_at = time.monotonic() + wait
            held = await self._change(name, lambda account: (_hold(account, telling, wait), ()))
            if held.incident is not None:
                telling.lease = held.incident.telling_until
            return
        for channel in left:  # the others must hear of what comes next
            self._metrics.count(NOTIFICATIONS, "given-up")
            self._on_event("error", "notification-given-up", channel=channel.name, account=name, tries=telling.tries)
        await self._change(name, lambda account: (_note(account, telling), ()))
        telling.what = ""


def _is_held(account: Account, telling: _Telling) -> bool:
    """Say whether the telling is still ours."""
    return account.incident is not None and 0.0 < telling.lease == account.incident.telling_until


def _hold(account: Account, telling: _Telling, seconds: float) -> Account:
    return incidents.take_telling(account, time.time() + seconds) if _is_held(account, telling) else account


def _note(account: Account, telling: _Telling) -> Account:
    return incidents.told(account, telling.what) if _is_held(account, telling) else account
