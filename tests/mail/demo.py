"""`make demo`: a handful of messages through real Postfixes with Mailward's milters, and what became of each.

First mail that leaves, which mailward-dkim-sign signs; then mail that comes in, which mailward-auth-verify judges; then mail of
strangers, which mailward-greylist puts off as long as it can tell who they are; then a stolen account, which mailward-policyd
stops. Starts the mail worlds of the tests in a temporary folder, on loopback, and removes them afterwards. With KEEP=1 they stay
until Ctrl-C, TERM or HUP, and it says how to send mail through them. Ends with status 1 if a message did not fare as it should,
and with 130 if it was stopped before all had.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType

from tests.mail.delivered import Delivered
from tests.mail.demo_greylist import MODE as GREYLISTED
from tests.mail.demo_greylist import MODES as GREYLISTING_MODES
from tests.mail.demo_greylist import RECIPIENT as READER
from tests.mail.demo_greylist import SCENES as STRANGERS
from tests.mail.demo_greylist import play_greylisting
from tests.mail.demo_inbound import SCENES as INCOMING
from tests.mail.demo_inbound import play_incoming
from tests.mail.demo_limits import INCIDENTS, play_limits
from tests.mail.demo_limits import MODE as LIMITED
from tests.mail.demo_limits import MODES as LIMITING_MODES
from tests.mail.demo_limits import SCENES as INCIDENT
from tests.mail.domains import EXAMPLE_COM, HOSTED, Signature
from tests.mail.greylisting import Greylisting
from tests.mail.inbound import RECEIVER as INBOUND_DOMAIN
from tests.mail.inbound import Inbound
from tests.mail.installation import ALICE, BOB, PASSWORD, RECEIVER, STRANGER_ADDRESS, Installation
from tests.mail.limiting import Limiting
from tests.mail.messages import message
from tests.support.processes import ProgramError, open_folder

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # HUP: the terminal was closed, or the line to it has broken
STOPPED_STATUS = 130

MEANINGS = {
    "not-authenticated": "its client neither logged in nor is one of our networks",
    "no-right-for-domain": "this login may not speak for the From domain",
    "no-key-for-domain": "we have no key for the From domain",
}

INSTRUCTIONS = """
It stays until Ctrl-C. Send mail through it as a customer, as a local program, as a stranger on port 25 (with swaks):

  swaks --server 127.0.0.1 --port {here.submission_port} --from {alice} --to {to} \\
        --auth PLAIN --auth-user {alice} --auth-password {password}

  printf 'From: {alice}\\nSubject: hello\\n\\nHello.\\n' | sendmail -C {here.sender.etc} -f {alice} {to}

  swaks --server 127.0.0.1 --port {here.port_25_number} --from {alice} --to {to} --xclient ADDR=198.51.100.7

The other login is {bob}, with the same password. All mail arrives in {here.inbox}

  configuration  {here.configuration}
  daemon's log   {here.signer.output_path}
  Postfix's log  {here.sender.log_path}
  metrics        http://127.0.0.1:{here.metrics_port}/metrics  (also /healthz, /readyz, and a status page at /)

Mail from outside to {owner}, as a stranger of your choice; --port {rejecting} where forgeries are refused:

  swaks --server 127.0.0.1 --port {quarantining} --from x@attacker.example --h-From ceo@bank.example --to {owner} \\
        --xclient ADDR=203.0.113.66

It arrives in {inbound.dovecot.folder}/mail/me/Maildir (quarantined: in its .Junk).

  configuration  {verifier.configuration}
  daemon's log   {verifier.output_path}
  Postfix's log  {inbound.postfix.log_path}
  metrics        http://127.0.0.1:{verifier.port}/metrics

Mail of strangers, which is put off for two seconds; sent again after that, it comes in:

  swaks --server 127.0.0.1 --port {greylisting} --from x@stranger.example --to {reader} --xclient ADDR=203.0.113.67

