"""Postfix's policy protocol (SMTPD_POLICY_README): octets in, requests out. No I/O.

A request is lines `name=value`, ended by an empty one; the reply is `action=...` and an empty line. Postfix asks one question at
a time on a connection and leaves it open. Which attributes there are depends on its version: unknown ones are ignored, absent
ones are as good as empty. Whatever is wrong is a ProtocolError: the connection is to be closed without a reply, for a
stranger's next octets cannot be told from a request's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from mailward.model.errors import ProtocolError

MAX_REQUEST = 16 * 1024  # octets; Postfix sends about 1 kB, and an address has at most some hundred
MAX_ATTRIBUTES = 100  # Postfix 3.12 sends 37

Attributes = Mapping[str, str]

_UNPRINTABLE = re.compile("[^ -~]")


class RequestReader:
    """Puts one connection's octets together to requests."""

    def __init__(self) -> None:
        self._pending = b""

    @property
    def is_between_requests(self) -> bool:
        """Whether nothing has come of a next request."""
        return not self._pending

    def feed(self, octets: bytes) -> list[Attributes]:
        """Take what has arrived and return the requests that are whole now. Raises ProtocolError."""
        pending = self._pending + octets if self._pending else octets
        requests = []
        while (end := pending.find(b"\n\n")) >= 0:
            if end > MAX_REQUEST:
                break
            requests.append(read_request(pending[:end]))
            pending = pending[end + 2 :]
        if len(pending) > MAX_REQUEST:
            raise ProtocolError(f"a request of more than {MAX_REQUEST} octets")
        if pending.startswith(b"\n"):
            raise ProtocolError("a request without attributes")
        self._pending = pending
        return requests


def read_request(lines: bytes) -> Attributes:
    r"""Read one request without its empty line. What is no UTF-8 comes as surrogates. Raises ProtocolError.

    >>> read_request(b"request=smtpd_access_policy\nsender=a=b@example.com")["sender"]
    'a=b@example.com'
    """
    if b"\0" in lines:  # Postfix says that there never is one
        raise ProtocolError("a NUL in a request")
    texts = lines.decode("utf-8", "surrogateescape").split("\n")
    if len(texts) > MAX_ATTRIBUTES:
        raise ProtocolError(f"more than {MAX_ATTRIBUTES} attributes")
    attributes = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ProtocolError("a line without an equals sign")
        attributes[name] = value
    if attributes.get("request") != "smtpd_access_policy":
        raise ProtocolError("expected request=smtpd_access_policy")
    return attributes


def reply(action: str) -> bytes:
    r"""Return the reply with an action: one line of printable ASCII, whatever it holds.

    >>> reply("DEFER wait\n\naction=OK")
    b'action=DEFER wait??action=OK\n\n'
    """
    return b"action=" + _UNPRINTABLE.sub("?", action).encode("ascii") + b"\n\n"
