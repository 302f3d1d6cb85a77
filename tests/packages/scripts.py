"""The scripts of debian/tests/, each run as autopkgtest runs it, but in a machine of ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.packages.machine import open_machine
from tests.packages.roots import CHECKOUT, mail_root, ready_root

FOLDER = CHECKOUT / "debian" / "tests"
# Each daemon alone is a run of its own here: in one machine the second would find the first one's dependencies.
SCRIPTS = (
    "upgrade",
    "leave",
    "all-four",
    "five-commands",
    "postfix-later",
    "alone dkim-sign",
    "alone auth-verify",
    "alone greylist",
    "alone policyd",
    "units",
)
# Those that are about what is installed: elsewhere Mailward's dependencies are there, as installing them takes longest.
FROM_NOTHING = ("five-commands", "alone")
ADDRESSES = ("192.0.2.1", "192.0.2.25", "192.0.2.77")


def run_script(release: str, script: str, debs: Sequence[Path]) -> str:
    """Run a script with the packages under test and return its output; ProgramError with all of it if it fails."""
    name, *arguments = script.split()
    root = mail_root(release) if name in FROM_NOTHING else ready_root(release)
    with open_machine(root, ADDRESSES) as machine:
        machine.copy_in(debs, "/debs")
        machine.copy_in([FOLDER], "/")
        return machine.run([f"/tests/{name}", *arguments], environment={"MAILWARD_DEBS": "/debs"})
