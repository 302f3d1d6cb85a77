"""Write the man pages into a folder.

    python3 -m tools.manpages FOLDER

The daemons' and the commands' are made from their manuals and options, mailward.toml(5) from the words beside the settings. A
page is dated by SOURCE_DATE_EPOCH, or today.
"""

from __future__ import annotations

import datetime
import importlib
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

import mailward
from mailward import settings
from postmaster.__main__ import main as postmaster
from tools import roff
from tools.setting_tree import Setting, Table, setting_tree
from tools.toml_text import toml_text

DAEMONS = ("milters.dkim_sign", "milters.auth_verify", "milters.greylist", "policyd")
SETTINGS = "mailward.toml"


@dataclass(frozen=True, slots=True)
class Page:
    """A page: its name, its section, and the manual it is made from; `command` is what takes its options."""

    name: str
    section: int
    manual: str
    command: click.Command | None = None

    @property
    def file_name(self) -> str:
        """What the page's file is called."""
        return f"{self.name}.{self.section}"


def write_pages(folder: Path) -> None:
    """Write every page."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = all_pages()
    for page in pages:
        (folder / page.file_name).write_text(roff.page_text(_lines(page, pages)), encoding="ascii")


def all_pages() -> list[Page]:
    """Return the pages there are: a daemon each, the `mailward` command and each of its own, the configuration."""
    return [*_daemons(), *_commands(), Page(SETTINGS, 5, settings.__doc__ or "")]


def _daemons() -> Iterator[Page]:
    for package in DAEMONS:
        module = importlib.import_module(f"{package}.__main__")
        yield Page(module.main.name, 8, module.__doc__ or "", module.main)


def _commands() -> Iterator[Page]:
    yield Page("mailward", 1, _manual(postmaster), postmaster)
    for name, command in postmaster.commands.items():
        yield Page(f"mailward-{name}", 1, _manual(command), command)


def _manual(command: click.Command) -> str:
    """Return the docstring of the module that a command is in."""
    return sys.modules[command.callback.__module__].__doc__ or ""


def _lines(page: Page, pages: list[Page]) -> Iterator[str]:
    name, summary, sections = roff.read_manual(page.manual)
    yield from roff.title(name, page.section, _date(), mailward.__version__, summary)
    before = [part for part in sections if part.heading in ("SYNOPSIS", "DESCRIPTION")]
    program = name if page.section == 8 else "mailward"
    for part in before:
        yield from roff.section(part, program)
    if page.command is not None:
        yield from _options(page.command)
    else:
        yield from _configuration(setting_tree())
    for part in sections:
        if part not in before:
            yield from roff.section(part, program)
    yield from _see_also(page, pages)


def _date() -> str:
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    today = datetime.datetime.now(datetime.UTC)
    return (datetime.datetime.fromtimestamp(int(seconds), datetime.UTC) if seconds else today).date().isoformat()


def _options(command: click.Command) -> Iterator[str]:
    """Yield the options of a command; of a group those of each of its commands, but not where they have a page."""
    yield roff.heading("OPTIONS")
    yield from _own_options(command, command.get_params(click.Context(command)))
    if isinstance(command, click.Group) and command is not postmaster:
        for name, inner in command.commands.items():
            yield roff.subheading(f"mailward {command.name} {name}")
            yield from roff.paragraphs(inner.help or "")
            yield from _own_options(inner, inner.params)  # without --help, which all of them have


def _own_options(command: click.Command, parameters: list[click.Parameter]) -> Iterator[str]:
    context = click.Context(command)
    for parameter in parameters:
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record is not None:
            yield from roff.item(roff.bold(record[0]), record[1])


def _configuration(tree: Table) -> Iterator[str]:
    yield roff.heading("SETTINGS OF EVERY PROGRAM")
    yield from _settings(tree.settings)
    daemons = [table for table in tree.tables if any(setting.is_service for setting in table.settings)]
    for table in tree.tables:
        if table in daemons[:1]:
            yield roff.heading("SETTINGS OF EVERY DAEMON")
            yield from roff.paragraphs("Each of the four tables of the daemons has these.")
            yield from _service(daemons)
        yield roff.heading(f"THE TABLE [{table.path}]")
        yield from roff.paragraphs(table.says)
        yield from _settings(setting for setting in table.settings if not setting.is_service)
        for inner in table.tables:
            yield from _inner(inner)


def _service(daemons: list[Table]) -> Iterator[str]:
    """Yield what each daemon's table has; where a default is not the same in all, which it is."""
    for setting in daemons[0].settings:
        if setting.is_service:
            defaults = {
                table.path: each.default
                for table in daemons
                for each in table.settings
                if each.is_service and each.name == setting.name
            }
            if len(set(defaults.values())) == 1:
                yield from _settings([setting])
            else:
                listed = ", ".join(f"`{toml_text(value)}` in [{path}]" for path, value in defaults.items())
                yield from roff.item(roff.bold(setting.name), f"{setting.says} Default: {listed}.")


def _inner(table: Table) -> Iterator[str]:
    """Yield a table that is in another; one within a list of tables is written in braces."""
    yield roff.subheading(f"[[{table.path}]]" if table.is_array else f"[{table.path}]")
    yield from roff.paragraphs(table.says)
    yield from _settings(table.settings)
    for inline in table.tables if table.is_array else ():
        yield from roff.item(roff.bold(inline.name), inline.says)
        yield ".RS"
        yield from _settings(inline.settings)
        yield ".RE"
    if table.example:
        yield from roff.paragraphs("For example:")
        yield from roff.literal(table.example.splitlines())


def _settings(settings_of_table: Iterable[Setting]) -> Iterator[str]:
    for setting in settings_of_table:
        example = f" Example: `{setting.example}`." if setting.example else ""
        yield from roff.item(_term(setting), setting.says + example)


def _term(setting: Setting) -> str:
    if setting.default_words:
        return f"{roff.bold(setting.name)} ({roff.escape(setting.default_words)})"
    if setting.default is None:
        return roff.bold(setting.name)
    return f"{roff.bold(setting.name)} = {roff.escape(toml_text(setting.default))}"


def _see_also(page: Page, pages: list[Page]) -> Iterator[str]:
    yield roff.heading("SEE ALSO")
    others = sorted((other.section, other.name) for other in pages if other != page)
    yield from roff.filled(", ".join(f"`{name}`({section})" for section, name in others))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python3 -m tools.manpages FOLDER")
    write_pages(Path(sys.argv[1]))
