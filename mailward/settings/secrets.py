"""Reading files that hold one key: what a program has to show, or to be shown."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mailward.model.errors import ConfigError, Mistake

MAX_KEY = 1024  # characters
MIN_KEY = 8  # so few can be guessed over a network


def read_key_file(path: Path, where: str = "") -> str:
    """Return the key in the file that the setting `where` names: its only line. Raises ConfigError, which shows nothing of it."""
    try:
        with path.open("rb") as file:
            is_everybodys = bool(os.fstat(file.fileno()).st_mode & stat.S_IROTH)
            octets = file.read(4 * MAX_KEY + 1)
    except OSError as error:
        raise _mistake(path, where, f"cannot be read: {error.strerror}") from None
    if is_everybodys:
        raise _mistake(path, where, "everybody can read it; expected a mode such as 0640")
    key = octets.decode("utf-8", "replace").strip()
    if not MIN_KEY <= len(key) <= MAX_KEY or not key.isprintable() or "\ufffd" in key:
        raise _mistake(path, where, f"expected one line with a key of {MIN_KEY} to {MAX_KEY} characters")
    return key


def _mistake(path: Path, where: str, expected: str) -> ConfigError:
    return ConfigError([Mistake(str(path), where, expected)])
