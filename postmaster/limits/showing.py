"""`show`: everything that is known of one account."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import click

from mailward.model.accounts import Account, AuditEntry, Raise
from postmaster.durations import ago, ahead, in_words
from postmaster.explain.layout import Span, Tone, printable
from postmaster.limits.allowances import Allowance
from postmaster.limits.history import is_open, print_entries
from postmaster.limits.listing import clears_words, tone_of, used_words
from postmaster.limits.opening import Limits
from postmaster.limits.standing import (
    SASL_USERNAME,
    Gauge,
    gauges,
    known_recipients,
    login_gauges,
    owners_of,
)
from postmaster.limits.trees import VERSION, account_tree, entry_tree, gauge_tree
from postmaster.tables import labelled, print_json, table

ENTRIES, MOST_ENTRIES = 10, 1000
IDS = 5
MORE_ENTRIES = "`mailward limits audit` shows them"


@dataclass(frozen=True, slots=True)
class Known:
    """What was found of an account. `allowances`: of the limits that there are; `gauges`: how they stand."""

    account: Account
    allowances: tuple[Allowance, ...]
    gauges: tuple[Gauge, ...]
    logins: tuple[Gauge, ...]
    recipients: int
    sent: Sequence[tuple[float, str]]
    entries: Sequence[AuditEntry]
    is_exempt: bool

    @property
    def is_nothing(self) -> bool:
        """Whether nothing at all is known."""
        own = any(gauge.used for gauge in self.gauges if gauge.owner == SASL_USERNAME + self.account.name)
        return self.account.is_plain and not (own or self.logins or self.recipients or self.sent or self.entries)


def show_account(limits: Limits, name: str, *, is_all: bool, is_json: bool) -> None:
    """Print what is known; `is_all`: of the audit log and the queue ids all of it."""
    known = _find(limits, name, MOST_ENTRIES if is_all else ENTRIES)
    if not is_json:
        _print(known, limits, None if is_all else IDS)
        return
    print_json(
        {
            "version": VERSION,
            "time": limits.now,
            **account_tree(known.account),
            "is_known": not known.is_nothing,
            "is_exempt": known.is_exempt,
            "limits": [gauge_tree(gauge) for gauge in known.gauges],
            "without_limit": [allowance.limit for allowance in known.allowances if not allowance.windows],
            "logins": [gauge_tree(gauge) for gauge in known.logins],
            "known_recipients": known.recipients,
            "sent": [{"at": at, "queue_id": queue_id} for at, queue_id in known.sent],
            "audit": [entry_tree(entry) for entry in known.entries],
        }
    )


def _find(limits: Limits, name: str, entries: int) -> Known:
    store, account = limits.store, limits.store.account(name)
    allowances = limits.allowances(account)
    owners = dict.fromkeys((*owners_of(name), *(allowance.owner for allowance in allowances)))
    records = [record for owner in owners for record in store.counters(owner)]
    exempt = limits.rules.exempt
    return Known(
        account,
        allowances,
        tuple(gauges(allowances, records, limits.now)),
        tuple(login_gauges(name, limits.logins, records, limits.now)),
        known_recipients(name, records),
        store.sent(name),
        store.audit_log(name, entries),
        exempt is not None and exempt.matches({"sasl_username": name}),
    )


def _print(known: Known, limits: Limits, most_ids: int | None) -> None:
    click.echo(printable(known.account.name))
    labelled(_standing(known, limits, most_ids))
    if known.is_nothing:
        click.echo("  Nothing is known of it: it has sent nothing that is still counted, or there is no such account.")
    if known.gauges:
        click.echo("\nLimits:")
        cells = [
            (
                gauge.limit,
                gauge.count,
                Span(used_words(gauge), tone_of(gauge)),
                clears_words(gauge),
                "" if gauge.allowed == gauge.usual else f"usually {gauge.usual}",
                _of(gauge, known.account.name),
            )
            for gauge in known.gauges
        ]
        table(("limit", "counts", "used", "clears", "", "of"), cells)
    if known.logins:
        click.echo("\nLogins:")
        rows = [
            (gauge.limit, gauge.count, Span(used_words(gauge), tone_of(gauge)), clears_words(gauge), gauge.rest)
            for gauge in known.logins
        ]
        table(("limit", "counts", "used", "clears", "of"), rows)
    if known.entries:
        click.echo(f"\nAudit log, the latest first ({MORE_ENTRIES} all):")
        print_entries(known.entries, indent=2)


def _standing(known: Known, limits: Limits, most_ids: int | None) -> list[tuple[str, str | Span]]:
    account, now = known.account, limits.now
    rows: list[tuple[str, str | Span]] = [("now", _outlook(known, now))]
    if account.incident is not None:
        incident = account.incident
        over = "" if is_open(account) else f", over since {ago(incident.closed_at, now)}"
        hits = f"{incident.hits} hits, the last {in_words(now - incident.last_hit_at)} ago"
        rows.append(("incident", f"{incident.cause}, since {ago(incident.opened_at, now)}: {hits}{over}"))
    rows += [("raised", raise_words(one, now)) for one in account.raises if one.until > now]
    if account.is_tightened:
        rows.append(("tightened", "it logged in from too many networks: its limits are a part of what they are"))
    rows += [("no limit", allowance.limit) for allowance in known.allowances if not allowance.windows]
    if known.recipients:
        rows.append(("writes to", f"known recipients: {known.recipients}"))
    if known.sent:
        ids = " ".join(queue_id for _, queue_id in known.sent[:most_ids])
        more = " ..." if most_ids is not None and len(known.sent) > most_ids else ""
        rows.append(("sent", f"in five days messages: {len(known.sent)}, the latest first: {ids}{more}"))
    return rows


def _outlook(known: Known, now: float) -> Span:
    suspension = known.account.suspension
    if suspension is not None:
        why = f": {suspension.why}" if suspension.why else ""
        return Span(f"suspended since {ago(suspension.at, now)} by {suspension.by}{why}", Tone.BAD)
    if known.is_exempt:
        return Span("may send as much as it likes: the configuration's `exempt` has it", Tone.GOOD)
    full = [gauge for gauge in known.gauges if gauge.clears_in and not gauge.rest]
    if full:
        return Span(f"has reached {', '.join(dict.fromkeys(gauge.limit for gauge in full))}", Tone.BAD)
    return Span("may send and log in", Tone.GOOD)


def raise_words(raised: Raise, now: float) -> str:
    """Return what a raise allows, and until when."""
    windows = f"{raised.most} in {in_words(raised.seconds)} and longer"
    return f"{raised.limit or 'every limit'}: {windows}, until {ahead(raised.until, now)}"


def _of(gauge: Gauge, name: str) -> str:
    owner = "" if gauge.owner == SASL_USERNAME + name else gauge.owner
    return " ".join(filter(None, (owner, gauge.rest)))
