"""Mail without end: lanes of `smtp-source` into a private Postfix, and a watch on what becomes of it.

A lane is one smtp-source with some sessions, each of which sends a message, leaves, and comes again a second later, as mail from
everywhere arrives whether the one before was answered or not. The lanes of the known stream repeat their triplets; every
message of the fresh stream has a recipient of its own, and each chunk of it a sender's domain of its own.
"""

from __future__ import annotations

import math
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench.incoming import DOMAINS_ZONE
from bench.namespace import MAIL_ADDRESS
from tests.support.postfix import Postfix, smtpd_service
from tests.support.processes import free_port, require_binary

KNOWN, FRESH = "known", "fresh"  # streams; the HELO begins so, and with it the Message-ID
SESSIONS = 10  # of a lane
CHUNK = 5  # messages of a session, until smtp-source is started anew
PAUSE_SECONDS = 1  # of a session before each of its messages
STAGGER_SECONDS = 0.26  # between the lanes' starts, so that neither sessions nor new domains come all at once
MESSAGE_BYTES = 2000
PROCESS_LIMIT = 100
SAMPLE_SECONDS = 0.1
SLOW_SAMPLE_SECONDS = 0.25  # of what costs more: processes and metrics
REJECTED = b"milter-reject: "
# Not what Postfix has to say of the machine's own clocks.
COMPLAINT = re.compile(rb"(?:warning|error|fatal|panic): (?!file system clock is|resetting file time)(.*)")


@dataclass(frozen=True, slots=True)
class Counts:
    """How many messages of each stream were accepted and deferred."""

    accepted: Mapping[str, int]
    deferred: Mapping[str, int]

    @property
    def ended(self) -> int:
        """Return how many came to an end, either way."""
        return sum(self.accepted.values()) + sum(self.deferred.values())


@dataclass(frozen=True, slots=True)
class Sample:
    """What happened since the sample before. `smtpds` and `open_in` (workers that stand aside) are what there is now."""

    at: float
    counts: Counts
    smtpds: int
    open_in: int


@contextmanager
def postfix(folder: Path, milter: Path) -> Iterator[tuple[Postfix, int]]:
    """Run a Postfix that accepts mail for example.net through the milter and throws it away; yield it with its port."""
    port = free_port(MAIL_ADDRESS)
    settings = {
        "inet_interfaces": f"127.0.0.1, {MAIL_ADDRESS}",
        "default_process_limit": str(PROCESS_LIMIT),
        "smtpd_peername_lookup": "no",
        "relay_domains": "example.net",
        "relay_transport": "discard",
        "default_transport": "discard",
        "smtpd_milters": f"unix:{milter}",
        "milter_default_action": "accept",
        "myhostname": "mx.example.net",
    }
    service = smtpd_service(port).replace("127.0.0.1:", f"{MAIL_ADDRESS}:")
    instance = Postfix(folder, settings=settings, services=[service], ports=[])
    instance.start()
    try:
        yield instance, port
    finally:
        instance.stop()


