"""`[dkim-sign]`: what is signed, for whom, with which keys."""

from __future__ import annotations

import ipaddress
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
from mailward.settings.common import Service, Shared, at_least, at_most, one_of
from mailward.settings.values import DomainName, Duration, NetworkList, Port, SocketAddress

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
    """One entry of `keys`: the selector, the PEM file, and the `d=` where it is not the domain's own name."""

    selector: DomainName
    file: Path = attrs.field(validator=_check_key_file)
    domain: DomainName | None = None


@attrs.frozen
class Domain:
    """`[[dkim-sign.domain]]`: an author domain (`*` for all that are not named) and its keys."""

    name: str = attrs.field(validator=_check_pattern)
    keys: tuple[Key, ...] = attrs.field(validator=_check_keys)
    subdomains: bool = False


@attrs.frozen(kw_only=True)
class DkimSign(Service):
    """`[dkim-sign]`; the field lists replace the defaults of mailward.auth.dkim_sign.SIGNED_FIELDS."""

    socket: SocketAddress = SocketAddress("/var/spool/postfix/mailward/dkim-sign.sock", "", 0)
    metrics: Port | None = Port("127.0.0.1", 9461)
    networks: NetworkList = NetworkList((ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1")))
    domain: tuple[Domain, ...] = ()
    table: Path | None = None
    logins: Path | None = None
    canonicalization: str = attrs.field(default="relaxed/relaxed", validator=one_of(*_FORMS))
    oversigned: tuple[str, ...] = attrs.field(
        default=SigningRules().oversigned, validator=[_check_names, _check_oversigned]
    )
    oversigned_if_present: tuple[str, ...] = attrs.field(
        default=SigningRules().oversigned_if_present, validator=_check_names
    )
    signed: tuple[str, ...] = attrs.field(default=SigningRules().signed, validator=_check_names)
    expire: Duration = attrs.field(default=Duration(0), validator=at_least(0, "0s"))
    key_cache: int = attrs.field(default=10_000, validator=at_least(1, "1"))
    publication_interval: Duration = attrs.field(
        default=Duration(300.0), validator=[at_least(1, "1s"), at_most(7 * 86400, "1w")]
    )
    on_key_error: str = attrs.field(default="tempfail", validator=one_of("tempfail", "accept"))

    def rules(self) -> SigningRules:
        """Return what the signatures cover."""
        header, _, body = self.canonicalization.partition("/")
        return SigningRules(
            Canonicalizations(Canonicalization(header), Canonicalization(body)),
            self.oversigned,
            self.oversigned_if_present,
            self.signed,
            int(self.expire),
        )


@attrs.frozen(kw_only=True)
class Settings(Shared):
    """The configuration as the signer sees it."""

    dkim_sign: DkimSign = attrs.field(default=DkimSign(), metadata={"key": "dkim-sign"})
