"""`make demo` when somebody does not see it to its end: nothing that it has started stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import HEARS_HUP, read_text, signal_group, wait_until

CHECKOUT = Path(__file__).resolve().parents[2]
ANNOUNCED = "Mailward's daemons in "


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=["ctrl-c", "its-terminal-is-closed"])
def test_a_demo_that_is_stopped_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    told = tmp_path / "told"
    with told.open("wb") as output:
        demo = subprocess.Popen(
            [*HEARS_HUP, sys.executable, "-m", "tests.mail.demo"],
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until(lambda: ANNOUNCED in read_text(told), "the demo's first words")
        folder = Path(read_text(told).partition(ANNOUNCED)[2].split()[0])
        wait_until(lambda: len(programs_of(folder)) > 1, "programs of its own")
        demo.send_signal(number)
        wait_until(lambda: "Stopping" in read_text(told), "its hearing that")
        demo.send_signal(number)  # once more, while it cleans up
        assert demo.wait(60) == 130, read_text(told)
        assert not folder.exists()
        assert programs_of(folder) == []
    finally:
        signal_group(demo.pid, signal.SIGTERM)
        demo.wait(60)


def programs_of(folder: Path) -> list[str]:
    """Return the command lines of the programs that name this folder."""
    lines = (read_text(Path(f"/proc/{pid}/cmdline")) for pid in os.listdir("/proc") if pid.isdigit())
    return [line for line in lines if str(folder) in line]
