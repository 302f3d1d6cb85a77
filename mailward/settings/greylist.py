"""`[greylist]`: who is delayed for how long, and who never is."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import attrs

from mailward.inbound.greylisting import Rules
from mailward.model.errors import ConfigError, Mistake, named
from mailward.model.greylist import EntryKind, Windows
from mailward.model.state import MemoryState
from mailward.policy.dns_lists import Kind, parse_dns_list
from mailward.policy.exemptions import Exemptions, compile_exemptions
from mailward.policy.subjects import normalize_subject
from mailward.settings.client_lists import read_client_list, shipped_non_retriers
from mailward.settings.common import METRICS, SOCKET, Dns, Service, Shared, Validator, at_least, at_most, one_of
from mailward.settings.values import Duration, NetworkList, Port, SocketAddress
from mailward.settings.words import says

DAY = 86400.0
# Always exempt: mail of sendmail(1), whose submission Postfix must not see refused, and what content filters hand back.
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1"))


def _check_dnsbl(_instance: object, _attribute: object, values: tuple[str, ...]) -> None:
    for value in values:
        parse_dns_list(value, Kind.BLOCK)


def _check_dnswl(_instance: object, _attribute: object, values: tuple[str, ...]) -> None:
    for value in values:
        parse_dns_list(value, Kind.WELCOME)


def _check_subjects(kind: EntryKind) -> Validator:
    def check(_instance: object, _attribute: attrs.Attribute[Any], values: tuple[str, ...]) -> None:
        for value in values:
            normalize_subject(kind, value)

    return check


def _check_retry_window(instance: Greylist, _attribute: object, value: float) -> None:
    if value < 2 * instance.delay:
        raise ValueError("expected at least twice the delay: a retry has to come between the two")


@attrs.frozen(kw_only=True)
class Greylist(Service):
    """`[greylist]`; what the words mean, mailward.model.greylist and mailward.policy.exemptions say."""

    socket: SocketAddress = attrs.field(
        default=SocketAddress("/var/spool/postfix/mailward/greylist.sock", "", 0), metadata=SOCKET
    )
    metrics: Port | None = attrs.field(default=Port("127.0.0.1", 9463), metadata=METRICS)
    delay: Duration = attrs.field(
        default=Duration(60.0),
        validator=[at_least(1, "1s"), at_most(DAY, "1d")],
        metadata=says("How long a triplet waits: a retry before that is deferred again."),
    )
    retry_window: Duration = attrs.field(
        default=Duration(2 * DAY),
        validator=[at_most(14 * DAY, "2w"), _check_retry_window],
        metadata=says("How long a retry is waited for since the first attempt; one that comes later starts over."),
    )
    remember: Duration = attrs.field(
        default=Duration(36 * DAY),
        validator=[at_least(3600, "1h"), at_most(730 * DAY, "730d")],
        metadata=says("How long what passed is remembered, since it was seen last."),
    )
    auto_whitelist: int = attrs.field(
        default=5,
        validator=[at_least(0, "0"), at_most(1000, "1000")],
        metadata=says("After so many passes a client network or SPF domain is delayed no more. `0`: it always is."),
    )
    auto_whitelist_interval: Duration = attrs.field(
        default=Duration(3600.0),
        validator=at_most(30 * DAY, "30d"),
        metadata=says("No two passes within this time are counted for `auto_whitelist`."),
    )
    ipv4_prefix: int = attrs.field(
        default=24,
        validator=[at_least(8, "8"), at_most(32, "32")],
        metadata=says("What a client's network is: so many bits of its address. Another value forgets what is known."),
    )
    ipv6_prefix: int = attrs.field(
        default=64, validator=[at_least(16, "16"), at_most(128, "128")], metadata=says("The same for IPv6.")
    )
    mode: str = attrs.field(
        default="all",
        validator=one_of("all", "suspicious"),
        metadata=says(
            """`"all"`, or `"suspicious"`: greylist only clients without a name or with a generic one, with a HELO that
            fits nothing, or on a list of `dnsbl`."""
        ),
    )
    dnsbl: tuple[str, ...] = attrs.field(
        default=(),
        validator=_check_dnsbl,
        metadata=says(
            "DNS lists of suspicious clients, for the mode `suspicious`; behind `=` the answers that count.",
            example='["zen.spamhaus.org"]',
        ),
    )
    dnswl: tuple[str, ...] = attrs.field(
        default=(),
        validator=_check_dnswl,
        metadata=says(
            "DNS lists that vouch: clients on one of them pass at once.",
            example='["list.dnswl.org=127.0.[0..255].[1..3]"]',
        ),
    )
    networks: NetworkList = attrs.field(
        default=NetworkList(),
        metadata=says("Clients that pass at once, beside this host, by network.", example='["192.0.2.0/24"]'),
    )
    names: tuple[str, ...] = attrs.field(
        default=(),
        validator=_check_subjects(EntryKind.NAME),
        metadata=says(
            "Clients that pass at once, by confirmed name, and what is below it.",
            example='["example.org", "mail*.example.net"]',
        ),
    )
    senders: tuple[str, ...] = attrs.field(
        default=(),
        validator=_check_subjects(EntryKind.SENDER),
        metadata=says(
            "Senders whose mail passes at once, by address or domain. Anybody can forge one.",
            example='["partner@example.org"]',
        ),
    )
    recipients: tuple[str, ...] = attrs.field(
        default=(),
        validator=_check_subjects(EntryKind.RECIPIENT),
        metadata=says(
            "Recipients who do not want greylisting: an address, a domain, or a local part at any domain.",
            example='["postmaster@", "sales@example.com"]',
        ),
    )
    non_retriers: bool = attrs.field(
        default=True, metadata=says("Let clients pass that are known not to retry, a list that comes with Mailward.")
    )
    non_retriers_files: tuple[Path, ...] = attrs.field(
        default=(),
        metadata=says(
            "Lists of your own: files with one name, address or network a line; `#` begins a comment.",
            example='["/etc/mailward/non-retriers"]',
        ),
    )
    field: bool = attrs.field(
        default=False, metadata=says("`true`: the field X-Greylist says how long a message was delayed.")
    )
    shadow: bool = attrs.field(
        default=False,
        metadata=says("`true`: defer nobody; tell in log and counters who would have been. For the first days."),
    )
    store_timeout: Duration = attrs.field(
        default=Duration(0.5),
        validator=[at_least(0.01, "10ms"), at_most(10, "10s")],
        metadata=says(
            """How long the state may take to answer. Two slower answers in a row, and it is left alone until it is
            back; everybody passes meanwhile."""
        ),
    )
    deadline: Duration = attrs.field(
        default=Duration(5.0),
        validator=[at_least(0.05, "50ms"), at_most(25, "25s")],
        metadata=says("How long the DNS may take for one message; Postfix waits 30s for an answer at RCPT."),
    )

    def windows(self) -> Windows:
        """Return how long things take and last."""
        return Windows(
            float(self.delay),
            float(self.retry_window),
            float(self.remember),
            self.auto_whitelist,
            float(self.auto_whitelist_interval),
        )


@attrs.frozen(kw_only=True)
class Settings(Shared):
    """The configuration as the greylister sees it."""

    greylist: Greylist = attrs.field(
        default=Greylist(), metadata=says("mailward-greylist(8): who is delayed for how long, and who never is.")
    )

    def rules(self) -> Rules:
        """Return what greylisting does."""
        own = self.greylist
        return Rules(
            own.windows(),
            own.ipv4_prefix,
            own.ipv6_prefix,
            own.mode == "suspicious",
            tuple(parse_dns_list(text, Kind.BLOCK) for text in own.dnsbl),
            tuple(parse_dns_list(text, Kind.WELCOME) for text in own.dnswl),
            frozenset((self.authserv_id,)),
        )

    def dns_at_rcpt(self) -> Dns:
        """Return `[dns]` with greylisting's own deadline: Postfix waits 30 s for an answer at RCPT, not 300."""
        return attrs.evolve(self.dns, deadline=min(self.dns.deadline, self.greylist.deadline))


def read_exemptions(own: Greylist) -> Exemptions:
    """Return who passes at once, with the lists read from their files. Raises ConfigError with every mistake in them."""
    lists = [read_client_list(path) for path in own.non_retriers_files]
    mistakes = named((it for client_list in lists for it in client_list.mistakes), "greylist.non_retriers_files")
    if mistakes:
        raise ConfigError(mistakes)
    if own.non_retriers:
        lists.append(shipped_non_retriers())
    return compile_exemptions(
        (*LOOPBACK, *own.networks),
        own.names,
        own.senders,
        own.recipients,
        [network for client_list in lists for network in client_list.networks],
        [name for client_list in lists for name in client_list.names],
    )


def check_state(settings: Settings, file: str) -> None:
    """Raise ConfigError where the workers would not share what they remember; `file` is the configuration's."""
    if isinstance(settings.state.state, MemoryState) and settings.greylist.workers != 1:
        expected = 'expected "memory:" with workers = 1 alone: each worker would have a memory of its own'
        raise ConfigError([Mistake(file, "state", expected)])
