"""Where Postfix calls us, as seen: so that a limit that can never count there is told, not waited for.

What was seen is kept as a note in the store, `RCPT=1767225600 DATA+login=1767225601`: the stage, "+login" where the request came
with one, and when it was seen last. `--check` reads it. What has not been seen for a week is forgotten: main.cf has changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from mailward.model.ports import Counts, OnEvent
from mailward.policy.limits import Limit, misplaced
from policyd.protocol import Attributes

NOTE: Final = "stages"  # the note's name in the store
MISPLACED: Final = "misplaced_limits"  # the counter's name; its label is the limit's name
ENOUGH = 100  # requests; before so many came, a stage that has not been seen may still be
# Before so many came over so long, nobody may have sent anything yet: strangers' mail comes to a new machine within minutes, and
# its first user perhaps on Monday.
ENOUGH_WITHOUT_LOGIN = 5_000
ENOUGH_SECONDS_WITHOUT_LOGIN = 86400.0
FORGOTTEN_SECONDS = 7 * 86400.0
_STALE_SECONDS = 3600.0  # a note is written again when a stage in it is older than that
_STAGES = frozenset({"CONNECT", "EHLO", "HELO", "MAIL", "RCPT", "DATA", "END-OF-MESSAGE", "VRFY", "ETRN"})


class StageObserver:
    """Sees every request, and tells once of each limit that can never count."""

    def __init__(self, limits: Sequence[Limit], metrics: Counts, on_event: OnEvent) -> None:
        self._limits = limits
        self._metrics = metrics
        self._on_event = on_event
        self._told: set[str] = set()
        self._seen: dict[str, float] = {}
        self._requests = 0
        self._since = 0.0

    def saw(self, request: Attributes, now: float) -> None:
        """Take note of a request."""
        stage = request.get("protocol_state", "")
        if stage in _STAGES:
            self._requests += 1
            self._since = self._since or now
            self._seen[stage + "+login" if request.get("sasl_username") else stage] = now

    def review(self, note: str, now: float) -> str:
        """Tell what is misplaced, and return the note as it is to be; `note` is what is kept now, others' included.

        Called now and then; what it returns is written where it is another.
        """
        seen = stages_of(note, now)
        kept = {stage: at for stage, at in seen.items() if now - at < _STALE_SECONDS}
        seen.update({stage: at for stage, at in self._seen.items() if stage not in kept})
        if self._requests >= ENOUGH:
            has_logins = any(stage.endswith("+login") for stage in seen)
            for limit, why in misplaced(self._limits, set(seen)):
                if limit.needs_login and not has_logins and not self._expects_logins(now):
                    continue
                if limit.name not in self._told:
                    self._told.add(limit.name)
                    self._metrics.count(MISPLACED, limit.name)
                    self._on_event("warning", "limit-misplaced", limit=limit.name, reason=why)
        return shown_note(seen)

    def _expects_logins(self, now: float) -> bool:
        """Say whether somebody would have come with a login by now."""
        return self._requests >= ENOUGH_WITHOUT_LOGIN and now - self._since >= ENOUGH_SECONDS_WITHOUT_LOGIN


def stages_of(note: str, now: float) -> dict[str, float]:
    """Return what a note says was seen lately, and when."""
    seen: dict[str, float] = {}
    for word in note.split()[: 2 * len(_STAGES)]:
        stage, _, text = word.partition("=")
        if stage.removesuffix("+login") in _STAGES and text.isascii() and text.isdigit() and len(text) <= 12:
            at = float(text)
            if abs(now - at) <= FORGOTTEN_SECONDS:
                seen[stage] = at
    return seen


def shown_note(seen: Mapping[str, float]) -> str:
    """Return what was seen as a note.

    >>> shown_note({"RCPT": 1767225600.5, "DATA+login": 1767225601.0})
    'DATA+login=1767225601 RCPT=1767225600'
    """
    return " ".join(f"{stage}={at:.0f}" for stage, at in sorted(seen.items()))
