"""A receiver's mail world in one folder: a Postfix with mailward-greylist on its port 25, DNS, and an inbox.

    strangers -- port 25 (one for each way greylisting can be configured) -- Postfix -- virtual(8) --> a maildir
                                                                                |
                                                             mailward-greylist -+- NSD, with who may send for whom
                                                                                +- state: SQLite, or Redis if it is given

Everything is a real program on loopback; nothing is asked of the network. Clients choose their address, name and login by
XCLIENT. Each has a network of its own unless it is given one, for who has passed once is known from then on.
"""

from __future__ import annotations

import re
import smtplib
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.mail.inbound import read_main_cf
from tests.support.greylister import AUTHSERV_ID, Greylister
from tests.support.nameserver import Nameserver
from tests.support.postfix import Postfix, maildir_settings, smtpd_service
from tests.support.processes import ProgramError, free_port, require_root, wait_until
from tests.support.smtp_client import SmtpReply

RECEIVER = "receiver.example"
EXAMPLE = Path(__file__).parents[2] / "examples" / "postfix" / "greylist.main.cf"
SHIPPED_TIMEOUT = "command_timeout=10s"
SHIPPED_SOCKET = "unix:mailward/greylist.sock"
MESSAGE = b"From: somebody@sender.example\r\nSubject: hello\r\n\r\nHello.\r\n"
DELIVERY_SECONDS = 30.0
RETRY_SECONDS = 20.0
LOG_LINES = 15
REPLY = re.compile(r"4\.7\.1 Greylisted[,;] try again in (\d+) seconds?")
DELIVERED_TO = re.compile(rb"^Delivered-To: (\S+)$", re.MULTILINE)

# pool.example sends from two networks, one.example from one; unnamed networks, and senders elsewhere, have no SPF.
POOL = ("198.51.100.10", "203.0.113.10")
POOL_STRANGER = "192.0.2.99"
LISTED_CLIENT, LISTED_NAME = "192.0.2.77", "out.listed.example"
PRETENDER = "192.0.2.78"
RECORDS = f"""\
pool.example. IN TXT "v=spf1 ip4:198.51.100.0/24 ip4:203.0.113.0/24 -all"
one.example. IN TXT "v=spf1 ip4:192.0.2.16/28 -all"
{LISTED_NAME}. IN A {LISTED_CLIENT}
77.2.0.192.in-addr.arpa. IN PTR {LISTED_NAME}.
78.2.0.192.in-addr.arpa. IN PTR {LISTED_NAME}.
"""

QUICK = 'delay = "1s"\nfield = true'
# How the greylisting of each port is configured.
MODES = {
    "quick": f'{QUICK}\nnetworks = ["127.0.0.0/8", "192.0.2.64/29"]\nnames = ["listed.example"]\n'
    'senders = ["listed-sender.example"]\nrecipients = ["postmaster@receiver.example"]',
    "slow": 'delay = "1m"',
    "shadow": 'delay = "1m"\nshadow = true',
    "counting": 'delay = "1s"\nauto_whitelist = 5\nauto_whitelist_interval = "1s"',
}


@dataclass(frozen=True, slots=True)
class Client:
    """Who connects: address, confirmed name if it has one, and the login it gave."""

    address: str
    name: str = "[UNAVAILABLE]"
    login: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """How one message was answered: each recipient, and the message itself where any was accepted."""

    recipients: tuple[SmtpReply, ...]
    ending: SmtpReply | None

    @property
    def is_accepted(self) -> bool:
        """Whether the message was accepted, for every recipient."""
        return self.ending is not None and self.ending.code == 250 and all(r.code == 250 for r in self.recipients)

    @property
    def is_greylisted(self) -> bool:
        """Whether the only recipient was told to come again."""
        return len(self.recipients) == 1 and is_greylisting(self.recipients[0])


