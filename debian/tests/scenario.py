"""A mail server as Debian installs it, a world to talk to, and the packages under test: what the tests here share.

The machine gets three addresses: the server's, a sender's and a reader's. NSD is its DNS. The packages are the .deb files
in the folder $MAILWARD_DEBS, or, where that is not set, those that apt finds by their names.
"""

from __future__ import annotations

import contextlib
import email
import email.message
import email.policy
import email.utils
import os
import re
import smtplib
import socketserver
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

DOMAIN = "example.com"
THERE = "sender.example"
SERVER, SENDER, READER = "192.0.2.1", "192.0.2.25", "192.0.2.77"  # TEST-NET-1, RFC 5737
PASSWORD = "correct horse battery"
DAEMONS = ("dkim-sign", "auth-verify", "greylist", "policyd")
PORTS = dict(zip(DAEMONS, range(9461, 9465), strict=True))  # where each serves /metrics
PATIENCE_SECONDS = 90.0
ZONES = Path("/etc/nsd/zones-of-the-test")
TEST_CONFIGURATION = Path("/etc/mailward/conf.d/99-test.toml")

NSD = """\
server:
    ip-address: 127.0.0.1
    do-ip6: no
    rrl-ratelimit: 0
"""
ZONE = """\
$ORIGIN {origin}
$TTL 1
@ IN SOA ns.invalid. postmaster.invalid. {serial} 3600 600 86400 1
@ IN NS ns.invalid.
{records}
"""
RECORDS = {
    ".": "",
    DOMAIN: f'@ MX 10 mail\n@ TXT "v=spf1 ip4:{SERVER} -all"\nmail A {SERVER}\n',
    THERE: f'@ MX 10 mx\n@ TXT "v=spf1 ip4:{SENDER} -all"\nmx A {SENDER}\n_dmarc TXT "v=DMARC1; p=reject"\n',
    "2.0.192.in-addr.arpa": f"1 PTR mail.{DOMAIN}.\n25 PTR mx.{THERE}.\n",
}
# The lines that Debian's master.cf has as a comment, and most servers in use.
SUBMISSION = {
    "syslog_name": "postfix/submission",
    "smtpd_tls_security_level": "encrypt",
    "smtpd_sasl_auth_enable": "yes",
    "smtpd_tls_auth_only": "yes",
    "smtpd_relay_restrictions": "permit_sasl_authenticated,reject",
    "milter_macro_daemon_name": "ORIGINATING",
}


# What Postfix's logins need of Dovecot; 2.3 and 2.4 read it alike.
LOGINS = """\
service auth {
  unix_listener /var/spool/postfix/private/auth {
    mode = 0660
    user = postfix
    group = postfix
  }
}
"""


class Failure(Exception):
    """Something was not as it has to be."""


