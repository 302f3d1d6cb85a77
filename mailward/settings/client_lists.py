"""Files that list clients: Mailward's own kind, and postgrey's whitelists.

A line that cannot be used is a mistake with its number, and the other lines count; nothing is dropped in silence. No regular
expression of a file is ever run: what is simple enough becomes a pattern that costs nothing, the rest is a mistake.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from mailward.model.errors import Mistake
from mailward.model.greylist import EntryKind
from mailward.policy.networks import Network
from mailward.policy.subjects import normalize_subject

MAX_FILE = 4 * 1024 * 1024  # octets; a hundred times postgrey's list
_MAX_SHOWN = 80  # characters of a line in a mistake

_ADDRESS = re.compile(r"[0-9.]+(?:/.*)?|.*:.*:.*")
_PARTIAL = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){1,2}")
_REGEX = re.compile(r"/(\S{1,500})/")


@dataclass(frozen=True, slots=True)
class Translated:
    """A regular expression of a file, and the name or address that stands for it: at least as wide, and seldom wider."""

    line: int
    pattern: str
    subject: str


@dataclass(frozen=True, slots=True)
class ClientList:
    """The clients of a file; `names` as mailward.policy.subjects has them ("example.com", "mail*.example.com")."""

    networks: tuple[Network, ...] = ()
    names: tuple[str, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    translated: tuple[Translated, ...] = ()


@dataclass(frozen=True, slots=True)
class RecipientList:
    """The recipients of a file: addresses, domains, and local parts such as "postmaster@"."""

    recipients: tuple[str, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    translated: tuple[Translated, ...] = ()


def read_client_list(path: Path) -> ClientList:
    """Read a list of Mailward's own kind: one name, address or network a line, `#` begins a comment."""
    return _read_clients(path, _read_subject)


def shipped_non_retriers() -> ClientList:
    """Return the list of clients known not to retry that comes with Mailward."""
    with resources.as_file(resources.files("mailward") / "data" / "non-retriers.txt") as path:
        return read_client_list(path)


def read_postgrey_clients(path: Path) -> ClientList:
    """Read postgrey's whitelist_clients: names, addresses, parts of addresses ("192.168"), networks, /regular expressions/."""
    return _read_clients(path, _read_postgrey_subject)


def read_postgrey_recipients(path: Path) -> RecipientList:
    """Read postgrey's whitelist_recipients: addresses, domains, "postmaster@", /regular expressions/."""
    recipients: list[str] = []
    translated: list[Translated] = []
    mistakes: list[Mistake] = []
    for number, text in _lines(path, mistakes):
        try:
            regex = _REGEX.fullmatch(text)
            subject = normalize_subject(EntryKind.RECIPIENT, translate_address(regex.group(1)) if regex else text)
        except ValueError as error:
            mistakes.append(_mistake(path, number, text, error))
            continue
        recipients.append(subject)
        if regex:
            translated.append(Translated(number, text, subject))
    return RecipientList(tuple(recipients), tuple(mistakes), tuple(translated))


def translate_name(pattern: str) -> str:
    r"""Return the name that stands for a regular expression over clients' names. Raises ValueError where none does.

    Only what begins with two characters of its own, or is one whole label that may be anything, before a domain of two
    labels: a pattern that began with anything would let half a provider's customers pass for its mail servers.

    >>> translate_name(r"^smtp\d+\.orange\.fr$"), translate_name(r"^.*\.mail\.example\.com$"), translate_name(r"^a\.b\.example$")
    ('smtp*.orange.fr', 'mail.example.com', 'a.b.example')
    """
    if not pattern.startswith("^") or not pattern.endswith("$"):
        raise ValueError(_EXPECTED)
    parts = _parts(pattern[1:-1])
    if len(parts) == 1 and parts[0]:
        return parts[0]
    start, rest = parts[0], parts[-1]
    _, _, domain = rest.partition(".")
    if "." not in domain:
        raise ValueError(_EXPECTED)
    if len(start) >= 2:
        return f"{start}*.{domain}"
    if len(parts) == 2 and _ANY_LABEL.match(pattern):
        return domain
    raise ValueError(_EXPECTED)


