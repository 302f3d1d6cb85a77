"""The steps of an SPF evaluation, written down for people to read. Not used where nobody asked for them."""

from __future__ import annotations

from mailward.auth.spf_record import printable
from mailward.model.results import SpfTerm

MAX_STEPS = 500  # what is more than this nobody reads


class Trace:
    """Terms in the order they were looked at; what an include found stands below it."""

    def __init__(self) -> None:
        self.terms: list[SpfTerm] = []

    def begin(self, domain: str, term: str, outcome: str = "") -> int:
        """Write down a term of the record of `domain`; the result is its number for `end`."""
        if len(self.terms) == MAX_STEPS:
            return MAX_STEPS
        self.terms.append(SpfTerm(printable(domain), printable(term), outcome))
        return len(self.terms) - 1

    def end(self, step: int, outcome: str) -> None:
        """Say what came of a term."""
        if step < MAX_STEPS:
            self.terms[step] = SpfTerm(self.terms[step].domain, self.terms[step].term, outcome)

    def stop(self, outcome: str) -> None:
        """Say why the evaluation ended within the terms of which nothing has come yet."""
        for step, term in enumerate(self.terms):
            if not term.outcome:
                self.end(step, outcome)
