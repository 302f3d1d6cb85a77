"""Telling systemd how the service is (sd_notify(3)): ready, reloading, stopping, and the watchdog's sign of life."""

from __future__ import annotations

import os
import re
import socket
import time

SPARE_SECONDS = 5.0  # for what comes behind the last session, on a busy machine


class Notifier:
    """Sends to systemd where it listens, and to nobody elsewhere; what cannot be sent is dropped."""

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        watchdog_pid = os.environ.pop("WATCHDOG_PID", str(os.getpid()))
        microseconds = os.environ.pop("WATCHDOG_USEC", "0")
        is_for_us = watchdog_pid == str(os.getpid()) and re.fullmatch("[0-9]{1,18}", microseconds)
        self.watchdog_seconds = int(microseconds) / 1e6 if is_for_us else 0.0
        self._socket = (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) if self._address else None
        )

    def ready(self, status: str) -> None:
        """Say that the service serves."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """Say that a reload begins; ready() ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, seconds: float) -> None:
        """Say that the service is on its way out, and may take so long, even where TimeoutStopSec= is less."""
        self._send(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int((seconds + SPARE_SECONDS) * 1e6)}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if self._socket is not None:
            try:
                self._socket.sendto(message.encode(), self._address)
            except OSError:
                return  # systemd restarts the service if it misses the watchdog's feed
