"""Dialogues with what counts, as text: what the definition says (mailward.policy.ratelimit) is what every store does.

A line is a time since the beginning, charges, and what becomes of the request: "charged" or "refused". A charge is an owner, a
limit of LIMITS and perhaps the rest of a pair (alice/hour, alice/pair/example.org), perhaps =COST or @ITEM, and perhaps how it is
forced: "?" for a shadow, "!" for one that is charged all the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from mailward.model.limits import Charge, Charging, CounterKey, Force, Kind, Outcome, Reading, Sent, Window
from mailward.policy import ratelimit
from mailward.policy.ratelimit import Kept

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
FORCES = {"": Force.ENFORCED, "?": Force.SHADOW, "!": Force.FORCED}

LIMITS: dict[str, tuple[Kind, tuple[Window, ...]]] = {
    "hour": (Kind.AMOUNT, (Window(5, 3600.0),)),
    "hour-and-day": (Kind.AMOUNT, (Window(5, 3600.0), Window(8, 86400.0))),
    "pair": (Kind.AMOUNT, (Window(2, 3600.0),)),
    "new": (Kind.FIRST_TIME, (Window(3, 86400.0),)),
    "surge": (Kind.FIRST_TIME, (Window(2, 600.0),)),
    "learn": (Kind.FIRST_TIME, ()),
    "different": (Kind.DISTINCT, (Window(2, 3600.0),)),
    "different-too": (Kind.DISTINCT, (Window(2, 60.0), Window(3, 3600.0))),
    "octets": (Kind.AMOUNT, (Window(10_000_000_000, 3600.0),)),
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a dialogue."""

    at: float
    charging: Charging
    is_charged: bool


@dataclass
class Paper:
    """All that is counted, on paper: the definition over a dictionary, that what the stores keep is compared with."""

    kept: dict[CounterKey, Kept] = field(default_factory=dict)
    sent: list[tuple[float, Sent]] = field(default_factory=list)

    def charge(self, charging: Charging, now: float) -> Outcome:
        values = {key: kept.value for key, kept in self.kept.items() if kept.expires > now}
        outcome, changes = ratelimit.charge(charging, values, now)
        self.kept.update(changes)
        if outcome.is_charged and charging.sent is not None:
            self.sent.append((now, charging.sent))
        return outcome

    def of(self, owner: str) -> dict[CounterKey, bytes]:
        """Return what is kept of an owner."""
        return {key: kept.value for key, kept in self.kept.items() if key.owner == owner}


def read(dialogue: str) -> Iterator[Line]:
    for at, *charges, word in filter(None, map(str.split, dialogue.splitlines())):
        yield Line(moment(at), Charging(tuple(map(charge, charges))), {"charged": True, "refused": False}[word])


def charge(text: str) -> Charge:
    """Return the charge that a dialogue calls alice/hour=3."""
    found = re.fullmatch(r"(?P<key>[^=@?!]+)(=(?P<cost>\d+))?(@(?P<item>\w+))?(?P<force>[?!]?)", text)
    assert found is not None, text
    owner, limit, *rest = found["key"].split("/")
    kind, windows = LIMITS[limit]
    key = CounterKey(f"sasl_username={owner}", limit, f"recipient_domain={rest[0]}" if rest else "")
    item = ratelimit.item_of(found["item"]) if found["item"] else b""
    return Charge(key, windows, int(found["cost"] or 1), kind, item, FORCES[found["force"]])


def moment(text: str) -> float:
    """Return the seconds of a time like 1d+2h-1s."""
    return sum(float(number) * SECONDS[unit] for number, unit in re.findall(r"([+-]?[\d.]+)([smhd])", text))


def same(outcome: Outcome) -> Outcome:
    """Return what an outcome is compared with: seconds that went through text may differ by a thousandth."""
    return Outcome(outcome.is_charged, tuple(map(_same, outcome.readings)))


def _same(reading: Reading) -> Reading:
    about = pytest.approx(reading.clears_in, abs=1e-3)
    clears_in = about if math.isfinite(reading.clears_in) else reading.clears_in
    return Reading(reading.totals, reading.is_over, clears_in, reading.is_known)  # type: ignore[arg-type]


