"""Files beside the configuration that a daemon has read: where one has changed, what was read of it is out of date.

/etc/resolv.conf above all: a DHCP client or an operator writes other nameservers into it, and nobody thinks of the daemons.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

LOOK_SECONDS = 5.0  # how often is looked; what changes again meanwhile is waited for
MAX_FILE = 64 * 1024  # octets that are compared


class WatchedFiles:
    """Says once of each change which file it was, after the file has stayed as it is for one more look."""

    def __init__(self) -> None:
        self._known: dict[Path, bytes | None] = {}
        self._latest: dict[Path, bytes | None] = {}
        self._next_look = 0.0

    def changed(self, paths: Sequence[Path], now: float) -> Sequence[Path]:
        """Return which of `paths` have changed since they were first given here, or since this was last said. `now` is monotonic.

        A file that is gone has not changed: what was read of it is the best there is.
        """
        if not paths or now < self._next_look:
            return ()
        self._next_look = now + LOOK_SECONDS
        return [path for path in paths if self._has_settled(path, _content(path))]

    def _has_settled(self, path: Path, content: bytes | None) -> bool:
        known = self._known.setdefault(path, content)
        is_settled = content == self._latest.get(path, content)
        self._latest[path] = content
        if content is None or content == known or not is_settled:
            return False
        self._known[path] = content
        return True


def _content(path: Path) -> bytes | None:
    """Return what is in a file; None where it cannot be read. Not its times: DHCP clients write the same again and again."""
    try:
        with path.open("rb") as opened:
            return opened.read(MAX_FILE)
    except OSError:
        return None
