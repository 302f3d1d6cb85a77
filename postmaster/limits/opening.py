"""The state of mailward-policyd and its rules, opened for the postmaster beside the daemons."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from mailward.adapters.stores import open_limits
from mailward.model.accounts import Account
from mailward.model.ports import LimitRecords
from mailward.model.state import Durability
from mailward.policy.limits import RuleSet
from mailward.policy.logins import LoginRules
from mailward.settings.policyd import Settings
from postmaster.limits.allowances import Allowance, allowances_of
from postmaster.opening import STORE_SECONDS, opened_store


@dataclass(frozen=True, slots=True)
class Limits:
    """The opened state, what the configuration says, and the time of this command."""

    store: LimitRecords
    rules: RuleSet
    logins: LoginRules
    now: float

    def allowances(self, account: Account) -> tuple[Allowance, ...]:
        """Return what each limit allows an account now."""
        return allowances_of(self.rules, account, self.now)


@contextlib.contextmanager
def opened(settings: Settings, rules: RuleSet) -> Iterator[Limits]:
    """Yield the state; leave the program with a line on stderr where it is away."""
    state = settings.state.state

    def open_store() -> LimitRecords:
        return open_limits(state, Durability(settings.durability), STORE_SECONDS)

    with opened_store(state, open_store, "mailward-policyd", "counting starts anew") as store:
        yield Limits(store, rules, settings.policyd.logins.rules(), time.time())
