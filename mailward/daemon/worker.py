"""A worker's side of the supervisor: signs of life, notes, and leaving without losing a session.

Runs in the forked child. One Python thread talks to the supervisor while the main thread serves; nothing here knows
what is served.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import select
import signal
import socket
import time
from collections.abc import Mapping

from mailward.daemon.log import Log
from mailward.daemon.logbook import LINES, WARNING, clipped
from mailward.daemon.memory import share_one_heap
from mailward.daemon.metrics import Row
from mailward.daemon.program import ReloadingServing, Serving

HEARTBEAT_SECONDS = 1.0
DRAIN_POLL_SECONDS = 0.05
MAX_NOTE = 1024

# Messages of the control socket (SOCK_SEQPACKET, so each arrives whole).
READY, ALIVE, DRAIN, NOTE, SUGGESTION = b"ready", b"alive", b"drain ", b"note ", b"suggestion "
RELOAD = b"reload"
TOLD = b"told "  # a line of the log
GONE = b"gone"  # never sent: what a worker reads where there is no supervisor any more
MAX_NOTES = 50_000  # kept by each process; the oldest is forgotten

TOLD_IN_A_MINUTE = (
    30  # lines of one worker; what is beyond is counted and in the log, and leaves room for signs of life
)

_PR_SET_PDEATHSIG = 1


class ControlNotes:
    """Notes that travel over the control socket."""

    def __init__(self, control: socket.socket, inherited: Mapping[str, str]) -> None:
        self._control = control
        self._known = dict(inherited)

    def note(self, key: str, value: str) -> None:
        """Tell the supervisor, which tells the others; dropped where it does not read, for a later note will say the same."""
        self._learn(key, value)
        self._send(NOTE, key, value)

    def suggest(self, key: str, value: str) -> None:
        """Tell the supervisor, which forgets it where it knows better."""
        if key not in self._known:
            self._learn(key, value)
        self._send(SUGGESTION, key, value)

    def known(self, key: str) -> str:
        """Return what was known at the fork or has been heard since."""
        return self._known.get(key, "")

    def hear(self, message: bytes) -> None:
        """Take a note that another worker has sent."""
        key, _, value = message.removeprefix(NOTE).decode("utf-8", "replace").partition("\0")
        self._learn(key, value)

    def _learn(self, key: str, value: str) -> None:
        self._known[key] = value
        if len(self._known) > MAX_NOTES:
            with contextlib.suppress(KeyError, RuntimeError):  # another thread was faster
                self._known.pop(next(iter(self._known)))

    def _send(self, kind: bytes, key: str, value: str) -> None:
        message = kind + f"{key}\0{value}".encode()
        if len(message) <= MAX_NOTE:
            with contextlib.suppress(OSError):
                self._control.send(message, socket.MSG_DONTWAIT)


class Telltale:
    """Counts what a worker writes to its log at warning and above, and tells the supervisor of errors, for the status page."""

    def __init__(self, control: socket.socket, counts: Row) -> None:
        self._control = control
        self._counts = counts
        self._since = 0.0
        self._told = 0

    def __call__(self, level: str, line: str) -> None:
        """Take a line; may be called from any thread. Never blocks, never fails, never logs."""
        self._counts.count(LINES, level)
        if level == WARNING:
            return
        now = time.monotonic()
        if now - self._since >= 60.0:
            self._since, self._told = now, 0
        self._told += 1
        if self._told <= TOLD_IN_A_MINUTE:
            with contextlib.suppress(OSError):
                self._control.send(TOLD + f"{level}\0{clipped(line)}".encode(), socket.MSG_DONTWAIT)


def become_worker() -> None:
    """Cut the ties to the supervisor's signals; called first thing in the child.

    A process group of its own keeps a terminal's Ctrl-C and systemd's TERM away: libmilter takes both as an order to drop
    its sessions. SIGCONT on the parent's death wakes even a stopped worker, which then finds its supervisor gone and drains.
    """
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    os.setpgid(0, 0)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)
    share_one_heap()
    gc.enable()
    gc.set_threshold(20_000, 20, 20)  # a message makes no cycles; looking for them every 700 objects costs 3 %


class Worker:
    """Serves, and obeys the supervisor."""

    def __init__(
        self, serving: Serving, control: socket.socket, notes: ControlNotes, drain_seconds: float, log: Log
    ) -> None:
        """`drain_seconds` is how long the sessions may go on where the supervisor is gone and cannot say."""
        self._serving = serving
        self._control = control
        self._notes = notes
        self._drain_seconds = drain_seconds
        self._log = log
        self._last_alive = 0.0

    def obey(self) -> None:
        """Send signs of life until told to drain, or until the supervisor is gone; then leave. A thread's whole life."""
        seconds = self._drain_seconds
        try:
            seconds = self._serve_until_told()
        except Exception:  # noqa: BLE001 - a worker that nobody can tell anything must not stay
            self._log.exception("control-failed")
        self._drain(seconds)

    def report_ready(self) -> None:
        """Say that this worker serves."""
        self._send(READY)

    def _serve_until_told(self) -> float:
        """Return how long the sessions may go on, once there is an order to drain or nobody left to give one."""
        while True:
            message = self._receive(HEARTBEAT_SECONDS)
            if message == GONE:
                return self._drain_seconds
            if message.startswith(DRAIN):
                return float(message.removeprefix(DRAIN))
            if message.startswith(NOTE):
                self._notes.hear(message)
            elif message == RELOAD and isinstance(self._serving, ReloadingServing):
                self._serving.reload()
            self._send_alive()

    def _drain(self, seconds: float) -> None:
        """Finish the sessions there are, then end the process; at the deadline, which may be moved, end it anyway.

        _exit, since libmilter's threads wait for commands that will not come and would hold a normal exit up.
        """
        self._serving.stop_accepting()
        deadline = time.monotonic() + seconds
        while not self._serving.is_idle():
            if time.monotonic() > deadline:
                self._log.warning("drain-deadline", seconds=round(seconds, 1))
                break
            message = self._receive(DRAIN_POLL_SECONDS)
            if message.startswith(DRAIN):
                deadline = min(deadline, time.monotonic() + float(message.removeprefix(DRAIN)))
            elif message == GONE:
                time.sleep(DRAIN_POLL_SECONDS)
            self._send_alive()
        os._exit(0)

    def _receive(self, seconds: float) -> bytes:
        """Return the supervisor's next message, empty if none comes in that time; GONE where there is no supervisor."""
        ready, _, _ = select.select([self._control], [], [], seconds)
        if not ready:
            return b""
        try:
            return self._control.recv(MAX_NOTE) or GONE
        except OSError:  # it died with messages of ours unread
            return GONE

    def _send_alive(self) -> None:
        """Send a sign of life, twice a second at the most."""
        now = time.monotonic()
        if now - self._last_alive >= HEARTBEAT_SECONDS / 2:
            self._last_alive = now
            self._send(ALIVE)

    def _send(self, message: bytes) -> None:
        with contextlib.suppress(OSError):  # the supervisor is gone or busy: the next _receive() or heartbeat tells
            self._control.send(message, socket.MSG_DONTWAIT)


def serve(
    serving: Serving,
    listener: socket.socket,
    control: socket.socket,
    notes: ControlNotes,
    drain_seconds: float,
    log: Log,
) -> None:
    """Open, report ready and serve; returns only when serving ended by itself."""
    import threading  # here, so that nobody thinks the supervisor may start one

    worker = Worker(serving, control, notes, drain_seconds, log)
    serving.open(listener)
    threading.Thread(target=worker.obey, name="control", daemon=True).start()
    worker.report_ready()
    serving.run()
