"""`python -m tests.mail.peers`: the table of attacks through OpenDKIM and then OpenDMARC, each as Debian has it.

Prints what they say of each row beside what Mailward says, and ends with status 1 where tests/attacks/table.py tells it
otherwise. Not one of the tests: it needs the package opendmarc, and shows nothing about Mailward.
"""

from __future__ import annotations

import re
import sys
from contextlib import suppress

from tests.attacks.row import AUTHSERV_ID, Attack
from tests.attacks.table import ATTACKS, PEERS_PASS
from tests.mail.inbound import Inbound
from tests.support.opendkim import OpenDkim
from tests.support.postfix import smtpd_service
from tests.support.processes import Program, ProgramError, answers_on_socket, open_folder, require_binary

OPENDMARC = """\
Socket local:{folder}/opendmarc.sock
UMask 0000
Background false
PidFile {folder}/opendmarc.pid
PublicSuffixList /usr/share/publicsuffix/public_suffix_list.dat
Syslog true
AuthservID {authserv_id}
TrustedAuthservIDs {authserv_id}
SPFIgnoreResults true
SPFSelfValidate true
"""
# OpenDMARC has no option for its nameserver: it sees a resolv.conf of its own, in a mount namespace of its own.
WITH_OWN_RESOLV_CONF = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
DMARC_RESULT = re.compile(rb"dmarc=(\w+)")


class PeersInbound(Inbound):
    """The receiver's world with the peers' two milters instead of ours."""

    opendkim: OpenDkim
    opendmarc: Program

    def start_peers(self) -> None:
        """Start both."""
        self.opendkim = OpenDkim(self.folder / "opendkim", nameserver=self.nameserver.address, authserv_id=AUTHSERV_ID)
        resolv_conf, configuration = self.folder / "resolv.conf", self.folder / "opendmarc.conf"
        resolv_conf.write_text(f"nameserver {self.nameserver.address}\n")
        configuration.write_text(OPENDMARC.format(folder=self.folder, authserv_id=AUTHSERV_ID))
        binary = require_binary("opendmarc", "opendmarc")
        command = [require_binary("unshare", "util-linux"), "--mount", "sh", "-c", WITH_OWN_RESOLV_CONF]
        command += [str(resolv_conf), binary, "-f", "-c", str(configuration)]
        socket = self.folder / "opendmarc.sock"
        self.opendmarc = Program("opendmarc", command, self.folder, is_ready=lambda: answers_on_socket(socket))
        self.opendkim.start()
        self.opendmarc.start()

    def stop_peers(self) -> None:
        """Stop both, whatever became of them."""
        for program in (self.opendkim, self.opendmarc):
            with suppress(ProgramError):
                program.stop()

    def _services(self) -> list[str]:
        self.start_peers()
        milters = f"{{ {self.opendkim.milter}, default_action=accept }}, "
        milters += f"{{ unix:{self.folder}/opendmarc.sock, default_action=accept }}"
        # One session at a time: OpenDKIM crashes otherwise (see tests/support/opendkim.py).
        return [smtpd_service(port, {"smtpd_milters": milters}, is_single=True) for port in self.ports.values()]


def main() -> int:
    """Send every row; return the exit status."""
    with open_folder() as folder, PeersInbound(folder, ["reject"]) as here:
        try:
            passed = {attack.id for attack in ATTACKS if show(attack, ask(here, attack))}
        finally:
            here.stop_peers()
    for identity in sorted(passed ^ PEERS_PASS):
        print(f"not as the table says: {identity}")
    print(f"{len(passed)} of {len(ATTACKS)} rows pass that must not")
    return 1 if passed != PEERS_PASS else 0


def ask(here: PeersInbound, attack: Attack) -> str:
    """Return the peers' word for DMARC; "crash" where OpenDMARC ended, which is then started again."""
    owner, reply = here.send(attack.message, attack.origin, mode="reject")
    if not here.opendmarc.is_ready():
        here.opendmarc.stop()
        here.opendmarc.start()
        return "crash"
    if reply.code != 250:
        return f"{reply.code}"
    fields = here.arrived(owner).values(b"Authentication-Results")
    ours = b" ".join(value for value in fields if AUTHSERV_ID.encode() in value)
    match = DMARC_RESULT.search(ours)
    return match.group(1).decode() if match else "-"


def show(attack: Attack, word: str) -> bool:
    """Print a line; say whether the peers pass what is no pass."""
    is_wrong = word == "pass" and attack.dmarc != "pass"
    print(f"{word:10} {attack.dmarc:10} {attack.id}{'   <--' if is_wrong else ''}", flush=True)
    return is_wrong


if __name__ == "__main__":
    sys.exit(main())
