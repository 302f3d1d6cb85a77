"""All four daemons with mail of every kind, and a Prometheus that scrapes them as examples/prometheus says.

The mail: signed and unsigned ours, judged good and forged, strangers put off and let in, an account that is stopped, and what
Dovecot asks. One key is not in the DNS, and one domain's mail is refused its signature: for the alerts.
"""

from __future__ import annotations

import base64
import json
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import yaml

from mailward.adapters.key_files import read_key
from tests.examples.expressions import FOLDER, RULE_FILES
from tests.programs.signer import FIELDS, Signer
from tests.support.greylister import Greylister
from tests.support.milter_client import MilterSession, Outcome
from tests.support.nameserver import Nameserver, txt_record
from tests.support.policy_server import PolicyServer
from tests.support.processes import free_port, wait_until
from tests.support.prometheus import Prometheus
from tests.support.verifier import Verifier

REFUSED_DOMAIN = """\
[[dkim-sign.domain]]
name = "refused.example"
keys = [ {{ selector = "rsa", file = "{folder}/rsa.pem" }} ]
"""
LIMITS = """\
dovecot = "127.0.0.1:{dovecot}"
dovecot_api_key_file = "{folder}/api-key"
[policyd.incidents]
mail_to = []
[[policyd.limit]]
name = "recipients"
per = "sasl_username"
count = "recipients"
limit = "2/1h"
suspend_after = 2
[[policyd.limit]]
name = "watched"
per = "sasl_username"
count = "recipients"
limit = "1/1h"
shadow = true
"""
API_KEY = "correct-horse-battery"
LOGIN, REFUSED = b"alice@example.com", "refused.example"
STOLEN = "carol@example.com"
OWN_CLIENT, STRANGER = "192.0.2.10", "198.51.100.9"
REFUSED_MESSAGES = 8


