"""Settings as TOML writes them: the readers of mailward.settings.values the other way round."""

from __future__ import annotations

import datetime
import ipaddress
import json
import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from mailward.model.state import SqliteState
from mailward.settings.state import StateAddress
from mailward.settings.values import (
    Duration,
    FileMode,
    Moment,
    NetworkList,
    Patterns,
    Port,
    Rate,
    Rates,
    SocketAddress,
    Words,
)

_UNITS = (("w", 604_800), ("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))
_OCTETS = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3))


def toml_text(value: object) -> str:
    """Return a setting's value as it is written in mailward.toml."""
    return next(write(value) for kind, write in _WRITERS if isinstance(value, kind))


def toml_lines(name: str, value: object, width: int) -> list[str]:
    """Return `name = value`; a long list has lines of its own."""
    line = f"{name} = {toml_text(value)}"
    if len(line) <= width or not isinstance(value, tuple):
        return [line]
    items = ", ".join(toml_text(item) for item in value)
    return [f"{name} = [", *textwrap.wrap(items, width, break_long_words=False, break_on_hyphens=False), "]"]


def _duration(seconds: float) -> str:
    if seconds and seconds < 1:
        return f"{round(seconds * 1000)}ms"
    unit, factor = next((unit, factor) for unit, factor in _UNITS if seconds % factor == 0 and (seconds or factor == 1))
    return f"{round(seconds / factor)}{unit}"


def _days_rather_than_weeks(seconds: float) -> str:
    """Return a duration; a window of 14d and 36d side by side are read more easily than 2w and 36d."""
    text = _duration(seconds)
    return f"{round(seconds / 86_400)}d" if text.endswith("w") else text


def _port(value: Port) -> str:
    return f"[{value.host}]:{value.port}" if ":" in value.host else f"{value.host}:{value.port}"


def _socket(value: SocketAddress) -> str:
    return f"unix:{value.path}" if value.path else f"inet:{_port(Port(value.host, value.port))}"


def _rate(value: Rate) -> str:
    unit, factor = next(
        ((unit, factor) for unit, factor in _OCTETS if value.is_octets and value.most % factor == 0), ("", 1)
    )
    return f"{value.most // factor}{unit}/{_days_rather_than_weeks(value.seconds)}"


def _network(value: ipaddress.IPv4Network | ipaddress.IPv6Network) -> str:
    return str(value.network_address if value.prefixlen == value.max_prefixlen else value)


def _state(value: StateAddress) -> str:
    if not isinstance(value.state, SqliteState):
        raise TypeError("only the default is written, and it is SQLite's")
    return f"sqlite:{value.state.folder}"


def _quoted(text: str) -> str:
    return json.dumps(text)


def _list(values: Iterable[object]) -> str:
    return f"[{', '.join(toml_text(value) for value in values)}]"


def _one_or_list(values: tuple[object, ...]) -> str:
    return toml_text(values[0]) if len(values) == 1 else _list(values)


def _table(value: Mapping[str, tuple[str, ...]]) -> str:
    return "{ " + ", ".join(f"{name} = {_one_or_list(each)}" for name, each in value.items()) + " }" if value else "{}"


# The most special first: a Duration is a float, a FileMode an int, a Port a tuple.
_WRITERS: tuple[tuple[type, Callable[..., str]], ...] = (
    (bool, lambda value: str(value).lower()),
    (Duration, lambda value: _quoted(_days_rather_than_weeks(value))),
    (Moment, lambda value: datetime.datetime.fromtimestamp(value).date().isoformat()),
    (FileMode, lambda value: _quoted(f"{value:04o}")),
    (Port, lambda value: _quoted(_port(value))),
    (SocketAddress, lambda value: _quoted(_socket(value))),
    (Rate, lambda value: _quoted(_rate(value))),
    (Rates, _one_or_list),
    (Words, _one_or_list),
    (NetworkList, lambda value: _list(_network(network) for network in value)),
    (Patterns, _table),
    (StateAddress, lambda value: _quoted(_state(value))),
    (Path, lambda value: _quoted(str(value))),
    (str, _quoted),
    (int, str),
    (float, str),
    (tuple, _list),
)
