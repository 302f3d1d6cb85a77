"""Accounts of a store that was begun anew: its file was damaged and set aside, or somebody has removed it.

Without this, everybody who is suspended could send again from that moment on. Whoever kept the accounts in memory puts them
back; of several processes the first one does, which the new audit log shows the others.
"""

from __future__ import annotations

from dataclasses import replace

from mailward.adapters.account_changes import change_account
from mailward.model.accounts import AUTOMATIC, Account, AuditEntry, Incident
from mailward.model.ports import AccountStore
from mailward.policy.incidents import Step, shown_raise

PUT_BACK = "put-back"  # the action in the audit log
WHY = "the state was begun anew"


def is_another_store(version: str, before: str | None) -> bool:
    """Say whether two of AccountStore.accounts_version are of two files: what stands before the last "-" names it.

    >>> is_another_store("b-2", "a-7"), is_another_store("a-8", "a-7"), is_another_store("8", "7")
    (True, False, False)
    """
    return before is not None and version.rpartition("-")[0] != before.rpartition("-")[0]


def put_back(store: AccountStore, known: Account, now: float) -> bool:
    """Write what was known of an account to the new store; say whether anything had to be. Raises StoreError."""
    written = False

    def step(there: Account) -> Step:
        nonlocal written
        # Who finds it put back already leaves it alone: what was done since then was meant so.
        is_done = any(entry.action == PUT_BACK for entry in store.audit_log(known.name))
        account = there if is_done else with_what_was_known(there, known)
        written = account != there
        entry = AuditEntry(now, AUTOMATIC, PUT_BACK, known.name, WHY, "", _in_words(account))
        return account, (entry,) if written else ()

    change_account(store, known.name, step)
    return written


def with_what_was_known(there: Account, known: Account) -> Account:
    """Return an account of the new store with what was known of it; what has happened in the new store holds."""
    return replace(
        there,
        incident=_joined(there.incident, known.incident),
        suspension=there.suspension or known.suspension,
        raises=there.raises or known.raises,
        is_tightened=there.is_tightened or known.is_tightened,
    )


def _joined(there: Incident | None, known: Incident | None) -> Incident | None:
    """Return the incident that goes on; hits that came before it was put back are its own."""
    if there is None or known is None or known.closed_at:
        return there or known
    last_hit_at = max(there.last_hit_at, known.last_hit_at)
    hits, refused = known.hits + there.hits, known.refused + there.refused
    return replace(known, hits=hits, refused=refused, last_hit_at=last_hit_at, closed_at=there.closed_at)


def _in_words(account: Account) -> str:
    parts = [shown_raise(one) for one in account.raises]
    if account.is_tightened:
        parts.insert(0, "limits tightened")
    if account.incident is not None:
        parts.insert(0, f"incident, {account.incident.cause}, {account.incident.hits} hits")
    if account.suspension is not None:
        parts.insert(0, f"suspended by {account.suspension.by}: {account.suspension.why}")
    return "; ".join(parts)
