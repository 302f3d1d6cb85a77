"""Greylisting's own breaker: where clients that are known to retry no longer come back, greylisting steps aside. Pure values.

It is judged on those clients alone (mailward.policy.greylist.is_return_expected): strangers that do not come back are what
greylisting is for, and a botnet's run of them must not switch it off.

Several workers on several machines have to agree without talking. So nothing is carried from one step to the next: each step
replays the last day's shared counts, bucket by bucket, from closed on. Whoever starts now comes to the same state as who has run
for weeks; a return that comes late mends the past; and what opened the breaker is forgotten after a day, whatever happens: then
it closes and is judged anew, so that it stays open for ever nowhere, however little mail there is.

The trades, in numbers:

* A bucket counts once `patience` has passed since its end: most clients retry within half an hour. Those that take longer count
  as lost at first, and as returned when they come.
* The newest buckets are judged that hold `least_expected` returns, half an hour of them at least: where 50 such clients
  an hour are common a collapse is noticed after an hour, where there are 5 an hour, after five and a half. Of 25 returns at
  most three: where in truth half of the clients come back in time, that is chance once in 10,000 judgements.
* A stranger who wants it open needs 25 origins (networks, or domains with SPF) that have passed twice, an hour apart, each
  of which then sends one new triplet and gives it up: each counts once in six hours, so that one busy network is one voice.
  Where returns are common even that is not enough, for he cannot keep others from coming back: as long as half of the
  usual returns come, it stays closed. Whoever has so many clients that retry has them whitelisted with three more passes
  each, and gains little by switching greylisting off for everybody. By night, when few returns come, 25 are enough.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import accumulate

from mailward.model.greylist import RETURN_BUCKET_SECONDS, ReturnCount, Triplet, Windows
from mailward.policy.breaker import BreakerState
from mailward.policy.greylist import bucket_of

# A bucket less than the day that the stores keep: all of these are there in full.
BUCKETS = 86400 // RETURN_BUCKET_SECONDS - 1

# A triplet that is tried, and whose retries are not recognized, is picked anew after this long, and then probably not again.
TRIAL_SECONDS = 4 * 3600.0
LONGEST_PATIENCE = 12 * 3600.0  # the day has to hold some buckets that are judged


@dataclass(frozen=True, slots=True)
class ReturnRules:
    """When the breaker opens, and when it closes again. Times are seconds.

    Open lasts `first_wait`, twice as long after each trial that failed, up to `longest_wait`; then one triplet in `one_in`
    is greylisted until `close_expected` returns are known.
    """

    patience: float = 1800.0
    horizon: float = 12 * 3600.0
    least_expected: int = 25
    least_buckets: int = 3
    open_below: float = 0.15
    least_usual: float = 4.0  # returns; with fewer, what is usual says nothing
    fallen_below: float = 0.5
    close_expected: int = 5
    close_from: float = 0.5
    first_wait: float = 600.0
    longest_wait: float = 2 * 3600.0
    one_in: int = 20


def rules_for(windows: Windows) -> ReturnRules:
    """Return the rules where nobody can come back before the delay is over."""
    return ReturnRules(patience=min(LONGEST_PATIENCE, ReturnRules().patience + windows.delay))


@dataclass(frozen=True, slots=True)
class ReturnBreaker:
    """What the counts say at the moment. `expected` and `returned` are what the latest change was concluded from."""

    rules: ReturnRules = ReturnRules()
    state: BreakerState = BreakerState.CLOSED
    changed_at: float = 0.0
    wait: float = 0.0
    expected: int = 0
    returned: int = 0
    trial: int = 0

    @property
    def is_closed(self) -> bool:
        """Whether everything is greylisted."""
        return self.state is BreakerState.CLOSED

    def step(self, counts: Iterable[ReturnCount], now: float) -> ReturnBreaker:
        """Return the breaker as the store's counts make it; of what it was before, only its rules matter.

        Takes about a millisecond where there are counts: for once in some seconds, not for every message.
        """
        day = _Day.of(counts, bucket_of(now) - (BUCKETS - 1) * RETURN_BUCKET_SECONDS)
        breaker = ReturnBreaker(self.rules, trial=int(now // TRIAL_SECONDS))
        if day.is_empty:
            return breaker
        for index in range(1, BUCKETS):
            breaker = breaker._judged(day, day.begin + index * RETURN_BUCKET_SECONDS)
        return breaker

    def is_tried(self, triplet: Triplet) -> bool:
        """Say whether a triplet is greylisted: all while closed, none while open, and one in so many while half-open.

        Its retry is then tried too, on whatever machine: the digest is the same everywhere, for some hours.
        """
        if self.state is not BreakerState.HALF_OPEN:
            return self.is_closed
        text = "\0".join((str(self.trial), triplet.origin, triplet.mail_from, triplet.rcpt_to))
        digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.rules.one_in == 0

    def _judged(self, day: _Day, at: float) -> ReturnBreaker:
        match self.state:
            case BreakerState.CLOSED:
                return self._judged_closed(day, at)
            case BreakerState.OPEN:
                is_over = at - self.changed_at >= self.wait
                return replace(self, state=BreakerState.HALF_OPEN, changed_at=at) if is_over else self
            case BreakerState.HALF_OPEN:
                return self._judged_half_open(day, at)

    def _judged_closed(self, day: _Day, at: float) -> ReturnBreaker:
        rules = self.rules
        end = day.index(at - rules.patience)
        # From when it closed on: what opened it before does not open it again.
        earliest = max(day.index(self.changed_at), end - int(rules.horizon // RETURN_BUCKET_SECONDS))
        start = end - rules.least_buckets
        while start > earliest and day.expected(start, end) < rules.least_expected:
            start -= 1
        if start < earliest or day.expected(start, end) < rules.least_expected:
            return self
        expected, returned = day.expected(start, end), day.returned(start, end)
        usual = day.returned(0, start) / max(1, start) * (end - start)
        has_fallen = usual < rules.least_usual or returned < usual * rules.fallen_below
        if has_fallen and returned < expected * rules.open_below:
            return replace(
                self,
                state=BreakerState.OPEN,
                changed_at=at,
                wait=rules.first_wait,
                expected=expected,
                returned=returned,
            )
        return self

    def _judged_half_open(self, day: _Day, at: float) -> ReturnBreaker:
        rules = self.rules
        start, end = day.index(self.changed_at), day.index(at - rules.patience)
        if end <= start or day.expected(start, end) < rules.close_expected:
            return self
        expected, returned = day.expected(start, end), day.returned(start, end)
        found = replace(self, changed_at=at, expected=expected, returned=returned)
        if returned >= expected * rules.close_from:
            return replace(found, state=BreakerState.CLOSED, wait=0.0)
        return replace(found, state=BreakerState.OPEN, wait=min(rules.longest_wait, self.wait * 2))


@dataclass(frozen=True, slots=True)
class _Day:
    """The day's buckets as running sums, so that any stretch of them is one subtraction."""

    begin: float
    expected_before: tuple[int, ...]
    returned_before: tuple[int, ...]

    @classmethod
    def of(cls, counts: Iterable[ReturnCount], begin: float) -> _Day:
        expected, returned = [0] * BUCKETS, [0] * BUCKETS
        for count in counts:
            index = int((count.start - begin) // RETURN_BUCKET_SECONDS)
            if 0 <= index < BUCKETS:  # a bucket in the future is from before the clock was set back
                expected[index] += max(0, count.expected)
                returned[index] += max(0, min(count.expected, count.returned))
        return cls(begin, tuple(accumulate(expected, initial=0)), tuple(accumulate(returned, initial=0)))

    @property
    def is_empty(self) -> bool:
        return not self.expected_before[-1]

    def index(self, moment: float) -> int:
        """Return how many buckets have ended at a moment."""
        return max(0, min(BUCKETS, int((moment - self.begin) // RETURN_BUCKET_SECONDS)))

    def expected(self, start: int, end: int) -> int:
        return self.expected_before[end] - self.expected_before[start]

    def returned(self, start: int, end: int) -> int:
        return self.returned_before[end] - self.returned_before[start]
