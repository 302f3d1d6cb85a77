"""What an SPF record says: its terms, and the names its macros stand for. The only import of pyspf.

pyspf knows the grammar of a term (RFC 7208 12) and expands macros (7). It is never let near the DNS, and does not judge:
its own evaluation asks for the names of every macro and every explanation before it looks at the first term, counts a
redirect that nobody follows, cannot say what it did, and takes 273 us for a large provider's chain of includes where
mailward.auth.spf takes 21. A record is parsed whole before it is judged, because one syntax error anywhere makes it a
permerror (RFC 7208 4.6), and stays parsed: most mail is sent under the records of few providers.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache

import spf

from mailward.auth.client import Client
from mailward.model.results import Result

# Published records have up to about 4 kB and some hundred networks (RFC 7208 3.4 asks for 512 octets).
MAX_RECORD = 16 * 1024
MAX_TERMS = 1000
MAX_TERM = 512  # octets
LONGEST_END = 70  # octets of a domain-spec in which its last label stands; pyspf's pattern for that is quadratic
MAX_EXPLANATION = 1024  # octets of a TXT record that become at most 200 characters
MAX_NAME = 253

# What may stay in memory: 512 parsed records of at most 40 terms, 5 MB if every one of them were the longest.
CACHED_RECORDS = 512
MAX_CACHED_RECORD = 1024
MAX_CACHED_TERMS = 40

_QUALIFIERS = {"pass": Result.PASS, "fail": Result.FAIL, "softfail": Result.SOFTFAIL, "neutral": Result.NEUTRAL}

# RFC 7208 7.1; the digits may not be zero (7.3). pyspf lets pass what it cannot read; c, r and t stand in explanations only.
_MACRO = r"%(?:[%_-]|\{[{letters}](?:0*[1-9][0-9]*)?r?[.+,/_=-]*\})"
_MACRO_IN_NAME = re.compile(_MACRO.replace("{letters}", "slodiphv"), re.IGNORECASE)
_MACRO_IN_TEXT = re.compile(_MACRO.replace("{letters}", "slodiphvcrt"), re.IGNORECASE)
_LOCAL_PART_MACRO = re.compile(r"%\{[ls]", re.IGNORECASE)
_CONFIRMED_NAME_MACRO = re.compile(r"%\{p", re.IGNORECASE)
_ESCAPES = {"%%": "%", "%_": " ", "%-": "%20"}
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_HIDDEN = re.compile(r"[^\x20-\x7e]")
_MODIFIER = re.compile(r"([a-z][a-z0-9_.-]*)=(.*)", re.IGNORECASE | re.DOTALL)


class MacroFault(Exception):
    """A macro that cannot be expanded."""


@dataclass(frozen=True, slots=True)
class Term:
    """One mechanism.

    `network` is there where it is ip4 or ip6 of the client's own kind: the address matches whose bits above `shift` are the
    network's. `prefix_length` is that for the client's kind; `name` is the domain-spec with its macros.
    """

    text: str
    mechanism: str
    result: Result
    name: str = ""
    prefix_length: int = 0
    network: int | None = None
    shift: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """A parsed record; `fault` says what makes it a permerror, and is empty where nothing does."""

    terms: tuple[Term, ...] = ()
    redirect: str = ""
    explanation: str = ""
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Sender:
    """What macros stand for: `local_part` is None where no DNS name can be made of it."""

    client: Client
    local_part: str | None
    domain: str
    helo: str


def select_records(records: tuple[bytes, ...]) -> list[bytes]:
    """Return those TXT records that are SPF records (RFC 7208 4.5)."""
    return [record for record in records if record[:6].lower() == b"v=spf1" and record[6:7] in (b"", b" ")]


def parse_record(octets: bytes, bits: int) -> Record:
    """Parse a record for a client whose address has `bits` bits."""
    # 0.2 us from the cache instead of 7 us for a record of two terms and 50 us for twelve.
    if len(octets) <= MAX_CACHED_RECORD and octets.count(b" ") <= MAX_CACHED_TERMS:
        return _parse_cached(octets, bits)
    return _parse(octets, bits)


def _parse(octets: bytes, bits: int) -> Record:
    if len(octets) > MAX_RECORD:
        return Record(fault=f"the record is longer than {MAX_RECORD} octets")
    texts = [text for text in octets.decode("latin-1").split(" ")[1:] if text]
    if len(texts) > MAX_TERMS:
        return Record(fault=f"the record has more than {MAX_TERMS} terms")
    grammar = _GRAMMARS[bits]
    terms: list[Term] = []
    modifiers: dict[str, str] = {}
    for text in texts:
        try:
            modifier = _MODIFIER.fullmatch(text)
            if len(text) > MAX_TERM or not _VISIBLE.fullmatch(text):
                return _syntax_error(text)
            if modifier:
                grammar.add_modifier(modifier[1].lower(), modifier[2], modifiers)
            else:
                terms.append(grammar.term(text))
        except Exception:  # noqa: BLE001 - pyspf raises what it likes; nothing here asks anybody, so it is the record's fault
            return _syntax_error(text)
    return Record(tuple(terms), modifiers.get("redirect", ""), modifiers.get("exp", ""))


_parse_cached = lru_cache(maxsize=CACHED_RECORDS)(_parse)


def _syntax_error(text: str) -> Record:
    """Return the record that is none, with the term at fault; no `=`, or `dmarc=pass` would stand in a field of ours."""
    return Record(fault=f"syntax error in {printable(text).replace('=', '?')}")


def printable(text: str) -> str:
    """Return a term so that it can stand in a comment and in a log: clipped, nothing hidden, nothing that quotes or ends."""
    return re.sub(r'[^\x21-\x7e]|["\\();]', "?", text[:100])


class _Offline(spf.query):  # type: ignore[misc]
    """pyspf without its DNS."""

    def dns(self, *_: object, **__: object) -> list[object]:
        raise AssertionError("pyspf asks nothing by itself")


class _Grammar(_Offline):
    """pyspf's reading of a term. It says of a domain-spec only whether it is one: names are expanded when they are wanted."""

    def __init__(self, example: str) -> None:
        super().__init__(i=example, s="", h="")
        self.d = "%{d}"  # what a term without a domain-spec means

    def term(self, text: str) -> Term:
        _, mechanism, argument, prefix_length, word = self.validate_mechanism(text)
        result = _QUALIFIERS[word]
        if mechanism not in ("ip4", "ip6"):
            return Term(text, mechanism, result, argument, prefix_length)
        if mechanism == "ip4":
            bits, number = 32, int(ipaddress.IPv4Address(argument))
        else:
            bits, number = 128, int(ipaddress.IPv6Address(argument))
        if bits != self.cidrmax:
            return Term(text, mechanism, result)
        return Term(text, mechanism, result, network=number, shift=bits - prefix_length)

    def add_modifier(self, name: str, argument: str, modifiers: dict[str, str]) -> None:
        """Take in a modifier; those nobody knows may stand as often as they like, but must be well formed (RFC 7208 6)."""
        if name not in ("redirect", "exp"):
            _require_macros(argument)
        elif name in modifiers or not argument:
            raise ValueError("a modifier that stands twice, or is empty")
        else:
            modifiers[name] = self.expand_domain(argument)

    def expand_domain(self, argument: str) -> str:
        """Require a domain-spec (RFC 7208 7.1), and leave it as it is."""
        _require_macros(argument)
        if spf.RE_TOPLAB.split(argument[-LONGEST_END:])[-1]:
            raise ValueError("the last label is no top label and no macro")
        return argument


