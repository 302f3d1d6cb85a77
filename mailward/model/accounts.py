"""What is known of an account beside its counters: incidents, suspension, raised limits. And the audit log."""

from __future__ import annotations

from dataclasses import dataclass

AUTOMATIC = "mailward-policyd"  # who acts where no person does


@dataclass(frozen=True, slots=True)
class Raise:
    """For a time an account may do more: `most` in every window of `seconds` and longer. `limit` empty: of every limit."""

    most: int
    seconds: float
    until: float
    limit: str = ""


@dataclass(frozen=True, slots=True)
class Incident:
    """An account that has reached a limit, from the first hit until it has been quiet for long enough.

    `cause` is the limit's name, or "login-networks". `hits` counts requests that reached a limit since the account was resumed
    last, `refused` those among them that a limit has refused which suspends. `told` is what has been told of it: "" (nothing
    yet), "opened", "suspended", "closed". Whoever tells takes it first: nobody else does before `telling_until`. `closed_at` is 0
    while it is open.
    """

    opened_at: float
    cause: str
    hits: int
    last_hit_at: float
    closed_at: float = 0.0
    told: str = ""
    telling_until: float = 0.0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Suspension:
    """An account that may neither send nor log in."""

    at: float
    by: str
    why: str


@dataclass(frozen=True, slots=True)
class Account:
    """What holds for an account beyond the configuration. `name` is the login, in lower case.

    An incident stays here until its closing has been told. `is_tightened`: its limits are a part of what they are elsewhere,
    until the incident is over.
    """

    name: str
    incident: Incident | None = None
    suspension: Suspension | None = None
    raises: tuple[Raise, ...] = ()
    is_tightened: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether nothing is to be remembered of it."""
        return self.incident is None and self.suspension is None and not self.raises and not self.is_tightened


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did what to an account, when and why. `before` and `after` are what changed, in words; `who` may be AUTOMATIC."""

    at: float
    who: str
    action: str  # "suspend", "resume", "raise", "reset", "incident-opened", "incident-closed", "hold-queue", ...
    account: str
    why: str
    before: str = ""
    after: str = ""
