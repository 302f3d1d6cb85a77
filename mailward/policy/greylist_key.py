"""What a triplet's parts are compared as: the client's network, the sender, the recipient. No I/O.

Everything here is printable ASCII without spaces, at most 320 characters, whatever came in: safe in a key, a log and on a
terminal. What changes from message to message in a sender is taken out, or each message of a mailing list would be a first
one. Two senders that become one are no loss: they share a network and a recipient, and the first has shown that it retries.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import re

from mailward.model.address import read_address
from mailward.model.domain import InvalidDomain, normalize

MAX_KEY = 320  # 64 of local part, "@", 255 of domain (RFC 5321 4.5.3.1)
UNKNOWN_NETWORK = "unknown"

_MAX_READ = 1024  # octets of an address that are looked at; Postfix takes lines of 2048, and RFC 5321 paths of 256
_MAX_ADDRESS = 64  # characters of an IP address: the longest has 45, and a zone may follow
_DIGEST_OCTETS = 8
_PLAIN = re.compile(rb"[!-~]*")
_NOT_PLAIN = re.compile("[^!-~]")

# Each pattern below is anchored or walks over its text once: nothing in it can be read in two ways.
_BATV_TAG = re.compile(r"[0-9]{4}[0-9a-f]{6}")  # key number, day, six hex digits of the hash (draft-levine-smtp-batv)
_BATV = re.compile(r"(?:ms)?prvs[0-9]?=([^=]+)=(.+)|btv1==[^=]+==(.+)")  # btv1: Barracuda's; msprvs1: SparkPost's
_SRS0 = re.compile(r"srs0([=+-])[^=]+=[^=]+=([^=]*)=(.+)")
_SRS1 = re.compile(r"srs1([=+-])[^=]+=([^=]*)=([=+-])[^=]+=[^=]+=([^=]*)=(.+)")
_ESCAPE_UUID_OR_TOKEN = re.compile(
    r"\\x[0-9a-f]{2}"
    r"|(?<![0-9a-z])[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?![0-9a-z])"
    r"|[0-9a-z]+"
)
_DIGITS = re.compile("[0-9]+")
_HEX = re.compile("[0-9a-f]+")
_MARKS = re.compile("#+")


@functools.lru_cache(maxsize=4096)  # 0.1 us instead of 6; a busy client asks for each of its recipients
def network_of(client_address: str, ipv4_prefix: int, ipv6_prefix: int) -> str:
    """Return the network that stands for a client; "unknown" for what is no address. A mapped address is the IPv4 one.

    >>> network_of("192.0.2.77", 24, 64), network_of("2001:db8::1:2:3:4", 24, 64), network_of("::ffff:192.0.2.77", 24, 64)
    ('192.0.2.0/24', '2001:db8::/64', '192.0.2.0/24')
    """
    if len(client_address) > _MAX_ADDRESS:
        return UNKNOWN_NETWORK
    try:
        address = read_address(client_address)
    except ValueError:
        return UNKNOWN_NETWORK
    prefix = ipv4_prefix if address.version == 4 else ipv6_prefix
    return str(ipaddress.ip_network((int(address), prefix), strict=False))


def compared_sender(mail_from: bytes) -> str:
    """Return a sender without what changes from message to message; the null sender stays empty.

    Taken out are extensions behind a plus, BATV tags, SRS hashes and timestamps, and numbers and hex ids, for which `#`
    stands. The domain keeps its digits.

    >>> compared_sender(b"List-bounces-1234-bob=example.org@Example.com")
    'list-bounces-#-bob=example.org@example.com'
    >>> compared_sender(b"prvs=4521a0b3c1=alice+tag@example.com")
    'alice@example.com'
    >>> compared_sender(b"SRS0=Xy7z=3S=example.net=bob7@forwarder.example")
    'srs0=#=#=example.net=bob#@forwarder.example'
    """
    if len(mail_from) > _MAX_READ:
        return _clip(_escape(mail_from.lower()))
    local_part, rest = _split(mail_from)
    return _clip(_without_changing_parts(local_part) + rest)


def compared_recipient(rcpt_to: bytes) -> str:
    """Return a recipient without its extension: mail to one person is compared as that.

    >>> compared_recipient(b"Bob+Lists@Example.org")
    'bob@example.org'
    """
    if len(rcpt_to) > _MAX_READ:
        return _clip(_escape(rcpt_to.lower()))
    local_part, rest = _split(rcpt_to)
    return _clip(_without_extension(local_part) + rest)


def correspondent(address: bytes) -> str:
    """Return the address of somebody we write to, or who writes to us: the same for both, and nobody else's.

    Only a BATV tag is taken off, which somebody's mail may carry and no mail to them does.

    >>> correspondent(b"prvs=4521a0b3c1=Alice+Home@Example.com") == correspondent(b"alice+home@example.COM")
    True
    """
    if len(address) > _MAX_READ:
        return _clip(_escape(address.lower()))
    local_part, rest = _split(address)
    return _clip(_without_batv(local_part) + rest)


def _split(address: bytes) -> tuple[str, str]:
    """Part an address at its last `@`, in lower case and printable; the domain comes with the `@`, as A-labels if it can."""
    local_part, at, domain = address.rpartition(b"@")
    if not at:
        return _escape(address.lower()), ""
    try:
        return _escape(local_part.lower()), "@" + normalize(domain.decode("utf-8"))
    except (InvalidDomain, UnicodeDecodeError):
        return _escape(local_part.lower()), "@" + _escape(domain.lower())


def _escape(octets: bytes) -> str:
    text = octets.decode("latin-1")
    if _PLAIN.fullmatch(octets):
        return text
    return _NOT_PLAIN.sub(lambda match: f"\\x{ord(match.group()):02x}", text)


def _clip(text: str) -> str:
    """Bound a text so that two that differ stay two."""
    if len(text) <= MAX_KEY:
        return text
    digest = hashlib.blake2b(text.encode("ascii"), digest_size=_DIGEST_OCTETS).hexdigest()
    return f"{text[: MAX_KEY - 1 - len(digest)]}~{digest}"


def _without_changing_parts(local_part: str) -> str:
    path = ""
    while True:
        local_part = _without_batv(local_part)
        # Sender Rewriting Scheme: hash and day change; the first sender's domain and local part stay.
        if match := _SRS0.fullmatch(local_part):
            separator, domain, local_part = match.groups()
            path += f"srs0{separator}#=#={domain}="
        elif match := _SRS1.fullmatch(local_part):
            separator, hop, inner, domain, local_part = match.groups()
            path += f"srs1{separator}#={hop}={inner}#=#={domain}="
        else:
            break
    ids_marked = _ESCAPE_UUID_OR_TOKEN.sub(_mark, _without_extension(local_part))
    return path + _MARKS.sub("#", ids_marked)


def _without_batv(local_part: str) -> str:
    while "=" in local_part and (match := _BATV.fullmatch(local_part)):
        first, second, third = match.groups()
        if third is not None:
            local_part = third
        # Some write the tag behind the address.
        elif _BATV_TAG.fullmatch(second) and not _BATV_TAG.fullmatch(first):
            local_part = first
        else:
            local_part = second
    return local_part


def _without_extension(local_part: str) -> str:
    name, plus, _ = local_part.partition("+")
    return name if plus and name else local_part


def _mark(match: re.Match[str]) -> str:
    """Return what stands for one run of letters and digits: `#` for an id, and for the digits in anything else."""
    token = match.group()
    if token.startswith("\\"):
        return token
    if "-" in token or token.isdigit():
        return "#"
    has_digit = _DIGITS.search(token) is not None
    if len(token) >= 8 and (has_digit or _HEX.fullmatch(token)):
        return "#"
    if len(token) >= 4 and has_digit and _HEX.fullmatch(token):
        return "#"
    return _DIGITS.sub("#", token)
