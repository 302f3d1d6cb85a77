"""The man pages: made from the text in the code, without a complaint of those who read them, and of what exists."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from milters.auth_verify.__main__ import main as auth_verify
from milters.dkim_sign.__main__ import main as dkim_sign
from milters.greylist.__main__ import main as greylist
from policyd.__main__ import main as policyd
from postmaster.__main__ import main as mailward
from tests.support.processes import require_binary
from tools import roff
from tools.manpages import write_pages
from tools.setting_tree import Table, setting_tree
from tools.toml_text import toml_text

DATE = 1_790_000_000  # 2026-09-21
SETTINGS = "mailward.toml.5"
DAEMONS: list[Any] = [dkim_sign, auth_verify, greylist, policyd]
NAMES = [
    *(f"{daemon.name}.8" for daemon in DAEMONS),
    "mailward.1",
    *(f"mailward-{name}.1" for name in mailward.commands),
    SETTINGS,
]
OTHERS_PAGES = ("smtpd(8)",)  # of other packages, which may be named
OTHERS_OPTIONS = ("--privacy",)  # postgrey's


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", str(DATE))
        made: Path = tmp_path_factory.mktemp("man")
        write_pages(made)
        yield made


def words_of(page: Path) -> str:
    """Return what a reader sees, in one line, so that nothing is broken anywhere."""
    done = subprocess.run(
        [require_binary("mandoc", "mandoc"), "-T", "ascii", "-O", "width=200", page], capture_output=True, check=True
    )
    return " ".join(re.sub(".\x08", "", done.stdout.decode("ascii")).split())


def test_there_is_a_page_for_each_program_and_command(folder: Path) -> None:
    assert sorted(os.listdir(folder)) == sorted(NAMES)
    assert {"mailward-keys.1", "mailward-explain.1", "mailward-greylist.1", "mailward-limits.1"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_mandoc_has_nothing_to_say(name: str, folder: Path) -> None:
    done = subprocess.run(
        [require_binary("mandoc", "mandoc"), "-T", "lint", "-W", "warning", folder / name],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", NAMES)
def test_man_has_nothing_to_say(name: str, folder: Path) -> None:
    environment = {**os.environ, "MANWIDTH": "80", "LC_ALL": "C.UTF-8", "MANROFFSEQ": ""}
    done = subprocess.run(
        [require_binary("man", "man-db"), "--warnings", "-E", "UTF-8", "-l", folder / name],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) > 30
    assert "\N{HYPHEN}\n" not in done.stdout  # nothing that may be copied is parted


@pytest.mark.parametrize("name", NAMES)
def test_whatis_finds_it(name: str, folder: Path) -> None:
    done = subprocess.run([require_binary("lexgrog", "man-db"), folder / name], capture_output=True, text=True)
    assert done.returncode == 0
    assert f'"{name.rpartition(".")[0]} - ' in done.stdout


def commands() -> Iterator[tuple[str, str, click.Command]]:
    """Yield each command with its page and its words: "mailward limits raise"."""
    for daemon in DAEMONS:
        yield f"{daemon.name}.8", daemon.name, daemon
    yield "mailward.1", "mailward", mailward
    for name, command in mailward.commands.items():
        yield f"mailward-{name}.1", f"mailward {name}", command
        if isinstance(command, click.Group):
            for inner_name, inner in command.commands.items():
                yield f"mailward-{name}.1", f"mailward {name} {inner_name}", inner


COMMANDS = {words: (page, command) for page, words, command in commands()}


@pytest.mark.parametrize(
    ("words", "page", "command"), [(words, *each) for words, each in COMMANDS.items()], ids=COMMANDS
)
def test_every_option_is_in_its_page(words: str, page: str, command: click.Command, folder: Path) -> None:
    text = words_of(folder / page)
    own = text.partition(" OPTIONS ")[2]
    if words.count(" ") == 2:
        own = own.partition(f" {words} ")[2]
    assert own
    for option in command.params:
        if isinstance(option, click.Option):
            assert re.search(rf"{option.opts[0]}(?![\w-])", own), option.opts
            assert option.help is None or " ".join(option.help.partition("[default")[0].split()) in own


OPTIONS = {name for _, command in COMMANDS.values() for each in command.params for name in each.opts} | {"--help"}


@pytest.mark.parametrize("name", NAMES)
def test_what_a_page_names_exists(name: str, folder: Path) -> None:
    text = words_of(folder / name)
    for page, section in re.findall(r"([\w.-]+)\(([1-8])\)", text):
        assert page.isupper() or f"{page}.{section}" in NAMES or f"{page}({section})" in OTHERS_PAGES, page
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text)) - set(OTHERS_OPTIONS)
    assert options
    assert options <= OPTIONS
    for typed in typed_in((folder / name).read_text()):
        words = typed.split()
        is_placeholder = len(words) < 2 or not words[1].islower()
        assert is_placeholder or " ".join(words[:2]) in COMMANDS, typed
        if len(words) > 2 and words[2].isalpha() and words[2].islower() and words[1] != "explain":
            assert " ".join(words[:3]) in COMMANDS, typed


def typed_in(source: str) -> list[str]:
    """Return what a page says is typed: in bold, in a synopsis, or on a line of its own."""
    plain = source.replace("\\-", "-").replace("\\fI", "").replace(".SY mailward\n", "\\fBmailward ")
    lines = [
        line
        for block in re.findall(r"^\.EX\n(.*?)^\.EE", plain, re.DOTALL | re.MULTILINE)
        for line in block.split("\n")
    ]
    return [*re.findall(r"\\fB(mailward [^\\\n]*)", plain), *(line for line in lines if line.startswith("mailward "))]


def test_the_commands_own_page_names_each_of_them(folder: Path) -> None:
    source = (folder / "mailward.1").read_text()
    for name in mailward.commands:
        assert re.search(rf"\\fB{name}[ \\]", source)


def test_the_command_promises_what_there_is(folder: Path) -> None:
    summary = (mailward.help or "").lower()
    for name in mailward.commands:
        assert name in summary.replace("set up", "setup")
    assert "report" not in summary + words_of(folder / "mailward.1").lower()


def test_each_setting_a_daemons_page_names_exists(folder: Path) -> None:
    tree = setting_tree()
    tables = {table.path: table for table in (*tree.tables, *(inner for each in tree.tables for inner in each.tables))}
    for daemon in DAEMONS:
        own = tables[daemon.name.removeprefix("mailward-")]
        known = {setting.name for setting in (*tree.settings, *own.settings)} | {table.name for table in own.tables}
        source = (folder / f"{daemon.name}.8").read_text()
        section = source.partition('.SH "CONFIGURATION"')[2].partition(".SH")[0]
        named = re.findall(r"\\fB([a-z_0-9]+)\\fR", section)
        assert len(named) >= 3
        assert set(named) <= known
        for path in re.findall(r"\[\[?([a-z.-]+)\]", section.replace("\\-", "-")):
            assert path in tables


def test_the_configurations_page_has_every_setting_and_its_default(folder: Path) -> None:
    text = words_of(folder / SETTINGS)
    count = 0
    for setting, words in every_setting(setting_tree()):
        assert " ".join(words.replace("`", "").split()) in text
        assert f" {' '.join(setting.split())} " in text
        count += 1
    assert count > 100


def every_setting(table: Table) -> Iterator[tuple[str, str]]:
    for setting in table.settings:
        differs = setting.is_service and setting.name in ("socket", "metrics")
        has_default = setting.default is not None and not setting.default_words and not differs
        yield (f"{setting.name} = {toml_text(setting.default)}" if has_default else setting.name), setting.says
    for inner in table.tables:
        yield from every_setting(inner)


def test_a_page_says_its_date_and_version(folder: Path) -> None:
    import mailward as package

    for name in NAMES:
        first = (folder / name).read_text().splitlines()[0]
        assert f'"2026-09-21" "Mailward {package.__version__}" "Mailward"' in first


MANUAL = """thing - do it

