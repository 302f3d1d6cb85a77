"""What every job stands on: a temporary folder with load driver, keys, messages and nameserver."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.driver import Driver
from bench.keys import Key, ed25519_key, rsa_key
from bench.messages import MessageFolder
from tests.support.nameserver import Nameserver, txt_record
from tests.support.processes import open_folder

DOMAIN = "example.com"  # that of the messages' From field
CONNECTIONS = 8
DNS_PORT = 5300  # no root needed
DNS_TTL = 3600  # longer than a run: what is measured is signing, not look-ups again and again


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line chose; `messages` is the number of 4 kB messages a program gets in a round.

    `plots` is the folder for what is drawn; it may not exist yet. `scenarios` are those of the replayed outage; empty: all.
    """

    rounds: int
    messages: int
    plots: Path
    scenarios: Sequence[str] = ()


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
    with open_folder("mailward-bench-") as folder:
        rsa, ed25519 = rsa_key(folder, "2026a"), ed25519_key(folder, "2026a-ed")
        records = "\n".join(txt_record(f"{key.selector}._domainkey", key.record) for key in (rsa, ed25519))
        messages = MessageFolder(folder, DOMAIN)
        with Nameserver(folder / "nsd", {DOMAIN: records}, port=DNS_PORT, ttl=DNS_TTL) as nameserver:
            yield Workbench(options, folder, Driver(folder), messages, nameserver, rsa, ed25519)
