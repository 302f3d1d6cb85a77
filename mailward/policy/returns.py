"""Greylisting's own breaker: where clients that are known to retry no longer come back, greylisting steps aside. Pure values.

It is judged on those clients alone (mailward.policy.greylist.is_return_expected): strangers that do not come back are what
greylisting is for, and a botnet's run of them must not switch it off.

Several workers on several machines have to agree without talking. So nothing is carried from one step to the next: each step
replays the shared counts that are kept, bucket by bucket, from closed on. Whoever starts now comes to the same state as who has
run for weeks; a return that comes late mends the past; and what opened the breaker is forgotten within a day, whatever happens:
then it closes and is judged anew, so that it stays open for ever nowhere, however little mail there is.

The trades, in numbers:

* A bucket counts once `patience` has passed since its end: most clients retry within half an hour. Those that take longer count
  as lost at first, and as returned when they come.
* It takes a fall. The newest stretch is judged in which `least` returns are expected, and as many came in the stretch before it
  and in the same hours of the day before; the lesser of these two is what is usual. Both, for every day has an evening. Less
  than `open_below` must have come of what is expected, and of what is usual: of 20 at most two. While as many come back as
  usual, that is chance once in a million judgements.
* Where 50 such clients an hour are common a collapse is noticed after an hour, where there are 8, after four and a half. Where
  fewer than five an hour come back, nothing is usual, and it never opens; nor on the first day.
* So a fault that lasts is known for a day less the stretch. After that nothing is usual, and it stays closed until there have
  been returns again: it was shown and logged for so long. What was never otherwise looks like strangers that never come back.

What a stranger can do who has many origins (networks, or domains with SPF) that have passed twice, an hour apart:

* From each he sends a new triplet and gives it up (it counts once in six hours): that opens nothing, however many he has, for
  he cannot keep others from coming back.
* He comes back himself, yesterday and today, and then stops: that opens it with 40 origins, 20 of which are given up; where
  others come back, with twelve for each of them in a stretch. Subdomains and the networks of one owner are as many origins as
  he likes, so that where little comes back this costs him a day, and no money. Five passes whitelist each of them anyway.
* He waits for a fall that yesterday did not have, and that leaves less than one return of seven: the evening before a holiday,
  or an outage of the line. Then 20 origins are enough.

Whoever has opened it so can make the trials fail, too, and has it open for a day.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import accumulate

from mailward.model.greylist import RETURN_BUCKET_SECONDS, ReturnCount, Triplet, Windows
from mailward.policy.breaker import BreakerState
from mailward.policy.greylist import bucket_of

A_DAY = 86400 // RETURN_BUCKET_SECONDS
BUCKETS = 2 * A_DAY - 1  # a bucket less than the stores keep: all of these are there in full

# A triplet that is tried, and whose retries are not recognized, is picked anew after this long, and then probably not again.
TRIAL_SECONDS = 4 * 3600.0
LONGEST_PATIENCE = 12 * 3600.0  # what is kept has to hold some buckets that are judged


@dataclass(frozen=True, slots=True)
class ReturnRules:
    """When the breaker opens, and when it closes again. Times are seconds.

    Open lasts `first_wait`, twice as long after each trial that failed, up to `longest_wait`; then one triplet in `one_in`
    is greylisted until `close_expected` returns are known.
    """

    patience: float = 1800.0
    least: int = 20  # returns that are expected, and that are usual; fewer say nothing
    least_buckets: int = 3
    most_buckets: int = 24
    open_below: float = 0.15
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

        Takes some milliseconds where there are counts: for once in some seconds, not for every message.
        """
        kept = _Kept.of(counts, bucket_of(now) - (BUCKETS - 1) * RETURN_BUCKET_SECONDS)
        breaker = ReturnBreaker(self.rules, trial=int(now // TRIAL_SECONDS))
        if kept.is_empty:
            return breaker
        for index in range(A_DAY, BUCKETS):  # before that there is no day to compare with
            breaker = breaker._judged(kept, kept.begin + index * RETURN_BUCKET_SECONDS)
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

    def _judged(self, kept: _Kept, at: float) -> ReturnBreaker:
        match self.state:
            case BreakerState.CLOSED:
                return self._judged_closed(kept, at)
            case BreakerState.OPEN:
                is_over = at - self.changed_at >= self.wait
                return replace(self, state=BreakerState.HALF_OPEN, changed_at=at) if is_over else self
            case BreakerState.HALF_OPEN:
                return self._judged_half_open(kept, at)

    def _judged_closed(self, kept: _Kept, at: float) -> ReturnBreaker:
        rules = self.rules
        end = kept.index(at - rules.patience)
        # From when it closed on: what opened it before does not open it again.
        longest = min(rules.most_buckets, end - kept.index(self.changed_at))
        for length in range(rules.least_buckets, longest + 1):
            start = end - length
            expected, usual = kept.expected(start, end), kept.usual(start, end)
            least = min(expected, usual)
            if least >= rules.least and kept.returned(start, end) < least * rules.open_below:
                found = replace(self, expected=expected, returned=kept.returned(start, end))
                return replace(found, state=BreakerState.OPEN, changed_at=at, wait=rules.first_wait)
        return self

    def _judged_half_open(self, kept: _Kept, at: float) -> ReturnBreaker:
        rules = self.rules
        start, end = kept.index(self.changed_at), kept.index(at - rules.patience)
        if end <= start or kept.expected(start, end) < rules.close_expected:
            return self
        expected, returned = kept.expected(start, end), kept.returned(start, end)
        found = replace(self, changed_at=at, expected=expected, returned=returned)
        if returned >= expected * rules.close_from:
            return replace(found, state=BreakerState.CLOSED, wait=0.0)
        return replace(found, state=BreakerState.OPEN, wait=min(rules.longest_wait, self.wait * 2))


@dataclass(frozen=True, slots=True)
class _Kept:
    """The buckets as running sums, so that any stretch of them is one subtraction."""

    begin: float
    expected_before: tuple[int, ...]
    returned_before: tuple[int, ...]

    @classmethod
    def of(cls, counts: Iterable[ReturnCount], begin: float) -> _Kept:
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

    def usual(self, start: int, end: int) -> int:
        """Return how many came back both in the stretch before this one and in the same hours of the day before, at least."""
        if start < A_DAY:
            return 0
        return min(self.returned(2 * start - end, start), self.returned(start - A_DAY, end - A_DAY))
