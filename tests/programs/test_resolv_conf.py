"""Other nameservers in /etc/resolv.conf: a daemon asks them without being told. It has a resolv.conf of its own, by a mount."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailward.daemon.watched import LOOK_SECONDS
from tests.support.daemon import Daemon
from tests.support.processes import free_port, read_text, wait_until

ROOT = Path(__file__).parents[2]
MOUNT = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'


class Verifier(Daemon):
    """A mailward-auth-verify with the system's nameservers; `resolv_conf` is what it finds as /etc/resolv.conf."""

    prefix = "mailward_auth_verify_"

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.resolv_conf = folder / "resolv.conf"
        self.resolv_conf.write_text("nameserver 127.0.0.2\n")
        config = folder / "mailward.toml"
        config.write_text(
            f'authserv_id = "mx.example.net"\n[auth-verify]\nsocket = "unix:{folder}/auth-verify.sock"\n'
            f'metrics = "127.0.0.1:{self.port}"\nworkers = 1\n'
        )
        daemon = [sys.executable, "-m", "milters.auth_verify", "--config", str(config)]
        command = ["unshare", "--mount", "sh", "-c", MOUNT, str(self.resolv_conf), *daemon]
        super().__init__("auth-verify", command, folder, is_ready=self.is_serving, working_folder=ROOT)

    def nameservers(self) -> set[str]:
        """Return whom the metrics name as asked."""
        return {
            name for name in ("127.0.0.2", "127.0.0.3") if f'dns_queries_total{{nameserver="{name}"}}' in self.metrics()
        }


@pytest.fixture
def verifier(folder: Path) -> Iterator[Verifier]:
    verifier = Verifier(folder)
    verifier.start()
    yield verifier
    verifier.stop()


def test_a_daemon_follows_resolv_conf(verifier: Verifier) -> None:
    assert verifier.nameservers() == {"127.0.0.2"}
    changes = Changes(verifier)
    wait_until(changes.are_seen, "the change to be seen", seconds=90)
    wait_until(lambda: "127.0.0.3" in verifier.nameservers(), "the new nameserver")
    wait_until(lambda: "event=reloaded" in read_text(verifier.output_path), "the new generation")


class Changes:
    """Writes the new nameserver, and again with another comment: what is written before the daemon's first look is no change."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._next = 0.0

    def are_seen(self) -> bool:
        if time.monotonic() > self._next:
            self._verifier.resolv_conf.write_text(f"nameserver 127.0.0.3\n# {time.monotonic()}\n")
            self._next = time.monotonic() + 6 * LOOK_SECONDS
        return "event=file-changed" in read_text(self._verifier.output_path)
