"""Reading `state`: the address of the place where state is kept.

    sqlite:/FOLDER
    memory:
    redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]      also redis:///PATH/OF.SOCK[?db=DATABASE]
    rediss://... [?ca=FILE&cert=FILE&key=FILE]          with TLS
    redis+sentinel://[USER:PASSWORD@]HOST[:PORT],.../SERVICE[/DATABASE]
                      [?sentinel_user=..&sentinel_password=..&tls=true&ca=FILE&cert=FILE&key=FILE]
    redis+cluster://[USER:PASSWORD@]HOST[:PORT],...     [?tls=true&ca=FILE&cert=FILE&key=FILE]

What a name or a password has of `/ ? # @ : , &` is written `%2F` and so on. No mistake's text holds any part of the value.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from mailward.model.state import MemoryState, RedisState, RedisTopology, SqliteState, State

REDIS_PORT, SENTINEL_PORT = 6379, 26379
MAX_SERVERS = 100
MAX_SOCKET_PATH = 100  # sun_path has 108 octets
MAX_DATABASE = 65535  # far more than any server is set up for

_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")
_SERVER = re.compile(r"(?:\[(?P<address>[^\[\]]*)\]|(?P<name>[^:\[\]]*))(?::(?P<port>[0-9]{1,5}))?")
_SERVICE = re.compile(r"[A-Za-z0-9._-]{1,128}")
_TLS_FILES = ("ca", "cert", "key")
_EXPECTED = 'expected "sqlite:/folder", "redis://host", "rediss://host", "redis+sentinel://host,host/service" or "redis+cluster://host,host"'


class HiddenValueError(ValueError):
    """What is wrong with a value that may hold a password: whoever reports it shows none of it."""


@dataclass(frozen=True, slots=True)
class StateAddress:
    """Where state is kept, as `state` says it."""

    state: State


def read_state(value: object) -> StateAddress:
    """Read `state`. Raises HiddenValueError."""
    if not isinstance(value, str) or not value.isprintable():
        raise HiddenValueError(_EXPECTED)
    scheme, colon, rest = value.partition(":")
    if scheme == "sqlite" and colon:
        return StateAddress(_read_sqlite(rest))
    if value == "memory:":
        return StateAddress(MemoryState())
    if scheme not in _READERS or not rest.startswith("//"):
        raise HiddenValueError(_EXPECTED)
    return StateAddress(_READERS[scheme](_Address.split(rest[2:])))


def _read_sqlite(folder: str) -> SqliteState:
    if not folder.startswith("/") or "\0" in folder:
        raise HiddenValueError('expected a folder with its whole path, such as "sqlite:/var/lib/mailward"')
    return SqliteState(Path(folder))


@dataclass(frozen=True, slots=True)
class _Address:
    """The parts of `USER:PASSWORD@SERVERS/PATH?OPTIONS`."""

    username: str
    password: str
    servers: str
    path: tuple[str, ...]
    options: Mapping[str, str]

    @classmethod
    def split(cls, text: str) -> _Address:
        """Take an address apart. Raises HiddenValueError."""
        if "#" in text:
            raise HiddenValueError('expected no "#": in a password it is written %23')
        before, mark, query = text.partition("?")
        authority, slash, path = before.partition("/")
        credentials, at, servers = authority.rpartition("@")
        username, colon, password = credentials.partition(":")
        if (at and not colon) or "@" in credentials or "@" in path:
            raise HiddenValueError('expected "user:password@" or ":password@"; in them "@" is %40, "/" %2F and "?" %3F')
        parts = tuple(_decoded(part) for part in path.split("/")) if slash and path else ()
        return cls(_decoded(username), _decoded(password), servers, parts, _options(query) if mark else {})


def _decoded(text: str) -> str:
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        decoded = "\0"
    if not decoded.isprintable():
        raise HiddenValueError("expected what stands behind % to be UTF-8 without control characters")
    return decoded


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in query.split("&"):
        name, equals, text = part.partition("=")
        if not equals or not text or name in options:
            raise HiddenValueError('expected options such as "?ca=/etc/ssl/redis.pem&cert=...", each once')
        options[name] = _decoded(text)
    return options


def _read_alone(address: _Address, *, is_tls: bool = False) -> RedisState:
    is_socket = not address.servers and bool(address.path)
    if is_socket:
        options = _known(address, ("db",))
        path, database = "/" + "/".join(address.path), options.get("db")
        if is_tls or len(path.encode()) > MAX_SOCKET_PATH:
            raise HiddenValueError(
                f"expected a host, or without TLS a socket's path of at most {MAX_SOCKET_PATH} octets"
            )
        servers: tuple[tuple[str, int], ...] = ((path, 0),)
    else:
        options = _known(address, _TLS_FILES if is_tls else ())
        servers = _servers(address, REDIS_PORT, most=1)
        if len(address.path) > 1:
            raise HiddenValueError('expected "redis://host:port/database"')
        database = address.path[0] if address.path else None
    state = RedisState(RedisTopology.ALONE, servers, database=_database(database))
    return _with_access(state, address, options, is_tls=is_tls)


def _read_sentinel(address: _Address) -> RedisState:
    options = _known(address, ("sentinel_user", "sentinel_password", "tls", *_TLS_FILES))
    if not 1 <= len(address.path) <= 2 or not _SERVICE.fullmatch(address.path[0]):
        raise HiddenValueError(
            'expected the name by which the Sentinels know the master: "redis+sentinel://host,host/service"'
        )
    if "sentinel_user" in options and "sentinel_password" not in options:
        raise HiddenValueError("expected sentinel_password beside sentinel_user")
    state = RedisState(
        RedisTopology.SENTINEL,
        _servers(address, SENTINEL_PORT),
        service=address.path[0],
        database=_database(address.path[1] if len(address.path) == 2 else None),
        sentinel_username=options.get("sentinel_user", ""),
        sentinel_password=options.get("sentinel_password", ""),
    )
    return _with_access(state, address, options, is_tls=_is_tls(options))


def _read_cluster(address: _Address) -> RedisState:
    options = _known(address, ("tls", *_TLS_FILES))
    if address.path:
        raise HiddenValueError("expected no database: a cluster has only one")
    state = RedisState(RedisTopology.CLUSTER, _servers(address, REDIS_PORT))
    return _with_access(state, address, options, is_tls=_is_tls(options))


_READERS = {
    "redis": _read_alone,
    "rediss": lambda address: _read_alone(address, is_tls=True),
    "redis+sentinel": _read_sentinel,
    "redis+cluster": _read_cluster,
}


def _known(address: _Address, known: tuple[str, ...]) -> Mapping[str, str]:
    if not set(address.options) <= set(known):
        expected = f"the options {', '.join(known)}" if known else "no options"
        raise HiddenValueError(f"expected {expected} in this kind of address")
    return address.options


def _servers(address: _Address, default_port: int, most: int = MAX_SERVERS) -> tuple[tuple[str, int], ...]:
    texts = address.servers.split(",")
    if len(texts) > most:
        raise HiddenValueError(f"expected {'one host' if most == 1 else f'at most {most} hosts'}")
    return tuple(_server(text, default_port) for text in texts)


def _server(text: str, default_port: int) -> tuple[str, int]:
    expected = HiddenValueError(
        f'expected hosts such as "redis.example.net", "192.0.2.1:{default_port}" or "[2001:db8::1]:{default_port}"'
    )
    match = _SERVER.fullmatch(text)
    if match is None:
        raise expected
    port = int(match["port"] or default_port)
    if not 0 < port < 65536:
        raise expected
    if match["address"] is not None:
        try:
            return str(ipaddress.IPv6Address(match["address"])), port
        except ValueError:
            raise expected from None
    if not _HOST.fullmatch(match["name"]):
        raise expected
    return match["name"], port


def _database(text: str | None) -> int:
    if text is None:
        return 0
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > MAX_DATABASE:
        raise HiddenValueError(f"expected a database's number from 0 to {MAX_DATABASE}")
    return int(text)


def _is_tls(options: Mapping[str, str]) -> bool:
    said = options.get("tls", "false")
    if said not in ("true", "false"):
        raise HiddenValueError('expected "tls=true" or "tls=false"')
    if said == "false" and any(name in options for name in _TLS_FILES):
        raise HiddenValueError('expected "tls=true" beside ca, cert and key')
    return said == "true"


def _with_access(state: RedisState, address: _Address, options: Mapping[str, str], *, is_tls: bool) -> RedisState:
    if ("cert" in options) != ("key" in options):
        raise HiddenValueError("expected cert and key together")
    if not all(options.get(name, "/").startswith("/") for name in _TLS_FILES):
        raise HiddenValueError("expected whole paths for ca, cert and key")
    return replace(
        state,
        username=address.username,
        password=address.password,
        is_tls=is_tls,
        ca_file=options.get("ca", ""),
        certificate_file=options.get("cert", ""),
        key_file=options.get("key", ""),
    )
