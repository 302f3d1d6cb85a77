"""Changing an account that others change at the same time: policyd's processes, and the operator."""

from __future__ import annotations

from collections.abc import Callable

from mailward.model.accounts import Account, AuditEntry
from mailward.model.errors import StoreError, StoreFailure
from mailward.model.ports import AccountStore

MOST_TRIES = 50  # each time somebody else has got further: no more than a guard


def change_account(
    store: AccountStore, name: str, change: Callable[[Account], tuple[Account, tuple[AuditEntry, ...]]]
) -> Account:
    """Put what `change` makes of an account in its place, with the entries of the audit log; return it.

    `change` is one of mailward.policy.incidents, and is asked again where somebody was faster. Where it changes nothing,
    nothing is written.
    """
    for _ in range(MOST_TRIES):
        old = store.account(name)
        new, entries = change(old)
        if (new == old and not entries) or store.swap(old, new, entries):
            return new
    raise StoreError(StoreFailure.OTHER, f"others change the account {name} all the time")
