"""Whether the keys in use are published: asked at first use, then every few minutes by a thread of the worker.

What one worker finds out the others are told, and those that come after it. The DNS being away changes nothing that is
known, and a key of which nothing is known counts as published: mail is never held up or unsigned because of the DNS.
Whether the DNS is away, or only one domain's servers are, is the resolver's to know: it answers at once while it is.
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
from mailward.model.dns import Failure
from mailward.model.ports import Resolver
from mailward.model.results import Publication
from mailward.policy.signing import KeyRef

LAME_SECONDS = 30.0  # after a failure, first uses of other keys do not wait for that domain's servers for this long
MAX_COMPLAINTS = 100  # lines about unpublished domains in each interval
MAX_LAME = 10_000
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
        self._lame_until: dict[str, float] = {}
        self._complaints: set[str] = set()
        self._complaints_since = 0.0

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
        return Publication(self._notes.known(note_key(ref)) or Publication.UNKNOWN.value)

    def complain(self, domain: str) -> None:
        """Log that no key of `domain` is published: once in each interval, and for so many domains at the most."""
        now = time.monotonic()
        with self._lock:
            if now - self._complaints_since >= self._interval:
                self._complaints_since, self._complaints = now, set()
            if domain in self._complaints or len(self._complaints) >= MAX_COMPLAINTS:
                return
            self._complaints.add(domain)
        self._log.error("no-published-key", domain=domain, advice="publish the record; see: mailward keys verify")

    def _first_use(self, ref: KeyRef) -> Publication:
        """Ask once, however many messages use the key for the first time together. Raises KeyFileError."""
        with self._lock:
            turn = self._first_uses.setdefault(ref, threading.Lock())
        try:
            with turn:
                state = self._states.get(ref)
                if state is None:
                    state = self._told(ref)
                    if time.monotonic() >= self._lame_until.get(ref.signing_domain, 0.0):
                        state = self._ask(ref, state)
                    self._remember(ref, state)
        finally:
            with self._lock:
                self._first_uses.pop(ref, None)
        return state

    def _ask(self, ref: KeyRef, known: Publication) -> Publication:
        """Return the state as it is now; `known` where the DNS does not say."""
        result = find_publication(ref.signing_domain, ref.selector, self._key_of(ref), self._resolver.ask)
        if result.state is Publication.UNKNOWN:
            self._note_silence(ref, result.reason, known)
            return known
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

    def _note_silence(self, ref: KeyRef, reason: str, assumed: Publication) -> None:
        """Leave this domain's servers alone for a while; that the DNS is away the resolver says, once and not for each key."""
        if reason == Failure.AWAY.value:
            return
        with self._lock:
            if len(self._lame_until) >= MAX_LAME:
                self._lame_until.clear()
            self._lame_until[ref.signing_domain] = time.monotonic() + LAME_SECONDS
        self._log.warning(
            "domain-silent", domain=ref.signing_domain, selector=ref.selector, reason=reason, assumed=assumed.value
        )

    def _remember(self, ref: KeyRef, state: Publication) -> None:
        with self._lock:
            while len(self._states) >= self._size and ref not in self._states:
                self._states.pop(next(iter(self._states)))
            self._states[ref] = state
        tell = self._notes.suggest if state is Publication.UNKNOWN else self._notes.note
        tell(note_key(ref), state.value)

    def _watch(self) -> None:
        while True:
            time.sleep(self._interval * random.uniform(0.8, 1.0))
            with self._lock:
                states = list(self._states.items())
            random.shuffle(states)  # so that no silent domain keeps the same others from being asked
            for ref, known in states:
                try:
                    self._remember(ref, self._ask(ref, known))
                except Exception:  # noqa: BLE001 - a key file that is gone, a bug: the next round tries again
                    self._log.exception("publication-failed", domain=ref.signing_domain, selector=ref.selector)


def collect_key_states(notes: Mapping[str, str]) -> Iterable[Metric]:
    """Turn the workers' notes into the gauge of key states."""
    states = [value for key, value in notes.items() if key.startswith(_NOTE)]
    family = GaugeMetricFamily(
        "mailward_dkim_sign_keys", "Keys in use, by the state of their published record.", labels=["state"]
    )
    for publication in Publication:
        family.add_metric([publication.value], states.count(publication.value))
    yield family


def note_key(ref: KeyRef) -> str:
    """Return the name under which the workers tell each other of a key."""
    return f"{_NOTE}{ref.selector}._domainkey.{ref.signing_domain}"
