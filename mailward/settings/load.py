"""Reading mailward.toml and conf.d: every mistake found in one go, each with its file, its key and what was expected.

A table is an attrs class in mailward.settings whose attributes are the keys; their types, in mailward.settings.values, say
what a value may look like.
"""

from __future__ import annotations

import difflib
import re
import tomllib
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs
import cattrs

from mailward.model.errors import ConfigError, Mistake
from mailward.settings.state import HiddenValueError
from mailward.settings.values import READERS

DEFAULT_PATH = Path("/etc/mailward/mailward.toml")
MAX_FILE = 4 * 1024 * 1024  # a configuration that is larger is some other file

T = TypeVar("T")


class Sections:
    """What the files say: the merged tables, and which file gave each key."""

    def __init__(self) -> None:
        self.tables: dict[str, Any] = {}
        self._file_of: dict[str, str] = {}
        self.mistakes: list[Mistake] = []
        self.main_file = ""

    def read(self, path: Path, without: Path | None = None) -> None:
        """Read `path`, then `conf.d/*.toml` beside it, in the order of their names; later files win, lists of tables grow.

        `without` is a file of conf.d that is passed over.
        """
        self.main_file = str(path)
        self._read_one(path)
        for extra in self._extra_files(path.parent / "conf.d"):
            if extra != without:
                self._read_one(extra)

    def _extra_files(self, folder: Path) -> list[Path]:
        """Return the files of `folder` in the order of their names; no hidden one: an editor's lock is called `.#NAME`."""
        try:
            found = [file for file in folder.iterdir() if file.suffix == ".toml" and not file.name.startswith(".")]
        except FileNotFoundError:
            return []
        except OSError as error:  # what nobody can list must not pass for empty
            self.mistakes.append(Mistake(str(folder), "", f"cannot be read: {error.strerror}"))
            return []
        return sorted(found)

    def file_of(self, key: str) -> str:
        """Return the file that set `key`, or the main file where none did."""
        while key:
            if key in self._file_of:
                return self._file_of[key]
            key = key[: max(key.rfind("."), key.rfind("["), 0)]
        return self.main_file

    def _read_one(self, path: Path) -> None:
        try:
            with path.open("rb") as opened:
                octets = opened.read(MAX_FILE + 1)
            if len(octets) > MAX_FILE:
                raise ValueError("larger than 4 MiB: this is no configuration")
            # Some editors begin a file with a byte order mark.
            content = tomllib.loads(octets.decode("utf-8").removeprefix("\ufeff"))
        except OSError as error:
            self.mistakes.append(Mistake(str(path), "", f"cannot be read: {error.strerror}"))
        except UnicodeDecodeError as error:
            self.mistakes.append(Mistake(str(path), f"octet {error.start}", "expected UTF-8 text"))
        except RecursionError:
            self.mistakes.append(Mistake(str(path), "", "nested too deep"))
        except ValueError as error:  # tomllib's error names line and column
            self.mistakes.append(Mistake(str(path), "", str(error)))
        else:
            self._merge(self.tables, content, "", str(path))

    def _merge(self, into: dict[str, Any], content: Mapping[str, Any], prefix: str, file: str) -> None:
        for name, value in content.items():
            key = f"{prefix}{name}"
            old = into.get(name)
            if isinstance(value, dict):
                if not isinstance(old, dict):
                    into[name] = old = {}
                self._merge(old, value, f"{key}.", file)
            elif isinstance(value, list) and value and isinstance(value[0], dict) and isinstance(old, list):
                for index in range(len(old), len(old) + len(value)):
                    self._file_of[f"{key}[{index}]"] = file
                old.extend(value)
                continue
            else:
                into[name] = value
            self._file_of[key] = file


def read_sections(path: Path, without: Path | None = None) -> Sections:
    """Read the configuration's files, but for `without`; what cannot be read is among the result's mistakes."""
    sections = Sections()
    sections.read(path, without)
    return sections


def structure(sections: Sections, cls: type[T]) -> T:
    """Make the attrs class `cls` of the sections. Raises ConfigError with all mistakes, those of reading included."""
    return Structurer(sections).table(cls)


