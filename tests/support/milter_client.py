"""Speaks the milter protocol as Postfix does: one session, any octets, every answer kept.

The protocol is Sendmail's, version 6 (libmilter/mfdef.h names the commands and flags).
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

NO_CONNECT, NO_HELO, NO_MAIL, NO_RCPT = 0x1, 0x2, 0x4, 0x8
NO_BODY, NO_HEADER, NO_END_OF_HEADER, NO_DATA = 0x10, 0x20, 0x40, 0x200
NR_HEADER, NR_CONNECT, NR_HELO, NR_MAIL, NR_RCPT = 0x80, 0x1000, 0x2000, 0x4000, 0x8000
NR_DATA, NR_END_OF_HEADER, NR_BODY = 0x10000, 0x40000, 0x80000
LEADING_SPACE = 0x100000
EVERYTHING = 0x1FFFFF
ALL_ACTIONS = 0x1FF
CHUNK = 65_535

EDITS = {b"i": "insert", b"h": "add", b"m": "change", b"q": "quarantine"}


class Dropped(Exception):
    """The milter closed the session, or answered nothing in time: Postfix would apply its default action."""


@dataclass(slots=True)
class Outcome:
    """What the milter answered to one message: the last reply's letter, its text, and the edits before it."""

    reply: str
    text: str = ""
    edits: list[tuple[str, bytes]] = field(default_factory=list)

    def inserted(self, name: str = "DKIM-Signature") -> list[bytes]:
        """Return the values of inserted fields of that name, first the topmost."""
        found: list[bytes] = []
        for kind, octets in self.edits:
            if kind == "insert":
                given, value = octets[4:].rstrip(b"\0").split(b"\0", 1)
                if given.decode() == name:
                    found.insert(0, value)
        return found