def _require_macros(text: str) -> None:
    if "%" in _MACRO_IN_NAME.sub("", text):
        raise ValueError("a percent sign that begins no macro")


_GRAMMARS = {32: _Grammar("192.0.2.1"), 128: _Grammar("2001:db8::1")}  # never written to: shared by all threads


class Macros(_Offline):
    """The macros of one sender (RFC 7208 7.2)."""

    def __init__(self, sender: Sender) -> None:
        local_part = sender.local_part or "postmaster"
        super().__init__(i=sender.client.text, s="-", h=sender.helo)
        # Not by pyspf's own reading: it splits an address at its first @.
        self.s, self.l, self.o = f"{local_part}@{sender.domain}", local_part, sender.domain
        self._is_local_part_usable = sender.local_part is not None

    def name(self, spec: str, domain: str, confirmed: str) -> str | None:
        """Expand a domain-spec in the record of `domain`; None where it can match nothing.

        RFC 8616 4: nothing that has a local part beyond ASCII in it matches. `confirmed` is what %{p} stands for.
        Raises MacroFault.
        """
        if not self._is_local_part_usable and _LOCAL_PART_MACRO.search(spec):
            return None
        name = self._expand_all(_MACRO_IN_NAME, spec, domain, confirmed).removesuffix(".")
        if len(name) > MAX_NAME:  # RFC 7208 7.3: labels are removed from the left; pyspf stops after the first
            dot = name.find(".", len(name) - MAX_NAME - 1)
            name = name[dot + 1 :] if dot >= 0 else ""
        return name.lower()

    def text(self, octets: bytes, domain: str, confirmed: str) -> str:
        """Expand an explanation to printable ASCII; empty where it has syntax errors (RFC 7208 6.2). Raises MacroFault."""
        text = octets[: MAX_EXPLANATION + 1].decode("latin-1")
        if len(text) > MAX_EXPLANATION or not text.isascii() or "%" in _MACRO_IN_TEXT.sub("", text):
            return ""
        if not self._is_local_part_usable and _LOCAL_PART_MACRO.search(text):
            return ""
        return _HIDDEN.sub("?", self._expand_all(_MACRO_IN_TEXT, text, domain, confirmed))

    def _expand_all(self, pattern: re.Pattern[str], text: str, domain: str, confirmed: str) -> str:
        """Expand macro by macro: of a whole text pyspf refuses a final %%, and cuts what is longer than a name."""
        self.d, self.p = domain, confirmed
        try:
            return pattern.sub(self._expand_one, text)
        except Exception as error:  # pyspf raises what it likes; nothing here asks anybody
            raise MacroFault from error

    def _expand_one(self, macro: re.Match[str]) -> str:
        escaped = _ESCAPES.get(macro[0])
        return str(self.expand(macro[0], stripdot=False)) if escaped is None else escaped


def wants_confirmed_name(text: str) -> bool:
    """Say whether %{p} stands in it, for which the DNS has to be asked."""
    return "%" in text and _CONFIRMED_NAME_MACRO.search(text) is not None
