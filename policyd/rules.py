"""From a request of Postfix's to an answer: what it costs which counters, and what follows from how they stand. No I/O.

    plan(request)  who asks, which limits are about it, what each is charged; suspended and exempt accounts are done here
    the store      charges all of it, or none
    decide(...)    the first limit of the configuration that refuses gives the answer

This is run for every recipient of every message. What is the same for all requests is compiled once, and what comes again (a
login, an address, the windows of an account without an incident) is looked up: with three limits plan and decide take 10 to
15 us, of which 4 are the three charges themselves, and 3 a recipient that has not been seen before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from mailward.model.accounts import Account
from mailward.model.limits import Charge, Charging, CounterKey, Force, Kind, Outcome, Sent, Window
from mailward.policy import owners
from mailward.policy.limits import ALL, Act, Count, Limit, RuleSet, base_windows, effective_windows
from mailward.policy.ratelimit import item_of
from policyd.answers import GRANTED, Decision, Hit, answer_of
from policyd.attempts import Attempt, Attempts, Booking, Repeat, Slot
from policyd.protocol import Attributes

__all__ = ["Decision", "Hit", "Plan", "Rules"]

MAX_PROFILES = 4096  # accounts whose windows are at hand; 1 kB each at most
MAX_QUEUE_ID = 32  # characters; Postfix's longest have 17

_MAX_NUMBER = 2**53 - 1  # octets that a client may announce
_NOTHING: Final = Charging(())
_COUNTING_STAGES = frozenset({"RCPT", "DATA", "END-OF-MESSAGE"})
_AFTER_RECIPIENTS = frozenset({"DATA", "END-OF-MESSAGE"})
_KINDS = {Count.FIRST_TIME: Kind.FIRST_TIME, Count.DISTINCT: Kind.DISTINCT}
# Held mail waits for an operator: it is none that the account has sent. What is only logged has gone out, and counts.
_FORCES = {Act.DEFER: Force.ENFORCED, Act.REJECT: Force.ENFORCED, Act.HOLD: Force.SHADOW, Act.LOG: Force.FORCED}


class Plan:
    """What is to be asked of the store for one request. (No frozen dataclass: to make one takes 1 us more.)"""

    __slots__ = (
        "_rules",
        "_settled",
        "account",
        "bookings",
        "charging",
        "correspondents",
        "instance",
        "limits",
        "repeats",
    )

    def __init__(self, rules: Rules, account: str, settled: Decision | None) -> None:
        self._rules = rules
        self._settled = settled
        self.account = account
        self.charging = _NOTHING
        self.correspondents: tuple[str, ...] = ()
        self.instance = ""
        self.limits: list[Limit] = []  # of the charges, in their order
        self.bookings: list[Booking] = []
        self.repeats: Sequence[Repeat] = ()

    def decide(self, outcome: Outcome | None) -> Decision:
        """Say what Postfix is answered. `outcome` None: nobody could count."""
        if self._settled is not None:
            return self._settled
        if outcome is None:
            return self._rules.store_error if self.charging.charges else GRANTED
        if outcome.is_charged:
            for reading in outcome.readings:
                if reading.is_over:
                    break
            else:
                return GRANTED
        return answer_of(self.account, self.limits, self.charging.charges, outcome)


class Request:
    """One request as the limits look at it: the parts that several of them want are read once."""

    __slots__ = ("account", "attempt", "attributes", "domain", "octets", "recipient", "recipients", "stage")

    def __init__(self, attributes: Attributes, stage: str, account: str, attempt: Attempt | None) -> None:
        self.attributes = attributes
        self.stage = stage
        self.account = account
        self.attempt = attempt
        self.recipient = owners.read_address(attributes.get("recipient", ""))
        self.domain = self.recipient.domain  # the one that is being counted for, of those it may go to
        self.recipients = _number(attributes.get("recipient_count", "")) if stage in _AFTER_RECIPIENTS else 0
        self.octets = _number(attributes.get("size", ""))


def _number(text: str) -> int:
    return min(int(text), _MAX_NUMBER) if text.isascii() and text.isdigit() and len(text) <= 18 else 0


class Rules:
    """The limits of one configuration, compiled."""

    def __init__(self, rule_set: RuleSet) -> None:
        self._rule_set = rule_set
        self.limits = rule_set.limits
        self.store_error = _STORE_ERROR_DEFER if rule_set.defers_on_store_error else _STORE_ERROR_DUNNO
        compiled = [_CompiledLimit(limit, at) for at, limit in enumerate(rule_set.limits)]
        self._at_stage = {
            stage: tuple(one for one in compiled if stage in one.limit.stages) for stage in _COUNTING_STAGES
        }
        self._base = tuple(limit.windows for limit in rule_set.limits)
        self._profiles: dict[str, tuple[tuple[Window, ...], ...]] = {}
        self._grows = tuple(at for at, limit in enumerate(rule_set.limits) if limit.warm_up is not None)

    def plan(self, request: Attributes, now: float, accounts: Mapping[str, Account], attempts: Attempts) -> Plan:
        """Say what a request costs. `accounts` has those of whom there is something to remember."""
        login = request.get("sasl_username")
        account = owners.account_of(login) if login else ""
        standing = accounts.get(account) if account else None
        if standing is not None and standing.suspension is not None:
            return Plan(self, account, _SUSPENDED)
        stage = request.get("protocol_state", "")
        if stage not in _COUNTING_STAGES:
            return Plan(self, account, GRANTED)
        instance = request.get("instance", "")
        attempt = attempts.find(instance)
        asked = Request(request, stage, account, attempt)
        is_exempt = self._rule_set.exempt is not None and account and self._rule_set.exempt.matches(request)
        plan = Plan(self, account, _EXEMPT if is_exempt else None)
        plan.instance = instance
        is_first_seen = stage == "RCPT" or attempt is None
        if account and is_first_seen and self._rule_set.records_correspondents and asked.recipient.exact:
            plan.correspondents = (asked.recipient.exact,)
        charges: list[Charge] = []
        if not is_exempt:
            windows = self._windows(account, standing, now)
            for compiled in self._at_stage[stage]:
                compiled.charge(asked, windows[compiled.at], plan, charges)
        sent = _sent(request, account, attempt)
        if charges or sent is not None:
            plan.charging = Charging(tuple(charges), sent)
        return plan

    def _windows(self, account: str, standing: Account | None, now: float) -> Sequence[tuple[Window, ...]]:
        """Return what holds for an account now, for each limit; empty: no limit."""
        base = self._base
        if account and not self._rule_set.overrides.is_empty:
            base = self._profiles.get(account) or self._profile(account)
        if standing is not None and (standing.raises or standing.is_tightened):
            changing: Sequence[int] = range(len(base))
        elif self._grows:
            changing = self._grows
        else:
            return base
        windows, limits = list(base), self.limits
        for at in changing:
            windows[at] = effective_windows(limits[at], base[at], standing, self._rule_set.tighten, now)
        return windows

    def _profile(self, account: str) -> tuple[tuple[Window, ...], ...]:
        if len(self._profiles) >= MAX_PROFILES:
            self._profiles.clear()
        profile = tuple(base_windows(limit, self._rule_set.overrides, account) for limit in self.limits)
        self._profiles[account] = profile
        return profile


def _sent(request: Attributes, account: str, attempt: Attempt | None) -> Sent | None:
    """Return what is to be noted of the queue, once an attempt; the first recipient comes without a queue id."""
    queue_id = request.get("queue_id", "")
    if not account or not queue_id or (attempt is not None and attempt.has_sent):
        return None
    return Sent(account, queue_id) if _is_queue_id(queue_id) else None


def _is_queue_id(text: str) -> bool:
    return text.isascii() and text.isalnum() and len(text) <= MAX_QUEUE_ID


class _CompiledLimit:
    """A limit with what is the same for every request worked out."""

    __slots__ = (
        "_by_domain",
        "_conditions",
        "_count",
        "_force",
        "_kind",
        "_needs_recipient",
        "_others",
        "_owner",
        "at",
        "limit",
    )

    def __init__(self, limit: Limit, at: int) -> None:
        self.limit = limit
        self.at = at
        self._owner = limit.per[0]
        self._others = limit.per[1:]
        self._count = limit.count
        self._kind = _KINDS.get(limit.count, Kind.AMOUNT)
        self._force = Force.SHADOW if limit.is_shadow else _FORCES[limit.act]
        self._needs_recipient = limit.is_of_recipients
        self._by_domain = "recipient_domain" in limit.per
        self._conditions = limit.match if limit.match.conditions else None

    def charge(self, asked: Request, windows: tuple[Window, ...], plan: Plan, charges: list[Charge]) -> None:
        """Add what the request costs to the charges and to the plan; nothing where the limit is not about it."""
        recipient = asked.recipient
        if self._needs_recipient and not recipient.plain:
            return
        if not windows and self._count is not Count.FIRST_TIME:
            return  # without limit; whom the account writes to is still learnt
        if self._conditions is not None and not self._conditions.matches(asked.attributes):
            return
        if not self._by_domain:
            self._charge(asked, self.limit.name, windows, plan, charges)
            return
        for asked.domain in recipient.domains:
            self._charge(asked, (self.limit.name, asked.domain), windows, plan, charges)

    def _charge(
        self, asked: Request, slot: Slot, windows: tuple[Window, ...], plan: Plan, charges: list[Charge]
    ) -> None:
        owner = _subject(self._owner, asked)
        if not owner:
            return
        booking = self._booking(asked, slot, plan)
        if booking is None:
            return
        rest = ""
        if self._others:
            parts = tuple([_subject(other, asked) for other in self._others])
            if not all(parts):
                return
            rest = owners.rest_of(parts)
        item = b""
        if self._kind is not Kind.AMOUNT:
            # One that is counted for its extension is another to the set, too.
            item = item_of(asked.recipient.exact) if booking.is_of_its_own else asked.recipient.item
        key = CounterKey(owner, self.limit.name, rest)
        charges.append(Charge(key, windows, booking.cost, self._kind, item, self._force))
        plan.limits.append(self.limit)
        plan.bookings.append(booking)

    def _booking(self, asked: Request, slot: Slot, plan: Plan) -> Booking | None:
        """Return what is still to be charged of this attempt; None: nothing."""
        attempt, count = asked.attempt, self._count
        if count is Count.MESSAGES:
            return None if attempt is not None and slot in attempt.amounts else Booking(slot, 1)
        if count is Count.BYTES:
            charged = attempt.amounts.get(slot, 0) if attempt is not None else 0
            return Booking(slot, asked.octets - charged) if asked.octets > charged else None
        if count is Count.RECIPIENTS and asked.stage != "RCPT":
            left = attempt.left_of(slot, asked.recipients) if attempt is not None else asked.recipients
            return Booking(slot, left) if left else None
        return _booking_of_recipient(asked, slot, plan) if asked.recipient.plain else None


def _booking_of_recipient(asked: Request, slot: Slot, plan: Plan) -> Booking | None:
    attempt, recipient = asked.attempt, asked.recipient
    written = hash((slot, recipient.exact))
    plain = written if recipient.plain == recipient.exact else hash((slot, recipient.plain))
    if attempt is not None and attempt.is_repeat(slot, written, plain):
        plan.repeats = (*plan.repeats, Repeat(slot, written))
        return None
    if attempt is not None and plain in attempt.seen:
        return Booking(slot, 1, (written,), is_of_its_own=True)
    return Booking(slot, 1, (written,) if plain == written else (written, plain))


def _subject(per: str, asked: Request) -> str:
    """Return of whom a limit counts, as it stands in a key; empty where the request has nobody of the kind."""
    value = _SUBJECTS[per](asked)
    return value and (value if per == ALL else f"{per}={value}")


_SUBJECTS: Mapping[str, Callable[[Request], str]] = {
    "sasl_username": lambda asked: asked.account,
    "sasl_domain": lambda asked: owners.domain_of_account(asked.account),
    "sender": lambda asked: owners.read_address(asked.attributes.get("sender", "")).plain,
    "sender_domain": lambda asked: owners.read_address(asked.attributes.get("sender", "")).domain,
    "client_address": lambda asked: owners.client(asked.attributes.get("client_address", "")),
    "client_network": lambda asked: owners.network(asked.attributes.get("client_address", "")),
    "recipient_domain": lambda asked: asked.domain,
    ALL: lambda _asked: ALL,
}

_SUSPENDED = Decision("REJECT 5.7.1 This account is suspended; ask your postmaster", "suspended", is_refusal=True)
_EXEMPT = Decision("DUNNO", "exempt")
_STORE_ERROR_DUNNO = Decision("DUNNO", "store-error")
_STORE_ERROR_DEFER = Decision("DEFER 4.3.0 Limits cannot be looked up; try again later", "store-error", is_refusal=True)
