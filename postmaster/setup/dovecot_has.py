"""What the operator's Dovecot has, asked of what doveconf printed: of 2.3 and of 2.4. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path

from postmaster.setup.dovecot_text import Block, words

BASE_FOLDER = Path("/run/dovecot")
# Those whose password Dovecot gets to see; OAuth's token is one to it.
_OPEN_MECHANISMS = ("plain", "login", "oauthbearer", "xoauth2", "external", "anonymous")


class Delivery(Enum):
    """How mail gets into a mailbox by Dovecot; the name of its protocol."""

    LMTP = "lmtp"
    LDA = "lda"


def is_known(version: tuple[int, int]) -> bool:
    """Say whether there are examples for this version; newer 2.x read those of 2.4."""
    return version == (2, 3) or (version[0] == 2 and version[1] >= 4)


def sockets_of_auth(settings: Block) -> tuple[Path, ...]:
    """Return the UNIX sockets of the auth service, as far as they are configured."""
    base = Path(settings.get("base_dir") or BASE_FOLDER)
    listeners = _all_within(settings, ("service", "auth"), "unix_listener")
    return tuple(base / (each.get("path") or each.title) for each in listeners if _is_open(each))


def _is_open(listener: Block) -> bool:
    """Say whether a listener listens: one of mode 0 does not."""
    mode = listener.get("mode", "0600")
    return not mode.isdigit() or int(mode, 8 if set(mode) <= set("01234567") else 10) != 0


def asks_policy_server(settings: Block) -> str:
    """Return the URL of the policy server that Dovecot asks, or nothing."""
    return settings.get("auth_policy_server_url")


def has_doveadm(settings: Block) -> bool:
    """Say whether doveadm's HTTP API is configured, or its key, of which there can be only one."""
    listeners = _all_within(settings, ("service", "doveadm"), "inet_listener")
    is_listening = any(each.title == "http" and each.get("port", "0") != "0" for each in listeners)
    return is_listening or bool(settings.get("doveadm_api_key"))


def hidden_password_mechanisms(settings: Block) -> tuple[str, ...]:
    """Return the mechanisms by which a password is proven and never shown."""
    return tuple(each for each in listed(settings, "auth_mechanisms") if each.lower() not in _OPEN_MECHANISMS)


def remembers_passwords(settings: Block) -> bool:
    """Say whether Dovecot caches who has logged in."""
    return settings.get("auth_cache_size", "0").strip("0 kMGTB") != ""


def quota_status_answers_ok(settings: Block) -> bool:
    """Say whether there is a quota-status for Postfix whose answer ends the list it stands in."""
    listeners = (*_all_within(settings, ("service", "quota-status"), "unix_listener"),)
    listeners += (*_all_within(settings, ("service", "quota-status"), "inet_listener"),)
    success = settings.get("quota_status_success") or plugin(settings, "quota_status_success") or "OK"
    return bool(listeners) and success.split()[0].upper() not in ("DUNNO", "WARN", "INFO")


def delivers_by(settings: Block, deliveries: Sequence[str] | None) -> tuple[Delivery, ...]:
    """Return the ways by which Dovecot delivers; `deliveries` are Postfix's transports and commands, None where nobody knows.

    >>> delivers_by(Block(settings={"protocols": "imap lmtp"}), ["lmtp:unix:private/dovecot-lmtp"])
    (<Delivery.LMTP: 'lmtp'>,)
    """
    has_lmtp = Delivery.LMTP.value in listed(settings, "protocols")
    if deliveries is None:
        return (Delivery.LMTP,) if has_lmtp else ()
    ways = []
    if has_lmtp and any(each.strip().startswith("lmtp:") for each in deliveries):
        ways.append(Delivery.LMTP)
    if any("dovecot-lda" in each or "dovecot/deliver" in each for each in deliveries):
        ways.append(Delivery.LDA)
    return tuple(ways)


def has_sieve(settings: Block, delivery: Delivery) -> bool:
    """Say whether Sieve is on for a way of delivery."""
    return "sieve" in listed(settings, "mail_plugins") or any(
        "sieve" in listed(each, "mail_plugins") for each in settings.all("protocol", delivery.value)
    )


def free_sieve_before(settings: Block) -> str:
    """Return the first name of 2.3's sieve_before, sieve_before2 ... that is free: behind a gap Dovecot looks no further."""
    number = 1
    while plugin(settings, _sieve_before(number)):
        number += 1
    return _sieve_before(number)


def _sieve_before(number: int) -> str:
    return "sieve_before" if number == 1 else f"sieve_before{number}"


def plugin(settings: Block, name: str) -> str:
    """Return a setting of 2.3's plugin block."""
    for block in settings.all("plugin"):
        if name in block.settings:
            return block.settings[name]
    return ""


def junk_folder(settings: Block) -> str:
    """Return the name of the folder for junk: that of the special use, as the namespace of the inbox has it; else "Junk"."""
    for namespace in settings.all("namespace"):
        if namespace.get("inbox") != "yes":
            continue
        named = (each.get("name") or each.title for each in namespace.all("mailbox") if _is_junk(each))
        return namespace.get("prefix") + next(named, "Junk")
    return "Junk"


def _is_junk(mailbox: Block) -> bool:
    return any(use.lower() == "\\junk" for use in words(mailbox.get("special_use")))


def listed(block: Block, name: str) -> tuple[str, ...]:
    """Return a list's items: the words of a setting, or, in 2.4, what a block of that name says yes to."""
    items = dict.fromkeys(words(block.get(name)), True)
    for each in block.all(name):
        items.update({item: value == "yes" for item, value in each.settings.items()})
    return tuple(item for item, is_on in items.items() if is_on)


def _all_within(settings: Block, path: tuple[str, str], name: str) -> Iterator[Block]:
    for block in settings.all(*path):
        yield from block.all(name)
