"""Dialogues with greylisting, as text: what the definition says (tests/policy) is what every store does (tests/adapters).

A line is a time since the beginning, a triplet, perhaps "vouched", and why it may pass or not. A triplet is an origin's letter
and a recipient's digit: A1 and A2 come from one origin. "writes A1" means: somebody here has written to A1's sender.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from mailward.model.greylist import Memory, OriginRecord, ReturnCount, Sighting, Triplet, TripletRecord, Windows
from mailward.policy import greylist
from mailward.policy.greylist import Remembered

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
CORRESPONDENT_LIFETIME = 90 * 86400.0


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a dialogue; `memory` None: somebody here writes to the triplet's sender."""

    at: float
    triplet: Triplet
    is_vouched: bool
    memory: Memory | None

    @property
    def correspondent(self) -> str:
        """The sender's address where SPF vouches for it."""
        return self.triplet.mail_from if self.is_vouched else ""


@dataclass
class Paper:
    """All that is remembered, on paper: the definition over dictionaries, that what the stores keep is compared with."""

    triplets: dict[Triplet, TripletRecord] = field(default_factory=dict)
    origins: dict[str, OriginRecord] = field(default_factory=dict)
    correspondents: dict[str, float] = field(default_factory=dict)
    expected: Counter[float] = field(default_factory=Counter)
    returned: Counter[float] = field(default_factory=Counter)

    def sight(self, sighted: Triplet, windows: Windows, now: float, *, correspondent: str = "") -> Sighting:
        is_correspondent = bool(correspondent) and self.correspondents.get(correspondent, 0.0) > now
        known = Remembered(self.triplets.get(sighted), self.origins.get(sighted.origin))
        sighting, kept = greylist.sight(sighted, known, windows, now, is_correspondent=is_correspondent)
        if kept.triplet is not None:
            self.triplets[sighted] = kept.triplet
            if (start := greylist.expected_in(sighting.memory, kept.triplet)) is not None:
                self.expected[start] += 1
            if (start := greylist.returned_in(sighting.memory, kept.triplet)) is not None:
                self.returned[start] += 1
        if kept.origin is not None:
            self.origins[sighted.origin] = kept.origin
        return sighting

    def record(self, address: str, lifetime: float, now: float) -> None:
        self.correspondents[address] = max(self.correspondents.get(address, 0.0), now + lifetime)

    def returns(self, now: float) -> tuple[ReturnCount, ...]:
        starts = [start for start in sorted(self.expected) if start > now - 2 * 86400]
        return tuple(ReturnCount(start, self.expected[start], self.returned[start]) for start in starts)


def read(dialogue: str) -> Iterator[Line]:
    for at, *words in filter(None, map(str.split, dialogue.splitlines())):
        if words[0] == "writes":
            yield Line(moment(at), triplet(words[1]), False, None)
        else:
            yield Line(moment(at), triplet(words[0]), words[1] == "vouched", Memory(words[-1]))


def triplet(name: str) -> Triplet:
    return Triplet(f"{name[0].lower()}.example", f"ann@{name[0].lower()}.example", f"bob{name[1:]}@here.example")


def moment(text: str) -> float:
    """Return the seconds of a time like 36d+1h-1s."""
    return sum(int(number) * SECONDS[unit] for number, unit in re.findall(r"([+-]?\d+)([smhd])", text))


# Five passes of A, each an hour after the other.
FIVE_PASSES = """
    0s    A1 first-sighting
    1m    A1 retried
    2h    A2 first-sighting
    2h+1m A2 retried
    4h    A3 first-sighting
    4h+1m A3 retried
    6h    A4 first-sighting
    6h+1m A4 retried
    8h    A5 first-sighting
    8h+1m A5 retried
"""

