"""A whole small mail world in one folder: customers, a sending Postfix with Mailward, DNS, and a receiver who verifies.

    customers -- submission (SASL by Dovecot) --+
    strangers, local programs -- port 25 -------+-- sender Postfix -- SMTP --> receiver Postfix -- maildirs
    local programs -- sendmail(1) --------------+        |                          |
                                                mailward-dkim-sign          OpenDKIM (verifies)
                                                                                    |
                                                    keys of all domains: NSD -------+

Everything is a real program on loopback; nothing is asked of the network.
"""

from __future__ import annotations

import re
import shlex
import smtplib
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.mail.delivered import Delivered, verify
from tests.mail.domains import DOMAINS, Key, configuration_of, make_keys, table_of, zones_of
from tests.support.dovecot import Dovecot
from tests.support.nameserver import Nameserver
from tests.support.opendkim import OpenDkim
from tests.support.postfix import Postfix, maildir_settings, sasl_options, smtpd_service
from tests.support.processes import Program, ProgramError, free_port, require_root, wait_until

ROOT = Path(__file__).parents[2]
SENDER = "mail.example.com"
RECEIVER = "receiver.example"
CUSTOMER_ADDRESS = "192.0.2.25"  # where customers come from: no network of ours, only the login counts
STRANGER_ADDRESS = "198.51.100.7"
DELIVERY_SECONDS = 20.0
LOG_LINES = 12
DELIVERED_TO = re.compile(rb"^Delivered-To: (\S+)$", re.MULTILINE)

PASSWORD = "correct-horse"
ALICE = "alice@example.com"
BOB = "bob@example.org"
LOGINS = f"""\
{ALICE}   example.com xn--bcher-kva.example hosted.example tabled.example
@example.org   example.org
"""

CONFIGURATION = """\
[dns]
nameservers = ["{nameserver}:53"]
timeout = "2s"

[dkim-sign]
socket = "unix:{socket}"
socket_mode = "0666"
metrics = "127.0.0.1:{metrics}"
workers = 2
drain_timeout = "2s"
networks = ["127.0.0.0/8", "::1"]
logins = "{folder}/logins"
table = "{folder}/signing-table"
"""


