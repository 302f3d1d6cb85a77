"""`mailward setup --apply` on a Postfix that runs: mail is put off, judged, signed, counted; --undo, and it passes as before.

stranger -- port 25 -----------------------------+
alice -- submission (SASL by Dovecot) -----------+-- Postfix -- virtual(8) --> a maildir
sendmail(1) -------------------------------------+      |
                                         all four daemons, and NSD with nothing in it
"""

from __future__ import annotations

import itertools
import smtplib
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from postmaster.setup import journal
from tests.mail.domains import DOMAINS, configuration_of, make_keys, zones_of
from tests.postmaster.setting_up import ALL, SettingUp
from tests.support.dovecot import Dovecot
from tests.support.nameserver import Nameserver
from tests.support.postfix import Postfix, maildir_settings, sasl_options, smtpd_service
from tests.support.processes import Program, free_port, open_folder, read_samples, wait_until
from tests.support.smtp_client import SmtpReply, send_raw

ROOT = Path(__file__).parents[2]
RECEIVER, AUTHSERV_ID = "receiver.example", "mx.receiver.example"
ALICE, PASSWORD = "alice@example.com", "correct-horse"
STRANGER = "192.0.2.25"
MODULES = dict(zip(ALL, ("milters.dkim_sign", "milters.auth_verify", "milters.greylist", "policyd"), strict=True))
MESSAGE = b"From: Alice <alice@example.com>\r\nTo: box@receiver.example\r\nSubject: hello\r\n\r\nHello.\r\n"
DELIVERY_SECONDS = 60.0

CONFIGURATION = """\
authserv_id = "{authserv_id}"
state = "sqlite:{folder}/state"
[dns]
nameservers = ["{nameserver}"]
timeout = "500ms"
"""
TABLE = """
[{daemon}]
socket = "unix:{sockets}/{daemon}.sock"
socket_mode = "0666"
metrics = "127.0.0.1:{port}"
drain_timeout = "2s"
"""


