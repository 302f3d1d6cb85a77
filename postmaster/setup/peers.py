"""The programs that a running Postfix may ask already, by their usual addresses, and what to do about each. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass

from postmaster.setup.postfix_lists import tokens

SIGN, VERIFY, GREYLIST, POLICYD = "dkim-sign", "auth-verify", "greylist", "policyd"


@dataclass(frozen=True, slots=True)
class Peer:
    """A program of somebody else's. `jobs` are our daemons that do what it does; `is_replaceable`: they do all of it."""

    name: str
    address: re.Pattern[str]
    jobs: frozenset[str]
    advice: str
    is_replaceable: bool = True


def _peer(name: str, address: str, jobs: tuple[str, ...], advice: str, *, is_replaceable: bool = True) -> Peer:
    return Peer(name, re.compile(address, re.IGNORECASE), frozenset(jobs), advice, is_replaceable)


_TAKE_OUT = "--replace takes it out"
# The more special pattern first: opendmarc's port is also in the path of nobody else's socket.
PEERS = (
    _peer("dkimpy-milter", r"dkimpy|:8892\b", (SIGN, VERIFY), f"each does the work a second time; {_TAKE_OUT}"),
    _peer("OpenDMARC", r"opendmarc|:8893\b|:54321\b", (VERIFY,), f"two judge each message by DMARC; {_TAKE_OUT}"),
    _peer("OpenDKIM", r"opendkim|:8891\b|:12301\b", (SIGN, VERIFY), f"two signers sign twice; {_TAKE_OUT}"),
    _peer("pyspf-milter", r"pyspf|spf-milter", (VERIFY,), f"two judge each client by SPF; {_TAKE_OUT}"),
    _peer(
        "authentication_milter",
        r"authentication_milter|authmilter",
        (VERIFY,),
        f"two judge each message; {_TAKE_OUT}",
    ),
    _peer("milter-greylist", r"milter-greylist", (GREYLIST,), f"each puts strangers off in its turn; {_TAKE_OUT}"),
    _peer(
        "rspamd",
        r"rspamd|:11332\b",
        (SIGN, VERIFY, GREYLIST),
        "it stays, for the spam; switch off its modules that do the same: dkim_signing, greylist, and dmarc's actions",
        is_replaceable=False,
    ),
    _peer("policyd-spf", r"policyd?-spf|spf-policy", (VERIFY,), f"two judge each client by SPF; {_TAKE_OUT}"),
    _peer(
        "postgrey",
        r"postgrey|:10023\b|:60000\b",
        (GREYLIST,),
        f"each puts strangers off in its turn; {_TAKE_OUT} (`mailward greylist import /var/lib/postgrey` first)",
    ),
    _peer("policyd-rate-limit", r"rate-?limit|:8552\b", (POLICYD,), f"each counts by itself; {_TAKE_OUT}"),
    _peer("policyd-rate-guard", r"rate-?guard", (POLICYD,), f"each counts by itself; {_TAKE_OUT}"),
    _peer(
        "postfwd",
        r"postfwd|:10040\b",
        (POLICYD,),
        "it stays, for it does more than limits; take those out of its rules",
        is_replaceable=False,
    ),
    _peer(
        "iRedAPD",
        r"iredapd|:7777\b",
        (GREYLIST, POLICYD),
        "it stays; take greylisting and throttle out of the `plugins` of its settings.py",
        is_replaceable=False,
    ),
    _peer(
        "cbpolicyd",
        r"cbpolicyd|cluebringer|:10031\b",
        (GREYLIST, POLICYD),
        "it stays; switch off its modules Greylisting and Quotas",
        is_replaceable=False,
    ),
)


def find_peer(address: str) -> Peer | None:
    """Return whose address this is, expanded; None: nobody's that is known here."""
    return next((peer for peer in PEERS if peer.address.search(address)), None)


def our_daemon(address: str, addresses: dict[str, str]) -> str:
    """Return which daemon of ours an expanded address is; empty: none. `addresses` are those that it listens at."""
    found = {token.text for token in tokens(address.strip("{} "))}
    for daemon, own in addresses.items():
        if found & {own, f"unix:mailward/{daemon}.sock", f"unix:/mailward/{daemon}.sock"}:
            return daemon
    return ""