class Installation:
    """The world; `start` and `stop` it, or use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        require_root()
        self.folder = folder
        self.keys: list[Key] = make_keys(folder / "keys", DOMAINS)
        self.nameserver = Nameserver(folder / "nsd", zones_of(self.keys))
        self.dovecot = Dovecot(folder / "dovecot", dict.fromkeys((ALICE, BOB), PASSWORD))
        self.opendkim = OpenDkim(folder / "opendkim", nameserver=self.nameserver.address, authserv_id=RECEIVER)
        self.maildirs = folder / "maildirs"
        self.inbox = self.maildirs / "inbox" / "new"
        self.configuration = folder / "mailward.toml"
        self.receiver_port, self.port_25_number, self.submission_port = free_port(), free_port(), free_port()
        self.metrics_port = free_port()
        self.receiver = self._receiver()
        self.signer_socket = folder / "dkim-sign.sock"
        self.sender = self._sender()
        self.signer = self._signer()
        self._recipients = 0
        self._arrived: dict[str, Path] = {}
        self._seen: set[Path] = set()
        self._running = ExitStack()

    def __enter__(self) -> Installation:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything; it is ready for mail when this returns."""
        with ExitStack() as started:
            programs = (self.nameserver, self.dovecot, self.opendkim, self.receiver, self.signer, self.sender)
            for program in programs:
                started.callback(program.stop)
                program.start()
            self._running = started.pop_all()

    def stop(self) -> None:
        """Stop everything, last started first."""
        self._running.close()

    @contextmanager
    def submission(self, login: str, *, client: str = CUSTOMER_ADDRESS) -> Iterator[smtplib.SMTP]:
        """Open a session on the submission port, from that address and logged in."""
        with self._session(self.submission_port, client) as session:
            session.login(login, PASSWORD)
            yield session

    @contextmanager
    def port_25(self, *, client: str) -> Iterator[smtplib.SMTP]:
        """Open a session on the port for the world, from that address; 127.0.0.1 is one of our own networks."""
        with self._session(self.port_25_number, client) as session:
            yield session

    @contextmanager
    def _session(self, port: int, client: str) -> Iterator[smtplib.SMTP]:
        with smtplib.SMTP("127.0.0.1", port, local_hostname="client.example", timeout=60) as session:
            session.ehlo()
            if client != "127.0.0.1":
                code, text = session.docmd("XCLIENT", f"ADDR={client} NAME=client.example")
                assert code == 220, text
                session.ehlo()
            yield session

    def submit(self, message: bytes, *, login: str = ALICE, mail_from: str = ALICE, options: Sequence[str] = ()) -> str:
        """Submit one message with a login; return the recipient it went to, for `delivered`."""
        recipient = self.new_recipient()
        self.submit_to(recipient, message, login=login, mail_from=mail_from, options=options)
        return recipient

    def submit_to(
        self,
        recipient: str,
        message: bytes,
        *,
        login: str = ALICE,
        mail_from: str = ALICE,
        options: Sequence[str] = (),
    ) -> None:
        """Submit one message with a login to a recipient from `new_recipient`."""
        with self.submission(login) as session:
            session.sendmail(mail_from, [recipient], message, mail_options=list(options))

    def sendmail(self, message: bytes, *, mail_from: str = ALICE) -> str:
        """Hand over one message with sendmail(1); return the recipient it went to."""
        recipient = self.new_recipient()
        self.sender.sendmail(message.replace(b"\r\n", b"\n"), mail_from=mail_from, rcpt_to=[recipient])
        return recipient

    def new_recipient(self) -> str:
        """Return an address at the receiver that has had no mail yet."""
        self._recipients += 1
        return f"box{self._recipients}@{RECEIVER}"

    def delivered(self, recipient: str) -> Delivered:
        """Wait for the message to that address; return it with what both verifiers say of it."""
        path = self._wait_for_file(recipient)
        return verify(path.read_bytes(), authserv_id=RECEIVER, nameserver=self.nameserver.address)

    def metrics(self) -> str:
        """Return the daemon's metrics page."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as page:
            text: str = page.read().decode()
        return text

    def log_fields(self, recipient: str) -> dict[str, str]:
        """Return the names and values of the daemon's log line about the message to that address."""
        match = re.search(rf": ([0-9A-F]+): to=<{re.escape(recipient)}>", self.sender.log())
        if match is None:
            raise ProgramError(f"the sender's log does not know {recipient}")
        mark = f" queue_id={match.group(1)} "
        lines = [line for line in self.signer.output().splitlines() if " event=message " in line and mark in line]
        if len(lines) != 1:
            raise ProgramError(f"the daemon has {len(lines)} log lines with{mark}")
        pairs = (word.partition("=") for word in shlex.split(lines[0]))
        return {name: value for name, _, value in pairs}

    def _wait_for_file(self, recipient: str) -> Path:
        def has_ended() -> bool:
            self._look_into_inbox()
            return recipient in self._arrived or f"to=<{recipient}>, relay=virtual" in self.receiver.log()

        try:
            wait_until(has_ended, f"mail to {recipient}", seconds=DELIVERY_SECONDS)
            self._look_into_inbox()
            return self._arrived[recipient]
        except (ProgramError, KeyError):
            logs = (self.sender.log(), self.receiver.log(), self.signer.output())
            words = "\n".join("\n".join(log.splitlines()[-LOG_LINES:]) + "\n" for log in logs)
            raise ProgramError(f"mail to {recipient} did not arrive; sender, receiver, daemon say:\n{words}") from None

    def _look_into_inbox(self) -> None:
        for path in self.inbox.glob("*"):
            if path not in self._seen:
                self._seen.add(path)
                with path.open("rb") as file:
                    match = DELIVERED_TO.search(file.read(1000))
                assert match is not None, f"no Delivered-To in {path}"
                self._arrived[match.group(1).decode()] = path

    def _receiver(self) -> Postfix:
        settings = {
            "myhostname": RECEIVER,
            "smtpd_milters": f"{{ {self.opendkim.milter}, default_action=tempfail }}",
            **maildir_settings(self.maildirs, RECEIVER),
        }
        # One session at a time: OpenDKIM crashes otherwise (see tests/support/opendkim.py).
        services = [smtpd_service(self.receiver_port, is_single=True)]
        return Postfix(self.folder / "receiver", settings=settings, services=services, ports=[self.receiver_port])

    def _sender(self) -> Postfix:
        milter = f"{{ unix:{self.signer_socket}, connect_timeout=5s, default_action=tempfail }}"
        settings = {
            "myhostname": SENDER,
            "myorigin": "example.com",
            "relay_domains": RECEIVER,
            "relay_transport": f"smtp:[127.0.0.1]:{self.receiver_port}",
            "smtp_destination_concurrency_limit": "1",
            "smtp_connection_cache_on_demand": "no",
            "canonical_maps": "inline:{ old.alice@example.com=alice@example.com }",
            "smtpd_milters": milter,
            "non_smtpd_milters": milter,
            # The next two are what any signing Postfix wants: Date and Message-ID exist before the milter runs, and
            # nothing folds long lines after it.
            "local_header_rewrite_clients": "permit_mynetworks, permit_sasl_authenticated",
            "smtp_line_length_limit": "0",
        }
        submission = {
            "milter_macro_daemon_name": "ORIGINATING",
            "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
            **sasl_options(self.dovecot.socket),
        }
        services = [smtpd_service(self.port_25_number), smtpd_service(self.submission_port, submission)]
        ports = [self.port_25_number, self.submission_port]
        return Postfix(self.folder / "sender", settings=settings, services=services, ports=ports)

    def _signer(self) -> Program:
        text = CONFIGURATION.format(
            folder=self.folder,
            socket=self.signer_socket,
            metrics=self.metrics_port,
            nameserver=self.nameserver.address,
        )
        self.configuration.write_text(text + configuration_of(self.keys))
        (self.folder / "logins").write_text(LOGINS)
        (self.folder / "signing-table").write_text(table_of(self.keys))
        command = [sys.executable, "-m", "milters.dkim_sign", "--config", str(self.configuration)]
        return Program(
            "mailward-dkim-sign", command, self.folder, is_ready=self._signer_is_ready(), working_folder=ROOT
        )

    def _signer_is_ready(self) -> Callable[[], bool]:
        address = f"http://127.0.0.1:{self.metrics_port}/readyz"

        def is_ready() -> bool:
            try:
                with urllib.request.urlopen(address, timeout=2) as page:
                    return bool(page.status == 200)
            except OSError:  # not listening yet, or 503: its workers do not serve yet
                return False

        return is_ready
