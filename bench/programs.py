"""Programs in the foreground: started in a folder of their own, ready when they answer, ended by pid."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 90.0  # rspamd compiles its expressions for ten seconds at its first start
STOP_SECONDS = 20.0
POLL_SECONDS = 0.02
OUTPUT_SHOWN = 3000  # characters of a program's own words in an error
PORTS = range(20000, 32000)  # below Linux's ephemeral range, so that no client socket takes a port we have chosen


class BenchError(Exception):
    """Something failed to run: a program is missing, did not start, or did not do its work."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How a program is started; it runs in `folder` unless there is a `working_folder`, and writes there."""

    command: Sequence[str]
    folder: Path
    is_ready: Callable[[], bool]
    working_folder: Path | None = None


class Program:
    """One program in a process group of its own."""

    def __init__(self, name: str, launch: Launch) -> None:
        self.name = name
        self._launch = launch
        self._output = launch.folder / f"{name}.output"
        self._started: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Return the pid it was started with; BenchError if it is not running."""
        if self._started is None:
            raise BenchError(f"{self.name} is not running")
        return self._started.pid

    def start(self) -> None:
        """Start it and return once it answers; BenchError with its own words if it does not."""
        with self._output.open("wb") as output:
            self._started = subprocess.Popen(
                self._launch.command,
                cwd=self._launch.working_folder or self._launch.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_until_ready(self._started)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ask it to end, wait, and end its process group by force if it stays. Harmless if not running."""
        if self._started is None:
            return
        started, self._started = self._started, None
        started.terminate()
        try:
            started.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            _kill_group(started.pid)
            started.wait()
        _kill_group(started.pid)  # children that outlived it

    def signal(self, number: signal.Signals) -> None:
        """Send it one signal."""
        os.kill(self.pid, number)

    def output(self) -> str:
        """Return the end of what it has written to stdout and stderr."""
        return self._output.read_bytes().decode("utf-8", "replace")[-OUTPUT_SHOWN:] if self._output.exists() else ""

    def _wait_until_ready(self, started: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._launch.is_ready():
            code = started.poll()
            if code is not None:
                raise BenchError(f"{self.name} ended at once with status {code}\n{self.output()}")
            if time.monotonic() > deadline:
                raise BenchError(f"{self.name} did not answer within {START_SECONDS:.0f} s\n{self.output()}")
            time.sleep(POLL_SECONDS)


def require_binary(name: str, package: str) -> str:
    """Return the path of a binary; BenchError that names the Debian package if it is not installed."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin:/sbin:/usr/bin:/bin")
    if path is None:
        raise BenchError(f"{name} is not installed: apt-get install {package}")
    return path


def output_of(command: Sequence[str]) -> str:
    """Run a command to its end and return its standard output; BenchError with its words if it fails."""
    done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode != 0:
        words = (done.stdout + done.stderr).decode("utf-8", "replace")
        raise BenchError(f"{' '.join(command)} failed with status {done.returncode}\n{words[-OUTPUT_SHOWN:]}")
    return done.stdout.decode("utf-8", "replace")


def free_port(address: str) -> int:
    """Return a port of a loopback address that is free for TCP and UDP."""
    for port in random.sample(PORTS, 200):
        try:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET, kind) as attempt:
                    attempt.bind((address, port))
        except OSError:
            continue
        return port
    raise BenchError(f"no free port on {address} between {PORTS.start} and {PORTS.stop}")


def answers_on_socket(path: Path) -> bool:
    """Tell whether something accepts connections on a UNIX socket."""
    with socket.socket(socket.AF_UNIX) as attempt:
        try:
            attempt.connect(str(path))
        except OSError:
            return False
    return True


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