class Structurer:
    """Turns plain TOML values into settings, and remembers every value that did not fit."""

    def __init__(self, sections: Sections) -> None:
        self._sections = sections
        self._mistakes = list(sections.mistakes)
        self._converter = _converter()

    def table(self, cls: type[T]) -> T:
        """Structure the whole configuration as `cls`, whose attributes are the top-level keys and tables."""
        if self._mistakes:
            raise ConfigError(self._mistakes)
        result = self._attrs(cls, self._sections.tables, "")
        if self._mistakes:
            raise ConfigError(self._mistakes)
        assert result is not None
        return result

    def _attrs(self, cls: type[T], values: object, key: str) -> T | None:
        if not isinstance(values, Mapping):
            self._mistake(key, f"expected a table, found {_shown(values)}")
            return None
        types_of = typing.get_type_hints(cls)
        fields = {_key_name(field): field for field in attrs.fields(cls)}  # type: ignore[arg-type]
        for name in values:
            if name not in fields:
                self._unknown_key(key, name, list(fields))
        arguments: dict[str, object] = {}
        for name, field in fields.items():
            where = f"{key}.{name}" if key else name
            if name in values:
                known = len(self._mistakes)
                value = self._value(types_of[field.name], values[name], where)
                if len(self._mistakes) == known:
                    arguments[field.name] = value
            elif field.default is attrs.NOTHING:
                self._mistake(where, "is missing")
        if any(field.default is attrs.NOTHING and field.name not in arguments for field in fields.values()):
            return None
        with attrs.validators.disabled():  # they would stop at the first mistake
            result = cls(**arguments)
        for name, field in fields.items():
            if field.validator is not None and field.name in arguments:
                self._validate(result, field, f"{key}.{name}" if key else name)
        return result

    def _validate(self, result: object, field: attrs.Attribute[Any], key: str) -> None:
        value = getattr(result, field.name)
        try:
            field.validator(result, field, value)  # type: ignore[misc]
        except ValueError as error:
            self._mistake(key, str(error))

    def _value(self, expected: Any, value: object, key: str) -> object:
        if isinstance(expected, types.UnionType):
            expected = next(option for option in typing.get_args(expected) if option is not type(None))
            if value == "" and not attrs.has(expected):
                return None  # said to be absent: TOML has no word for nothing
        if expected is Any:  # another program's table
            if not isinstance(value, dict):
                self._mistake(key, f"expected a table, found {_shown(value)}")
            return value
        if attrs.has(expected):
            return self._attrs(expected, value, key)
        if typing.get_origin(expected) is tuple:
            item = typing.get_args(expected)[0]
            if not isinstance(value, list):
                self._mistake(key, f"expected a list, found {_shown(value)}")
                return ()
            found = [self._value(item, element, f"{key}[{index}]") for index, element in enumerate(value)]
            return tuple(element for element in found if element is not None)
        try:
            return self._converter.structure(value, expected)
        except HiddenValueError as error:
            self._mistake(key, str(error))
            return None
        except ValueError as error:
            self._mistake(key, f"{error}, found {_shown(value)}")
            return None

    def _unknown_key(self, key: str, name: str, known: list[str]) -> None:
        near = difflib.get_close_matches(name, known, 1)
        hint = f'; did you mean "{near[0]}"?' if near else f"; known here: {', '.join(sorted(known))}"
        self._mistake(f"{key}.{name}" if key else name, f"unknown key{hint}")

    def _mistake(self, key: str, expected: str) -> None:
        self._mistakes.append(Mistake(self._sections.file_of(key), key, expected))


def _key_name(field: attrs.Attribute[Any]) -> str:
    """Return the TOML name of an attribute: its own, unless its metadata names another (`dkim-sign`)."""
    return str(field.metadata.get("key", field.name))


def _shown(value: object) -> str:
    try:
        text = f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    except ValueError:  # Python writes no number of more than 4300 digits
        return "a number that is too long to be shown"
    text = re.sub(r"://[^@]*@", "://…@", text)  # an address of another key's, put here by mistake, may have a password
    return text if len(text) <= 60 else text[:60] + "…"


def _converter() -> cattrs.Converter:
    """Make a converter that reads values as mailward.settings.values says."""
    converter = cattrs.Converter()
    for kind, read in READERS.items():
        converter.register_structure_hook(kind, _ignoring_type(read))
    return converter


def _ignoring_type(read: Callable[[object], object]) -> Callable[[object, object], object]:
    return lambda value, _type: read(value)
