"""Who passes without greylisting: what the configuration names, the list of non-retriers, the operator's live entries. No I/O.

Compiled once: a recipient that is in none of many hundred entries costs 5 us, and half of that where its addresses come again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from mailward.model.greylist import Entry, EntryKind
from mailward.policy.networks import Network
from mailward.policy.subjects import (
    Subjects,
    compile_subjects,
    forms_of,
    normalize_subject,
    read_listed_client,
    unite,
    which,
)


class Exemption(Enum):
    """Why a recipient is not greylisted. The words of the log and of the counter's label."""

    AUTHENTICATED = "authenticated"
    NETWORK = "network"
    NAME = "name"
    SENDER = "sender"
    RECIPIENT = "recipient"
    NON_RETRIER = "non-retrier"
    ALLOWED = "allowed"  # by an entry of the operator's


class Standing(NamedTuple):
    """What the lists say of one recipient of one client.

    `is_denied`: an entry of the operator's says that neither a list nor what is remembered of the origin or of the sender
    lets it pass, only the triplet's own retry (Windows.passes_to_whitelist 0, and nobody vouched for).
    """

    exemption: Exemption | None = None
    is_denied: bool = False


ORDINARY = Standing()
DENIED = Standing(None, is_denied=True)


@dataclass(frozen=True, slots=True)
class Exemptions:
    """The lists, compiled. `unreadable` are the live entries that say nothing, since somebody else wrote them."""

    _configured: Subjects = Subjects()
    _non_retriers: Subjects = Subjects()
    _allowed: Subjects = Subjects()
    _denied: Subjects = Subjects()
    _any: Subjects = Subjects()  # all of them: whoever is not in it is in none, and needs one look instead of four
    unreadable: tuple[Entry, ...] = ()

    def find(
        self, client_address: str, client_name: str, mail_from: bytes, rcpt_to: bytes, *, is_authenticated: bool = False
    ) -> Standing:
        """Return whether one recipient of a client passes at once, and why.

        `client_name` is the name that Postfix has confirmed, or whatever it says where there is none. Who is authenticated
        passes whatever else is said (RFC 6647 5: mail programs are not greylisted). After that a denial wins over all
        that lets pass, were it more exact: who denies a network and allows one address in it must deny less.
        """
        if is_authenticated:
            return Standing(Exemption.AUTHENTICATED)
        client = read_listed_client(client_address, client_name)
        sender, recipient = forms_of(mail_from), forms_of(rcpt_to)
        if which(self._any, client, sender, recipient) is None:
            return ORDINARY
        if which(self._denied, client, sender, recipient) is not None:
            return DENIED
        configured = which(self._configured, client, sender, recipient)
        if configured is not None:
            return Standing(_EXEMPTION_OF[configured])
        if which(self._allowed, client, sender, recipient) is not None:
            return Standing(Exemption.ALLOWED)
        if which(self._non_retriers, client, (), ()) is not None:
            return Standing(Exemption.NON_RETRIER)
        return ORDINARY

    def with_entries(self, entries: Iterable[Entry]) -> Exemptions:
        """Return these lists with the operator's live entries instead of those that were there; `until` is the caller's."""
        allowed: list[tuple[EntryKind, str]] = []
        denied: list[tuple[EntryKind, str]] = []
        unreadable = []
        for entry in entries:
            try:
                subject = normalize_subject(entry.kind, entry.subject)
            except ValueError:
                unreadable.append(entry)
                continue
            (allowed if entry.is_allowed else denied).append((entry.kind, subject))
        lists = (self._configured, self._non_retriers, compile_subjects(allowed), compile_subjects(denied))
        return Exemptions(*lists, unite(lists), tuple(unreadable))


def compile_exemptions(
    networks: Iterable[Network] = (),
    names: Iterable[str] = (),
    senders: Iterable[str] = (),
    recipients: Iterable[str] = (),
    non_retrier_networks: Iterable[Network] = (),
    non_retrier_names: Iterable[str] = (),
) -> Exemptions:
    """Compile what the configuration names. Raises ValueError that says what was expected.

    >>> exemptions = compile_exemptions(recipients=["postmaster@", "test.example"])
    >>> exemptions.find("192.0.2.1", "unknown", b"", b"Postmaster@example.com").exemption
    <Exemption.RECIPIENT: 'recipient'>
    """
    configured = [
        *((EntryKind.NETWORK, str(network)) for network in networks),
        *((EntryKind.NAME, normalize_subject(EntryKind.NAME, name)) for name in names),
        *((EntryKind.SENDER, normalize_subject(EntryKind.SENDER, sender)) for sender in senders),
        *((EntryKind.RECIPIENT, normalize_subject(EntryKind.RECIPIENT, recipient)) for recipient in recipients),
    ]
    non_retriers = [
        *((EntryKind.NETWORK, str(network)) for network in non_retrier_networks),
        *((EntryKind.NAME, normalize_subject(EntryKind.NAME, name)) for name in non_retrier_names),
    ]
    lists = (compile_subjects(configured), compile_subjects(non_retriers))
    return Exemptions(*lists, _any=unite(lists))


_EXEMPTION_OF = {
    EntryKind.NETWORK: Exemption.NETWORK,
    EntryKind.NAME: Exemption.NAME,
    EntryKind.SENDER: Exemption.SENDER,
    EntryKind.RECIPIENT: Exemption.RECIPIENT,
}
