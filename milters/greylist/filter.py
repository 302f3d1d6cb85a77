"""The way of one message through the greylister: each recipient is judged at RCPT, and only that one is deferred.

The null sender is judged at the end of the message: whoever calls back to see whether an address exists says RCPT and leaves,
and an answer of 450 would keep mail of ours from being sent. (Not at DATA, see EnvelopeFilter.) What is found and decided is
mailward.inbound.greylisting's; this file adds the clock, the resolver, the store, the counters and the log.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from mailward.adapters.guarded_greylist import GuardedGreylist
from mailward.adapters.resolver import MessageQueries, Resolver
from mailward.adapters.store_breaker import FAILURES, OPENED
from mailward.daemon.log import Log
from mailward.daemon.metrics import Counter, Gauge, Histogram, Row
from mailward.daemon.milter_service import NOT_JUDGED, SESSION_METRICS
from mailward.daemon.shown import Part, Shown, Tone
from mailward.inbound.greylisting import REASONS, Aside, Incoming, Rules, Ruling
from mailward.model.errors import StoreFailure
from mailward.model.greylist import Memory
from mailward.model.message import Transaction
from mailward.model.verdict import Action, InsertField, Reply, Verdict
from mailward.policy.dns_lists import ListFailure
from mailward.policy.greylist import PASSES
from milters.greylist.watch import Watch

PASS, DEFER = "pass", "defer"
FIELD = "X-Greylist"
_DEFERRING = tuple(memory.value for memory in Memory if memory not in PASSES)
_DELAYS = (60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0, 43200.0, 86400.0, 172800.0)
_PASSED = Verdict(Action.ACCEPT, PASS)

METRICS = (
    Counter("recipients", "Recipients, by what became of them.", "verdict", (PASS, DEFER)),
    Counter("reasons", "Recipients, by why they passed or were deferred.", "reason", REASONS),
    Counter("shadow", "Recipients that would have been deferred, were it not for shadow mode.", "reason", _DEFERRING),
    Counter("messages", "Messages that passed because they could not be judged.", "verdict", NOT_JUDGED),
    Histogram("delay_seconds", "How long those were delayed whose retry passed.", _DELAYS),
    Histogram("seconds", "Time that judging a recipient took."),
    Counter(FAILURES, "Times the store did not answer, or too late.", "reason", tuple(f.value for f in StoreFailure)),
    Counter(OPENED, "Times the store was found away and left alone."),
    Counter(
        "dns_list_failures", "Times a DNS list said nothing of a client.", "reason", tuple(f.value for f in ListFailure)
    ),
    Gauge(
        "breakers_open", "Workers in which greylisting stands aside, by why.", "breaker", tuple(a.value for a in Aside)
    ),
    Gauge("deferral_spike", "Workers that see far more strangers deferred than is usual."),
    *SESSION_METRICS,
)

_ASIDE = tuple(why.value for why in Aside)
_STRANGERS = {Memory.NEW.value, Memory.RETRIED.value, Memory.EARLY.value, Memory.LATE.value}
_KNOWN = tuple(reason for reason in REASONS if reason not in {*_STRANGERS, *_ASIDE})

SHOWN = (
    Shown(
        "Recipients",
        (
            Part("let through", "recipients", (PASS,), Tone.GOOD),
            Part("told to come again", "recipients", (DEFER,), Tone.LATER),
            Part("in messages that could not be judged", "messages", NOT_JUDGED, Tone.BAD),
        ),
        seconds="seconds",
    ),
    Shown(
        "Why",
        (
            Part("came again in time", "reasons", (Memory.RETRIED.value,), Tone.GOOD),
            Part("known or exempt", "reasons", _KNOWN, Tone.PLAIN),
            Part("seen for the first time", "reasons", (Memory.NEW.value,), Tone.LATER),
            Part("came again too early or too late", "reasons", (Memory.EARLY.value, Memory.LATE.value), Tone.ODD),
            Part("greylisting stood aside", "reasons", _ASIDE, Tone.BAD),
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Greylister:
    """All that greylisting needs and that outlives a message."""

    rules: Rules
    watch: Watch
    store: GuardedGreylist
    resolver: Resolver
    metrics: Row
    log: Log
    authserv_id: str
    is_shadow: bool
    writes_field: bool


class GreylistMessage:
    """One message on its way (the EnvelopeFilter of mailward.milter.program)."""

    __slots__ = ("_greylister", "_incoming", "_lookups", "_transaction", "_waited")

    def __init__(self, greylister: Greylister, transaction: Transaction) -> None:
        self._greylister = greylister
        self._transaction = transaction
        self._lookups: MessageQueries = greylister.resolver.for_message()
        self._incoming = Incoming(greylister.rules, transaction.envelope, self._lookups.ask)
        self._waited = 0.0

    def recipient(self, address: bytes) -> Verdict | None:
        """Judge a recipient; that of the null sender only once the message is to come."""
        return self._judge(address) if self._transaction.envelope.mail_from else None

    def data(self) -> bool:
        """Ask for the end of the message where something has still to be judged, or the message shall get its field."""
        return not self._transaction.envelope.mail_from or self._wants_field()

    def end_of_message(self) -> Verdict:
        """Judge the null sender's recipients; say in a field how long the message was delayed."""
        envelope = self._transaction.envelope
        if not envelope.mail_from:
            verdicts = [self._judge(address) for address in envelope.rcpt_to]
            deferred = [verdict for verdict in verdicts if verdict is not None]
            if deferred:
                return deferred[-1]
        if not self._wants_field():
            return _PASSED
        value = f" delayed {self._waited:.0f} seconds by {self._greylister.authserv_id}"
        return Verdict(Action.ACCEPT, PASS, (InsertField(FIELD, value),))

    def _wants_field(self) -> bool:
        return self._greylister.writes_field and self._waited > 0

    def _judge(self, address: bytes) -> Verdict | None:
        """Rule on one recipient, tell, and say what happens."""
        greylister, started = self._greylister, time.perf_counter()
        ruling = self._incoming.judge(address, greylister.watch.conditions(), greylister.store)
        seconds = time.perf_counter() - started
        self._count(ruling, seconds)
        self._log(address, ruling, seconds)
        if not greylister.is_shadow:  # nobody was made to wait
            self._waited = max(self._waited, ruling.waited)
        self._tell_list_failures()
        if not ruling.is_deferred or greylister.is_shadow:
            return None
        left = ruling.seconds_left
        text = f"Greylisted, try again in {left} second{'s' if left > 1 else ''}"
        return Verdict(Action.TEMPFAIL, ruling.reason, reply=Reply(450, "4.7.1", text))

    def _count(self, ruling: Ruling, seconds: float) -> None:
        greylister, metrics = self._greylister, self._greylister.metrics
        counted = [("reasons", ruling.reason)]
        if ruling.is_deferred and greylister.is_shadow:
            counted += [("shadow", ruling.reason), ("recipients", PASS)]
        else:
            counted.append(("recipients", DEFER if ruling.is_deferred else PASS))
        metrics.count_each(counted)
        metrics.observe("seconds", seconds)
        if ruling.waited and not greylister.is_shadow:
            metrics.observe("delay_seconds", ruling.waited)
        if ruling.is_stranger:
            greylister.watch.count_stranger()

    def _tell_list_failures(self) -> None:
        """Count the DNS lists that said nothing; the message's next recipient asks them no more."""
        failures, self._incoming.list_failures = self._incoming.list_failures, ()
        for zone, failure in failures:
            self._greylister.metrics.count("dns_list_failures", failure.value)
            if failure is ListFailure.REFUSED:
                self._greylister.watch.tell_refused(zone)

    def _log(self, address: bytes, ruling: Ruling, seconds: float) -> None:
        transaction, envelope = self._transaction, self._transaction.envelope
        is_shadow, suspicion = self._greylister.is_shadow, self._incoming.suspicion
        self._greylister.log.info(
            "recipient",
            session=transaction.session_id,
            queue_id=transaction.queue_id,
            client=envelope.client_address,
            verdict=DEFER if ruling.is_deferred and not is_shadow else PASS,
            would=DEFER if ruling.is_deferred and is_shadow else "",
            reason=ruling.reason,
            suspicion=suspicion.value if suspicion else "",
            seconds_left=ruling.seconds_left or "",
            waited=f"{ruling.waited:.0f}" if ruling.waited else "",
            origin=ruling.origin,
            spf=ruling.spf.value if ruling.spf else "",
            helo=envelope.helo,
            mail_from=envelope.mail_from,
            rcpt_to=address,
            login=envelope.login,
            queries=self._lookups.queries,
            ms=f"{seconds * 1000:.1f}",
        )
