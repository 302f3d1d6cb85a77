"""Which requests a limit is about: patterns for Postfix's attributes, compiled into sets. Pure.

    alice@example.com   this value, in upper or lower case
    @example.com        for addresses and logins: everything of this domain
    192.0.2.0/24        for client_address and server_address: this network, or one address
    *                   any value but none
    (nothing)           no value
    !...                not what stands behind it

An attribute matches where one of its patterns does and none with "!" does; with patterns of "!" alone, where none does. Every
attribute that is named has to match.

A routed address (`box%example.org@localhost`, mailward.policy.routes) is told from what it may mean: a pattern matches where it
matches any of that, and one with "!" only where it is the very address. No domain behind a "!" lets one pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mailward.model.domain import InvalidDomain, normalize
from mailward.model.greylist import EntryKind
from mailward.policy.owners import Address, account_of, domain_of_account, read_address
from mailward.policy.subjects import Subjects, compile_subjects, normalize_subject, read_listed_client, which

MAX_PATTERN = 320
LOGIN = "sasl_username"
ADDRESSES = ("sender", "recipient")
NEVER = "\n"  # a pattern that no value is like: what an empty list file says
CLIENTS = ("client_address", "server_address")

# Every attribute of Postfix 2.1 to 3.12: with a name that is none of them, a limit would never match.
ATTRIBUTES = (
    *("protocol_state", "protocol_name", "helo_name", "queue_id", "sender", "recipient", "recipient_count"),
    *("client_address", "client_name", "reverse_client_name", "client_port", "server_address", "server_port"),
    *("sasl_method", "sasl_username", "sasl_sender", "size", "instance", "etrn_domain", "stress", "policy_context"),
    *("ccert_subject", "ccert_issuer", "ccert_fingerprint", "ccert_pubkey_fingerprint"),
    *(
        "encryption_protocol",
        "encryption_cipher",
        "encryption_keysize",
        "compatibility_level",
        "mail_version",
        "tls_sni",
    ),
)


@dataclass(frozen=True, slots=True)
class _Patterns:
    """Patterns of one attribute: with "!" or without."""

    exact: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()
    networks: Subjects | None = None
    is_any: bool = False


@dataclass(frozen=True, slots=True)
class _Condition:
    attribute: str
    wanted: _Patterns
    unwanted: _Patterns
    has_wanted: bool
    has_unwanted: bool

    def matches(self, value: str) -> bool:
        if self.has_unwanted and _is_among(self.attribute, value, self.unwanted, is_wanted=False):
            return False
        return not self.has_wanted or _is_among(self.attribute, value, self.wanted, is_wanted=True)


@dataclass(frozen=True, slots=True)
class Match:
    """What a request has to be like."""

    conditions: tuple[_Condition, ...] = ()

    def matches(self, request: Mapping[str, str]) -> bool:
        """Say whether a request is like that; an attribute that it does not have is empty."""
        for condition in self.conditions:  # noqa: SIM110 - all() costs 0.4 us
            if not condition.matches(request.get(condition.attribute, "")):
                return False
        return True

    def needs(self, attribute: str) -> bool:
        """Say whether a request without a value for this attribute means nothing to it."""
        return any(
            condition.attribute == attribute and "" not in condition.wanted.exact for condition in self.conditions
        )

    def allows(self, attribute: str, value: str) -> bool:
        """Say whether this attribute may have this value."""
        return all(condition.matches(value) for condition in self.conditions if condition.attribute == attribute)


EVERYTHING = Match()


def compile_match(patterns: Mapping[str, Sequence[str]]) -> Match:
    """Compile what was said of each attribute; list files have been read. Raises ValueError that says what was expected."""
    return Match(tuple(_compile(attribute, texts) for attribute, texts in patterns.items()))


def _compile(attribute: str, texts: Sequence[str]) -> _Condition:
    unwanted = [text[1:] for text in texts if text.startswith("!")]
    wanted = [text for text in texts if not text.startswith("!")]
    return _Condition(
        attribute, _patterns(attribute, wanted), _patterns(attribute, unwanted), bool(wanted), bool(unwanted)
    )


def _patterns(attribute: str, texts: Sequence[str]) -> _Patterns:
    normal = [normalize_pattern(attribute, text) for text in texts]
    is_client = attribute in CLIENTS
    networks = [text for text in normal if is_client and text not in ("", "*", NEVER)]
    has_domains = attribute == LOGIN or attribute in ADDRESSES
    return _Patterns(
        frozenset(
            text for text in normal if text != "*" and text not in networks and not (has_domains and text[:1] == "@")
        ),
        frozenset(text[1:] for text in normal if has_domains and text[:1] == "@"),
        compile_subjects((EntryKind.NETWORK, text) for text in networks) if networks else None,
        "*" in normal,
    )


def normalize_pattern(attribute: str, text: str) -> str:
    """Return a pattern without its "!" in its one form. Raises ValueError that says what was expected."""
    if len(text) > MAX_PATTERN:
        raise ValueError(f"expected at most {MAX_PATTERN} characters")
    if text in ("", "*", NEVER):
        return text
    if attribute in CLIENTS:
        return normalize_subject(EntryKind.NETWORK, text)
    if attribute != LOGIN and attribute not in ADDRESSES:
        return text.lower()
    if text.startswith("@"):
        try:
            return "@" + normalize(text[1:])
        except InvalidDomain as error:
            raise ValueError(f'expected "@" and a domain ({error})') from None
    if attribute == LOGIN:
        return account_of(text)
    if "@" not in text:
        raise ValueError('expected an address, or "@" and a domain')
    return read_address(text).exact


def _is_among(attribute: str, value: str, patterns: _Patterns, *, is_wanted: bool) -> bool:
    if not value:
        return "" in patterns.exact
    if patterns.is_any:
        return True
    if attribute == LOGIN:
        account = account_of(value)
        return account in patterns.exact or (bool(patterns.domains) and domain_of_account(account) in patterns.domains)
    if attribute in ADDRESSES:
        address = read_address(value)
        if address.exact in patterns.exact or address.plain in patterns.exact:
            return True
        if address.is_routed:
            return is_wanted and _may_be_among(address, patterns)
        return address.domain in patterns.domains
    if patterns.networks is not None:
        return which(patterns.networks, read_listed_client(value, ""), (), ()) is not None
    return value.lower() in patterns.exact


def _may_be_among(address: Address, patterns: _Patterns) -> bool:
    if address.is_unclear:
        return bool(patterns.domains) or any("@" in text for text in patterns.exact)
    return any(domain in patterns.domains for domain in address.domains) or any(
        way in patterns.exact for way in address.ways
    )
