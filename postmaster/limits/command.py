"""mailward limits - see and change what mailward-policyd counts, and whom it has stopped

SYNOPSIS
    mailward limits list [--all] [--json]
    mailward limits show ACCOUNT [--all] [--json]
    mailward limits raise ACCOUNT RATE --for DURATION [--limit NAME] [--why TEXT]
    mailward limits raise ACCOUNT --end [--why TEXT]
    mailward limits reset ACCOUNT [--why TEXT]
    mailward limits suspend ACCOUNT [--hold-queue] [--postfix-config FOLDER] [--why TEXT]
    mailward limits resume ACCOUNT [--release-queue] [--keep-counters] [--postfix-config FOLDER] [--why TEXT]
    mailward limits incidents [--all] [--json]
    mailward limits audit [ACCOUNT] [--all] [--json]

DESCRIPTION
    Works on the state that the configuration names, beside the daemons that use it: SQLite or Redis. They see what was
    ordered within seconds. Run as root it becomes the account that owns the state's folder. ACCOUNT is a login, in upper or
    lower case.

    list                the accounts that are suspended, that have an open incident, whose limits are tightened or raised;
                        then those nearest to their limits, each with its fullest window
    show ACCOUNT        everything known of an account: how each window of each limit stands and when one more is allowed, its
                        logins, its incident, suspension and raises, what it has sent, and its last entries of the audit log
    raise ACCOUNT RATE  allow more for a time, such as 1000/1h: in each window of that length and longer, of every limit (but
                        of octets) or of the one that --limit names. --end: take back what was raised
    reset ACCOUNT       forget what was counted, of its logins too; but not to whom it writes, or where it logs in from
    suspend ACCOUNT     let it neither send nor log in. --hold-queue: put on hold what it has in Postfix's queue, too. What is
                        being received at that moment comes later: run it again
    resume ACCOUNT      give it back, its counters at zero unless --keep-counters. --release-queue: release what --hold-queue
                        has put on hold, and nothing that others have
    incidents           the incidents that are open, and those closed in the last 7 days
    audit               who did what to an account, when and why; --all: as far as it goes back

    Queue ids are used again. --hold-queue takes only messages whose time of arrival fits the time at which their id was counted;
    it looks twice, for what was let pass in the last seconds. With several machines on one Redis it is run on each of them: a
    queue is its machine's. --postfix-config is for a further instance of Postfix.

    For example:

    mailward limits raise newsletter@example.com 5000/1d --for 2d --limit account-recipients --why "ticket 4711"
    mailward limits suspend alice@example.com --hold-queue --why "sends spam"
    mailward limits resume alice@example.com --release-queue --why "password changed"

DIAGNOSTICS
    Exit status 0: done, also where nothing was known or nothing had to be done. 2: wrong options. 69: Postfix's programs are
    needed and not installed. 75: the state is away, or Postfix's queue, with the reason and what to do. 77: permission
    denied; --hold-queue and --release-queue want root. 78: the configuration is wrong.

BUGS
    Times are those of this machine's clock; those of the state are the clock's of its Redis. Limits that count something else
    than logins, their domain or everything are not shown. Of its wrong passwords an account may have more than is shown
    where it has logged in before, and fewer where it never has.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import click

from mailward.model.accounts import Raise
from mailward.policy.limits import Count
from mailward.policy.owners import account_named
from mailward.settings.policyd import Settings
from mailward.settings.rule_set import read_rule_set
from mailward.settings.values import Rate, read_rate
from postmaster.completion import FOLDER, limits_of_accounts
from postmaster.configured import ConfiguredGroup, config_path
from postmaster.durations import read_duration
from postmaster.explain.layout import printable
from postmaster.limits.history import list_audit, list_incidents
from postmaster.limits.holding import hold_queue, release_queue, require_root
from postmaster.limits.listing import list_accounts
from postmaster.limits.opening import Limits, opened
from postmaster.limits.orders import (
    Order,
    end_raises,
    raise_limits,
    reset_counters,
    resume_account,
    suspend_account,
)
from postmaster.limits.queue import Queue
from postmaster.limits.showing import show_account
from postmaster.limits.who import acting
from postmaster.opening import read_settings

DAY = 86400.0
MOST_FOR = 365 * DAY
MOST_SECONDS = 366 * DAY  # of a window
MAX_WHY = 200
MAX_LOGIN = 320

Command = TypeVar("Command", bound=Callable[..., Any])

_JSON = click.option("--json", "is_json", is_flag=True, help="One JSON object.")
_ALL = click.option("--all", "is_all", is_flag=True, help="However much there is.")
_WHY = click.option("--why", default="", metavar="TEXT", help="Why; the audit log has it.")
_POSTFIX = click.option(
    "--postfix-config",
    "postfix_folder",
    type=FOLDER,
    metavar="FOLDER",
    help="Where main.cf of that Postfix is; default: its own.",
)


@click.group(cls=ConfiguredGroup, help="See and change what mailward-policyd counts, and whom it has stopped.")
def limits() -> None:
    """Hold the sub-commands."""


@limits.command("list", help="Print the accounts that are stopped, and those nearest to their limits.")
@_ALL
@_JSON
def list_(is_all: bool, is_json: bool) -> None:
    """Print accounts, bounded."""
    with _open()() as state:
        list_accounts(state, is_all=is_all, is_json=is_json)


@limits.command(help="Print everything known of ACCOUNT.")
@click.argument("account")
@_ALL
@_JSON
def show(account: str, is_all: bool, is_json: bool) -> None:
    """Print everything known of one account."""
    name = _account(account)
    with _open()() as state:
        show_account(state, name, is_all=is_all, is_json=is_json)


@limits.command("raise", help="Let ACCOUNT do more for a time: RATE is an amount and a window, such as 1000/1h.")
@click.argument("account")
@click.argument("rate", required=False)
@click.option("--for", "lifetime", metavar="DURATION", help="For so long, such as 2d.")
@click.option(
    "--limit",
    "limit",
    default="",
    metavar="NAME",
    shell_complete=limits_of_accounts,
    help="Of this limit; default: of every one.",
)
@click.option("--end", "is_end", is_flag=True, help="Take back what was raised.")
@_WHY
def raise_(account: str, rate: str | None, lifetime: str | None, limit: str, is_end: bool, why: str) -> None:
    """Raise the limits of an account, or end that."""
    order = _order(account, why)
    if is_end:
        if rate is not None or lifetime is not None or limit:
            raise click.UsageError("--end takes back every raise, and stands alone")
        with _open()() as state:
            end_raises(state, order)
        return
    if rate is None or lifetime is None:
        raise click.UsageError("expected a RATE such as 1000/1h, and --for with a duration; or --end")
    read = _read_rate(rate)
    for_seconds = read_duration(lifetime, MOST_FOR, "365d")
    with _open()() as state:
        _verify_limit(state, limit, read)
        raise_limits(state, order, Raise(read.most, read.seconds, state.now + for_seconds, limit))


@limits.command(help="Forget what was counted of ACCOUNT.")
@click.argument("account")
@_WHY
def reset(account: str, why: str) -> None:
    """Set an account's counters to zero."""
    order = _order(account, why)
    with _open()() as state:
        reset_counters(state, order)


