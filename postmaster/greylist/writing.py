"""`export`: a file that is whole, or is not there."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import click

from postmaster.explain.layout import printable
from postmaster.greylist.opening import Greylist
from postmaster.greylist.records_file import exported, footer, header
from postmaster.progress import counted, progress


def write_export(name: str, open_state: Callable[[], contextlib.AbstractContextManager[Greylist]]) -> None:
    """Write an export to a file, or to stdout (`-`). Raises OSError."""
    with _output(name) as output, open_state() as greylist:
        output.write(header(greylist.now))
        records = 0
        with progress(greylist.store.count_triplets(), "export") as advance:
            for line in counted(exported(greylist.store, greylist.now), advance):
                output.write(line)
                records += 1
        output.write(footer(records))
        output.flush()
    if output is not sys.stdout:
        click.echo(f"{records} records written to {printable(name)}", err=True)


@contextlib.contextmanager
def _output(name: str) -> Iterator[TextIO]:
    """Yield where to write: opened before the account is changed, renamed after it is changed back."""
    path = Path(name)
    if name == "-":
        yield sys.stdout
        return
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe or device is written as it is
            with path.open("w", encoding="ascii") as output:
                yield output
            return
    # Addresses of people are in it: mkstemp makes it 0600.
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as output:
            yield output
            output.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
