"""`[policyd]`: how much may be sent, by whom, and what happens beyond it."""

from __future__ import annotations

import difflib
import re
from itertools import pairwise
from pathlib import Path

import attrs

from mailward.model.errors import ConfigError, Mistake
from mailward.model.limits import KNOWN, Window
from mailward.model.state import MemoryState
from mailward.policy.incidents import LOGIN_NETWORKS
from mailward.policy.limits import (
    ALL,
    MAX_LIMITS,
    MAX_WINDOWS,
    OF_ITEMS,
    STAGES,
    SUBJECTS,
    Act,
    Count,
    Limit,
    WarmUp,
)
from mailward.policy.matching import ATTRIBUTES, LOGIN, compile_match, normalize_pattern
from mailward.policy.ratelimit import MAX_ITEMS
from mailward.settings.common import MAX_WORKERS, Service, Shared, at_least, at_most, one_of
from mailward.settings.incidents import Incidents
from mailward.settings.logins import LoginSettings
from mailward.settings.values import Duration, Moment, Patterns, Port, Rate, Rates, SocketAddress, Words

MINUTE, DAY = 60.0, 86400.0
MAX_NAME = 40
MAX_TEXT = 200  # characters; an SMTP reply's line has at most 510
MAX_PATTERNS = 1000  # of one attribute; more belong into a file
FILE = "file:"
RESERVED = (KNOWN, "other", LOGIN_NETWORKS)  # words that stand where a limit's name may stand, and mean something else

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_ACTIONS = tuple(act.value for act in Act)
_COUNTS = tuple(count.value for count in Count)


def _check_name(_instance: object, _attribute: object, name: str) -> None:
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise ValueError(f'expected a name of a-z, 0-9 and "-", at most {MAX_NAME} characters')
    if name in RESERVED:
        raise ValueError(f'expected another name: "{name}" means something else where limits are named')