class MilterSession:
    """One connection to a milter."""

    def __init__(
        self, path: str | tuple[str, int], *, timeout: float = 30.0, offer: int = EVERYTHING, actions: int = ALL_ACTIONS
    ) -> None:
        self._socket = socket.socket(socket.AF_UNIX if isinstance(path, str) else socket.AF_INET)
        self._socket.settimeout(timeout)
        self._input = b""
        try:
            self._socket.connect(path)
            self._command(b"O", struct.pack("!III", 6, actions, offer))
            letter, octets = self._read()
        except (OSError, Dropped):
            self._socket.close()
            raise
        assert letter == b"O", letter
        self.steps: int = struct.unpack("!III", octets[:12])[2]
        self.macros = _macro_lists(octets[12:])

    def close(self) -> None:
        """End the session as Postfix does."""
        with contextlib.suppress(OSError):
            self._command(b"Q")
        self._socket.close()

    def connect(self, address: str = "192.0.2.10", name: bytes = b"client.example.com", daemon: str = "smtpd") -> str:
        """Say who connected; return the reply's letter."""
        self._macros(b"C", {"{daemon_name}": daemon})
        family = b"6" if ":" in address else b"4"
        return self._step(
            b"C", name + b"\0" + family + struct.pack("!H", 40_000) + address.encode() + b"\0", NO_CONNECT, NR_CONNECT
        )

    def helo(self, name: bytes = b"client.example.com") -> str:
        """Say HELO; return the reply's letter."""
        return self._step(b"H", name + b"\0", NO_HELO, NR_HELO)

    def mail(self, mail_from: bytes = b"sender@example.com", *, login: bytes = b"") -> str:
        """Say MAIL FROM; return the reply's letter."""
        macros: dict[str, str | bytes] = {"{auth_type}": "PLAIN", "{auth_authen}": login} if login else {}
        self._macros(b"M", macros)
        return self._step(b"M", b"<" + mail_from + b">\0", NO_MAIL, NR_MAIL)

    def recipient(self, address: bytes) -> Outcome:
        """Say RCPT TO."""
        return self._answer(b"R", b"<" + address + b">\0", NO_RCPT, NR_RCPT)

    def data(self, queue_id: str = "4QTEST") -> Outcome:
        """Say DATA."""
        self._macros(b"T", {"i": queue_id})
        return self._answer(b"T", b"", NO_DATA, NR_DATA)

    def end_of_message(self, queue_id: str = "4QTEST") -> Outcome:
        """Come to the end of a message whose content the milter does not want."""
        assert self.steps & NO_HEADER
        assert self.steps & NO_END_OF_HEADER
        assert self.steps & NO_BODY
        self._macros(b"E", {"i": queue_id})
        return self._answer(b"E", b"", 0, 0)

    def message(
        self,
        fields: Iterable[tuple[bytes, bytes]],
        body: bytes = b"Hello\r\n",
        *,
        login: bytes = b"",
        mail_from: bytes = b"sender@example.com",
        queue_id: str = "4QTEST",
        chunk: int = CHUNK,
    ) -> Outcome:
        """Send one message; the values have their leading space and LF in folds, as Postfix sends them."""
        macros: dict[str, str | bytes] = {"{auth_type}": "PLAIN", "{auth_authen}": login} if login else {}
        self._macros(b"M", macros)
        steps = [(b"M", b"<" + mail_from + b">\0", NO_MAIL, NR_MAIL), (b"R", b"<rcpt@example.net>\0", NO_RCPT, NR_RCPT)]
        steps += [(b"T", b"", NO_DATA, NR_DATA)]
        for name, value in fields:
            value = value if self.steps & LEADING_SPACE else value.removeprefix(b" ")
            steps.append((b"L", name + b"\0" + value + b"\0", NO_HEADER, NR_HEADER))
        for command, octets, skipped, unanswered in steps:
            letter = self._step(command, octets, skipped, unanswered)
            if letter != "c":
                return Outcome(letter)
        self._macros(b"N", {"i": queue_id})
        outcome = self._answer(b"N", b"", NO_END_OF_HEADER, NR_END_OF_HEADER)
        if outcome.reply != "c":
            return outcome
        for at in range(0, len(body), chunk):
            letter = self._step(b"B", body[at : at + chunk], NO_BODY, NR_BODY)
            if letter == "s":
                break
        self._macros(b"E", {"i": queue_id})
        return self._answer(b"E", b"", 0, 0)

    def abort(self) -> None:
        """Forget the message (RSET)."""
        self._command(b"A")

    def send_raw(self, octets: bytes) -> None:
        """Send octets that need not be a command."""
        self._socket.sendall(octets)

    def _step(self, command: bytes, octets: bytes, skipped: int, unanswered: int) -> str:
        return self._answer(command, octets, skipped, unanswered).reply

    def _answer(self, command: bytes, octets: bytes, skipped: int, unanswered: int) -> Outcome:
        if self.steps & skipped:
            return Outcome("c")
        self._command(command, octets)
        outcome = Outcome("c")
        if self.steps & unanswered:
            return outcome
        while True:
            letter, answer = self._read()
            if letter in EDITS:
                outcome.edits.append((EDITS[letter], answer))
            elif letter != b"p":
                outcome.reply, outcome.text = letter.decode(), answer.rstrip(b"\0").decode("utf-8", "replace")
                return outcome

    def _macros(self, stage: bytes, macros: dict[str, str | bytes] | dict[str, str]) -> None:
        octets = b"".join(
            name.encode() + b"\0" + (value if isinstance(value, bytes) else value.encode()) + b"\0"
            for name, value in macros.items()
        )
        self._command(b"D", stage + octets)

    def _command(self, command: bytes, octets: bytes = b"") -> None:
        self._socket.sendall(struct.pack("!I", len(octets) + 1) + command + octets)

    def _read(self) -> tuple[bytes, bytes]:
        (length,) = struct.unpack("!I", self._take(4))
        packet = self._take(length)
        return packet[:1], packet[1:]

    def _take(self, count: int) -> bytes:
        while len(self._input) < count:
            try:
                more = self._socket.recv(65_536)
            except OSError as error:
                raise Dropped(str(error)) from None
            if not more:
                raise Dropped("closed")
            self._input += more
        taken, self._input = self._input[:count], self._input[count:]
        return taken


def _macro_lists(octets: bytes) -> dict[int, str]:
    """Parse the macro lists a milter asks for: stage number, names."""
    lists = {}
    while len(octets) > 4:
        (stage,) = struct.unpack("!I", octets[:4])
        names, _, octets = octets[4:].partition(b"\0")
        lists[stage] = names.decode()
    return lists
