"""Applying a plan: everything is saved first, each file is replaced whole; where a program complains, all is taken back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from postmaster.setup import journal
from postmaster.setup.change import FileText, Plan
from postmaster.setup.files import (
    Access,
    access_of,
    digest,
    missing_folders,
    read_access,
    read_file,
    remove_file,
    write_file,
)
from postmaster.setup.journal import FileRecord, Journal, State, Target
from postmaster.setup.programs import ProgramFailed, output_of
from postmaster.setup.running import Programs
from postmaster.setup.staging import FILES, staged


class NotApplied(Exception):
    """Nothing was changed, or all of it was taken back; the text says why."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What was done: where the files are as they were, and who did not take notice."""

    backup: Path
    not_told: tuple[str, ...]


def apply_plan(plan: Plan, programs: Programs, backups: Path, now: float) -> Applied:
    """Do what the plan says. Raises NotApplied; killed anywhere in here, --undo gives back what was."""
    before = programs.complaints()
    if fatal := [line for line in before if "fatal" in line or "ends with status" in line]:
        raise NotApplied("it is not in order before anything is changed: " + "; ".join(fatal))
    targets = [*_texts(plan), *_postfix(plan, programs.postfix)]
    run = journal.begin(backups, plan, targets, programs.postfix, now, before)
    try:
        run = _make_folders(run, targets)
        for target in targets:
            put(target)
        if new := [line for line in programs.complaints() if line not in before]:
            raise ProgramFailed("; ".join(new))
        run.marked(State.DONE)
    except OSError as error:
        raise NotApplied(f"{error.filename}: {error.strerror}; {take_back(run)}") from None
    except ProgramFailed as error:
        raise NotApplied(f"{error}; {take_back(run)}") from None
    except KeyboardInterrupt:
        raise NotApplied(f"interrupted; {take_back(run)}") from None
    try:
        not_told = programs.reload(plan.reloads, plan.restarts)
    except KeyboardInterrupt:
        not_told = [f"interrupted when all was written: reload {', '.join((*plan.restarts, *plan.reloads))} yourself"]
    return Applied(run.folder, tuple(not_told))


def put(target: Target) -> None:
    """Make one file what it is to be, and what is made of it. Raises ProgramFailed where that fails."""
    if target.new is None:
        _remove_all((target.path, *target.makes))
        return
    write_file(target.path, target.new, target.access)
    if target.then:
        output_of(target.then)


def take_back(run: Journal) -> str:
    """Make every file what it was, the last one first, also where one of them cannot be; return what has been done."""
    left = []
    for record in reversed(run.files):
        try:
            if digest(read_file(record.path)) != record.old:
                restore(run, record)
        except OSError as error:
            left.append(f"{record.path}: {error.strerror}")
    remove_folders(run)
    if left:  # the journal still says that the run has begun
        return f"it could not be taken back ({'; '.join(left)}): mend that, then run `mailward setup --undo`"
    with contextlib.suppress(OSError):  # the disk is full, and an --undo will find nothing to give back
        run.marked(State.TAKEN_BACK)
    return "all of it was taken back"


def restore(run: Journal, record: FileRecord) -> None:
    """Make one file what it was."""
    if record.old is None or record.old_access is None:
        _remove_all((record.path, *record.makes))
        return
    write_file(record.path, run.backup_of(record), record.old_access)
    if record.then:
        _remove_all(record.makes)
        with contextlib.suppress(ProgramFailed):  # what was there is there; what was made of it may be made by hand
            output_of(record.then)


def _remove_all(paths: Iterable[Path]) -> None:
    for path in paths:
        remove_file(path)


def remove_folders(run: Journal) -> None:
    """Take folders away that were made, where nothing is in them."""
    for folder in reversed(run.made):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _texts(plan: Plan) -> Iterator[Target]:
    """Yield the plan's own files. Raises NotApplied where one is no longer what the plan was made of."""
    for change in plan.changes:
        if not isinstance(change, FileText):
            continue
        if read_file(change.path) != change.old:
            raise NotApplied(f"{change.path} has been changed just now; run it again")
        try:
            access = access_of(change.mode, change.owner, change.group)
        except KeyError as error:
            raise NotApplied(f"{change.path}: {error.args[0]}; it comes with Mailward's packages") from None
        yield Target(change.path, change.old, change.new, access, change.then, change.makes)


def _postfix(plan: Plan, folder: Path | None) -> Iterator[Target]:
    """Yield main.cf and master.cf as postconf leaves them, where they change."""
    settings = [change for change in plan.changes if not isinstance(change, FileText)]
    if not settings or folder is None:
        return
    with staged(folder) as copy:
        before = {name: copy.octets(name) for name in FILES}
        found = copy.facts()
        for setting in settings:
            if setting.old != found.setting(setting):
                raise NotApplied(f"{setting.name} has been changed just now; run it again")
        copy.write(settings)
        for name in FILES:
            if (new := copy.octets(name)) != before[name]:
                access = read_access(folder / name)
                yield Target(folder / name, before[name], new, access or Access(0o644, 0, 0))


def _make_folders(run: Journal, targets: list[Target]) -> Journal:
    """Make the folders that files want; return the journal that knows them, written before."""
    wanted = (target.path.parent for target in targets if target.new is not None)
    missing = dict.fromkeys(each for folder in wanted for each in missing_folders(folder))
    if missing:
        run = run.marked(run.state, missing)
    for folder in missing:
        folder.mkdir(mode=0o755)
    return run
