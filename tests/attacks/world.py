"""The world around the table for the daemon: a nameserver with its zones, and whom the operator trusts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.attacks.zones import SILENT, nsd_zone
from tests.support.nameserver import Nameserver

TRUSTED = {
    "trusted_sealers": "forwarder.example",
    "mailing_lists": "list.example",
    "forwarder_names": "friend.example",
    "accept_domains": "accepted.example",
}
SETTINGS = "".join(f'{key} = ["{name}"]\n' for key, name in TRUSTED.items())


@contextmanager
def open_nameserver(folder: Path) -> Iterator[Nameserver]:
    """Run an NSD that serves the table's names and fails for the silent ones."""
    with Nameserver(folder / "nsd", {".": nsd_zone()}, ttl=300) as nameserver:
        nameserver.break_zone(*SILENT)
        yield nameserver
