"""The texts of Mailward's files in Dovecot's folder: the shipped examples, with this machine's names in them. No I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from postmaster.setup.change import Wanted
from postmaster.setup.dovecot_facts import DovecotFacts
from postmaster.setup.dovecot_has import Delivery, free_sieve_before, has_sieve, junk_folder

HEAD = """\
# Written by `mailward setup`, which writes it anew; `mailward setup --undo` takes it away. Settings of your own: in other files.
"""

# What stands in the examples for what another machine may have otherwise.
SASL_SOCKET = "/var/spool/postfix/private/auth"
POLICY_SERVER = "http://127.0.0.1:9465/"
DOVEADM = re.compile(r"(address|listen) = 127\.0\.0\.1\n( *)port = 9466\n")
SECRETS = "/etc/dovecot/mailward-keys.conf"
SCRIPT = "/etc/dovecot/sieve/mailward-quarantine.sieve"
SIEVE_BEFORE = "sieve_before ="
JUNK = '"Junk"'

_LISTENER = re.compile(r"^  unix_listener (?:.*\n)*?  \}\n", re.MULTILINE)
_NONCE = re.compile(r"^auth_policy_hash_nonce = ([0-9a-f]{64})$", re.MULTILINE)


def make_sasl(facts: DovecotFacts, sockets: Sequence[Path]) -> bytes:
    """Return the auth service's listeners, one for each instance of Postfix's."""
    text = _made(facts, "sasl", {}).decode()
    match = _LISTENER.search(text)
    assert match is not None, "the example has no listener"
    listeners = (_replaced(match.group(), SASL_SOCKET, str(socket)) for socket in sockets)
    return (text[: match.start()] + "".join(listeners) + text[match.end() :]).encode()


def make_logins(facts: DovecotFacts, place: str) -> bytes:
    """Return what makes Dovecot ask policyd, which listens at `place`."""
    return _made(facts, "auth-policy", {POLICY_SERVER: f"http://{place}/", SECRETS: str(facts.ours.secrets)})


def make_doveadm(facts: DovecotFacts, place: str) -> bytes:
    """Return doveadm's HTTP listener, at `place`."""
    address, _, port = place.rpartition(":")
    text = _made(facts, "doveadm", {SECRETS: str(facts.ours.secrets)}).decode()
    text, count = DOVEADM.subn(rf"\1 = {address.strip('[]')}\n\2port = {port}\n", text)
    assert count == 1, "the example has another listener"
    return text.encode()


def make_secrets(facts: DovecotFacts, wanted: Wanted, is_listening: bool) -> bytes:
    """Return nonce and keys; a nonce that is there stays, or every wrong password would look new once."""
    there = _NONCE.search(facts.files.get(facts.ours.secrets, b"").decode("utf-8", "replace"))
    lines = [
        f"auth_policy_hash_nonce = {there.group(1) if there is not None else facts.nonce}",
        f"auth_policy_server_api_header = {_value(f'X-API-Key: {wanted.dovecot_key}')}",
    ]
    if is_listening:
        lines.append(f"doveadm_api_key = {_value(wanted.doveadm_key)}")
    return (HEAD + "\n".join(lines) + "\n").encode()


def make_script(facts: DovecotFacts) -> bytes:
    """Return the Sieve script, with the name that the folder for junk has here."""
    name = junk_folder(facts.settings)
    if not name.isprintable():  # it would be another script
        name = "Junk"
    quoted = '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'
    return (HEAD + _replaced(facts.examples["quarantine.sieve"], JUNK, quoted)).encode()


def make_sieve(facts: DovecotFacts, ways: Sequence[Delivery]) -> bytes:
    """Return what runs the script, for the ways that mail is delivered here and have no Sieve yet."""
    text = _made(facts, "sieve", {SCRIPT: str(facts.ours.script)}).decode()
    text = re.sub(r"^#(protocol lda \{\n)((?:#.*\n)+)", _uncommented, text, count=1, flags=re.MULTILINE)
    for way in Delivery:
        if way not in ways or has_sieve(facts.settings, way):
            text = re.sub(rf"^protocol {way.value} \{{\n(?: .*\n)*\}}\n", "", text, count=1, flags=re.MULTILINE)
    if SIEVE_BEFORE in text:  # 2.4 has names for them
        text = _replaced(text, SIEVE_BEFORE, f"{free_sieve_before(facts.settings)} =")
    return text.encode()


def _uncommented(match: re.Match[str]) -> str:
    return match.group(1) + re.sub("^#", "", match.group(2), flags=re.MULTILINE)


def _made(facts: DovecotFacts, name: str, replaced: dict[str, str]) -> bytes:
    """Return an example for this Dovecot with this machine's names in it."""
    text = facts.examples[f"{name}-{'2.3' if facts.version == (2, 3) else '2.4'}.conf"]
    for shipped, own in replaced.items():
        text = _replaced(text, shipped, own)
    return (HEAD + text).encode()


def _replaced(text: str, shipped: str, own: str) -> str:
    assert shipped in text, f"the example does not have {shipped}"
    return text.replace(shipped, own)


def _value(text: str) -> str:
    """Return a setting's value; one that Dovecot would read as something else is quoted."""
    if re.fullmatch(r"[A-Za-z0-9._:/=-]+(?: [A-Za-z0-9._:/=-]+)*", text):
        return text
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'
