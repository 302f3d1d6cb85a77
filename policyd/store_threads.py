"""Threads of their own for the calls of policyd's store, so that nothing else that waits can hold them up.

Whoever is slow to take a mail, or to say where a name is in the DNS, takes asyncio's own threads; without these, a suspension
would wait for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from mailward.model.errors import StoreError

STORE_THREADS = 2  # a SQLite file has few connections, and who is answered in the event loop needs one of them

P = ParamSpec("P")
T = TypeVar("T")


def _nobody(_error: StoreError) -> None:
    pass


class StoreThreads:
    """The one way to the store for all that does not answer a request: its failures are met here, whoever swallows them."""

    def __init__(self, on_failure: Callable[[StoreError], None] = _nobody, most: int = STORE_THREADS) -> None:
        """`on_failure` is called in the event loop, before the exception goes on to who called."""
        self._on_failure = on_failure
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="store")

    async def call(self, act: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Call in a thread. Raises StoreError."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, partial(act, *arguments, **named))
        except StoreError as error:
            self._on_failure(error)
            raise
