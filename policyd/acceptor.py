"""Taking connections from the listening socket, which is not the event loop's own: to the last, systemd's stays systemd's."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

ACCEPTS = 64  # connections taken in one go
PAUSE_SECONDS = 0.5  # where no descriptor is left


class Acceptor:
    """Gives each connection a protocol. Everything happens in the event loop's thread."""

    def __init__(self, listener: socket.socket, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        self._listener = listener
        self._make_protocol = make_protocol
        self._loop = asyncio.get_running_loop()
        self._connecting: set[asyncio.Task[None]] = set()
        self._is_stopped = False

    def start(self) -> None:
        """Take connections from now on."""
        if not self._is_stopped:
            self._loop.add_reader(self._listener, self._accept)

    async def stop(self) -> None:
        """Take no more; return once those that were taken have their protocol."""
        self._is_stopped = True
        self._loop.remove_reader(self._listener)
        while self._connecting:
            await asyncio.wait(list(self._connecting))

    def _accept(self) -> None:
        for _ in range(ACCEPTS):
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:
                self._loop.remove_reader(self._listener)
                self._loop.call_later(PAUSE_SECONDS, self.start)
                return
            connection.setblocking(False)
            task = self._loop.create_task(self._connect(connection))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it has gone already
            await self._loop.connect_accepted_socket(self._make_protocol, connection)
