"""tools/beside, by which `make test` runs two halves at once: its status is both's, and who interrupts it ends both."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import HEARS_HUP, read_text, signal_group, wait_until

BESIDE = Path(__file__).resolve().parents[1] / "tools" / "beside"
PAUSE = "import os, sys, time; print(os.getpid(), file=open(sys.argv[1], 'w'), flush=True); time.sleep(600)"


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        pytest.param("true", "true", 0, id="both-well"),
        pytest.param("exit 3", "true", 1, id="the-first-fails"),
        pytest.param("true", "exit 3", 1, id="the-second-fails"),
    ],
)
def test_it_fails_if_either_does(first: str, second: str, status: int) -> None:
    assert subprocess.run([BESIDE, first, second], timeout=60).returncode == status


def test_what_the_second_prints_comes_last() -> None:
    done = subprocess.run([BESIDE, "sleep 0.2; echo first", "echo second"], stdout=subprocess.PIPE, timeout=60)
    assert done.stdout == b"first\nsecond\n"


def test_the_second_reads_nothing_of_the_caller() -> None:
    """In a terminal that would stop it."""
    asked = subprocess.run([BESIDE, "true", "cat"], input=b"typed\n", stdout=subprocess.PIPE, timeout=60)
    assert asked.stdout == b""


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_neither_outlives_an_interruption(number: signal.Signals, tmp_path: Path) -> None:
    pids = [tmp_path / "first", tmp_path / "second"]
    commands = [f'{sys.executable} -c "{PAUSE}" {path}; true' for path in pids]  # a shell between it and us
    beside = subprocess.Popen([*HEARS_HUP, BESIDE, *commands], start_new_session=True)
    try:
        wait_until(lambda: all(read_text(path).strip() for path in pids), "both running")
        signal_group(beside.pid, number)
        assert beside.wait(60) == 130
        wait_until(lambda: not any(is_there(path) for path in pids), "both having ended")
    finally:
        signal_group(beside.pid, signal.SIGKILL)


def is_there(path: Path) -> bool:
    """Tell whether the process whose pid is in this file runs."""
    return "time.sleep(600)" in read_text(Path(f"/proc/{read_text(path).strip()}/cmdline"))
