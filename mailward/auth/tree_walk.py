"""The DNS tree walk (RFC 9989 4.10): which policy records stand above a name, and what its organizational domain is.

No public suffix list. A question that is not answered leaves several organizational domains possible, never a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

from mailward.auth.dmarc_record import PolicyRecord, Psd, is_policy_record, parse
from mailward.model.dns import Answer, AnswerStatus, Question, RecordType
from mailward.model.domain import MAX_NAME, parents
from mailward.model.results import WalkStep

MAX_QUERIES = 8  # RFC 9989 4.10: a name of hundreds of labels costs no more than one of eight

_NEVER_ASKED = Answer(AnswerStatus.NXDOMAIN)


class Alignment(Enum):
    """Whether two domains have one organizational domain; UNKNOWN where the DNS did not say enough."""

    ALIGNED = "aligned"
    NOT_ALIGNED = "not aligned"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Site:
    """What stands at one name's `_dmarc`: the one record that counts, or none; `step` says it in words."""

    name: str
    status: AnswerStatus
    record: PolicyRecord | None
    step: WalkStep

    @property
    def is_unanswered(self) -> bool:
        return self.status is AnswerStatus.TEMPFAIL


@dataclass(frozen=True, slots=True)
class Walk:
    """The sites of one walk, from its start upwards, and the organizational domains they leave possible.

    There is exactly one where every question was answered, and often where one was not: what the unanswered name could
    hold may make no difference.
    """

    sites: tuple[Site, ...]
    organizational_domains: frozenset[str]

    @property
    def organizational_domain(self) -> str:
        """The organizational domain, or the empty string where several are possible."""
        (first, *others) = self.organizational_domains
        return "" if others else first


class TreeWalks:
    """The walks of one message: one for each domain, and no name asked about twice."""

    def __init__(self, ask: Callable[[Question], Answer]) -> None:
        self._ask = ask
        self._sites: dict[str, Site] = {}
        self._walks: dict[str, Walk] = {}

    def alignment(self, author_domain: str, identifier: str) -> Alignment:
        """Compare the organizational domains of two different names (RFC 9989 4.10.2).

        The identifier's own names are asked about only where the author domain's possible organizational domains have one
        at or above it. So a stranger's signature for a domain of his own, whose servers he keeps silent, leaves nothing
        in doubt: no name under his control is ever needed to say that it is not aligned.
        """
        ours = self.walk(author_domain).organizational_domains
        above = {identifier, *parents(identifier)}
        if ours.isdisjoint(above):
            return Alignment.NOT_ALIGNED
        theirs = self.walk(identifier).organizational_domains
        if ours.isdisjoint(theirs):
            return Alignment.NOT_ALIGNED
        return Alignment.ALIGNED if len(ours | theirs) == 1 else Alignment.UNKNOWN

    def walk(self, start: str) -> Walk:
        """Walk from `start` up to the first psd=y or psd=n, or to the top (RFC 9989 4.10, steps 1 to 7)."""
        walk = self._walks.get(start)
        if walk is None:
            sites = tuple(self._walked_sites(start))
            walk = self._walks[start] = Walk(sites, frozenset(_organizational_domains(start, sites)))
        return walk

    def walk_done(self, start: str) -> Walk | None:
        """Return the walk from `start` where one was needed."""
        return self._walks.get(start)

    def site(self, name: str) -> Site:
        """Look at one name's `_dmarc`."""
        site = self._sites.get(name)
        if site is None:
            site = self._sites[name] = _site(name, self._answer(f"_dmarc.{name}"))
        return site

    def does_exist(self, name: str) -> bool | None:
        """Say whether a domain exists (RFC 9989 3.2.13: NXDOMAIN, to any type); None where the DNS does not say.

        What exists below a name makes the name exist (RFC 8020), so an answer for its `_dmarc` may have told already. TXT is
        what SPF asks, and what no resolver answers with an advertisement's address.
        """
        status = self.site(name).status
        if status in (AnswerStatus.NXDOMAIN, AnswerStatus.TEMPFAIL):
            status = self._answer(name).status
        return None if status is AnswerStatus.TEMPFAIL else status is not AnswerStatus.NXDOMAIN

    def _walked_sites(self, start: str) -> Iterator[Site]:
        for name in _walked_names(start):
            site = self.site(name)
            yield site
            if site.record and site.record.psd is not Psd.UNKNOWN:
                return

    def _answer(self, name: str) -> Answer:
        return self._ask(Question(name, RecordType.TXT)) if len(name) <= MAX_NAME else _NEVER_ASKED


def _walked_names(start: str) -> Iterator[str]:
    """Yield the names a walk may ask about: the start, then at most seven labels, then one fewer each time.

    >>> list(_walked_names("mail.example.com"))
    ['mail.example.com', 'example.com', 'com']
    """
    yield start
    labels = start.split(".")
    for count in range(min(len(labels), MAX_QUERIES) - 1, 0, -1):
        yield ".".join(labels[-count:])


def _site(name: str, answer: Answer) -> Site:
    """Keep the record where there is exactly one: several are as good as none (RFC 9989 4.10, step 2)."""
    records = [octets for octets in answer.records if is_policy_record(octets)]
    if len(records) == 1:
        record = parse(records[0])
        return Site(name, answer.status, record, WalkStep(name, record.text, is_record=True))
    return Site(name, answer.status, None, WalkStep(name, _why_none(answer.status, len(records))))


def _why_none(status: AnswerStatus, records: int) -> str:
    if status is AnswerStatus.TEMPFAIL:
        return "the DNS did not answer"
    return "several policy records: none counts" if records else "no policy record"


def _organizational_domains(start: str, sites: tuple[Site, ...]) -> Iterator[str]:
    """Yield every domain the selection of RFC 9989 4.10.2 can end at, the longest sites first.

    `topmost` is the third rule's choice so far: the record with the fewest labels, the start itself where there is none. An
    unanswered name may hold any record or none: it may be the organizational domain, or sit right above it, or be nothing.
    """
    topmost = start
    for site in sites:
        psd = site.record and site.record.psd
        if site.is_unanswered:
            yield from (site.name, _one_below(site.name, start))
        elif psd is Psd.UNKNOWN:
            topmost = site.name
        elif psd is Psd.NO:
            yield site.name
            return
        elif psd is Psd.YES:
            yield _one_below(site.name, start)
            return
    yield topmost


def _one_below(name: str, start: str) -> str:
    """Return the name one label below a public suffix on the way to `start`; the start itself is none to itself.

    It is made of the start's own labels, for the walk may have jumped over it.

    >>> _one_below("bank.example", "mail.giant.bank.example")
    'giant.bank.example'
    """
    labels = start.split(".")
    return ".".join(labels[-name.count(".") - 2 :])
