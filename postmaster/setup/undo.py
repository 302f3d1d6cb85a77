"""Giving back what `mailward setup` changed: files as they were, or of a file that was changed since what is still ours in it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from postmaster.setup.apply import remove_folders, restore
from postmaster.setup.change import MainSetting, ServiceSetting
from postmaster.setup.files import Access, digest, read_access, read_file, write_file
from postmaster.setup.journal import FileRecord, Journal, State, open_runs
from postmaster.setup.postfix_facts import PostfixFacts
from postmaster.setup.postfix_lists import joined, names, tokens, without_calls, words
from postmaster.setup.programs import ProgramFailed
from postmaster.setup.running import Programs
from postmaster.setup.staging import FILES, Setting, Staged, staged

_OURS = re.compile(r"\$[({]?mailward_\w+[)}]?")


@dataclass(slots=True)
class Undone:
    """What was done: files given back whole, settings given back one by one, what stays and why, who complains."""

    runs: int = 0
    restored: list[Path] = field(default_factory=list)
    settings: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


def undo_all(programs: Programs, backups: Path) -> Undone:
    """Undo every run on this Postfix, the latest first. It may be killed and begun anew."""
    undone, before = Undone(), programs.complaints()
    reloads: dict[str, None] = {}
    restarts: dict[str, None] = {}
    for run in open_runs(backups, programs.postfix):
        before += run.complaints
        reloads |= dict.fromkeys(run.reloads)
        restarts |= dict.fromkeys(run.restarts)
        undone.runs += 1
        try:
            _undo(run, undone)
            run.marked(State.UNDONE)
        except (OSError, ProgramFailed) as error:  # this run and those before it wait for the next --undo
            undone.left.append(f"{run.folder} is not undone: {error}; mend that, and undo again")
            break
    if undone.runs:  # also where all was as before already: an undo that was killed has told nobody
        undone.complaints = [line for line in programs.complaints() if line not in before]
        undone.complaints += programs.reload([unit for unit in reloads if unit not in restarts], restarts)
    return undone


def _undo(run: Journal, undone: Undone) -> None:
    in_postfix = {(run.postfix / name).resolve() for name in FILES} if run.postfix else set()
    found: dict[bool, list[FileRecord]] = {True: [], False: []}  # by whether they are as the run left them
    for record in reversed(run.files):
        now = digest(read_file(record.path))
        if now != record.old:
            found[now == record.new].append(record)
    is_merged = any(record.path in in_postfix for record in found[False])
    for record in found[True]:
        if not (is_merged and record.path in in_postfix):
            restore(run, record)
            undone.restored.append(record.path)
    for record in found[False]:
        if record.path not in in_postfix:
            undone.left.append(f"{record.path}: it has been changed since, and stays")
    if is_merged and run.postfix:
        whole = [record for record in found[True] if record.path in in_postfix]
        _undo_settings(
            run, run.postfix, whole, [record for record in found[False] if record.path in in_postfix], undone
        )
    remove_folders(run)


def _undo_settings(
    run: Journal, folder: Path, whole: list[FileRecord], changed: list[FileRecord], undone: Undone
) -> None:
    """Give back the files that are as the run left them, and of the others those settings that are still ours."""
    with staged(folder) as copy:
        before = {name: copy.octets(name) for name in FILES}
        merged = {record.path.name for record in changed}
        for record in whole:
            copy.replace(record.path.name, run.backup_of(record))
        _give_back(copy, _settings(run, merged), undone)
        if whole and "main.cf" not in merged and _is_dangling(copy.facts(), run):
            # What names a parameter of ours in master.cf stays, so the parameter must.
            copy.replace("main.cf", before["main.cf"])
            _give_back(copy, _settings(run, {"main.cf"}), undone)
            merged.add("main.cf")
        for name in FILES:
            if (octets := copy.octets(name)) != before[name]:
                path = (folder / name).resolve()
                write_file(path, octets, read_access(path) or Access(0o644, 0, 0))
        undone.restored += [record.path for record in whole if record.path.name not in merged]


def _settings(run: Journal, files: set[str]) -> list[Setting]:
    kinds = {"main.cf": MainSetting, "master.cf": ServiceSetting}
    return [setting for setting in run.settings if any(isinstance(setting, kinds[name]) for name in files)]


def _is_dangling(facts: PostfixFacts, run: Journal) -> bool:
    """Tell whether something names a parameter that the run had set and that is not set any more."""
    gone = [each.name for each in run.settings if isinstance(each, MainSetting) and each.name not in facts.main]
    return any(_is_named(facts, name) for name in gone if name.startswith("mailward_"))


def _give_back(copy: Staged, settings: list[Setting], undone: Undone) -> None:
    # What names a parameter of ours goes first: the parameter itself may only go where nobody names it any more.
    named = [
        setting for setting in settings if isinstance(setting, MainSetting) and setting.name.startswith("mailward_")
    ]
    for each in [setting for setting in settings if setting not in named]:
        _give_back_one(copy, each, undone)
    for each in named:
        facts = copy.facts()
        if each.old is None and _is_named(facts, each.name):
            undone.left.append(f"{each.name}: a setting that was changed since names it; it stays")
        elif each.old is None and each.name in facts.main:
            # Also where it was tuned since: Postfix complains of a name that nothing uses.
            copy.write([_turned(each, facts.main[each.name], None)])
            undone.settings.append(each.name)
        else:
            _give_back_one(copy, each, undone)


def _give_back_one(copy: Staged, setting: Setting, undone: Undone) -> None:
    facts, name = copy.facts(), title(setting)
    if isinstance(setting, ServiceSetting) and all(each.name != setting.service for each in facts.services):
        return  # the service is gone, and its settings with it
    now = facts.setting(setting)
    if _is_same(now, setting.old):
        return
    if _is_same(now, setting.new):
        copy.write([_turned(setting, now, setting.old)])
        undone.settings.append(name)
        return
    rest = _without_ours(setting.name, now or "")
    if now is None or rest == now:
        undone.left.append(f'{name}: it has been changed since to "{now or ""}", and stays')
        return
    copy.write([_turned(setting, now, rest)])
    undone.left.append(f'{name}: it has been changed since; what is ours was taken out, and "{rest}" stays')


def title(setting: Setting) -> str:
    """Return what a setting is called."""
    return f"{setting.service}: {setting.name}" if isinstance(setting, ServiceSetting) else setting.name


def _turned(setting: Setting, old: str | None, new: str | None) -> Setting:
    if isinstance(setting, ServiceSetting):
        return ServiceSetting(setting.service, setting.name, old, new, "")
    return MainSetting(setting.name, old, new, "")


def _without_ours(name: str, value: str) -> str:
    """Return a list without what is ours."""
    if name.endswith("_restrictions"):
        return without_calls(value, lambda server: bool(_OURS.fullmatch(server)))
    found = [token.text for token in tokens(value)]
    kept = [token for token in found if not _OURS.fullmatch(token)]
    return value if kept == found else joined(kept).replace(", ", ",")


def _is_same(one: str | None, other: str | None) -> bool:
    return one is other if one is None or other is None else words(one) == words(other)


def is_asked(facts: PostfixFacts, name: str) -> bool:
    """Tell whether a list names a daemon's parameter, or its other one, for the submission services."""
    return _is_named(facts, name) or _is_named(facts, f"{name}_submission")


def _is_named(facts: PostfixFacts, name: str) -> bool:
    values = [*facts.main.values(), *(value for service in facts.services for value in service.options.values())]
    return any(names(value, name) for value in values)
