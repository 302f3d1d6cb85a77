"""Takes the DNS away from a verifier and watches what becomes of its messages."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.driver import RESULTS_FIELD, Load, Report
from bench.incoming import DOMAINS_ZONE, IncomingMail
from bench.verifiers import Task, Verifier, running
from bench.workbench import CONNECTIONS, Workbench
from tests.support.nameserver import Nameserver
from tests.support.processes import ProgramError
from tests.support.silence import silenced

OURS = "mailward"
DOMAINS = 4000
MESSAGES = 1000  # of ours, in each state of the DNS
PEER_MESSAGES = 40  # a peer's messages with one of two silent: some take seconds each
PEER_BURST = 4  # a peer's messages while nobody answers
QUICK_MS = 50.0
NOTICED_SECONDS = 5.0  # by then ours has left a silent nameserver alone
LEAST_OUTAGE_SECONDS = 30.0  # of ours: long enough for its probes to have become as rare as they get
PATIENCE_SECONDS = 120.0
POLL_SECONDS = 0.1
SETTLE_SECONDS = 1.0
METHODS = ("dkim", "spf", "dmarc")
WORDS = ("pass", "fail", "softfail", "neutral", "none", "policy", "permerror", "temperror")
TEXTS = tuple(f"{method}={word}" for method in METHODS for word in WORDS)
PASSES = {OURS: "dmarc=pass", "opendkim": "dkim=pass", "opendmarc": "spf=pass", "rspamd": "dmarc=pass"}


@dataclass(frozen=True, slots=True)
class OneSilent:
    """Messages while both nameservers answer, from the moment the first one is silent, and later."""

    healthy: Report
    first: Report
    later: Report


@dataclass(frozen=True, slots=True)
class AllSilent:
    """Messages while nobody answers: the first ones, those until they are quick (ours only), and later ones; times in seconds."""

    first: Report
    settling: Sequence[Report]
    later: Report
    quick_after: float
    pass_after: float  # from the nameservers' return on
    all_pass_after: float

    def reports(self) -> Sequence[Report]:
        """Return all of the outage."""
        return (self.first, *self.settling, self.later)


class Watch:
    """One program, and messages it has not seen yet: each is from another domain, so that no answer is in any cache."""

    def __init__(self, name: str, mail: IncomingMail, nameservers: Sequence[Nameserver], workbench: Workbench) -> None:
        self._name = name
        self._messages = mail.small_of_many(DOMAINS)
        self._nameservers = nameservers
        self._driver = workbench.driver
        self._task = Task(workbench.folder_of(f"{name}-outage"), [nameserver.address for nameserver in nameservers])
        self._next = 0
        self._burst = CONNECTIONS if name == OURS else PEER_BURST

    def one_silent(self) -> OneSilent:
        """Silence the first of the nameservers."""
        count = MESSAGES if self._name == OURS else PEER_MESSAGES
        with running(self._name, self._task) as verifier:
            self._warm_up(verifier)
            healthy = self._send(verifier, count, CONNECTIONS, must_pass=True)
            with silenced(self._nameservers[:1]):
                until = time.monotonic() + NOTICED_SECONDS
                first = self._send(verifier, count, CONNECTIONS)
                time.sleep(max(0.0, until - time.monotonic()))
                return OneSilent(healthy, first, self._send(verifier, count, CONNECTIONS))

    def all_silent(self) -> AllSilent:
        """Silence all of them, and let them come back."""
        is_ours = self._name == OURS
        with running(self._name, self._task) as verifier:
            self._warm_up(verifier)
            with silenced(self._nameservers):
                started = time.monotonic()
                first = self._send(verifier, self._burst, self._burst)
                settling = self._settle(verifier) if is_ours else []
                quick_after = time.monotonic() - started
                later = self._send(verifier, MESSAGES if is_ours else self._burst, self._burst)
                time.sleep(max(0.0, started + LEAST_OUTAGE_SECONDS - time.monotonic()) if is_ours else 0.0)
                returned = time.monotonic()  # NSD's start, a second at most, counts as a part of the recovery
            return AllSilent(first, settling, later, quick_after, *self._recovery(verifier, returned))

    def _warm_up(self, verifier: Verifier) -> None:
        time.sleep(SETTLE_SECONDS)
        self._send(verifier, 4 * CONNECTIONS, CONNECTIONS, must_pass=True)

    def _settle(self, verifier: Verifier) -> Sequence[Report]:
        """Send batches until all messages of one are quick."""
        started = time.monotonic()
        reports = [self._send(verifier, self._burst, self._burst)]
        while reports[-1].max_ms >= QUICK_MS:
            _give_up_after(started, "messages became quick")
            reports.append(self._send(verifier, self._burst, self._burst))
        return reports

    def _recovery(self, verifier: Verifier, returned: float) -> tuple[float, float]:
        """Send until messages pass again; return after how many seconds one did, and all of a batch."""
        first_pass: float | None = None
        while True:
            passed = self._send(verifier, self._burst, self._burst).added_with[PASSES[self._name]]
            now = time.monotonic() - returned
            if passed and first_pass is None:
                first_pass = now
            if first_pass is not None and passed == self._burst:
                return first_pass, now
            _give_up_after(returned, "messages passed again")
            time.sleep(POLL_SECONDS)

    def _send(self, verifier: Verifier, count: int, connections: int, *, must_pass: bool = False) -> Report:
        """Send messages and count the results; ProgramError if one that has to pass does not."""
        zone = f"d%d.{DOMAINS_ZONE}"
        envelope = Load(self._messages, count, 0, connections, mail_from=f"sender@{zone}", helo=f"mail.{zone}")
        load = replace(envelope, first=self._next % DOMAINS)
        self._next += count
        report = self._driver.send(verifier.socket, verifier.pid, load, RESULTS_FIELD, TEXTS)
        if must_pass and report.added_with[PASSES[self._name]] != count:
            raise ProgramError(f"{count} messages, replies {report.replies}, results {report.added_with}")
        return report


def _give_up_after(started: float, what: str) -> None:
    if time.monotonic() - started > PATIENCE_SECONDS:
        raise ProgramError(f"{PATIENCE_SECONDS:.0f} s went by before {what}")
