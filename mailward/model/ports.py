"""What the decisions need of the outside world, as narrow Protocols; mailward.adapters has the real ones."""

from __future__ import annotations

from typing import Protocol

from mailward.model.dns import Answer, Question


class Resolver(Protocol):
    """The DNS."""

    def ask(self, question: Question) -> Answer:
        """Answer within the configured deadline; never raises for what the DNS says or fails to say."""