DIALOGUES = {
    "a first sighting is deferred": """
        0s    A1 first-sighting
    """,
    "a retry before its time is deferred": """
        0s    A1 first-sighting
        59s   A1 too-early
    """,
    "a retry from the delay on passes": """
        0s    A1 first-sighting
        60s   A1 retried
    """,
    "a retry too early keeps the first time": """
        0s    A1 first-sighting
        20s   A1 too-early
        40s   A1 too-early
        59s   A1 too-early
        60s   A1 retried
    """,
    "a retry at the end of its window passes": """
        0s    A1 first-sighting
        2d-1s A1 retried
    """,
    "a late retry starts over": """
        0s       A1 first-sighting
        2d       A1 late-retry
        2d+59s   A1 too-early
        2d+60s   A1 retried
    """,
    "too early does not prolong the window": """
        0s    A1 first-sighting
        59s   A1 too-early
        2d+1s A1 late-retry
    """,
    "what passed is remembered": """
        0s     A1 first-sighting
        60s    A1 retried
        61s    A1 passed-before
        36d    A1 passed-before
    """,
    "what passed is forgotten when it was not sighted for long": """
        0s        A1 first-sighting
        60s       A1 retried
        36d+60s   A1 first-sighting
        36d+119s  A1 too-early
        36d+120s  A1 retried
    """,
    "each sighting prolongs what is remembered": """
        0s    A1 first-sighting
        60s   A1 retried
        30d   A1 passed-before
        60d   A1 passed-before
        95d   A1 passed-before
    """,
    "each triplet waits for itself": """
        0s    A1 first-sighting
        60s   A1 retried
        61s   A2 first-sighting
        62s   B1 first-sighting
        120s  A2 too-early
        121s  A2 retried
    """,
    "five passes whitelist the origin, and no triplet is needed": f"""
        {FIVE_PASSES}
        9h    A6 whitelisted-origin
        9h    A7 whitelisted-origin
        9h    B1 first-sighting
    """,
    "four passes do not": """
        0s    A1 first-sighting
        1m    A1 retried
        2h    A2 first-sighting
        2h+1m A2 retried
        4h    A3 first-sighting
        4h+1m A3 retried
        6h    A4 first-sighting
        6h+1m A4 retried
        8h    A5 first-sighting
    """,
    "passes within an hour count once": """
        0s    A1 first-sighting
        0s    A2 first-sighting
        0s    A3 first-sighting
        0s    A4 first-sighting
        0s    A5 first-sighting
        60s   A1 retried
        61s   A2 retried
        62s   A3 retried
        63s   A4 retried
        64s   A5 retried
        65s   A6 first-sighting
    """,
    "what passes again is no new pass": """
        0s    A1 first-sighting
        1m    A1 retried
        2h    A1 passed-before
        4h    A1 passed-before
        6h    A1 passed-before
        8h    A1 passed-before
        10h   A2 first-sighting
    """,
    "a whitelisted origin is forgotten when it was not sighted for long": f"""
        {FIVE_PASSES}
        36d+8h+1m A6 first-sighting
    """,
    "each sighting prolongs the whitelisting": f"""
        {FIVE_PASSES}
        36d   A6 whitelisted-origin
        71d   A6 whitelisted-origin
        107d  A7 first-sighting
    """,
    "passes that are not counted keep an origin's passes from being forgotten": """
        0s       A1 first-sighting
        0s       A2 first-sighting
        1m       A1 retried
        59m      A2 retried
        36d+30m  A3 first-sighting
        36d+32m  A3 retried
        37d      A4 first-sighting
        37d+1m   A4 retried
        38d      A5 first-sighting
        38d+1m   A5 retried
        39d      A6 first-sighting
        39d+1m   A6 retried
        40d      A7 whitelisted-origin
    """,
    "a whitelisted origin's sightings leave no triplet": f"""
        {FIVE_PASSES}
        9h         A6 whitelisted-origin
        45d        A6 first-sighting
    """,
    "a correspondent whom SPF vouches for passes": """
        0s    writes A1
        1s    A1 vouched correspondent
        1s    A2 vouched correspondent
        1s    B1 vouched first-sighting
    """,
    "whom nobody vouches for is no correspondent, since senders are forged": """
        0s    writes A1
        1s    A1 first-sighting
    """,
    "a vouched sender to whom nobody has written waits": """
        0s    A1 vouched first-sighting
    """,
    "a correspondent is forgotten": """
        0s    writes A1
        90d-1s A1 vouched correspondent
        90d    A1 vouched first-sighting
    """,
    "writing again prolongs": """
        0s    writes A1
        80d   writes A1
        169d  A1 vouched correspondent
    """,
    "a correspondent's mail leaves no triplet": """
        0s    writes A1
        1s    A1 vouched correspondent
        100s  A1 first-sighting
    """,
    "a correspondent's mail leaves a waiting triplet as it is": """
        0s    A1 first-sighting
        10s   writes A1
        20s   A1 vouched correspondent
        59s   A1 too-early
        60s   A1 retried
    """,
    "with the clock set back nobody waits until it has caught up": """
        1h    A1 first-sighting
        0s    A1 late-retry
        59s   A1 too-early
        60s   A1 retried
    """,
    "a clock that is moments behind changes nothing": """
        5s    A1 first-sighting
        0s    A1 too-early
        64s   A1 too-early
        65s   A1 retried
    """,
    "what passed passes on with the clock set back": """
        1h    A1 first-sighting
        1h+1m A1 retried
        0s    A1 passed-before
    """,
    "passes counted are kept with the clock set back": """
        3d      A1 first-sighting
        3d+1m   A1 retried
        3d+2h   A2 first-sighting
        3d+121m A2 retried
        1d      A3 first-sighting
        1d+1m   A3 retried
        1d+2h   A4 first-sighting
        1d+121m A4 retried
        1d+4h   A5 first-sighting
        1d+241m A5 retried
        1d+5h   A6 whitelisted-origin
    """,
}

