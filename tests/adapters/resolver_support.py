"""A started resolver among odd nameservers: what the tests of outages stand on; the fixtures are in conftest."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from mailward.adapters.resolver import Resolver
from mailward.model.dns import Answer, Question, RecordType
from tests.support.odd_nameserver import OddNameserver
from tests.support.processes import wait_until

TIMEOUT = 1.0  # of one question: a machine that runs three suites at once may keep an answer for half a second
RECOVERY_SECONDS = 30.0  # what is promised; the breaker's own limit is ten


def question(name: str = "a.example") -> Question:
    return Question(name, RecordType.TXT)


class Watched:
    """A started resolver, what it has told and what it has counted."""

    def __init__(
        self, *servers: OddNameserver, timeout: float = TIMEOUT, deadline: float = 20.0, is_hasty: bool = False
    ) -> None:
        self.events: list[tuple[str, str, str]] = []
        self.reasons: list[str] = []
        self.counts: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self.resolver = Resolver(
            [server.address for server in servers],
            timeout,
            deadline,
            is_hasty=is_hasty,
            counts=self,
            on_event=self._tell,
        )
        self.resolver.start()
        self.servers = self.resolver._nameservers.servers
        self.first = self.servers[0]

    def count(self, name: str, value: str = "", amount: float = 1.0) -> None:
        with self._lock:
            self.counts[name, value] += int(amount)

    def _tell(self, level: str, event: str, **fields: object) -> None:
        self.events.append((level, event, str(fields["nameserver"])))
        self.reasons.append(str(fields.get("reason", "")))

    def ask(self, name: str = "a.example") -> Answer:
        return self.resolver.ask(question(name))

    def has_told(self, event: str, times: int = 1) -> bool:
        return [told for _, told, _ in self.events].count(event) >= times

    def wait_for(self, event: str, times: int = 1) -> None:
        wait_until(lambda: self.has_told(event, times), event, seconds=RECOVERY_SECONDS)


def label(server: OddNameserver) -> str:
    return f"127.0.0.1:{server.address[1]}"


Start = Callable[..., OddNameserver]
Watch = Callable[..., Watched]