def _check_per(_instance: object, _attribute: object, per: Words) -> None:
    for subject in per:
        if subject not in (*SUBJECTS, ALL):
            near = difflib.get_close_matches(subject, SUBJECTS, 1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise ValueError(f'expected {", ".join(SUBJECTS)} or {ALL}, found "{subject[:80]}"{hint}')
    if not per or len(set(per)) < len(per) or (ALL in per and len(per) > 1):
        raise ValueError(f'expected one subject, or several different ones; "{ALL}" stands alone')


def _check_match(instance: LimitTable, _attribute: object, match: Patterns) -> None:
    for attribute, patterns in match.items():
        if attribute not in ATTRIBUTES:
            near = difflib.get_close_matches(attribute, ATTRIBUTES, 1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise ValueError(f'"{attribute[:80]}" is no attribute of the policy protocol{hint}')
        if not 0 < len(patterns) <= MAX_PATTERNS:
            raise ValueError(f"expected 1 to {MAX_PATTERNS} patterns for {attribute}")
        for pattern in patterns:
            _check_pattern(attribute, pattern)
    _check_stages(instance, match)


def _check_pattern(attribute: str, pattern: str) -> None:
    path = file_of(pattern)
    if path is not None:
        if not path.startswith("/"):
            raise ValueError(f'{attribute}: expected a file with its whole path, such as "file:/etc/mailward/list"')
        return
    try:
        normalize_pattern(attribute, pattern.removeprefix("!"))
    except ValueError as error:
        raise ValueError(f'{attribute}: {error}, found "{pattern[:80]}"') from None


def file_of(pattern: str) -> str | None:
    """Return the list file that a pattern names, or None."""
    text = pattern.removeprefix("!")
    return text.removeprefix(FILE) if text.startswith(FILE) else None


def _check_stages(instance: LimitTable, match: Patterns) -> None:
    """Refuse a limit that can count nowhere it looks at."""
    patterns = match.get("protocol_state", ())
    if instance.count not in _COUNTS or not patterns or any(file_of(pattern) is not None for pattern in patterns):
        return
    at = compile_match({"protocol_state": patterns})
    stages = STAGES[Count(instance.count)]
    if not any(at.allows("protocol_state", stage) for stage in stages):
        raise ValueError(f"it never counts anything: {instance.count} are counted at {', '.join(sorted(stages))}")


def _check_limit(instance: LimitTable, _attribute: object, rates: Rates) -> None:
    check_rates(rates, instance.count)


def check_rates(rates: Rates, count: str) -> None:
    """Raise ValueError where rates are none for what is counted, or contradict each other."""
    if not 0 < len(rates) <= MAX_WINDOWS:
        raise ValueError(f"expected 1 to {MAX_WINDOWS} windows")
    for rate in rates:
        _check_rate(rate, count)
    ordered = sorted(rates, key=lambda rate: rate.seconds)
    for shorter, longer in pairwise(ordered):
        if shorter.seconds == longer.seconds:
            raise ValueError("expected windows of different lengths")
        if shorter.most > longer.most:
            raise ValueError("expected a longer window to allow no less than a shorter one, which is never reached")


def _check_rate(rate: Rate, count: str) -> None:
    if not MINUTE <= rate.seconds <= 30 * DAY:
        raise ValueError("expected windows of 1m to 30d")
    if rate.is_octets and count != Count.BYTES.value:
        raise ValueError(f"expected a plain number: this counts {count}, not bytes")
    if count in [one.value for one in OF_ITEMS] and rate.most > MAX_ITEMS:
        raise ValueError(f"expected at most {MAX_ITEMS}: {count} are remembered one by one")


def _check_text(_instance: object, _attribute: object, text: str) -> None:
    if len(text) > MAX_TEXT or not text.isascii():
        raise ValueError(f"expected at most {MAX_TEXT} characters of ASCII, as an SMTP reply has them")
    if re.match(r"[245]\.?[0-9]", text):
        raise ValueError("expected no reply code in the text: it is the action's")
    unknown = set(_PLACEHOLDER.findall(text)) - {"limit", "wait"}
    if unknown or re.search("[{}]", _PLACEHOLDER.sub("", text)):
        raise ValueError("expected no braces but those of {limit} and {wait}")


def _check_suspend_after(instance: LimitTable, _attribute: object, after: int) -> None:
    if not 0 <= after <= 1_000_000:
        raise ValueError("expected 0 (never) to 1000000")
    if after and "sasl_username" not in instance.per:
        raise ValueError('expected "sasl_username" in per: what is not counted by account suspends none')
    if after and instance.shadow:
        raise ValueError("expected no shadow limit: it does nothing, and suspends nobody")


@attrs.frozen
class WarmUpTable:
    """`warm_up`: from `start` on at most `first` in a window, and twice as much after each `double_every`."""

    start: Moment
    first: int = attrs.field(validator=[at_least(1, "1"), at_most(10**9, "1000000000")])
    double_every: Duration = attrs.field(validator=[at_least(3600, "1h"), at_most(365 * DAY, "365d")])


@attrs.frozen(kw_only=True)
class LimitTable:
    """`[[policyd.limit]]`; what the words mean, mailward.policy.limits and mailward.policy.matching say.

    `text` is what the sender is told, behind the reply's code; in it {limit} stands for the limit that was reached ("200
    recipients in 1 hour"), and {wait} for the time until it clears ("12 minutes").
    """

    name: str = attrs.field(validator=_check_name)
    per: Words = attrs.field(default=Words(("sasl_username",)), validator=_check_per)
    match: Patterns = attrs.field(factory=Patterns, validator=_check_match)
    count: str = attrs.field(default=Count.MESSAGES.value, validator=one_of(*_COUNTS))
    limit: Rates = attrs.field(validator=_check_limit)
    action: str = attrs.field(default=Act.DEFER.value, validator=one_of(*_ACTIONS))
    text: str = attrs.field(default="", validator=_check_text)
    shadow: bool = False
    suspend_after: int = attrs.field(default=0, validator=_check_suspend_after)
    warm_up: WarmUpTable | None = None

    def made(self, match: Patterns) -> Limit:
        """Return the limit; `match` is its own with the list files read. Raises ValueError."""
        warm_up = self.warm_up
        return Limit(
            self.name,
            tuple(self.per),
            Count(self.count),
            windows_of(self.limit),
            Act(self.action),
            self.text,
            self.shadow,
            self.suspend_after,
            WarmUp(warm_up.start, warm_up.first, warm_up.double_every) if warm_up is not None else None,
            compile_match(match),
        )


def windows_of(rates: Rates) -> tuple[Window, ...]:
    """Return rates as windows, the shortest first."""
    return tuple(Window(rate.most, rate.seconds) for rate in sorted(rates, key=lambda rate: rate.seconds))


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
        _check_pattern(LOGIN, login)


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
    """`[policyd]`. Without any `[[policyd.limit]]` those of mailward.policy.limits.DEFAULT_LIMITS hold.

    `exempt` accounts have no limits. Whom somebody here writes to is a known correspondent for greylisting for `correspondents`;
    "0s": nobody is recorded. `tighten` is what is left of an account's limits while it logs in from too many networks.
    """

    socket: SocketAddress = SocketAddress("/var/spool/postfix/mailward/policyd.sock", "", 0)
    metrics: Port | None = Port("127.0.0.1", 9464)
    max_sessions: int = attrs.field(
        default=4000, validator=at_least(1, "1")
    )  # each smtpd has one or two, and they idle
    workers: int = attrs.field(default=1, validator=[at_least(0, "0"), at_most(MAX_WORKERS, str(MAX_WORKERS))])
    dovecot: Port | None = attrs.field(default=None, validator=_check_dovecot)
    dovecot_api_key_file: Path | None = attrs.field(default=None, validator=_check_path)
    limit: tuple[LimitTable, ...] = attrs.field(default=(), validator=_check_limits)
    overrides: Path | None = attrs.field(default=None, validator=_check_path)
    exempt: Words = attrs.field(default=Words(), validator=_check_exempt)
    correspondents: Duration = attrs.field(default=Duration(60 * DAY), validator=at_most(730 * DAY, "730d"))
    on_store_error: str = attrs.field(default="dunno", validator=one_of("dunno", "defer"))
    store_timeout: Duration = attrs.field(default=Duration(0.5), validator=[at_least(0.01, "10ms"), at_most(10, "10s")])
    tighten: float = attrs.field(default=0.25, validator=_check_tighten)
    incidents: Incidents = Incidents()
    logins: LoginSettings = LoginSettings()


@attrs.frozen(kw_only=True)
class Settings(Shared):
    """The configuration as policyd sees it."""

    policyd: Policyd = Policyd()


def check_state(settings: Settings, file: str) -> None:
    """Raise ConfigError where the workers would not share what they count; `file` is the configuration's."""
    if isinstance(settings.state.state, MemoryState) and settings.policyd.workers != 1:
        expected = 'expected "memory:" with workers = 1 alone: each worker would count for itself'
        raise ConfigError([Mistake(file, "state", expected)])
