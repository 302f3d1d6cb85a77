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
    `authserv_id`, the name under which results are written, the table [auth-verify] of mailward.toml(5), and [dns].
    Everything has a default. `enforce` is the most that happens to mail that fails, `quarantine` how it is quarantined,
    and with `shadow` nothing happens but that it is told. `forwarder_networks`, `forwarder_names`, `trusted_sealers`,
    `mailing_lists` and `accept_domains` say whose word lets failing mail through, `reject_domains` whose failing mail is
    refused.

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
from mailward.daemon.dns import DNS_METRICS, DNS_SHOWN, dns_files, dns_label_values, make_resolver
from mailward.daemon.logbook import LOG_METRICS
from mailward.daemon.milter_service import milter_program
from mailward.daemon.program import Loaded, Program, Serving, WorkerTools
from mailward.milter.adapter import MilterServing
from mailward.milter.program import Wants
from mailward.settings.auth_verify import Settings, read_judge
from mailward.settings.load import read_sections, structure
from milters.auth_verify.filter import METRICS, SHOWN, Verifier, VerifyMessage


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
        watched=dns_files(settings.dns),
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


PROGRAM = Program("auth-verify", __doc__ or "", (*METRICS, *DNS_METRICS, *LOG_METRICS), load, shown=(*SHOWN, DNS_SHOWN))
main = cli.command(PROGRAM)

if __name__ == "__main__":
    main()
