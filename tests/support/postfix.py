"""A private Postfix instance in a folder: its own main.cf, master.cf, queue and log; the machine's is not touched.

Works on Postfix 3.7 to 3.10 (Debian 12 and 13), as root, on loopback. Nothing is chrooted, so paths are plain paths.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.processes import (
    ProgramError,
    answers_on,
    read_text,
    require_binary,
    require_root,
    run,
    wait_until,
)

MASTER = """\
pickup    unix  n       -       n       60      1       pickup
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
tlsmgr    unix  -       -       n       1000?   1       tlsmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
verify    unix  -       -       n       -       1       verify
flush     unix  n       -       n       1000?   0       flush
proxymap  unix  -       -       n       -       -       proxymap
proxywrite unix -       -       n       -       1       proxymap
smtp      unix  -       -       n       -       -       smtp
relay     unix  -       -       n       -       -       smtp
lmtp      unix  -       -       n       -       -       lmtp
showq     unix  n       -       n       -       -       showq
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
discard   unix  -       -       n       -       -       discard
local     unix  -       n       n       -       -       local
virtual   unix  -       n       n       -       -       virtual
anvil     unix  -       -       n       -       1       anvil
scache    unix  -       -       n       -       1       scache
postlog   unix-dgram n  -       n       -       1       postlogd
"""
QUEUE_ID = re.compile(r"^([0-9A-F]{6,}|[0-9B-Zb-z]{10,})[*!]?\s", re.MULTILINE)
QUEUE_SECONDS = 60.0


class Postfix:
    """One instance: `settings` go into main.cf, `services` (see `smtpd_service`) into master.cf."""

    def __init__(
        self, folder: Path, *, settings: Mapping[str, str], services: Sequence[str], ports: Sequence[int]
    ) -> None:
        require_root()
        self._command = require_binary("postfix", "postfix")
        self.folder = folder
        self.etc = folder / "etc"
        self.log_path = folder / "maillog"
        self._ports = ports
        self._master_pid: int | None = None
        self._make_folders()
        self._write({**base_settings(folder), **settings}, services)

    def start(self) -> None:
        """Start it; all its ports accept connections when this returns."""
        run([self._command, "-c", str(self.etc), "start"])
        wait_until(lambda: bool(self._read_pid()), "Postfix's master writing its pid")
        self._master_pid = int(self._read_pid())
        for port in self._ports:
            self._wait_for_port(port)

    def stop(self) -> None:
        """Stop it, by the pid of the master that was started. Harmless if it is not running."""
        if self._master_pid is None:
            return
        pid, self._master_pid = self._master_pid, None
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            return
        wait_until(lambda: not is_running(pid), f"Postfix's master {pid} ending")

    def log(self) -> str:
        """Return the whole mail log of this instance."""
        return read_text(self.log_path)

    def warnings(self) -> list[str]:
        """Return the log's lines of level warning and above; not what Postfix has to say of the machine's own clocks."""
        lines = [line for line in self.log().splitlines() if re.search(r": (warning|error|fatal|panic):", line)]
        return [line for line in lines if not re.search("file system clock is|resetting file time", line)]

    def queue_ids(self) -> list[str]:
        """Return the queue ids of all messages in the queue (not those still in maildrop)."""
        listing = run([require_binary("postqueue", "postfix"), "-c", str(self.etc), "-p"])
        return QUEUE_ID.findall(listing)

    def flush(self) -> None:
        """Try every queued message at once."""
        run([require_binary("postqueue", "postfix"), "-c", str(self.etc), "-f"])

    def wait_until_empty(self) -> None:
        """Return once every message has left the queue; ProgramError with the log if one stays."""
        try:
            wait_until(lambda: not self.queue_ids(), "the queue to become empty", seconds=QUEUE_SECONDS)
        except ProgramError as error:
            raise ProgramError(f"{error}\n{self.log()[-4000:]}") from None

    def sendmail(self, message: bytes, *, mail_from: str, rcpt_to: Sequence[str]) -> None:
        """Hand over a message (LF line ends) as a local program does: sendmail(1), through postdrop and pickup."""
        sendmail = require_binary("sendmail", "postfix")
        run([sendmail, "-C", str(self.etc), "-i", "-f", mail_from, "--", *rcpt_to], standard_input=message)

    def _make_folders(self) -> None:
        self.folder.mkdir()
        for name in ("etc", "spool", "data"):
            (self.folder / name).mkdir()
        shutil.chown(self.folder / "data", "postfix")

    def _write(self, settings: Mapping[str, str], services: Sequence[str]) -> None:
        main = "".join(f"{name} = {value}\n" for name, value in settings.items())
        (self.etc / "main.cf").write_text(main)
        (self.etc / "master.cf").write_text(MASTER + "".join(services))

    def _wait_for_port(self, port: int) -> None:
        wait_until(lambda: answers_on(port), f"Postfix answering on port {port}")

    def _read_pid(self) -> str:
        return read_text(self.folder / "spool" / "pid" / "master.pid").strip()


def base_settings(folder: Path) -> dict[str, str]:
    """Return the settings every private instance needs."""
    return {
        "compatibility_level": "3.6",
        "config_directory": f"{folder}/etc",
        "queue_directory": f"{folder}/spool",
        "data_directory": f"{folder}/data",
        "command_directory": "/usr/sbin",
        "daemon_directory": "/usr/lib/postfix/sbin",
        "mail_owner": "postfix",
        "setgid_group": "postdrop",
        "maillog_file": f"{folder}/maillog",
        "maillog_file_prefixes": str(folder),
        "inet_interfaces": "127.0.0.1",
        "inet_protocols": "ipv4",
        "mynetworks": "127.0.0.0/8",
        "mydestination": "",
        "local_recipient_maps": "",
        "alias_maps": "",
        "alias_database": "",
        "smtp_dns_support_level": "disabled",
        "smtputf8_enable": "yes",
        "biff": "no",
        "in_flow_delay": "0",
        "message_size_limit": "52428800",
        "mailbox_size_limit": "0",
        "virtual_mailbox_limit": "0",
        "smtpd_client_connection_count_limit": "0",
        "smtpd_client_connection_rate_limit": "0",
        "smtpd_authorized_xclient_hosts": "127.0.0.1",
    }


def maildir_settings(folder: Path, domain: str) -> dict[str, str]:
    """Return the settings that deliver every address of a domain into one maildir, `<folder>/inbox/`, with virtual(8).

    One for all, because virtual(8) takes no substitution from a pattern; Delivered-To says whose a message is.
    """
    folder.mkdir()
    shutil.chown(folder, "nobody")
    return {
        "virtual_mailbox_domains": domain,
        "virtual_mailbox_base": str(folder),
        "virtual_mailbox_maps": "static:inbox/",
        "virtual_uid_maps": "static:65534",
        "virtual_gid_maps": "static:65534",
        "virtual_minimum_uid": "1000",
    }


def smtpd_service(port: int, options: Mapping[str, str] | None = None, *, is_single: bool = False) -> str:
    """Return a master.cf entry for an smtpd on a loopback port, with settings of its own (`-o`).

    With `is_single` there is one process, and so one session at a time.
    """
    lines = [f"127.0.0.1:{port} inet n - n - {1 if is_single else '-'} smtpd"]
    lines += [f"  -o {{ {name} = {value} }}" for name, value in (options or {}).items()]
    return "\n".join(lines) + "\n"


def sasl_options(dovecot_socket: Path) -> dict[str, str]:
    """Return the settings with which an smtpd takes logins that Dovecot knows."""
    return {
        "smtpd_sasl_auth_enable": "yes",
        "smtpd_sasl_type": "dovecot",
        "smtpd_sasl_path": str(dovecot_socket),
        "smtpd_sasl_security_options": "noanonymous",
        "smtpd_tls_security_level": "none",
    }


def is_running(pid: int) -> bool:
    """Tell whether a process exists and is no zombie."""
    stat = read_text(Path(f"/proc/{pid}/stat"))
    return bool(stat) and stat.rpartition(")")[2].split()[0] != "Z"
