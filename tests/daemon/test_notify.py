"""What systemd is told (sd_notify(3)), over a real datagram socket; and that nobody need listen."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailward.daemon.notify import Notifier

# A Notifier lives as long as its process and has no close(); here its socket is left to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Listen as systemd does, by a path or an abstract name."""
    name = f"@mailward-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name[1:] if name.startswith("@") else name)
        listening.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield listening


def test_a_service_tells_its_life(systemd: socket.socket) -> None:
    notifier = Notifier()
    notifier.ready("3 workers serve \u00fc")
    assert systemd.recv(1000) == "READY=1\nSTATUS=3 workers serve \u00fc".encode()
    notifier.alive()
    assert systemd.recv(1000) == b"WATCHDOG=1"
    notifier.reloading()
    assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=[0-9]+", systemd.recv(1000))
    notifier.ready("")
    assert systemd.recv(1000) == b"READY=1\nSTATUS="
    notifier.stopping(120.0)
    assert systemd.recv(1000) == b"STOPPING=1\nEXTEND_TIMEOUT_USEC=125000000"


def test_the_environment_is_taken_and_not_left_to_children(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    Notifier()
    assert not {"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"} & set(os.environ)


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        pytest.param({}, 0.0, id="no watchdog"),
        pytest.param({"WATCHDOG_USEC": "30000000"}, 30.0, id="for whoever reads it"),
        pytest.param({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "own"}, 1.5, id="for us"),
        pytest.param({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "1"}, 0.0, id="for another process"),
        pytest.param({"WATCHDOG_USEC": "soon"}, 0.0, id="garbage"),
        pytest.param({"WATCHDOG_USEC": ""}, 0.0, id="empty"),
        pytest.param({"WATCHDOG_USEC": "\u00b2"}, 0.0, id="a digit that is no number"),
        pytest.param({"WATCHDOG_USEC": "9" * 400}, 0.0, id="more than a float holds"),
    ],
)
def test_the_watchdogs_interval(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], seconds: float) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, str(os.getpid()) if value == "own" else value)
    assert Notifier().watchdog_seconds == seconds


@pytest.mark.parametrize("address", ["", "/nonexistent/notify", "@nobody-listens-here", "relative", "/" + "x" * 200])
def test_without_a_listener_nothing_happens(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notifier = Notifier()
    notifier.ready("serving")
    notifier.alive()
    notifier.stopping(1.0)


def test_a_listener_that_does_not_read_holds_up_nothing(systemd: socket.socket) -> None:
    notifier = Notifier()
    for _ in range(10_000):  # far more datagrams than a socket's queue takes
        notifier.alive()
    assert systemd.recv(1000) == b"WATCHDOG=1"
