"""Process 1 of a root: starts what its unit files say, for `systemctl` (systemctl.py), as far as a mail server needs it.

There is no systemd: it wants control groups, which a machine that only builds and tests may not give. So the tests bring
this. A service gets its account, its groups, no capabilities, a file system that is read-only but for what its unit
allows, its sockets with owner and mode, NOTIFY_SOCKET and the watchdog's time; it counts as started when it has said
READY=1. Sockets stay when their service stops, and a connection starts it. Not here: system call filters, limits.

Runs in the root, on its own Python, and so imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from tests.packages.sockets import close, drain, fork, listen, make_folders, notify_socket, service_of
from tests.packages.unit_file import Unit, command_of, confined, find_unit, is_enabled

CONTROL = "/run/first-process"
LOGS = Path("/var/log/units")  # a file a service: what journald would have
MAIL_LOG = Path("/var/log/mail.log")
START_SECONDS = 60.0
STOP_SECONDS = 60.0
POLL_SECONDS = 0.02
PULLED = {"postfix.service": "postfix@-.service"}  # by a generator, where postfix.service itself starts nothing


class Failure(Exception):
    """What systemctl prints, with a status other than 0."""


class Machine:
    """All services and sockets. One lock: requests are worked off one after the other."""

    def __init__(self) -> None:
        self.pids: dict[str, int] = {}
        self.active: set[str] = set()
        self.failed: set[str] = set()
        self.listening: dict[str, list[socket.socket]] = {}
        self.ended: dict[int, int] = {}
        self.lock = threading.RLock()

    def ask(self, verb: str, names: Sequence[str], properties: Sequence[str]) -> tuple[int, str]:
        """Do what systemctl was told; return its status and its output."""
        with self.lock:
            if verb == "show":
                return 0, "".join(f"{it}={self._property(name, it)}\n" for name in names for it in properties)
            if verb == "is-active":
                states = [self._property(name, "ActiveState") for name in names]
                return (0 if "active" in states else 3), "".join(f"{state}\n" for state in states)
            if verb in ("daemon-reload", "daemon-reexec", "reset-failed"):
                return 0, ""
            if verb not in ACTIONS:
                return 1, f"systemctl: this stand-in knows no {verb}\n"
            try:
                for name in names:
                    ACTIONS[verb](self, name)
            except Failure as failure:
                return 1, f"{failure}\n"
            return 0, ""

    def start(self, name: str) -> None:
        """Start a unit, and the sockets that it requires; nothing happens if it runs."""
        if name in self.active:
            return
        unit = _unit(name)
        for needed in unit.words("Unit.Requires") + unit.words("Unit.Wants") + unit.words("Service.Sockets"):
            if needed.endswith(".socket"):
                self.start(needed)
        if name.endswith(".socket"):
            if service_of(name) in self.active:
                raise Failure(f"{name}: Socket service {service_of(name)} already active, refusing.")
            self.listening[name] = listen(unit)
        elif name.endswith(".service"):
            self._start_service(unit)
        self.active.add(name)
        self.failed.discard(name)
        if name in PULLED and unit.one("Service.Type") == "oneshot":
            self.start(PULLED[name])

    def stop(self, name: str) -> None:
        """Stop a unit; nothing happens if it does not run."""
        if name in PULLED and PULLED[name] in self.active:
            self.stop(PULLED[name])
        if name not in self.active:
            return
        unit = find_unit(name)
        self.active.discard(name)
        if name.endswith(".socket"):
            for bound in self.listening.pop(name):
                close(bound, is_removed=unit is None or unit.is_set("Socket.RemoveOnStop"))
        elif name.endswith(".service"):
            self._stop_service(name, unit)

    def restart(self, name: str) -> None:
        """Stop and start."""
        self.stop(name)
        self.start(name)

    def try_restart(self, name: str) -> None:
        """Restart what runs."""
        if name in self.active:
            self.restart(name)

    def reload(self, name: str) -> None:
        """Run ExecReload=, and wait for the service's word where it says that it reloads."""
        if name not in self.active:
            raise Failure(f"{name} is not active, cannot reload.")
        if name in PULLED and PULLED[name] in self.active:
            name = PULLED[name]
        unit = _unit(name)
        for command in command_of(unit, "ExecReload"):
            pid = str(self.pids.get(name, 0))
            done = self._run([word.replace("$MAINPID", pid) for word in command], unit)
            if done:
                raise Failure(f"{name}: ExecReload ended with status {done}\n{_log_end(name)}")

    def try_reload(self, name: str) -> None:
        """Reload what runs."""
        if name in self.active:
            self.reload(name)

    def reload_or_restart(self, name: str) -> None:
        """Reload what runs; start what does not."""
        (self.reload if name in self.active else self.start)(name)

    def watch_sockets(self) -> None:
        """Start a service when somebody connects to its socket. Never returns."""
        while True:
            with self.lock:
                waiting = {
                    bound: service
                    for name, sockets in self.listening.items()
                    for bound in sockets
                    for service in [service_of(name)]
                    if service not in self.active and service not in self.failed
                }
                with selectors.DefaultSelector() as selector:
                    for bound in waiting:
                        selector.register(bound, selectors.EVENT_READ)
                    woken = [waiting[key.fileobj] for key, _ in selector.select(0)]  # type: ignore[index]
                for service in woken:
                    try:
                        self.start(service)
                    except Failure as failure:
                        _log(service, f"{failure}\n")
            time.sleep(0.1)

    def note_end(self, pid: int, status: int) -> None:
        """Remember that a process has ended; a service whose first process it was is no longer active."""
        self.ended[pid] = status
        for name, main in list(self.pids.items()):
            if main == pid and name in self.active:
                self.active.discard(name)
                self.failed.add(name)
                _log(name, f"ended with status {status}, and nobody had stopped it\n")

    def _start_service(self, unit: Unit) -> None:
        make_folders(unit)
        for command in command_of(unit, "ExecStartPre"):
            if self._run(command, unit):
                raise Failure(f"{unit.name}: {' '.join(command)} failed\n{_log_end(unit.name)}")
        kind = unit.one("Service.Type", "simple")
        commands = command_of(unit, "ExecStart")
        if kind in ("oneshot", "forking"):
            for command in commands:
                if status := self._run(command, unit):
                    raise Failure(f"{unit.name}: {' '.join(command)} ended with {status}\n{_log_end(unit.name)}")
            return
        with contextlib.closing(notify_socket(unit.name)) as notified:
            pid = self._spawn(confined(unit, commands[0]), unit, notify=notified.getsockname())
            self.pids[unit.name] = pid
            if kind == "notify" and not self._wait_ready(pid, notified):
                del self.pids[unit.name]
                self.failed.add(unit.name)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                raise Failure(f"{unit.name} did not say READY=1\n{_log_end(unit.name)}")

    def _stop_service(self, name: str, unit: Unit | None) -> None:
        pid = self.pids.pop(name, 0)
        stops = command_of(unit, "ExecStop") if unit else []
        for command in stops:
            self._run(command, unit)
        if not pid:
            return
        if not stops:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while pid not in self.ended:
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                raise Failure(f"{name} did not end within {STOP_SECONDS:.0f} s\n{_log_end(name)}")
            time.sleep(POLL_SECONDS)

    def _run(self, command: Sequence[str], unit: Unit | None) -> int:
        pid = self._spawn(command, unit)
        while pid not in self.ended:
            time.sleep(POLL_SECONDS)
        return self.ended.pop(pid)

    def _spawn(self, command: Sequence[str], unit: Unit | None, *, notify: str = "") -> int:
        """Start a command with the unit's environment and sockets; its output goes to the unit's log."""
        name = unit.name if unit else "unnamed"
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
            "LANG": "C.UTF-8",
            "INVOCATION_ID": uuid.uuid4().hex,
        }
        for assignment in unit.words("Service.Environment") if unit else []:
            key, _, value = assignment.strip('"').partition("=")
            environment[key] = value
        handed: list[socket.socket] = []
        if unit and notify:
            environment["NOTIFY_SOCKET"] = notify
            if seconds := unit.one("Service.WatchdogSec").removesuffix("s"):
                environment["WATCHDOG_USEC"] = str(int(seconds) * 1_000_000)
            sockets = [it for it in self.listening if service_of(it) == name]
            handed = [bound for it in sockets for bound in self.listening[it]]
            labels = [_unit(it).one("Socket.FileDescriptorName", it) for it in sockets for _ in self.listening[it]]
            if handed:
                environment |= {"LISTEN_FDS": str(len(handed)), "LISTEN_FDNAMES": ":".join(labels)}
        LOGS.mkdir(exist_ok=True)
        with (LOGS / f"{name}.log").open("ab") as log:
            return fork(command, environment, handed, log.fileno(), unit)

    def _wait_ready(self, pid: int, notified: socket.socket) -> bool:
        deadline = time.monotonic() + START_SECONDS
        notified.settimeout(0.1)
        while time.monotonic() < deadline and pid not in self.ended:
            with contextlib.suppress(TimeoutError):
                if b"READY=1" in notified.recv(4096):
                    threading.Thread(target=drain, args=(notified.dup(),), daemon=True).start()
                    return True
        return False

    def _property(self, name: str, wanted: str) -> str:
        unit = find_unit(name)
        state = "active" if name in self.active else "failed" if name in self.failed else "inactive"
        values = {
            "ActiveState": state,
            "SubState": {"active": "running"}.get(state, "dead"),
            "LoadState": "loaded" if unit else "not-found",
            "UnitFileState": "enabled" if is_enabled(name) else "disabled" if unit else "",
            "MainPID": str(self.pids.get(name, 0)),
            "CanReload": "yes" if unit and unit.all("Service.ExecReload") else "no",
            "Listen": " ".join(f"{where} (Stream)" for where in unit.all("Socket.ListenStream")) if unit else "",
        }
        return values.get(wanted, "")


