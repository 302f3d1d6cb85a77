"""What the configured limits allow one account now, under its overrides, raises and tightening. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

from mailward.model.accounts import Account
from mailward.model.limits import Kind, Window
from mailward.policy.limits import ALL, Count, Limit, RuleSet, base_windows, effective_windows
from mailward.policy.owners import domain_of_account

_KINDS = {Count.FIRST_TIME: Kind.FIRST_TIME, Count.DISTINCT: Kind.DISTINCT}


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a limit allows an account now: `windows`; none of them: it is without limit. `usual`: what it allows it otherwise.

    `owner` is whose counters the limit has: the account's, or what the account shares with others.
    """

    limit: str
    count: str
    kind: Kind
    owner: str
    windows: tuple[Window, ...]
    usual: tuple[Window, ...]


def allowances_of(rules: RuleSet, account: Account, now: float) -> tuple[Allowance, ...]:
    """Return what each limit allows that counts the account, its domain, or all."""
    found = (allowance_of(rules, limit, account, now) for limit in rules.limits)
    return tuple(allowance for allowance in found if allowance.owner)


def allowance_of(rules: RuleSet, limit: Limit, account: Account, now: float) -> Allowance:
    """Return what one limit allows; its `owner` is empty where it counts something that does not follow from the account."""
    usual = base_windows(limit, rules.overrides, account.name)
    windows = effective_windows(limit, usual, account, rules.tighten, now)
    kind = _KINDS.get(limit.count, Kind.AMOUNT)
    return Allowance(limit.name, limit.count.value, kind, _owner(limit, account.name), windows, usual)


def _owner(limit: Limit, account: str) -> str:
    """Return whose counters a limit has, as far as that follows from the account; empty where it does not."""
    domain = domain_of_account(account)
    owners = {
        "sasl_username": f"sasl_username={account}",
        "sasl_domain": f"sasl_domain={domain}" * bool(domain),
        ALL: ALL,
    }
    return owners.get(limit.per[0], "")
