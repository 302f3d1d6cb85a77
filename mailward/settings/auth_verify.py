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
from mailward.settings.common import METRICS, SOCKET, Service, Shared, at_least, at_most, one_of
from mailward.settings.values import DomainName, Duration, NetworkList, Port, SocketAddress
from mailward.settings.words import says


@attrs.frozen(kw_only=True)
class AuthVerify(Service):
    """`[auth-verify]`; the words of the lists mean what mailward.policy.enforcement says."""

    socket: SocketAddress = attrs.field(
        default=SocketAddress("/var/spool/postfix/mailward/auth-verify.sock", "", 0), metadata=SOCKET
    )
    metrics: Port | None = attrs.field(default=Port("127.0.0.1", 9462), metadata=METRICS)
    networks: NetworkList = attrs.field(
        default=NetworkList((ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1"))),
        metadata=says("Clients whose mail is labelled and not judged. So is that of clients that logged in."),
    )
    enforce: str = attrs.field(
        default="quarantine",
        validator=one_of("none", "quarantine", "reject"),
        metadata=says(
            """The most that happens to mail that fails DMARC: `"none"` (it is labelled), `"quarantine"`, or `"reject"`
            where the author domain's policy says so and nothing speaks for a forwarder."""
        ),
    )
    quarantine: str = attrs.field(
        default="header",
        validator=one_of("header", "hold"),
        metadata=says(
            """How mail is quarantined: `"header"`, the field X-Mailward-Quarantine, by which a Sieve script files it
            into Junk; or `"hold"`, Postfix's hold queue, out of which an operator releases it."""
        ),
    )
    no_author_domain: str = attrs.field(
        default="quarantine",
        validator=one_of("none", "quarantine", "reject"),
        metadata=says("What happens to mail whose From field names no domain. Never more than `enforce`."),
    )
    on_temperror: str = attrs.field(
        default="accept",
        validator=one_of("accept", "tempfail"),
        metadata=says(
            """What happens when the DNS does not tell whether DMARC passes: `"accept"`, or `"tempfail"`, which asks the
            client to come again."""
        ),
    )
    on_silent_identifier: str = attrs.field(
        default="tempfail",
        validator=one_of("accept", "tempfail"),
        metadata=says(
            """What happens when the author domain's policy is known to be quarantine or reject, the DNS works, and only
            a name that this sender chose to be verified by (a selector, a subdomain) does not answer. Honest mail comes
            again a little later; a forger could choose a name that never answers."""
        ),
    )
    on_own_bug: str = attrs.field(
        default="tempfail",
        validator=one_of("accept", "tempfail"),
        metadata=says("What happens to a message that a bug of Mailward's keeps from being judged."),
    )
    shadow: bool = attrs.field(
        default=False,
        metadata=says(
            "`true`: decide, tell in log, field and counters what would be done, and do nothing. For the first days."
        ),
    )
    forwarder_networks: NetworkList = attrs.field(
        default=NetworkList(),
        metadata=says(
            "Forwarders you trust, by network: their mail is not enforced.",
            example='["192.0.2.0/24", "2001:db8::25"]',
        ),
    )
    forwarder_names: tuple[DomainName, ...] = attrs.field(
        default=(),
        metadata=says(
            "The same by the confirmed name of the client's address, and what is below it.",
            example='["forwarder.example.net"]',
        ),
    )
    trusted_sealers: tuple[DomainName, ...] = attrs.field(
        default=(),
        metadata=says(
            """Domains (d= of ARC seals) whose word counts: mail with a passing chain, sealed last by one of them, whose
            results say that the author domain passed DMARC, is accepted.""",
            example='["lists.example.org"]',
        ),
    )
    mailing_lists: tuple[DomainName, ...] = attrs.field(
        default=(),
        metadata=says(
            """Domains (d= of DKIM signatures) of mailing lists. A passing signature of one of them lets a message
            through.""",
            example='["lists.example.org"]',
        ),
    )
    accept_domains: tuple[DomainName, ...] = attrs.field(
        default=(),
        metadata=says(
            "Author domains, and what is below them, whose failing mail is let through, whoever sent it.",
            example='["example.org"]',
        ),
    )
    reject_domains: tuple[DomainName, ...] = attrs.field(
        default=(),
        metadata=says(
            """Author domains, and what is below them, whose failing mail is rejected even where something speaks for a
            forwarder: your own ones, say. Does nothing where `enforce` is `"none"`.""",
            example='["example.com"]',
        ),
    )
    own_authserv_ids: tuple[DomainName, ...] = attrs.field(
        default=(),
        metadata=says(
            "More names, beside `authserv_id`, under which nobody outside may have written results.",
            example='["mx2.example.net"]',
        ),
    )
    received_spf: bool = attrs.field(
        default=False, metadata=says("`true`: write a Received-SPF field, too (RFC 7208 9.1).")
    )
    spf_void_lookups: int = attrs.field(
        default=2,
        validator=[at_least(0, "0"), at_most(10, "10")],
        metadata=says("How many terms of one SPF evaluation may look something up and find nothing (RFC 7208 4.6.4)."),
    )
    max_signatures: int = attrs.field(
        default=8,
        validator=[at_least(1, "1"), at_most(50, "50")],
        metadata=says("How many DKIM signatures of a message are tried, those of the author domain first."),
    )
    clock_skew: Duration = attrs.field(
        default=Duration(300.0),
        validator=[at_least(0, "0s"), at_most(86400, "1d")],
        metadata=says("How far a signer's clock may be from this one where signatures have a time."),
    )

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

    auth_verify: AuthVerify = attrs.field(
        default=AuthVerify(),
        metadata=says(
            "mailward-auth-verify(8): how incoming mail is judged, and what becomes of what fails.", key="auth-verify"
        ),
    )


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
