"""Real programs for tests and benchmarks: each in a folder of its own, in the foreground, on loopback.

A program counts as started when it answers, not when it was forked. It is ended by the pid it was started with, never
by its name: a machine may run the real thing beside the tests. A binary that is missing is a failure that names the
Debian package, never a skip: a test that did not run proves nothing.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

START_SECONDS = 30.0  # far more than any of them needs: a slow machine is no failure
STOP_SECONDS = 20.0
POLL_SECONDS = 0.02
OUTPUT_SHOWN = 4000  # characters of a program's own words in an error
PORTS = range(20000, 32000)  # below Linux's ephemeral range, so that no client socket takes a port we have chosen
_GIVEN: set[int] = set()  # ports that free_port() has returned


class ProgramError(Exception):
    """A program is missing, did not start, died, or did not do what was waited for; the text says what it said."""


class Program:
    """One program in the foreground; its output goes to `<folder>/<name>.output`."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        *,
        is_ready: Callable[[], bool],
        working_folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        descriptors: Sequence[int] = (),
        start_seconds: float = START_SECONDS,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.folder = folder
        self.is_ready = is_ready
        self.working_folder = working_folder or folder
        self.environment = dict(environment or {})
        self.descriptors = tuple(descriptors)  # handed on under their own numbers
        self.start_seconds = start_seconds
        self.output_path = folder / f"{name}.output"
        self._started: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Return the pid it was started with; ProgramError if it is not running."""
        if self._started is None:
            raise ProgramError(f"{self.name} is not running")
        return self._started.pid

    def start(self) -> None:
        """Start it and return once it answers; ProgramError with its own output if it does not."""
        with self.output_path.open("ab") as output:
            self._started = subprocess.Popen(
                self.command,
                cwd=self.working_folder,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=self.descriptors,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ask it to end (TERM), wait, and end its whole session by force if it stays. Harmless if it is not running."""
        if self._started is None:
            return
        started, self._started = self._started, None
        started.terminate()
        try:
            started.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            signal_group(started.pid, signal.SIGKILL)
            started.wait()
            raise ProgramError(
                f"{self.name} did not end within {STOP_SECONDS:.0f} s of TERM\n{self.explain()}"
            ) from None
        signal_group(started.pid, signal.SIGKILL)  # children that outlived it

    def restart(self) -> None:
        """Stop it, then start it."""
        self.stop()
        self.start()

    def signal(self, number: signal.Signals) -> None:
        """Send it one signal."""
        os.kill(self.pid, number)

    def output(self) -> str:
        """Return all that it has written to stdout and stderr, over all its starts."""
        return read_text(self.output_path)

    def explain(self) -> str:
        """Return its command and the end of its output, for an error's text."""
        return f"command: {' '.join(self.command)}\noutput:\n{self.output()[-OUTPUT_SHOWN:]}"

    def _wait_until_ready(self) -> None:
        started = self._started
        assert started is not None
        deadline = time.monotonic() + self.start_seconds
        while not self.is_ready():
            code = started.poll()
            if code is not None:
                raise ProgramError(f"{self.name} ended at once with status {code}\n{self.explain()}")
            if time.monotonic() > deadline:
                raise ProgramError(f"{self.name} did not answer within {self.start_seconds:.0f} s\n{self.explain()}")
            time.sleep(POLL_SECONDS)


def require_binary(name: str, package: str) -> str:
    """Return the path of a binary; ProgramError that says which Debian package has it if it is not installed."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin:/sbin:/usr/bin:/bin")
    if path is None:
        raise ProgramError(f"{name} is not installed: apt-get install {package}")
    return path


def require_root() -> None:
    """Raise ProgramError unless we are root: Postfix's master, and port 53, need it."""
    if os.geteuid() != 0:
        raise ProgramError("this must run as root: it starts a real Postfix, and a nameserver on port 53 of loopback")


def run(command: Sequence[str], *, standard_input: bytes = b"", seconds: float | None = 60.0) -> str:
    """Run a command to its end and return its standard output; ProgramError with all its words if it fails."""
    done = subprocess.run(command, input=standard_input, capture_output=True, timeout=seconds)
    output = done.stdout.decode("utf-8", "replace")
    if done.returncode != 0:
        words = output + done.stderr.decode("utf-8", "replace")
        raise ProgramError(f"{' '.join(command)} failed with status {done.returncode}\n{words[-OUTPUT_SHOWN:]}")
    return output


HEARS_HUP = ("env", "--default-signal=HUP")  # before a command: nohup, and many a CI, start all of us with HUP ignored


def wait_until(is_so: Callable[[], bool], what: str, *, seconds: float = START_SECONDS) -> None:
    """Poll until `is_so()`; ProgramError that says what was waited for if it never is."""
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise ProgramError(f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(POLL_SECONDS)


def read_samples(page: str, prefix: str) -> dict[str, float]:
    """Return every sample of a /metrics page by its name, without the program's prefix."""
    samples = (line.rpartition(" ") for line in page.splitlines() if not line.startswith("#"))
    return {name.removeprefix(prefix): float(value) for name, _, value in samples}


def free_port(address: str = "127.0.0.1") -> int:
    """Return a TCP port of a loopback address that nothing listens on, and another one each time.

    Of two daemons with one port the second ends, and the first answers for it: both would count as started.
    """
    if len(_GIVEN) > len(PORTS) // 2:
        _GIVEN.clear()
    for port in random.sample([port for port in PORTS if port not in _GIVEN], 200):
        with socket.socket() as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                attempt.bind((address, port))
            except OSError:
                continue
            _GIVEN.add(port)
            return port
    raise ProgramError(f"no free port on {address} between {PORTS.start} and {PORTS.stop}")


def answers_on(port: int, address: str = "127.0.0.1") -> bool:
    """Tell whether something accepts connections there."""
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


def answers_on_socket(path: Path) -> bool:
    """Tell whether something accepts connections on a UNIX socket."""
    with socket.socket(socket.AF_UNIX) as attempt:
        try:
            attempt.connect(str(path))
        except OSError:
            return False
    return True


def signal_group(group: int, number: signal.Signals) -> None:
    """Send a signal to a process group that we started; nothing happens if it is gone."""
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def read_text(path: Path) -> str:
    """Return a log's text, whatever bytes are in it; empty if there is none yet, or its process in /proc has gone."""
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


@contextmanager
def open_folder(prefix: str = "mailward-") -> Iterator[Path]:
    """Make a folder that unprivileged daemons may walk through (pytest's are 0700); remove it afterwards.

    Directly below /tmp, because the path of a UNIX socket has room for 107 bytes.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
