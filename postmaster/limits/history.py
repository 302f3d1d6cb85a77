"""`incidents` and `audit`: what has happened, from the accounts and the audit log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import click

from mailward.model.accounts import Account, AuditEntry
from postmaster.durations import clock, in_words
from postmaster.explain.layout import Span, printable
from postmaster.limits.listing import MORE, state_of
from postmaster.limits.opening import Limits
from postmaster.limits.trees import VERSION, account_tree, entry_tree
from postmaster.tables import best_of, hint, print_json, table

DAY = 86400.0
CLOSED_DAYS = 7
USUAL = 50
MOST_ENTRIES = 100_000  # as many as the audit log keeps
MAX_CELL = 60  # characters of a cell; --json has all of it

OPENED, CLOSED = "incident-opened", "incident-closed"


@dataclass(frozen=True, slots=True)
class Past:
    """An incident that is over; `opened_at` is 0 where the audit log does not go back so far."""

    account: str
    opened_at: float
    closed_at: float
    cause: str
    why: str


def list_incidents(limits: Limits, *, is_all: bool, is_json: bool) -> None:
    """Print the open incidents, and those that were closed in the last days."""
    open_ones = sorted(
        (account for account in limits.store.accounts().values() if is_open(account)), key=_opened_at, reverse=True
    )
    since = 0.0 if is_all else limits.now - CLOSED_DAYS * DAY
    past = [one for one in past_incidents(limits.store.audit_log("", MOST_ENTRIES)) if one.closed_at >= since]
    if is_json:
        print_json(
            {
                "version": VERSION,
                "time": limits.now,
                "open": [account_tree(account) for account in open_ones],
                "closed": past,
            }
        )
        return
    _print_open(open_ones, limits.now)
    click.echo()
    _print_past(past, is_all=is_all)


def list_audit(limits: Limits, account: str, *, is_all: bool, is_json: bool) -> None:
    """Print the audit log of one account, or of all (""), the latest first."""
    # One more than is shown: so it is known whether there are more.
    entries = limits.store.audit_log(account, MOST_ENTRIES if is_all else USUAL + 1)
    shown = entries if is_all else entries[:USUAL]
    is_more = len(entries) > len(shown)
    if is_json:
        print_json(
            {
                "version": VERSION,
                "time": limits.now,
                "account": account,
                "entries": [entry_tree(entry) for entry in shown],
                "is_more": is_more,
            }
        )
        return
    if not shown:
        click.echo(f"The audit log has nothing of {printable(account)}." if account else "The audit log is empty.")
        return
    print_entries(shown, indent=0)
    if is_more:
        click.echo(f"  ... and more; {MORE}")


def print_entries(entries: Iterable[AuditEntry], indent: int) -> None:
    """Print entries of the audit log as a table."""
    rows = [
        (
            clock(entry.at),
            entry.action,
            entry.account,
            entry.who,
            *map(_clipped, (entry.why, entry.before, entry.after)),
        )
        for entry in entries
    ]
    table(("when", "what", "account", "who", "why", "before", "after"), rows, indent)


def is_open(account: Account) -> bool:
    """Say whether an account has an incident that is not over."""
    return account.incident is not None and not account.incident.closed_at


def past_incidents(entries: Sequence[AuditEntry]) -> list[Past]:
    """Return the incidents that were closed, the latest first; `entries` are the audit log's, the newest first."""
    opened: dict[str, float] = {}
    past: list[Past] = []
    for entry in reversed(entries):
        if entry.action == OPENED:
            opened[entry.account] = entry.at
        elif entry.action == CLOSED:
            cause = entry.before.removeprefix("open, ")
            past.append(Past(entry.account, opened.pop(entry.account, 0.0), entry.at, cause, entry.why))
    return past[::-1]


def _opened_at(account: Account) -> float:
    return account.incident.opened_at if account.incident is not None else 0.0


def _print_open(accounts: Sequence[Account], now: float) -> None:
    if not accounts:
        click.echo("No incident is open.")
        return
    click.echo("Open incidents:")
    rows: list[tuple[str | Span, ...]] = []
    for account in accounts:
        assert account.incident is not None
        incident = account.incident
        since = f"{clock(incident.opened_at)}, {in_words(now - incident.opened_at)} ago"
        last = f"{in_words(now - incident.last_hit_at)} ago"
        rows.append((since, incident.cause, str(incident.hits), last, state_of(account), account.name))
    table(("since", "cause", "hits", "last hit", "state", "account"), rows)


def _print_past(past: Sequence[Past], *, is_all: bool) -> None:
    when = "" if is_all else f" in the last {CLOSED_DAYS} days"
    if not past:
        click.echo(f"None was closed{when}.")
        return
    best = best_of(past, len(past) if is_all else USUAL, lambda one: (-one.closed_at, one.account))
    click.echo(f"Closed{when}:")
    rows = [
        (
            clock(one.opened_at) if one.opened_at else "?",
            clock(one.closed_at),
            one.cause,
            _clipped(one.why),
            one.account,
        )
        for one in best.rows
    ]
    table(("opened", "closed", "cause", "why", "account"), rows)
    hint(best, "incidents", MORE)


def _clipped(text: str) -> str:
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 3] + "..."