ACTIONS = {
    "start": Machine.start,
    "stop": Machine.stop,
    "restart": Machine.restart,
    "try-restart": Machine.try_restart,
    "condrestart": Machine.try_restart,
    "reload": Machine.reload,
    "reload-or-restart": Machine.reload_or_restart,
    "try-reload-or-restart": Machine.try_reload,
}


def main() -> None:
    """Serve until killed: the requests and the sockets in threads of their own, the ended processes here."""
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    machine = Machine()
    control = socket.socket(socket.AF_UNIX)
    control.bind(CONTROL)
    control.listen(64)
    for work in (lambda: _serve(machine, control), machine.watch_sockets, _keep_log):
        threading.Thread(target=work, daemon=True).start()
    while True:
        try:
            pid, status = os.waitpid(-1, 0)
        except ChildProcessError:
            time.sleep(POLL_SECONDS)
        else:
            machine.note_end(pid, os.waitstatus_to_exitcode(status))


def _serve(machine: Machine, control: socket.socket) -> None:
    while True:
        connection, _ = control.accept()
        with connection, connection.makefile("rwb") as stream:
            request = json.loads(stream.readline())
            try:
                code, text = machine.ask(request["verb"], request["units"], request["properties"])
            except Exception as error:  # whatever it is, who asked waits for an answer
                code, text = 1, f"{error!r}\n"
            with contextlib.suppress(OSError):
                stream.write(json.dumps({"code": code, "text": text}).encode())


def _keep_log() -> None:
    """Write what comes to /dev/log into the mail log. Never returns."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    Path("/dev/log").unlink(missing_ok=True)
    listening.bind("/dev/log")
    os.chmod("/dev/log", 0o666)
    with MAIL_LOG.open("ab") as log:
        while True:
            line = listening.recv(65536).partition(b">")[2].rstrip(b"\0\n")
            log.write(line + b"\n")
            log.flush()


def _unit(name: str) -> Unit:
    unit = find_unit(name)
    if unit is None:
        raise Failure(f"Unit {name} not found.")
    return unit


def _log(name: str, text: str) -> None:
    LOGS.mkdir(exist_ok=True)
    with (LOGS / f"{name}.log").open("a") as log:
        log.write(text)


def _log_end(name: str) -> str:
    path = LOGS / f"{name}.log"
    return path.read_text(errors="replace")[-3000:] if path.exists() else ""


if __name__ == "__main__":
    main()
