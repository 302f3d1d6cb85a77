"""What a unit's process is started with: its sockets, its folders, its descriptors.

Runs in a root, on its own Python, and so imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import pwd
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

from tests.packages.unit_file import Unit, find_unit, state_folders

FIRST_COPY = 64  # above the descriptors that a service is handed, so that none overwrites another


def fork(
    command: Sequence[str], environment: dict[str, str], handed: Sequence[socket.socket], log: int, unit: Unit | None
) -> int:
    """Start a command; descriptors 3 and up are the sockets, and LISTEN_PID its own pid, as sd_listen_fds(3) wants it."""
    umask = unit.one("Service.UMask", "0022") if unit else "0022"
    script = f'umask {umask}; [ -z "${{LISTEN_FDS-}}" ] || export LISTEN_PID=$$\n'
    script += '[ -z "${WATCHDOG_USEC-}" ] || export WATCHDOG_PID=$$\nexec "$@"'
    copies = [fcntl.fcntl(bound.fileno(), fcntl.F_DUPFD_CLOEXEC, FIRST_COPY) for bound in handed]
    actions = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]
    duplicates = [(log, 1), (log, 2), *((copy, 3 + index) for index, copy in enumerate(copies))]
    try:
        return os.posix_spawn(
            "/bin/sh",
            ["sh", "-euc", script, "sh", *command],
            environment,
            file_actions=[*actions, *((os.POSIX_SPAWN_DUP2, old, new) for old, new in duplicates)],
            setsid=True,
        )
    finally:
        for copy in copies:
            os.close(copy)


def listen(unit: Unit) -> list[socket.socket]:
    """Bind and listen where the socket unit says, with its owner and mode."""
    owner = unit.one("Socket.SocketUser", "root")
    group = unit.one("Socket.SocketGroup", owner)
    bound = []
    for where in unit.all("Socket.ListenStream"):
        if where.startswith("/"):
            path = Path(where)
            mode = int(unit.one("Socket.DirectoryMode", "0755"), 8)
            for folder in reversed(path.parents):
                if not folder.exists():
                    folder.mkdir()
                    folder.chmod(mode)
            path.unlink(missing_ok=True)
            one = socket.socket(socket.AF_UNIX)
            one.bind(where)
            path.chmod(int(unit.one("Socket.SocketMode", "0666"), 8))
            os.chown(path, pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid)
        else:
            host, _, port = where.rpartition(":")
            one = socket.socket(socket.AF_INET)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((host or "0.0.0.0", int(port)))
        one.listen(int(unit.one("Socket.Backlog", "4096")))
        bound.append(one)
    return bound


def close(bound: socket.socket, *, is_removed: bool) -> None:
    """Close a listening socket."""
    path = bound.getsockname()
    bound.close()
    if is_removed and isinstance(path, str):
        Path(path).unlink(missing_ok=True)


def service_of(socket_unit: str) -> str:
    """Return the service that a socket unit is for."""
    unit = find_unit(socket_unit)
    return (unit.one("Socket.Service") if unit else "") or socket_unit.replace(".socket", ".service")


def make_folders(unit: Unit) -> None:
    """Make the state and runtime folders of a service, as its account."""
    account = unit.one("Service.User", "root")
    group = unit.one("Service.Group") or account
    for path, mode in state_folders(unit):
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
        shutil.chown(path, account, group)


def notify_socket(name: str) -> socket.socket:
    """Bind the socket at which a service says that it is ready."""
    path = Path(f"/run/notify-{name}")
    path.unlink(missing_ok=True)
    notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notified.bind(str(path))
    path.chmod(0o666)
    return notified


def drain(notified: socket.socket) -> None:
    """Take a service's further words, so that its socket is never full."""
    notified.settimeout(None)
    with contextlib.suppress(OSError):
        while True:
            notified.recv(4096)
