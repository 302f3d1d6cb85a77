"""Whatever comes in one turn of the event loop is charged together: one commit, or one round trip, for all of it.

Under load a turn has many requests, and what durability costs is shared among them; alone, a request waits for nobody. Nothing is
answered before its charge is as durable as configured.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from mailward.model.limits import Charging, Outcome

MAX_BATCH = 128  # some milliseconds of the store's time

ChargeAll = Callable[[Sequence[Charging]], "list[Outcome] | None"]
Then = Callable[["Outcome | None"], None]


class Turn:
    """Gathers chargings. Everything happens in the event loop's thread."""

    def __init__(self, charge_all: ChargeAll, on_bug: Callable[[], None]) -> None:
        """`charge_all` returns None where nobody can count. `on_bug` is called with an exception of ours at hand."""
        self._charge_all = charge_all
        self._on_bug = on_bug
        self._waiting: list[tuple[Charging, Then]] = []

    def charge(self, charging: Charging, then: Then) -> None:
        """Have a request charged at the end of the turn; `then` gets its outcome, or None.

        A turn is two of the loop's: who was answered in the one before asks again while this one's requests are read. That
        makes twice as many share a commit, and a tenth more requests a second; alone, a request waits some microseconds.
        """
        self._waiting.append((charging, then))
        if len(self._waiting) == 1:
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._end)

    async def charged(self, charging: Charging) -> Outcome | None:
        """Have a request charged likewise, and wait for it."""
        outcome: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()

        def then(result: Outcome | None) -> None:
            if not outcome.done():  # whoever waited may have been cancelled
                outcome.set_result(result)

        self.charge(charging, then)
        return await outcome

    def _end(self) -> None:
        waiting, self._waiting = self._waiting, []
        for at in range(0, len(waiting), MAX_BATCH):
            batch = waiting[at : at + MAX_BATCH]
            for (_, then), outcome in zip(batch, self._outcomes(batch), strict=True):
                try:
                    then(outcome)
                except Exception:  # noqa: BLE001 - the others of the turn wait for theirs
                    self._on_bug()

    def _outcomes(self, batch: Sequence[tuple[Charging, Then]]) -> Sequence[Outcome | None]:
        outcomes = None
        try:
            outcomes = self._charge_all([charging for charging, _ in batch])
        except Exception:  # noqa: BLE001 - a bug in counting must not leave Postfix without an answer
            self._on_bug()
        return outcomes if outcomes is not None else [None] * len(batch)