class Running:
    """The world; `setting_up` is the command on its Postfix."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.dovecot = Dovecot(folder / "dovecot", {ALICE: PASSWORD})
        self.port_25, self.submission_port = free_port(), free_port()
        options = {
            "smtpd_recipient_restrictions": "permit_sasl_authenticated, reject",
            **sasl_options(self.dovecot.socket),
        }
        settings = {"myhostname": AUTHSERV_ID, **maildir_settings(folder / "mail", RECEIVER)}
        services = smtpd_service(self.port_25) + smtpd_service(self.submission_port, options)
        self.setting_up = SettingUp(folder, settings, services, [self.port_25, self.submission_port])
        self.setting_up.dovecot = folder / "dovecot" / "dovecot.conf"
        monkeypatch.setattr(journal, "BACKUPS", self.setting_up.backups)
        self.inbox = folder / "mail" / "inbox" / "new"
        self.keys = make_keys(folder / "keys", DOMAINS)
        self.nameserver = Nameserver(folder / "nsd", zones_of(self.keys))
        self.daemons = self._daemons(folder)
        self._numbers = itertools.count()

    def start(self, started: ExitStack) -> None:
        """Start all of it."""
        programs: list[Nameserver | Dovecot | Program | Postfix]
        programs = [self.nameserver, self.dovecot, *self.daemons.values(), self.setting_up.postfix]
        for program in programs:
            started.callback(program.stop)
            program.start()

    def stranger(self, box: str = "") -> SmtpReply:
        """Send a message from a stranger; to a mailbox that had none, unless one is given."""
        recipient = f"{box or self.new_box()}@{RECEIVER}"
        return send_raw(
            self.port_25,
            MESSAGE,
            client=STRANGER,
            helo=b"client.example",
            mail_from=b"x@client.example",
            recipient=recipient,
        )

    def submit(self) -> bytes:
        """Send a message with a login, and return what arrives."""
        box = self.new_box()
        with smtplib.SMTP("127.0.0.1", self.submission_port, local_hostname="client.example", timeout=60) as session:
            session.login(ALICE, PASSWORD)
            session.sendmail(ALICE, [f"{box}@{RECEIVER}"], MESSAGE)
        return self.arrived(box)

    def sendmail(self) -> bytes:
        """Hand a message to sendmail(1), and return what arrives."""
        box = self.new_box()
        self.setting_up.postfix.sendmail(
            MESSAGE.replace(b"\r\n", b"\n"), mail_from=ALICE, rcpt_to=[f"{box}@{RECEIVER}"]
        )
        return self.arrived(box)

    def arrived(self, box: str) -> bytes:
        """Wait for a mailbox's message."""
        wait_until(lambda: bool(self._find(box)), f"mail to {box}", seconds=DELIVERY_SECONDS)
        return self._find(box)

    def asked(self, state: str) -> float:
        """Return how often the policy server was asked at a stage of SMTP."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as page:
            samples = read_samples(page.read().decode(), "mailward_policyd_")
        return samples.get(f'requests_total{{state="{state}"}}', 0.0)

    def new_box(self) -> str:
        return f"box{next(self._numbers)}"

    def _find(self, box: str) -> bytes:
        mark = f"Delivered-To: {box}@{RECEIVER}\n".encode()
        return next((octets for path in self.inbox.glob("*") if mark in (octets := path.read_bytes())), b"")

    def _daemons(self, folder: Path) -> dict[str, Program]:
        sockets = folder / "postfix" / "spool" / "mailward"
        sockets.mkdir()
        (folder / "state").mkdir()
        text = CONFIGURATION.format(authserv_id=AUTHSERV_ID, folder=folder, nameserver=self.nameserver.endpoint)
        daemons = {}
        for daemon, module in MODULES.items():
            port = self.metrics_port = free_port()  # in the end policyd's
            text += (
                TABLE.format(daemon=daemon, sockets=sockets, port=port)
                + ("workers = 1\n" if daemon != "policyd" else "")
                + ('delay = "1s"\n' if daemon == "greylist" else "")
            )
            command = [sys.executable, "-m", module, "--config", str(self.setting_up.config)]
            daemons[daemon] = Program(daemon, command, folder, is_ready=partial(is_ready, port), working_folder=ROOT)
        self.setting_up.config.write_text(text + configuration_of(self.keys))
        return daemons


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as page:
            return bool(page.status == 200)
    except OSError:
        return False


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    with open_folder() as folder, ExitStack() as started:
        made = Running(folder, monkeypatch)
        made.start(started)
        yield made


def test_mail_flows_through_every_daemon_and_past_them_again(running: Running) -> None:
    before = running.setting_up.files()
    assert b"DKIM-Signature" not in running.submit()

    output = running.setting_up.run("--apply")
    assert "does not listen" not in output
    wait_until(lambda: running.stranger().code == 450, "a stranger being put off")
    wait_until(lambda: running.stranger("judged").code == 250, "the stranger's retry")
    judged = running.arrived("judged")
    assert judged.count(f"Authentication-Results: {AUTHSERV_ID}".encode()) == 1
    assert b"dmarc=" in judged
    assert b"DKIM-Signature" not in judged

    for signed in (running.submit(), running.sendmail()):
        assert b"DKIM-Signature" in signed
        assert b"Authentication-Results" not in signed
    counted = [line for line in running.daemons["policyd"].output().splitlines() if " event=request " in line]
    assert counted
    assert all(f"login={ALICE}" in line for line in counted)
    assert running.asked("end-of-message") == 1

    running.setting_up.run("--undo")
    assert running.setting_up.files() == before
    wait_until(lambda: running.stranger().code == 250, "a stranger no longer being put off")
    assert b"DKIM-Signature" not in running.submit()
    assert running.setting_up.postfix.warnings() == []


def test_while_postfix_runs_a_daemon_that_mail_would_wait_for_must_listen(running: Running) -> None:
    running.daemons["auth-verify"].stop()
    before = running.setting_up.files()
    output = running.setting_up.run("--apply", status=1)
    assert "mail would wait for it: start it first" in " ".join(output.split())
    assert running.setting_up.files() == before
    running.setting_up.run("--apply", "--only", "greylist,policyd,dkim-sign")
