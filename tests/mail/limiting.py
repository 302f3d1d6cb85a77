"""A provider's mail world in one folder: submission and IMAP, with mailward-policyd behind Postfix and Dovecot, and an inbox.

    customers -- submission (one port for each way policyd can be configured) --+
    policyd's notifications, strangers -- port 25 ------------------------------+-- Postfix -- virtual(8) --> a maildir
                                                                                |      |
                                                      mailward-policyd (one for each way) -- SQLite, or Redis if it is given
                                                                                |
    customers -- IMAP -------------------------------------------------------- Dovecot (auth policy: the first of them)

Everything is a real program on loopback; nothing is asked of the network. Postfix's own brakes for clients that make errors are
off: whoever is refused goes on at once.
"""

from __future__ import annotations

import imaplib
import re
import smtplib
import threading
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.mail.inbound import read_main_cf
from tests.support.dovecot import Dovecot, major_and_minor
from tests.support.policy_server import PolicyServer
from tests.support.postfix import Postfix, maildir_settings, sasl_options, smtpd_service
from tests.support.processes import ProgramError, answers_on, free_port, require_root, run, wait_until

DOMAIN, RECEIVER = "example.com", "receiver.example"
ALICE, BOB, CAROL, DAVE = LOGINS = tuple(f"{name}@{DOMAIN}" for name in ("alice", "bob", "carol", "dave"))
POSTMASTER = f"postmaster@{DOMAIN}"
PASSWORD = "correct-horse"
CUSTOMER_ADDRESS = "192.0.2.25"
EXAMPLES = Path(__file__).parents[2] / "examples"
SHIPPED_MAIN = EXAMPLES / "postfix" / "policyd.main.cf"
SHIPPED_MASTER = EXAMPLES / "postfix" / "policyd.master.cf"
SHIPPED_SOCKET = "unix:mailward/policyd.sock"
SHIPPED_SERVER, SHIPPED_DOVEADM, SHIPPED_KEYS = "127.0.0.1:9465", "port = 9466", "/etc/dovecot/mailward-keys.conf"
DELIVERY_SECONDS = 60.0
LOG_LINES = 15
DELIVERED_TO = re.compile(rb"^Delivered-To: (\S+)$", re.MULTILINE)
MESSAGE = "From: {sender}\r\nTo: {recipient}\r\nSubject: hello\r\n\r\nHello.\r\n"
SERVICE = re.compile(r"^submission inet\b.*\n(?:[ \t#].*\n)+", re.MULTILINE)
OPTION = re.compile(r"^\s+-o (\w+)=(\S+)$", re.MULTILINE)

MAILBOXES = """\
protocols = imap
listen = 127.0.0.1
first_valid_uid = 1000
namespace inbox {{
  inbox = yes
}}
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
}}
"""
KEYS = """\
auth_policy_hash_nonce = 6f0c0b5e2a
auth_policy_server_api_header = X-API-Key: {key}
doveadm_api_key = {key}
"""
API_KEY = "s3cret-of-both"


@dataclass(frozen=True, slots=True)
class Reply:
    """How a message was answered in the end, and at which command; code 0 where the connection or the login failed."""

    code: int
    text: str
    command: str


@dataclass(slots=True)
class Tally:
    """What became of many messages: how many got which reply, and who the recipients are of those that were accepted.

    `replies` are by code and enhanced code; `texts` has a whole reply of each kind.
    """

    replies: Counter[str] = field(default_factory=Counter)
    texts: dict[str, str] = field(default_factory=dict)
    accepted: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Return how many messages were tried."""
        return sum(self.replies.values())

    def add(self, other: Tally) -> None:
        """Add another one's."""
        self.replies += other.replies
        self.texts = {**other.texts, **self.texts}
        self.accepted += other.accepted


