"""The programs that read what is set up: what they complain of, and making them read it anew."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from postmaster.setup.programs import ProgramFailed, find_program, has_systemd, output_of, succeeds, words_on_a_terminal

_LINE_NUMBER = re.compile(r"line \d+")
CONNECT_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Programs:
    """Which Postfix and which Dovecot; None: there is none, or it is not ours to touch."""

    postfix: Path | None
    dovecot: Path | None = None
    has_dovecot: bool = False

    def complaints(self) -> list[str]:
        """Return what they have to say against their configuration; line numbers left out, so that runs can be compared."""
        found = self._of_postfix() if self.postfix else []
        found += self._of_dovecot() if self.has_dovecot else []
        return list(dict.fromkeys(_LINE_NUMBER.sub("line", line) for line in found))

    def is_postfix_running(self) -> bool:
        """Tell whether this instance's master runs."""
        postfix = find_program("postfix")
        return bool(postfix and self.postfix) and succeeds([postfix or "", "-c", str(self.postfix), "status"])

    def reload(self, reloads: Iterable[str], restarts: Iterable[str]) -> list[str]:
        """Make those that run read anew, those that must be started anew first; return what each did not do."""
        failed = []
        for unit, verb in [*((unit, "restart") for unit in restarts), *((unit, "reload") for unit in reloads)]:
            try:
                self._tell(unit, verb)
            except ProgramFailed as error:
                failed.append(str(error))
        return failed

    def _of_postfix(self) -> list[str]:
        postconf, postfix = find_program("postconf"), find_program("postfix")
        if not postconf or not postfix:
            return ["postfix is not installed"]
        found: list[str] = []
        for flag in ("-n", "-M", "-P"):
            with _noted(found):
                found += output_of([postconf, "-c", str(self.postfix), flag])[1].splitlines()
        status, lines = words_on_a_terminal([postfix, "-c", str(self.postfix), "check"])
        return found + lines + ([f"postfix check ends with status {status}"] if status else [])

    def _of_dovecot(self) -> list[str]:
        doveconf = find_program("doveconf")
        found: list[str] = []
        if doveconf:
            with _noted(found):
                found += output_of([doveconf, *(["-c", str(self.dovecot)] if self.dovecot else []), "-n"])[
                    1
                ].splitlines()
        return found

    def _tell(self, unit: str, verb: str) -> None:
        if unit == "postfix":
            # With its own command: it knows its instances, and needs no init.
            if self.is_postfix_running():
                words_on_a_terminal([find_program("postfix") or "", "-c", str(self.postfix), verb])
        elif has_systemd():
            # A daemon that was removed has nothing to read.
            loaded, _ = output_of(["systemctl", "show", "--property=LoadState", "--value", unit])
            if loaded.strip() != "not-found":
                output_of(["systemctl", "try-restart" if verb == "restart" else "try-reload-or-restart", unit])
        elif unit == "dovecot":
            command = [find_program("doveadm") or "", *(["-c", str(self.dovecot)] if self.dovecot else []), "reload"]
            if succeeds([*command[:-1], "service", "status"]):
                output_of(command)
        else:
            raise ProgramFailed(f"{unit}: systemd does not run here; {verb} it yourself where it runs")


def answers(address: str) -> bool:
    """Tell whether something listens at a `socket` of mailward.toml."""
    kind, _, rest = address.partition(":")
    try:
        if kind == "unix":
            with socket.socket(socket.AF_UNIX) as link:
                link.settimeout(CONNECT_SECONDS)
                link.connect(rest)
        else:
            name, _, port = rest.rpartition(":")
            socket.create_connection((name.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, ValueError):
        return False
    return True


@contextlib.contextmanager
def _noted(found: list[str]) -> Iterator[None]:
    try:
        yield
    except ProgramFailed as error:
        found.append(str(error))
