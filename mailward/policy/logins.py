"""Who may try to log in: what Dovecot asks and reports, and what is counted of it. No I/O: store and time are the caller's.

Different wrong passwords are counted, each once however often it comes again, so that a phone with an old password is one:

    of a login from a network     slows that login there, then denies it there
    of a network, over all logins slows every login there, then denies it there
    of a login, from everywhere   slows it wherever it has never succeeded, and denies it nowhere

Where a login has succeeded before, the first two limits are ten times as high (Rules.known_times) and the third does not hold.
So nobody elsewhere can lock an owner out: not where the owner has been before, and at a new place the owner waits for some
seconds. Who guesses from the owner's own network can, for a while, and there alone; without that a neighbour might guess for
ever. A login that has never succeeded anywhere, as most that are guessed, has half of the limits (Rules.stranger_times).

What is denied is not counted, so every denial ends at the latest a window after the last password that was tried.

A mechanism that does not show the password to Dovecot (SCRAM, CRAM-MD5) makes all wrong passwords look the same: what is counted
here needs PLAIN and LOGIN, Dovecot's default.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from mailward.model.accounts import Account
from mailward.model.limits import Charge, Charging, CounterKey, Force, Kind, Outcome, Reading, Window
from mailward.policy.greylist_key import UNKNOWN_NETWORK, network_of
from mailward.policy.networks import Network, is_in_networks
from mailward.policy.owners import account_of
from mailward.policy.ratelimit import item_of

FAILURES = "login-failures"  # the limits' names in the counters
NETWORKS = "login-networks"
KNOWN_PLACES = "login-known"  # counts nothing; the sets of known items are what matters
EVER = "ever"  # of a login's sets of known items the one that says whether it has succeeded at all

LOOPBACK: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1"))

# Where one person is: a phone gets another /64 each time it finds its carrier again, out of a network that is a lot larger.
SPREAD_IPV6_PREFIX = 48

SUSPENDED_TEXT = "This account is suspended; please ask your postmaster"
DENIED_TEXT = "Too many wrong passwords; please try again later"


class Cause(Enum):
    """Why a login was answered so. The words of the counter's label."""

    ORDINARY = "ordinary"
    SLOWED = "slowed"
    DENIED_LOGIN = "denied-login"  # this login, from this network
    DENIED_NETWORK = "denied-network"
    SUSPENDED = "suspended"
    UNKNOWN = "unknown"  # nobody could say what was counted


class Result(Enum):
    """What Dovecot reports of a login. The words of the log and of the counter's label."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REFUSED = "refused"  # by our own answer
    BROKEN = "broken"  # Dovecot could not tell: its database is away


@dataclass(frozen=True, slots=True)
class LoginRules:
    """What the operator chose; amounts are of different wrong passwords.

    `failures` are those of a login from a network, `network_failures` those of a network, `login_failures` those of a login;
    each at least 2, or one phone with an old password would be denied.
    `networks`: from so many a person logs in. `tarpit` is the longest wait in seconds: Postfix gives Dovecot no more than 10
    for an answer, of which Dovecot itself takes 2 for a wrong password. An address in `uncounted` networks stands for many
    clients, a webmail's or this machine's: what fails there counts for the login alone. `shared` logins may come from anywhere.
    """

    failures: tuple[Window, ...] = (Window(10, 3600.0),)
    network_failures: tuple[Window, ...] = (Window(50, 3600.0),)
    login_failures: tuple[Window, ...] = (Window(50, 3600.0),)
    networks: tuple[Window, ...] = (Window(10, 86400.0),)
    tarpit: int = 5
    known_times: int = 10
    stranger_times: int = 2
    ipv4_prefix: int = 24
    ipv6_prefix: int = 64
    uncounted: tuple[Network, ...] = LOOPBACK
    shared: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Attempt:
    """Somebody who logs in, as Dovecot tells it. `password` is a hash of it, the same for the same login and password."""

    login: str
    password: str
    remote: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What Dovecot is told: -1 denies, 0 lets try, more is how many seconds it waits before. `text` is for who logs in."""

    status: int
    cause: Cause
    text: str = ""


def look(attempt: Attempt, rules: LoginRules) -> Charging:
    """Return what is to be looked up before a login is answered; it charges nothing."""
    keys = _keys(attempt, rules)
    charges = [
        Charge(keys.here, (), 0, Kind.FIRST_TIME, keys.network_item),
        Charge(keys.ever, (), 0, Kind.FIRST_TIME, item_of(EVER)),
        Charge(keys.login, rules.login_failures, 0, Kind.DISTINCT, keys.password_item),
    ]
    if keys.is_counted:
        charges.append(Charge(keys.login_there, rules.failures, 0, Kind.DISTINCT, keys.password_item))
        charges.append(Charge(keys.network, rules.network_failures, 0, Kind.DISTINCT, keys.password_item))
    return Charging(tuple(charges))


