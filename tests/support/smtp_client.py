"""Speaks SMTP with any octets: what smtplib would refuse to send is what a test wants to see Postfix's answer to."""

from __future__ import annotations

import socket
from dataclasses import dataclass

CRLF = b"\r\n"


@dataclass(frozen=True, slots=True)
class SmtpReply:
    """One reply: its code, its text, and the command it was given to (`data` for the message itself)."""

    code: int
    text: str
    command: str


def send_raw(
    port: int,
    message: bytes,
    *,
    client: str,
    helo: bytes,
    mail_from: bytes,
    recipient: str,
    seconds: float = 60.0,
) -> SmtpReply:
    """Send one message as if from `client` (XCLIENT); return the first reply that ends it, for good or bad."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        session = _Session(connection)
        session.read("connect")
        session.command(b"EHLO client.example")
        session.command(f"XCLIENT ADDR={client} NAME=[UNAVAILABLE]".encode())
        session.command(b"EHLO " + helo)  # RFC 5321 4.1.4: whatever it is answered, the mail may go on
        commands = [b"MAIL FROM:<" + mail_from + b">", f"RCPT TO:<{recipient}>".encode(), b"DATA"]
        for command in commands:
            reply = session.command(command)
            if reply.code >= 400:
                return reply
        connection.sendall(_stuffed(message))
        return session.read("data")


class _Session:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._replies = connection.makefile("rb")

    def command(self, line: bytes) -> SmtpReply:
        self._connection.sendall(line + CRLF)
        return self.read(line[:4].decode("ascii").lower())

    def read(self, command: str) -> SmtpReply:
        """Read one reply, all of its lines."""
        lines = []
        while True:
            line = self._replies.readline()
            if not line:
                return SmtpReply(0, "the connection was closed", command)
            lines.append(line.decode("utf-8", "replace").rstrip())
            if line[3:4] != b"-":
                return SmtpReply(int(line[:3]), " ".join([lines[0][4:], *(each[4:] for each in lines[1:])]), command)


def _stuffed(message: bytes) -> bytes:
    """Return the message as DATA carries it (RFC 5321 4.5.2)."""
    ended = message if message.endswith(CRLF) or not message else message + CRLF
    dotted = ended.replace(CRLF + b".", CRLF + b"..")
    return (b"." if dotted.startswith(b".") else b"") + dotted + b"." + CRLF