@dataclass(slots=True)
class Greylisting:
    """The world; use it as a context manager. `modes` are names and configurations, as in MODES.

    `states` says where the state of a mode is kept; of those that it does not name, in a folder of their own.
    `command_timeout` is how long Postfix waits for the daemon, where that is not as shipped. `milters` is smtpd's list of
    them, and `settings` are further ones of main.cf.
    """

    folder: Path
    modes: Mapping[str, str] = field(default_factory=lambda: dict(MODES))
    states: Mapping[str, str] = field(default_factory=dict)
    workers: int = 1
    command_timeout: str = "10s"
    milters: str = "$mailward_greylist"
    settings: Mapping[str, str] = field(default_factory=dict)
    nameserver: Nameserver = field(init=False)
    ports: dict[str, int] = field(init=False)
    greylisters: dict[str, Greylister] = field(init=False)
    postfix: Postfix = field(init=False)
    _numbers: int = 0
    _running: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything; it is ready for mail when this returns."""
        require_root()
        self.ports = {mode: free_port() for mode in self.modes}
        with ExitStack() as started:
            self.nameserver = started.enter_context(Nameserver(self.folder / "nsd", {".": RECORDS}))
            self.greylisters = {mode: self._greylister(mode) for mode in self.modes}
            self.postfix = self._postfix()
            programs: tuple[Greylister | Postfix, ...] = (*self.greylisters.values(), self.postfix)
            for program in programs:
                started.callback(program.stop)
                program.start()
            self._running = started.pop_all()

    def stop(self) -> None:
        """Stop everything, last started first."""
        self._running.close()

    def attempt(
        self, client: Client, mail_from: str, *rcpt_to: str, mode: str = "quick", message: bytes = MESSAGE
    ) -> Attempt:
        """Send a message as a mail server does, once: to whom Postfix accepts, if there is anybody."""
        with self.session(client, mode=mode) as session:
            session.mail(mail_from)
            replies = tuple(_reply(session.rcpt(each), "rcpt") for each in rcpt_to)
            if not any(reply.code == 250 for reply in replies):
                return Attempt(replies, None)
            try:
                return Attempt(replies, _reply(session.data(message), "data"))
            except smtplib.SMTPDataError as error:  # DATA itself was refused
                return Attempt(replies, _reply((error.smtp_code, error.smtp_error), "data"))

    def retry(
        self, client: Client, mail_from: str, rcpt_to: str, *, mode: str = "quick", message: bytes = MESSAGE
    ) -> Attempt:
        """Send a message again and again until it is accepted, or for RETRY_SECONDS; return the last attempt."""
        deadline = time.monotonic() + RETRY_SECONDS
        while True:
            attempt = self.attempt(client, mail_from, rcpt_to, mode=mode, message=message)
            if attempt.is_accepted or time.monotonic() > deadline:
                return attempt
            time.sleep(0.05)

    @contextmanager
    def session(self, client: Client, *, mode: str = "quick") -> Iterator[smtplib.SMTP]:
        """Open a session as that client."""
        with smtplib.SMTP("127.0.0.1", self.ports[mode], local_hostname="client.example", timeout=60) as session:
            session.ehlo()
            login = f" LOGIN={client.login}" if client.login else ""
            code, text = session.docmd("XCLIENT", f"ADDR={client.address} NAME={client.name}{login}")
            assert code == 220, text
            session.ehlo()
            yield session

    def new_client(self) -> Client:
        """Return a client in a network nobody has heard of."""
        self._numbers += 1
        return Client(f"10.{self._numbers // 250}.{self._numbers % 250}.25")

    def new_recipient(self) -> str:
        """Return an address that has had no mail yet."""
        self._numbers += 1
        return f"box{self._numbers}@{RECEIVER}"

    def arrived(self, recipient: str) -> bytes:
        """Wait for the message to an address, and return it with LF line ends."""
        try:
            wait_until(lambda: bool(self._find(recipient)), f"mail to {recipient}", seconds=DELIVERY_SECONDS)
        except ProgramError:
            raise ProgramError(f"mail to {recipient} did not arrive\n{self.explain()}") from None
        (found,) = self._find(recipient)
        return found

    def has_mail(self, recipient: str) -> bool:
        """Say whether anything has arrived at an address."""
        return bool(self._find(recipient))

    def explain(self) -> str:
        """Return the end of every log."""
        logs = [self.postfix.log(), *(each.output() for each in self.greylisters.values())]
        return "\n".join("\n".join(log.splitlines()[-LOG_LINES:]) + "\n" for log in logs)

    def _find(self, recipient: str) -> list[bytes]:
        messages = [path.read_bytes() for path in (self.folder / "mail" / "inbox" / "new").glob("*")]
        return [each for each in messages if DELIVERED_TO.findall(each)[:1] == [recipient.encode()]]

    def _greylister(self, mode: str) -> Greylister:
        return Greylister(
            self.folder,
            self.modes[mode],
            nameservers=[self.nameserver.endpoint],
            name=f"greylist-{mode}",
            state=self.states.get(mode, ""),
            workers=self.workers,
        )

    def _postfix(self) -> Postfix:
        shipped = read_main_cf(EXAMPLE)
        milter = shipped.pop("mailward_greylist")
        assert SHIPPED_SOCKET in milter
        assert SHIPPED_TIMEOUT in milter
        milter = milter.replace(SHIPPED_TIMEOUT, f"command_timeout={self.command_timeout}")
        settings = {
            "myhostname": AUTHSERV_ID,
            **shipped,
            **maildir_settings(self.folder / "mail", RECEIVER),
            **self.settings,
        }
        services = []
        for mode, port in self.ports.items():
            own = milter.replace(SHIPPED_SOCKET, f"unix:{self.greylisters[mode].socket_path}")
            services.append(smtpd_service(port, {"mailward_greylist": own, "smtpd_milters": self.milters}))
        return Postfix(self.folder / "postfix", settings=settings, services=services, ports=list(self.ports.values()))


def is_greylisting(reply: SmtpReply) -> bool:
    """Say whether a reply is greylisting's."""
    return reply.code == 450 and REPLY.fullmatch(reply.text) is not None


def seconds_left(reply: SmtpReply) -> int:
    """Return the seconds that a reply of greylisting's tells."""
    match = REPLY.fullmatch(reply.text)
    assert reply.code == 450, reply
    assert match is not None, reply
    return int(match.group(1))


def values(message: bytes, name: bytes) -> list[bytes]:
    """Return the values of a message's fields of that name, the topmost first; fields in one line each."""
    return re.findall(rb"^" + name + rb":[ \t]*(.*)$", message.partition(b"\n\n")[0], re.MULTILINE | re.IGNORECASE)


def _reply(answer: tuple[int, bytes | str], command: str) -> SmtpReply:
    code, text = answer
    return SmtpReply(code, text if isinstance(text, str) else text.decode("utf-8", "replace"), command)
