"""`[policyd.logins]`: how many wrong passwords slow and deny a login, and from how many networks one person logs in."""

from __future__ import annotations

import attrs

from mailward.model.limits import Window
from mailward.policy.logins import LOOPBACK, LoginRules
from mailward.policy.owners import account_of
from mailward.policy.ratelimit import MAX_ITEMS
from mailward.settings.common import Validator, at_least, at_most
from mailward.settings.values import Duration, NetworkList, Rate, Rates, Words

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
    """`[policyd.logins]`; what follows of the limits, mailward.policy.logins says.

    `failures`, `network_failures` and `login_failures` are different wrong passwords: of one login from one network, of one
    network, of one login. The first two are so many times as high where the login has succeeded before (`known_times`), and
    a part of that where it has never succeeded anywhere (`stranger_times`). `tarpit` is the longest wait. `networks` are those
    that a login succeeds from; `[]`: any number. The logins in `shared` are of several people and may come from everywhere. The
    address of an `uncounted_networks` stands for many clients: a webmail's.
    """

    failures: Rates = attrs.field(default=Rates([Rate(10, HOUR)]), validator=_amounts(2, MAX_ITEMS // MAX_TIMES))
    network_failures: Rates = attrs.field(
        default=Rates([Rate(50, HOUR)]), validator=_amounts(2, MAX_ITEMS // MAX_TIMES)
    )
    login_failures: Rates = attrs.field(default=Rates([Rate(50, HOUR)]), validator=_amounts(2, MAX_ITEMS))
    known_times: int = attrs.field(default=10, validator=[at_least(1, "1"), at_most(MAX_TIMES, str(MAX_TIMES))])
    stranger_times: int = attrs.field(default=2, validator=[at_least(1, "1"), at_most(MAX_TIMES, str(MAX_TIMES))])
    tarpit: Duration = attrs.field(
        default=Duration(5.0), validator=[at_least(0, "0s"), at_most(MAX_TARPIT, f"{MAX_TARPIT}s")]
    )
    networks: Rates = attrs.field(
        default=Rates([Rate(10, DAY)]), validator=_amounts(1, MAX_ITEMS - 1, may_be_empty=True)
    )
    shared: Words = attrs.field(default=Words(), validator=_check_shared)
    uncounted_networks: NetworkList = NetworkList()
    ipv4_prefix: int = attrs.field(default=24, validator=[at_least(16, "16"), at_most(32, "32")])
    ipv6_prefix: int = attrs.field(default=64, validator=[at_least(32, "32"), at_most(128, "128")])

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
