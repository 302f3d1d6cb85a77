"""check_host(): what an SPF record says of a client (RFC 7208 4 to 6). No I/O: every question goes through `ask`.

Bounded whoever wrote the records: 10 terms that ask the DNS, which also bounds how deep records include records; 10 names
of an mx or ptr; terms that ask in vain; the size of records and terms (mailward.auth.spf_record). The time is bounded by
`ask`, which answers TEMPFAIL when the message's deadline is over. What `ask` raises is our own bug, and goes through.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from mailward.auth.client import is_among
from mailward.auth.spf_record import (
    MAX_NAME,
    MacroFault,
    Macros,
    Record,
    Sender,
    Term,
    parse_record,
    printable,
    select_records,
    wants_confirmed_name,
)
from mailward.auth.spf_trace import Trace
from mailward.model.dns import Answer, AnswerStatus, Failure, Question, RecordType
from mailward.model.domain import parents
from mailward.model.results import Result, SpfMatch

MAX_LOOKUPS = 10  # RFC 7208 4.6.4: terms that ask the DNS
MAX_NAMES = 10  # of one mx (more is a permerror), and of one ptr or %{p} (more are ignored)
MAX_EXPLANATION = 200  # characters: it may become part of a reply

# What a macro can make of an address, and the DNS can be asked for: no backslash, which means something else in every
# text form of a name.
_ASKABLE = re.compile(r"[\x20-\x5b\x5d-\x7e]+")

Ask = Callable[[Question], Answer]

_NOBODYS_DOING = (Failure.AWAY, Failure.OWN_WANT)  # why the DNS may not answer, whoever owns the name


@dataclass(frozen=True, slots=True)
class SpfLimits:
    """What one evaluation may cost; `wants_terms` fills SpfResult.terms."""

    void_lookups: int = 2  # RFC 7208 4.6.4: terms whose questions find nothing
    wants_terms: bool = False


class Stop(Exception):
    """The evaluation is over: a temperror or a permerror, and its reason.

    `is_owners_silence`: it is for the name's own servers' silence; false for a DNS that is away as a whole.
    """

    def __init__(self, result: Result, reason: str, *, is_owners_silence: bool = False) -> None:
        super().__init__(reason)
        self.result = result
        self.reason = reason
        self.is_owners_silence = is_owners_silence


class Evaluation:
    """One run of check_host(), and its counts."""

    def __init__(self, sender: Sender, ask: Ask, limits: SpfLimits) -> None:
        self.lookups = 0
        self.void_lookups = 0
        self._is_term_void = False  # the term at work has been counted among them
        self.mechanism = ""  # the term of the sender's own record that decided
        self.trace = Trace()
        self._sender = sender
        self._client = sender.client
        self._ask_dns = ask
        self._limits = limits
        self._inclusions = 0
        self._innermost: Term | None = None  # the last term that matched, but for the includes that it made match
        self._explanation: tuple[str, str] | None = None  # domain-spec, and the domain of its record
        self._client_names: list[str] | None = None
        self._confirmed: dict[str, bool] = {}
        self._macros: Macros | None = None

    def run(self) -> Result:
        """Judge the sender's domain; NONE where it has no record. Raises Stop."""
        domain = self._sender.domain
        answer = self._ask_dns(Question(domain, RecordType.TXT))
        if answer.status is AnswerStatus.TEMPFAIL:
            raise _no_answer(answer)
        octets = _only_record(answer.records)
        if octets is None:
            return Result.NONE
        try:
            return self._judge(domain, octets)
        except Stop as stop:
            self.trace.stop(f"{stop.result.value}: {stop.reason}")
            raise

    def explain(self) -> str:
        """Return the sender's own explanation of a fail; empty where there is none that can be read (RFC 7208 6.2)."""
        if self._explanation is None:
            return ""
        spec, domain = self._explanation
        self._is_term_void = False
        try:
            name = self._expand(spec, domain)
            if name is None or not _is_askable(name):
                return ""
            answer = self._ask_dns(Question(name, RecordType.TXT))
            if len(answer.records) != 1:
                return ""
            text = answer.records[0]
            confirmed = self._confirmed_name(domain) if wants_confirmed_name(text.decode("latin-1")) else "unknown"
            return self._expander().text(text, domain, confirmed)[:MAX_EXPLANATION]
        except (Stop, MacroFault):
            return ""

    def match(self) -> SpfMatch | None:
        """Say how much of the client's address mattered; after a PASS."""
        term, bits = self._innermost, self._client.bits
        if term is None:
            return None
        if term.network is not None:
            return SpfMatch(bits - term.shift, bits)
        return SpfMatch(term.prefix_length if term.mechanism in ("a", "mx") else 0, bits)

    def _judge(self, domain: str, octets: bytes) -> Result:
        """Evaluate one record, term by term (RFC 7208 4.6.2)."""
        record = parse_record(octets, self._client.bits)
        if record.fault:
            raise Stop(Result.PERMERROR, record.fault)
        number = self._client.number
        wants_terms = self._limits.wants_terms
        for term in record.terms:
            if wants_terms:
                is_match = self._matches_aloud(term, domain)
            elif term.network is not None:  # here, for most terms are networks and a call costs as much as the match
                is_match = (number ^ term.network) >> term.shift == 0
            else:
                is_match = _MATCHES[term.mechanism](self, term, domain)
            if is_match:
                if term.mechanism != "include":
                    self._innermost = term
                if not self._inclusions:
                    self.mechanism = printable(term.text)
                    self._explanation = (record.explanation, domain) if record.explanation else None
                return term.result
        return self._redirect(record, domain) if record.redirect else Result.NEUTRAL

    def _redirect(self, record: Record, domain: str) -> Result:
        """Let another domain's record stand for this one's (RFC 7208 6.1), its explanation too."""
        self._count_lookup()
        target = self._expand(record.redirect, domain)
        if target is None:
            return Result.NEUTRAL
        if self._limits.wants_terms:
            self.trace.begin(domain, f"redirect={record.redirect}", self._with_counts("no term matched"))
        octets = self._record_of(target)
        if octets is None:
            raise Stop(Result.PERMERROR, "the domain of a redirect has no SPF record")
        return self._judge(target, octets)

    def _matches_aloud(self, term: Term, domain: str) -> bool:
        """Match a term, and write down what came of it."""
        before = self.lookups
        step = self.trace.begin(domain, term.text)
        is_match = _MATCHES[term.mechanism](self, term, domain)
        outcome = f"match: {term.result.value}" if is_match else "no match"
        self.trace.end(step, self._with_counts(outcome) if self.lookups != before else outcome)
        return is_match

    def _with_counts(self, outcome: str) -> str:
        void = f", {self.void_lookups} void" if self.void_lookups else ""
        return f"{outcome} ({self.lookups} of {MAX_LOOKUPS} lookups{void})"

    # The mechanisms (RFC 7208 5), each called with its term and the domain of its record.

    def _all(self, _term: Term, _domain: str) -> bool:
        return True

    def _ip(self, term: Term, _domain: str) -> bool:
        return term.network is not None and (self._client.number ^ term.network) >> term.shift == 0

    def _include(self, term: Term, domain: str) -> bool:
        self._count_lookup()
        target = self._expand(term.name, domain)
        if target is None:
            return False
        if target == domain:
            raise Stop(Result.PERMERROR, "a record includes itself")
        octets = self._record_of(target)
        if octets is None:
            raise Stop(Result.PERMERROR, "an included domain has no SPF record")
        self._inclusions += 1
        result = self._judge(target, octets)
        self._inclusions -= 1
        return result is Result.PASS

    def _a(self, term: Term, domain: str) -> bool:
        self._count_lookup()
        name = self._expand(term.name, domain)
        return name is not None and self._has_client(name, term.prefix_length)

    def _mx(self, term: Term, domain: str) -> bool:
        self._count_lookup()
        name = self._expand(term.name, domain)
        exchanges = self._records(name, RecordType.MX) if name is not None else ()
        if len(exchanges) > MAX_NAMES:
            raise Stop(Result.PERMERROR, f"more than {MAX_NAMES} MX names")
        names = (_text(exchange).partition(" ")[2] for exchange in exchanges)
        return any(self._has_client(_without_dot(name).lower(), term.prefix_length) for name in names)

    def _exists(self, term: Term, domain: str) -> bool:
        self._count_lookup()
        name = self._expand(term.name, domain)
        return name is not None and bool(self._records(name, RecordType.A))  # A for IPv6 clients too (RFC 7208 5.7)

    def _ptr(self, term: Term, domain: str) -> bool:
        self._count_lookup()
        target = self._expand(term.name, domain)
        if target is None:
            return False
        # Only the names that would match are asked about.
        return any(self._is_confirmed(name) for name in self._names_of_client() if target in (name, *parents(name)))

    # What the mechanisms ask.

    def _count_lookup(self) -> None:
        self._is_term_void = False
        self.lookups += 1
        if self.lookups > MAX_LOOKUPS:
            raise Stop(Result.PERMERROR, f"more than {MAX_LOOKUPS} DNS terms")

    def _record_of(self, name: str) -> bytes | None:
        return _only_record(self._records(name, RecordType.TXT)) if "." in name else None

    def _has_client(self, name: str, prefix_length: int) -> bool:
        return is_among(self._client, self._records(name, self._client.record_type), prefix_length)

    def _records(self, name: str, record_type: RecordType) -> tuple[bytes, ...]:
        """Ask, and count the terms that ask in vain. A name that nobody can have is not asked for.

        RFC 7208 4.6.4 limits the terms for which nothing is found, not the questions: an mx of three names without an AAAA
        record must not be a permerror for every IPv6 client of a provider included behind it.
        """
        if not _is_askable(name):
            return ()
        answer = self._ask_dns(Question(name, record_type))
        if answer.status is AnswerStatus.TEMPFAIL:
            raise _no_answer(answer)
        if not answer.records and not self._is_term_void:
            self._is_term_void = True
            self.void_lookups += 1
            if self.void_lookups > self._limits.void_lookups:
                raise Stop(Result.PERMERROR, f"more than {self._limits.void_lookups} void lookups")
        return answer.records

    def _names_of_client(self) -> list[str]:
        """Return the names of the client's address, not yet confirmed.

        None if its servers do not say (RFC 7208 5.5), for they may be the sender's own. A DNS that is away as a whole is
        nobody's doing, and stays an error.
        """
        if self._client_names is None:
            self._client_names = []
            try:
                records = self._records(self._client.reverse_name, RecordType.PTR)[:MAX_NAMES]
            except Stop as stop:
                if not stop.is_owners_silence:
                    raise
                return []
            self._client_names = [_without_dot(_text(record)).lower() for record in records]
        return self._client_names

    def _is_confirmed(self, name: str) -> bool:
        """Say whether a name of the client leads back to it; if the DNS does not say, it does not (RFC 7208 5.5)."""
        if name not in self._confirmed:
            try:
                self._confirmed[name] = self._has_client(name, self._client.bits)
            except Stop as stop:
                if not stop.is_owners_silence:
                    raise
                self._confirmed[name] = False
        return self._confirmed[name]

    def _confirmed_name(self, domain: str) -> str:
        """Return what %{p} stands for (RFC 7208 7.3): the domain itself, else a name below it, else any."""
        names = self._names_of_client()
        below = [name for name in names if domain in parents(name)]
        wanted = [domain] * (domain in names) + below + names
        return next((name for name in dict.fromkeys(wanted) if self._is_confirmed(name)), "unknown")

    def _expand(self, spec: str, domain: str) -> str | None:
        """Return the name a domain-spec stands for, None where it can match nothing."""
        if spec == "%{d}":
            return domain
        if "%" not in spec and len(spec) <= MAX_NAME:
            return _without_dot(spec).lower()
        confirmed = self._confirmed_name(domain) if wants_confirmed_name(spec) else "unknown"
        try:
            return self._expander().name(spec, domain, confirmed)
        except MacroFault:
            raise Stop(Result.PERMERROR, "a macro that cannot be expanded") from None

    def _expander(self) -> Macros:
        if self._macros is None:  # 6 us, for few records have macros
            self._macros = Macros(self._sender)
        return self._macros


