"""Telling of incidents: by mail, to a webhook, to a command. Each either has taken a notice, or says why not.

Nothing here is tried again, and nothing is remembered: policyd.telling does that. Every way ends within TELL_SECONDS.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import smtplib
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from functools import partial
from hashlib import blake2b
from typing import ParamSpec, Protocol, TypeVar

from mailward.model.ports import OnEvent
from policyd.http_client import HttpError, place_of, post_json
from policyd.notice import Notice, as_json, as_variables, shown, subject, text

ANSWER_SECONDS = 10.0  # for one answer of Postfix, or the webhook's
MAIL_SECONDS = 30.0  # for the whole conversation: a server that sends an octet a second does not hold us for hours
COMMAND_SECONDS = 20.0
TELL_SECONDS = 60.0  # more than any of them: what takes longer is our bug
MAX_OUTPUT = 2000  # octets of a command's that are logged; the rest is read and dropped
POLL_MS = 50

# Of their own, for mail and commands may hang: asyncio's are for what is over at once. One pool for the process, whatever its
# reloads leave behind; enough that mail which hangs for every account that is told of keeps no command waiting. None is
# started before the first notice.
TELLERS = 16
_TELLERS = ThreadPoolExecutor(TELLERS, thread_name_prefix="tell")

P = ParamSpec("P")
T = TypeVar("T")


class NotifyError(Exception):
    """A notice was not taken; the text says why."""


class Channel(Protocol):
    """One way to tell; `name` is a word for the log."""

    name: str

    async def send(self, notice: Notice) -> None:
        """Tell. Raises NotifyError."""


@dataclass(frozen=True, slots=True)
class NotifyRules:
    """Whom to tell, and how. Nothing named: nobody. `webhook_key` is the key itself.

    `authserv_id` is this machine's name. `mail_from` empty: the null sender on the envelope, and postmaster of this machine in
    the header, so that nothing ever bounces.
    """

    authserv_id: str
    mail_to: tuple[str, ...] = ()
    mail_from: str = ""
    smtp_host: str = "127.0.0.1"
    smtp_port: int = 25
    webhook: str = ""
    webhook_key: str = ""
    command: tuple[str, ...] = ()


def channels_of(rules: NotifyRules, on_event: OnEvent) -> tuple[Channel, ...]:
    """Return a channel for each way that is configured."""
    channels: list[Channel] = []
    if rules.mail_to:
        channels.append(Mail(rules, on_event))
    if rules.webhook:
        channels.append(Webhook(rules.webhook, rules.webhook_key))
    if rules.command:
        channels.append(Command(rules.command, on_event))
    return tuple(channels)


class Mail:
    """Mail by SMTP, to Postfix on loopback: sendmail(1) fails where a service may gain no privileges."""

    name = "mail"

    def __init__(self, rules: NotifyRules, on_event: OnEvent) -> None:
        self._rules = rules
        self._on_event = on_event

    async def send(self, notice: Notice) -> None:
        """Hand the mail over. Raises NotifyError where not one recipient was accepted."""
        try:
            refused = await _in_thread(self._deliver, make_mail(self._rules, notice))
        except (OSError, ValueError) as error:  # SMTPException is an OSError; ValueError: an address that is not ASCII
            raise NotifyError(_smtp_words(error)) from None
        for address in refused:
            self._on_event("error", "notification-recipient-refused", recipient=address)

    def _deliver(self, content: bytes) -> Sequence[str]:
        """Speak SMTP, in a thread; return the recipients that were refused."""
        rules = self._rules
        session = smtplib.SMTP(
            local_hostname=rules.authserv_id, timeout=ANSWER_SECONDS
        )  # without a name it asks the DNS
        watch = threading.Timer(MAIL_SECONDS, _cut, (session,))
        watch.daemon = True
        watch.start()
        try:
            code, words = session.connect(rules.smtp_host, rules.smtp_port)
            if code != 220:
                raise smtplib.SMTPConnectError(code, words)
            refused = session.sendmail(rules.mail_from, rules.mail_to, content)
            with suppress(OSError):  # it is sent, whatever the answer to this
                session.quit()
            return list(refused)
        finally:
            watch.cancel()
            session.close()


def make_mail(rules: NotifyRules, notice: Notice) -> bytes:
    """Return the mail's octets (RFC 5322), with lines that end as SMTP wants."""
    mail = EmailMessage(policy=SMTP)
    mail["From"] = f"Mailward <{rules.mail_from or f'postmaster@{rules.authserv_id}'}>"
    mail["To"] = ", ".join(_whole(address, rules.authserv_id) for address in rules.mail_to)
    mail["Subject"] = subject(notice)
    mail["Date"] = formatdate(localtime=True)
    mail["Message-ID"] = f"<{_identity(notice)}@{rules.authserv_id}>"
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834 5: no vacation message answers it
    words = text(notice)
    mail.set_content(words, cte="7bit" if words.isascii() else "quoted-printable")
    return mail.as_bytes()


