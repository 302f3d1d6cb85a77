"""A message as the MTA hands it over: envelope and header fields, octet for octet. Nothing here interprets them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class HeaderField(NamedTuple):
    """One header field as it stands in the message.

    `raw_value` is everything after the colon: the leading space, folds as CRLF + white space, no final CRLF.
    A named tuple because a message has dozens and a frozen dataclass costs four times as much to make.
    """

    name: bytes
    raw_value: bytes

    @property
    def compared_name(self) -> bytes:
        """The name as names are compared: in lower case, without white space before the colon (RFC 5322 4.5.8).

        With it a stranger would write a From or an Authentication-Results field that only some programs take for one.
        """
        return self.name.rstrip(b" \t").lower()


def by_name(fields: Iterable[HeaderField]) -> dict[bytes, list[HeaderField]]:
    """Group fields by their lower-case names, each group in the order of the message."""
    groups: dict[bytes, list[HeaderField]] = {}
    for header_field in fields:
        name = header_field.name.lower()
        if name in groups:
            groups[name].append(header_field)
        else:
            groups[name] = [header_field]
    return groups


def pick_bottom_up(groups: Mapping[bytes, list[HeaderField]], names: Iterable[bytes]) -> list[HeaderField]:
    """Take from `groups` the instance each of `names` (lower case) stands for, the last one first (RFC 6376 5.4.2).

    A name that stands more often than its field occurs picks nothing: that is oversigning. What is picked leaves its
    group. One look at each name: thousands of header fields must not cost thousands times thousands.
    """
    picked = []
    for name in names:
        group = groups.get(name)
        if group:
            picked.append(group.pop())
    return picked


@dataclass(slots=True)
class Envelope:
    """SMTP's side of a message: who connected, who logged in, from whom, to whom.

    `client_address` is empty where there is no network client; `login` (SASL) is empty without authentication;
    `mail_from` is empty for the null sender. Addresses stand without their angle brackets.
    """

    client_address: str = ""
    client_name: str = ""
    daemon_name: str = ""
    helo: bytes = b""
    mail_from: bytes = b""
    rcpt_to: list[bytes] = field(default_factory=list)
    login: str = ""
    auth_type: str = ""


@dataclass(slots=True)
class Transaction:
    """What has been gathered of one message so far; `queue_id` is empty until Postfix has given one."""

    session_id: str
    envelope: Envelope
    header: list[HeaderField] = field(default_factory=list)
    queue_id: str = ""
