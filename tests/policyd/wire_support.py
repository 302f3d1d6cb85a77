"""Servers on loopback that answer as they are told to, for what speaks SMTP and HTTP."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class SmtpServer:
    """Speaks just enough SMTP. `answers` are by the command's first word; `silent_at` answers that command never."""

    answers: dict[str, str] = field(default_factory=dict)
    silent_at: str = ""
    refused: str = ""  # this recipient
    drips: bool = False  # an octet now and then, and never a whole line
    port: int = 0
    commands: list[str] = field(default_factory=list)
    mails: list[bytes] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def serve(self, listener: socket.socket) -> None:
        while not self.stopped.is_set():
            with suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(30)
                    self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        replies = connection.makefile("rb")
        with replies:
            if not self._answer(connection, "connect", "220 mx.example.net"):
                return
            while line := replies.readline():
                command = line.decode("latin-1").strip()
                self.commands.append(command)
                word = command.split(" ")[0].split(":")[0].lower()
                default = {"data": "354 go on", "quit": "221 bye", "ehlo": "250-mx.example.net\r\n250 8BITMIME"}
                if self.refused and self.refused in command:
                    default[word] = "550 nobody"
                if not self._answer(connection, word, default.get(word, "250 ok")):
                    return
                if word == "quit":
                    return
                if word == "data" and self.answers.get("data", "3")[0] == "3":
                    mail = b""
                    while (line := replies.readline()) != b".\r\n":
                        mail += line
                    self.mails.append(mail)
                    self._answer(connection, "message", "250 queued")

    def _answer(self, connection: socket.socket, word: str, default: str) -> bool:
        if self.silent_at == word:
            while not self.stopped.is_set():
                if self.drips:
                    try:
                        connection.sendall(b"2")
                    except OSError:
                        return False
                time.sleep(0.02)
            return False
        connection.sendall(self.answers.get(word, default).encode() + b"\r\n")
        return True


@contextmanager
def smtp_server(server: SmtpServer) -> Iterator[SmtpServer]:
    """Let it serve, one conversation at a time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        server.port = listener.getsockname()[1]
        thread = threading.Thread(target=server.serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.stopped.set()
            thread.join(30)


@dataclass(frozen=True)
class Posted:
    """One request."""

    path: str
    headers: dict[str, str]
    content: bytes


@dataclass
class HttpServer:
    """Answers every POST alike, and every GET with `page`.

    `is_silent`: takes what is posted and says nothing; `is_endless`: octets without end.
    """

    status: int = 200
    reply: bytes = b"[]"
    page: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    is_silent: bool = False
    is_endless: bool = False
    url: str = ""
    posted: list[Posted] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)


@contextmanager
def http_server(server: HttpServer) -> Iterator[HttpServer]:
    """Let it serve."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            server.posted.append(
                Posted(self.path, {name.lower(): value for name, value in self.headers.items()}, content)
            )
            if server.is_silent:
                server.stopped.wait(60)
                return
            self.answer(server.reply)

        def do_GET(self) -> None:
            self.answer(server.page)

        def answer(self, content: bytes) -> None:
            self.send_response(server.status)
            for name, value in server.headers.items():
                self.send_header(name, value)
            if not server.is_endless:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(content)
                while server.is_endless and not server.stopped.is_set():
                    self.wfile.write(b"x" * 65536)

        def log_message(self, *_arguments: object) -> None:
            pass

    class Listener(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = True

        def handle_error(self, *_arguments: object) -> None:
            pass

    with Listener(("127.0.0.1", 0), Handler) as listener:
        server.url = f"http://127.0.0.1:{listener.server_address[1]}"
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.stopped.set()
            listener.shutdown()
            thread.join(30)