# Dialogues, and after them the buckets of ten minutes in which returns were expected: (start, expected, returned).
TWO_PASSES = """
    0s    A1 first-sighting
    1m    A1 retried
    1h    A2 first-sighting
    1h+1m A2 retried
"""

RETURNS: dict[str, tuple[str, list[tuple[str, int, int]]]] = {
    "of a stranger none is expected": (
        """
        0s    A1 first-sighting
        1m    A1 retried
        """,
        [],
    ),
    "of an origin that passed once none is expected": (
        """
        0s    A1 first-sighting
        1m    A1 retried
        1h    A2 first-sighting
        """,
        [],
    ),
    "two passes within an hour are one": (
        """
        0s    A1 first-sighting
        0s    A2 first-sighting
        1m    A1 retried
        2m    A2 retried
        1h    A3 first-sighting
        """,
        [],
    ),
    "of an origin that passed twice one is": (TWO_PASSES + "2h A3 first-sighting", [("2h", 1, 0)]),
    "too early is no return": (TWO_PASSES + "2h A3 first-sighting\n 2h+1s A3 too-early", [("2h", 1, 0)]),
    "a return counts where it was expected": (
        TWO_PASSES + "2h+5m A3 first-sighting\n 2h+55m A3 retried",
        [("2h", 1, 1)],
    ),
    "an origin is asked once in six hours": (
        TWO_PASSES
        + """
        2h      A3 first-sighting
        2h      A4 first-sighting
        8h-1s   A5 first-sighting
        8h      A6 first-sighting
        """,
        [("2h", 1, 0), ("8h", 1, 0)],
    ),
    "the return of what was not expected does not count": (
        TWO_PASSES
        + """
        2h      A3 first-sighting
        2h      A4 first-sighting
        2h+1m   A4 retried
        """,
        [("2h", 1, 0)],
    ),
    "a late retry is no return": (
        TWO_PASSES + "2h A3 first-sighting\n 2d+2h A3 late-retry\n 2d+3h A3 retried",
        [("2d+2h", 1, 1)],
    ),
    "each origin is asked for itself": (
        TWO_PASSES
        + TWO_PASSES.replace("A", "B")
        + """
        2h      A3 first-sighting
        2h      B3 first-sighting
        2h+1m   B3 retried
        """,
        [("2h", 2, 1)],
    ),
    "a whitelisted origin is not asked": (FIVE_PASSES + "20h A6 whitelisted-origin", [("4h", 1, 1)]),
    "a correspondent is not asked": (TWO_PASSES + "2h writes A1\n 2h A3 vouched correspondent", []),
    "the day before is still there": (TWO_PASSES + "2h A3 first-sighting\n 49h A1 passed-before", [("2h", 1, 0)]),
    "after two days nothing is left": (TWO_PASSES + "2h A3 first-sighting\n 51h A1 passed-before", []),
}
