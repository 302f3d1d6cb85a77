"""What counts and tells, for whoever wants to know afterwards."""

from __future__ import annotations


class Told:
    """Keeps counts and events (Counts and OnEvent of mailward.model.ports)."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], float] = {}
        self.events: list[tuple[str, str]] = []

    def count(self, name: str, value: str = "", amount: float = 1.0) -> None:
        self.counts[name, value] = self.counts.get((name, value), 0) + amount

    def __call__(self, level: str, event: str, **_fields: object) -> None:
        self.events.append((level, event))
