"""All that mailward.toml may hold, as a tree of values: what each setting is called, what it means, what it is by default."""

from __future__ import annotations

import inspect
import types
import typing
from dataclasses import dataclass
from typing import Any

import attrs

from mailward.settings import auth_verify, dkim_sign, greylist, policyd
from mailward.settings.common import Service, Shared

LISTENING = ("socket", "socket_mode", "socket_group", "metrics")

# Each program leaves the tables of the others as they are: whose settings say what is in which.
OWNERS: dict[str, type[Any]] = {
    "dkim_sign": dkim_sign.Settings,
    "auth_verify": auth_verify.Settings,
    "greylist": greylist.Settings,
    "policyd": policyd.Settings,
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. `default` None: none, and where `is_required`, it must be given; `default_words` say what no value can.

    `is_service`: it means the same in each daemon's table.
    """

    name: str
    says: str
    default: object
    default_words: str
    example: str
    is_required: bool
    is_service: bool


@dataclass(frozen=True, slots=True)
class Table:
    """A table, or with `is_array` any number of them; `path` is its name with those it is in, "policyd.limit"."""

    path: str
    says: str
    example: str
    is_array: bool
    settings: tuple[Setting, ...]
    tables: tuple[Table, ...]

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]


def setting_tree() -> Table:
    """Return the whole configuration; its path is empty."""
    settings, tables = [], []
    for field in attrs.fields(Shared):
        owner = OWNERS.get(field.name, Shared)
        part = _part(owner, attrs.fields_dict(owner)[field.name], "")
        if isinstance(part, Table):
            tables.append(part)
        else:
            settings.append(part)
    return Table("", "", "", False, tuple(settings), tuple(tables))


def _part(owner: type[Any], field: attrs.Attribute[Any], path: str) -> Setting | Table:
    kind = typing.get_type_hints(owner)[field.name]
    if isinstance(kind, types.UnionType):
        kind = next(option for option in typing.get_args(kind) if option is not type(None))
    is_array = typing.get_origin(kind) is tuple
    item = typing.get_args(kind)[0] if is_array else kind
    name = str(field.metadata.get("key", field.name))
    if attrs.has(item):
        return _table(item, field, f"{path}.{name}" if path else name, is_array=is_array)
    return _setting(owner, field, name)


def _table(kind: type[Any], field: attrs.Attribute[Any], path: str, *, is_array: bool) -> Table:
    parts = sorted((_part(kind, each, path) for each in attrs.fields(kind)), key=_place)
    return Table(
        path,
        _words(field, "says"),
        _words(field, "example"),
        is_array,
        tuple(part for part in parts if isinstance(part, Setting)),
        tuple(part for part in parts if isinstance(part, Table)),
    )


def _place(part: Setting | Table) -> int:
    """Return where a part of a table is told: where the daemon listens, what is its own, how the service runs."""
    if isinstance(part, Table) or part.name not in attrs.fields_dict(Service):
        return len(LISTENING)
    return LISTENING.index(part.name) if part.name in LISTENING else len(LISTENING) + 1


def _setting(owner: type[Any], field: attrs.Attribute[Any], name: str) -> Setting:
    words = _words(field, "says")
    shared = attrs.fields_dict(Service).get(field.name) if issubclass(owner, Service) else None
    return Setting(
        name,
        words,
        _default(field),
        _words(field, "default"),
        _words(field, "example"),
        field.default is attrs.NOTHING,
        shared is not None and _words(shared, "says") == words,
    )


def _default(field: attrs.Attribute[Any]) -> object:
    default: Any = field.default
    if default is attrs.NOTHING:
        return None
    return default.factory() if isinstance(default, attrs.Factory) else default  # type: ignore[arg-type]


def _words(field: attrs.Attribute[Any], name: str) -> str:
    return inspect.cleandoc(str(field.metadata.get(name, "")))
