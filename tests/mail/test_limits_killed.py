"""KILL under load: what was answered has been counted, once, whatever became of the daemon meanwhile."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.support.policy_server import PolicyClient, PolicyServer
from tests.support.processes import ProgramError, open_folder, wait_until

CLIENTS, KILLS = 8, 3
MOST_KILLS = 20  # until one of them has met requests under way
ANSWERS_BETWEEN = 400  # of all clients, from one KILL to the next
ANSWER_SECONDS = 60.0
LIMIT_NAMES = ("short", "long", "domain")
LIMITS = """
[[policyd.limit]]
name = "short"
per = "sasl_username"
count = "messages"
limit = ["1000000/1h", "2000000/1d"]

[[policyd.limit]]
name = "long"
per = "sasl_username"
count = "recipients"
limit = "1000000/1d"

[[policyd.limit]]
name = "domain"
per = "sasl_domain"
count = "messages"
limit = "1000000/1d"
"""


@dataclass(slots=True)
class Load:
    """Clients that ask as fast as they are answered, each for an account of its own, and come again when they are cut off."""

    server: PolicyServer
    answered: Counter[str] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)
    others: list[str] = field(default_factory=list)
    ends: threading.Event = field(default_factory=threading.Event)

    def run(self, login: str) -> None:
        """Ask until the end. A thread's whole life."""
        instance = 0
        while not self.ends.is_set():
            try:
                with PolicyClient(self.server.socket_path) as client:
                    while not self.ends.is_set():
                        instance += 1
                        self._ask(client, login, f"{login}.{instance}")
            except (OSError, ProgramError):
                self.ends.wait(0.01)  # it is being started again

    def _ask(self, client: PolicyClient, login: str, instance: str) -> None:
        self.unanswered[login] += 1
        recipient = f"{instance}@receiver.example"
        action = client.ask(sasl_username=login, sender=login, recipient=recipient, instance=instance)
        self.unanswered[login] -= 1
        self.answered[login] += 1
        if action != "DUNNO":
            self.others.append(action)


@pytest.fixture
def server() -> Iterator[PolicyServer]:
    with open_folder() as folder:
        started = PolicyServer(folder, LIMITS)
        started.start()
        yield started
        started.stop()


def test_counts_after_a_kill_equal_the_answers_given(server: PolicyServer) -> None:
    load = Load(server)
    # Each has a domain of its own, too, so that what is counted of a domain can be told from another client's.
    logins = [f"client{number}@d{number}.example" for number in range(CLIENTS)]
    threads = [threading.Thread(target=load.run, args=(login,)) for login in logins]
    for thread in threads:
        thread.start()
    try:
        kills = 0
        while kills < KILLS or (kills < MOST_KILLS and load.unanswered.total() <= CLIENTS):
            wait_for_answers(load, load.answered.total() + ANSWERS_BETWEEN)
            server.kill()
            kills += 1
            server.start()
        wait_for_answers(load, load.answered.total() + ANSWERS_BETWEEN)
    finally:
        load.ends.set()
        for thread in threads:
            thread.join()
    assert load.others == []
    # Each client has one request under way, and may come again to a process that is just about to die.
    assert 1 <= load.unanswered.total() <= 2 * CLIENTS * kills
    for login in logins:
        counted = amounts(server, login)
        for name in LIMIT_NAMES:
            # One that was not answered may have been counted, as its answer may have been lost.
            least, most = load.answered[login], load.answered[login] + load.unanswered[login]
            assert least <= counted[name] <= most, (login, name, counted)
        assert len(set(counted.values())) == 1, "all counters of a request are charged, or none"


def wait_for_answers(load: Load, count: int) -> None:
    wait_until(lambda: load.answered.total() >= count, f"{count} answers", seconds=ANSWER_SECONDS)


def amounts(server: PolicyServer, login: str) -> dict[str, int]:
    domain = login.partition("@")[2]
    return {**server.amounts(f"sasl_username={login}"), **server.amounts(f"sasl_domain={domain}")}
