"""mailward-auth-verify - find out who really sent incoming mail

SYNOPSIS
    mailward-auth-verify [--config FILE] [--check] [--version]

DESCRIPTION
    Verifies incoming mail with SPF (RFC 7208), DKIM (RFC 6376, 8301, 8463), DMARC (RFC 9989) and ARC (RFC 8617) in one
    verdict, as a milter of Postfix, and writes one Authentication-Results field (RFC 8601).

    The field stands on top of the message. Every other one that claims to be ours is deleted, and so is every one from which
    a foreign identifier cannot be read for certain.

    Mail that fails DMARC under a policy of quarantine or reject is quarantined: it gets the field X-Mailward-Quarantine, by which
    a Sieve script files it into Junk, or goes to Postfix's hold queue. With `enforce = "reject"` mail under p=reject is
    refused, but where something speaks for a forwarder it is quarantined all the same. What the DNS does not tell is
    `temperror`: it never counts as a failure.

    Clients that logged in and listed networks are labelled and pass.

CONFIGURATION
    `authserv_id`, the name under which results are written, and the table [auth-verify] of mailward.toml(5):

    socket, socket_mode, socket_group
        Where Postfix connects: "unix:/path" or "inet:ADDRESS:PORT". systemd's socket, if it hands one over, wins.
    metrics
        Address of the HTTP server with /metrics, /healthz, /readyz and a status page.
    networks
        Clients whose mail is labelled and not judged. Default: this host.
    enforce
        "none" (label only), "quarantine" (default) or "reject": the most that happens to mail that fails DMARC.
    quarantine
        "header" (default): X-Mailward-Quarantine for Sieve; or "hold": Postfix's hold queue.
    no_author_domain
        "none", "quarantine" (default) or "reject": what happens to mail whose From field names no domain. Never more
        than `enforce`.
    on_temperror
        "accept" (default) or "tempfail": what happens when the DNS does not tell whether DMARC passes.
    on_silent_identifier
        "tempfail" (default) or "accept": what happens when the author domain's policy is known to be quarantine or reject, the
        DNS works, and only a name that this sender chose to be verified by (a selector, a subdomain) does not answer. Honest
        mail comes again a little later; a forger could choose a name that never answers.
    on_own_bug
        "tempfail" (default) or "accept": what happens to a message that a bug of ours keeps from being judged.
    shadow
        true: decide, tell in log, field and counters what would be done, and do nothing.
    forwarder_networks, forwarder_names
        Forwarders you trust, by network, or by the confirmed name of the client's address (and what is below it).
    trusted_sealers
        Domains (d= of ARC seals) whose word counts: mail with a passing chain, sealed last by one of them, whose results say
        that the author domain passed DMARC, is accepted.
    mailing_lists
        Domains (d= of DKIM signatures) of mailing lists. A passing signature of one of them lets a message through.
    accept_domains, reject_domains
        Author domains (and what is below them) never enforced; and those whose failing mail is rejected even where something
        speaks for a forwarder: your own ones, say.
    own_authserv_ids
        More names under which nobody outside may have written results.
    received_spf
        true: write a Received-SPF field, too (RFC 7208 9.1).
    spf_void_lookups, max_signatures, clock_skew
        Look-ups without an answer that SPF may make (2); DKIM signatures tried (8); how far clocks may differ (5m).
    workers, worker_timeout, drain_timeout, reload_timeout, max_sessions, log_level
        How the service runs. Sessions are counted for each worker.

    The table [dns]: nameservers, timeout (of one query), deadline and queries (of one message), control, cache.

SIGNALS
    HUP     Read the configuration again. Sessions finish with the old one, for at most `reload_timeout`. If anything is
            wrong the old configuration stays, and the log says what is wrong. socket and metrics stay as they are until a
            restart.
    TERM    Accept no more, finish the sessions there are within `drain_timeout`, end.

DIAGNOSTICS
    One line a message at level info: session, queue id, client, HELO, MAIL FROM, verdict, author domain, reason, the result
    of each method with its cause, DNS queries, milliseconds. `mailward explain` tells the same of a stored message, step
    by step. Exit status 78: the configuration is wrong; each mistake has a line on stderr.

BUGS
    A HELO name that is no UTF-8 counts as none. What the MTA changed before the milters saw it (line ends, header fields cut
    at header_size_limit) is judged as changed.
"""

from __future__ import annotations

from pathlib import Path

from mailward.daemon import cli
from mailward.daemon.dns import DNS_METRICS, dns_label_values, make_resolver
from mailward.daemon.milter_service import milter_program
from mailward.daemon.program import Loaded, Program, Serving, WorkerTools
from mailward.milter.adapter import MilterServing
from mailward.milter.program import Wants
from mailward.settings.auth_verify import Settings, read_judge
from mailward.settings.load import read_sections, structure
from milters.auth_verify.filter import METRICS, Verifier, VerifyMessage


def load(path: Path) -> Loaded:
    """Read and check everything a worker needs. Raises ConfigError with every mistake."""
    settings = structure(read_sections(path), Settings)
    warnings = []
    own = settings.auth_verify
    if own.reject_domains and own.enforce == "none":
        warnings.append('reject_domains does nothing while enforce is "none"')
    if "." not in settings.authserv_id:
        warnings.append(f'authserv_id is "{settings.authserv_id}": expected a full name that is yours alone')
    return Loaded(
        own,
        lambda tools: make_serving(settings, tools),
        tuple(warnings),
        label_values=dns_label_values(settings.dns),
    )


def make_serving(settings: Settings, tools: WorkerTools) -> Serving:
    """Wire one worker: resolver, judge, milter."""
    own = settings.auth_verify
    resolver = make_resolver(settings.dns, tools)
    verifier = Verifier(
        read_judge(settings),
        resolver,
        tools.metrics,
        tools.log,
        accepts_after_own_bug=own.on_own_bug == "accept",
    )
    resolver.start()
    program = milter_program(
        "mailward-auth-verify",
        Wants(helo=True, connect_macros=("{daemon_name}",), mail_macros=("{auth_type}", "{auth_authen}")),
        lambda transaction: VerifyMessage(verifier, transaction),
        tools,
        own.max_sessions,
        "Verification failed; try again later",
    )
    return MilterServing(program)


PROGRAM = Program("auth-verify", __doc__ or "", (*METRICS, *DNS_METRICS), load)
main = cli.command(PROGRAM)

if __name__ == "__main__":
    main()
