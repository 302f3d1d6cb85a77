"""What a value in mailward.toml may look like: each kind a type, with the function that reads it.

A reader takes what TOML gives and never guesses: no "3" for 3, no "no" for true. Its ValueError says what was expected.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
import typing
from collections.abc import Callable, Mapping
from pathlib import Path

from mailward.model.domain import InvalidDomain, normalize
from mailward.settings.state import StateAddress, read_state

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d|w)")
_BRACKETED_PORT = re.compile(r"\[([^\[\]]*)\](?::([0-9]{1,5}))?")
_PLAIN_PORT = re.compile(r"([^:\[\]]*):([0-9]{1,5})")
_RATE = re.compile(r"([0-9]{1,12})(kB|MB|GB)?/([^/]{1,30})")
_OCTETS = {"kB": 10**3, "MB": 10**6, "GB": 10**9}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


class Duration(float):
    """Seconds, written as a number and a unit: `2s`, `500ms`, `1.5h`, `36d`."""


class Port(typing.NamedTuple):
    """A host (an IP address) and a port, written `127.0.0.1:53` or `[::1]:53`."""

    host: str
    port: int


class SocketAddress(typing.NamedTuple):
    """Where a daemon listens: `unix:/path`, `inet:127.0.0.1:8891`; `path` is empty for inet."""

    path: str
    host: str
    port: int


class NetworkList(tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]):
    """Networks, written `192.0.2.0/24` or `2001:db8::1`; never the whole Internet."""

    __slots__ = ()


class DomainName(str):
    """A domain name in normalized A-labels."""

    __slots__ = ()


class FileMode(int):
    """Permission bits, written in octal as a string: `"0660"`."""


class Rate(typing.NamedTuple):
    """So many in so many seconds, written `100/1h`; of octets also `50MB/1d`, and `is_octets` says that it was."""

    most: int
    seconds: float
    is_octets: bool = False


class Rates(tuple[Rate, ...]):
    """One rate, or a list of them."""

    __slots__ = ()


class Words(tuple[str, ...]):
    """One string, or a list of them."""

    __slots__ = ()


class Patterns(dict[str, tuple[str, ...]]):
    """A table of patterns: for each name one, or a list of them; a number stands for its digits."""


class Moment(float):
    """Seconds since the epoch, written as a date or a time of TOML's: `2026-11-01`; without a zone it is this machine's."""


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("expected a string")
    if not value.isprintable():
        raise ValueError("expected a string without control characters")
    return value


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def _whole_number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("expected a whole number")
    if value.bit_length() > 63:
        raise ValueError("expected a whole number of 64 bits, as TOML has them")
    return value


def _fraction(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError("expected a number, such as 0.25")
    return float(value if isinstance(value, float) else _whole_number(value))


def _duration(value: object) -> Duration:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('expected a duration with its unit, such as "500ms", "2s", "5m", "1h" or "36d"')
    return Duration(float(match.group(1)) * _SECONDS[match.group(2)])


def _port(value: object, default_port: int = 0) -> Port:
    expected = 'expected an IP address and a port, such as "127.0.0.1:9461" or "[::1]:9461"'
    host, port = _split_port(_text(value), default_port)
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(expected) from None
    if not 0 < port < 65536:
        raise ValueError(expected)
    return Port(host, port)


def nameserver(value: str) -> Port:
    """Read a nameserver's address, whose port is 53 unless it says otherwise. Raises ValueError."""
    return _port(value, default_port=53)


def _split_port(text: str, default_port: int) -> tuple[str, int]:
    match = _BRACKETED_PORT.fullmatch(text) or _PLAIN_PORT.fullmatch(text)
    if match is None:
        return text, default_port
    return match.group(1), int(match.group(2) or default_port)


def _socket_address(value: object) -> SocketAddress:
    text = _text(value)
    kind, _, rest = text.partition(":")
    if kind == "unix" and rest.startswith("/"):
        if len(rest.encode()) > 100:  # sun_path has 108 octets, and a temporary name is made of the path
            raise ValueError("expected a UNIX socket's path of at most 100 octets")
        return SocketAddress(rest, "", 0)
    if kind == "inet":
        try:
            return SocketAddress("", *_port(rest))
        except ValueError:
            pass
    raise ValueError('expected "unix:/absolute/path" or "inet:ADDRESS:PORT"')


def _networks(value: object) -> NetworkList:
    if not isinstance(value, list):
        raise ValueError("expected a list of networks")
    networks = []
    for item in value:
        try:
            network = ipaddress.ip_network(_text(item))
        except ValueError as error:
            raise ValueError(f'expected networks such as "192.0.2.0/24" or "2001:db8::/32" ({error})') from None
        if isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped:
            raise ValueError("expected IPv4 networks in their own form: a client's mapped address is compared as IPv4")
        if network.prefixlen < (8 if network.version == 4 else 16):
            raise ValueError("expected networks that are yours: this one is a large part of the Internet, or all of it")
        networks.append(network)
    return NetworkList(networks)


def _domain_name(value: object) -> DomainName:
    try:
        return DomainName(normalize(_text(value)))
    except InvalidDomain as error:
        raise ValueError(f"expected a domain name ({error})") from None


def _file_mode(value: object) -> FileMode:
    text = _text(value)
    if not re.fullmatch("0?[0-7]{3}", text):
        raise ValueError('expected permissions in octal, such as "0660"')
    return FileMode(int(text, 8))


def read_rate(value: object) -> Rate:
    """Read a rate. Raises ValueError."""
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    expected = 'expected so many in a time, such as "100/1h", "500/1d" or, of bytes, "50MB/1d"'
    if match is None:
        raise ValueError(expected)
    most, unit, time = match.groups()
    try:
        seconds = float(_duration(time))
    except ValueError:
        raise ValueError(expected) from None
    return Rate(int(most) * _OCTETS.get(unit, 1), seconds, bool(unit))


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _rates(value: object) -> Rates:
    return Rates(read_rate(item) for item in _listed(value))


def _words(value: object) -> Words:
    return Words(_text(item) for item in _listed(value))


def _patterns(value: object) -> Patterns:
    if not isinstance(value, Mapping):
        raise ValueError("expected a table of patterns")
    return Patterns((str(name), tuple(_pattern(item) for item in _listed(each))) for name, each in value.items())


def _pattern(value: object) -> str:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(value)


def _moment(value: object) -> Moment:
    expected = "expected a date, such as 2026-11-01 (without quotes)"
    if not isinstance(value, datetime.date):
        raise ValueError(expected)
    if not isinstance(value, datetime.datetime):
        value = datetime.datetime(value.year, value.month, value.day)
    try:
        return Moment(value.timestamp())
    except (ValueError, OverflowError, OSError):  # the year 1, in a zone that is ahead
        raise ValueError(expected) from None


# The reader of each type that a settings class may give an attribute.
READERS: Mapping[type, Callable[[object], object]] = {
    str: _text,
    bool: _boolean,
    int: _whole_number,
    float: _fraction,
    Duration: _duration,
    Port: _port,
    SocketAddress: _socket_address,
    NetworkList: _networks,
    DomainName: _domain_name,
    FileMode: _file_mode,
    Rate: read_rate,
    Rates: _rates,
    Words: _words,
    Patterns: _patterns,
    Moment: _moment,
    Path: lambda value: Path(_text(value)),
    StateAddress: read_state,
}