DIALOGUES = {
    "up to the limit": """
        0s  alice/hour    charged
        1s  alice/hour=3  charged
        2s  alice/hour    charged
        3s  alice/hour    refused
    """,
    "what does not fit is not charged, and less may still fit": """
        0s  alice/hour=3  charged
        1s  alice/hour=3  refused
        2s  alice/hour=2  charged
        3s  alice/hour    refused
    """,
    "more than the limit at once is never granted": """
        0s  alice/hour=6  refused
        0s  alice/hour=5  charged
    """,
    "it clears one window later, and a thirtieth": """
        0s         alice/hour=5  charged
        1h         alice/hour    refused
        1h+119s    alice/hour    refused
        1h+120s    alice/hour=5  charged
        1h+121s    alice/hour    refused
    """,
    "it clears piece by piece": """
        0s         alice/hour=2  charged
        30m        alice/hour=3  charged
        1h+2m      alice/hour=3  refused
        1h+2m      alice/hour=2  charged
        1h+31m     alice/hour    refused
        1h+32m     alice/hour=3  charged
    """,
    "who is refused and goes on is not refused the longer": """
        0s         alice/hour=5  charged
        10m        alice/hour    refused
        20m        alice/hour    refused
        1h         alice/hour    refused
        1h+2m      alice/hour    charged
    """,
    "several windows at once": """
        0s         alice/hour-and-day=5  charged
        2h         alice/hour-and-day=3  charged
        4h         alice/hour-and-day    refused
        1d+48m     alice/hour-and-day=5  charged
        1d+48m     alice/hour-and-day    refused
    """,
    "everybody has counters of their own": """
        0s  alice/hour=5  charged
        0s  bob/hour=5    charged
        0s  alice/hour    refused
        0s  bob/hour      refused
        0s  alice/hour-and-day=5  charged
    """,
    "a pair's counters are each pair's own": """
        0s  alice/pair/example.org=2  charged
        0s  alice/pair/example.net=2  charged
        0s  alice/pair/example.org    refused
        0s  alice/pair=2              charged
    """,
    "all of a request are charged, or none": """
        0s  alice/hour=4                          charged
        1s  alice/pair alice/hour=2               refused
        1s  alice/hour=2 alice/pair alice/new@a   refused
        2s  alice/pair=2 alice/new@b alice/hour   charged
    """,
    "all of a request, whoever they belong to": """
        0s  alice/hour=5                  charged
        1s  bob/hour=2 alice/hour carol/hour-and-day=4  refused
        2s  bob/hour=5 carol/hour-and-day=5  charged
        3s  carol/new@a bob/different@a alice/hour  refused
        4s  carol/new@a bob/different@a   charged
    """,
    "a look costs nothing": """
        0s  alice/hour=0  charged
        0s  alice/hour=5  charged
        1s  alice/hour=0  charged
        1s  alice/new=0@a charged
        1s  alice/different=0@a charged
    """,
    "a shadow is counted up to its limit and stops nothing": """
        0s  alice/hour=4? alice/pair  charged
        1s  alice/hour=2? alice/pair  charged
        2s  alice/hour=1              charged
        3s  alice/hour=1              refused
    """,
    "what is forced is charged, and clears like the rest": """
        0s      alice/hour=9!   charged
        1s      alice/hour      refused
        30m     alice/hour=1!   charged
        1h+2m   alice/hour=4    charged
    """,
    "a forced one does not help where another refuses": """
        0s  alice/hour=5                  charged
        1s  alice/pair=2! alice/hour      refused
        2s  alice/pair=2                  charged
    """,
    "of items only new ones count": """
        0s  alice/new@a  charged
        1s  alice/new@a  charged
        2s  alice/new@b  charged
        3s  alice/new@c  charged
        4s  alice/new@d  refused
        5s  alice/new@c  charged
        6s  alice/new@d  refused
        1d+48m+4s  alice/new@d  charged
    """,
    "what was refused is still new": """
        0s  alice/surge@a  charged
        0s  alice/surge@b  charged
        0s  alice/surge@c  refused
        10m+20s  alice/surge@c  charged
        10m+20s  alice/surge@a  charged
        10m+20s  alice/surge@d  charged
        10m+20s  alice/surge@e  refused
    """,
    "all limits of an owner know the same items": """
        0s  alice/new@a alice/surge@a  charged
        1s  alice/new@a alice/surge@a  charged
        2s  alice/surge@b              charged
        3s  alice/new@b alice/surge@b  charged
        4s  alice/surge@c              refused
        5s  alice/new@c                charged
        6s  bob/new@a                  charged
    """,
    "a shadow's item is not known by what was not charged": """
        0s  alice/surge@a?  charged
        0s  alice/surge@b?  charged
        0s  alice/surge@c?  charged
        1s  alice/surge@c   refused
    """,
    "items may be learned where nothing is counted": """
        0s  alice/learn@a  charged
        1s  alice/new@a    charged
        2s  alice/surge@a alice/surge/example.org@a  charged
    """,
    "different items, each once": """
        0s  alice/different@a  charged
        1s  alice/different@b  charged
        2s  alice/different@a  charged
        3s  alice/different@c  refused
        1h+1s  alice/different@c  charged
        1h+1s  alice/different@d  refused
        1h+2s  alice/different@d  charged
    """,
    "different items in several windows": """
        0s   alice/different-too@a  charged
        1s   alice/different-too@b  charged
        2s   alice/different-too@c  refused
        61s  alice/different-too@c  charged
        62s  alice/different-too@a  charged
        63s  alice/different-too@b  refused
        5m   alice/different-too@d  refused
        5m   alice/different-too@b  charged
        1h+2m+2s alice/different-too@d  charged
    """,
    "different items, forced": """
        0s  alice/different@a!  charged
        0s  alice/different@b!  charged
        0s  alice/different@c!  charged
        1s  alice/different@d   refused
        1s  alice/different@c   charged
    """,
    "a clock that is set back": """
        1h      alice/hour=4  charged
        30m     alice/hour=2  refused
        30m     alice/hour    charged
        1h+32m  alice/hour=5  charged
    """,
    "a clock that is set back by more than a window": """
        5h      alice/hour=5         alice/different@a  charged
        5h      alice/different@b    charged
        1h      alice/hour           refused
        1h      alice/different@c    refused
        2h+1m   alice/hour           refused
        2h+2m   alice/hour=5         alice/different@c  charged
    """,
    "large amounts": """
        0s  alice/octets=9999999999  charged
        1s  alice/octets=2           refused
        2s  alice/octets=1           charged
        3s  alice/octets=9007199254740991!  charged
        4s  alice/octets=1           refused
        1h+2m+3s  alice/octets=10000000000  charged
    """,
    "parts of a second": """
        0.25s     alice/different@a  charged
        0.5s      alice/different@b  charged
        1h+0.75s  alice/different@c  refused
        1h+1s     alice/different@c  charged
    """,
}
