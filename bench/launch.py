"""Starting what is measured: a milter of ours or of a peer, in a folder of its own, its configuration from a template."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from tests.support.processes import Program, ProgramError, answers_on_socket

CHECKOUT = Path(__file__).resolve().parent.parent
PEERS = Path(__file__).with_name("peers")
START_SECONDS = 90.0  # rspamd compiles its expressions for ten seconds at its first start
FIRST_START_SECONDS = 3.0


def milter(
    name: str, command: Sequence[str], folder: Path, socket: Path, *, working_folder: Path | None = None
) -> Program:
    """Return a program that counts as started once its UNIX socket answers."""
    return Program(
        name,
        command,
        folder,
        is_ready=lambda: answers_on_socket(socket),
        working_folder=working_folder,
        start_seconds=START_SECONDS,
    )


@contextmanager
def started(program: Program) -> Iterator[None]:
    """Run a program for a while; an error within shows what it said."""
    program.start()
    try:
        yield
    except ProgramError as error:
        raise ProgramError(f"{program.name}: {error}\n{program.explain()}") from None
    finally:
        with suppress(ProgramError):  # it had to be killed, which takes nothing from what was measured before
            program.stop()


def start_once(folder: Path, start: Callable[[], AbstractContextManager[object]]) -> None:
    """Start what lives in `folder` and stop it again, if that never was done: rspamd compiles then."""
    mark = folder / "has-been-started"
    if not mark.exists():
        with start():
            time.sleep(FIRST_START_SECONDS)
        mark.touch()


def fill(template: str, folder: Path, values: Mapping[str, object]) -> Path:
    """Write a peer's configuration into `folder`, each `@name@` of its template replaced, and return its path."""
    known = {"folder": folder, "cores": os.cpu_count(), **values}
    path = folder / template
    path.write_text(re.sub(r"@([a-z]+)@", lambda name: str(known[name[1]]), (PEERS / template).read_text()))
    return path
