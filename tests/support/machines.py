"""Machines of their own on this one: network namespaces, each with a loopback of its own and a wire to the others.

Nothing of this machine's network is touched, and nothing stays: a namespace ends with the process that holds it. Whatever is
started or opened in `with machine.inside():` is in there.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.processes import Program, require_binary, require_root, run

CLONE_NEWNET = 0x40000000  # linux/sched.h
WIRE = "wire0"
OWN_NAMESPACE = "/proc/thread-self/ns/net"


class Machine:
    """One machine with an address on the wire; made by `Wired`."""

    def __init__(self, name: str, folder: Path, address: str) -> None:
        self.name = name
        self.address = address
        command = [require_binary("unshare", "util-linux"), "--net", require_binary("sleep", "coreutils"), "infinity"]
        self._holder = Program(f"namespace-{name}", command, folder, is_ready=self._has_namespace)

    def start(self) -> None:
        """Make the namespace."""
        self._holder.start()

    def stop(self) -> None:
        """End it, once nothing runs in it any more."""
        self._holder.stop()

    @property
    def pid(self) -> int:
        """Return the pid that stands for its namespace."""
        return self._holder.pid

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Move the calling thread, and what it starts, into it for a while."""
        outside = os.open(OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(f"/proc/{self.pid}/ns/net")
            try:
                yield
            finally:
                _enter(f"/proc/self/fd/{outside}")
        finally:
            os.close(outside)

    def set_wire(self, state: str) -> None:
        """Pull its plug ("down") or put it back ("up")."""
        self.ip("link", "set", WIRE, state)

    def ip(self, *words: str) -> None:
        """Run ip(8) in it."""
        with self.inside():
            run([require_binary("ip", "iproute2"), *words])

    def _has_namespace(self) -> bool:
        return os.readlink(f"/proc/{self.pid}/ns/net") != os.readlink(OWN_NAMESPACE)


class Wired:
    """Two machines on one wire; a context manager. 192.0.2.0/24 is TEST-NET-1 (RFC 5737)."""

    def __init__(self, folder: Path) -> None:
        require_root()
        self.machines = (Machine("one", folder, "192.0.2.1"), Machine("two", folder, "192.0.2.2"))
        self._running = ExitStack()

    def __enter__(self) -> tuple[Machine, Machine]:
        one, two = self.machines
        with ExitStack() as started:
            for machine in self.machines:
                started.callback(machine.stop)
                machine.start()
            one.ip("link", "add", WIRE, "type", "veth", "peer", "name", WIRE, "netns", str(two.pid))
            for machine in self.machines:
                machine.ip("link", "set", "lo", "up")
                machine.ip("address", "add", f"{machine.address}/24", "dev", WIRE)
                machine.set_wire("up")
            self._running = started.pop_all()
        return one, two

    def __exit__(self, *_: object) -> None:
        self._running.close()


def _enter(path: str) -> None:
    """Move the calling thread into a namespace; os.setns() is there from Python 3.12 on."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"setns: {os.strerror(number)}")
    finally:
        os.close(descriptor)