It arrives in {strangers.folder}/mail/inbox/new

  configuration  {greylister.configuration}  (for `mailward greylist`, too)
  daemon's log   {greylister.output_path}
  Postfix's log  {strangers.postfix.log_path}
  metrics        http://127.0.0.1:{greylister.port}/metrics

Mail of an account that is limited as by default, and its mailbox:

  swaks --server 127.0.0.1 --port {limiting} --from {alice} --to x@receiver.example \\
        --auth PLAIN --auth-user {alice} --auth-password {password}

  curl -s imap://127.0.0.1:{imap}/INBOX --user {alice}:{password}

All mail arrives in {limits.folder}/mail/inbox/new, the postmaster's, too.

  configuration  {policyd.configuration}  (for `mailward limits`, too)
  daemon's log   {policyd.output_path}
  Postfix's log  {limits.postfix.log_path}
  metrics        http://127.0.0.1:{policyd.port}/metrics
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """One message: how it comes in, who it says it is from, and the signatures it should come out with."""

    way: str
    author: str
    send: Callable[[Installation, bytes], str]
    expected: tuple[Signature, ...]


def by_sendmail(here: Installation, raw: bytes) -> str:
    """Send as a local program does."""
    return here.sendmail(raw)


def by_login(login: str) -> Callable[[Installation, bytes], str]:
    """Send as that customer's mail program does."""
    return lambda here, raw: here.submit(raw, login=login, mail_from=login)


def by_stranger(here: Installation, raw: bytes) -> str:
    """Send as a foreign mail server does."""
    recipient = here.new_recipient()
    with here.port_25(client=STRANGER_ADDRESS) as session:
        session.sendmail(ALICE, [recipient], raw)
    return recipient


SCENES = (
    Scene(f"submission, logged in as {ALICE}", f"Alice <{ALICE}>", by_login(ALICE), EXAMPLE_COM.signatures),
    Scene("submission, from a subdomain", "shop@news.example.com", by_login(ALICE), EXAMPLE_COM.signatures),
    Scene("submission, signed for customer and provider", "x@hosted.example", by_login(ALICE), HOSTED.signatures),
    Scene("sendmail(1), a program on this machine", "cron@example.com", by_sendmail, EXAMPLE_COM.signatures),
    Scene(f"port 25, a stranger at {STRANGER_ADDRESS}", f"Alice <{ALICE}>", by_stranger, ()),
    Scene(f"submission, {BOB} borrowing Alice's domain", f"Alice <{ALICE}>", by_login(BOB), ()),
    Scene("sendmail(1), a domain we have no key for", "me@keyless.example", by_sendmail, ()),
)


def main() -> int:
    """Run the demo and return the exit status."""
    for number in STOPS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup(1) has it
            signal.signal(number, stop)
    try:
        with open_folder("mailward-demo-") as folder:
            incoming, strangers, limits = folder / "incoming", folder / "strangers", folder / "limits"
            for own in (incoming, strangers, limits):
                own.mkdir()
            status = play(
                Installation(folder),
                Inbound(incoming, ("quarantine", "reject")),
                Greylisting(strangers, GREYLISTING_MODES),
                Limiting(limits, LIMITING_MODES, incidents=INCIDENTS),
            )
    except ProgramError as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        status = STOPPED_STATUS
    if status == STOPPED_STATUS or is_kept():
        tell("Stopped, and cleaned up.")
    return status


