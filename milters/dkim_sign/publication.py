"""Whether the keys in use are published: asked at first use, then every few minutes by a thread of the worker.

What is known is handed on from worker to worker through the supervisor's notes. The DNS being away changes nothing that
is known, and a key of which nothing is known counts as published: mail is never held up or unsigned because of the DNS.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric

from mailward.auth.dkim import find_publication
from mailward.auth.keys import PrivateKey
from mailward.daemon.log import Log
from mailward.daemon.program import Notes
from mailward.model.ports import Resolver
from mailward.model.results import Publication
from mailward.policy.signing import KeyRef

DNS_AWAY_SECONDS = 30.0  # after a failure, first uses do not wait for the DNS for this long
_NOTE = "key "


class PublicationWatch:
    """Knows the state of every key in use; one a worker."""

    def __init__(
        self,
        resolver: Resolver,
        key_of: Callable[[KeyRef], PrivateKey],
        interval: float,
        size: int,
        notes: Notes,
        log: Log,
    ) -> None:
        self._resolver = resolver
        self._key_of = key_of
        self._interval = interval
        self._size = size
        self._notes = notes
        self._log = log
        self._states: dict[KeyRef, Publication] = {}
        self._first_uses: dict[KeyRef, threading.Lock] = {}
        self._lock = threading.Lock()
        self._dns_away_until = 0.0
        self._complaints: dict[str, float] = {}

    def start(self) -> None:
        """Begin to look again and again; called in the worker, never in the supervisor."""
        threading.Thread(target=self._watch, name="publication", daemon=True).start()

    def state_of(self, ref: KeyRef) -> Publication:
        """Return what is known of a key; at its first use, ask."""
        state = self._states.get(ref)
        if state is None:
            return self._first_use(ref)
        return self._told(ref) if state is Publication.UNKNOWN else state

    def _told(self, ref: KeyRef) -> Publication:
        """Return what another worker, now or before, has found out."""
        return Publication(self._notes.known(_note_key(ref)) or Publication.UNKNOWN.value)

    def complain(self, domain: str) -> None:
        """Log that no key of `domain` is published, once in each interval."""
        now = time.monotonic()
        if now - self._complaints.get(domain, -self._interval) >= self._interval:
            self._complaints[domain] = now
            self._log.error("no-published-key", domain=domain, advice="publish the record; see: mailward keys verify")

    def _first_use(self, ref: KeyRef) -> Publication:
        """Ask once, however many messages use the key for the first time together."""
        with self._lock:
            turn = self._first_uses.setdefault(ref, threading.Lock())
        with turn:
            state = self._states.get(ref)
            if state is None:
                state = self._told(ref)
                if time.monotonic() >= self._dns_away_until:
                    state = self._ask(ref, state)
                self._remember(ref, state)
        with self._lock:
            self._first_uses.pop(ref, None)
        return state

    def _ask(self, ref: KeyRef, known: Publication) -> Publication:
        """Return the state as it is now; `known` where the DNS is away."""
        result = find_publication(ref.signing_domain, ref.selector, self._key_of(ref), self._resolver.ask)
        if result.state is Publication.UNKNOWN:
            self._dns_away_until = time.monotonic() + DNS_AWAY_SECONDS
            self._log.warning(
                "dns-away", domain=ref.signing_domain, selector=ref.selector, reason=result.reason, assumed=known.value
            )
            return known
        self._dns_away_until = 0.0
        if result.state is not known:
            report = self._log.info if result.state is Publication.PUBLISHED else self._log.error
            report(
                "key-state",
                domain=ref.signing_domain,
                selector=ref.selector,
                state=result.state.value,
                reason=result.reason,
            )
        return result.state

    def _remember(self, ref: KeyRef, state: Publication) -> None:
        with self._lock:
            while len(self._states) >= self._size and ref not in self._states:
                self._states.pop(next(iter(self._states)))
            self._states[ref] = state
        tell = self._notes.suggest if state is Publication.UNKNOWN else self._notes.note
        tell(_note_key(ref), state.value)

    def _watch(self) -> None:
        while True:
            time.sleep(self._interval * random.uniform(0.8, 1.0))
            for ref, known in list(self._states.items()):
                try:
                    state = self._ask(ref, known)
                except Exception:  # noqa: BLE001 - a key file that is gone, a bug: the next round tries again
                    self._log.exception("publication-failed", domain=ref.signing_domain, selector=ref.selector)
                    continue
                self._remember(ref, state)
                if state is Publication.UNKNOWN or time.monotonic() < self._dns_away_until:
                    break  # the rest would only wait for the same time-out


def collect_key_states(notes: Mapping[str, str]) -> Iterable[Metric]:
    """Turn the workers' notes into the gauge of key states."""
    states = [value for key, value in notes.items() if key.startswith(_NOTE)]
    family = GaugeMetricFamily(
        "mailward_dkim_sign_keys", "Keys in use, by the state of their published record.", labels=["state"]
    )
    for publication in Publication:
        family.add_metric([publication.value], states.count(publication.value))
    yield family


def _note_key(ref: KeyRef) -> str:
    return f"{_NOTE}{ref.selector}._domainkey.{ref.signing_domain}"
