"""The demo's second half: mail from outside, how mailward-auth-verify judges it, and each result explained."""

from __future__ import annotations

from dataclasses import dataclass

from tests.attacks import chains, controls
from tests.attacks.messages import sign, split, with_field
from tests.attacks.row import BY_ATTACKER, BY_BANK, BY_FORWARDER, BY_LIST, Origin
from tests.attacks.zones import LIST_KEY
from tests.mail.inbound import INBOX, JUNK, Arrived, Inbound
from tests.support.results_field import MethodResult, read_results_field
from tests.support.smtp_client import SmtpReply

WIDTH = 17  # of the column with the results
MAILBOXES = {INBOX: "Inbox", JUNK: "Junk, by examples/dovecot/quarantine.sieve"}

# What a result says, for somebody who reads one for the first time; the names are its properties.
MEANINGS = {
    ("dkim", "pass"): "the signature of {header.d} holds: what was signed is as it was sent",
    ("dkim", "fail"): "{header.d} signed this once, but not as it is now",
    ("dkim", "none"): "nobody signed it",
    ("spf", "pass"): "{client} may send for {domain}, says that domain",
    ("spf", "fail"): "{client} may not send for {domain}, says that domain",
    ("spf", "none"): "{domain} does not say who may send for it",
    ("dmarc", "pass"): "so it really is from {header.from}, the domain that readers see in From",
    ("dmarc", "fail"): "nothing shows that it is from {header.from}, which asks: p={policy.dmarc}",
    ("arc", "pass"): "those who forwarded it sealed what they saw, and the seals hold",
    ("arc", "none"): "no forwarder sealed it",
    ("iprev", "pass"): "the client's address has a name that leads back to it",
    ("iprev", "fail"): "the client's address has a name, and that name does not lead back to it",
    ("iprev", "permerror"): "the client's address has no name",
}


@dataclass(frozen=True, slots=True)
class Scene:
    """One message from outside, and where it should end: a mailbox, or None for refused."""

    way: str
    message: bytes
    origin: Origin
    expected: str | None
    mode: str = "quarantine"


SCENES = (
    Scene("the bank's own server, mail to its customer", controls.SIGNED, BY_BANK, INBOX),
    Scene(
        "a forwarder, who changed nothing",
        with_field(controls.SIGNED, b"Received: from mail.bank.example by out.forwarder.example"),
        BY_FORWARDER,
        INBOX,
    ),
    Scene("a forwarder who added a footer, and whose seals the operator trusts", chains.SEALED, BY_FORWARDER, INBOX),
    Scene(
        "a mailing list that added a footer, and that the operator named",
        sign(with_field(chains.FOOTER, chains.LIST_ID), LIST_KEY),
        BY_LIST,
        INBOX,
    ),
    Scene(
        "a forger, with an Authentication-Results field in our name",
        with_field(controls.PLAIN, b"Authentication-Results: mx.receiver.example; dmarc=pass header.from=bank.example"),
        BY_ATTACKER,
        JUNK,
    ),
    Scene('the same forger, where the operator says enforce = "reject"', controls.PLAIN, BY_ATTACKER, None, "reject"),
)


def play_incoming(here: Inbound, first: int) -> list[int]:
    """Play every scene, numbered from `first`; return the numbers of those that did not end as they should."""
    numbered = list(enumerate(SCENES, first))
    return [number for number, scene in numbered if not _play_scene(here, number, scene)]


def _play_scene(here: Inbound, number: int, scene: Scene) -> bool:
    origin = scene.origin
    owner, reply = here.send(scene.message, origin, mode=scene.mode)
    arrived = here.arrived(owner) if reply.code == 250 else None
    author = dict(split(scene.message)[0])[b"From"].decode().strip()
    print(f"{number}. port 25, {origin.client}: {scene.way}")
    print(f"   From: {author}   MAIL FROM: {origin.mail_from.decode()}   HELO: {origin.helo.decode()}")
    for line in _describe(scene.message, arrived, reply, origin.client):
        print("   " + line)
    print(flush=True)
    return (arrived.mailbox if arrived else None) == scene.expected


def _describe(sent: bytes, arrived: Arrived | None, reply: SmtpReply, client: str) -> list[str]:
    """Say of each result what it means, and where the message is."""
    if arrived is None:
        return [f"refused: {reply.code} {reply.text}"]
    ours = read_results_field(arrived.values(b"Authentication-Results")[0])
    lines = [line for result in ours.results for line in _explain(result, client)]
    forged = sent.count(b"Authentication-Results: mx.receiver.example")
    if forged:
        lines.append(f"deleted: {forged} field that somebody wrote in our name")
    return [*lines, f"it is in {MAILBOXES[arrived.mailbox]}"]


def _explain(result: MethodResult, client: str) -> list[str]:
    """Say what a result means, and in a second line what the field itself gives as its reason."""
    names = {"client": client, **result.properties}
    names["domain"] = names.get("smtp.mailfrom") or names.get("smtp.helo", "")
    text = MEANINGS.get((result.method, result.result), "")
    for name, value in names.items():
        text = text.replace("{" + name + "}", value)
    if "smtp.helo" in result.properties:
        text += ", its name in HELO"
    lines = [f"{result.method}={result.result}".ljust(WIDTH) + text]
    if result.reason and result.method != "iprev":
        lines.append(" " * WIDTH + f"reason: {result.reason}")
    return lines
