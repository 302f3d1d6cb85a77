"""What the programs' tables have in common: the sockets, the processes, the DNS."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from mailward.model.domain import InvalidDomain, normalize
from mailward.model.state import SqliteState
from mailward.settings.state import StateAddress
from mailward.settings.values import DomainName, Duration, FileMode, Port, SocketAddress, nameserver

MAX_WORKERS = 64
MAX_QUERIES = 1000
MAX_CACHED = 100_000  # entries; the octets are bounded besides


def _check_nameservers(_instance: object, _attribute: object, value: tuple[str, ...]) -> None:
    for item in value:
        try:
            nameserver(item)
        except ValueError:
            raise ValueError(f'expected IP addresses such as "9.9.9.9" or "127.0.0.1:53", found "{item}"') from None


Validator = Callable[[object, "attrs.Attribute[Any]", Any], None]


def at_least(least: float, shown: str) -> Validator:
    """Return a validator that takes numbers from `least` on; `shown` is how the message names it."""

    def check(_instance: object, _attribute: attrs.Attribute[Any], value: float) -> None:
        if value < least:
            raise ValueError(f"expected at least {shown}")

    return check


def at_most(most: float, shown: str) -> Validator:
    """Return a validator that takes numbers up to `most`; `shown` is how the message names it."""

    def check(_instance: object, _attribute: attrs.Attribute[Any], value: float) -> None:
        if value > most:
            raise ValueError(f"expected at most {shown}")

    return check


def one_of(*words: str) -> Validator:
    """Return a validator that takes only these words."""

    def check(_instance: object, _attribute: attrs.Attribute[Any], value: str) -> None:
        if value not in words:
            raise ValueError(f'expected one of {", ".join(words)}, found "{value}"')

    return check


def _check_workers(_instance: object, _attribute: object, value: int) -> None:
    if not 0 <= value <= MAX_WORKERS:
        raise ValueError(f"expected 1 to {MAX_WORKERS}, or 0 for one more than the processor has cores, found {value}")


def _check_control(_instance: object, _attribute: object, value: str) -> None:
    try:
        normalize(value) if value != "." else ""
    except InvalidDomain as error:
        raise ValueError(f'expected a domain name, or "." for the root ({error})') from None


@attrs.frozen
class Dns:
    """`[dns]`: whom to ask, for how long, and how much of what was said is kept.

    No nameservers: those of /etc/resolv.conf. `timeout` is one server's; `deadline` and `queries` are one message's. `control`
    is the domain whose nameservers are asked for where a server may be away: one that nobody who sends mail can choose,
    and that exists. With the root, which every resolver remembers, a new name below `com` is asked for as well. `cache`
    counts answers, in each worker.
    """

    nameservers: tuple[str, ...] = attrs.field(default=(), validator=_check_nameservers)
    timeout: Duration = attrs.field(default=Duration(2.0), validator=[at_least(0.05, "50ms"), at_most(60, "1m")])
    deadline: Duration = attrs.field(default=Duration(20.0), validator=[at_least(0.05, "50ms"), at_most(600, "10m")])
    queries: int = attrs.field(default=120, validator=[at_least(1, "1"), at_most(MAX_QUERIES, str(MAX_QUERIES))])
    control: str = attrs.field(default=".", validator=_check_control)
    cache: int = attrs.field(default=5000, validator=[at_least(1, "1"), at_most(MAX_CACHED, str(MAX_CACHED))])


@attrs.frozen(kw_only=True)
class Service:
    """What every daemon's table has: where it listens, how many processes serve, how they end.

    `workers` 0 is one more than the cores. A worker that answers nothing for `worker_timeout` is killed and replaced. A
    worker told to leave finishes the sessions it has: at a stop for at most `drain_timeout`, at a reload for at most
    `reload_timeout`, which is as long as Postfix waits for the end of a message. `max_sessions` is each worker's.
    """

    socket: SocketAddress
    socket_mode: FileMode = FileMode(0o660)
    socket_group: str = ""
    metrics: Port | None = None
    workers: int = attrs.field(default=0, validator=_check_workers)
    worker_timeout: Duration = attrs.field(default=Duration(20.0), validator=at_least(2, "2s"))
    drain_timeout: Duration = attrs.field(default=Duration(20.0), validator=at_least(0.1, "100ms"))
    reload_timeout: Duration = attrs.field(default=Duration(300.0), validator=at_least(0.1, "100ms"))
    max_sessions: int = attrs.field(default=500, validator=at_least(1, "1"))
    log_level: str = attrs.field(default="info", validator=one_of("debug", "info", "warning", "error", "critical"))


def own_name() -> DomainName:
    """Return the host's name, the default of `authserv_id`; "localhost" where it has one that cannot stand in a header field."""
    try:
        return DomainName(normalize(socket.gethostname()))
    except InvalidDomain:
        return DomainName("localhost")


@attrs.frozen(kw_only=True)
class Shared:
    """The configuration as every program sees it; each replaces its own table by what it may hold, and leaves the others'."""

    authserv_id: DomainName = attrs.field(factory=own_name)
    state: StateAddress = StateAddress(SqliteState(Path("/var/lib/mailward")))
    durability: str = attrs.field(default="process", validator=one_of("process", "power"))
    dns: Dns = Dns()
    dkim_sign: Any = attrs.field(factory=dict, metadata={"key": "dkim-sign"})
    auth_verify: Any = attrs.field(factory=dict, metadata={"key": "auth-verify"})
    greylist: Any = attrs.field(factory=dict)
    policyd: Any = attrs.field(factory=dict)
