"""Load as Postfix makes it: clients that send message after message, retry what was dropped, and count everything."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.programs.signer import FIELDS, Signer
from tests.support.milter_client import Dropped, MilterSession


@dataclass(slots=True)
class Tally:
    """What happened to the messages: `signed` ended well, `dropped` ones were sent again, `refused` connections failed."""

    signed: int = 0
    dropped: int = 0
    refused: int = 0
    other: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, name: str) -> None:
        """Count one."""
        with self.lock:
            setattr(self, name, getattr(self, name) + 1)


def send_one(path: str | tuple[str, int], tally: Tally, messages: int = 1) -> None:
    """Open a session and send messages over it; what is dropped stays to be sent again, as a queue would keep it."""
    left = messages
    while left:
        try:
            session = MilterSession(path)
        except (ConnectionRefusedError, FileNotFoundError):
            tally.add("refused")
            return
        except (Dropped, ConnectionError):  # a broken pipe is a worker killed before our first octets
            tally.add("dropped")
            continue
        try:
            session.connect()
            while left:
                outcome = session.message(FIELDS, b"Hello\r\n" * 20)
                if outcome.reply == "a" and len(outcome.inserted()) == 2:
                    tally.add("signed")
                else:
                    with tally.lock:
                        tally.other.append(f"{outcome.reply} {outcome.text}")
                left -= 1
        except (Dropped, OSError):
            tally.add("dropped")
        finally:
            session.close()


@contextmanager
def under_load(signer: Signer, clients: int = 8, messages: int = 3) -> Iterator[Tally]:
    """Keep `clients` sending while the block runs, and watch that no counter of one start falls; then let them finish."""
    tally, stop = Tally(), threading.Event()
    fallen: list[str] = []

    def client() -> None:
        while not stop.is_set():
            send_one(signer.socket_path, tally, messages)

    def watch() -> None:
        highest: dict[str, float] = {}
        start = 0.0
        while not stop.wait(0.05):
            samples = signer.metrics()
            if samples.get("start_time_seconds", start) != start:
                start, highest = samples["start_time_seconds"], {}
            for name, value in samples.items():
                if "_total" in name or "_count" in name or "_bucket" in name or "_sum" in name:
                    if value < highest.get(name, 0.0):
                        fallen.append(f"{name}: {highest[name]} to {value}")
                    highest[name] = max(value, highest.get(name, 0.0))

    threads = [threading.Thread(target=client) for _ in range(clients)] + [threading.Thread(target=watch)]
    for thread in threads:
        thread.start()
    try:
        yield tally
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert fallen == []


def at_once(count: int, act: Callable[[], None]) -> None:
    """Run `act` in `count` threads that begin together."""
    barrier = threading.Barrier(count)

    def run() -> None:
        barrier.wait()
        act()

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
