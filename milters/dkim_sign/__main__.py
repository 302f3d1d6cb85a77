"""mailward-dkim-sign - sign outgoing mail with DKIM

SYNOPSIS
    mailward-dkim-sign [--config FILE] [--check] [--version]

DESCRIPTION
    Signs mail of your own users with DKIM (RFC 6376, 8301, 8463), as a milter of Postfix.

    Mail is signed when its client logged in (SASL) or is in one of `networks`, and when the author domain, the domain of
    its From field, has keys. Everything else passes as it is; why is in the log and in a counter.

    The body is hashed while it streams past and never kept. Each key of the domain makes one signature, so RSA and
    Ed25519, several selectors or a second signing domain stand side by side.

    A key is used only while its public half is published: its DNS record is compared at first use and every few minutes. A
    key whose record is missing or different steps back while another key of its domain is good. Where none is, the first
    one signs and an error is logged: mail is never unsigned because of the DNS.

CONFIGURATION
    The table [dkim-sign] of mailward.toml(5), and [dns]. Everything has a default but one thing: whose mail is signed,
    with which keys. That is said by [[dkim-sign.domain]], which `mailward keys new` writes, or for many domains by a
    file, `table`. `networks` are clients whose mail is signed without authentication; `logins` is a file that says which
    login may have mail signed for which domains. Without a key nothing is signed, and a warning says so.

SIGNALS
    HUP     Read configuration, tables and keys again. Sessions finish with the old ones, for at most `reload_timeout`. If
            anything is wrong the old configuration stays, and the log says what is wrong. socket and metrics stay as they
            are until a restart.
    TERM    Accept no more, finish the sessions there are within `drain_timeout`, end.

DIAGNOSTICS
    Run --check as the account the daemon runs as: it is asked whether that account can read the keys.

    One line a message at level info: session, queue id, client, login, author domain, verdict, reason, signatures,
    milliseconds. The reasons of an unsigned message: not-authenticated, no-author, malformed-from, several-from-fields,
    no-right-for-domain, no-key-for-domain. Exit status 78: the configuration is wrong; each mistake has a line on stderr.

BUGS
    Postfix cuts lines over 998 octets when it sends them (smtp_line_length_limit), in header fields too, and that breaks
    the signature; such messages carry a warning in the log.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mailward.adapters.key_files import KeyCache, KeyFileError
from mailward.auth.keys import RECOMMENDED_RSA_BITS, Algorithm
from mailward.daemon import cli
from mailward.daemon.dns import DNS_METRICS, DNS_SHOWN, dns_files, dns_label_values, make_resolver
from mailward.daemon.logbook import LOG_METRICS
from mailward.daemon.metrics import NAMED_SLOTS
from mailward.daemon.milter_service import milter_program
from mailward.daemon.program import Loaded, Program, Serving, WorkerTools
from mailward.milter.adapter import MilterServing
from mailward.milter.program import Wants
from mailward.model.errors import ConfigError, Mistake
from mailward.model.verdict import Action
from mailward.policy.signing import KeyRef, SigningPolicy, SigningTable
from mailward.settings.dkim_sign import Settings
from mailward.settings.load import read_sections, structure
from mailward.settings.signing_keys import read_signing_policy
from milters.dkim_sign.filter import DOMAIN, METRICS, SHOWN, Signer, SignMessage, domain_label
from milters.dkim_sign.publication import PublicationWatch, collect_key_states, note_key

PRELOADED_KEYS = 64  # read and proven before a generation serves; a hoster's others at their first use


def load(path: Path) -> Loaded:
    """Read and check everything a worker needs. Raises ConfigError with every mistake."""
    settings = structure(read_sections(path), Settings)
    policy = read_signing_policy(settings)
    keys = KeyCache(settings.dkim_sign.key_cache)
    warnings = _preload(policy.table, keys, str(path))
    if not policy.table.keys:
        warnings.append("no domain has a key: nothing will be signed")
    return Loaded(
        settings.dkim_sign,
        lambda tools: make_serving(settings, policy, keys, tools),
        tuple(warnings),
        _known_keys(policy.table),
        {**dns_label_values(settings.dns), DOMAIN: _domain_labels(policy.table)},
        watched=dns_files(settings.dns),
    )


def _known_keys(table: SigningTable) -> Callable[[str], bool]:
    """Return a function that says whether a note is about a key of this table."""
    names = {note_key(ref) for refs in table.keys.values() for ref in refs if ref.signing_domain}
    open_names = tuple(note_key(ref) for refs in table.keys.values() for ref in refs if not ref.signing_domain)
    return lambda name: name in names or name.startswith(open_names)


def _domain_labels(table: SigningTable) -> list[str]:
    """Return the domains as the metrics name them: the first ones, in the order of the configuration."""
    labels: dict[str, None] = {}
    for name in table.keys:
        if len(labels) == NAMED_SLOTS:
            break
        labels[domain_label(name)] = None
    return list(labels)


def make_serving(settings: Settings, policy: SigningPolicy, keys: KeyCache, tools: WorkerTools) -> Serving:
    """Wire one worker: resolver, key states, signer, milter."""
    own = settings.dkim_sign
    resolver = make_resolver(settings.dns, tools)
    watch = PublicationWatch(
        resolver, lambda ref: keys.get(ref.file), own.publication_interval, own.key_cache, tools.notes, tools.log
    )
    signer = Signer(policy, own.rules(), keys, watch, tools.metrics, tools.log, Action(own.on_key_error))
    resolver.start()
    watch.start()
    program = milter_program(
        "mailward-dkim-sign",
        Wants(connect_macros=("{daemon_name}",), mail_macros=("{auth_type}", "{auth_authen}")),
        lambda transaction: SignMessage(signer, transaction),
        tools,
        own.max_sessions,
        "Signing failed; try again later",
    )
    return MilterServing(program)


def _preload(table: SigningTable, keys: KeyCache, file: str) -> list[str]:
    """Read and prove the first keys; raises ConfigError for those that cannot sign, returns warnings for weak ones."""
    mistakes, warnings = [], []
    refs: dict[str, KeyRef] = {ref.file: ref for refs in table.keys.values() for ref in refs}
    for ref in list(refs.values())[:PRELOADED_KEYS]:
        try:
            key = keys.get(ref.file)
        except KeyFileError as error:
            mistakes.append(
                Mistake(file, f"key {ref.selector}._domainkey.{ref.signing_domain}", f"{ref.file}: {error}")
            )
            continue
        if key.algorithm is Algorithm.RSA_SHA256 and key.bits < RECOMMENDED_RSA_BITS:
            warnings.append(
                f"{ref.file}: an RSA key of {key.bits} bits; RFC 8301 recommends at least {RECOMMENDED_RSA_BITS}"
            )
    if mistakes:
        raise ConfigError(mistakes)
    return warnings


PROGRAM = Program(
    "dkim-sign",
    __doc__ or "",
    (*METRICS, *DNS_METRICS, *LOG_METRICS),
    load,
    collect_key_states,
    shown=(*SHOWN, DNS_SHOWN),
)
main = cli.command(PROGRAM)

if __name__ == "__main__":
    main()
