"""Postfix's configuration in a folder of its own, where postconf edits it: the real files are replaced once, and whole."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from postmaster.setup.change import MainSetting, ServiceSetting
from postmaster.setup.files import settle
from postmaster.setup.postfix_facts import PostfixFacts, read_postfix
from postmaster.setup.programs import ProgramFailed, find_program, output_of, word_of

FILES = ("main.cf", "master.cf")

Setting = MainSetting | ServiceSetting


class Staged:
    """A copy of main.cf and master.cf."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, settings: Iterable[Setting]) -> None:
        """Make every setting what is new of it. Raises ProgramFailed."""
        settings = list(settings)
        main = [each for each in settings if isinstance(each, MainSetting)]
        master = [each for each in settings if isinstance(each, ServiceSetting)]
        self._edit("-e", [f"{each.name}={each.new}" for each in main if each.new is not None])
        self._edit("-X", [each.name for each in main if each.new is None])
        # An option is written anew where it stands, and a new one behind the others.
        self._edit("-P", [f"{each.service}/{each.name}={each.new}" for each in master if each.new is not None])
        self._edit("-PX", [f"{each.service}/{each.name}" for each in master if each.new is None])

    def facts(self) -> PostfixFacts:
        """Return what Postfix would read there."""
        facts = read_postfix(self.folder)
        if facts is None:
            raise ProgramFailed("postconf is not installed")
        return facts

    def octets(self, name: str) -> bytes:
        """Return a file as it is there."""
        return (self.folder / name).read_bytes()

    def replace(self, name: str, octets: bytes) -> None:
        """Make a file another one."""
        (self.folder / name).write_bytes(octets)
        settle(self.folder / name)

    def _edit(self, flag: str, arguments: list[str]) -> None:
        postconf = find_program("postconf")
        if postconf is None:
            raise ProgramFailed("postconf is not installed")
        if arguments:
            output_of([postconf, "-c", str(self.folder), flag, *map(word_of, arguments)])
            for name in FILES:
                settle(self.folder / name)


@contextmanager
def staged(folder: Path) -> Iterator[Staged]:
    """Yield a copy of the configuration in `folder`; it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="mailward-setup-") as name:
        for each in FILES:
            shutil.copyfile(folder / each, Path(name) / each)
            settle(Path(name) / each)
        yield Staged(Path(name))
