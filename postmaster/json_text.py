"""JSON as the sub-commands print it: records, words and text of ours and of strangers, in printable ASCII."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from enum import Enum

from postmaster.explain.layout import printable


def json_text(tree: Mapping[str, object]) -> str:
    """Return an object as JSON, indented; no text gets past here as it came."""
    return json.dumps(_plain(tree), indent=2)


def fields_of(value: object, without: tuple[str, ...] = ()) -> dict[str, object]:
    """Return what a record holds, by name."""
    assert dataclasses.is_dataclass(value)
    names = [field.name for field in dataclasses.fields(value)]
    return {name: getattr(value, name) for name in names if name not in without}


def _plain(value: object) -> object:
    """Turn records, words and text into what JSON has."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return _plain(fields_of(value)) if dataclasses.is_dataclass(value) else value
