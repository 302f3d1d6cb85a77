"""What Postfix is answered where a limit is reached, in words for people. No I/O.

Of a request nothing is in an answer: neither its addresses nor its names can write a line of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mailward.model.limits import Charge, Force, Outcome, Reading, Window
from mailward.policy.limits import Act, Count, Limit

# Why an answer is what it is: words of the log and of the metrics.
REASONS = ("granted", "limit", "hold", "log", "suspended", "exempt", "store-error")

_NOUNS = {
    Count.MESSAGES: "messages",
    Count.RECIPIENTS: "recipients",
    Count.FIRST_TIME: "first-time recipients",
    Count.DISTINCT: "different recipients",
}
_UNITS = ((86400.0, "day"), (3600.0, "hour"), (60.0, "minute"), (1.0, "second"))
_SIZES = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))
_CODES = {Act.DEFER: ("DEFER", "4.7.1"), Act.REJECT: ("REJECT", "5.7.1")}


@dataclass(frozen=True, slots=True)
class Hit:
    """A limit that a request has reached.

    `account`: whose hit it is, and `suspend_after` so many refused ones it is suspended; 0: never, and where this limit refused
    nothing. A request is one hit of its account, whatever number of limits it reached: with the others `account` is empty, and
    where others used up the limit, too.
    """

    account: str
    limit: str
    suspend_after: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What Postfix is answered, and what is to be told of it.

    `action` is the whole of Postfix's action. `limit` is the one that decided, `clears_in` after how many seconds the request
    would be granted. `hits` are all limits that were reached; `shadows` are those that would have been.
    """

    action: str
    reason: str
    limit: str = ""
    clears_in: float = 0.0
    hits: tuple[Hit, ...] = ()
    shadows: tuple[str, ...] = ()
    is_refusal: bool = False


GRANTED: Final = Decision("DUNNO", "granted")


def answer_of(account: str, limits: Sequence[Limit], charges: Sequence[Charge], outcome: Outcome) -> Decision:
    """Answer a request that reached a limit; a request that is refused was charged for none."""
    over = [three for three in zip(limits, charges, outcome.readings, strict=True) if three[2].is_over]
    shadows = tuple(dict.fromkeys(limit.name for limit, _, _ in over if limit.is_shadow))
    real = [three for three in over if not three[0].is_shadow]
    # One limit has several charges where an address may mean several domains.
    hits = _hits(account, list({limit.name: limit for limit, _, _ in real}.values()))
    refusing = [three for three in real if three[1].force is Force.ENFORCED]
    if refusing:
        limit, charge, reading = refusing[0]
        clears_in = max(reading.clears_in for _, _, reading in refusing)
        return Decision(
            _refusal(limit, charge, reading, clears_in), "limit", limit.name, clears_in, hits, shadows, True
        )
    for act in (Act.HOLD, Act.LOG):
        for limit, charge, reading in real:
            if limit.act is act:
                action = f"HOLD {_reached(limit, charge, reading)}" if act is Act.HOLD else "DUNNO"
                return Decision(action, act.value, limit.name, reading.clears_in, hits, shadows)
    return Decision("DUNNO", "granted", shadows=shadows)


def _hits(account: str, over: Sequence[Limit]) -> tuple[Hit, ...]:
    """Return the limits that were reached; the account's is the one that suspends soonest, for it says why, else its first.

    Of those that refuse, where any does: what others would have logged or held was not sent.
    """
    own = [limit for limit in over if account and limit.is_of_accounts]
    worst = min(own, key=lambda limit: (limit.act not in _CODES, _suspends(limit) or math.inf), default=None)
    return tuple(
        Hit(account, limit.name, _suspends(limit)) if limit is worst else Hit("", limit.name, 0) for limit in over
    )


def _suspends(limit: Limit) -> int:
    return limit.suspend_after if limit.act in _CODES else 0


def _refusal(limit: Limit, charge: Charge, reading: Reading, clears_in: float) -> str:
    action, code = _CODES[limit.act]
    amount, wait = shown_limit(limit.count, _exceeded(charge, reading)), shown_wait(clears_in)
    if limit.text:
        return f"{action} {code} " + limit.text.replace("{limit}", amount).replace("{wait}", wait or "a long time")
    return f"{action} {code} Sending limit reached ({amount})" + (f"; try again in {wait}" if wait else "")


def _reached(limit: Limit, charge: Charge, reading: Reading) -> str:
    return limit.text or f"limit {limit.name} reached ({shown_limit(limit.count, _exceeded(charge, reading))})"


def _exceeded(charge: Charge, reading: Reading) -> Window:
    """Return the longest window that is full."""
    full = [
        window
        for window, total in zip(charge.windows, reading.totals, strict=True)
        if total + (charge.cost if charge.force is not Force.FORCED else 0) > window.most
    ]
    return full[-1] if full else charge.windows[-1]


def shown_limit(count: Count, window: Window) -> str:
    """Return a window in words.

    >>> shown_limit(Count.RECIPIENTS, Window(200, 3600.0)), shown_limit(Count.BYTES, Window(50_000_000, 86400.0))
    ('200 recipients in 1 hour', '50 MB in 1 day')
    """
    noun = f"{window.most} {_NOUNS[count]}" if count in _NOUNS else _shown_octets(window.most)
    return f"{noun} in {shown_seconds(window.seconds)}"


def _shown_octets(octets: int) -> str:
    for size, unit in _SIZES:
        if octets >= size:
            return f"{octets / size:g} {unit}"
    return f"{octets} bytes"


def shown_seconds(seconds: float) -> str:
    """Return a length of time in the largest unit that it is whole in.

    >>> shown_seconds(3600.0), shown_seconds(5400.0), shown_seconds(30 * 86400.0)
    ('1 hour', '90 minutes', '30 days')
    """
    for unit, name in _UNITS:
        if seconds >= unit and seconds % unit == 0:
            return _plural(int(seconds // unit), name)
    return _plural(math.ceil(seconds), "second")


def shown_wait(seconds: float) -> str:
    """Return how long to wait, rounded up so that who waits does not come too soon; empty where it is no use.

    >>> shown_wait(12.2), shown_wait(700.0), shown_wait(90_000.0), shown_wait(math.inf)
    ('13 seconds', '12 minutes', '25 hours', '')
    """
    if not math.isfinite(seconds):
        return ""
    for unit, name in _UNITS:
        if seconds > 2 * unit or unit == 1.0:
            return _plural(max(1, math.ceil(seconds / unit)), name)
    raise AssertionError("the last unit fits")


def _plural(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"