class Webhook:
    """A POST of JSON."""

    name = "webhook"

    def __init__(self, url: str, key: str = "", seconds: float = ANSWER_SECONDS) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._seconds = seconds

    async def send(self, notice: Notice) -> None:
        """Post. Raises NotifyError unless the status says that it was taken."""
        try:
            reply = await post_json(self._url, as_json(notice), self._headers, self._seconds)
        except HttpError as error:
            raise NotifyError(f"{place_of(self._url)}: {error}") from None
        if not 200 <= reply.status < 300:
            raise NotifyError(f"{place_of(self._url)}: HTTP status {reply.status}")


class Command:
    """A program of the operator's, started without a shell: JSON on its standard input, MAILWARD_* in its environment."""

    name = "command"

    def __init__(self, words: Sequence[str], on_event: OnEvent, seconds: float = COMMAND_SECONDS) -> None:
        self._words = tuple(words)
        self._on_event = on_event
        self._seconds = seconds

    async def send(self, notice: Notice) -> None:
        """Run it to its end. Raises NotifyError unless its status is 0."""
        environment = {"PATH": os.environ.get("PATH", os.defpath), **as_variables(notice)}
        try:
            status, output = await _in_thread(run, self._words, as_json(notice), environment, self._seconds)
        except (OSError, ValueError) as error:  # ValueError: a NUL among the words
            raise NotifyError(f"{self._words[0]}: {getattr(error, 'strerror', '') or type(error).__name__}") from None
        words = shown(output.decode("utf-8", "backslashreplace").strip())
        if status is None:
            raise NotifyError(f"{self._words[0]}: not done within {self._seconds:g} s, killed; it said: {words}")
        if status:
            raise NotifyError(f"{self._words[0]}: exit status {status}; it said: {words}")
        if words:
            self._on_event("info", "notification-command-output", command=self._words[0], output=words)


def run(words: Sequence[str], given: bytes, environment: Mapping[str, str], seconds: float) -> tuple[int | None, bytes]:
    """Run a command in a session of its own and return its status, None where it had to be killed, and what it said first.

    What it leaves running in the background when it ends by itself is left alone.
    """
    read_end, write_end = os.pipe()
    try:
        os.write(write_end, given)  # a pipe holds 64 kB, a notice has a few: nobody waits
    finally:
        os.close(write_end)
    try:
        started = subprocess.Popen(  # noqa: S603 - the operator's own words, and no shell
            words,
            stdin=read_end,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd="/",
            start_new_session=True,
        )
    finally:
        os.close(read_end)
    output = bytearray()
    has_ended = False
    try:
        has_ended = _listen(started, output, time.monotonic() + seconds)
    finally:
        if not has_ended:
            with suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)
        status = started.wait()
        assert started.stdout is not None
        started.stdout.close()
    return status if has_ended else None, bytes(output)


async def _in_thread(act: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    return await asyncio.get_running_loop().run_in_executor(_TELLERS, partial(act, *arguments, **named))


def _listen(started: subprocess.Popen[bytes], output: bytearray, deadline: float) -> bool:
    """Read what a command says until it ends, or the time is over; say whether it has ended."""
    assert started.stdout is not None
    descriptor = started.stdout.fileno()
    os.set_blocking(descriptor, False)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while time.monotonic() < deadline:
        has_ended = started.poll() is not None  # asked before reading, so that its last words are read
        if poll.poll(0 if has_ended else POLL_MS):
            with suppress(BlockingIOError):
                said = os.read(descriptor, 65536)
                output += said[: MAX_OUTPUT - len(output)]
                if not said and not has_ended:  # it has closed its output and goes on
                    with suppress(subprocess.TimeoutExpired):
                        started.wait(POLL_MS / 1000)
        if has_ended:
            return True
    return False


def _cut(session: smtplib.SMTP) -> None:
    """End a conversation from outside."""
    with suppress(OSError, AttributeError):
        session.sock.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]


def _whole(address: str, authserv_id: str) -> str:
    """Return an address as a header field needs it, with its domain."""
    return address if "@" in address else f"{address}@{authserv_id}"


def _identity(notice: Notice) -> str:
    """Return the same for the same news, so that a notice which was sent twice can be known."""
    what = f"{notice.account}\0{notice.incident.opened_at!r}\0{notice.suspension.at if notice.suspension else 0!r}"
    digest = blake2b(what.encode("utf-8", "backslashreplace"), digest_size=12).hexdigest()
    return f"{notice.news.value}.{digest}"


def _smtp_words(error: Exception) -> str:
    """Return why SMTP failed; a server's words may be anything."""
    if isinstance(error, smtplib.SMTPResponseException):
        reply = error.smtp_error
        words = reply.decode("utf-8", "backslashreplace") if isinstance(reply, bytes) else str(reply)
        return shown(f"{error.smtp_code} {words}")
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return shown("every recipient was refused: " + "; ".join(str(reply) for reply in error.recipients.values()))
    return shown(str(error) or type(error).__name__)
