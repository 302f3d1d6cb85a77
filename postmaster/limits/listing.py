"""`list`: the accounts that are stopped, and those nearest to their limits; bounded, however many there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import click

from mailward.model.accounts import Account
from postmaster.durations import in_words
from postmaster.explain.layout import Span, Tone
from postmaster.limits.allowances import Allowance, allowance_of
from postmaster.limits.opening import Limits
from postmaster.limits.standing import SASL_USERNAME, Gauge, fullness, gauges
from postmaster.limits.trees import VERSION, account_tree, gauge_tree
from postmaster.tables import Best, best_of, hint, print_json, table

USUAL = 50
# Accounts whose place is kept while counters are walked over. Only the emptiest make room, and who fills up comes back in: the
# first USUAL of them are the right ones.
MOST_KEPT = 20_000
MORE = "--all shows them"


@dataclass(frozen=True, slots=True)
class Row:
    """An account, and its windows, the fullest first."""

    account: Account
    gauges: tuple[Gauge, ...]


def list_accounts(limits: Limits, *, is_all: bool, is_json: bool) -> None:
    """Print the accounts that something is known of, those an operator has to look at first."""
    accounts = limits.store.accounts()
    fullest = _fullest(limits, accounts, None if is_all else MOST_KEPT)
    names = {*fullest, *accounts}
    best = best_of(names, len(names) if is_all else USUAL, lambda name: _order(name, accounts, fullest))
    rows = [_row(limits, accounts.get(name) or Account(name)) for name in best.rows]
    if is_json:
        print_json(
            {
                "version": VERSION,
                "time": limits.now,
                "accounts": [
                    {**account_tree(row.account), "limits": [gauge_tree(gauge) for gauge in row.gauges]} for row in rows
                ],
                "accounts_left_out": best.left_out,
            }
        )
        return
    _print(rows, best)


def state_of(account: Account) -> Span:
    """Return how an account is, in a word, the most urgent one."""
    if account.suspension is not None:
        return Span("suspended", Tone.BAD)
    if account.incident is not None and not account.incident.closed_at:
        return Span("incident", Tone.DOUBT)
    if account.is_tightened:
        return Span("tightened", Tone.DOUBT)
    return Span("raised", Tone.GOOD) if account.raises else Span("")


def used_words(gauge: Gauge) -> str:
    """Return how much of a window is used."""
    return f"{gauge.used} of {gauge.allowed} in {in_words(gauge.seconds)}"


def clears_words(gauge: Gauge) -> str:
    """Return when one more is allowed; nothing where it is now."""
    if not gauge.clears_in:
        return ""
    return "never" if gauge.clears_in == float("inf") else f"in {in_words(gauge.clears_in + 1)}"


def tone_of(gauge: Gauge) -> Tone:
    """Return in which tone a window is shown."""
    if gauge.clears_in:
        return Tone.BAD
    return Tone.DOUBT if gauge.fraction >= 0.8 else Tone.PLAIN


def _fullest(limits: Limits, accounts: Mapping[str, Account], most: int | None) -> dict[str, float]:
    """Return how full the fullest counter of each account is; of more than `most`, about, of the fullest ones."""
    found: dict[str, float] = {}
    allowance_for = _allowances(limits, accounts)
    for record in limits.store.all_counters():
        if not record.key.owner.startswith(SASL_USERNAME) or record.expires <= limits.now:
            continue
        name = record.key.owner.removeprefix(SASL_USERNAME)
        allowance = allowance_for(name, record.key.limit)
        if allowance is None:  # a limit that was taken out of the configuration
            continue
        found[name] = max(found.get(name, 0.0), fullness(allowance, record, limits.now))
        if most is not None and len(found) > most:
            kept = best_of(found.items(), most // 2, lambda item: (-item[1], item[0]))
            found = dict(kept.rows)
    return found


def _allowances(limits: Limits, accounts: Mapping[str, Account]) -> Callable[[str, str], Allowance | None]:
    """Return what tells what a limit allows an account: quickly for those of whom nothing is known, which are most."""
    rules, limit_of = limits.rules, {limit.name: limit for limit in limits.rules.limits}
    usual = {name: allowance_of(rules, limit, Account(""), limits.now) for name, limit in limit_of.items()}

    def allowance_for(account: str, limit: str) -> Allowance | None:
        if limit not in limit_of:
            return None
        if account not in accounts and rules.overrides.is_empty:
            return usual[limit]
        return allowance_of(rules, limit_of[limit], accounts.get(account) or Account(account), limits.now)

    return allowance_for


def _order(name: str, accounts: Mapping[str, Account], fullest: Mapping[str, float]) -> tuple[object, ...]:
    states = ("suspended", "incident", "tightened", "raised", "")
    state = state_of(accounts[name]).text if name in accounts else ""
    return (states.index(state), -fullest.get(name, 0.0), name)


def _row(limits: Limits, account: Account) -> Row:
    records = limits.store.counters(SASL_USERNAME + account.name)
    found = gauges(_own(limits, account), records, limits.now)
    return Row(account, tuple(sorted(found, key=lambda gauge: -gauge.fraction)))


def _own(limits: Limits, account: Account) -> list[Allowance]:
    """Return what the account need not share."""
    return [one for one in limits.allowances(account) if one.owner.startswith(SASL_USERNAME)]


def _print(rows: list[Row], best: Best[str]) -> None:
    if not rows:
        click.echo("Nothing is counted of any account, and none is suspended.")
        return
    cells: list[tuple[str | Span, ...]] = []
    for row in rows:
        gauge = row.gauges[0] if row.gauges else None
        used = Span(used_words(gauge), tone_of(gauge)) if gauge else ""
        limit, clears = (gauge.limit, clears_words(gauge)) if gauge else ("", "")
        cells.append((state_of(row.account), used, limit, clears, row.account.name))
    table(("state", "used", "limit", "clears", "account"), cells, indent=0)
    hint(best, "accounts", MORE)
