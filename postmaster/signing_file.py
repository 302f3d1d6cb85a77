"""The signing keys of one domain in conf.d: the file that `mailward keys new` writes, and who else configures that domain."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mailward.model.domain import InvalidDomain, normalize
from mailward.model.errors import ConfigError
from mailward.policy.signing_table import parse_signing_table
from mailward.settings.load import read_sections

MAX_FILE = 1024 * 1024
HEAD = """\
# Written by `mailward keys new`, which adds keys here, each a line of its own; what else is written here stays.
"""
_KEYS = re.compile(r"^keys = \[\n(?:[ \t]*(?:\{.*\},?[ \t]*(?:#.*)?|#.*)?\n)*(?=\])", re.MULTILINE)


class NotOurs(Exception):
    """The file is not as it was written: a key cannot be added without guessing."""


def path_of(config: Path, domain: str) -> Path:
    """Return the file in conf.d that has a domain's keys."""
    return config.parent / "conf.d" / f"dkim-{domain}.toml"


def configured_elsewhere(config: Path, domain: str) -> str:
    """Return the file that gives this very domain keys already, apart from the one in conf.d; empty: none does.

    Raises ConfigError where a file of the configuration cannot be read.
    """
    sections = read_sections(config, without=path_of(config, domain))
    if sections.mistakes:
        raise ConfigError(sections.mistakes)
    signer = sections.tables.get("dkim-sign")
    if not isinstance(signer, dict):
        return ""
    tables = signer.get("domain")
    for index, table in enumerate(tables if isinstance(tables, list) else []):
        if isinstance(table, dict) and _is_named(table.get("name"), domain):
            return sections.file_of(f"dkim-sign.domain[{index}]")
    table_file = signer.get("table")
    return table_file if isinstance(table_file, str) and _is_in_table(Path(table_file), domain) else ""


def _is_named(name: object, domain: str) -> bool:
    try:
        return isinstance(name, str) and normalize(name) == domain
    except InvalidDomain:
        return False


def _is_in_table(path: Path, domain: str) -> bool:
    try:
        with path.open(encoding="utf-8") as file:
            return domain in parse_signing_table(file)[0]
    except (OSError, UnicodeDecodeError):  # the signer's --check says so
        return False


def lines_for(domain: str, selector: str, file: Path) -> str:
    """Return what gives a domain its first key, as lines of the configuration."""
    return f"[[dkim-sign.domain]]\nname = {_quoted(domain)}\nkeys = [\n{_key_line(selector, file)}]\n"


def _key_line(selector: str, file: Path) -> str:
    return f"  {{ selector = {_quoted(selector)}, file = {_quoted(str(file))} }},\n"


def _quoted(text: str) -> str:
    """Return a TOML string; its escapes are JSON's, but for DEL and what is no text, which no name here has."""
    if not text.isprintable():
        raise ValueError("expected printable characters")
    return json.dumps(text, ensure_ascii=False)


def add_key(path: Path, domain: str, selector: str, file: Path) -> None:
    """Write the file, or add the key to it: all of it or nothing. Raises NotOurs, or OSError."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with _locked(path.parent):
        try:
            with path.open("rb") as opened:
                old = opened.read(MAX_FILE)
        except FileNotFoundError:
            new = HEAD + lines_for(domain, selector, file)
        else:
            new = with_key(old, domain, selector, file)
        _replace(path, new.encode())


def with_key(old: bytes, domain: str, selector: str, file: Path) -> str:
    """Return the file's text with one more key; everything else in it stays. Raises NotOurs."""
    try:
        text = old.decode("utf-8")
        new, count = _KEYS.subn(lambda match: _with_comma(match.group()) + _key_line(selector, file), text)
        before, after = tomllib.loads(text), tomllib.loads(new)
        added = {"selector": selector, "file": str(file)}
        if count == 1 and _keys_of(after, domain) == [*_keys_of(before, domain), added]:
            return new
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        pass
    raise NotOurs


def _with_comma(keys: str) -> str:
    """Return the list's lines so that one more may follow."""
    return re.sub(r"\}([ \t]*(?:#.*)?\n)\Z", r"},\1", keys)


def _keys_of(tables: dict[str, Any], domain: str) -> list[Any]:
    """Return the keys of the only domain in a file; whatever else raises what with_key catches."""
    (table,) = tables["dkim-sign"]["domain"]
    if not _is_named(table["name"], domain):
        raise ValueError(domain)
    return list(table["keys"])


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let nobody else add a key meanwhile."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(path: Path, octets: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o644)  # whatever the umask: the daemons read it
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
