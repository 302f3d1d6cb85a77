"""Running Postfix's and Dovecot's own commands: by lists, never by a shell, bounded in time."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

SECONDS = 60.0
PATHS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CONTROL = re.compile(r"\r|\x1b\[[0-9;]*m")


class ProgramFailed(Exception):
    """A program is missing, or ended with an error; the text is its own."""


def find_program(name: str) -> str | None:
    """Return the path of a program; None: it is not installed. An operator's PATH may lack the sbin folders."""
    return shutil.which(name, path=os.environ.get("PATH", "") + os.pathsep + PATHS)


def output_of(command: Sequence[str]) -> tuple[str, str]:
    """Return what a program wrote to stdout and to stderr. Raises ProgramFailed."""
    done = _run(command)
    if done.returncode != 0:
        raise ProgramFailed(f"{' '.join(command)}: {_text(done.stderr).strip() or f'status {done.returncode}'}")
    return _text(done.stdout), _text(done.stderr)


def succeeds(command: Sequence[str]) -> bool:
    """Say whether a program ends with status 0."""
    try:
        return _run(command).returncode == 0
    except ProgramFailed:
        return False


def words_on_a_terminal(command: Sequence[str]) -> tuple[int, list[str]]:
    """Return a program's status and the lines it wrote to a terminal: postfix(1) complains to the log where there is none."""
    ours, theirs = pty.openpty()
    try:
        started = subprocess.Popen(  # noqa: S603 (our own programs, by a list)
            command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=_environment(), start_new_session=True
        )
    except OSError as error:
        os.close(ours)
        raise ProgramFailed(f"{command[0]}: {error.strerror}") from None
    finally:
        os.close(theirs)
    octets = bytearray()
    with (
        os.fdopen(ours, "rb", buffering=0) as terminal,
        contextlib.suppress(OSError),
    ):  # EIO: nobody has it open any more
        while chunk := terminal.read(4096):
            octets += chunk
    status = started.wait(SECONDS)
    return status, [line for line in _CONTROL.sub("", _text(bytes(octets))).splitlines() if line.strip()]


def has_systemd() -> bool:
    """Say whether systemd is the machine's init."""
    return Path("/run/systemd/system").is_dir()


def word_of(text: str) -> str:
    """Return a text that a program wrote as a word for another one: the same octets, whatever character set the terminal has."""
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(  # noqa: S603
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, env=_environment(), check=False
        )
    except subprocess.TimeoutExpired:
        raise ProgramFailed(f"{' '.join(command)}: nothing after {SECONDS:.0f} seconds") from None
    except OSError as error:
        raise ProgramFailed(f"{command[0]}: {error.strerror}") from None


def _environment() -> dict[str, str]:
    # MAIL_CONFIG would let Postfix's commands read another instance than the one they are told.
    return {name: value for name, value in os.environ.items() if name != "MAIL_CONFIG"} | {"LC_ALL": "C", "PATH": PATHS}


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")
