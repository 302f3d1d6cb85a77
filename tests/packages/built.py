"""The packages, built from this tree by a release's own tools, in its build root and without a network."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.packages.machine import open_machine
from tests.packages.roots import CHECKOUT

NOT_SOURCE = (".git", ".venv", "build", ".hypothesis", ".*_cache", "*.egg-info", "__pycache__")


@dataclass(frozen=True, slots=True)
class Built:
    """A folder with the packages, and what lintian says of source and binaries, a line a tag."""

    folder: Path
    tags: tuple[str, ...]

    @property
    def debs(self) -> list[Path]:
        """Return the binary packages."""
        return sorted(self.folder.glob("*.deb"))


def build(root: Path, folder: Path, *, checkout: Path = CHECKOUT) -> Built:
    """Build in a build root and put what comes of it into `folder`, which is made."""
    with open_machine(root) as machine:
        source = machine.root / "root" / "mailward"
        shutil.copytree(checkout, source, symlinks=True, ignore=shutil.ignore_patterns(*NOT_SOURCE))
        machine.run(["tools/deb"], folder="/root/mailward")
        changes = next((source / "build" / "deb").glob("*.changes")).name
        # Informational tags are opinions; experimental ones are lintian's own tests.
        words = ["lintian", "--fail-on=none", "--allow-root", "--no-cfg", f"build/deb/{changes}"]
        said = machine.run(words, folder="/root/mailward")
        folder.mkdir()
        for path in (source / "build" / "deb").iterdir():
            if path.is_file():
                shutil.copy(path, folder)
    return Built(folder, tuple(line for line in said.splitlines() if line.startswith(("E:", "W:"))))
