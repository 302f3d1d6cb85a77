"""The DNS from a few lines of text: an `ask` for decisions that take one, and a list of what it was asked.

A line is `name TYPE value`; blank lines and lines that begin with `#` say nothing. The value of a TXT record is the rest
of the line as it stands (UTF-8), or "quoted strings" "that are joined". `name CNAME other` is followed. `name TEMPFAIL`
gives no answer for a name, but for what other lines say of it; `name TXT TEMPFAIL` none to that type.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from mailward.model.dns import Answer, AnswerStatus, Question, RecordType
from mailward.model.domain import parents

TTL = 300
MAX_ALIASES = 8
NAMES_AS_VALUES = (RecordType.MX, RecordType.NS, RecordType.PTR)  # the resolver gives these with a final dot


class Zone:
    """A zone's records; the object itself is the `ask`, and `asked` holds every question in order."""

    def __init__(self, text: str = "") -> None:
        self.asked: list[Question] = []
        self._records: dict[tuple[str, RecordType], list[bytes]] = {}
        self._aliases: dict[str, str] = {}
        self._silent: set[str] = set()
        self._silent_types: set[tuple[str, RecordType]] = set()
        self._names: set[str] = set()
        for line in filter(None, (line.strip() for line in text.splitlines())):
            if not line.startswith("#"):
                self._add_line(*line.split(None, 2))

    def __call__(self, question: Question) -> Answer:
        self.asked.append(question)
        return self._answer(question.name.lower(), question.record_type)

    def add(self, name: str, record_type: RecordType, values: Iterable[bytes]) -> None:
        """Add records whose octets no line of text can hold."""
        self._exists(name)
        self._records.setdefault((name.lower(), record_type), []).extend(values)

    def alias(self, name: str, target: str) -> None:
        """Make a name another one's alias (CNAME)."""
        self._exists(name)
        self._aliases[name.lower()] = target.removesuffix(".").lower()

    def silence(self, name: str, record_type: RecordType | None = None) -> None:
        """Give no answer to questions for a name, or for one type of it, but those for records it has."""
        self._exists(name)
        if record_type is None:
            self._silent.add(name.lower())
        else:
            self._silent_types.add((name.lower(), record_type))

    def _add_line(self, name: str, kind: str, value: str = "") -> None:
        name = name.removesuffix(".")
        if kind == "TEMPFAIL":
            self.silence(name)
        elif value == "TEMPFAIL":
            self.silence(name, RecordType(kind))
        elif kind == "CNAME":
            self.alias(name, value)
        else:
            self.add(name, RecordType(kind), [_octets(RecordType(kind), value)])

    def _exists(self, name: str) -> None:
        self._names.update((name.lower(), *parents(name.lower())))

    def _answer(self, name: str, record_type: RecordType) -> Answer:
        for _ in range(MAX_ALIASES):
            found = self._records.get((name, record_type))
            if found:
                return Answer(AnswerStatus.FOUND, tuple(found), TTL)
            if name in self._silent or (name, record_type) in self._silent_types:
                return Answer(AnswerStatus.TEMPFAIL, reason="no nameserver answered in time")
            if name not in self._aliases:
                return Answer(AnswerStatus.NODATA if name in self._names else AnswerStatus.NXDOMAIN, ttl=TTL)
            name = self._aliases[name]
        return Answer(AnswerStatus.TEMPFAIL, reason="too many aliases")


def _octets(record_type: RecordType, value: str) -> bytes:
    if record_type is RecordType.TXT and value.startswith('"'):
        value = "".join(re.findall(r'"([^"]*)"', value))
    if record_type in NAMES_AS_VALUES and not value.endswith("."):
        value += "."
    return value.encode()
