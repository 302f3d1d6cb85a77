"""Private keys on disk: read once, only where nobody else may read them, kept in a bounded cache."""

from __future__ import annotations

import contextlib
import functools
import grp
import os
import pwd
import stat
import threading
from pathlib import Path

from mailward.auth.keys import InvalidKey, PrivateKey, load_private_key

SIGNER = "mailward-sign"  # the packages' account and group that alone read keys
MAX_KEY_FILE = 32 * 1024  # an 8192-bit RSA key in PEM has 6.5 kB


class KeyFileError(Exception):
    """The key file cannot be used; the message says why, without the file's name."""


def check_access(path: Path) -> None:
    """Raise KeyFileError unless `path` is a readable file that only its owner and the signer's group can read."""
    try:
        os.close(_open(path))
    except OSError as error:
        raise KeyFileError(f"cannot be read: {error.strerror}") from None


def _open(path: Path) -> int:
    """Open a key file; what is judged is what was opened, not what stands at the path a moment later."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # non-blocking: it may be a pipe
    except ValueError:
        raise KeyFileError("is no path") from None
    try:
        _judge(os.fstat(descriptor))
    except KeyFileError:
        os.close(descriptor)
        raise
    return descriptor


def _judge(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise KeyFileError("is no regular file")
    if status.st_mode & 0o007:
        raise KeyFileError(f"everyone can open it (mode {status.st_mode & 0o777:04o}); expected at most 0640")
    if status.st_mode & 0o070 and status.st_gid not in _trusted_groups():
        raise KeyFileError(
            f"group {status.st_gid} can open it, of which this process is no member; expected its own group"
        )
    if status.st_mode & 0o020:
        raise KeyFileError("its group can write it; expected at most 0640")
    if status.st_uid not in _trusted_accounts():
        raise KeyFileError(f"it belongs to account {status.st_uid}; expected root, {SIGNER} or this process's account")


@functools.cache
def _trusted_accounts() -> frozenset[int]:
    """Return the accounts a key may belong to: root, the process's own, the signer's."""
    accounts = {0, os.geteuid()}
    with contextlib.suppress(KeyError):  # not installed from the packages
        accounts.add(pwd.getpwnam(SIGNER).pw_uid)
    return frozenset(accounts)


@functools.cache
def _trusted_groups() -> frozenset[int]:
    """Return the groups that may read a key: root's, the process's own, the signer's."""
    groups = {0, os.getegid(), *os.getgroups()}
    with contextlib.suppress(KeyError):  # not installed from the packages
        groups.add(grp.getgrnam(SIGNER).gr_gid)
    return frozenset(groups)


def read_key(path: Path) -> PrivateKey:
    """Read and check one key. Raises KeyFileError."""
    try:
        with os.fdopen(_open(path), "rb") as file:
            return load_private_key(file.read(MAX_KEY_FILE))
    except OSError as error:
        raise KeyFileError(f"cannot be read: {error.strerror}") from None
    except InvalidKey as error:
        raise KeyFileError(str(error)) from None


class KeyCache:
    """The keys in use, at most `size`; the one that was loaded first leaves first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._keys: dict[str, PrivateKey] = {}
        self._lock = threading.Lock()

    def get(self, path: str) -> PrivateKey:
        """Return the key in `path`, from memory if it was read before. Raises KeyFileError."""
        key = self._keys.get(path)
        if key is None:
            key = read_key(Path(path))
            with self._lock:
                while len(self._keys) >= self._size and path not in self._keys:
                    self._keys.pop(next(iter(self._keys)))
                self._keys[path] = key
        return key
