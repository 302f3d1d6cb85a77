"""OpenDKIM as a verifying milter: another implementation's word on our signatures.

It is told to take nobody for internal (it would not verify them), to accept a header section of any size (its own
limit is 64 kB), and to write an Authentication-Results field on every message.

One session at a time, please: for every message OpenDKIM has libunbound read ResolverConfiguration anew, with a parser
that two threads must not enter; two messages at once crash it now and then ("fatal flex scanner internal error").
"""

from __future__ import annotations

from pathlib import Path

from tests.support.processes import Program, answers_on_socket, require_binary

CONFIGURATION = """\
Mode                    v
Socket                  local:{socket}
UMask                   000
Background              no
Syslog                  yes
SyslogFacility          local7
AuthservID              {authserv_id}
AlwaysAddARHeader       yes
InternalHosts           {folder}/nobody
PeerList                {folder}/nobody
MaximumHeaders          0
MaximumSignaturesToVerify 10
Nameservers             {nameserver}
ResolverConfiguration   {folder}/unbound.conf
DNSTimeout              10
TemporaryDirectory      {folder}
"""

# libunbound asks nobody on loopback unless told to, and keeps what it learned for longer than a test likes.
UNBOUND = """\
server:
    do-not-query-localhost: no
    cache-max-ttl: 1
    cache-max-negative-ttl: 1
    infra-host-ttl: 1
    module-config: "iterator"
"""


class OpenDkim:
    """OpenDKIM in verify mode on a UNIX socket, asking one nameserver."""

    def __init__(self, folder: Path, *, nameserver: str, authserv_id: str) -> None:
        folder.mkdir()
        self.socket = folder / "opendkim.sock"
        (folder / "nobody").write_text("192.0.2.255\n")
        (folder / "unbound.conf").write_text(UNBOUND)
        configuration = folder / "opendkim.conf"
        configuration.write_text(
            CONFIGURATION.format(folder=folder, socket=self.socket, authserv_id=authserv_id, nameserver=nameserver)
        )
        command = [require_binary("opendkim", "opendkim"), "-f", "-x", str(configuration)]
        self.program = Program("opendkim", command, folder, is_ready=lambda: answers_on_socket(self.socket))

    @property
    def milter(self) -> str:
        """Return what Postfix's `smtpd_milters` takes."""
        return f"unix:{self.socket}"

    def start(self) -> None:
        """Start it; it accepts connections when this returns."""
        self.program.start()

    def stop(self) -> None:
        """Stop it."""
        self.program.stop()
