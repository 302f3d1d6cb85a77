"""The auth-policy server of the tests: on loopback in a thread of its own, over counters in memory."""

from __future__ import annotations

import asyncio
import io
import socket
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from mailward.adapters.memory_counters import MemoryLimits
from mailward.model.accounts import Account, Suspension
from mailward.model.limits import Charging, Outcome
from mailward.policy.logins import LoginRules
from policyd.dovecot import DovecotServer

API_KEY = "s3cret-key"


class Numbers:
    """Counts in a dictionary."""

    def __init__(self) -> None:
        self.of: Counter[tuple[str, str]] = Counter()

    def count(self, name: str, value: str = "", amount: float = 1.0) -> None:
        self.of[name, value] += int(amount)


class Keeper:
    """Accounts, and what was told of them."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.told: list[tuple[str, int]] = []

    def many_networks(self, account: str, networks: int) -> None:
        self.told.append((account, networks))

    def suspend(self, account: str) -> None:
        self.accounts[account] = Account(account, suspension=Suspension(0.0, "root", "stolen"))


class LoginServer:
    """The server and all it stands on. `charge` in place of its own: a store that is away, or broken."""

    def __init__(self, rules: LoginRules | None = None, *, api_key: str = API_KEY) -> None:
        self.rules = rules or LoginRules()
        self.api_key = api_key
        self.store = MemoryLimits()
        self.keeper = Keeper()
        self.numbers = Numbers()
        self.lines: list[dict[str, Any]] = []
        self.charged: list[Charging] = []
        self.charge: Callable[[Charging], Coroutine[Any, Any, Outcome | None]] = self._charge
        self._server: DovecotServer | None = None

    async def start(self, listener: socket.socket) -> None:
        self._server = DovecotServer(
            lambda: self.rules,
            lambda charging: self.charge(charging),
            self.keeper,
            lambda: self.api_key,
            self.numbers,
            self._log(),
        )
        await self._server.start(listener)

    async def close(self) -> None:
        assert self._server is not None
        await self._server.close()

    async def _charge(self, charging: Charging) -> Outcome:
        self.charged.append(charging)
        return self.store.charge([charging])[0]

    def _log(self) -> Any:
        def keep(_logger: object, level: str, event: Any) -> Any:
            self.lines.append({**event, "level": level})
            raise structlog.DropEvent

        return structlog.wrap_logger(structlog.PrintLogger(io.StringIO()), processors=[keep])


class ServerThread:
    """A LoginServer in a thread, for clients that are no coroutines; `stop` and `start` it as a daemon."""

    def __init__(self, server: LoginServer, port: int) -> None:
        self.server = server
        self.port = port
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start it; it listens when this returns."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(64)
        is_up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(listener, is_up)), daemon=True)
        self._thread.start()
        assert is_up.wait(30)

    def stop(self) -> None:
        """Stop it; nothing listens when this returns. Harmless if it does not run."""
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join(30)
            self._loop = None

    async def _serve(self, listener: socket.socket, is_up: threading.Event) -> None:
        self._end = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        await self.server.start(listener)
        is_up.set()
        await self._end.wait()
        await self.server.close()
