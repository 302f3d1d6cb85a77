"""`[policyd.logins]`: how many wrong passwords slow and deny a login, and from how many networks one person logs in."""

from __future__ import annotations

import attrs

from mailward.model.limits import Window
from mailward.policy.logins import LOOPBACK, LoginRules
from mailward.policy.owners import account_of
from mailward.policy.ratelimit import MAX_ITEMS
from mailward.settings.common import Validator, at_least, at_most
from mailward.settings.values import Duration, NetworkList, Rate, Rates, Words
from mailward.settings.words import says

HOUR, DAY = 3600.0, 86400.0
MAX_WINDOWS = 4
MAX_SHARED = 1000
MAX_TIMES = 10
MAX_TARPIT = (
    7  # seconds: Postfix gives Dovecot 10, and Dovecot takes 2 for a wrong password, and its time to compare it
)


def _amounts(least: int, most: int, *, may_be_empty: bool = False) -> Validator:
    """Return a validator of rates; a counter remembers no more than MAX_ITEMS different things."""

    def check(_instance: object, _attribute: object, rates: Rates) -> None:
        if not (rates or may_be_empty) or len(rates) > MAX_WINDOWS:
            raise ValueError(f"expected 1 to {MAX_WINDOWS} windows")
        for rate in rates:
            if rate.is_octets or not least <= rate.most <= most:
                raise ValueError(f"expected {least} to {most} in a time")
            if not 10.0 <= rate.seconds <= 30 * DAY:
                raise ValueError("expected windows of 10s to 30d")

    return check


def _check_shared(_instance: object, _attribute: object, logins: Words) -> None:
    if len(logins) > MAX_SHARED:
        raise ValueError(f"expected at most {MAX_SHARED} logins")


@attrs.frozen(kw_only=True)
class LoginSettings:
    """`[policyd.logins]`; what follows of the limits, mailward.policy.logins says."""

    failures: Rates = attrs.field(
        default=Rates([Rate(10, HOUR)]),
        validator=_amounts(2, MAX_ITEMS // MAX_TIMES),
        metadata=says("Wrong passwords of one login from one network: they slow it there, and then deny it there."),
    )
    network_failures: Rates = attrs.field(
        default=Rates([Rate(50, HOUR)]),
        validator=_amounts(2, MAX_ITEMS // MAX_TIMES),
        metadata=says(
            "Wrong passwords from one network, over all logins: they slow every login there, and then deny it."
        ),
    )
    login_failures: Rates = attrs.field(
        default=Rates([Rate(50, HOUR)]),
        validator=_amounts(2, MAX_ITEMS),
        metadata=says(
            "Wrong passwords of one login from everywhere: they slow it where it has never succeeded, and deny it nowhere."
        ),
    )
    known_times: int = attrs.field(
        default=10,
        validator=[at_least(1, "1"), at_most(MAX_TIMES, str(MAX_TIMES))],
        metadata=says(
            "`failures` and `network_failures` are so many times as high where the login has succeeded before."
        ),
    )
    stranger_times: int = attrs.field(
        default=2,
        validator=[at_least(1, "1"), at_most(MAX_TIMES, str(MAX_TIMES))],
        metadata=says(
            "They are divided by this where the login has never succeeded anywhere, as most that are guessed."
        ),
    )
    tarpit: Duration = attrs.field(
        default=Duration(5.0),
        validator=[at_least(0, "0s"), at_most(MAX_TARPIT, f"{MAX_TARPIT}s")],
        metadata=says("How long a login that is slowed waits at most."),
    )
    networks: Rates = attrs.field(
        default=Rates([Rate(10, DAY)]),
        validator=_amounts(1, MAX_ITEMS - 1, may_be_empty=True),
        metadata=says(
            """From how many networks one login may succeed until its limits are tightened (`tighten` of [policyd]).
            `[]`: any number."""
        ),
    )
    shared: Words = attrs.field(
        default=Words(),
        validator=_check_shared,
        metadata=says("Logins of several people, which may come from everywhere.", example='["office@example.com"]'),
    )
    uncounted_networks: NetworkList = attrs.field(
        default=NetworkList(),
        metadata=says(
            "Networks each of whose addresses stands for many clients, a webmail's say: nothing is counted of them.",
            example='["192.0.2.10"]',
        ),
    )
    ipv4_prefix: int = attrs.field(
        default=24,
        validator=[at_least(16, "16"), at_most(32, "32")],
        metadata=says("What a network is here: so many bits of the address."),
    )
    ipv6_prefix: int = attrs.field(
        default=64, validator=[at_least(32, "32"), at_most(128, "128")], metadata=says("The same for IPv6.")
    )

    def rules(self) -> LoginRules:
        """Return what is done."""
        return LoginRules(
            _windows(self.failures),
            _windows(self.network_failures),
            _windows(self.login_failures),
            _windows(self.networks),
            round(self.tarpit),
            self.known_times,
            self.stranger_times,
            self.ipv4_prefix,
            self.ipv6_prefix,
            (*LOOPBACK, *self.uncounted_networks),
            frozenset(map(account_of, self.shared)),
        )


def _windows(rates: Rates) -> tuple[Window, ...]:
    return tuple(Window(rate.most, rate.seconds) for rate in rates)
