"""`[policyd]`: how much may be sent, by whom, and what happens beyond it."""

from __future__ import annotations

from pathlib import Path

import attrs

from mailward.model.errors import ConfigError, Mistake
from mailward.model.state import MemoryState
from mailward.policy.limits import MAX_LIMITS
from mailward.policy.matching import LOGIN
from mailward.settings.common import MAX_WORKERS, METRICS, SOCKET, Service, Shared, at_least, at_most, one_of
from mailward.settings.incidents import Incidents
from mailward.settings.limit_table import MAX_PATTERNS, LimitTable, check_pattern
from mailward.settings.logins import LoginSettings
from mailward.settings.values import Duration, Port, SocketAddress, Words
from mailward.settings.words import says

DAY = 86400.0
MAX_CONNECTIONS = 15_000  # of a worker: each is one of the 16,384 files that it may have open


def _check_limits(_instance: object, _attribute: object, tables: tuple[LimitTable, ...]) -> None:
    if len(tables) > MAX_LIMITS:
        raise ValueError(f"expected at most {MAX_LIMITS} limits, found {len(tables)}")
    names = [table.name for table in tables]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f'expected each name once, found "{name[:80]}" {names.count(name)} times')


def _check_exempt(_instance: object, _attribute: object, logins: Words) -> None:
    if len(logins) > MAX_PATTERNS:
        raise ValueError(f"expected at most {MAX_PATTERNS} logins; more belong into a file")
    for login in logins:
        if login.startswith("!") or login in ("", "*"):
            raise ValueError(f'expected logins, "@domain" or "file:/path", found "{login}"')
        check_pattern(LOGIN, login)


def _check_dovecot(instance: Policyd, _attribute: object, place: Port | None) -> None:
    if place is not None and instance.dovecot_api_key_file is None:
        raise ValueError("expected dovecot_api_key_file beside it: whoever may report logins can lock accounts out")


def _check_path(_instance: object, _attribute: object, path: Path | None) -> None:
    if path is not None and not path.is_absolute():
        raise ValueError("expected a file with its whole path")


def _check_tighten(_instance: object, _attribute: object, part: float) -> None:
    if not 0.0 < part <= 1.0:
        raise ValueError("expected a part of the limits, above 0 and up to 1.0")


@attrs.frozen(kw_only=True)
class Policyd(Service):
    """`[policyd]`. Without any `[[policyd.limit]]` those of mailward.policy.limits.DEFAULT_LIMITS hold."""

    socket: SocketAddress = attrs.field(
        default=SocketAddress("/var/spool/postfix/mailward/policyd.sock", "", 0), metadata=SOCKET
    )
    metrics: Port | None = attrs.field(default=Port("127.0.0.1", 9464), metadata=METRICS)
    max_sessions: int = attrs.field(
        default=4000,
        validator=[at_least(1, "1"), at_most(MAX_CONNECTIONS, str(MAX_CONNECTIONS))],
        metadata=says(
            "How many connections each worker holds: each smtpd(8) of Postfix has one or two, and they idle."
        ),
    )
    workers: int = attrs.field(
        default=1,
        validator=[at_least(0, "0"), at_most(MAX_WORKERS, str(MAX_WORKERS))],
        metadata=says(
            """How many processes serve; `0`: one more than the processor has cores. One counts a delivery attempt once,
            over all its calls; more do so only where Postfix calls at one stage."""
        ),
    )
    dovecot: Port | None = attrs.field(
        default=None,
        validator=_check_dovecot,
        metadata=says(
            """Where Dovecot asks whether somebody may log in (its auth_policy_server_url). Without it nobody is asked.
            A socket of systemd's with FileDescriptorName=dovecot wins. Needs `dovecot_api_key_file`; a reload does not
            change it.""",
            example='"127.0.0.1:9465"',
        ),
    )
    dovecot_api_key_file: Path | None = attrs.field(
        default=None,
        validator=_check_path,
        metadata=says(
            """A file with the key that Dovecot has to show in the header X-API-Key. Only root and the group mailward
            may be able to read it.""",
            example='"/etc/mailward/dovecot-api-key"',
        ),
    )
    limit: tuple[LimitTable, ...] = attrs.field(
        default=(),
        validator=_check_limits,
        metadata=says(
            "A limit on what is sent. The first of these replaces the limits that hold by default.",
            example="""
            [[policyd.limit]]
            name = "newsletters"
            per = "sasl_username"
            match = { sasl_username = "@lists.example.com", client_address = "!192.0.2.0/24" }
            count = "recipients"
            limit = ["5000/1h", "20000/1d"]
            action = "hold"
            """,
        ),
    )
    overrides: Path | None = attrs.field(
        default=None,
        validator=_check_path,
        metadata=says(
            """A file with what single accounts, domains and classes of accounts may do; each line: `class NAME
            LOGIN...` or `SUBJECT LIMIT WINDOW...`, SUBJECT a login, @domain or class:NAME, LIMIT a limit's name or `*`
            for every one, WINDOW such as 500/1h, or `unlimited`.""",
            example='"/etc/mailward/overrides"',
        ),
    )
    exempt: Words = attrs.field(
        default=Words(),
        validator=_check_exempt,
        metadata=says(
            "Accounts without limits: logins, `@domain`, `file:/path`.",
            example='["backup@example.com", "@example.org"]',
        ),
    )
    correspondents: Duration = attrs.field(
        default=Duration(60 * DAY),
        validator=at_most(730 * DAY, "730d"),
        metadata=says(
            "How long greylisting lets the answers pass of whom somebody here has written to. `0s`: nobody is recorded."
        ),
    )
    on_store_error: str = attrs.field(
        default="dunno",
        validator=one_of("dunno", "defer"),
        metadata=says(
            """What is answered where nobody can count: `"dunno"`, as if there were no limit, or `"defer"`. A state that
            is away is no such case: limits are then held by what is counted in memory."""
        ),
    )
    store_timeout: Duration = attrs.field(
        default=Duration(0.5),
        validator=[at_least(0.01, "10ms"), at_most(10, "10s")],
        metadata=says(
            "How long the state may take to answer. Two slower answers in a row, and it is left alone until it is back."
        ),
    )
    tighten: float = attrs.field(
        default=0.25,
        validator=_check_tighten,
        metadata=says(
            "The part of its limits that an account has while it logs in from too many networks. `1.0`: all."
        ),
    )
    incidents: Incidents = attrs.field(
        default=Incidents(),
        metadata=says(
            """When an incident is over, who is told of it, and how open sessions of a suspended account are ended. An
            account that reaches a limit opens an incident."""
        ),
    )
    logins: LoginSettings = attrs.field(
        default=LoginSettings(),
        metadata=says(
            """How Dovecot's questions are answered: how many wrong passwords slow and deny a login, and from how many
            networks one person logs in. Different passwords are counted, each once."""
        ),
    )


@attrs.frozen(kw_only=True)
class Settings(Shared):
    """The configuration as policyd sees it."""

    policyd: Policyd = attrs.field(
        default=Policyd(),
        metadata=says("mailward-policyd(8): how much may be sent, by whom, and what happens beyond it."),
    )


def check_state(settings: Settings, file: str) -> None:
    """Raise ConfigError where the workers would not share what they count; `file` is the configuration's."""
    if isinstance(settings.state.state, MemoryState) and settings.policyd.workers != 1:
        expected = 'expected "memory:" with workers = 1 alone: each worker would count for itself'
        raise ConfigError([Mistake(file, "state", expected)])
