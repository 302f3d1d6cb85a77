"""What happens to SQLite files: other processes that lock or damage them, full and read-only file systems.

Whatever opens such a file beside SQLite must be another process: closing it would drop the locks that this one's connections
hold.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mailward.model.errors import StoreError
from tests.support.processes import require_root, run

ROOT = Path(__file__).parent.parent.parent
NOBODY = 65534
LOCKING = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""
LOCKING_THE_PLACE = """
import fcntl, sys
file = open(sys.argv[1] + ".lock", "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""
OVERWRITING = """
import os, random, sys
path, offset, length = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with open(path, "r+b") as file:
    size = os.fstat(file.fileno()).st_size
    file.seek(offset)
    file.write(random.Random(7).randbytes(min(length, size - offset) if length else size - offset))
"""


@contextmanager
def locked_by_another_process(path: Path, script: str = LOCKING) -> Iterator[int]:
    """Hold the file's write lock (or the lock of its place) in another process; yield its pid."""
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        try:
            yield holder.pid
        finally:
            holder.send_signal(signal.SIGKILL)


def overwrite(path: Path, offset: int = 0, length: int = 0) -> None:
    """Write nonsense over a part of a file; length 0 is up to its end."""
    run([sys.executable, "-c", OVERWRITING, str(path), str(offset), str(length)])


@contextmanager
def small_file_system(folder: Path, octets: int) -> Iterator[Path]:
    """Mount a file system with little room on a new folder below `folder`."""
    require_root()
    mounted = folder / "small"
    mounted.mkdir()
    run(["mount", "-t", "tmpfs", "-o", f"size={octets},mode=755", "tmpfs", str(mounted)])
    try:
        yield mounted
    finally:
        run(["umount", "--lazy", str(mounted)])


@contextmanager
def read_only_mount(folder: Path) -> Iterator[Path]:
    """Show a folder a second time, where it cannot be written."""
    require_root()
    mounted = folder.with_name(folder.name + "-read-only")
    mounted.mkdir()
    run(["mount", "--bind", str(folder), str(mounted)])
    try:
        run(["mount", "-o", "remount,bind,ro", str(mounted)])
        yield mounted
    finally:
        run(["umount", "--lazy", str(mounted)])


def in_a_fork(act: Callable[[], str], *, account: int | None = None) -> str:
    """Return what `act` says in a child of this process, under another account if one is given."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if account is not None:
                os.setgroups([])
                os.setgid(account)
                os.setuid(account)
            said = act()
        except StoreError as error:
            said = error.failure.name
        except BaseException as error:
            said = f"raised {error!r}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        said = answers.read().decode()
    os.waitpid(child, 0)
    return said
