"""One recipient of an incoming message, from envelope to ruling: deferred or not, and why. No I/O.

From cheap to dear: what the configuration says, whether greylisting stands aside, the DNS, the store. DNS (`ask`) and store
are arguments; a store that cannot answer says so by returning None, and then everything passes.

An outage defers nobody: a deferral takes a store that answers and a DNS that is there. One domain's silence is no outage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from mailward.auth import iprev, spf
from mailward.auth.spf import SpfLimits
from mailward.model.dns import Answer, Failure, Question
from mailward.model.greylist import Memory, Sighting, Triplet, Windows
from mailward.model.message import Envelope
from mailward.model.results import Result, SpfResult
from mailward.policy.dns_lists import DnsList, ListFailure, listed
from mailward.policy.exemptions import Exemption, Exemptions
from mailward.policy.greylist import PASSES, seconds_left
from mailward.policy.greylist_key import compared_recipient, compared_sender, correspondent, network_of
from mailward.policy.suspicion import Suspicion, suspect

Ask = Callable[[Question], Answer]

# A record that lets (nearly) everybody send makes all the world one origin: whoever forges such a domain's senders would pass
# with it. So SPF vouches for a client by a network that is no wider than large senders' are: Microsoft's 52.100.0.0/14 (in
# spf.protection.outlook.com; by now /15), and for IPv6 what a provider is given (Google's are /36, Yandex's /40). It does
# not by `all`, `exists` and `ptr`. Against a domain's own owner this does little: he may list all networks there are.
WIDEST_VOUCHED = {32: 14, 128: 32}  # prefix lengths by the bits of the address

# Of a client, when it is suspected: mail servers have one or two, and each that nobody answers for costs seconds.
MAX_CLIENT_NAMES = 3


class Aside(Enum):
    """Why greylisting stands aside, for everybody."""

    SWITCHED_OFF = "switched-off"
    STORE = "store-away"
    DNS = "dns-away"
    RETURNS = "nobody-returns"


class Other(Enum):
    """The remaining reasons to let a recipient pass."""

    DNSWL = "dnswl"
    UNSUSPICIOUS = "unsuspicious"
    RECALLED = "recalled"  # SPF's answer is missing, and with it this client would pass


REASONS = tuple(word.value for kind in (Exemption, Aside, Other, Memory) for word in kind)


class Store(Protocol):
    """What a ruling needs of the store; None, or False, where it cannot answer."""

    def sight(self, triplet: Triplet, windows: Windows, *, correspondent: str = "") -> Sighting | None:
        """Remember a sighting and say what was known."""

    def recalls(self, triplet: Triplet, windows: Windows) -> bool:
        """Say whether a sighting would pass, and change nothing."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration says of greylisting, but for who is exempt."""

    windows: Windows = Windows()
    ipv4_prefix: int = 24
    ipv6_prefix: int = 64
    is_suspicious_only: bool = False
    dnsbl: tuple[DnsList, ...] = ()
    dnswl: tuple[DnsList, ...] = ()
    own_names: frozenset[str] = frozenset()
    spf: SpfLimits = SpfLimits()


def _everything(_triplet: Triplet) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Conditions:
    """How things stand at the moment: who is exempt, and whether greylisting stands aside.

    `is_tried`: greylisting is trying itself out, on the triplets that this picks.
    """

    exemptions: Exemptions
    aside: Aside | None = None
    is_tried: Callable[[Triplet], bool] = _everything


@dataclass(frozen=True, slots=True)
class Ruling:
    """What becomes of a recipient. `seconds_left` until a retry passes; `waited` seconds that the retry which passes took."""

    is_deferred: bool
    reason: str
    seconds_left: int = 0
    waited: float = 0.0
    origin: str = ""
    spf: Result | None = None
    is_stranger: bool = False  # deferred, and never seen before


