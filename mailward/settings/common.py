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
from mailward.settings.words import says

MAX_WORKERS = 64
# Of a worker: each takes a thread and up to three of the 16,384 files that it may have open, two of them for the DNS.
MAX_SESSIONS = 5000
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
    """`[dns]`: whom to ask, for how long, and how much of what was said is kept."""

    nameservers: tuple[str, ...] = attrs.field(
        default=(),
        validator=_check_nameservers,
        metadata=says(
            """IP addresses of the nameservers, with a port where it is not 53. Two or more: where the first is slow the
            second is asked as well. `[]`: those of /etc/resolv.conf, also when it changes. Let the first be a
            resolver of this machine's own.""",
            example='["127.0.0.1", "9.9.9.9:53"]',
        ),
    )
    timeout: Duration = attrs.field(
        default=Duration(2.0),
        validator=[at_least(0.05, "50ms"), at_most(60, "1m")],
        metadata=says("How long one nameserver may take for one query."),
    )
    deadline: Duration = attrs.field(
        default=Duration(20.0),
        validator=[at_least(0.05, "50ms"), at_most(600, "10m")],
        metadata=says("How long all queries of one message may take together (RFC 7208 4.6.4)."),
    )
    queries: int = attrs.field(
        default=120,
        validator=[at_least(1, "1"), at_most(MAX_QUERIES, str(MAX_QUERIES))],
        metadata=says("How many queries one message may make. SPF's `mx` alone may need more than 100."),
    )
    control: str = attrs.field(
        default=".",
        validator=_check_control,
        metadata=says(
            """A domain whose nameservers are asked for where a nameserver may be away; what senders' names do or do not
            answer says nothing of that. It exists, and nobody who sends mail can choose it. With the root, which every
            resolver remembers, a new name below `com` is asked for as well.""",
            example='"example.com"',
        ),
    )
    cache: int = attrs.field(
        default=5000,
        validator=[at_least(1, "1"), at_most(MAX_CACHED, str(MAX_CACHED))],
        metadata=says(
            "How many answers each worker remembers, for as long as they hold; while no nameserver answers, longer."
        ),
    )


# Every daemon's own default, with the same words.
SOCKET = says(
    """Where Postfix connects: `"unix:/path"` or `"inet:ADDRESS:PORT"`. A socket that systemd hands over wins. A reload
    changes this as little as `socket_mode`, `socket_group` and `metrics`: restart."""
)
METRICS = says(
    """Address of the HTTP server with /metrics for Prometheus, /healthz, /readyz, and / for a browser. It answers
    everybody who gets there, on loopback every account of this machine; the last errors on its page may name
    addresses, logins and clients of mail. `""`: none of that. An address that the machine gets later, as a VPN's, is
    answered from then on."""
)


@attrs.frozen(kw_only=True)
class Service:
    """What every daemon's table has: where it listens, how many processes serve, how they end."""

    socket: SocketAddress = attrs.field(metadata=SOCKET)
    socket_mode: FileMode = attrs.field(
        default=FileMode(0o660),
        metadata=says("Permissions of a UNIX socket that the daemon makes itself; systemd has those of its unit."),
    )
    socket_group: str = attrs.field(
        default="",
        metadata=says(
            "Group of a UNIX socket that the daemon makes itself. Empty: the daemon's own.", example='"postfix"'
        ),
    )
    metrics: Port | None = attrs.field(default=None, metadata=METRICS)
    workers: int = attrs.field(
        default=0,
        validator=_check_workers,
        metadata=says("How many processes serve. `0`: one more than the processor has cores."),
    )
    worker_timeout: Duration = attrs.field(
        default=Duration(20.0),
        validator=[at_least(2, "2s"), at_most(3600, "1h")],
        metadata=says("A worker that gives no sign of life for so long is killed and replaced."),
    )
    drain_timeout: Duration = attrs.field(
        default=Duration(20.0),
        validator=[at_least(0.1, "100ms"), at_most(86400, "1d")],
        metadata=says(
            """At a stop, how long sessions that are open may take to finish. Where TimeoutStopSec= of the unit is less, this
            counts."""
        ),
    )
    reload_timeout: Duration = attrs.field(
        default=Duration(300.0),
        validator=[at_least(0.1, "100ms"), at_most(86400, "1d")],
        metadata=says(
            """At a reload, how long open sessions may take to finish with the old configuration; Postfix waits as long
            for the end of a message. (mailward-policyd keeps its sessions through a reload.)"""
        ),
    )
    max_sessions: int = attrs.field(
        default=500,
        validator=[at_least(1, "1"), at_most(MAX_SESSIONS, str(MAX_SESSIONS))],
        metadata=says("How many sessions each worker serves at a time."),
    )
    log_level: str = attrs.field(
        default="info",
        validator=one_of("debug", "info", "warning", "error", "critical"),
        metadata=says(
            """`"debug"`; `"info"`, a line for each message; `"warning"`, something outside misbehaves; `"error"`,
            something does not work as it should; `"critical"`, somebody must act. What is below that is not logged."""
        ),
    )


def own_name() -> DomainName:
    """Return the host's name, the default of `authserv_id`; "localhost" where it has one that cannot stand in a header field."""
    try:
        return DomainName(normalize(socket.gethostname()))
    except InvalidDomain:
        return DomainName("localhost")


@attrs.frozen(kw_only=True)
class Shared:
    """The configuration as every program sees it; each replaces its own table by what it may hold, and leaves the others'."""

    authserv_id: DomainName = attrs.field(
        factory=own_name,
        metadata=says(
            """The name under which results are written into Authentication-Results, and that no foreign field may
            claim; also what notices call this machine. A full name that is yours alone.""",
            default="this host's name",
            example='"mx.example.net"',
        ),
    )
    state: StateAddress = attrs.field(
        default=StateAddress(SqliteState(Path("/var/lib/mailward"))),
        metadata=says(
            """Where mailward-greylist and mailward-policyd keep what they remember. `"sqlite:/FOLDER"` on one machine:
            a file for each of them.

            Several machines share a Redis or Valkey, for which each needs Debian's python3-redis:
            `"redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]"` or `"redis:///PATH/OF.SOCK"`; with TLS
            `"rediss://HOST?ca=FILE&cert=FILE&key=FILE"`;
            `"redis+sentinel://HOST,HOST/SERVICE"`, `"redis+cluster://HOST,HOST"`, both with TLS where they end in
            `?tls=true`. What a password has of `/ ? # @ : , &` is written `%2F` and so on. An address with a password
            belongs into a file of conf.d that root and the group mailward alone read (0640).""",
            example='"redis://:PASSWORD@redis.example.net/0"',
        ),
    )
    durability: str = attrs.field(
        default="process",
        validator=one_of("process", "power"),
        metadata=says(
            """What has been answered outlives the death of the daemon (`"process"`), or that of the machine as well
            (`"power"`), which costs a write to the disk for each decision. Of SQLite; Redis has settings of its own."""
        ),
    )
    dns: Dns = attrs.field(
        default=Dns(), metadata=says("Whom to ask in the DNS, for how long, and how much of what was said is kept.")
    )
    dkim_sign: Any = attrs.field(factory=dict, metadata={"key": "dkim-sign"})
    auth_verify: Any = attrs.field(factory=dict, metadata={"key": "auth-verify"})
    greylist: Any = attrs.field(factory=dict)
    policyd: Any = attrs.field(factory=dict)
