"""Where a SQLite file lies: its lock, its making, and putting it aside where it is damaged. Nothing here opens the file.

Opening and closing it beside SQLite would drop the locks that SQLite's own connections in this process hold on it (POSIX
locks belong to a process, not to a descriptor); so what is known of it here comes from stat() and rename().

Whoever opens, makes or renames the file holds `<file>.lock` meanwhile. Else a connection could be half made while the
file is renamed, and put the new file's log beside the old file's pages.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from mailward.model.errors import StoreError, StoreFailure

Identity = tuple[int, int]  # device and inode; not used again for another file while somebody has it open

COMPANIONS = ("-wal", "-shm")  # what SQLite keeps beside a file; they go where it goes
# How late it may be noticed that another process has set the file aside, or that somebody has removed it; what was written
# until then is lost. A stat() for each statement was a fifth of a decision.
SEEN_SECONDS = 0.1
# What is left of the disk for others, though not more than a part of it. Postfix takes no mail where it finds less than one and
# a half of its largest message: 15 MB as it comes.
RESERVED_OCTETS = 64 * 1024 * 1024
RESERVED_PART = 20
KEPT_ASIDE = 3  # damaged files: enough to see what happened, and a dying disk does not fill up with them
LITTLE_ROOM = 256 * 1024  # octets; a write that failed with less than this left has failed for that
LOCK_POLL_SECONDS = 0.002


class FilePlace:
    """The path of one SQLite file, and what is beside it."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.folder = str(path.parent)
        self.name = path.name
        self._seen: Identity | None = None
        self._seen_until = 0.0  # monotonic seconds

    def lately(self) -> Identity | None:
        """Say which file was there a moment ago; None if none was."""
        return self._seen if time.monotonic() < self._seen_until else self.identity()

    def identity(self) -> Identity | None:
        """Say which file is there now; None if none is."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            seen = None
        except OSError as error:
            raise self.failed(error) from None
        else:
            seen = found.st_dev, found.st_ino
        self._seen, self._seen_until = seen, time.monotonic() + SEEN_SECONDS
        return seen

    def octets(self) -> int:
        """Return how much room the file takes with its log; none where there is no file."""
        return _octets_of(self.path) + self.octets_of_log()

    def octets_of_log(self) -> int:
        """Return how much room the log takes; none where there is no log."""
        return _octets_of(f"{self.path}-wal")

    def free_octets(self) -> int:
        """Return how much room there is on the file's disk for who is not root."""
        return self._room()[0]

    def is_short_of_room(self) -> bool:
        """Say whether what is left should be left: to others, and to the log, which takes as much again to be emptied."""
        free, whole = self._room()
        return free < self.octets_of_log() + min(RESERVED_OCTETS, whole // RESERVED_PART)

    def _room(self) -> tuple[int, int]:
        try:
            room = os.statvfs(self.folder)
        except OSError as error:
            raise self.failed(error) from None
        if not room.f_blocks:  # a file system that does not say
            return sys.maxsize, 0
        return room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize

    @contextlib.contextmanager
    def locked(self, deadline: float) -> Iterator[None]:
        """Keep every other program from opening, making or renaming the file; StoreError at the (monotonic) deadline.

        Nothing is locked where the folder has no such file and will not take one: nobody can rename there either.
        """
        descriptor = self._open_lock()
        if descriptor is None:
            yield
            return
        try:
            while not try_lock(descriptor):
                if time.monotonic() >= deadline:
                    raise StoreError(StoreFailure.TIMEOUT, f"{self.name}.lock is held by another process")
                time.sleep(LOCK_POLL_SECONDS * (0.5 + random.random()))
            yield
        finally:
            os.close(descriptor)

    def _open_lock(self) -> int | None:
        try:
            return open_owned(f"{self.path}.lock", self.folder)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise self.failed(error) from None
        try:
            return os.open(f"{self.path}.lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None

    def make(self) -> None:
        """Make an empty file if there is none; the caller holds the lock."""
        if self.identity() is not None:
            return
        try:
            for companion in COMPANIONS:  # of a file that somebody has removed: not this one's
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.path + companion)
            os.close(open_owned(self.path, self.folder))  # nobody has it open yet: see above
            _sync(self.folder)
        except OSError as error:
            if error.errno == errno.EACCES and os.access(self.folder, os.X_OK):
                raise StoreError(StoreFailure.READ_ONLY, f"{self.path}: {error.strerror}") from None
            raise self.failed(error) from None

    def set_aside(self, damaged: Identity, deadline: float) -> str | None:
        """Rename the damaged file, and say to what; None if somebody else has done so already."""
        with self.locked(deadline):
            if self.identity() != damaged:
                return None
            moment = datetime.now(UTC).strftime("%Y-%m-%dT%H%M%S.%fZ")
            aside = f"{self.path}.damaged-{moment}"
            try:
                os.rename(self.path, aside)
                for companion in COMPANIONS:
                    with contextlib.suppress(FileNotFoundError):
                        os.rename(self.path + companion, aside + companion)
            except OSError as error:
                reason = f"{self.name} is damaged, and cannot be set aside: {error.strerror}"
                raise StoreError(StoreFailure.DAMAGED, reason) from None
            self._seen_until = 0.0
            self._forget_oldest_aside()
            return os.path.basename(aside)

    def _forget_oldest_aside(self) -> None:
        prefix = f"{self.name}.damaged-"
        aside = sorted(name for name in os.listdir(self.folder) if name.startswith(prefix))
        mains = [name for name in aside if not name.endswith(COMPANIONS)]
        for name in mains[:-KEPT_ASIDE]:
            for companion in ("", *COMPANIONS):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(self.folder, name + companion))

    @property
    def is_writable(self) -> bool:
        """Whether we may write the file, and beside it."""
        return os.access(self.folder, os.W_OK | os.X_OK) and os.access(self.path, os.W_OK)

    @property
    def is_at_rest(self) -> bool:
        """Whether nobody has the file open for writing, and nobody died while having it."""
        return not os.path.exists(self.path + "-wal")

    def failed(self, error: OSError) -> StoreError:
        """Return what an operating system's error means."""
        return StoreError(_FAILURES.get(error.errno or 0, StoreFailure.OTHER), f"{self.path}: {error.strerror}")

    def diagnosed(self, words: str) -> StoreError:
        """Return what is behind SQLite's "disk I/O error" or "unable to open", as far as the folder shows it."""
        try:
            room = self.free_octets()
        except StoreError as error:
            return error
        if not os.access(self.folder, os.X_OK) or (os.path.exists(self.path) and not os.access(self.path, os.R_OK)):
            failure = StoreFailure.REFUSED
        elif not self.is_writable:
            failure = StoreFailure.READ_ONLY
        elif room < LITTLE_ROOM:
            failure = StoreFailure.FULL
        else:
            failure = StoreFailure.OTHER
        return StoreError(failure, f"{self.path}: {words}")


_FAILURES = {
    errno.ENOENT: StoreFailure.AWAY,
    errno.ENOTDIR: StoreFailure.AWAY,
    errno.EACCES: StoreFailure.REFUSED,
    errno.EPERM: StoreFailure.REFUSED,
    errno.EROFS: StoreFailure.READ_ONLY,
    errno.ENOSPC: StoreFailure.FULL,
    errno.EDQUOT: StoreFailure.FULL,
    errno.EFBIG: StoreFailure.FULL,
}


def open_owned(path: str, folder: str) -> int:
    """Open a file, made if need be, for the folder's owner: root's command must not leave files no daemon may write.

    What is there already keeps its owner: it may be a link to anything.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o640)
    except FileExistsError:
        return os.open(path, flags)
    if os.geteuid() == 0:
        owner = os.stat(folder)
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    return descriptor


def try_lock(descriptor: int) -> bool:
    """Lock an open file for as long as it is open, if nobody else has; the death of a process opens its locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _octets_of(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _sync(folder: str) -> None:
    """Make the new name survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