_MATCHES: dict[str, Callable[[Evaluation, Term, str], bool]] = {
    "all": Evaluation._all,
    "ip4": Evaluation._ip,
    "ip6": Evaluation._ip,
    "include": Evaluation._include,
    "a": Evaluation._a,
    "mx": Evaluation._mx,
    "exists": Evaluation._exists,
    "ptr": Evaluation._ptr,
}


def _no_answer(answer: Answer) -> Stop:
    reason = f"no DNS answer: {answer.reason}" if answer.reason else "no DNS answer"
    return Stop(Result.TEMPERROR, reason, is_owners_silence=answer.failure not in _NOBODYS_DOING)


def _only_record(records: tuple[bytes, ...]) -> bytes | None:
    """Return the one SPF record among TXT records (RFC 7208 4.5)."""
    found = select_records(records)
    if len(found) > 1:
        raise Stop(Result.PERMERROR, "more than one SPF record")
    return found[0] if found else None


def _is_askable(name: str) -> bool:
    return (
        len(name) <= MAX_NAME
        and _ASKABLE.fullmatch(name) is not None
        and all(0 < len(label) < 64 for label in name.split("."))
    )


def _text(record: bytes) -> str:
    return record.decode("latin-1")


def _without_dot(name: str) -> str:
    return name.removesuffix(".")
