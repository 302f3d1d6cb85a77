"""A private Dovecot: SASL for Postfix from a list of logins and passwords, and mailboxes behind LMTP if they are wanted.

Every address of any domain has a mailbox, a maildir of its own. Mail is filed by the script and the configuration that
Mailward ships. Dovecot 2.4 does not read the configuration of 2.3, so there are two; which one is asked of the binary.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.support.processes import Program, ProgramError, answers_on_socket, read_text, require_binary, run

COMMON = """\
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/dovecot.log
ssl = no
auth_mechanisms = plain login
service auth {{
  unix_listener {socket} {{
    mode = 0666
  }}
}}
"""
LMTP = """\
first_valid_uid = 1000
last_valid_uid = 65534
namespace inbox {{
  inbox = yes
}}
service lmtp {{
  unix_listener {lmtp} {{
    mode = 0666
  }}
}}
"""
CONFIGURATION_2_3 = (
    """\
protocols = {protocols}
disable_plaintext_auth = no
mail_location = maildir:~/Maildir
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {folder}/logins
}}
userdb {{
  driver = static
  args = uid=65534 gid=65534 home={folder}/mail/%n allow_all_users=yes
}}
"""
    + COMMON
)
CONFIGURATION_2_4 = (
    """\
dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
protocols = {protocols}
auth_allow_cleartext = yes
mail_driver = maildir
mail_path = ~/Maildir
passdb passwd-file {{
  passwd_file_path = {folder}/logins
  default_password_scheme = PLAIN
}}
userdb static {{
  userdb_static_allow_all_users = yes
  fields {{
    uid = 65534
    gid = 65534
    home = {folder}/mail/%{{user | username}}
  }}
}}
"""
    + COMMON
)


EXAMPLES = Path(__file__).parents[2] / "examples" / "dovecot"
INSTALLED = "/etc/dovecot/sieve"  # where the shipped configuration has the script


class Dovecot:
    """Dovecot with its auth service on a UNIX socket, for `smtpd_sasl_path`; `has_mailboxes`: and with LMTP on another."""

    def __init__(self, folder: Path, logins: Mapping[str, str], *, has_mailboxes: bool = False) -> None:
        folder.mkdir()
        for name in ("run", "state", "mail", "sieve"):
            (folder / name).mkdir()
        shutil.chown(folder / "mail", "nobody")
        self.folder = folder
        self.socket = folder / "run" / "sasl"
        self.lmtp = folder / "run" / "lmtp-for-postfix"
        (folder / "logins").write_text("".join(f"{login}:{password}::::::\n" for login, password in logins.items()))
        (folder / "logins").chmod(0o644)
        binary = require_binary("dovecot", "dovecot-core")
        self._configuration = folder / "dovecot.conf"
        version = major_and_minor(run([binary, "--version"]))
        text = CONFIGURATION_2_4 if version >= (2, 4) else CONFIGURATION_2_3
        text += LMTP if has_mailboxes else ""
        text = text.format(folder=folder, socket=self.socket, lmtp=self.lmtp, protocols="lmtp" if has_mailboxes else "")
        self._configuration.write_text(text + (self._sieve(version) if has_mailboxes else ""))
        if has_mailboxes:
            run([require_binary("sievec", "dovecot-sieve"), "-c", str(self._configuration), str(folder / "sieve")])
        command = [binary, "-F", "-c", str(self._configuration)]
        self.program = Program("dovecot", command, folder, is_ready=lambda: answers_on_socket(self.socket))

    def start(self) -> None:
        """Start it; it answers Postfix when this returns."""
        self.program.start()

    def stop(self) -> None:
        """Stop it."""
        self.program.stop()

    def mailbox(self, local_part: str, name: str = "") -> list[Path]:
        """Return the new messages of an account's mailbox; without a name those of the inbox."""
        maildir = self.folder / "mail" / local_part / "Maildir"
        return sorted((maildir / f".{name}" / "new" if name else maildir / "new").glob("*"))

    def log(self) -> str:
        """Return the whole log."""
        return read_text(self.folder / "dovecot.log")

    def _sieve(self, version: tuple[int, int]) -> str:
        """Install the script as examples/dovecot says; return the configuration from there."""
        shutil.copy(EXAMPLES / "quarantine.sieve", self.folder / "sieve" / "mailward-quarantine.sieve")
        example = EXAMPLES / ("sieve-2.4.conf" if version >= (2, 4) else "sieve-2.3.conf")
        text = example.read_text()
        if INSTALLED not in text:
            raise ProgramError(f"{example} does not name a script in {INSTALLED}")
        return text.replace(INSTALLED, str(self.folder / "sieve"))


def major_and_minor(version: str) -> tuple[int, int]:
    """Return what `dovecot --version` says as two numbers; ProgramError where we have no configuration for it."""
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None:
        raise ProgramError(f"what version of Dovecot is {version.strip()!r}?")
    found = int(match.group(1)), int(match.group(2))
    if found < (2, 3):
        raise ProgramError(f"Dovecot {version.strip()} is neither 2.3 nor 2.4 or newer")
    return found
