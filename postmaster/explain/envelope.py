"""Who sent a stored message: told by options, else read from the fields that our own servers put on top.

Only what is above the sender's own header can be believed, and a file does not say where that ends. So the topmost Received
field counts (that of a local delivery over LMTP is passed over), each part says where it came from, and a field that cannot
be read is never skipped for the next: that one may be the sender's.
"""

from __future__ import annotations

import datetime
import email.utils
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mailward.model.address import is_address
from mailward.model.message import Envelope, HeaderField

MAX_FIELD = 8192  # octets of a Received field; Postfix writes some hundreds
MAX_RECEIVED = 100  # fields looked at
UNKNOWN_LOGIN = "unknown"  # logged in, but Postfix did not write down as whom

# As Postfix writes it (smtpd.c), once its comments are taken out: `from HELO by NAME with ESMTPSA id ID; date`.
_HOP = re.compile(
    r"(?:from (?P<helo>\S{1,512}+) )?by (?P<by>[^\s;]{1,255}+)(?: with (?P<protocol>\S{1,32}+))?(?: |;|\Z)"
)
# The first comment: `name [192.0.2.1]`, `unknown [IPv6:2001:db8::1]`.
_CLIENT = re.compile(r"(?:(\S{1,255}+) )?\[(?:IPv6:)?([0-9A-Fa-f:.]{2,45}+)\]")
_LOGIN = re.compile(r"Authenticated sender: (\S{1,255}+)")
_LOCAL = re.compile(r"Postfix, from userid [0-9]+")
_PATH = re.compile(r"\s*+<([^<>]*+)>")


class Untold(ValueError):
    """A part of the envelope is neither given nor to be read; the message says which option gives it."""


@dataclass(frozen=True, slots=True)
class Told:
    """A part of the envelope as text, and where it came from."""

    value: str
    source: str


@dataclass(frozen=True, slots=True)
class Given:
    """What the options say; None where they say nothing. `time` is in seconds since 1970, `received` counts from 1."""

    client_address: str | None = None
    helo: str | None = None
    mail_from: str | None = None
    login: str | None = None
    time: float | None = None
    received: int | None = None


@dataclass(frozen=True, slots=True)
class Sending:
    """How a message came in: the envelope to judge by, the time, and for each part who told it.

    `received` is the number of the Received field that tells the client, 0 where an option does: what stands above it was
    written here.
    """

    envelope: Envelope
    time: float
    client: Told
    helo: Told
    mail_from: Told
    login: Told
    judged_at: Told
    received: int = 0


@dataclass(frozen=True, slots=True)
class Received:
    """A Received field that could be read; `number` counts from 1 at the top. An empty address: no network client."""

    number: int
    helo: str = ""
    client_name: str = ""
    client_address: str = ""
    by: str = ""
    login: str = ""
    time: float | None = None

    def __str__(self) -> str:
        return f"Received field {self.number}" + (f", by {self.by}" if self.by else "")


def find_sending(header: Sequence[HeaderField], given: Given, now: float) -> Sending:
    """Put together what is given and what the header tells. Raises Untold."""
    received = _find_received(header, given)
    client = _client(given, received)
    if given.helo is not None:
        helo = Told(given.helo, "--helo")
    else:
        helo = Told(received.helo, str(received)) if received else Told("", "not told: give --helo")
    mail_from = _mail_from(header, given)
    login = _login(given, received)
    time, judged_at = _time(given, received, now)
    envelope = Envelope(
        client_address=client.value,
        client_name=received.client_name if received else "",
        helo=_octets(helo.value),
        mail_from=_octets(mail_from.value),
        login=login.value,
    )
    number = received.number if received and given.client_address is None else 0
    return Sending(envelope, time, client, helo, mail_from, login, judged_at, number)


def read_received(raw_value: bytes, number: int) -> Received | None:
    """Read one Received field; None where it names no client in a form that is known for certain."""
    if len(raw_value) > MAX_FIELD:
        return None
    text, comments = _without_comments(raw_value)
    hop = _HOP.match(text)
    if hop is None:
        return None
    time = _seconds(text.rpartition(";")[2])
    if hop["helo"] is None:
        is_local = any(_LOCAL.fullmatch(comment) for comment in comments)
        return Received(number, by=hop["by"], time=time) if is_local else None
    client = _CLIENT.fullmatch(comments[0]) if comments else None
    if client is None or not is_address(client[2]):
        return None
    login = _login_of(hop["protocol"] or "", comments)
    return Received(number, hop["helo"], client[1] or "", client[2], hop["by"], login, time)


