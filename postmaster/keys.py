"""`mailward keys`: make signing keys, print their DNS records, ask the DNS for them."""

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

DEFAULT_KEYS = Path("/etc/mailward/keys")
MAX_STRING = 255  # octets in one string of a TXT record (RFC 1035 3.3.14)
EX_TEMPFAIL = 75

_CONFIG = click.option(
    "--config", type=click.Path(path_type=Path), default=DEFAULT_PATH, show_default=True, help="The configuration."
)


@click.group(help="Make signing keys, print their DNS records, ask the DNS for them.")
def keys() -> None:
    """Hold the sub-commands."""


@keys.command(help="Make a signing key for DOMAIN and print its DNS record. An existing key is never overwritten.")
@click.argument("domain")
@click.option("--selector", help="The selector; default: this month, and -ed for Ed25519.")
@click.option(
    "--rsa", "bits", type=click.Choice(["2048", "3072", "4096"]), help="An RSA key of that size; the default is 2048."
)
@click.option("--ed25519", is_flag=True, help="An Ed25519 key, to be used beside an RSA one.")
@click.option(
    "--keys", "folder", type=click.Path(path_type=Path), default=DEFAULT_KEYS, show_default=True, help="Where keys are."
)
def new(domain: str, selector: str | None, bits: str | None, ed25519: bool, folder: Path) -> None:
    """Write the key, then print record and configuration."""
    if bits and ed25519:
        raise click.UsageError("--rsa and --ed25519 exclude each other: make two keys, with a selector each")
    domain = _name(domain, "DOMAIN")
    selector = _name(selector or _default_selector(ed25519), "--selector")
    key = generate_ed25519() if ed25519 else generate_rsa(int(bits or 2048))
    path = folder / domain / f"{selector}.pem"
    try:
        access = write_key(path, key.to_pem())
    except KeyExists:
        raise click.ClickException(f"{path} exists and stays as it is; choose another --selector") from None
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from None
    click.echo(f"; {path} written ({access})")
    click.echo("; The record for your zone:")
    click.echo(zone_record(selector, domain, key))
    click.echo("; For the configuration (conf.d/*.toml); the signer uses the key once its record is published:")
    click.echo(
        f'; [[dkim-sign.domain]]\n; name = "{domain}"\n; keys = [ {{ selector = "{selector}", file = "{path}" }} ]'
    )


@keys.command(help="Print the DNS records of the configured keys, or of DOMAIN's alone.")
@click.argument("domain", required=False)
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
@click.argument("domain", required=False)
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
    """Yield every key that signs, or why it cannot; each once, and only `domain`'s where one is given."""
    policy = read_signing_policy(settings)
    wanted = _name(domain, "DOMAIN") if domain else ""
    refs = {ref: None for refs in policy.table.keys.values() for ref in refs if wanted in ("", ref.signing_domain)}
    if not refs:
        raise click.ClickException(f"no key is configured for {wanted}" if wanted else "no key is configured")
    for ref in refs:
        if not ref.signing_domain:
            yield ref, 'signs for any domain ("*"): its record belongs into each of their zones'
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
