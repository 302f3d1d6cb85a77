"""A private Dovecot that does nothing but SASL for Postfix, from a list of logins and passwords.

Dovecot 2.4 does not read the configuration of 2.3, so there are two; which one is asked of the binary.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from tests.support.processes import Program, ProgramError, answers_on_socket, require_binary, run

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
CONFIGURATION_2_3 = (
    """\
protocols =
disable_plaintext_auth = no
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {folder}/logins
}}
userdb {{
  driver = static
  args = uid=65534 gid=65534 home=/nonexistent
}}
"""
    + COMMON
)
CONFIGURATION_2_4 = (
    """\
dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
protocols =
auth_allow_cleartext = yes
passdb passwd-file {{
  passwd_file_path = {folder}/logins
  default_password_scheme = PLAIN
}}
userdb static {{
  fields {{
    uid = 65534
    gid = 65534
    home = /nonexistent
  }}
}}
"""
    + COMMON
)


class Dovecot:
    """Dovecot's auth service on a UNIX socket, for `smtpd_sasl_path`."""

    def __init__(self, folder: Path, logins: Mapping[str, str]) -> None:
        folder.mkdir()
        for name in ("run", "state"):
            (folder / name).mkdir()
        self.socket = folder / "run" / "sasl"
        (folder / "logins").write_text("".join(f"{login}:{password}::::::\n" for login, password in logins.items()))
        (folder / "logins").chmod(0o644)
        binary = require_binary("dovecot", "dovecot-core")
        configuration = folder / "dovecot.conf"
        template = configuration_for(run([binary, "--version"]))
        configuration.write_text(template.format(folder=folder, socket=self.socket))
        command = [binary, "-F", "-c", str(configuration)]
        self.program = Program("dovecot", command, folder, is_ready=lambda: answers_on_socket(self.socket))

    def start(self) -> None:
        """Start it; it answers Postfix when this returns."""
        self.program.start()

    def stop(self) -> None:
        """Stop it."""
        self.program.stop()


def configuration_for(version: str) -> str:
    """Return the template for what `dovecot --version` says."""
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None:
        raise ProgramError(f"what version of Dovecot is {version.strip()!r}?")
    major, minor = int(match.group(1)), int(match.group(2))
    if (major, minor) >= (2, 4):
        return CONFIGURATION_2_4
    if (major, minor) == (2, 3):
        return CONFIGURATION_2_3
    raise ProgramError(f"Dovecot {version.strip()} is neither 2.3 nor 2.4 or newer")
