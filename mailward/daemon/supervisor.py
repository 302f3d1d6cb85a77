"""The supervisor: owns the listening socket, forks the workers that serve it, and outlives them.

Single-threaded on purpose: it forks all its life, and forking from a process with threads is unsafe. One selector loop
waits for signals, for the workers' signs of life and for HTTP clients. Never touches mail and never loads libmilter's threads.

A generation is one reading of the configuration and the workers that serve by it. HUP starts a new one; only when all of
its workers serve is the old one told to drain. A worker that dies or falls silent is replaced from the memory of its
generation, so a configuration that was broken since cannot keep the service from healing.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from mailward.daemon import log as logging
from mailward.daemon import worker as worker_side
from mailward.daemon.generation import Generation, Phase, Tally
from mailward.daemon.listener import Listener
from mailward.daemon.log import Log
from mailward.daemon.logbook import LINES, Logbook, clipped
from mailward.daemon.memory import release_library_pages
from mailward.daemon.metrics import SUPERVISOR_ROW, Metrics
from mailward.daemon.notify import Notifier
from mailward.daemon.program import Loaded, Program
from mailward.daemon.watched import WatchedFiles
from mailward.daemon.workforce import Workforce
from mailward.model.errors import ConfigError
from mailward.settings.common import Service

TICK_SECONDS = 0.25  # how late a deadline may be noticed
START_SECONDS = 60.0  # a new generation that does not serve by then is given up
LAST_ACCEPT_SECONDS = 0.2  # for connections that were made before the socket's path was removed
STUCK_SECONDS = 2.0  # after the deadline, at which workers end themselves, unless stuck
MAX_DRAINING = 2  # generations; a further HUP waits until one has left
MAX_START_FAILURES = 5


class Supervisor:
    """Runs a program's workers until it is told to stop."""

    def __init__(
        self, program: Program, config: Path, listeners: Mapping[str, Listener], metrics: Metrics, log: Log
    ) -> None:
        """`listeners` are by the name of their setting; "socket" is the one that the MTA asks."""
        self._program = program
        self._config = config
        self._listeners = listeners
        self._metrics = metrics
        self._log = log
        self._notifier = Notifier()
        self._last_number = 0
        self._wants_reload = False
        self._is_stopping = False
        self._drain_all_at = 0.0  # set by TERM
        self._next_watchdog = 0.0
        self._each_tick: list[Callable[[float], None]] = []
        self.selector = selectors.DefaultSelector()
        self.tally = Tally()
        self.logbook = Logbook()
        self._watched_files = WatchedFiles()
        self._workforce = Workforce(program.name, listeners, metrics, self.selector, self.tally, self.logbook, log)
        self.generations = self._workforce.generations
        self.started = time.time()

    def run(self, loaded: Loaded) -> int:
        """Serve with `loaded`; returns the exit status once TERM or INT has been obeyed, or nothing could be started."""
        self._watch_log()
        self._take_signals()
        self._start_generation(loaded)
        while self.generations:
            for key, _ in self.selector.select(TICK_SECONDS):
                self._survive(key.data)
            self._survive(lambda: self._tick(time.monotonic()))
        self._remove_listeners()
        return 1 if not self._is_stopping else 0

    def _survive(self, act: Callable[[], None]) -> None:
        """Run one step; whatever goes wrong in it, the workers go on serving and the next step is tried."""
        try:
            act()
        except Exception:  # noqa: BLE001 - a supervisor that ends takes the service with it
            self._log.exception("supervisor-step-failed")
            time.sleep(TICK_SECONDS)  # what fails each time must not fill the log

    def on_child(self, close: Callable[[], None]) -> None:
        """Have `close` called in every forked child, for descriptors that are the supervisor's alone."""
        self._workforce.on_child(close)

    def on_tick(self, act: Callable[[float], None]) -> None:
        """Have `act` called with the monotonic time, several times a second."""
        self._each_tick.append(act)

    @property
    def serving(self) -> Generation | None:
        """The generation that takes new connections, if there is one."""
        return self._workforce.serving

    @property
    def notes(self) -> Mapping[str, str]:
        """What workers have told each other."""
        return self._workforce.notes

    @property
    def is_ready(self) -> bool:
        """Whether at least one worker takes new connections."""
        serving = self.serving
        return not self._is_stopping and serving is not None and any(w.is_ready for w in serving.workers.values())

    # ---- what happens to us ----

    def _watch_log(self) -> None:
        """Count our own lines of the log and keep the errors, as the workers have theirs counted and tell them."""
        counts = self._metrics.row(SUPERVISOR_ROW)

        def take(level: str, line: str) -> None:
            counts.count(LINES, level)
            self.logbook.take(level, clipped(line), "supervisor", time.time())

        logging.watch(take)

    def _take_signals(self) -> None:
        """Turn signals into bytes on a pipe the selector reads; the handlers themselves do nothing."""
        read_end, write_end = socket.socketpair()
        for end in (read_end, write_end):
            end.setblocking(False)
        signal.set_wakeup_fd(write_end.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: None)
        self.on_child(read_end.close)
        self.on_child(write_end.close)

        def read_signals() -> None:
            for number in set(read_end.recv(512)):
                self._signalled(number)

        self.selector.register(read_end, selectors.EVENT_READ, read_signals)

    def _signalled(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._wants_reload = True
        elif number in (signal.SIGTERM, signal.SIGINT):
            self._stop()
        elif number == signal.SIGCHLD:
            self._workforce.reap()

    def _tick(self, now: float) -> None:
        """Do what the time asks for: replace, kill, advance, reload, feed the watchdog."""
        self._workforce.reap()
        for generation in list(self.generations):
            self._workforce.kill_silent(generation, now)
            if self._is_stopping and now >= self._drain_all_at:
                self._drain(generation, generation.loaded.service.drain_timeout)
            self._advance(generation, now)
        for act in self._each_tick:
            act(now)
        self._look_at_files(now)
        if self._wants_reload and not self._is_stopping and self._may_reload():
            self._wants_reload = False
            self._reload()
        if self._notifier.watchdog_seconds and now >= self._next_watchdog:
            self._notifier.alive()
            self._next_watchdog = now + self._notifier.watchdog_seconds / 3

    def _look_at_files(self, now: float) -> None:
        serving = self.serving
        for path in self._watched_files.changed(serving.loaded.watched if serving else (), now):
            self._log.info("file-changed", path=str(path))
            self._wants_reload = True

    def _may_reload(self) -> bool:
        """Whether there is room for one more generation; HUPs that come meanwhile become one reload."""
        phases = [generation.phase for generation in self.generations]
        return Phase.STARTING not in phases and phases.count(Phase.DRAINING) < MAX_DRAINING

    def _reload(self) -> None:
        self._notifier.reloading()
        try:
            loaded = self._program.load(self._config)
        except ConfigError as error:
            for mistake in error.mistakes:
                self._log.error("reload-refused", mistake=str(mistake))
            self._refuse_reload()
            return
        except Exception:  # noqa: BLE001 - a bug in reading, or no descriptor left, must not end what serves
            self._log.exception("reload-refused")
            self._refuse_reload()
            return
        serving = self.serving
        if serving is not None and self._program.reloads_in_place:
            self._reload_in_place(serving, loaded)
            return
        if serving is not None:
            for name in _changed(_listening(serving.loaded.service), _listening(loaded.service)):
                self._log.warning("restart-needed", setting=name)
        self._start_generation(loaded)

    def _reload_in_place(self, serving: Generation, loaded: Loaded) -> None:
        """Have the workers there are go on with the new configuration; those that replace them begin with it.

        All of it or nothing: a worker that is replaced must not find another state than the one before it had.
        """
        old = {**_listening(serving.loaded.service), **serving.loaded.kept}
        changed = _changed(old, {**_listening(loaded.service), **loaded.kept})
        for name in changed:
            self._log.error("restart-needed", setting=name, advice="the old configuration stays")
        if changed:
            self._refuse_reload()
            return
        self._last_number += 1
        serving.number, serving.loaded = self._last_number, loaded
        self._begin_with(loaded)
        self._workforce.tell(serving, worker_side.RELOAD)
        self._tell_of_serving(serving, is_first=False)

    def _refuse_reload(self) -> None:
        self.tally.reload_refused()
        self._notifier.ready("serving with the old configuration; the new one is broken")

    def _stop(self) -> None:
        """Begin the end: nobody new gets in, everybody inside is served."""
        if self._is_stopping:
            return
        self._is_stopping = True
        longest = max((one.loaded.service.drain_timeout for one in self.generations), default=0.0)
        self._notifier.stopping(LAST_ACCEPT_SECONDS + longest + STUCK_SECONDS)
        self._log.info("stopping")
        self._remove_listeners()
        self._drain_all_at = time.monotonic() + LAST_ACCEPT_SECONDS

    def _remove_listeners(self) -> None:
        for listener in self._listeners.values():
            listener.remove()

    # ---- generations ----

    def _start_generation(self, loaded: Loaded) -> None:
        self._last_number += 1
        wanted = loaded.service.workers or max(2, (os.cpu_count() or 1) + 1)
        generation = Generation(self._last_number, loaded, wanted, time.monotonic())
        self.generations.append(generation)
        self._begin_with(loaded)
        self._workforce.fork_missing(generation)

    def _begin_with(self, loaded: Loaded) -> None:
        """Log what a configuration warns of, and make room for the numbers it names."""
        for warning in loaded.all_warnings():
            self._log.warning("configuration", warning=warning)
        for label, values in loaded.label_values.items():
            self._metrics.name_values(label, values)

    def _advance(self, generation: Generation, now: float) -> None:
        """Move a generation on to its next phase where it is time."""
        if generation.phase is Phase.DRAINING:
            if not generation.workers:
                self.generations.remove(generation)
            elif now > generation.drain_deadline + STUCK_SECONDS:
                self._workforce.kill(generation)
            else:
                self._tell_to_drain(generation, now)
            return
        if len(generation.workers) < generation.wanted and now >= generation.fork_at:
            self._workforce.fork_missing(generation)
        if generation.phase is Phase.STARTING:
            if generation.is_ready:
                self._take_over(generation)
            elif now - generation.started > START_SECONDS or generation.failures >= MAX_START_FAILURES:
                self._give_up(generation)

    def _take_over(self, generation: Generation) -> None:
        """Let the new generation serve alone, and the old ones leave."""
        generation.phase = Phase.SERVING
        generation.failures = 0
        is_first = len(self.generations) == 1
        for older in self.generations:
            if older is not generation and older.phase is Phase.SERVING:
                self._drain(older, older.loaded.service.reload_timeout)
        self._workforce.keep_notes(generation.loaded.keeps_note)
        release_library_pages()
        self._tell_of_serving(generation, is_first=is_first)

    def _tell_of_serving(self, generation: Generation, *, is_first: bool) -> None:
        """Tell the log, as the new configuration has it, the metrics and systemd who serves now."""
        logging.configure(generation.loaded.service.log_level)
        self._log = self._workforce.log = logging.get(self._program.name)
        if not is_first:
            self.tally.reload_done()
        self._log.info("serving" if is_first else "reloaded", generation=generation.number, workers=generation.wanted)
        workers = "worker" if generation.wanted == 1 else "workers"
        self._notifier.ready(f"serving with {generation.wanted} {workers}")

    def _give_up(self, generation: Generation) -> None:
        """Undo a generation that does not come up; without an older one that serves, the program ends."""
        self._log.critical("start-failed", generation=generation.number, failures=generation.failures)
        self._workforce.kill(generation)
        generation.phase, generation.drain_deadline = Phase.DRAINING, 0.0
        if self.serving is not None:
            self.tally.reload_refused()
            self._notifier.ready("serving with the old configuration; workers of the new one do not start")

    def _drain(self, generation: Generation, seconds: float) -> None:
        """Have a generation finish its sessions, for at most `seconds`; told again, an earlier deadline counts."""
        now = time.monotonic()
        deadline = now + seconds
        if generation.phase is Phase.DRAINING:
            deadline = min(deadline, generation.drain_deadline)
        generation.phase, generation.drain_deadline = Phase.DRAINING, deadline
        self._tell_to_drain(generation, now)

    def _tell_to_drain(self, generation: Generation, now: float) -> None:
        """Tell the workers, again and again: a message may be lost where a worker has much to read."""
        left = max(0.0, generation.drain_deadline - now)
        self._workforce.tell(generation, worker_side.DRAIN + b"%.3f" % left)


def _listening(service: Service) -> dict[str, object]:
    """Return the settings of the sockets, which stay as they are until a restart."""
    return {name: getattr(service, name) for name in ("socket", "socket_mode", "socket_group", "metrics")}


def _changed(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    return [name for name, value in old.items() if new.get(name) != value]
