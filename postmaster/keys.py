"""mailward keys - make signing keys, print their DNS records, ask the DNS for them

SYNOPSIS
    mailward keys new DOMAIN [--selector NAME] [--rsa BITS | --ed25519] [--keys FOLDER] [--config FILE] [--no-config]
    mailward keys show [DOMAIN] [--config FILE]
    mailward keys verify [DOMAIN] [--config FILE]

DESCRIPTION
    new DOMAIN          make a key, give it to the signer, and print the DNS record for its public half. The configuration is
                        written into conf.d, a file for each domain; a second key is added there. Where systemd runs the
                        signer it is told to read it. A key that exists is never overwritten. Of an Ed25519 key many
                        receivers know nothing yet: it belongs beside an RSA one, with a selector of its own
    show                print the DNS records of the configured keys, each as a line of a zone file
    verify              ask the DNS whether they are published: published, missing, different, or unknown where the DNS does
                        not tell. The signer looks for itself, and uses no key whose record is missing while another of the
                        domain's is there

    show and verify take a DOMAIN without keys of its own to those that sign for it: of a domain above it, or of `*`.

    Where the domain has keys in another file of the configuration, that file is the operator's: `new` says which it is, and
    prints the lines for it. So it does with --no-config, and where there is no configuration at all.

    For example:

    mailward keys new example.com
    mailward keys new example.com --ed25519
    mailward keys verify example.com

ROTATION
    Make the new key beside the old one, and publish its record. Until it is published the old key signs alone; from then on
    both sign, within `publication_interval` of mailward.toml(5).

    mailward keys new example.com --selector 2027a
    mailward keys verify example.com

    Then take the old key's line out of /etc/mailward/conf.d/dkim-example.com.toml, and let the signer read it (`systemctl
    reload mailward-dkim-sign`). Leave the old record in the DNS for a week, for mail that is on its way; then take it and the
    key's file away.

FILES
    /etc/mailward/keys/DOMAIN/SELECTOR.pem
        A private key, which root may write and the account mailward-sign read.
    /etc/mailward/conf.d/dkim-DOMAIN.toml
        The keys of a domain, as [[dkim-sign.domain]] of mailward.toml(5). What else is written into it stays.

DIAGNOSTICS
    What `new` prints is a piece of a zone file: everything but the record is a comment. Exit status 0: done, or every key is
    published. 1: a key is not published, cannot be read, or cannot be written. 2: wrong options. 75: the DNS does not tell.
    78: the configuration is wrong; no key has been made.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from mailward.adapters.key_files import KeyFileError, read_key
from mailward.adapters.key_writer import KeyExists, write_key
from mailward.adapters.resolver import Resolver
from mailward.auth.dkim import find_publication
from mailward.auth.keys import PrivateKey, generate_ed25519, generate_rsa
from mailward.model.domain import InvalidDomain, normalize
from mailward.model.results import Publication
from mailward.policy.signing import KeyRef
from mailward.settings.dkim_sign import Settings
from mailward.settings.load import DEFAULT_PATH, read_sections, structure
from mailward.settings.signing_keys import read_signing_policy
from mailward.settings.values import nameserver
from postmaster.completion import FOLDER, configured_domains
from postmaster.explain.layout import printable
from postmaster.setup.programs import find_program, has_systemd, succeeds
from postmaster.signing_file import NotOurs, add_key, configured_elsewhere, lines_for, path_of

DEFAULT_KEYS = Path("/etc/mailward/keys")
MAX_STRING = 255  # octets in one string of a TXT record (RFC 1035 3.3.14)
EX_TEMPFAIL = 75
SIGNER = "mailward-dkim-sign.service"

_CONFIG = click.option(
    "--config", type=click.Path(path_type=Path), default=DEFAULT_PATH, show_default=True, help="The configuration."
)


@click.group(help="Make signing keys, print their DNS records, ask the DNS for them.")
def keys() -> None:
    """Hold the sub-commands."""


@keys.command(help="Make a signing key for DOMAIN, configure it, print its DNS record. No key is ever overwritten.")
@click.argument("domain", shell_complete=configured_domains)
@click.option("--selector", help="The selector; default: this month, and -ed for Ed25519.")
@click.option(
    "--rsa", "bits", type=click.Choice(["2048", "3072", "4096"]), help="An RSA key of that size; the default is 2048."
)
@click.option("--ed25519", is_flag=True, help="An Ed25519 key, to be used beside an RSA one.")
@click.option("--keys", "folder", type=FOLDER, default=DEFAULT_KEYS, show_default=True, help="Where keys are.")
@_CONFIG
@click.option("--no-config", "is_printed", is_flag=True, help="Print the lines for the configuration; write none.")
def new(
    domain: str, selector: str | None, bits: str | None, ed25519: bool, folder: Path, config: Path, is_printed: bool
) -> None:
    """Write the key and its configuration, then print the record and what is next."""
    if bits and ed25519:
        raise click.UsageError("--rsa and --ed25519 exclude each other: make two keys, with a selector each")
    domain = _name(domain, "DOMAIN")
    selector = _name(selector or _default_selector(ed25519), "--selector")
    if not str(folder).isprintable():
        raise click.UsageError("--keys: expected a path of printable characters")
    elsewhere = "" if is_printed or not config.exists() else configured_elsewhere(config, domain)
    key = generate_ed25519() if ed25519 else generate_rsa(int(bits or 2048))
    path = folder.absolute() / domain / f"{selector}.pem"
    access = _write(path, key)
    click.echo(f"; {path} written ({access})")
    click.echo("; The record for your zone:")
    click.echo(zone_record(selector, domain, key))
    if is_printed or elsewhere or not config.exists():
        why = (
            f"{domain} is configured in {printable(elsewhere)}, which is yours: add the key there" if elsewhere else ""
        )
        _print_lines(domain, selector, path, why)
    else:
        _configure(config, domain, selector, path)
    option = "" if config == DEFAULT_PATH else f" --config {printable(str(config))}"
    click.echo(f"; Next: put the record into the zone of {domain}; then: mailward keys verify {domain}{option}")


def _write(path: Path, key: PrivateKey) -> str:
    """Put the key on disk; return who can read it."""
    try:
        return write_key(path, key.to_pem())
    except KeyExists:
        raise click.ClickException(f"{path} exists and stays as it is; choose another --selector") from None
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from None


def _configure(config: Path, domain: str, selector: str, path: Path) -> None:
    """Write the key into conf.d, and let the signer know."""
    file = path_of(config, domain)
    try:
        add_key(file, domain, selector, path)
    except NotOurs:
        _print_lines(domain, selector, path, f"{file} is not as it was written here: add the key to it by hand")
    except OSError as error:
        _print_lines(domain, selector, path, f"{file} cannot be written: {error.strerror}")
        sys.exit(1)
    else:
        click.echo(f"; {file} written; {_reload_signer()}")


def _print_lines(domain: str, selector: str, path: Path, why: str) -> None:
    click.echo(f"; {why}." if why else "; For the configuration (conf.d/*.toml):")
    for line in lines_for(domain, selector, path).splitlines():
        click.echo(f"; {line}")


def _reload_signer() -> str:
    """Tell the signer to read its configuration where systemd runs it; return what came of it, in words."""
    systemctl = find_program("systemctl")
    if systemctl is None or not has_systemd() or not succeeds([systemctl, "is-active", "--quiet", SIGNER]):
        return "the signer reads it at its next start or HUP"
    if not succeeds([systemctl, "reload", SIGNER]):
        return f"the signer was not reloaded: run systemctl reload {SIGNER}"
    return "the signer reads it now"


@keys.command(help="Print the DNS records of the configured keys, or of DOMAIN's alone.")
@click.argument("domain", required=False, shell_complete=configured_domains)
@_CONFIG
def show(domain: str | None, config: Path) -> None:
    """Print each record as a line for a zone file."""
    broken = 0
    for ref, key in _configured_keys(structure(read_sections(config), Settings), domain):
        if isinstance(key, str):
            broken += 1
            click.echo(f"mailward: {ref.file}: {key}", err=True)
        else:
            click.echo(zone_record(ref.selector, ref.signing_domain, key))
    sys.exit(1 if broken else 0)


@keys.command(help="Ask the DNS whether the configured keys, or DOMAIN's alone, are published.")
@click.argument("domain", required=False, shell_complete=configured_domains)
@_CONFIG
def verify(domain: str | None, config: Path) -> None:
    """Print a line for each selector: its state, and what is wrong."""
    settings = structure(read_sections(config), Settings)
    resolver = Resolver(
        [nameserver(item) for item in settings.dns.nameservers], settings.dns.timeout, settings.dns.deadline
    )
    states = set()
    for ref, key in _configured_keys(settings, domain):
        if isinstance(key, str):
            state, reason = "unusable", key
        else:
            result = find_publication(ref.signing_domain, ref.selector, key, resolver.ask)
            state, reason = result.state.value, result.reason
        states.add(state)
        click.echo(f"{state:<10} {ref.selector}._domainkey.{ref.signing_domain}" + (f"  ({reason})" if reason else ""))
    if states - {Publication.PUBLISHED.value, Publication.UNKNOWN.value}:
        sys.exit(1)
    sys.exit(EX_TEMPFAIL if Publication.UNKNOWN.value in states else 0)


def zone_record(selector: str, domain: str, key: PrivateKey) -> str:
    """Return the TXT record as a line of a zone file, its text in strings of at most 255 octets."""
    text = key.record
    strings = [f'"{text[at : at + MAX_STRING]}"' for at in range(0, len(text), MAX_STRING)]
    value = strings[0] if len(strings) == 1 else "( " + "\n\t".join(strings) + " )"
    return f"{selector}._domainkey.{domain}. IN TXT {value}"


def _configured_keys(settings: Settings, domain: str | None) -> Iterator[tuple[KeyRef, PrivateKey | str]]:
    """Yield every key that signs, or why it cannot; each once, and only `domain`'s where one is given.

    A domain with no key of its own is shown those that sign for it: of a domain above, or of `*`.
    """
    policy = read_signing_policy(settings)
    wanted = _name(domain, "DOMAIN") if domain else ""
    refs = {ref: None for refs in policy.table.keys.values() for ref in refs if wanted in ("", ref.signing_domain)}
    if wanted and not refs:
        refs = dict.fromkeys(policy.table.lookup(wanted))
    if not refs:
        raise click.ClickException(f"no key is configured for {wanted}" if wanted else "no key is configured")
    for ref in refs:
        if not ref.signing_domain:
            yield ref, 'signs for any domain ("*"): its record belongs into each of their zones; name one to see it'
            continue
        try:
            yield ref, read_key(Path(ref.file))
        except KeyFileError as error:
            yield ref, str(error)


def _name(text: str, option: str) -> str:
    try:
        return normalize(text)
    except InvalidDomain as error:
        raise click.UsageError(f"{option}: expected a domain name ({error})") from None


def _default_selector(is_ed25519: bool) -> str:
    return datetime.date.today().strftime("%Y%m") + ("-ed" if is_ed25519 else "")
