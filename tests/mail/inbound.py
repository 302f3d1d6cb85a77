"""A receiver's mail world in one folder: a Postfix with mailward-auth-verify, DNS, and mailboxes.

    strangers -- port 25 (one for each way the verifier can be configured) --+
    customers -- submission (SASL by Dovecot) -------------------------------+-- Postfix -- LMTP --> Dovecot, Sieve
                                                                             |
                                                     mailward-auth-verify ---+--- NSD, with the zones of tests/attacks

Everything is a real program on loopback; nothing is asked of the network. Clients choose their address by XCLIENT.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.attacks.messages import Fields, split
from tests.attacks.row import AUTHSERV_ID, BY_BANK, Origin
from tests.attacks.world import SETTINGS, open_nameserver
from tests.support.dovecot import Dovecot
from tests.support.nameserver import Nameserver
from tests.support.postfix import Postfix, sasl_options, smtpd_service
from tests.support.processes import ProgramError, free_port, require_root, wait_until
from tests.support.smtp_client import SmtpReply, send_raw
from tests.support.verifier import Verifier

RECEIVER = "receiver.example"
CUSTOMER, PASSWORD = f"carol@{RECEIVER}", "correct-horse"
INBOX, JUNK = "", "Junk"
DELIVERY_SECONDS = 30.0
EXAMPLE = Path(__file__).parents[2] / "examples" / "postfix" / "auth-verify.main.cf"
SHIPPED_SOCKET = "unix:mailward/auth-verify.sock"
LOG_LINES = 15

# How the verifier of each port is configured.
MODES = {
    "reject": 'enforce = "reject"',
    "quarantine": "",
    "hold": 'quarantine = "hold"',
    "shadow": 'shadow = true\nenforce = "reject"',
    "later": 'on_temperror = "tempfail"',
}


@dataclass(frozen=True, slots=True)
class Arrived:
    """A delivered message: the mailbox, and the message with CRLF line ends, cut into fields and body."""

    mailbox: str
    octets: bytes
    fields: Fields
    body: bytes

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of the fields of that name, the topmost first."""
        return [value for field, value in self.fields if field.strip().lower() == name.lower()]


class Inbound:
    """The world; use it as a context manager. `modes` are the ones wanted of MODES."""

    def __init__(self, folder: Path, modes: Iterable[str] = tuple(MODES)) -> None:
        require_root()
        self.folder = folder
        self.dovecot = Dovecot(folder / "dovecot", {CUSTOMER: PASSWORD}, has_mailboxes=True)
        self.ports = {mode: free_port() for mode in modes}
        self.submission_port = free_port()
        self.nameserver: Nameserver
        self.verifiers: dict[str, Verifier] = {}
        self.postfix: Postfix
        self._shipped = read_main_cf(EXAMPLE)
        self._milter_as_shipped = self._shipped.pop("mailward_auth_verify")
        self._recipients = 0
        self._running = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as started:
            self.nameserver = started.enter_context(open_nameserver(self.folder))
            for mode in self.ports:
                self.verifiers[mode] = self._verifier(mode)
            self.postfix = self._postfix()
            programs: tuple[Dovecot | Verifier | Postfix, ...] = (self.dovecot, *self.verifiers.values(), self.postfix)
            for program in programs:
                started.callback(program.stop)
                program.start()
            self._running = started.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def send(self, message: bytes, origin: Origin = BY_BANK, *, mode: str = "quarantine") -> tuple[str, SmtpReply]:
        """Send a message to a mailbox nobody has written to; return the mailbox's owner and how it was answered."""
        owner = self.new_owner()
        reply = send_raw(
            self.ports[mode],
            message,
            client=origin.client,
            helo=origin.helo,
            mail_from=origin.mail_from,
            recipient=f"{owner}@{RECEIVER}",
        )
        return owner, reply

    def deliver(self, message: bytes, origin: Origin = BY_BANK, *, mode: str = "quarantine") -> Arrived:
        """Send a message, which must be accepted, and return what arrives."""
        owner, reply = self.send(message, origin, mode=mode)
        assert reply.code == 250, reply
        return self.arrived(owner)

    def new_owner(self) -> str:
        """Return an account that has had no mail yet."""
        self._recipients += 1
        return f"box{self._recipients}"

    def arrived(self, owner: str) -> Arrived:
        """Wait for an account's one message."""
        try:
            wait_until(lambda: bool(self._find(owner)), f"mail to {owner}", seconds=DELIVERY_SECONDS)
        except ProgramError:
            raise ProgramError(f"mail to {owner} did not arrive\n{self.explain()}") from None
        (found,) = self._find(owner)
        return found

    def has_mail(self, owner: str) -> bool:
        """Say whether anything has arrived for an account."""
        return bool(self._find(owner))

    @contextmanager
    def without_dns(self) -> Iterator[None]:
        """Have the nameserver away for a while."""
        self.nameserver.stop()
        try:
            yield
        finally:
            self.nameserver.program.start()

    def explain(self) -> str:
        """Return the end of every log."""
        logs = [self.postfix.log(), self.dovecot.log(), *(each.output() for each in self.verifiers.values())]
        return "\n".join("\n".join(log.splitlines()[-LOG_LINES:]) + "\n" for log in logs)

    def _find(self, owner: str) -> list[Arrived]:
        found = []
        for mailbox in (INBOX, JUNK):
            for path in self.dovecot.mailbox(owner, mailbox):
                # A maildir's LF was CRLF on the wire, wherever it stands; a bare CR is content.
                octets = path.read_bytes().replace(b"\n", b"\r\n")
                found.append(Arrived(mailbox, octets, *split(octets)))
        return found

    def _verifier(self, mode: str) -> Verifier:
        return Verifier(
            self.folder,
            f"{SETTINGS}{MODES[mode]}",
            nameservers=[self.nameserver.endpoint],
            authserv_id=AUTHSERV_ID,
            name=f"auth-verify-{mode}",
        )

    def _postfix(self) -> Postfix:
        settings = {
            "myhostname": AUTHSERV_ID,
            "virtual_mailbox_domains": RECEIVER,
            "virtual_mailbox_maps": "static:all",
            "virtual_transport": f"lmtp:unix:{self.dovecot.lmtp}",
            # XCLIENT comes too late for Postfix to see that this client's header is not its own to rewrite.
            "local_header_rewrite_clients": "",
            **self._shipped,
            "lmtp_line_length_limit": "0",  # what is compared is what the milter saw
        }
        services = self._services()
        submission = {
            "smtpd_milters": self._milter(next(iter(self.ports))),
            "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
            **sasl_options(self.dovecot.socket),
        }
        services.append(smtpd_service(self.submission_port, submission))
        ports = [*self.ports.values(), self.submission_port]
        return Postfix(self.folder / "postfix", settings=settings, services=services, ports=ports)

    def _services(self) -> list[str]:
        """Return the smtpd of each port."""
        return [smtpd_service(port, {"smtpd_milters": self._milter(mode)}) for mode, port in self.ports.items()]

    def _milter(self, mode: str) -> str:
        """Return the milter as the shipped example has it, at the socket of that mode's daemon."""
        assert SHIPPED_SOCKET in self._milter_as_shipped
        return self._milter_as_shipped.replace(SHIPPED_SOCKET, f"unix:{self.verifiers[mode].socket_path}")


def read_main_cf(path: Path) -> dict[str, str]:
    """Return the settings of a main.cf whose every setting is on one line."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}