@dataclass(slots=True)
class Limiting:
    """The world; use it as a context manager. `modes` are names, and tables that each policyd's configuration has.

    The first mode's policyd answers Dovecot, and port 25 asks it, too. `states` says where the state of a mode is kept; of those
    that it does not name, in a folder of their own. `incidents` are further lines of [policyd.incidents]. The ports of
    `asks_at_data` ask at DATA as well, which is a comment in the shipped example.
    """

    folder: Path
    modes: Mapping[str, str]
    states: Mapping[str, str] = field(default_factory=dict)
    incidents: str = ""
    asks_at_data: Container[str] = ()
    ports: dict[str, int] = field(init=False)
    port_25: int = field(init=False)
    imap_port: int = field(init=False)
    servers: dict[str, PolicyServer] = field(init=False)
    dovecot: Dovecot = field(init=False)
    postfix: Postfix = field(init=False)
    _numbers: int = 0
    _running: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def first(self) -> PolicyServer:
        """Return the policyd that Dovecot asks."""
        return next(iter(self.servers.values()))

    def start(self) -> None:
        """Start everything; it is ready for mail when this returns."""
        require_root()
        self.ports = {mode: free_port() for mode in self.modes}
        self.port_25, self.imap_port, policy_port, doveadm_port = (free_port() for _ in range(4))
        (self.folder / "api-key").write_text(API_KEY + "\n")
        (self.folder / "api-key").chmod(0o600)
        with ExitStack() as started:
            self.dovecot = self._dovecot(policy_port, doveadm_port)
            dovecot = f'dovecot = "127.0.0.1:{policy_port}"\ndovecot_api_key_file = "{self.folder}/api-key"\n'
            told = self._incidents(doveadm_port)
            self.servers = {
                mode: self._server(mode, ("" if place else dovecot) + told + settings)
                for place, (mode, settings) in enumerate(self.modes.items())
            }
            self.postfix = self._postfix()
            programs: tuple[PolicyServer | Dovecot | Postfix, ...]
            programs = (*self.servers.values(), self.dovecot, self.postfix)
            for program in programs:
                started.callback(program.stop)
                program.start()
            wait_until(lambda: answers_on(self.imap_port), "Dovecot answering IMAP")
            self._running = started.pop_all()

    def stop(self) -> None:
        """Stop everything, last started first."""
        self._running.close()

    @contextmanager
    def submission(self, login: str, *, mode: str) -> Iterator[smtplib.SMTP]:
        """Open a session on a submission port, logged in."""
        with smtplib.SMTP("127.0.0.1", self.ports[mode], local_hostname="client.example", timeout=60) as session:
            session.ehlo()
            code, text = session.docmd("XCLIENT", f"ADDR={CUSTOMER_ADDRESS} NAME=client.example")
            assert code == 220, text
            session.ehlo()
            session.user, session.password = login, PASSWORD
            session.auth("PLAIN", session.auth_plain)  # login() tries every mechanism, and waits for each denial
            yield session

    def send(self, login: str, *rcpt_to: str, mode: str) -> Reply:
        """Send one message from a login, to all recipients or to nobody."""
        with self.submission(login, mode=mode) as session:
            return Lane(session, login).send(*rcpt_to)

    def send_many(self, login: str, messages: int, *, mode: str, lanes: int = 1) -> Tally:
        """Send messages from a login, each to somebody new, in several sessions at once and as fast as they are answered."""
        shares = [self.new_recipients(messages // lanes) for _ in range(lanes)]
        shares[0] += self.new_recipients(messages % lanes)
        tally, lock = Tally(), threading.Lock()

        def send_share(recipients: list[str]) -> None:
            own = self._send_all(login, recipients, mode)
            with lock:
                tally.add(own)

        threads = [threading.Thread(target=send_share, args=(share,)) for share in shares]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return tally

    def new_recipients(self, count: int) -> list[str]:
        """Return addresses that nobody has written to yet."""
        first, self._numbers = self._numbers + 1, self._numbers + count
        return [f"box{number}@{RECEIVER}" for number in range(first, first + count)]

    @contextmanager
    def imap(self, login: str, password: str = PASSWORD) -> Iterator[imaplib.IMAP4]:
        """Open a session on the IMAP port, logged in. Raises IMAP4.error where the login is denied."""
        session = imaplib.IMAP4("127.0.0.1", self.imap_port, timeout=60)
        try:
            session.login(login, password)
            yield session
        finally:
            with suppress(imaplib.IMAP4.error, OSError):  # it may be gone: the server ends sessions
                session.shutdown()

    def can_log_in(self, login: str) -> bool:
        """Say whether the login is let in over IMAP with the right password."""
        try:
            with self.imap(login):
                return True
        except imaplib.IMAP4.error:
            return False

    def wait_for_mail(self, recipients: Iterable[str]) -> None:
        """Wait until each of the recipients has mail."""
        missing = set(recipients)

        def has_arrived() -> bool:
            missing.difference_update(self.arrived())
            return not missing

        try:
            wait_until(has_arrived, f"mail to {len(missing)} recipients", seconds=DELIVERY_SECONDS)
        except ProgramError as error:
            raise ProgramError(f"{error}, {len(missing)} missing\n{self.explain()}") from None

    def arrived(self) -> Counter[str]:
        """Return how many messages each recipient has."""
        found = (DELIVERED_TO.findall(path.read_bytes()[:2000])[:1] for path in self._inbox().glob("*"))
        return Counter(first[0].decode() for first in found if first)

    def notifications(self) -> list[str]:
        """Return the texts of all messages to the postmaster, the oldest first."""
        paths = sorted(self._inbox().glob("*"), key=lambda path: path.stat().st_mtime_ns)
        messages = [path.read_bytes() for path in paths]
        return [
            each.decode("utf-8", "replace")
            for each in messages
            if DELIVERED_TO.findall(each)[:1] == [POSTMASTER.encode()]
        ]

    def explain(self) -> str:
        """Return the end of every log."""
        logs = [self.postfix.log(), self.dovecot.log(), *(each.output() for each in self.servers.values())]
        return "\n".join("\n".join(log.splitlines()[-LOG_LINES:]) + "\n" for log in logs)

    def _inbox(self) -> Path:
        return self.folder / "mail" / "inbox" / "new"

    def _send_all(self, login: str, recipients: list[str], mode: str) -> Tally:
        tally = Tally()
        with self.submission(login, mode=mode) as session:
            lane = Lane(session, login)
            for recipient in recipients:
                reply = lane.send(recipient)
                kind = f"{reply.code} {reply.text[:5]}"
                tally.replies[kind] += 1
                tally.texts.setdefault(kind, f"{reply.code} {reply.text}")
                if reply.code == 250:
                    tally.accepted.append(recipient)
        return tally

    def _incidents(self, doveadm_port: int) -> str:
        return f"""\
[policyd.incidents]
smtp = "127.0.0.1:{self.port_25}"
doveadm = "http://127.0.0.1:{doveadm_port}/doveadm/v1"
doveadm_key_file = "{self.folder}/api-key"
{self.incidents}
"""

    def _server(self, mode: str, settings: str) -> PolicyServer:
        return PolicyServer(self.folder, settings, name=f"policyd-{mode}", state=self.states.get(mode, ""))

    def _dovecot(self, policy_port: int, doveadm_port: int) -> Dovecot:
        dovecot = Dovecot(self.folder / "dovecot", dict.fromkeys(LOGINS, PASSWORD))
        version = "2.4" if major_and_minor(run(["dovecot", "--version"])) >= (2, 4) else "2.3"
        shipped = (EXAMPLES / "dovecot" / f"{name}-{version}.conf" for name in ("auth-policy", "doveadm"))
        keys = dovecot.folder / "keys.conf"
        keys.write_text(KEYS.format(key=API_KEY))
        own = MAILBOXES.format(imap=self.imap_port) + "".join(example.read_text() for example in shipped)
        for is_shipped, is_here in (
            (SHIPPED_SERVER, f"127.0.0.1:{policy_port}"),
            (SHIPPED_DOVEADM, f"port = {doveadm_port}"),
            (SHIPPED_KEYS, str(keys)),
        ):
            assert is_shipped in own
            own = own.replace(is_shipped, is_here)
        with (dovecot.folder / "dovecot.conf").open("a") as configuration:
            configuration.write(own)
        return dovecot

    def _postfix(self) -> Postfix:
        shipped = read_main_cf(SHIPPED_MAIN)
        settings = {
            "myhostname": "mx.example.com",
            "myorigin": DOMAIN,
            "smtpd_error_sleep_time": "0",
            "smtpd_hard_error_limit": "100000",
            **_with_socket(shipped, self.first),
            **maildir_settings(self.folder / "mail", f"{DOMAIN}, {RECEIVER}"),
        }
        services = [smtpd_service(self.port_25)]
        for mode, port in self.ports.items():
            own = {name: value for name, value in shipped.items() if name.startswith("mailward_")}
            asks = submission_options(at_data=mode in self.asks_at_data)
            options = {**_with_socket(own, self.servers[mode]), **asks, **sasl_options(self.dovecot.socket)}
            services.append(smtpd_service(port, options))
        ports = [self.port_25, *self.ports.values()]
        return Postfix(self.folder / "postfix", settings=settings, services=services, ports=ports)


class Lane:
    """One session that sends messages one after the other, each command in turn, and hangs on when it is refused."""

    def __init__(self, session: smtplib.SMTP, login: str) -> None:
        self._session = session
        self._login = login

    def send(self, *rcpt_to: str) -> Reply:
        """Send a message to all recipients, or to nobody; return the reply that ended it."""
        commands = [f"MAIL FROM:<{self._login}>", *(f"RCPT TO:<{recipient}>" for recipient in rcpt_to)]
        for command in commands:
            code, text = self._session.docmd(command)
            if code >= 400:
                self._session.docmd("RSET")
                return Reply(code, text.decode("utf-8", "replace"), command[:4].lower())
        try:
            code, text = self._session.data(MESSAGE.format(sender=self._login, recipient=rcpt_to[0]).encode())
        except smtplib.SMTPDataError as error:  # DATA itself was refused
            self._session.docmd("RSET")
            words = error.smtp_error
            return Reply(error.smtp_code, words if isinstance(words, str) else words.decode("utf-8", "replace"), "data")
        return Reply(code, text.decode("utf-8", "replace"), "end")


def submission_options(*, at_data: bool = False) -> dict[str, str]:
    """Return the settings of the shipped submission service that are the policy server's matter."""
    found = SERVICE.search(SHIPPED_MASTER.read_text())
    assert found is not None
    options = dict(OPTION.findall(found.group(0).replace("#", "") if at_data else found.group(0)))
    return {name: value for name, value in options.items() if name.endswith("_restrictions")}


def _with_socket(settings: Mapping[str, str], server: PolicyServer) -> dict[str, str]:
    """Return shipped settings, at the socket of that policyd."""
    assert SHIPPED_SOCKET in settings["mailward_policyd_submission"]
    return {name: value.replace(SHIPPED_SOCKET, f"unix:{server.socket_path}") for name, value in settings.items()}
