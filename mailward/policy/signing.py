"""Which keys sign a message, and why none does. No I/O: tables, rights and the state of keys are values.

The order of the questions: may this client have mail signed at all; whose message is it; may this login speak for that
domain; which keys does the domain have. The state of the published records then picks among those keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from mailward.model.domain import parents
from mailward.model.message import Envelope
from mailward.model.results import Publication
from mailward.policy.networks import Network, is_in_networks

MAX_SIGNATURES = 16  # on one message; verifiers stop at fewer


class Unsigned(Enum):
    """Why a message is not signed; the words of the log and of the counter's label."""

    NOT_OURS = "not-authenticated"  # neither logged in nor in a listed network
    NO_AUTHOR = "no-author"  # no From field, or one without an address
    MALFORMED_FROM = "malformed-from"
    SEVERAL_FROM = "several-from-fields"
    NO_RIGHT = "no-right-for-domain"  # the login may not sign for the author domain
    NO_KEY = "no-key-for-domain"


class KeyRef(NamedTuple):
    """Where a key is and under which names it signs; `signing_domain` is empty where it is the author domain itself.

    A tuple: a hoster's table holds ten thousand of them.
    """

    signing_domain: str
    selector: str
    file: str


@dataclass(frozen=True, slots=True)
class SigningTable:
    """The keys of each author domain. A name is a domain, `.domain` for what is below it, or `*` for all the rest."""

    keys: Mapping[str, tuple[KeyRef, ...]]

    def lookup(self, author_domain: str) -> tuple[KeyRef, ...]:
        """Return the keys of the most specific name that matches; as many look-ups as the domain has labels."""
        name = self.name_of(author_domain)
        found = self.keys[name] if name else ()
        if all(key.signing_domain for key in found):
            return found
        return tuple(key._replace(signing_domain=key.signing_domain or author_domain) for key in found)

    def name_of(self, author_domain: str) -> str:
        """Return the most specific name that matches; empty where none does."""
        names = (author_domain, *("." + parent for parent in parents(author_domain)), "*")
        return next((name for name in names if name in self.keys), "")


def fold_login(login: str) -> str:
    """Fold the ASCII letters of a login and no others: Unicode has letters whose lower case is an ASCII one.

    >>> fold_login("Kate@Example.COM"), fold_login("\u212aate@example.com") == "kate@example.com"
    ('kate@example.com', False)
    """
    return login.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True)
class Rights:
    """Which login may sign for which author domains.

    Keys are logins, or `@domain` for every login of a domain. A domain in the values stands for itself and all below it,
    since whoever may speak for a domain owns its subdomains; `*` stands for every domain.
    """

    domains_of_login: Mapping[str, frozenset[str]]

    def permit(self, login: str, author_domain: str) -> bool:
        """Say whether `login` (as SASL gave it) may sign for the domain."""
        login = fold_login(login)
        _, at, login_domain = login.rpartition("@")
        for subject in (login, at + login_domain) if at else (login,):
            names = self.domains_of_login.get(subject, frozenset())
            if "*" in names or author_domain in names or any(parent in names for parent in parents(author_domain)):
                return True
        return False


@dataclass(frozen=True, slots=True)
class Selection:
    """The keys a message is signed with, or why it is not."""

    keys: tuple[KeyRef, ...]
    unsigned: Unsigned | None = None


@dataclass(frozen=True, slots=True)
class SigningPolicy:
    """What the operator configured; `rights` is None where every login may sign for every domain."""

    table: SigningTable
    networks: tuple[Network, ...]
    rights: Rights | None = None

    def accepts_client(self, envelope: Envelope) -> bool:
        """Say whether the client's mail is signed: it logged in, or comes from a listed network.

        A client whose address is unknown is in no network.
        """
        if envelope.login:
            return True
        return is_in_networks(envelope.client_address, self.networks)


def select(policy: SigningPolicy, envelope: Envelope, author_domains: Sequence[str]) -> Selection:
    """Choose the keys for a message whose client was accepted.

    With several author domains the login needs the right for each, and each that has keys signs.
    """
    if not author_domains:
        return Selection((), Unsigned.NO_AUTHOR)
    if envelope.login and policy.rights is not None:
        for domain in author_domains:
            if not policy.rights.permit(envelope.login, domain):
                return Selection((), Unsigned.NO_RIGHT)
    keys: dict[KeyRef, None] = {}
    for domain in author_domains:
        keys.update(dict.fromkeys(policy.table.lookup(domain)))
    if not keys:
        return Selection((), Unsigned.NO_KEY)
    return Selection(tuple(keys)[:MAX_SIGNATURES])


class Choice(NamedTuple):
    """The keys that sign, and the signing domains none of whose keys is known to be published."""

    keys: tuple[KeyRef, ...]
    unpublished_domains: tuple[str, ...]


def choose_published(keys: Sequence[KeyRef], state_of: Callable[[KeyRef], Publication]) -> Choice:
    """Let a key whose record is missing or different step back while another key of its domain is good.

    Where none is good the domain's first key signs all the same: mail is never unsigned because of the DNS.
    """
    by_domain: dict[str, list[KeyRef]] = {}
    for key in keys:
        by_domain.setdefault(key.signing_domain, []).append(key)
    chosen: list[KeyRef] = []
    unpublished = []
    for domain, candidates in by_domain.items():
        good = [key for key in candidates if state_of(key) in (Publication.PUBLISHED, Publication.UNKNOWN)]
        if not good:
            unpublished.append(domain)
        chosen += good or candidates[:1]
    return Choice(tuple(chosen), tuple(unpublished))
