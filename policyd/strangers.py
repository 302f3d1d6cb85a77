"""Connections to the auth-policy server that have not shown its key: few of them, and none for long.

Every account of this machine can connect, and each connection takes a descriptor that one of Postfix's needs: whoever had all of
them would have switched the limits off. So the oldest stranger goes where there are too many. Dovecot is none as soon as its
first request has been read; what it leaves idle it closes itself, after ten seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

MAX_STRANGERS = 500  # Dovecot opens a hundred at the most, for as many logins at once
STRANGER_SECONDS = 30.0


class Connection(Protocol):
    """One connection, as aiohttp has it."""

    @property
    def transport(self) -> object | None:
        """Return what it is sent through; None where it is closed."""

    def force_close(self) -> None:
        """Close it at once."""


class Strangers:
    """Those that are open, the oldest first. Times are monotonic; `on_closed` is called for each that is closed here."""

    def __init__(self, on_closed: Callable[[], None]) -> None:
        self._on_closed = on_closed
        self._since: dict[Connection, float] = {}

    def came(self, connection: Connection, now: float) -> None:
        """Take one in; of too many the oldest goes."""
        self._since[connection] = now
        if len(self._since) > MAX_STRANGERS:
            self._close(next(iter(self._since)))

    def has_shown_key(self, connection: Connection) -> None:
        """Leave one alone from now on."""
        self._since.pop(connection, None)

    def expire(self, now: float) -> None:
        """Close those that have been here for too long."""
        for connection in [one for one, since in self._since.items() if now - since > STRANGER_SECONDS]:
            self._close(connection)

    def _close(self, connection: Connection) -> None:
        del self._since[connection]
        if connection.transport is not None:
            connection.force_close()
            self._on_closed()
