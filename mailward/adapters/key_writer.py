"""Putting a new private key on disk: all of it or nothing, never over an old one, readable by the signer alone."""

from __future__ import annotations

import contextlib
import grp
import os
from pathlib import Path

from mailward.adapters.folders import sync_folder
from mailward.adapters.key_files import SIGNER


class KeyExists(Exception):
    """There is a key of that name; it stays as it is."""


def write_key(path: Path, pem: bytes) -> str:
    """Write `pem` to `path`, making its folders; return who can read it, in words.

    Run by root on a machine with the signer's group: `0640 root:mailward-sign`. Else `0600` and the caller's own. Raises
    KeyExists, or OSError.
    """
    group = _signer_group() if os.geteuid() == 0 else None
    for folder in reversed([path.parent, *path.parent.parents]):
        if not folder.exists():
            folder.mkdir(mode=0o750, exist_ok=True)
            if group is not None:
                os.chown(folder, 0, group)
                folder.chmod(0o750)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            if group is not None:
                os.fchown(file.fileno(), 0, group)
                os.fchmod(file.fileno(), 0o640)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # unlike rename(), this fails where the name is taken
    except FileExistsError:
        raise KeyExists(str(path)) from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    sync_folder(path.parent)
    return f"0640 root:{SIGNER}" if group is not None else "0600, its owner alone"


def _signer_group() -> int | None:
    try:
        return grp.getgrnam(SIGNER).gr_gid
    except KeyError:
        return None
