"""A private Dovecot with IMAP, a cache of passwords and doveadm's HTTP API on loopback."""

from __future__ import annotations

import imaplib
from collections.abc import Mapping
from pathlib import Path

from tests.support.dovecot import CONFIGURATION_2_3, CONFIGURATION_2_4, major_and_minor
from tests.support.processes import Program, answers_on, free_port, read_text, require_binary, run

SESSION_SECONDS = 60.0
DOVEADM = """\
listen = 127.0.0.1
first_valid_uid = 1000
last_valid_uid = 65534
auth_cache_size = 1M
auth_failure_delay = 0
doveadm_api_key = {key}
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service doveadm {{
  inet_listener http {{
    port = {http}
  }}
}}
"""


def imap_session(port: int, login: str, password: str) -> imaplib.IMAP4:
    """Log in over IMAP; imaplib.IMAP4.error where that is refused."""
    session = imaplib.IMAP4("127.0.0.1", port, timeout=SESSION_SECONDS)
    try:
        session.login(login, password)
    except BaseException:
        session.shutdown()
        raise
    return session


class DoveadmDovecot:
    """Dovecot; `url` is where doveadm listens, `version` the first two numbers of its own."""

    def __init__(self, folder: Path, logins: Mapping[str, str], key: str) -> None:
        folder.mkdir()
        for name in ("run", "state", "mail"):
            (folder / name).mkdir()
        (folder / "mail").chmod(0o777)
        self.folder = folder
        self.port, http = free_port(), free_port()
        self.url = f"http://127.0.0.1:{http}"
        (folder / "logins").write_text("".join(f"{login}:{password}::::::\n" for login, password in logins.items()))
        (folder / "logins").chmod(0o644)
        binary = require_binary("dovecot", "dovecot-core")
        require_binary("doveadm", "dovecot-core")
        self.version = major_and_minor(run([binary, "--version"]))
        text = (CONFIGURATION_2_4 if self.version >= (2, 4) else CONFIGURATION_2_3) + DOVEADM
        configuration = folder / "dovecot.conf"
        sasl = folder / "run" / "sasl"
        configuration.write_text(
            text.format(folder=folder, socket=sasl, protocols="imap", imap=self.port, http=http, key=key)
        )
        command = [binary, "-F", "-c", str(configuration)]
        self.program = Program("dovecot", command, folder, is_ready=lambda: answers_on(self.port) and answers_on(http))

    def session(self, login: str, password: str) -> imaplib.IMAP4:
        """Log in over IMAP; imaplib.IMAP4.error where that is refused."""
        return imap_session(self.port, login, password)

    def log(self) -> str:
        """Return the whole log."""
        return read_text(self.folder / "dovecot.log")
