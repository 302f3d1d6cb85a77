"""Whether a client looks like a machine that should send no mail by itself. No I/O.

For `mode = "suspicious"`: only what is suspected is greylisted. A wrong suspicion costs a minute's delay, and what is not known,
since the DNS does not answer, is no suspicion.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from enum import Enum

from mailward.model.address import IpAddress, read_address
from mailward.model.domain import InvalidDomain, normalize
from mailward.model.results import IprevResult, Result

MAX_HELO = 255  # RFC 5321 4.5.3.1.2


class Suspicion(Enum):
    """What is wrong with a client. The words of the log and of the counter's label."""

    NO_NAME = "no-name"  # its address has no name that leads back to it
    GENERIC_NAME = "generic-name"  # its name was made of its address, or says that it is a subscriber's
    HELO = "helo"
    DNSBL = "dnsbl"


def suspect(
    client_address: str,
    client_name: str,
    helo: bytes,
    own_names: Collection[str],
    check_iprev: Callable[[], IprevResult],
    is_listed: Callable[[], bool],
) -> Suspicion | None:
    """Return the first thing that is wrong with a client, or None; cheap before dear.

    `client_name` is the name that Postfix has confirmed, or "unknown". `own_names` are this machine's and those of the domains
    it receives for, normalized: no stranger has them. `is_listed` asks the DNSBLs; `check_iprev` asks for the client's name
    where Postfix has none, which it also has where its DNS did not answer. Each is called at most once, and the lists first:
    the servers of the client's name may be its owner's, and be silent until no time is left.
    """
    address = _read(client_address)
    if address is None:  # no network client
        return None
    if not helo_fits(helo, address, own_names):
        return Suspicion.HELO
    name = _confirmed(client_name)
    if name and is_generic(name, address):
        return Suspicion.GENERIC_NAME
    if is_listed():
        return Suspicion.DNSBL
    if name:
        return None
    iprev = check_iprev()
    if iprev.result in (Result.FAIL, Result.PERMERROR):
        return Suspicion.NO_NAME
    name = _confirmed(iprev.name) if iprev.result is Result.PASS else ""
    return Suspicion.GENERIC_NAME if name and is_generic(name, address) else None


def _read(text: str) -> IpAddress | None:
    try:
        return read_address(text.partition("%")[0]) if len(text) <= 64 else None
    except ValueError:
        return None


def _confirmed(client_name: str) -> str:
    """Return the client's name in its normal form, empty where Postfix has confirmed none ("unknown", "[192.0.2.1]")."""
    try:
        name = normalize(client_name)
    except InvalidDomain:
        return ""
    return name if "." in name and not _ends_in_number(name) else ""


# Names that nobody has in the public DNS (RFC 6761, 6762, 8375), and what routers and installers write for them.
_NOBODYS = frozenset({"local", "localhost", "localdomain", "lan", "internal", "invalid", "home.arpa"})


def helo_fits(helo: bytes, address: IpAddress, own_names: Collection[str]) -> bool:
    """Say whether a HELO could be the client's: a name of several labels in the public DNS, or its own address in brackets.

    Whether the name exists and leads to the client is not asked: RFC 5321 4.1.4 forbids refusing mail for that, and many large
    pools name another machine of theirs.
    """
    try:
        text = helo[: MAX_HELO + 1].decode("ascii")
    except UnicodeDecodeError:
        return False
    if text.startswith("["):
        return _literal(text) == address
    try:
        name = normalize(text)
    except InvalidDomain:
        return False
    if "." not in name or _ends_in_number(name) or name in own_names:
        return False
    top = name.rpartition(".")[2]
    return top not in _NOBODYS and not name.endswith(".home.arpa")


def _literal(text: str) -> IpAddress | None:
    # RFC 5321 4.1.3: "[192.0.2.1]" or "[IPv6:2001:db8::1]".
    if not text.endswith("]"):
        return None
    inner = text[1:-1]
    return _read(inner[5:] if inner[:5].lower() == "ipv6:" else inner)


