"""A private Dovecot with IMAP, which asks an auth-policy server before each login as examples/dovecot says.

Clients come from any address: the listener believes what a proxy before it says (HAProxy's PROXY line).
"""

from __future__ import annotations

import imaplib
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.dovecot import CONFIGURATION_2_3, CONFIGURATION_2_4, EXAMPLES, major_and_minor
from tests.support.processes import Program, ProgramError, answers_on, free_port, read_text, require_binary, run

SESSION_SECONDS = 60.0

# Without Dovecot's own delays, so that what a login waits for is the policy server's doing.
IMAP = """\
listen = 127.0.0.1
first_valid_uid = 1000
last_valid_uid = 65534
namespace inbox {{
  inbox = yes
}}
haproxy_trusted_networks = 127.0.0.0/8
service imap-login {{
  inet_listener imap {{
    port = {port}
    haproxy = yes
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
auth_failure_delay = 0
auth_verbose = yes
"""
KEYS = """\
auth_policy_hash_nonce = {nonce}
auth_policy_server_api_header = X-API-Key: {api_key}
doveadm_api_key = {doveadm_key}
"""


class ImapDovecot:
    """Dovecot with IMAP and the shipped auth-policy configuration; `reject_on_fail` is the operator's other choice."""

    def __init__(
        self, folder: Path, logins: Mapping[str, str], policy_port: int, api_key: str, *, reject_on_fail: bool = False
    ) -> None:
        folder.mkdir()
        for name in ("run", "state", "mail"):
            (folder / name).mkdir(mode=0o755)
        (folder / "mail").chmod(0o777)
        self.folder = folder
        self.port, self.doveadm_port = free_port(), free_port()
        (folder / "logins").write_text("".join(f"{login}:{password}::::::\n" for login, password in logins.items()))
        (folder / "logins").chmod(0o644)
        (folder / "keys.conf").write_text(KEYS.format(nonce="n" * 32, api_key=api_key, doveadm_key="k" * 32))
        (folder / "keys.conf").chmod(0o600)
        binary = require_binary("dovecot", "dovecot-core")
        require_binary("doveadm", "dovecot-core")
        is_2_4 = major_and_minor(run([binary, "--version"])) >= (2, 4)
        text = (CONFIGURATION_2_4 if is_2_4 else CONFIGURATION_2_3) + IMAP
        text = text.format(folder=folder, socket=folder / "run" / "sasl", protocols="imap", port=self.port)
        text += "auth_username_format = %{user | lower}\n" if is_2_4 else "auth_username_format = %Lu\n"
        text += self._policy("2.4" if is_2_4 else "2.3", policy_port)
        text += "auth_policy_reject_on_fail = yes\n" if reject_on_fail else ""
        (folder / "dovecot.conf").write_text(text)
        command = [binary, "-F", "-c", str(folder / "dovecot.conf")]
        self.program = Program("dovecot", command, folder, is_ready=lambda: answers_on(self.port))

    def start(self) -> None:
        """Start it; it takes IMAP connections when this returns."""
        self.program.start()

    def stop(self) -> None:
        """Stop it."""
        self.program.stop()

    def log(self) -> str:
        """Return the whole log."""
        return read_text(self.folder / "dovecot.log")

    @contextmanager
    def session(self, client: str) -> Iterator[imaplib.IMAP4]:
        """Open an IMAP session from that address."""
        connection = _ProxiedImap(client, self.port)
        try:
            yield connection
        finally:
            connection.shutdown()

    def login(self, login: str, password: str, client: str) -> str:
        """Try to log in from that address; return "" if it worked, else what Dovecot says."""
        with self.session(client) as session:
            try:
                session.login(login, password)
            except imaplib.IMAP4.error as error:
                return str(error)
            return ""

    def _policy(self, version: str, policy_port: int) -> str:
        """Return the shipped configuration with this world's ports and keys."""
        text = "".join((EXAMPLES / f"{name}-{version}.conf").read_text() for name in ("auth-policy", "doveadm"))
        for shipped, own in (
            ("http://127.0.0.1:9465/", f"http://127.0.0.1:{policy_port}/"),
            ("port = 9466", f"port = {self.doveadm_port}"),
            ("/etc/dovecot/mailward-keys.conf", str(self.folder / "keys.conf")),
        ):
            if shipped not in text:
                raise ProgramError(f"{EXAMPLES} has no {shipped}")
            text = text.replace(shipped, own)
        return text


class _ProxiedImap(imaplib.IMAP4):
    """An IMAP client whose connection begins with a PROXY line."""

    def __init__(self, client: str, port: int) -> None:
        self._client = client
        super().__init__("127.0.0.1", port, timeout=SESSION_SECONDS)

    def _create_socket(self, timeout: float | None) -> socket.socket:
        connection = socket.create_connection((self.host, self.port), timeout)
        family, here = ("TCP6", "::1") if ":" in self._client else ("TCP4", "127.0.0.1")
        connection.sendall(f"PROXY {family} {self._client} {here} 40000 {self.port}\r\n".encode())
        return connection