@limits.command(help="Let ACCOUNT neither send nor log in.")
@click.argument("account")
@click.option("--hold-queue", "holds", is_flag=True, help="Put on hold what it has in Postfix's queue; as root.")
@_POSTFIX
@_WHY
def suspend(account: str, holds: bool, postfix_folder: Path | None, why: str) -> None:
    """Stop an account."""
    order = _order(account, why)
    _require_queue("--hold-queue", holds, postfix_folder)
    open_state = _open()
    with open_state() as state:
        suspend_account(state, order)
    if holds:
        hold_queue(open_state, order, Queue(postfix_folder))


@limits.command(help="Give ACCOUNT back: it may send and log in.")
@click.argument("account")
@click.option("--release-queue", "releases", is_flag=True, help="Release what --hold-queue put on hold; as root.")
@click.option("--keep-counters", "keeps_counters", is_flag=True, help="Do not set its counters to zero.")
@_POSTFIX
@_WHY
def resume(account: str, releases: bool, keeps_counters: bool, postfix_folder: Path | None, why: str) -> None:
    """Give an account back."""
    order = _order(account, why)
    _require_queue("--release-queue", releases, postfix_folder)
    open_state = _open()
    with open_state() as state:
        resume_account(state, order, keeps_counters=keeps_counters)
    if releases:
        release_queue(open_state, order, Queue(postfix_folder))


@limits.command(help="Print the incidents that are open, and those closed lately.")
@_ALL
@_JSON
def incidents(is_all: bool, is_json: bool) -> None:
    """Print incidents."""
    with _open()() as state:
        list_incidents(state, is_all=is_all, is_json=is_json)


@limits.command(help="Print who did what to ACCOUNT, or to all, when and why.")
@click.argument("account", required=False)
@_ALL
@_JSON
def audit(account: str | None, is_all: bool, is_json: bool) -> None:
    """Print the audit log."""
    name = _account(account) if account is not None else ""
    with _open()() as state:
        list_audit(state, name, is_all=is_all, is_json=is_json)


def _open() -> Callable[[], AbstractContextManager[Limits]]:
    """Read the configuration, and return what opens the state; it is opened more than once where Postfix's queue is changed."""
    settings = read_settings(Settings, config_path())
    rules = read_rule_set(settings.policyd)
    return lambda: opened(settings, rules)


def _order(account: str, why: str) -> Order:
    if len(why) > MAX_WHY or not why.isprintable():
        raise click.BadParameter(f"expected at most {MAX_WHY} printable characters", param_hint="--why")
    return Order(_account(account), acting(os.environ), why)


def _account(text: str) -> str:
    """Return an account's name as the daemons have it."""
    if not 0 < len(text) <= MAX_LOGIN or text.isspace():
        raise click.BadParameter(f"expected a login of at most {MAX_LOGIN} characters", param_hint="ACCOUNT")
    return account_named(text)


def _read_rate(text: str) -> Rate:
    """Read an amount and a window, strictly. Raises click.BadParameter."""
    try:
        rate = read_rate(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="RATE") from None
    if not 1.0 <= rate.seconds <= MOST_SECONDS or not rate.most:
        raise click.BadParameter("expected an amount from 1 on, in a window from 1s to 366d", param_hint="RATE")
    return rate


def _verify_limit(state: Limits, name: str, rate: Rate) -> None:
    """Refuse the name of a limit that there is not, or that counts no accounts, and octets of what is none."""
    limits_of_accounts = {each.name: each for each in state.rules.limits if each.is_of_accounts}
    if name and name not in limits_of_accounts:
        known = ", ".join(limits_of_accounts) or "none"
        said = f"{printable(name[:80])} is no limit of accounts; there are: {known}"
        raise click.BadParameter(said, param_hint="--limit")
    if rate.is_octets and (not name or limits_of_accounts[name].count is not Count.BYTES):
        raise click.BadParameter("expected a plain number, or --limit with one of bytes", param_hint="RATE")


def _require_queue(option: str, is_wanted: bool, postfix_folder: Path | None) -> None:
    if is_wanted:
        require_root(option)
    elif postfix_folder is not None:
        raise click.UsageError(f"--postfix-config says where the queue of {option} is: give both")