SYNOPSIS
    thing [--all] FILE

DESCRIPTION
    Does `it`. It's
    .done with a \\ in it.

    TERM    its words
            and more
    another, term
        below it

    thing --all
"""


def roff_of(manual: str) -> str:
    name, summary, sections = roff.read_manual(manual)
    lines = [*roff.title(name, 1, "2026-11-01", "1", summary)]
    for part in sections:
        lines += roff.section(part, "thing")
    return roff.page_text(lines)


def test_text_becomes_macros() -> None:
    assert roff_of(MANUAL).splitlines()[6:] == [
        "thing \\- do it",
        '.SH "SYNOPSIS"',
        ".SY thing",
        "[\\-\\-all] \\fIFILE\\fR",
        ".YS",
        '.SH "DESCRIPTION"',
        "Does \\fBit\\fR. It\\(aqs .done with a \\e in it.",
        ".TP",
        "\\fBTERM\\fR",
        "its words and more",
        ".TP",
        "\\fBanother, term\\fR",
        "below it",
        ".PP",
        ".RS 4n",
        ".EX",
        "thing \\-\\-all",
        ".EE",
        ".RE",
    ]


def test_no_text_is_taken_for_a_request() -> None:
    assert roff.filled(".SH is no heading here")[0] == "\\&.SH is no heading here"
    assert roff.filled("'so /etc/passwd'")[0].startswith("\\(aqso")


@pytest.mark.parametrize(
    ("manual", "expected"),
    [("no dash here", "NAME - SUMMARY"), ("a - b\n\nSECTION\n    an `open one", "backtick")],
    ids=["no-summary", "open-backtick"],
)
def test_a_text_that_is_no_manual_is_refused(manual: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        roff_of(manual)