class Incoming:
    """One message; what is asked of the DNS is asked once for all of its recipients."""

    def __init__(self, rules: Rules, envelope: Envelope, ask: Ask) -> None:
        self._rules = rules
        self._envelope = envelope
        self._ask_dns = ask
        self.suspicion: Suspicion | None = None
        self.list_failures: tuple[tuple[str, ListFailure], ...] = ()  # zones that said nothing, and why
        self._is_dns_away = False
        self._is_spent = False  # the message's deadline or its budget
        self._spf: SpfResult | None = None
        self._passes_by_dns: Other | None = None
        self._has_asked = False

    def judge(self, recipient: bytes, conditions: Conditions, store: Store) -> Ruling:
        """Rule on one recipient. Raises nothing but what `ask` and the store raise."""
        envelope = self._envelope
        exemption, is_denied = conditions.exemptions.find(
            envelope.client_address,
            envelope.client_name,
            envelope.mail_from,
            recipient,
            is_authenticated=bool(envelope.login),
        )
        if exemption is not None:
            return _passed(exemption)
        if conditions.aside is not None:
            return _passed(conditions.aside)
        if not is_denied:
            other = self._ask_about_client()
            if other is not None:
                return _passed(other)
        vouched = self._vouched_domain()
        if self._is_dns_away:
            return _passed(Aside.DNS)
        triplet = self._triplet(recipient, vouched)
        if not conditions.is_tried(triplet):
            return _passed(Aside.RETURNS)
        return self._sight(triplet, store, is_vouched=bool(vouched), is_denied=is_denied)

    def _ask_about_client(self) -> Other | None:
        """Return why the client passes whatever it sends."""
        if not self._has_asked:
            self._has_asked = True
            rules = self._rules
            if rules.dnswl and self._is_listed(rules.dnswl):
                self._passes_by_dns = Other.DNSWL
            elif rules.is_suspicious_only and not self._is_suspicious():
                self._passes_by_dns = Other.UNSUSPICIOUS
        return self._passes_by_dns

    def _is_suspicious(self) -> bool:
        rules, envelope = self._rules, self._envelope
        self.suspicion = suspect(
            envelope.client_address,
            envelope.client_name,
            envelope.helo,
            rules.own_names,
            lambda: iprev.check_iprev(envelope.client_address, self._ask, max_names=MAX_CLIENT_NAMES),
            lambda: self._is_listed(rules.dnsbl),
        )
        return self.suspicion is not None

    def _is_listed(self, lists: tuple[DnsList, ...]) -> bool:
        answer = listed(self._envelope.client_address, lists, self._ask)
        self.list_failures += answer.failures
        return answer.listing is not None

    def _vouched_domain(self) -> str:
        """Return the domain that SPF says the client may send for; empty where it says no such thing."""
        if self._spf is None:
            envelope = self._envelope
            self._spf = spf.check_mail_from(
                envelope.client_address, envelope.helo, envelope.mail_from, self._ask, self._rules.spf
            )
        match = self._spf.match
        return self._spf.domain if match is not None and match.prefix_length >= WIDEST_VOUCHED[match.bits] else ""

    def _triplet(self, recipient: bytes, vouched: str) -> Triplet:
        rules, envelope = self._rules, self._envelope
        origin = vouched or network_of(envelope.client_address, rules.ipv4_prefix, rules.ipv6_prefix)
        return Triplet(origin, compared_sender(envelope.mail_from), compared_recipient(recipient))

    def _sight(self, triplet: Triplet, store: Store, *, is_vouched: bool, is_denied: bool) -> Ruling:
        windows = self._rules.windows
        address = correspondent(self._envelope.mail_from) if is_vouched else ""
        if is_denied:  # nothing but this very triplet's own retry lets it pass
            windows, address = replace(windows, passes_to_whitelist=0), ""
        sighting = store.sight(triplet, windows, correspondent=address)
        if sighting is None:
            return _passed(Aside.STORE)
        assert self._spf is not None
        result, memory = self._spf.result, sighting.memory
        if memory in PASSES:
            waited = sighting.now - sighting.first_seen if memory is Memory.RETRIED else 0.0
            return Ruling(False, memory.value, waited=waited, origin=triplet.origin, spf=result)
        # A client known by its SPF domain shall not start over because the DNS is slow for once. Where the message has used
        # up its own time, that may be a forger's doing: by slow names of his address, for a record with `ptr` or `%{p}`.
        by_domain = replace(triplet, origin=self._spf.domain)
        is_excused = result is Result.TEMPERROR and not is_denied and not self._is_spent
        if is_excused and store.recalls(by_domain, windows):
            return _passed(Other.RECALLED)
        left = seconds_left(sighting, windows)
        return Ruling(True, memory.value, left, 0.0, triplet.origin, result, memory is Memory.NEW)

    def _ask(self, question: Question) -> Answer:
        answer = self._ask_dns(question)
        if answer.failure is Failure.AWAY:
            self._is_dns_away = True
        elif answer.failure in (Failure.DEADLINE, Failure.BUDGET):
            self._is_spent = True
        return answer


def _passed(reason: Exemption | Aside | Other) -> Ruling:
    return Ruling(False, reason.value)
