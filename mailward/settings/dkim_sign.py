"""`[dkim-sign]`: what is signed, for whom, with which keys."""

from __future__ import annotations

import ipaddress
import math
import re
from pathlib import Path
from typing import Any

import attrs

from mailward.adapters.key_files import KeyFileError, check_access
from mailward.auth.body_hash import Canonicalization
from mailward.auth.dkim import Canonicalizations
from mailward.auth.dkim_sign import NEVER_SIGNED, SigningRules
from mailward.model.domain import InvalidDomain
from mailward.policy.signing_table import normalize_pattern
from mailward.settings.common import METRICS, SOCKET, Service, Shared, at_least, at_most, one_of
from mailward.settings.values import DomainName, Duration, NetworkList, Port, SocketAddress
from mailward.settings.words import says

# With millions of years x= would have more than the 12 digits that verifiers take (RFC 6376 3.5).
MAX_EXPIRE_DAYS = 3650

_FORMS = tuple(f"{header.value}/{body.value}" for header in Canonicalization for body in Canonicalization)


def _check_names(_instance: object, attribute: attrs.Attribute[Any], names: tuple[str, ...]) -> None:
    for name in names:
        body = name.removesuffix("*") if attribute.name == "signed" else name
        if not re.fullmatch("[!#-)+-9<-@\\[-~]+", body):
            raise ValueError(f'expected names of header fields in lower case, found "{name}"')
        if name.startswith(NEVER_SIGNED) or (name != body and any(never.startswith(body) for never in NEVER_SIGNED)):
            raise ValueError(f'"{name}" changes on the way, a signature over it breaks (RFC 6376 5.4.1)')


def _check_oversigned(_instance: object, _attribute: object, names: tuple[str, ...]) -> None:
    if "from" not in names:
        raise ValueError('expected "from" among them (RFC 6376 5.4: From is always signed)')


def _check_pattern(_instance: object, _attribute: object, name: str) -> None:
    try:
        normalize_pattern(name)
    except InvalidDomain as error:
        raise ValueError(f'expected a domain name or "*" ({error})') from None


def _check_keys(_instance: object, _attribute: object, keys: tuple[Key, ...]) -> None:
    if not keys:
        raise ValueError("expected at least one key")


def _check_key_file(_instance: object, _attribute: object, path: Path) -> None:
    try:
        check_access(path)
    except KeyFileError as error:
        raise ValueError(f"{path}: {error}") from None


@attrs.frozen
class Key:
    """One entry of `keys`."""

    selector: DomainName = attrs.field(metadata=says("The selector under which the public half is published."))
    file: Path = attrs.field(
        validator=_check_key_file,
        metadata=says("The private key, PEM, RSA or Ed25519. Others than its owner and group must not read it."),
    )
    domain: DomainName | None = attrs.field(
        default=None, metadata=says("The d= of the signature, where it is not the domain's own name.")
    )


@attrs.frozen
class Domain:
    """`[[dkim-sign.domain]]`: an author domain and its keys."""

    name: str = attrs.field(
        validator=_check_pattern, metadata=says('An author domain, or `"*"` for all that are not named.')
    )
    keys: tuple[Key, ...] = attrs.field(
        validator=_check_keys,
        metadata=says("A list of keys, each of which makes a signature: RSA, and Ed25519 beside it."),
    )
    subdomains: bool = attrs.field(
        default=False, metadata=says("`true`: these keys sign for what is below `name`, too.")
    )


