"""`raise`, `reset`, `suspend` and `resume`: what the operator orders, with an entry in the audit log for each change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import click

from mailward.adapters.account_changes import change_account
from mailward.model.accounts import Account, AuditEntry, Raise
from mailward.model.limits import KNOWN
from mailward.policy import incidents
from mailward.policy.limits import Count, is_raise_of
from postmaster.durations import ahead, in_words
from postmaster.explain.layout import printable
from postmaster.limits.opening import Limits
from postmaster.limits.standing import SASL_USERNAME, Gauge, gauges, owners_of

MOST_COUNTERS_NOTED = 20  # of those a reset forgets; the audit log is for people


@dataclass(frozen=True, slots=True)
class Order:
    """Who orders something of an account, and why."""

    account: str
    who: str
    why: str


def raise_limits(limits: Limits, order: Order, raised: Raise) -> None:
    """Let an account do more for a time, and say what it may do then. Raises click.ClickException where it has too many."""
    try:
        account = change_account(
            limits.store,
            order.account,
            lambda account: incidents.raise_limit(account, raised, order.who, order.why, limits.now),
        )
    except ValueError as error:
        raise click.ClickException(f"{error}; `mailward limits raise --end` takes them back") from None
    name, until = printable(order.account), ahead(raised.until, limits.now)
    click.echo(
        f"{name} may do {raised.most} in {in_words(raised.seconds)} of {raised.limit or 'every limit'} until {until}."
    )
    others = tuple(one for one in account.raises if one != raised)
    if limits.allowances(account) == limits.allowances(replace(account, raises=others)):
        click.echo("That changes nothing: each limit allows as much already, or counts in shorter windows only.")
    if stays := _shorter_windows(limits, account, raised):
        click.echo(f"Shorter windows stay as they are: {', '.join(stays)}.")


def _shorter_windows(limits: Limits, account: Account, raised: Raise) -> list[str]:
    """Return the windows that allow less than a raise still, because they are shorter than it."""
    concerned = [
        one
        for one in limits.allowances(account)
        if one.owner.startswith(SASL_USERNAME) and is_raise_of(raised, one.limit, Count(one.count))
    ]
    return [
        f"{one.limit} {window.most} in {in_words(window.seconds)}"
        for one in concerned
        for window in one.windows
        if window.seconds < raised.seconds and window.most < raised.most
    ]


def end_raises(limits: Limits, order: Order) -> None:
    """Take back what was raised."""
    had = limits.store.account(order.account).raises
    change_account(
        limits.store, order.account, lambda account: incidents.end_raises(account, order.who, order.why, limits.now)
    )
    name = printable(order.account)
    click.echo(f"{name} has its usual limits again." if had else f"Nothing was raised for {name}.")


def reset_counters(limits: Limits, order: Order) -> None:
    """Forget what was counted of an account, and say what that was."""
    counters = _forget(limits, order)
    name = printable(order.account)
    if not counters:
        click.echo(f"Nothing was counted of {name}.")
        return
    click.echo(f"{name} starts from zero: {counters} counter{'s' if counters != 1 else ''} forgotten.")
    if limits.store.account(order.account).suspension is not None:
        click.echo("It is suspended still; `mailward limits resume` gives it back.")


def suspend_account(limits: Limits, order: Order) -> None:
    """Stop an account."""
    was = limits.store.account(order.account).suspension
    change_account(
        limits.store, order.account, lambda account: incidents.suspend(account, order.who, order.why, limits.now)
    )
    name = printable(order.account)
    if was is not None:
        why = f": {printable(was.why)}" if was.why else ""
        click.echo(f"{name} is suspended already, by {printable(was.by)}{why}")
        return
    click.echo(f"{name} is suspended: it may neither send nor log in.")


def resume_account(limits: Limits, order: Order, *, keeps_counters: bool) -> None:
    """Give an account back, its counters at zero unless they are to be kept."""
    name = printable(order.account)
    if limits.store.account(order.account).suspension is None:
        click.echo(f"{name} is not suspended; `mailward limits reset` sets its counters to zero.")
        return
    if not keeps_counters:
        # Before it may send again: what is interrupted here leaves it suspended, and is done by the same command.
        _forget(limits, order)
    change_account(
        limits.store, order.account, lambda account: incidents.resume(account, order.who, order.why, limits.now)
    )
    counters = "its counters stay as they are" if keeps_counters else "its counters start from zero"
    click.echo(f"{name} is given back: it may send and log in; {counters}.")


def _forget(limits: Limits, order: Order) -> int:
    """Forget an account's counters; return how many there were."""
    store, account = limits.store, limits.store.account(order.account)
    records = [record for owner in owners_of(order.account) for record in store.counters(owner)]
    counted = [record for record in records if record.key.limit != KNOWN and record.expires > limits.now]
    if not counted:
        return 0
    before = _before(gauges(limits.allowances(account), counted, limits.now))
    for owner in owners_of(order.account):
        store.reset(owner)
    after = f"{len(counted)} counters forgotten"
    store.audit(AuditEntry(limits.now, order.who, "reset", order.account, order.why, before, after))
    return len(counted)


def _before(found: Sequence[Gauge]) -> str:
    used = [gauge for gauge in found if gauge.used]
    words = [f"{gauge.limit} {gauge.used}/{gauge.allowed} in {in_words(gauge.seconds)}" for gauge in used]
    return ", ".join(words[:MOST_COUNTERS_NOTED])
