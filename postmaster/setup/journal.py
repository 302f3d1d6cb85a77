"""What a run of `mailward setup` did, written before it does it: the files as they were, and each setting's old and new.

A run has a folder of its own, readable by root alone. Without a journal in it nothing was changed yet.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import enum
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mailward
from mailward.adapters.folders import sync_folder
from postmaster.setup.change import FileText, MainSetting, Plan, ServiceSetting
from postmaster.setup.files import Access, digest, read_access, read_file, write_file

BACKUPS = Path("/var/backups/mailward")
FORMAT = 1
_NAME = "journal.json"
_OURS = Access(0o600, 0, 0)  # only root sets up


class Busy(Exception):
    """Another run is at work."""


class State(enum.Enum):
    """How far a run has come. BEGUN stays where it was killed; DONE is what --undo gives back, and BEGUN, too."""

    BEGUN = "begun"
    DONE = "done"
    TAKEN_BACK = "taken back"
    UNDONE = "undone"


@dataclass(frozen=True, slots=True)
class Target:
    """A file and what becomes of it; None: it is not there, or goes away. `then` and `makes` are FileText's."""

    path: Path
    old: bytes | None
    new: bytes | None
    access: Access
    then: tuple[str, ...] = ()
    makes: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file as it was, and as the run left it, by digests. `backup` is its name beside the journal."""

    path: Path
    backup: str
    old: str | None
    new: str | None
    old_access: Access | None
    then: tuple[str, ...] = ()
    makes: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Journal:
    """One run. `complaints` are what the programs had to say before it: they may say it again once it is undone."""

    folder: Path
    postfix: Path | None
    state: State
    files: tuple[FileRecord, ...]
    settings: tuple[MainSetting | ServiceSetting, ...]
    reloads: tuple[str, ...]
    restarts: tuple[str, ...]
    made: tuple[Path, ...] = ()
    complaints: tuple[str, ...] = ()

    def marked(self, state: State, made: Iterable[Path] | None = None) -> Journal:
        """Write down how far it has come; return it as it is then."""
        journal = dataclasses.replace(self, state=state, made=self.made if made is None else tuple(made))
        _write(journal)
        return journal

    def backup_of(self, record: FileRecord) -> bytes:
        """Return a file as it was."""
        return (self.folder / record.backup).read_bytes()


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep every other run out. Raises Busy."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy from None
        yield
    finally:
        os.close(descriptor)


def begin(
    folder: Path,
    plan: Plan,
    targets: Iterable[Target],
    postfix: Path | None,
    now: float,
    complaints: Iterable[str] = (),
) -> Journal:
    """Save every file that is going to be changed, then the journal; nothing is changed before this has returned."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    run = _new_folder(folder, now)
    records = []
    for number, target in enumerate(targets):
        backup = f"{number:02}-{target.path.name}"
        if target.old is not None:
            write_file(run / backup, target.old, _OURS)
        path = target.path.resolve()
        digests = digest(target.old), digest(target.new)
        records.append(FileRecord(path, backup, *digests, read_access(path), target.then, target.makes))
    settings = tuple(each for each in plan.changes if not isinstance(each, FileText))
    journal = Journal(
        run,
        postfix,
        State.BEGUN,
        tuple(records),
        settings,
        plan.reloads,
        plan.restarts,
        complaints=tuple(complaints),
    )
    _write(journal)
    return journal


def open_runs(folder: Path, postfix: Path | None) -> list[Journal]:
    """Return the runs on this Postfix that were not undone, the latest first."""
    runs = [_read(path) for path in sorted(folder.glob(f"setup-*/{_NAME}"), reverse=True)]
    return [run for run in runs if run.state in (State.BEGUN, State.DONE) and run.postfix in (postfix, None)]


def _new_folder(folder: Path, now: float) -> Path:
    """Make the folder of a run; those of one second are numbered, and sort in their order."""
    stamp = datetime.datetime.fromtimestamp(now, datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    for number in range(1000):
        run = folder / f"setup-{stamp}-{number:03}"
        with contextlib.suppress(FileExistsError):
            run.mkdir(mode=0o700)
            sync_folder(folder)
            return run
    raise FileExistsError(0, "a thousand runs in one second", str(folder))


def _write(journal: Journal) -> None:
    tree = {
        "format": FORMAT,
        "version": mailward.__version__,
        "state": journal.state.value,
        "postfix": str(journal.postfix) if journal.postfix else None,
        "files": [_tree_of(each) for each in journal.files],
        "settings": [{"service": "", **dataclasses.asdict(each)} for each in journal.settings],
        "reloads": journal.reloads,
        "restarts": journal.restarts,
        "made": [str(each) for each in journal.made],
        "complaints": journal.complaints,
    }
    write_file(journal.folder / _NAME, json.dumps(tree, indent=1).encode() + b"\n", _OURS)


def _read(path: Path) -> Journal:
    tree = json.loads(read_file(path) or b"{}")
    if tree.get("format") != FORMAT:
        raise OSError(0, "was written by another version of Mailward: undo with that one", str(path))
    return Journal(
        folder=path.parent,
        postfix=Path(tree["postfix"]) if tree["postfix"] else None,
        state=State(tree["state"]),
        files=tuple(_record(each) for each in tree["files"]),
        settings=tuple(_setting(each) for each in tree["settings"]),
        reloads=tuple(tree["reloads"]),
        restarts=tuple(tree["restarts"]),
        made=tuple(Path(each) for each in tree["made"]),
        complaints=tuple(tree.get("complaints", ())),
    )


def _tree_of(record: FileRecord) -> dict[str, Any]:
    return {**dataclasses.asdict(record), "path": str(record.path), "makes": [str(each) for each in record.makes]}


def _record(tree: dict[str, Any]) -> FileRecord:
    access = Access(**tree["old_access"]) if tree["old_access"] else None
    then, makes = tuple(tree["then"]), tuple(Path(each) for each in tree["makes"])
    return FileRecord(**{**tree, "path": Path(tree["path"]), "old_access": access, "then": then, "makes": makes})


def _setting(tree: dict[str, Any]) -> MainSetting | ServiceSetting:
    own = {name: tree[name] for name in ("name", "old", "new", "why")}
    return ServiceSetting(service=tree["service"], **own) if tree["service"] else MainSetting(**own)
