"""The domains of the mail tests, their keys, and what DNS and the daemon's configuration say of them."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.support.nameserver import txt_record

RSA_BITS = 2048


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature that mail of a domain gets: the key, and the d= it is published under."""

    selector: str
    algorithm: str  # as in a=: "rsa-sha256" or "ed25519-sha256"
    signing_domain: str


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain of our customers, with the signatures its mail gets, topmost first."""

    name: str
    signatures: tuple[Signature, ...]
    has_subdomains: bool = False
    is_in_table: bool = False  # in the signing table, not in the TOML


@dataclass(frozen=True, slots=True)
class Key:
    """A private key on disk, and the TXT record of its public half."""

    domain: Domain
    signature: Signature
    file: Path
    record: str


RSA, ED25519 = "rsa-sha256", "ed25519-sha256"
EXAMPLE_COM = Domain(
    "example.com",
    (Signature("2026a", RSA, "example.com"), Signature("2026a-ed", ED25519, "example.com")),
    has_subdomains=True,
)
EXAMPLE_ORG = Domain("example.org", (Signature("s1", RSA, "example.org"),))
BUECHER = Domain("xn--bcher-kva.example", (Signature("2026a", RSA, "xn--bcher-kva.example"),))
HOSTED = Domain("hosted.example", (Signature("own", RSA, "hosted.example"), Signature("p1", RSA, "provider.example")))
TABLED = Domain("tabled.example", (Signature("t1", RSA, "tabled.example"),), is_in_table=True)
DOMAINS = (EXAMPLE_COM, EXAMPLE_ORG, BUECHER, HOSTED, TABLED)


def make_keys(folder: Path, domains: Iterable[Domain]) -> list[Key]:
    """Make a key pair for every signature of every domain."""
    folder.mkdir()
    return [make_key(folder, domain, signature) for domain in domains for signature in domain.signatures]


def make_key(folder: Path, domain: Domain, signature: Signature) -> Key:
    """Make one key pair; the private half goes into a file of mode 0600."""
    private: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
    if signature.algorithm == ED25519:
        private = ed25519.Ed25519PrivateKey.generate()
        # RFC 8463 4.2: the bare 32 octets, not the SubjectPublicKeyInfo that RSA has.
        public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        kind = "ed25519"
    else:
        private = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
        public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        kind = "rsa"
    file = folder / f"{signature.signing_domain}.{signature.selector}.pem"
    file.touch(mode=0o600)
    file.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    record = f"v=DKIM1; k={kind}; p={base64.b64encode(public).decode()}"
    return Key(domain, signature, file, record)


def zones_of(keys: Sequence[Key]) -> dict[str, str]:
    """Return a zone for every signing domain, with its keys' records."""
    zones: dict[str, str] = {}
    for key in keys:
        record = txt_record(f"{key.signature.selector}._domainkey", key.record)
        zone = key.signature.signing_domain
        zones[zone] = zones.get(zone, "") + record + "\n"
    return zones


def configuration_of(keys: Sequence[Key]) -> str:
    """Return the `[[dkim-sign.domain]]` tables."""
    text = ""
    for domain in DOMAINS:
        if not domain.is_in_table:
            own = ", ".join(key_entry(key) for key in keys if key.domain == domain)
            text += f'\n[[dkim-sign.domain]]\nname = "{domain.name}"\n'
            text += f"subdomains = {str(domain.has_subdomains).lower()}\nkeys = [ {own} ]\n"
    return text


def key_entry(key: Key) -> str:
    """Return one entry of a domain's `keys`."""
    entry = f'selector = "{key.signature.selector}", file = "{key.file}"'
    if key.signature.signing_domain != key.domain.name:
        entry += f', domain = "{key.signature.signing_domain}"'
    return f"{{ {entry} }}"


def table_of(keys: Sequence[Key]) -> str:
    """Return the lines of the signing table."""
    return "".join(f"{key.domain.name} {key.signature.selector} {key.file}\n" for key in keys if key.domain.is_in_table)
