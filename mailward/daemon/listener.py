"""The listening socket: systemd's, or bound here. The supervisor owns it; workers only borrow it.

The socket is non-blocking from the start: several workers wake for one connection, and those that lose the race must not
block in accept(). A UNIX socket is bound under a temporary name and renamed into place, so that the path never leads
nowhere while an old socket makes room for a new one.
"""

from __future__ import annotations

import contextlib
import grp
import os
import re
import socket
import stat
from collections.abc import Mapping, Sequence

from mailward.model.errors import ConfigError, Mistake
from mailward.settings.values import SocketAddress

BACKLOG = 1024  # connections that wait while all workers are busy or are being replaced
_FIRST_SYSTEMD_DESCRIPTOR = 3  # sd_listen_fds(3)


class Listener:
    """A listening socket, and whether its path is ours to remove."""

    def __init__(self, bound: socket.socket, path: str = "") -> None:
        bound.setblocking(False)
        self.socket = bound
        self._path = path
        self._inode = os.stat(path).st_ino if path else 0

    def remove(self) -> None:
        """Remove the socket's path, unless another process has put its own there meanwhile."""
        if self._path:
            with contextlib.suppress(OSError):
                if os.stat(self._path).st_ino == self._inode:
                    os.unlink(self._path)
            self._path = ""


def take_inherited() -> list[tuple[str, socket.socket]]:
    """Return the sockets systemd handed over, each with its FileDescriptorName=, and hide them from what we may start.

    sd_listen_fds_with_names(3). A unit that gives no name names a socket after itself. Raises ConfigError.
    """
    environment = os.environ
    said = environment.get("LISTEN_FDS", "")
    is_for_us = re.fullmatch("[0-9]{1,9}", said) and environment.get("LISTEN_PID") == str(os.getpid())
    count = int(said) if is_for_us else 0
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):
        environment.pop(name, None)
    inherited = []
    for number in range(count):
        handed = _inherited(_FIRST_SYSTEMD_DESCRIPTOR + number)
        inherited.append((names[number] if number < len(names) else "", handed))
    return inherited


def _inherited(descriptor: int) -> socket.socket:
    """Return the listener that has this descriptor. Raises ConfigError where it is anything else: nobody would ever be served."""
    try:
        os.set_inheritable(descriptor, False)
        handed = socket.socket(fileno=descriptor)
        is_listener = handed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and handed.type is socket.SOCK_STREAM
    except OSError:
        is_listener = False
    if not is_listener or handed.family not in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6):
        expected = f"expected listening stream sockets (ListenStream=, Accept=no); descriptor {descriptor} is none"
        raise ConfigError([Mistake("", "LISTEN_FDS", expected)])
    return handed


def listen(
    wanted: Mapping[str, SocketAddress],
    inherited: Sequence[tuple[str, socket.socket]],
    mode: int,
    group: str,
    table: str,
) -> dict[str, Listener]:
    """Return a listener for each setting in `wanted`: systemd's where it hands over one of that name, else bound here.

    What has no such name is for the first setting. Raises ConfigError where something is left over, or cannot be bound.
    """
    first = next(iter(wanted))
    found: dict[str, Listener] = {}
    for name, handed in inherited:
        setting = name if name in wanted else first
        if setting in found:
            expected = f"expected one socket for {setting}; others with FileDescriptorName= one of {', '.join(wanted)}"
            raise ConfigError([Mistake("", "LISTEN_FDS", expected)])
        found[setting] = Listener(handed)
    for setting, address in wanted.items():
        if setting not in found:
            try:
                found[setting] = bind(address, mode, group, f"{table}.{setting}")
            except ConfigError:
                for bound in found.values():
                    bound.remove()
                raise
    return found


def group_warnings(group: str) -> Sequence[str]:
    """Return a warning where there is no such group: an error only where we bind a socket, which systemd may do for us."""
    try:
        if group:
            grp.getgrnam(group)
    except KeyError:
        return (f'socket_group: there is no group "{group}" on this machine',)
    return ()


def bind(address: SocketAddress, mode: int, group: str, where: str) -> Listener:
    """Bind and listen at `address`; a UNIX socket gets these permissions and this group (empty: the process's own).

    Raises ConfigError, which names `where` (the configuration's key), when that is impossible.
    """
    try:
        if address.path:
            return Listener(_bind_unix(address.path, mode, group), address.path)
        return Listener(_bind_inet(address.host, address.port))
    except (OSError, KeyError) as error:
        reason = f'there is no group "{group}"' if isinstance(error, KeyError) else error.strerror or str(error)
        shown = address.path or f"{address.host}:{address.port}"
        raise ConfigError([Mistake("", where, f"cannot listen at {shown}: {reason}")]) from None


def _bind_unix(path: str, mode: int, group: str) -> socket.socket:
    if _answers(path):
        raise OSError(0, "another process is listening there")
    if os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise OSError(0, "there is something that is no socket")
    new_path = f"{path}.{os.getpid() % 100_000}"
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new_path)
    try:
        bound.bind(new_path)
        os.chmod(new_path, mode)
        if group:
            os.chown(new_path, -1, grp.getgrnam(group).gr_gid)
        bound.listen(BACKLOG)
        os.rename(new_path, path)
    except (OSError, KeyError):
        bound.close()
        with contextlib.suppress(OSError):
            os.unlink(new_path)
        raise
    return bound


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:  # its queue is full: it is there
            return True
        except OSError:
            return False
        return True


def _bind_inet(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound
