"""`[[policyd.limit]]`: one limit as the operator writes it."""

from __future__ import annotations

import difflib
import re
from itertools import pairwise

import attrs

from mailward.model.limits import KNOWN, Window
from mailward.policy.incidents import LOGIN_NETWORKS
from mailward.policy.limits import (
    ALL,
    MAX_WINDOWS,
    OF_ITEMS,
    STAGES,
    SUBJECTS,
    Act,
    Count,
    Limit,
    WarmUp,
)
from mailward.policy.matching import ATTRIBUTES, compile_match, normalize_pattern
from mailward.policy.ratelimit import MAX_ITEMS
from mailward.settings.common import at_least, at_most, one_of
from mailward.settings.values import Duration, Moment, Patterns, Rate, Rates, Words
from mailward.settings.words import says

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
            check_pattern(attribute, pattern)
    _check_stages(instance, match)


def check_pattern(attribute: str, pattern: str) -> None:
    """Raise ValueError where a pattern is none for this attribute."""
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
    """`warm_up`: a limit that grows."""

    start: Moment = attrs.field(metadata=says("The day on which it begins, without quotes."))
    first: int = attrs.field(
        validator=[at_least(1, "1"), at_most(10**9, "1000000000")],
        metadata=says("How much a window allows from that day on."),
    )
    double_every: Duration = attrs.field(
        validator=[at_least(3600, "1h"), at_most(365 * DAY, "365d")],
        metadata=says("After each such time it is twice as much, until the limit itself is reached."),
    )


@attrs.frozen(kw_only=True)
class LimitTable:
    """`[[policyd.limit]]`; mailward.policy.limits says what is made of it."""

    name: str = attrs.field(
        validator=_check_name,
        metadata=says("What it is called in the log, in metrics and by `mailward limits`: of a-z, 0-9 and `-`."),
    )
    per: Words = attrs.field(
        default=Words(("sasl_username",)),
        validator=_check_per,
        metadata=says(
            """Whose counter it is: `"sasl_username"`, `"sasl_domain"`, `"sender"`, `"sender_domain"`,
            `"client_address"`, `"client_network"`, `"recipient_domain"`; a list of these, where each combination has a
            counter; or `"all"`, one for everything."""
        ),
    )
    match: Patterns = attrs.field(
        factory=Patterns,
        validator=_check_match,
        metadata=says(
            """Which requests it is about: attributes of Postfix's policy protocol, each with a value or a list: `"*"`
            is any but none, `""` none, `"@example.com"` all of a domain, `"192.0.2.0/24"` a network, `"file:/path"` a
            file with one a line; `"!..."` what must not be. Each attribute that is named must match."""
        ),
    )
    count: str = attrs.field(
        default=Count.MESSAGES.value,
        validator=one_of(*_COUNTS),
        metadata=says(
            """What is counted: `"messages"`, `"recipients"`, `"bytes"`, `"distinct-recipients"` (different ones), or
            `"first-time-recipients"` (those it never wrote to before)."""
        ),
    )
    limit: Rates = attrs.field(
        validator=_check_limit,
        metadata=says(
            f"""How much in a window that slides, `"200/1h"`, of bytes `"50MB/1d"`; or a list of up to {MAX_WINDOWS}
            windows, none of which is ever exceeded."""
        ),
    )
    action: str = attrs.field(
        default=Act.DEFER.value,
        validator=one_of(*_ACTIONS),
        metadata=says(
            """What happens beyond it: `"defer"` (the sender tries again), `"reject"`, `"hold"` (the message is taken,
            and waits in Postfix's hold queue), or `"log"` (nothing else)."""
        ),
    )
    text: str = attrs.field(
        default="",
        validator=_check_text,
        metadata=says(
            """What the sender is told, behind the reply's code. In it {limit} stands for the limit that was reached
            ("200 recipients in 1 hour"), {wait} for the time until it clears ("12 minutes"). Empty: a text of
            Mailward's own."""
        ),
    )
    shadow: bool = attrs.field(
        default=False, metadata=says("`true`: only say in log and counters what would have been done.")
    )
    suspend_after: int = attrs.field(
        default=0,
        validator=_check_suspend_after,
        metadata=says(
            """How many messages it refuses until the account is suspended, `0`: never. Each message is one, however
            many of its recipients are refused. `mailward limits resume` gives an account back."""
        ),
    )
    warm_up: WarmUpTable | None = attrs.field(
        default=None,
        metadata=says(
            'A limit that grows, for a new sender: `{ start = 2026-11-01, first = 50, double_every = "3d" }`.'
        ),
    )

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