class Suite:
    """The daemons; as a context manager they run within the `with` block, and Prometheus has seen all of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.signer = Signer(folder)
        self.nameserver = Nameserver(folder / "nsd", _zones(folder))
        where = [self.nameserver.endpoint]
        self.verifier = Verifier(folder, 'enforce = "reject"', nameservers=where, authserv_id="mx.receiver.example")
        self.greylister = Greylister(folder, 'delay = "1s"', nameservers=where)
        self.dovecot_port = free_port()
        self.policyd = PolicyServer(folder, LIMITS.format(folder=folder, dovecot=self.dovecot_port))
        self.prometheus = Prometheus(folder, folder / "prometheus.yml")
        self._strangers = 0
        self._running = ExitStack()

    def __enter__(self) -> Suite:
        self._write_files()
        programs = (self.nameserver, self.signer, self.verifier, self.greylister, self.policyd, self.prometheus)
        with ExitStack() as started:
            for program in programs:
                started.callback(program.stop)
                program.start()
            wait_until(
                lambda: self.prometheus.number('sum(up{job="mailward"})') == 4, "Prometheus to see all", seconds=60
            )
            self._running = started.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    @property
    def ports(self) -> dict[str, int]:
        """The metrics ports by the label `program` of the shipped configuration."""
        return {
            "dkim-sign": self.signer.port,
            "auth-verify": self.verifier.port,
            "greylist": self.greylister.port,
            "policyd": self.policyd.port,
        }

    def page(self, program: str) -> str:
        """Return what a daemon serves at /metrics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[program]}/metrics", timeout=10) as page:
            text: str = page.read().decode()
        return text

    def send_mail(self) -> None:
        """Send mail of every kind, and wait until Prometheus has seen all of it."""
        signed = self._send_ours()
        self._send_in(signed)
        self._send_to_greylist()
        self._send_as_stolen()
        self._log_in()
        sent = {
            "mailward_dkim_sign_domain_messages_total": 3 + REFUSED_MESSAGES,
            "mailward_auth_verify_dmarc_total": 4,
            'mailward_greylist_reasons_total{reason="passed-before"}': 1,
            "mailward_greylist_delay_seconds_count": 1,
            "mailward_policyd_login_reports_total": 2,
            "mailward_policyd_accounts_suspended": 1,
        }
        for name, number in sent.items():
            wait_until(lambda: self.prometheus.number(f"sum({name})") >= number, f"{name} in Prometheus", seconds=60)  # noqa: B023

    def _send_ours(self) -> list[bytes]:
        """Send from our own network: signed, without a key, and with a login that has no right; return the signatures."""
        signatures = [self.signer.sign() for _ in range(3)]
        self.signer.send([(b"From", b" x@keyless.example")])
        for _ in range(REFUSED_MESSAGES):
            _milter_message(self.signer.socket_path, STRANGER, [(b"From", b" a@" + REFUSED.encode())], login=LOGIN)
        return signatures[0]

    def _send_in(self, signatures: Sequence[bytes]) -> None:
        """Send to the verifier: what our signer has signed, twice, a forgery, and a stranger without any of it."""
        whole = [*((b"DKIM-Signature", value) for value in signatures), *FIELDS]
        for _ in range(2):
            _milter_message(self.verifier.socket_path, OWN_CLIENT, whole)
        forged = [(b"From", b" ceo@bank.example"), (b"Authentication-Results", b" mx.receiver.example; dmarc=pass")]
        _milter_message(self.verifier.socket_path, STRANGER, forged)
        _milter_message(self.verifier.socket_path, STRANGER, [(b"From", b" x@nowhere.example")])

    def _send_to_greylist(self) -> None:
        """Have a stranger put off until its time has come."""
        assert self._greylist() == "y"
        wait_until(lambda: self._greylist() == "c", "a retry to pass")
        assert self._greylist() == "c"

    def ask_strangers(self) -> None:
        """Have a stranger come whose name nobody has asked for yet, so that the DNS is needed."""
        self._strangers += 1
        self._greylist(f"x@s{self._strangers}.example".encode())
        _milter_message(self.verifier.socket_path, STRANGER, [(b"From", f" x@v{self._strangers}.example".encode())])

    def _greylist(self, mail_from: bytes = b"x@nowhere.example") -> str:
        session = MilterSession(self.greylister.socket_path)
        try:
            session.connect(STRANGER, b"[198.51.100.9]")
            session.helo(b"stranger.example")
            session.mail(mail_from)
            return session.recipient(b"bob@receiver.example").reply
        finally:
            session.close()

    def _send_as_stolen(self) -> None:
        """Have an account send until it is suspended, and its owner ask for nothing."""
        for number in range(6):
            self.policyd.ask(
                sasl_username=STOLEN, sasl_method="PLAIN", recipient=f"r{number}@example.net", instance=f"i{number}"
            )
        wait_until(lambda: self.policyd.metrics()["accounts_suspended"] == 1, "the account to be suspended")
        assert self.policyd.ask(sasl_username=STOLEN, recipient="late@example.net", instance="late").startswith(
            "REJECT"
        )

    def _log_in(self) -> None:
        """Ask and tell as Dovecot does."""
        for success in (True, False):
            request = {"login": "dave@example.com", "pwhash": f"0{success:d}", "remote": OWN_CLIENT}
            self._dovecot("allow", request)
            self._dovecot("report", {**request, "success": success, "policy_reject": False})

    def _dovecot(self, command: str, request: Mapping[str, object]) -> None:
        key = base64.b64encode(f"dovecot:{API_KEY}".encode()).decode()
        address = f"http://127.0.0.1:{self.dovecot_port}/?command={command}"
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {key}"}
        asked = urllib.request.Request(address, json.dumps(request).encode(), headers)
        with urllib.request.urlopen(asked, timeout=10) as answer:
            assert answer.status == 200

    def _write_files(self) -> None:
        (self.folder / "api-key").write_text(API_KEY + "\n")
        (self.folder / "api-key").chmod(0o600)
        (self.folder / "logins").write_text(f"{LOGIN.decode()} example.com\n")
        config = self.signer.config.read_text().replace('"127.0.0.1:1"', f'"{self.nameserver.address}"')
        logins = f'logins = "{self.folder}/logins"\n'
        config = config.replace("[[dkim-sign.domain]]", logins + "[[dkim-sign.domain]]")
        self.signer.config.write_text(config + REFUSED_DOMAIN.format(folder=self.folder))
        self._write_prometheus()

    def _write_prometheus(self) -> None:
        """Write the shipped configuration with our ports, and without waiting a quarter of a minute for each scrape."""
        configuration = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
        configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        configuration["alerting"]["alertmanagers"] = []
        (job,) = configuration["scrape_configs"]
        for each in job["static_configs"]:
            each["targets"] = [f"127.0.0.1:{self.ports[each['labels']['program']]}"]
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        for file in RULE_FILES:
            (self.folder / file).write_text((FOLDER / file).read_text())


def _zones(folder: Path) -> dict[str, str]:
    """Return the DNS: of our two keys one is published."""
    ours = [
        '@ TXT "v=spf1 ip4:192.0.2.0/24 -all"',
        '_dmarc TXT "v=DMARC1; p=reject"',
        txt_record("rsa._domainkey", read_key(folder / "rsa.pem").record),
    ]
    return {
        "example.com": "\n".join(ours),
        "bank.example": '@ TXT "v=spf1 -all"\n_dmarc TXT "v=DMARC1; p=reject"',
        REFUSED: "",
    }


def _milter_message(path: str, client: str, fields: Sequence[tuple[bytes, bytes]], *, login: bytes = b"") -> Outcome:
    session = MilterSession(path)
    try:
        session.connect(client)
        session.helo()
        return session.message(fields, login=login)
    finally:
        session.close()


@contextmanager
def open_suite(folder: Path) -> Iterator[Suite]:
    """Run the daemons and Prometheus, with mail sent and seen."""
    with Suite(folder) as suite:
        suite.send_mail()
        yield suite
