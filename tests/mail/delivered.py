"""A message as the receiver's maildir has it, and what two other implementations say of its DKIM signatures."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.mail.domains import Domain, Signature
from tests.support.dkimpy_oracle import Verified, verify_all

AUTHENTICATION_RESULTS = re.compile(rb"^Authentication-Results:((?:.|\n[ \t])*)$", re.MULTILINE | re.IGNORECASE)
DKIM_RESULT = re.compile(r"\bdkim=(\w+)(?:\s+(?:\([^()]*\)|reason=\"[^\"]*\"))*((?:\s+header\.\w+=[^\s;]+)*)")
PROPERTY = re.compile(r"header\.(\w+)=\"?([^\s\";]+)")


@dataclass(frozen=True, slots=True)
class OpenDkimResult:
    """One `dkim=` of the receiver's Authentication-Results field; None where OpenDKIM wrote `dkim=none`."""

    result: str
    signature: Signature | None


@dataclass(frozen=True, slots=True)
class Delivered:
    """What arrived: the raw message, and each verifier's results, topmost signature first."""

    raw: bytes
    opendkim: tuple[OpenDkimResult, ...]
    dkimpy: tuple[Verified, ...]

    @property
    def header(self) -> bytes:
        """Return the header section."""
        return self.raw.partition(b"\n\n")[0]

    @property
    def body(self) -> bytes:
        """Return the body, with LF line ends."""
        return self.raw.partition(b"\n\n")[2]

    def signatures(self) -> tuple[Signature, ...]:
        """Return the signatures the message has, passing or not, topmost first."""
        return tuple(Signature(each.selector, each.algorithm, each.domain) for each in self.dkimpy)

    def faults(self, expected: tuple[Signature, ...]) -> list[str]:
        """Say what is wrong with the message: it must have just these signatures and both verifiers pass each."""
        faults = []
        if self.signatures() != expected:
            faults.append(f"signed {self.signatures()}, expected {expected}")
        for verified in self.dkimpy:
            if not verified.passes:
                faults.append(f"dkimpy: s={verified.selector} fails {verified.cause}")
        for signature in expected:
            results = [each.result for each in self.opendkim if each.signature == signature]
            if results != ["pass"]:
                faults.append(f"OpenDKIM: s={signature.selector} {results or 'not reported'}")
        return faults


def assert_signed(delivered: Delivered, domain: Domain) -> None:
    """Assert that the message has the domain's signatures, no other, and that both verifiers pass every one."""
    faults = delivered.faults(domain.signatures)
    assert not faults, "\n".join(faults) + "\n\n" + delivered.header[:3000].decode("utf-8", "replace")


def assert_unsigned(delivered: Delivered) -> None:
    """Assert that the message has no signature at all, in the words of both verifiers."""
    assert delivered.signatures() == ()
    # "permerror" where OpenDKIM finds no author address, which it wants even of an unsigned message.
    assert [each.result for each in delivered.opendkim] in (["none"], ["permerror"])
    assert all(each.signature is None for each in delivered.opendkim)


def verify(raw: bytes, *, authserv_id: str, nameserver: str) -> Delivered:
    """Read a file of a maildir (LF line ends) and ask both verifiers."""
    # A maildir's LF was CRLF on the wire, wherever it stands; a bare CR is content.
    message = raw.replace(b"\n", b"\r\n")
    return Delivered(raw, parse_opendkim(raw, authserv_id), tuple(verify_all(message, nameserver)))


def parse_opendkim(raw: bytes, authserv_id: str) -> tuple[OpenDkimResult, ...]:
    """Read the receiver's own Authentication-Results field: the first that names it."""
    header = raw.partition(b"\n\n")[0]
    for match in AUTHENTICATION_RESULTS.finditer(header):
        value = " ".join(match.group(1).decode("utf-8", "replace").split())
        if value.startswith(authserv_id):
            return tuple(parse_result(each) for each in DKIM_RESULT.finditer(value))
    return ()


def parse_result(match: re.Match[str]) -> OpenDkimResult:
    """Read one `dkim=` with its properties."""
    properties = dict(PROPERTY.findall(match.group(2)))
    if "s" not in properties:
        return OpenDkimResult(match.group(1), None)
    signature = Signature(properties["s"], properties.get("a", ""), properties.get("d", ""))
    return OpenDkimResult(match.group(1), signature)