class Pump:
    """Lanes that send until they are stopped; use it as a context manager."""

    def __init__(self, port: int, known: int, fresh: int) -> None:
        self._binary = require_binary("smtp-source", "postfix")
        self._port = port
        self._ends = threading.Event()
        self._sending: dict[int, subprocess.Popen[bytes]] = {}
        lanes = [(KNOWN, number) for number in range(known)] + [(FRESH, number) for number in range(fresh)]
        self._first_fresh_domain = known
        self._lanes = lanes
        self._threads = [
            threading.Thread(target=self._run, args=(place, *lane), daemon=True) for place, lane in enumerate(lanes)
        ]

    def __enter__(self) -> Self:
        self._ends.clear()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for sending in list(self._sending.values()):
            sending.kill()
        for thread in self._threads:
            thread.join()

    def send_known(self) -> None:
        """Send every known triplet once, and return when that is done."""
        sending = [self._start(KNOWN, number, 0) for kind, number in self._lanes if kind == KNOWN]
        for process in sending:
            process.wait()

    def _run(self, place: int, stream: str, number: int) -> None:
        """Keep one lane going. A thread's whole life."""
        self._ends.wait(place * STAGGER_SECONDS)
        chunk = 0
        while not self._ends.is_set():
            sending = self._start(stream, number, chunk)
            self._sending[place] = sending
            if self._ends.is_set():
                sending.kill()
            sending.wait()
            chunk += 1

    def _start(self, stream: str, number: int, chunk: int) -> subprocess.Popen[bytes]:
        fresh_lanes = sum(kind == FRESH for kind, _ in self._lanes)
        domain_number = number if stream == KNOWN else self._first_fresh_domain + chunk * fresh_lanes + number
        domain = f"d{domain_number}.{DOMAINS_ZONE}"
        command = [self._binary, "-A", "-N", "-w", str(PAUSE_SECONDS), "-s", str(SESSIONS), "-m", str(SESSIONS * CHUNK)]
        command += ["-l", str(MESSAGE_BYTES), "-M", f"{stream}.{domain}", "-f", f"sender@{domain}"]
        command += ["-t", f"{stream}-{number}-{chunk if stream == FRESH else 0}@example.net"]
        return subprocess.Popen(
            [*command, f"inet:{MAIL_ADDRESS}:{self._port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )


class Watch:
    """Reads the mail log as it grows, and counts; use it as a context manager.

    `open_in` tells in how many workers greylisting stands aside.
    """

    def __init__(self, instance: Postfix, open_in: Callable[[], int]) -> None:
        self.samples: list[Sample] = []
        self.complaints: list[str] = []
        self._log = instance.log_path
        self._master = int((instance.folder / "spool" / "pid" / "master.pid").read_text())
        self._open_in = open_in
        self._smtpds = self._workers_aside = 0
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=act, daemon=True) for act in (self._read_log, self._look)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _read_log(self) -> None:
        """Take a sample every now and then. A thread's whole life."""
        rest = b""
        with self._log.open("rb") as log:
            log.seek(0, 2)
            while not self._ends.wait(SAMPLE_SECONDS):
                text, _, rest = (rest + log.read()).rpartition(b"\n")
                self.samples.append(Sample(time.monotonic(), counts_in(text), self._smtpds, self._workers_aside))
                self.complaints += [found.decode("utf-8", "replace") for found in COMPLAINT.findall(text)]

    def _look(self) -> None:
        """Look at what the log does not tell. A thread of its own, for the metrics may keep it waiting."""
        while not self._ends.wait(SLOW_SAMPLE_SECONDS):
            self._smtpds, self._workers_aside = count_smtpds(self._master), self._open_in()


def counts_in(log: bytes) -> Counts:
    r"""Count the messages in lines of a mail log: cleanup names a message it takes, smtpd the HELO of one that is refused.

    >>> counts_in(b"cleanup[1]: 4Q: message-id=<1@known.d1.example>\n").accepted
    {'known': 1, 'fresh': 0}
    """
    return Counts(
        {stream: log.count(f"@{stream}.".encode()) for stream in (KNOWN, FRESH)},
        {stream: log.count(f"helo=<{stream}.".encode()) for stream in (KNOWN, FRESH)},
    )


def count_smtpds(master: int) -> int:
    """Return how many smtpd processes Postfix's master has."""
    count = 0
    with suppress(OSError):
        for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split():
            with suppress(OSError):  # it has ended meanwhile
                count += Path(f"/proc/{pid}/comm").read_text() == "smtpd\n"
    return count


def by_second(samples: Sequence[Sample], start: float, seconds: int, figure: Callable[[Sample], float]) -> list[float]:
    """Return the sums of a figure for each second from `start` on."""
    sums = [0.0] * seconds
    for sample in samples:
        second = math.floor(sample.at - start)
        if 0 <= second < seconds:
            sums[second] += figure(sample)
    return sums