def plain_server(*, has_logins: bool = False) -> None:
    """Set up Postfix, Dovecot and NSD as somebody has them who does not know of Mailward yet; all of them run.

    Unless it `has_logins`, Postfix knows nobody to ask for passwords, and it is `mailward setup` that tells it.
    """
    for address in (SERVER, SENDER, READER):
        run("ip", "address", "replace", f"{address}/32", "dev", "lo")
    for account in ("alice", "bob"):
        run("useradd", "--create-home", account)
        run("chpasswd", standard_input=f"{account}:{PASSWORD}\n")
    for name, records in RECORDS.items():
        publish(name, records)
    zones = "".join(f'zone:\n    name: "{name}"\n    zonefile: "{zone_file(name)}"\n' for name in RECORDS)
    Path("/etc/nsd/nsd.conf.d/test.conf").write_text(NSD + zones)
    Path("/etc/resolv.conf").unlink(missing_ok=True)
    Path("/etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
    plain_postfix()
    if has_logins:
        Path("/etc/dovecot/local.conf").write_text(LOGINS)
        run("postconf", "-e", "smtpd_sasl_type=dovecot", "smtpd_sasl_path=private/auth")
    run("systemctl", "restart", "nsd", "dovecot")


def plain_postfix() -> None:
    """Set up Postfix for our domain, with Debian's own way of submission, and start it."""
    names, addresses = (
        f"$myhostname, {DOMAIN}, localhost",
        f"127.0.0.1, {SERVER}",
    )  # the other addresses are other machines'
    run("postconf", "-e", f"myhostname=mail.{DOMAIN}", f"mydestination={names}", f"inet_interfaces={addresses}")
    run("postconf", "-M", "submission/inet=submission inet n - y - - smtpd")
    run("postconf", "-P", *(f"submission/inet/{name}={value}" for name, value in SUBMISSION.items()))
    run("systemctl", "restart", "postfix")


def publish(zone: str, records: str) -> None:
    """Serve these records as a zone, and no others."""
    ZONES.mkdir(exist_ok=True)
    origin = zone if zone == "." else f"{zone}."
    zone_file(zone).write_text(ZONE.format(origin=origin, serial=int(time.time()), records=records))


def publish_keys(records: str) -> None:
    """Put lines for the zone file, as `mailward keys` prints them, into our zone; return when they are served."""
    wanted = "\n".join(line for line in records.splitlines() if not line.startswith(";"))
    time.sleep(1.1)  # a zone's serial is the time in seconds, and has to grow
    publish(DOMAIN, RECORDS[DOMAIN] + wanted)
    run("systemctl", "reload", "nsd")
    wait_until(lambda: "published" in run("mailward", "keys", "verify", expect=None), "the key's record being served")


def zone_file(zone: str) -> Path:
    """Return the file of a zone."""
    return ZONES / f"{zone.strip('.') or 'root'}.zone"


def install(*packages: str) -> str:
    """Install packages of ours; the default is all of them."""
    folder = os.environ.get("MAILWARD_DEBS")
    names = [f"mailward-{name}" for name in packages] or ["mailward"]
    if folder:
        wanted = [f"mailward-{name}_" for name in packages] or ["mailward"]
        names = sorted(
            str(path) for path in Path(folder).glob("mailward*_*.deb") if path.name.startswith(tuple(wanted))
        )
    return apt("install", *names)


def apt(*words: str) -> str:
    """Run apt-get without a question."""
    return run("apt-get", "--yes", "--quiet", "--no-install-recommends", "--allow-downgrades", *words)


def set_up() -> str:
    """Run the two commands with which Mailward starts to work: a key, and Postfix and Dovecot told. Return what they said."""
    records = run("mailward", "keys", "new", DOMAIN)
    publish_keys(records)
    return records + run("mailward", "setup", "--apply")


def configure(text: str, *daemons: str) -> None:
    """Make this the test's part of the configuration, and have these daemons read it."""
    TEST_CONFIGURATION.write_text(text)
    for name in daemons:
        before = metric(name, "generation")
        run("systemctl", "reload", f"mailward-{name}")
        wait_until(
            lambda name=name, before=before: metric(name, "generation") > before,
            f"{name} having read its configuration",
        )


class Elsewhere:
    """The server of sender.example: takes mail at port 25, keeps it, and sends with a signature of its own."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self._server = _SmtpServer((SENDER, 25), self.messages)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def received(self, subject: str) -> email.message.EmailMessage:
        """Return the message with that subject, as it came; wait for it."""
        wait_until(lambda: bool(self._found(subject)), f"{THERE} receiving {subject!r}")
        return parsed(self._found(subject)[0])

    def raw(self, subject: str) -> bytes:
        """Return its octets."""
        return self._found(subject)[0]

    def send(
        self, subject: str, *, mail_from: str = f"carol@{THERE}", rcpt_to: str = f"alice@{DOMAIN}"
    ) -> tuple[int, str]:
        """Send a message to our server, once; return the reply that ended it."""
        text = message(subject, mail_from, rcpt_to)
        with smtplib.SMTP(SERVER, 25, f"mx.{THERE}", timeout=60, source_address=(SENDER, 0)) as session:
            session.ehlo()
            for code, reply in (session.mail(mail_from), session.rcpt(rcpt_to)):
                if code >= 400:
                    return code, reply.decode("utf-8", "replace")
            code, reply = session.data(text)
            return code, reply.decode("utf-8", "replace")

    def send_until_taken(self, subject: str) -> int:
        """Send as an honest server does, again and again; return how often it was put off."""
        for tries in range(int(PATIENCE_SECONDS)):
            code, reply = self.send(subject)
            if code < 400:
                return tries
            if code >= 500:
                break
            time.sleep(1)
        raise Failure(f"{subject!r} was not taken: {code} {reply}\n{mail_log()}")

    def close(self) -> None:
        """Free the port."""
        self._server.shutdown()
        self._server.server_close()

    def _found(self, subject: str) -> list[bytes]:
        return [it for it in self.messages if f"\nSubject: {subject}\r".encode() in it]


def submit(subject: str, rcpt_to: Sequence[str] = (f"carol@{THERE}",)) -> None:
    """Send a message as alice's mail program does: to the submission port, with TLS and her password."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with smtplib.SMTP(SERVER, 587, "laptop.invalid", timeout=60, source_address=(READER, 0)) as session:
        session.starttls(context=context)
        session.login("alice", PASSWORD)
        sender = f"alice@{DOMAIN}"
        session.sendmail(sender, list(rcpt_to), message(subject, sender, rcpt_to[0]))


def message(subject: str, mail_from: str, rcpt_to: str) -> bytes:
    """Return a short message, with CRLF."""
    made = email.message.EmailMessage(policy=email.policy.SMTP)
    made["From"], made["To"], made["Subject"] = mail_from, rcpt_to, subject
    made["Date"] = email.utils.localtime()
    made["Message-ID"] = f"<{time.time_ns()}@{mail_from.partition('@')[2]}>"
    made.set_content("This is what mail is for.\n")
    return made.as_bytes()


def delivered(subject: str, account: str = "alice") -> email.message.EmailMessage:
    """Return the message with that subject from the account's mailbox; wait for it."""
    mailbox = Path("/var/mail") / account

    def found() -> list[bytes]:
        text = mailbox.read_bytes() if mailbox.exists() else b""
        return [it for it in re.split(rb"(?:\A|\n\n)(?=From )", text) if f"\nSubject: {subject}\n".encode() in it]

    wait_until(lambda: bool(found()), f"{subject!r} in the mailbox of {account}")
    return parsed(found()[0].partition(b"\n")[2])


def parsed(raw: bytes) -> email.message.EmailMessage:
    """Return a message; its fields' values are unfolded."""
    made = email.message_from_bytes(raw, policy=email.policy.default.clone(max_line_length=None))
    assert isinstance(made, email.message.EmailMessage)
    return made


def results_of(received: email.message.EmailMessage) -> str:
    """Return our Authentication-Results field on one line, empty if there is none."""
    fields = received.get_all("Authentication-Results", [])
    return " ".join(str(next((it for it in fields if str(it).startswith(f"mail.{DOMAIN};")), "")).split())


def assert_signed(raw: bytes) -> None:
    """Verify the signature with another's code: dkimpy, which asks the DNS itself."""
    import dkim

    expect(b"DKIM-Signature:" in raw, f"there is no signature:\n{raw.decode('utf-8', 'replace')}")
    expect(dkim.verify(raw), f"the signature does not hold:\n{raw.decode('utf-8', 'replace')}")


def metric(daemon: str, name: str) -> float:
    """Return the sum of a metric's samples, by its name without the program's prefix."""
    prefix = f"mailward_{daemon.replace('-', '_')}_{name}"
    page = urllib.request.urlopen(f"http://127.0.0.1:{PORTS[daemon]}/metrics", timeout=30).read().decode()
    samples = [line.rpartition(" ") for line in page.splitlines() if re.match(re.escape(prefix) + r"[ {]", line)]
    expect(bool(samples) or "{" in name, f"{daemon} serves no {prefix}")
    return sum(float(value) for _, _, value in samples)


def serves(daemon: str) -> bool:
    """Tell whether a daemon is ready."""
    with contextlib.suppress(OSError):
        return urllib.request.urlopen(f"http://127.0.0.1:{PORTS[daemon]}/readyz", timeout=30).status == 200
    return False


def is_active(unit: str) -> bool:
    """Tell whether systemd calls a unit active."""
    return run("systemctl", "is-active", unit, expect=None).strip() == "active"


def mail_log() -> str:
    """Return the end of the mail log and of the daemons' logs."""
    files = [Path("/var/log/mail.log"), *sorted(Path("/var/log/units").glob("mailward*"))]
    kept = [f"== {path}\n{path.read_text(errors='replace')[-3000:]}" for path in files if path.exists()]
    journal = run("journalctl", "--no-pager", "--lines=150", expect=None) if not kept else ""
    return "\n".join(kept) + journal


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    """Poll until it is so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        if time.monotonic() > deadline:
            raise Failure(f"waited {PATIENCE_SECONDS:.0f} s in vain: {what}\n{mail_log()}")
        time.sleep(0.1)


def expect(is_so: bool, otherwise: str) -> None:
    """Raise Failure with the text, and with the logs, unless it is so."""
    if not is_so:
        raise Failure(f"{otherwise}\n{mail_log()}")


def run(
    *command: str, standard_input: str = "", environment: Mapping[str, str] | None = None, expect: int | None = 0
) -> str:
    """Run a command and return its output; Failure with it unless it ends with the status `expect` (None: whatever)."""
    done = subprocess.run(
        command,
        input=standard_input,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=600,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", **(environment or {})},
    )
    if expect is not None and done.returncode != expect:
        raise Failure(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{mail_log()}")
    return done.stdout


class _SmtpServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: tuple[str, int], messages: list[bytes]) -> None:
        self.messages = messages
        super().__init__(address, _SmtpSession)


class _SmtpSession(socketserver.StreamRequestHandler):
    server: _SmtpServer

    def handle(self) -> None:
        self._say("220 mx.sender.example ESMTP")
        while line := self.rfile.readline():
            verb = line[:4].upper()
            if verb == b"DATA":
                self._say("354 go on")
                self.server.messages.append(self._content())
            self._say("221 bye" if verb == b"QUIT" else "250 mx.sender.example")
            if verb == b"QUIT":
                return

    def _content(self) -> bytes:
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line.removeprefix(b"."))
        return b"".join(lines)

    def _say(self, reply: str) -> None:
        self.wfile.write(f"{reply}\r\n".encode())
