"""Print the packages' mailward.toml: every setting with its meaning, and its default behind a `#`.

    python3 -m tools.conffile

Three kinds of lines begin with `#`: words ("# "), defaults ("#" and no space), examples ("#" and three spaces). With the `#` of
the defaults taken away the file says exactly what holds without it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from mailward.model.limits import Window
from mailward.policy.limits import DEFAULT_LIMITS, Limit
from mailward.settings.values import Rate, Rates, Words
from tools.setting_tree import Setting, Table, setting_tree
from tools.toml_text import toml_lines, toml_text

WIDTH = 79
EXAMPLE = "   "

_HEAD = """\
The configuration of Mailward. Every setting stands here, with its default behind a `#`: take the `#` away to change it.
What is indented behind a `#` is an example. mailward.toml(5) tells the same. Each daemon says with `--check` what is wrong,
and reads this again when it is reloaded.

Then all of conf.d/*.toml is read, in the order of the names. A later file wins, and lists of tables such as
`[[dkim-sign.domain]]` grow. `mailward keys new` and `mailward setup` write there, and never here.

A time has its unit: `500ms`, `2s`, `5m`, `1h`, `36d`."""


def conffile() -> str:
    """Return the file's text."""
    return "\n".join(_lines(setting_tree())) + "\n"


def _lines(tree: Table) -> Iterator[str]:
    yield from _words(_HEAD)
    yield from _settings(tree.settings)
    first = ""
    for table in tree.tables:
        yield from _table(table, first)
        if any(setting.is_service for setting in table.settings):
            first = first or table.path


def _table(table: Table, first: str) -> Iterator[str]:
    """Yield a table; what means the same in the table `first` is told there."""
    yield ""
    yield ""
    yield from _words(table.says)
    yield f"[{table.path}]"
    own = [setting for setting in table.settings if not (setting.is_service and first)]
    yield from _settings(own)
    shared = [setting for setting in table.settings if setting.is_service and first]
    if shared:
        yield ""
        yield from _words(f"As in [{first}]:")
        for setting in shared:
            yield from _default(setting)
    for inner in table.tables:
        yield from _array(inner) if inner.is_array else _table(inner, "")


def _settings(settings: tuple[Setting, ...] | list[Setting]) -> Iterator[str]:
    for setting in settings:
        yield ""
        yield from _words(setting.says)
        if setting.default_words:
            yield from _words(f"Default: {setting.default_words}.")
        if setting.example:
            yield from _example(f"{setting.name} = {setting.example}")
        yield from _default(setting)


def _default(setting: Setting) -> Iterator[str]:
    """Yield the setting with its default; one that has none, or that no value can tell, has its example alone."""
    if setting.default is not None and not setting.default_words:
        yield from (f"#{line}" for line in toml_lines(setting.name, setting.default, WIDTH))


def _array(table: Table) -> Iterator[str]:
    """Yield what is told of a list of tables, and those that hold by default."""
    yield ""
    yield from _words(f"[[{table.path}]]: {table.says}")
    yield from _items(table, "")
    yield "#"
    yield from _example(table.example)
    if table.path == "policyd.limit":
        yield "#"
        yield from _words("These hold by default:")
        for number, limit in enumerate(DEFAULT_LIMITS):
            if number:
                yield ""
            yield from (f"#{line}" for line in _limit(limit))


def _items(table: Table, prefix: str) -> Iterator[str]:
    for setting in table.settings:
        shown = f" Default: `{toml_text(setting.default)}`." if setting.default not in (None, "", {}) else ""
        yield "#"
        yield from _words(f"{prefix}{setting.name}: {setting.says}{shown}")
    for inner in table.tables:
        yield "#"
        yield from _words(f"{prefix}{inner.name}: {inner.says}")
        yield from _items(inner, f"{prefix}{inner.name}.")


def _limit(limit: Limit) -> Iterator[str]:
    yield "[[policyd.limit]]"
    yield f'name = "{limit.name}"'
    yield f"per = {toml_text(Words(limit.per))}"
    yield f'count = "{limit.count.value}"'
    yield f"limit = {toml_text(Rates(_rate(window) for window in limit.windows))}"
    yield f'action = "{limit.act.value}"'
    yield f"suspend_after = {limit.suspend_after}"


def _rate(window: Window) -> Rate:
    return Rate(window.most, window.seconds)


def _words(text: str) -> Iterator[str]:
    """Yield words as comments; backticks are the man page's."""
    for number, paragraph in enumerate(filter(None, text.split("\n\n"))):
        if number:
            yield "#"
        plain = " ".join(paragraph.replace("`", "").split())
        yield from (f"# {line}" for line in textwrap.wrap(plain, WIDTH - 2, break_on_hyphens=False))


def _example(text: str) -> Iterator[str]:
    yield "# Example:"
    yield from (f"#{EXAMPLE}{line}" for line in text.splitlines())


if __name__ == "__main__":
    print(conffile(), end="")
