"""Where state is kept, as the configuration's `state` says; mailward.adapters.stores opens it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path


class Durability(Enum):
    """What an answer survives that was given."""

    PROCESS = "process"  # the death of every process of ours (KILL)
    POWER = "power"  # that of the machine


@dataclass(frozen=True, slots=True)
class SqliteState:
    """A folder with one SQLite file for each program."""

    folder: Path


class RedisTopology(Enum):
    """How the Redis servers are found."""

    ALONE = "redis"
    SENTINEL = "redis+sentinel"
    CLUSTER = "redis+cluster"


@dataclass(frozen=True, slots=True)
class RedisState:
    """Redis or Valkey. `servers` are (name or address, port): the server, the Sentinels, or some of the cluster's nodes.

    `service` is the name the Sentinels know the master by. Files are PEM; `ca_file` empty is the system's authorities.
    """

    topology: RedisTopology
    servers: tuple[tuple[str, int], ...]
    service: str = ""
    database: int = 0
    username: str = ""
    password: str = field(default="", repr=False)
    sentinel_username: str = ""
    sentinel_password: str = field(default="", repr=False)
    is_tls: bool = False
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""


@dataclass(frozen=True, slots=True)
class MemoryState:
    """Nothing outlives the process, and nobody shares it: for tests, and for trying things out."""


@dataclass(frozen=True, slots=True)
class StateSize:
    """What a program's state takes on this machine: octets of disk, and which part is in use of what there may be (0 to 1)."""

    octets: int
    fill: float


State = SqliteState | RedisState | MemoryState


def name_of(state: State) -> str:
    """Return a state as the configuration writes it, without its passwords; the caller escapes it."""
    match state:
        case SqliteState():
            return f"sqlite:{state.folder}"
        case RedisState():
            is_plain_tls = state.is_tls and state.topology is RedisTopology.ALONE
            scheme = "rediss" if is_plain_tls else state.topology.value
            servers = ",".join(_server(name, port) for name, port in state.servers)
            path = "/".join(filter(None, (state.service, str(state.database or ""))))
            return f"{scheme}://{servers}" + (f"/{path}" if path else "")
        case MemoryState():
            return "memory"


def _server(name: str, port: int) -> str:
    if not port:  # the path of a socket
        return name
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
