"""Every question to the DNS as it is asked: by which method, with what answer, in which time."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from mailward.auth import arc, dkim_verify, dmarc, iprev, spf
from mailward.model.dns import Answer, Question

# A decision takes one `ask`, which does not say who is asking; the stack does. Code objects and modules, not their names: who
# renames one is told.
_FUNCTIONS = {
    spf.check_mail_from.__code__: "spf mailfrom",
    spf.check_helo.__code__: "spf helo",
}
_MODULES = {
    dkim_verify.__name__: "dkim",
    arc.__name__: "arc",
    dmarc.__name__: "dmarc",
    iprev.__name__: "iprev",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, its answer, how long that took, and for which method it was asked."""

    question: Question
    answer: Answer
    milliseconds: float
    method: str


class NotAsked(Exception):
    """The decision did not need this question."""


class Recorder:
    """An `ask` that remembers; bounded as the decision is, which asks a few hundred questions at the most."""

    def __init__(self, ask: Callable[[Question], Answer], clock: Callable[[], float]) -> None:
        """`clock` in seconds, from any beginning."""
        self.asked: list[Asked] = []
        self._ask = ask
        self._clock = clock

    def ask(self, question: Question) -> Answer:
        """Ask, and write it down."""
        started = self._clock()
        answer = self._ask(question)
        self.asked.append(Asked(question, answer, (self._clock() - started) * 1000, _asking_method()))
        return answer

    def replay(self, question: Question) -> Answer:
        """Give the first answer again. Raises NotAsked."""
        for asked in self.asked:
            if asked.question == question:
                return asked.answer
        raise NotAsked


def _asking_method() -> str:
    frame = inspect.currentframe()
    while frame is not None:
        method = _FUNCTIONS.get(frame.f_code) or _MODULES.get(frame.f_globals.get("__name__", ""))
        if method:
            return method
        frame = frame.f_back
    return ""