def answer(attempt: Attempt, account: Account | None, outcome: Outcome | None, rules: LoginRules) -> Answer:
    """Return what follows of what look() found; `outcome` None: nobody could look. `account`: where something is known of it."""
    if account is not None and account.suspension is not None:
        return Answer(-1, Cause.SUSPENDED, SUSPENDED_TEXT)
    if outcome is None:
        return Answer(0, Cause.UNKNOWN)
    keys = _keys(attempt, rules)
    readings = _by_key(look(attempt, rules), outcome)
    is_known = readings[keys.here].is_known
    has_succeeded = is_known or readings[keys.ever].is_known
    waits = [0] if is_known else [min(rules.tarpit, _wait(readings[keys.login], rules.login_failures, rules))]
    for key, windows, cause in (
        (keys.login_there, rules.failures, Cause.DENIED_LOGIN),
        (keys.network, rules.network_failures, Cause.DENIED_NETWORK),
    ):
        if key in readings:
            scaled = tuple(_scaled(window, is_known, has_succeeded, rules) for window in windows)
            if _is_reached(readings[key], scaled):
                return Answer(-1, cause, DENIED_TEXT)
            waits.append(_wait(readings[key], scaled, rules))
    wait = max(waits)
    return Answer(wait, Cause.SLOWED if wait else Cause.ORDINARY)


def _scaled(window: Window, is_known: bool, has_succeeded: bool, rules: LoginRules) -> Window:
    if is_known:
        return Window(window.most * rules.known_times, window.seconds)
    return window if has_succeeded else Window(max(2, window.most // rules.stranger_times), window.seconds)


def _is_reached(reading: Reading, windows: tuple[Window, ...]) -> bool:
    return any(total >= window.most for total, window in zip(reading.totals, windows, strict=True))


def _wait(reading: Reading, windows: tuple[Window, ...], rules: LoginRules) -> int:
    """Return how long to wait: nothing up to a third of a limit, which is who tries the passwords they have; then ever longer.

    One wrong password never waits: it may be a phone's that has an old one.
    """
    longest = 0
    for total, window in zip(reading.totals, windows, strict=True):
        free = max(1, window.most // 3)
        if total > free:
            longest = max(longest, math.ceil(rules.tarpit * min(1.0, (total - free) / max(1, window.most - free))))
    return longest


def report(attempt: Attempt, result: Result, rules: LoginRules) -> Charging:
    """Return what a login costs that has come to its end; nothing, where it says nothing of who it was."""
    if result is Result.SUCCEEDED:
        return _success(attempt, rules)
    return _failure(attempt, rules) if result is Result.FAILED else Charging(())


def _success(attempt: Attempt, rules: LoginRules) -> Charging:
    """Learn where a login succeeds, and count how many networks that are."""
    keys = _keys(attempt, rules)
    charges = [
        Charge(keys.here, (), 1, Kind.FIRST_TIME, keys.network_item),
        Charge(keys.ever, (), 1, Kind.FIRST_TIME, item_of(EVER)),
    ]
    if keys.is_counted and rules.networks and account_of(attempt.login) not in rules.shared:
        place = item_of(network_of(attempt.remote, rules.ipv4_prefix, min(rules.ipv6_prefix, SPREAD_IPV6_PREFIX)))
        charges.append(Charge(keys.networks, rules.networks, 1, Kind.DISTINCT, place, Force.FORCED))
    return Charging(tuple(charges))


def _failure(attempt: Attempt, rules: LoginRules) -> Charging:
    """Count a wrong password, beyond the limits, too: several may be tried at once, before the first is counted."""
    keys = _keys(attempt, rules)
    counted = [(keys.login, rules.login_failures)]
    if keys.is_counted:
        counted += [(keys.login_there, rules.failures), (keys.network, rules.network_failures)]
    return Charging(
        tuple(Charge(key, windows, 1, Kind.DISTINCT, keys.password_item, Force.FORCED) for key, windows in counted)
    )


def networks_beyond(attempt: Attempt, charging: Charging, outcome: Outcome | None, rules: LoginRules) -> int:
    """Return from how many networks a login has succeeded, if those are more than one person has; else 0."""
    reading = _by_key(charging, outcome).get(_keys(attempt, rules).networks) if outcome is not None else None
    if reading is None:
        return 0
    over = [total for total, window in zip(reading.totals, rules.networks, strict=True) if total > window.most]
    return max(over, default=0)


@dataclass(frozen=True, slots=True)
class _Keys:
    """What an attempt is counted under. `is_counted`: its network is one client's, or some neighbours'."""

    here: CounterKey
    ever: CounterKey
    login: CounterKey
    login_there: CounterKey
    network: CounterKey
    networks: CounterKey
    network_item: bytes
    password_item: bytes
    is_counted: bool


def _keys(attempt: Attempt, rules: LoginRules) -> _Keys:
    login = f"login={account_of(attempt.login)}"
    network = network_of(attempt.remote, rules.ipv4_prefix, rules.ipv6_prefix)
    there = f"login_network={network}"
    return _Keys(
        here=CounterKey(login, KNOWN_PLACES),
        ever=CounterKey(login, KNOWN_PLACES, EVER),
        login=CounterKey(login, FAILURES),
        login_there=CounterKey(login, FAILURES, there),
        network=CounterKey(there, FAILURES),
        networks=CounterKey(login, NETWORKS),
        network_item=item_of(network),
        password_item=item_of(f"{account_of(attempt.login)}\0{attempt.password}"),
        is_counted=network != UNKNOWN_NETWORK and not is_in_networks(attempt.remote, rules.uncounted),
    )


def _by_key(charging: Charging, outcome: Outcome) -> Mapping[CounterKey, Reading]:
    return {charge.key: reading for charge, reading in zip(charging.charges, outcome.readings, strict=True)}
