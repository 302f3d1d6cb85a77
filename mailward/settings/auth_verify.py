"""`[auth-verify]`: how incoming mail is judged, and what becomes of what fails."""

from __future__ import annotations

import ipaddress

import attrs

from mailward.auth.dkim_verify import DkimLimits
from mailward.auth.evaluate import Limits
from mailward.auth.spf import SpfLimits
from mailward.inbound.judge import Judge
from mailward.model.results import Disposition
from mailward.policy.enforcement import EnforcementRules
from mailward.settings.common import Service, Shared, at_least, at_most, one_of
from mailward.settings.values import DomainName, Duration, NetworkList, Port, SocketAddress


@attrs.frozen(kw_only=True)
class AuthVerify(Service):
    """`[auth-verify]`; the words of the lists mean what mailward.policy.enforcement says."""

    socket: SocketAddress = SocketAddress("/var/spool/postfix/mailward/auth-verify.sock", "", 0)
    metrics: Port | None = Port("127.0.0.1", 9462)
    networks: NetworkList = NetworkList((ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1")))
    enforce: str = attrs.field(default="quarantine", validator=one_of("none", "quarantine", "reject"))
    quarantine: str = attrs.field(default="header", validator=one_of("header", "hold"))
    no_author_domain: str = attrs.field(default="quarantine", validator=one_of("none", "quarantine", "reject"))
    on_temperror: str = attrs.field(default="accept", validator=one_of("accept", "tempfail"))
    on_silent_identifier: str = attrs.field(default="tempfail", validator=one_of("accept", "tempfail"))
    on_own_bug: str = attrs.field(default="tempfail", validator=one_of("accept", "tempfail"))
    shadow: bool = False
    forwarder_networks: NetworkList = NetworkList()
    forwarder_names: tuple[DomainName, ...] = ()
    trusted_sealers: tuple[DomainName, ...] = ()
    mailing_lists: tuple[DomainName, ...] = ()
    accept_domains: tuple[DomainName, ...] = ()
    reject_domains: tuple[DomainName, ...] = ()
    own_authserv_ids: tuple[DomainName, ...] = ()
    received_spf: bool = False
    spf_void_lookups: int = attrs.field(default=2, validator=[at_least(0, "0"), at_most(10, "10")])
    max_signatures: int = attrs.field(default=8, validator=[at_least(1, "1"), at_most(50, "50")])
    clock_skew: Duration = attrs.field(default=Duration(300.0), validator=[at_least(0, "0s"), at_most(86400, "1d")])

    def limits(self) -> Limits:
        """Return the bounds on what one message may make us do."""
        return Limits(
            SpfLimits(void_lookups=self.spf_void_lookups),
            DkimLimits(max_signatures=self.max_signatures, clock_skew_seconds=int(self.clock_skew)),
        )

    def rules(self) -> EnforcementRules:
        """Return what becomes of mail that fails."""
        return EnforcementRules(
            enforce=Disposition(self.enforce),
            no_author_domain=Disposition(self.no_author_domain),
            tempfail_on_temperror=self.on_temperror == "tempfail",
            tempfail_on_silent_identifier=self.on_silent_identifier == "tempfail",
            forwarder_networks=self.forwarder_networks,
            forwarder_names=frozenset(self.forwarder_names),
            trusted_sealers=frozenset(self.trusted_sealers),
            mailing_lists=frozenset(self.mailing_lists),
            accept_domains=frozenset(self.accept_domains),
            reject_domains=frozenset(self.reject_domains),
        )


@attrs.frozen(kw_only=True)
class Settings(Shared):
    """The configuration as the verifier sees it."""

    auth_verify: AuthVerify = attrs.field(default=AuthVerify(), metadata={"key": "auth-verify"})


def read_judge(settings: Settings) -> Judge:
    """Return the judge that the configuration describes; the daemon's and `mailward explain`'s."""
    own = settings.auth_verify
    return Judge(
        authserv_id=settings.authserv_id,
        own_ids=frozenset((settings.authserv_id, *own.own_authserv_ids)),
        networks=own.networks,
        limits=own.limits(),
        rules=own.rules(),
        is_shadow=own.shadow,
        holds=own.quarantine == "hold",
        writes_received_spf=own.received_spf,
    )
