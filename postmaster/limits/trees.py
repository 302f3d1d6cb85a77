"""What is known of accounts, for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping

from mailward.model.accounts import Account, AuditEntry
from postmaster.json_text import fields_of
from postmaster.limits.standing import Gauge

VERSION = 1


def account_tree(account: Account) -> Mapping[str, object]:
    """Return an account; of an incident not who is telling of it at the moment."""
    incident = account.incident
    return {
        "account": account.name,
        "suspension": account.suspension,
        "incident": None if incident is None else fields_of(incident, without=("told", "telling_until")),
        "raises": account.raises,
        "is_tightened": account.is_tightened,
    }


def gauge_tree(gauge: Gauge) -> Mapping[str, object]:
    """Return how a window stands; `clears_in` is null where that is never."""
    return {
        **fields_of(gauge, without=("clears_in",)),
        "clears_in": gauge.clears_in if math.isfinite(gauge.clears_in) else None,
    }


def entry_tree(entry: AuditEntry) -> Mapping[str, object]:
    """Return an entry of the audit log."""
    return fields_of(entry)