def translate_address(pattern: str) -> str:
    r"""Return the address, domain or local part that stands for a regular expression. Raises ValueError where none does.

    >>> translate_address(r"^abuse@"), translate_address(r"@example\.com$"), translate_address(r"^bob\@example\.com$")
    ('abuse@', 'example.com', 'bob@example.com')
    """
    parts = _parts(pattern.removeprefix("^").removesuffix("$"))
    local_part, at, domain = parts[0].partition("@")
    begins = not local_part or pattern.startswith("^")
    ends = not domain or pattern.endswith("$")
    if len(parts) != 1 or not at or not begins or not ends:
        raise ValueError(_EXPECTED)
    return parts[0].removeprefix("@")


_EXPECTED = "this regular expression has no simple equal: expected names, addresses or networks in its place"

# One element of a regular expression: a group or class, an escape or a dot, with what repeats it; or a character for itself.
_ELEMENT = re.compile(r"(\((?:\?:)?[^()]*\)|\[[^\[\]]*\]|\\?.)([*+?]\??|\{[0-9,]{1,9}\})?", re.DOTALL)
_ANY_LABEL = re.compile(r"\^(?:\.[*+]\??|\[\^\\?\.\][*+]\??)\\?\.")
_ITSELF = re.compile(r"[A-Za-z0-9_@-]")


def _parts(pattern: str) -> list[str]:
    """Return what stands literally before, between and behind the parts of a regular expression that may be anything."""
    parts = [""]
    for element, repeated in _ELEMENT.findall(pattern):
        literal = _literal(element)
        if literal and not repeated:
            parts[-1] += literal
        elif parts[-1] or len(parts) == 1:
            parts.append("")
    return parts


def _literal(element: str) -> str:
    """Return what an element says literally; empty for what may be anything."""
    if element in (".", r"\."):  # a bare dot is one that somebody forgot to escape
        return "."
    if element in (r"\-", r"\@", r"\_"):
        return element[1:]
    if _ITSELF.fullmatch(element):
        return element.lower()
    if len(element) > 1 and (element[0] in "([" or element in (r"\d", r"\w")):
        return ""
    raise ValueError(_EXPECTED)


def _read_clients(path: Path, read: Callable[[str], Network | str]) -> ClientList:
    networks: list[Network] = []
    names: list[str] = []
    translated: list[Translated] = []
    mistakes: list[Mistake] = []
    for number, text in _lines(path, mistakes):
        try:
            subject = read(text)
        except ValueError as error:
            mistakes.append(_mistake(path, number, text, error))
            continue
        if isinstance(subject, str):
            names.append(subject)
            if _REGEX.fullmatch(text):
                translated.append(Translated(number, text, subject))
        else:
            networks.append(subject)
    return ClientList(tuple(networks), tuple(names), tuple(mistakes), tuple(translated))


def _read_subject(text: str) -> Network | str:
    if _ADDRESS.fullmatch(text):
        return ipaddress.ip_network(normalize_subject(EntryKind.NETWORK, text))
    return normalize_subject(EntryKind.NAME, text)


def _read_postgrey_subject(text: str) -> Network | str:
    regex = _REGEX.fullmatch(text)
    if regex:
        return _read_subject(translate_name(regex.group(1)))
    if _PARTIAL.fullmatch(text):
        # postgrey's manual: "192.168" is a /16, and three parts are a /24.
        octets = text.split(".")
        text = f"{'.'.join(octets + ['0'] * (4 - len(octets)))}/{8 * len(octets)}"
    if _ADDRESS.fullmatch(text) and "/" in text:
        with contextlib.suppress(ValueError):  # normalize_subject says what was expected
            text = str(ipaddress.ip_network(text, strict=False))  # postgrey lets bits stand behind the prefix
    return _read_subject(text)


def _lines(path: Path, mistakes: list[Mistake]) -> Iterator[tuple[int, str]]:
    """Yield the lines that say something, without comments, each with its number."""
    try:
        with path.open("rb") as file:
            octets = file.read(MAX_FILE + 1)
    except OSError as error:
        mistakes.append(Mistake(str(path), "", f"cannot be read: {error.strerror}"))
        return
    if len(octets) > MAX_FILE:
        mistakes.append(Mistake(str(path), "", "larger than 4 MiB: this is no list of clients"))
        return
    # The comments of old lists are in whatever their writers used; a line that is no text is no name either.
    for number, line in enumerate(octets.decode("utf-8", "replace").split("\n"), 1):
        text = line.partition("#")[0].strip()
        if text:
            yield number, text


def _mistake(path: Path, number: int, text: str, error: ValueError) -> Mistake:
    shown = ascii(text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "...")
    return Mistake(str(path), f"line {number}", f"{error}, found {shown}")