@attrs.frozen(kw_only=True)
class DkimSign(Service):
    """`[dkim-sign]`; the field lists replace the defaults of mailward.auth.dkim_sign.SIGNED_FIELDS."""

    socket: SocketAddress = attrs.field(
        default=SocketAddress("/var/spool/postfix/mailward/dkim-sign.sock", "", 0), metadata=SOCKET
    )
    metrics: Port | None = attrs.field(default=Port("127.0.0.1", 9461), metadata=METRICS)
    networks: NetworkList = attrs.field(
        default=NetworkList((ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1"))),
        metadata=says("Clients whose mail is signed without authentication."),
    )
    domain: tuple[Domain, ...] = attrs.field(
        default=(),
        metadata=says(
            "Whose mail is signed, and with which keys. `mailward keys new` makes them.",
            example="""
            [[dkim-sign.domain]]
            name = "example.com"
            keys = [ { selector = "2026a", file = "/etc/mailward/keys/example.com/2026a.pem" },
                     { selector = "2026a-ed", file = "/etc/mailward/keys/example.com/2026a-ed.pem" } ]
            """,
        ),
    )
    table: Path | None = attrs.field(
        default=None,
        metadata=says(
            """A file for many domains; each line: PATTERN SELECTOR KEYFILE [SIGNING-DOMAIN]. PATTERN is a domain,
            `.domain` for all below it, or `*`. The most specific pattern wins, several lines with one make several
            signatures. Keys are read at first use.""",
            example='"/etc/mailward/signing-table"',
        ),
    )
    logins: Path | None = attrs.field(
        default=None,
        metadata=says(
            """A file; each line: LOGIN DOMAIN... . With it, a login may have mail signed only for those author domains
            and what is below them. LOGIN is a SASL login, or `@domain` for all logins of that domain; DOMAIN may be
            `*`. Without it, who has logged in may have mail signed for every domain that has keys.""",
            example='"/etc/mailward/signing-logins"',
        ),
    )
    canonicalization: str = attrs.field(
        default="relaxed/relaxed",
        validator=one_of(*_FORMS),
        metadata=says("The form in which header and body are signed: each `relaxed` or `simple` (RFC 6376 3.4)."),
    )
    oversigned: tuple[str, ...] = attrs.field(
        default=SigningRules().oversigned,
        validator=[_check_names, _check_oversigned],
        metadata=says(
            "Header fields signed once more than the message has them: nobody can add one that readers would see instead."
        ),
    )
    oversigned_if_present: tuple[str, ...] = attrs.field(
        default=SigningRules().oversigned_if_present,
        validator=_check_names,
        metadata=says("The same for those that the message has; where it has none, a mailing list may add its own."),
    )
    signed: tuple[str, ...] = attrs.field(
        default=SigningRules().signed,
        validator=_check_names,
        metadata=says("Header fields signed as they are; `name-*` stands for all that begin so."),
    )
    expire: Duration = attrs.field(
        default=Duration(0),
        validator=at_most(MAX_EXPIRE_DAYS * 86400, f"{MAX_EXPIRE_DAYS}d"),
        metadata=says("How long a signature holds (x=). `0s`: it says nothing of that.", example='"14d"'),
    )
    key_cache: int = attrs.field(
        default=10_000,
        validator=at_least(1, "1"),
        metadata=says("How many keys each worker keeps once it has read them."),
    )
    publication_interval: Duration = attrs.field(
        default=Duration(300.0),
        validator=[at_least(1, "1s"), at_most(7 * 86400, "1w")],
        metadata=says("How often the DNS is asked whether a key that is used is still published."),
    )
    on_key_error: str = attrs.field(
        default="tempfail",
        validator=one_of("tempfail", "accept"),
        metadata=says(
            "What happens to a message when no key of its domain can be read any more; `accept`: it goes unsigned."
        ),
    )

    def rules(self) -> SigningRules:
        """Return what the signatures cover."""
        header, _, body = self.canonicalization.partition("/")
        return SigningRules(
            Canonicalizations(Canonicalization(header), Canonicalization(body)),
            self.oversigned,
            self.oversigned_if_present,
            self.signed,
            math.ceil(self.expire),
        )


@attrs.frozen(kw_only=True)
class Settings(Shared):
    """The configuration as the signer sees it."""

    dkim_sign: DkimSign = attrs.field(
        default=DkimSign(),
        metadata=says("mailward-dkim-sign(8): what is signed, for whom, with which keys.", key="dkim-sign"),
    )