def play(here: Installation, inbound: Inbound, strangers: Greylisting, limits: Limiting) -> int:
    """Start the worlds, play every scene in them, and keep them if asked to."""
    print(f"Starting Postfix (five), Dovecot, NSD, OpenDKIM and Mailward's daemons in {here.folder} ...", flush=True)
    started = time.monotonic()
    with here, inbound, strangers, limits:
        print(f"Ready after {time.monotonic() - started:.1f} s.\n")
        print(f"Mail that leaves: signed by mailward-dkim-sign, and it goes all the way to {RECEIVER}.\n")
        unexpected = [number for number, scene in enumerate(SCENES, 1) if not play_scene(here, number, scene)]
        print("Mail that comes in: judged by mailward-auth-verify.\n")
        unexpected += play_incoming(inbound, len(SCENES) + 1)
        print("Mail of strangers: put off by mailward-greylist, once, as long as that can work.\n")
        unexpected += play_greylisting(strangers, len(SCENES) + len(INCOMING) + 1)
        print("A stolen account: stopped by mailward-policyd, and told of, once.\n")
        unexpected += play_limits(limits, len(SCENES) + len(INCOMING) + len(STRANGERS) + 1)
        if unexpected:
            print(f"Not as it should be: {', '.join(str(number) for number in unexpected)}")
        else:
            print(f"All {len(SCENES) + len(INCOMING) + len(STRANGERS) + len(INCIDENT)} as they should be.")
        if is_kept():
            keep(here, inbound, strangers, limits)
    return 1 if unexpected else 0


def play_scene(here: Installation, number: int, scene: Scene) -> bool:
    """Send one message, tell what became of it, and say whether that is as it should be."""
    raw = message(f"Subject: demo message {number}", "To: bob@" + RECEIVER, author=scene.author)
    recipient = scene.send(here, raw)
    delivered = here.delivered(recipient)
    print(f"{number}. {scene.way}")
    print(f"   From: {scene.author}   To: {recipient}")
    for line in describe(delivered):
        print("   " + line)
    if not delivered.dkimpy:
        reason = here.log_fields(recipient).get("reason", "")
        print(f"   not signed: {reason} ({MEANINGS.get(reason, 'see the log')})")
    print(flush=True)
    return not delivered.faults(scene.expected)


def describe(delivered: Delivered) -> list[str]:
    """Say of each signature what it is and what both verifiers think of it."""
    lines = []
    for verified in delivered.dkimpy:
        names = (verified.selector, verified.algorithm, verified.domain)
        opendkim = [each.result for each in delivered.opendkim if each.signature == Signature(*names)]
        own = f"signed: d={verified.domain:<17} s={verified.selector:<9} a={verified.algorithm:<15}"
        words = f"OpenDKIM: {', '.join(opendkim) or 'nothing'}, dkimpy: {'pass' if verified.passes else 'fail'}"
        lines.append(f"{own} {words}")
    return lines


def is_kept() -> bool:
    """Tell whether the worlds are to stay."""
    return os.environ.get("KEEP", "") not in ("", "0")


def keep(here: Installation, inbound: Inbound, strangers: Greylisting, limits: Limiting) -> None:
    """Say how to use the worlds, and leave them running until Ctrl-C or TERM."""
    values = {
        "here": here,
        "alice": ALICE,
        "bob": BOB,
        "password": PASSWORD,
        "to": f"me@{RECEIVER}",
        "owner": f"me@{INBOUND_DOMAIN}",
        "inbound": inbound,
        "verifier": inbound.verifiers["quarantine"],
        "quarantining": inbound.ports["quarantine"],
        "rejecting": inbound.ports["reject"],
        "strangers": strangers,
        "greylister": strangers.greylisters[GREYLISTED],
        "greylisting": strangers.ports[GREYLISTED],
        "reader": READER,
        "limits": limits,
        "policyd": limits.first,
        "limiting": limits.ports[LIMITED],
        "imap": limits.imap_port,
    }
    print(INSTRUCTIONS.format(**values), flush=True)
    with suppress(KeyboardInterrupt):
        threading.Event().wait()


def stop(_number: int, _frame: FrameType | None) -> None:
    """Clean up and end; who cannot wait for that, and asks again, must not leave half of it behind."""
    for number in STOPS:
        signal.signal(number, lambda _number, _frame: None)
    tell("\nStopping ...")
    raise KeyboardInterrupt


def tell(words: str) -> None:
    """Say something, if there still is a terminal that takes it."""
    with suppress(OSError):
        os.write(sys.stderr.fileno(), f"{words}\n".encode())


if __name__ == "__main__":
    sys.exit(main())