def _find_received(header: Sequence[HeaderField], given: Given) -> Received | None:
    """Return the field that tells the client: the one asked for, else the topmost that is no local delivery's."""
    fields = [field.raw_value for field in header if field.compared_name == b"received"][:MAX_RECEIVED]
    if given.received is not None:
        if not 1 <= given.received <= len(fields):
            raise Untold(f"--received {given.received}: the message has {len(fields)} Received fields")
        found = read_received(fields[given.received - 1], given.received)
        if found is None and given.client_address is None:
            raise Untold(
                f"--received {given.received}: that field names no client as Postfix writes it; give --client-ip"
            )
        return found
    for number, raw_value in enumerate(fields, 1):
        if not _is_local_delivery(raw_value):
            return read_received(raw_value, number)
    return None


def _client(given: Given, received: Received | None) -> Told:
    if given.client_address is not None:
        return Told(given.client_address, "--client-ip")
    if received is None:
        raise Untold(
            "who sent this cannot be told: the topmost Received field is missing, or names no client as Postfix writes it; "
            "give --client-ip ADDRESS (and --helo, --mail-from), or --received N for another field"
        )
    return Told(received.client_address, str(received))


def _mail_from(header: Sequence[HeaderField], given: Given) -> Told:
    if given.mail_from is not None:
        return Told(given.mail_from, "--mail-from")
    for field in header:
        if field.compared_name == b"return-path":
            path = _PATH.match(field.raw_value.decode("utf-8", "surrogateescape"))
            if path:
                return Told(path[1], "Return-Path field")
            break
    raise Untold(
        "MAIL FROM cannot be told: there is no Return-Path field; give --mail-from ADDRESS (<> is the null sender)"
    )


def _login(given: Given, received: Received | None) -> Told:
    if given.login is not None:
        return Told(given.login, "--login")
    if received is not None and given.client_address is None:
        is_named = received.login != UNKNOWN_LOGIN
        return Told(
            received.login, str(received) if is_named else f"logged in, as {received} says, but not as whom: --login"
        )
    return Told("", "not told: give --login if the client logged in")


def _time(given: Given, received: Received | None, now: float) -> tuple[float, Told]:
    """Return the time to judge at: when the message came in, where that is known; signatures expire since."""
    if given.time is not None:
        time, source = given.time, "--now"
    elif received is not None and received.time is not None and given.client_address is None:
        time, source = received.time, f"Received field {received.number}"
    else:
        time, source = now, "the clock"
    return time, Told(datetime.datetime.fromtimestamp(time, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC"), source)


def _is_local_delivery(raw_value: bytes) -> bool:
    """Say whether this is what Dovecot adds when Postfix hands a message over by LMTP."""
    hop = _HOP.match(_without_comments(raw_value[:MAX_FIELD])[0])
    return hop is not None and (hop["protocol"] or "").upper().removeprefix("UTF8").startswith("LMTP")


def _without_comments(raw_value: bytes) -> tuple[str, list[str]]:
    """Return the unfolded text outside of parentheses, and the comments; Postfix sees to it that these are balanced."""
    text = " ".join(raw_value.decode("utf-8", "surrogateescape").split())
    outside: list[str] = []
    comments: list[str] = []
    depth = 0
    for piece in re.split(r"([()])", text):
        if piece == "(":
            depth += 1
            if depth == 1:
                comments.append("")
                continue
        elif piece == ")" and depth:
            depth -= 1
            if depth == 0:
                continue
        if depth:
            comments[-1] += piece
        else:
            outside.append(piece)
    return " ".join("".join(outside).split()), comments


def _login_of(protocol: str, comments: Sequence[str]) -> str:
    """Return who logged in: the name is there with smtpd_sasl_authenticated_header alone."""
    if not re.fullmatch(r"(?:UTF8)?E?SMTPS?A", protocol, re.IGNORECASE):
        return ""
    names = (_LOGIN.fullmatch(comment) for comment in comments)
    return next((name[1] for name in names if name), UNKNOWN_LOGIN)


def _seconds(date: str) -> float | None:
    try:
        parsed = email.utils.parsedate_to_datetime(date.strip()[:100])
        if parsed.tzinfo is None:
            parsed = parsed.replace(tzinfo=datetime.UTC)
        seconds = parsed.timestamp()
    except (ValueError, TypeError, OverflowError, IndexError, AttributeError):
        return None
    return seconds if 0 <= seconds < 2**32 else None


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
