"""What every job stands on: a temporary folder with load driver, keys, messages and nameserver."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.driver import Driver
from bench.keys import Key, ed25519_key, rsa_key, txt_record
from bench.messages import MessageFolder
from bench.nameserver import Nameserver

DOMAIN = "example.com"  # that of the messages' From field
CONNECTIONS = 8


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line chose; `messages` is the number of 4 kB messages a program gets in a round."""

    rounds: int
    messages: int


@dataclass(frozen=True, slots=True)
class Workbench:
    """The tools of a job; a program's own folder is made with `folder_of`, and stays from round to round."""

    options: Options
    folder: Path
    driver: Driver
    messages: MessageFolder
    nameserver: Nameserver
    rsa: Key
    ed25519: Key

    def folder_of(self, name: str) -> Path:
        """Return a program's folder, made at first use; kept, as rspamd compiles for seconds into its own."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return folder


@contextmanager
def open_workbench(options: Options) -> Iterator[Workbench]:
    """Build everything in a temporary folder, and leave nothing behind."""
    # Directly below /tmp: a UNIX socket's path has room for 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="mailward-bench-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        rsa, ed25519 = rsa_key(folder, "2026a"), ed25519_key(folder, "2026a-ed")
        records = "\n".join(txt_record(f"{key.selector}._domainkey", key.record) for key in (rsa, ed25519))
        messages = MessageFolder(folder, DOMAIN)
        with Nameserver(folder / "nsd", {DOMAIN: records}) as nameserver:
            yield Workbench(options, folder, Driver(folder), messages, nameserver, rsa, ed25519)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
