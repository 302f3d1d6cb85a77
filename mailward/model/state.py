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


State = SqliteState | RedisState | MemoryState