def _ends_in_number(name: str) -> bool:
    # No top-level domain is a number (RFC 3696 2): this is an address without its brackets, or nonsense.
    return name.rpartition(".")[2].isdigit()


_RUN = re.compile("[a-z]+|[0-9]+")
_WORDS = frozenset(
    """
    dyn dynamic dynip dhcp pool pools ppp pppoe pptp dsl adsl sdsl vdsl xdsl cable cablemodem catv modem dial dialin dialup
    cust customer customers client clients cpe subscriber subs broadband bband fttb fttc ftth fttx gpon wifi wimax wireless
    mobile lte gprs umts residential resnet hsd nat cgn cgnat hfc docsis
    """.split()  # noqa: SIM905 - read as text
)
# A name with one of these before its domain was given to a mail server, whatever else is in it: large senders number theirs by
# address, too (69-171-232-143.mail-mail.facebook.com).
_MAIL_WORDS = ("mail", "smtp", "mx", "mta", "relay", "outbound", "mout", "bounce", "sender")


def is_generic(name: str, address: IpAddress) -> bool:
    """Say whether a client's name (normalized) is one of a row: made of the address, or of a word for subscribers and a number.

    >>> is_generic("dsl-192-0-2-7.isp.example", read_address("192.0.2.7"))
    True
    >>> is_generic("mx7.dsl.example", read_address("192.0.2.7"))
    False
    """
    labels = name.split(".")
    own_labels = labels[:-2] or labels[:1]
    words = {run for label in own_labels for run in _RUN.findall(label) if run.isalpha()}
    if any(word.startswith(_MAIL_WORDS) for word in words):
        return False
    if _holds_ipv4(name, address.packed) if address.version == 4 else _holds_ipv6(name, address):
        return True
    return any(_is_numbered_subscriber(own_labels, index) for index in range(len(own_labels)))


def _holds_ipv4(name: str, octets: bytes) -> bool:
    """Say whether three octets in a row stand in the name, in either order, in decimal, or all four in hex or padded."""
    runs = [int(run) for run in re.findall("[0-9]+", name) if len(run) <= 3]
    forward, backward = list(octets), list(reversed(octets))
    wanted = (forward[:3], forward[1:], backward[:3], backward[1:])
    if any(runs[index : index + 3] in wanted for index in range(len(runs) - 2)):
        return True
    return any(
        form in name
        for order in (forward, backward)
        for form in ("".join(f"{octet:02x}" for octet in order), "".join(f"{octet:03d}" for octet in order))
    )


def _holds_ipv6(name: str, address: IpAddress) -> bool:
    """Say whether the address or its last half stands in the name, in any of its spellings."""
    groups = [address.packed[index : index + 2].hex() for index in range(0, 16, 2)]
    short = [group.lstrip("0") or "0" for group in groups]
    nibbles = "".join(groups)
    squeezed = name.replace("-", "").replace(".", "")
    forms = (address.compressed.replace(":", "-"), "-".join(short), "-".join(short[4:]), "-".join(groups[4:]))
    return nibbles in squeezed or nibbles[::-1] in squeezed or any(form in name for form in forms)


def _is_numbered_subscriber(labels: list[str], index: int) -> bool:
    """Say whether a label has a word for subscribers, and a number with it or in the label before."""
    runs = _RUN.findall(labels[index])
    if _WORDS.isdisjoint(runs):
        return False
    if any(run.isdigit() for run in runs):
        return True
    # "77-12.dyn.example.net", "c0a80107.pool.example.net": a number, perhaps in hex, and nothing beside it.
    before = labels[index - 1].replace("-", "") if index else ""
    return any(map(str.isdigit, before)) and re.fullmatch("[a-z]{0,4}[0-9a-f]+", before) is not None
