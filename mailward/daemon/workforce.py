"""The supervisor's workers: forked, heard, told, killed when they fall silent, buried and replaced.

Runs in the supervisor, which is one thread: what a worker does is mailward.daemon.worker.
"""

from __future__ import annotations

import contextlib
import gc
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping

from mailward.daemon import log as logging
from mailward.daemon import worker as worker_side
from mailward.daemon.generation import Generation, Phase, Tally, WorkerRecord
from mailward.daemon.listener import Listener
from mailward.daemon.log import Log
from mailward.daemon.logbook import Logbook
from mailward.daemon.metrics import MAX_ROWS, SUPERVISOR_ROW, Metrics, Row
from mailward.daemon.program import WorkerTools

HEALTHY_SECONDS = 10.0  # a worker that lived this long died of something new
MAX_BACKOFF_SECONDS = 30.0


class Workforce:
    """The workers of all generations. `log` is replaced where a configuration has another level."""

    def __init__(
        self,
        name: str,
        listeners: Mapping[str, Listener],
        metrics: Metrics,
        selector: selectors.BaseSelector,
        tally: Tally,
        logbook: Logbook,
        log: Log,
    ) -> None:
        self._name = name
        self._listeners = listeners
        self._metrics = metrics
        self._selector = selector
        self._tally = tally
        self._logbook = logbook
        self._free_rows = [row for row in range(MAX_ROWS - 1, -1, -1) if row != SUPERVISOR_ROW]
        self._close_in_child: list[Callable[[], None]] = []
        self.log = log
        self.generations: list[Generation] = []
        self.notes: dict[str, str] = {}

    @property
    def serving(self) -> Generation | None:
        """The generation that takes new connections, if there is one."""
        return next((generation for generation in self.generations if generation.phase is Phase.SERVING), None)

    def on_child(self, close: Callable[[], None]) -> None:
        """Have `close` called in every forked child, for descriptors that are the supervisor's alone."""
        self._close_in_child.append(close)

    def tell(self, generation: Generation, message: bytes) -> None:
        """Send a message to a generation's workers; one that has much to read may miss it."""
        for record in generation.workers.values():
            with contextlib.suppress(OSError):
                record.control.send(message)

    def kill(self, generation: Generation) -> None:
        """End a generation's workers at once."""
        for record in generation.workers.values():
            os.kill(record.pid, signal.SIGKILL)

    def keep_notes(self, keeps: Callable[[str], bool]) -> None:
        """Forget the notes whose keys the configuration no longer knows."""
        self.notes = {key: value for key, value in self.notes.items() if keeps(key)}

    def fork_missing(self, generation: Generation) -> None:
        """Fork the workers that a generation lacks."""
        for _ in range(generation.wanted - len(generation.workers)):
            if self._free_rows:
                self._fork(generation)

    def _fork(self, generation: Generation) -> None:
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            self._fork_failed(generation, error)
            return
        row = self._free_rows.pop()
        counts = self._metrics.row(row)
        gc.collect()
        gc.freeze()  # what is shared stays shared: the child's collector does not write to it
        try:
            pid = os.fork()
        except OSError as error:
            ours.close()
            theirs.close()
            self._free_rows.append(row)
            self._fork_failed(generation, error)
            return
        if pid == 0:
            self._become_worker(generation, ours, theirs, counts)
        theirs.close()
        ours.setblocking(False)
        now = time.monotonic()
        record = WorkerRecord(pid, row, ours, now, now)
        generation.workers[pid] = record
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._hear(record))

    def _fork_failed(self, generation: Generation, error: OSError) -> None:
        self.log.critical("fork-failed", reason=error.strerror)
        generation.failures += 1
        generation.fork_at = time.monotonic() + _backoff(generation.failures)

    def _become_worker(self, generation: Generation, ours: socket.socket, theirs: socket.socket, counts: Row) -> None:
        """Serve in the forked child; never returns."""
        status = 1
        try:
            worker_side.become_worker()
            logging.watch(worker_side.Telltale(theirs, counts))
            logging.configure(generation.loaded.service.log_level)
            log = logging.get(self._name)
            self._selector.close()
            ours.close()
            for close in self._close_in_child:
                close()
            for other in self.generations:
                for record in other.workers.values():
                    record.control.close()
            notes = worker_side.ControlNotes(theirs, self.notes)
            sockets = {name: listener.socket for name, listener in self._listeners.items()}
            tools = WorkerTools(counts, notes, log, sockets, self._metrics.name_values)
            serving = generation.loaded.make_serving(tools)
            drain_seconds = generation.loaded.service.drain_timeout
            worker_side.serve(serving, sockets["socket"], theirs, notes, drain_seconds, log)
            status = 0
        except BaseException:  # a forked child must not run on in the supervisor's code
            self.log.exception("worker-failed")
        finally:
            os._exit(status)

    def _hear(self, record: WorkerRecord) -> bool:
        """Take a worker's next message; say whether there was one."""
        try:
            message = record.control.recv(worker_side.MAX_NOTE)
        except OSError:
            return False
        if not message:
            with contextlib.suppress(KeyError):
                self._selector.unregister(record.control)  # the worker is ending; waitpid() tells how
            return False
        record.last_heard = time.monotonic()
        if message == worker_side.READY:
            record.is_ready = True
        elif message.startswith(worker_side.NOTE):
            self._remember(record, message.removeprefix(worker_side.NOTE), is_suggestion=False)
        elif message.startswith(worker_side.SUGGESTION):
            self._remember(record, message.removeprefix(worker_side.SUGGESTION), is_suggestion=True)
        elif message.startswith(worker_side.TOLD):
            level, _, text = message.removeprefix(worker_side.TOLD).decode("utf-8", "replace").partition("\0")
            self._logbook.take(level, text, f"worker {record.pid}", time.time())
        return True

    def _remember(self, sender: WorkerRecord, note: bytes, *, is_suggestion: bool) -> None:
        """Keep what a worker has told, and tell the others if it is news."""
        key, _, value = note.decode("utf-8", "replace").partition("\0")
        old = self.notes.get(key)
        serving = self.serving
        if old == value or (is_suggestion and old is not None) or (serving and not serving.loaded.keeps_note(key)):
            return
        self.notes[key] = value
        if len(self.notes) > worker_side.MAX_NOTES:
            self.notes.pop(next(iter(self.notes)))
        for generation in self.generations:
            for record in generation.workers.values():
                if record is not sender:
                    with contextlib.suppress(OSError):
                        record.control.send(worker_side.NOTE + note)

    def kill_silent(self, generation: Generation, now: float) -> None:
        """Kill the workers that have not been heard for too long."""
        for record in generation.workers.values():
            if now - record.last_heard > generation.loaded.service.worker_timeout and not record.is_silent:
                record.is_silent = True
                self.log.error("worker-silent", pid=record.pid, seconds=round(now - record.last_heard, 1))
                os.kill(record.pid, signal.SIGKILL)

    def reap(self) -> None:
        """Find out which workers have ended."""
        for generation in self.generations:
            for pid in list(generation.workers):
                with contextlib.suppress(ChildProcessError):
                    ended, status = os.waitpid(pid, os.WNOHANG)
                    if ended:
                        self._bury(generation, generation.workers.pop(pid), os.waitstatus_to_exitcode(status))

    def _bury(self, generation: Generation, record: WorkerRecord, status: int) -> None:
        """Free what a dead worker had, and plan its replacement unless its generation is leaving."""
        while self._hear(record):  # why it died may be the last thing it said
            pass
        with contextlib.suppress(KeyError):
            self._selector.unregister(record.control)
        record.control.close()
        self._metrics.forget_gauges(record.row)
        self._free_rows.append(record.row)
        if generation.phase is Phase.DRAINING:
            return
        now = time.monotonic()
        if record.is_silent:
            self._tally.silent += 1
        else:
            self._tally.died += 1
            self.log.error("worker-died", pid=record.pid, status=status)
        generation.failures = 0 if now - record.started > HEALTHY_SECONDS else generation.failures + 1
        generation.fork_at = now + _backoff(generation.failures)


def _backoff(failures: int) -> float:
    """Return the seconds to wait before the next try: none after the first failure, then ever longer."""
    return 0.0 if failures <= 1 else float(min(MAX_BACKOFF_SECONDS, 0.1 * 2 ** min(failures, 16)))
