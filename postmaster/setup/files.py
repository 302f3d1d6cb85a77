"""Files that are replaced whole: by a name of their own beside them, so that nobody ever reads half of one."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from mailward.adapters.folders import sync_folder

MAX_FILE = 16 * 1024 * 1024  # a configuration file that is larger is some other file

SETTLED_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Access:
    """Whose a file is, and who may read it."""

    mode: int
    owner: int
    group: int


def access_of(mode: int, owner: str, group: str) -> Access:
    """Return an access by names. Raises KeyError where there is no such account or group."""
    return Access(mode, pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid)


def read_file(path: Path) -> bytes | None:
    """Return a file's octets; None: it is not there."""
    try:
        with path.open("rb") as opened:
            octets = opened.read(MAX_FILE + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if len(octets) > MAX_FILE:
        raise OSError(0, "is larger than 16 MiB: this is no configuration", str(path))
    return octets


def read_access(path: Path) -> Access | None:
    """Return whose a file is; None: it is not there."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Access(found.st_mode & 0o7777, found.st_uid, found.st_gid)


def digest(octets: bytes | None) -> str | None:
    """Return what a file is recognised by."""
    return None if octets is None else hashlib.sha256(octets).hexdigest()


def write_file(path: Path, octets: bytes, access: Access) -> None:
    """Put a file there, durably. A symbolic link stays one: what it leads to is replaced."""
    path = path.resolve()
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(octets)
            os.fchown(opened.fileno(), access.owner, access.group)
            os.fchmod(opened.fileno(), access.mode)
            opened.flush()
            os.fsync(opened.fileno())
        settle(Path(name))
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):  # a disk that is full has no name
            error.filename = str(path)
        raise
    sync_folder(path.parent)


def settle(path: Path) -> None:
    """Give a file that is whole an earlier time.

    Each program of Postfix's waits for two seconds before it reads a fresh file, lest somebody is still writing it, and
    `postfix check` runs dozens of them.
    """
    stamp = time.time() - SETTLED_SECONDS
    os.utime(path, (stamp, stamp))


def remove_file(path: Path) -> None:
    """Take a file away, durably; harmless where it is not there."""
    path.unlink(missing_ok=True)
    if path.parent.is_dir():
        sync_folder(path.parent)


def missing_folders(folder: Path) -> list[Path]:
    """Return a folder and those above it that are not there, the uppermost first."""
    return [each for each in (folder, *folder.parents) if not each.exists()][::-1]
