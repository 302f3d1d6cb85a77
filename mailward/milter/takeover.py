"""How a worker takes an inherited listening socket over from under libmilter, and lets it go again.

libmilter knows no way to be given a socket, and removes the path of its own one when it ends. So it opens a socket nobody
will ever connect to, under a private name, and that descriptor is redirected (dup2) to the real listener; to drain, it is
redirected to a socket nobody connects to, and the sessions there are go on. Nothing here knows the milter protocol.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Callable


class Takeover:
    """A listener in libmilter's hands."""

    def __init__(self, listener: socket.socket, open_at: Callable[[str], None]) -> None:
        """Have libmilter open a socket of the listener's family with `open_at`, and put `listener` in its place."""
        self._address = _local_end(listener)
        # Only listeners are compared: a program's own threads may open and close other sockets meanwhile (its DNS look-ups).
        before = _listeners()
        folder = _private_folder()
        path = os.path.join(folder, "unused.sock")
        open_at(_UNUSED_ADDRESS.get(listener.family, f"unix:{path}"))
        (self._descriptor,) = _listeners() - before
        if os.path.exists(path):
            os.unlink(path)
        os.rmdir(folder)
        os.dup2(listener.fileno(), self._descriptor)
        self._dummy = _dummy_listener(listener.family)
        listener.close()

    def stop_accepting(self) -> None:
        """Redirect libmilter's descriptor to a socket nobody connects to."""
        os.dup2(self._dummy.fileno(), self._descriptor)

    def has_connections(self) -> bool:
        """Say whether a connection that was accepted here is open; yes where no descriptor is left to look with."""
        try:
            return any(_is_connection(descriptor, self._address) for descriptor in _open_sockets())
        except OSError:
            return True


def _private_folder() -> str:
    """Return a new folder for a socket: in the usual place, or where there is room and the path is short enough."""
    for place in (tempfile.gettempdir(), "/run", "/dev/shm", "/tmp"):  # noqa: S108 - mkdtemp makes it private
        if len(place) < 60:
            with contextlib.suppress(OSError):
                return tempfile.mkdtemp(prefix="mailward-", dir=place)
    raise OSError(0, "no folder for temporary files can be written")


_UNUSED_ADDRESS = {socket.AF_INET: "inet:0@127.0.0.1", socket.AF_INET6: "inet6:0@::1"}
_DUMMY_ADDRESS = {socket.AF_INET: ("127.0.0.1", 0), socket.AF_INET6: ("::1", 0)}


def _dummy_listener(family: int) -> socket.socket:
    """Return a listening socket with a name the kernel chose: nobody knows it."""
    dummy = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    dummy.bind(_DUMMY_ADDRESS.get(socket.AddressFamily(family), ""))
    dummy.listen(1)
    return dummy


def _listeners() -> set[int]:
    """Return this process's descriptors of listening sockets."""
    return {descriptor for descriptor in _open_sockets() if _is_listener(descriptor)}


def _is_listener(descriptor: int) -> bool:
    return _asked(descriptor, _accepts)


def _asked(descriptor: int, question: Callable[[socket.socket], bool]) -> bool:
    """Ask a socket; no where it was closed meanwhile. Takes no descriptor of its own: there may be none left."""
    try:
        found = socket.socket(fileno=descriptor)
    except OSError:
        return False
    try:
        return question(found)
    except OSError:
        return False
    finally:
        found.detach()


def _accepts(found: socket.socket) -> bool:
    return bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _open_sockets() -> set[int]:
    """Return this process's socket descriptors."""
    found = set()
    for entry in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{entry}").startswith("socket:"):
                found.add(int(entry))
        except OSError:
            continue  # the descriptor the listing itself used
    return found


def _local_end(bound: socket.socket) -> object:
    """Return what tells a connection accepted from `bound` from every other socket: path or port."""
    name = bound.getsockname()
    return name[1] if isinstance(name, tuple) else name


def _is_connection(descriptor: int, address: object) -> bool:
    """Say whether the descriptor is a connection accepted at `address`, and no listener."""
    return _asked(descriptor, lambda found: _local_end(found) == address and not _accepts(found))
