"""What the decisions and the adapters need of others, as narrow Protocols; mailward.adapters and daemon have the real ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from mailward.model.accounts import Account, AuditEntry
from mailward.model.dns import Answer, Question
from mailward.model.greylist import Entry, Orders, OriginRecord, ReturnCount, Sighting, Triplet, TripletRecord, Windows
from mailward.model.limits import Charging, CounterRecord, Outcome
from mailward.model.state import StateSize


class Counts(Protocol):
    """Where numbers go; a worker's row of metrics is one."""

    def count(self, name: str, value: str = "", amount: float = 1.0) -> None:
        """Add to the number `name`, of which there is one for each `value`."""


class OnEvent(Protocol):
    """Where transitions are told; `level` and `event` are words of the log."""

    def __call__(self, level: str, event: str, **fields: object) -> None:
        """Tell one event."""


class Resolver(Protocol):
    """The DNS."""

    def ask(self, question: Question) -> Answer:
        """Answer within the configured deadline; never raises for what the DNS says or fails to say."""


class TripletStore(Protocol):
    """Greylisting's memory. Every method raises StoreError, within the budget of seconds the store was opened with.

    Used from many threads at once. `now` None is the store's own clock: of several machines with one Redis, Redis's.
    """

    def sight(
        self, triplet: Triplet, windows: Windows, *, correspondent: str = "", now: float | None = None
    ) -> Sighting:
        """Remember that a triplet was sighted, and say what was known; one atomic step (mailward.policy.greylist.sight).

        `correspondent`: the sender's address (mailward.policy.greylist_key.correspondent) where SPF says that the client may
        send for its domain, so that it passes if somebody here has written to it; else empty.
        """

    def recalls(self, triplet: Triplet, windows: Windows, now: float | None = None) -> bool:
        """Say whether a sighting would pass by what is remembered, and change nothing."""

    def returns(self, now: float | None = None) -> tuple[ReturnCount, ...]:
        """Return the buckets of the last two days in which returns were expected, the oldest first."""

    def orders(self, now: float | None = None) -> Orders:
        """Return what the operator has ordered and is in force."""

    def probe(self) -> None:
        """Write something that nobody reads, as a sighting would."""

    def size(self) -> StateSize | None:
        """Return how large the state is; None where it takes no room on this machine's disk."""

    def tend(self, now: float | None = None) -> None:
        """Do a small step of housekeeping, at most 10 ms; called several times a second by every worker."""

    def close(self) -> None:
        """Let go of files and connections."""


class CorrespondentStore(Protocol):
    """Whom somebody here has written to: recorded by what sees outgoing mail, read by TripletStore.sight()."""

    def record(self, addresses: Iterable[str], lifetime: float, now: float | None = None) -> None:
        """Remember addresses for `lifetime` seconds from now on, as mailward.policy.greylist_key.correspondent makes them."""


class GreylistRecords(TripletStore, CorrespondentStore, Protocol):
    """All that `mailward greylist` needs: the same state, read and changed beside running daemons."""

    def triplets(self) -> Iterator[TripletRecord]:
        """Yield every triplet, expired ones too; what comes and goes meanwhile may be missed. Never locks others out."""

    def origins(self) -> Iterator[OriginRecord]:
        """Yield every origin, likewise."""

    def correspondents(self) -> Iterator[tuple[str, float]]:
        """Yield every correspondent and when it expires, likewise."""

    def count_triplets(self) -> int:
        """Return about how many triplets there are, quickly: for a progress bar."""

    def put_triplets(self, records: Iterable[TripletRecord]) -> None:
        """Write triplets as they are, over what is there; in steps that lock nobody out."""

    def put_origins(self, records: Iterable[OriginRecord]) -> None:
        """Write origins likewise."""

    def forget_triplet(self, triplet: Triplet) -> bool:
        """Forget one triplet; say whether it was there."""

    def forget_origin(self, origin: str) -> bool:
        """Forget what an origin has earned; its triplets stay."""

    def set_entry(self, entry: Entry) -> None:
        """Add an entry, in place of one for the same kind and subject."""

    def remove_entry(self, entry: Entry) -> bool:
        """Remove the entry for the same kind and subject; say whether it was there."""

    def switch_off(self, until: float) -> None:
        """Order that greylisting is off until then; 0.0: on."""


class CounterStore(Protocol):
    """What has been counted. Every method raises StoreError, within the budget of seconds the store was opened with.

    `now` None is the store's own clock: of several machines with one Redis, Redis's.
    """

    def charge(self, chargings: Sequence[Charging], now: float | None = None) -> list[Outcome]:
        """Charge requests one after the other, each in one step, as mailward.policy.ratelimit.charge defines it.

        What is returned survives as durably as configured. A StoreError means that none was charged, or that nobody knows.
        """

    def probe(self) -> None:
        """Write something that nobody reads, as a charge would."""

    def size(self) -> StateSize | None:
        """Return how large the state is; None where it takes no room on this machine's disk."""

    def tend(self, now: float | None = None) -> None:
        """Do a small step of housekeeping, at most 10 ms; called several times a second."""

    def close(self) -> None:
        """Let go of files and connections."""


class AccountStore(Protocol):
    """What holds for accounts, beside their counters; changed by policyd and by the operator, read by both."""

    def accounts_version(self) -> str:
        """Return something that is another each time an account has changed; cheap, asked every second.

        What stands before its last "-", if there is one, names the store: it is another where that has been begun anew.
        """

    def accounts(self) -> Mapping[str, Account]:
        """Return every account of which there is something to remember, by its name."""

    def account(self, name: str) -> Account:
        """Return one account; a plain one where nothing is remembered."""

    def swap(self, old: Account, new: Account, entries: Sequence[AuditEntry] = ()) -> bool:
        """Put `new` in the place of `old` and add the entries to the audit log, in one step; False if it is not `old` any more.

        A plain account is forgotten.
        """

    def audit(self, entry: AuditEntry) -> None:
        """Add to the audit log; nothing there is ever changed. Of more than 100,000 the oldest go."""

    def audit_log(self, account: str = "", most: int = 1000) -> Sequence[AuditEntry]:
        """Return the newest entries, of one account or of all, the newest first."""

    def put_note(self, name: str, value: str) -> None:
        """Keep a small fact for the command to show; `name` is one of a closed set of ours."""

    def notes(self) -> Mapping[str, str]:
        """Return the facts that are kept."""


class LimitRecords(CounterStore, AccountStore, Protocol):
    """All that `mailward limits` needs: the same state, read and changed beside running daemons."""

    def counters(self, owner: str) -> Sequence[CounterRecord]:
        """Return an owner's counters, expired ones too."""

    def all_counters(self) -> Iterator[CounterRecord]:
        """Yield every counter but the sets of known items; what comes and goes meanwhile may be missed. Locks nobody out."""

    def reset(self, owner: str) -> int:
        """Forget what is counted of an owner, but not the items it knows; return how many counters there were."""

    def sent(self, account: str, now: float | None = None) -> Sequence[tuple[float, str]]:
        """Return when an account handed which queue ids to Postfix in the last five days, the newest first; at most 5,000."""
