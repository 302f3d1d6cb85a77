"""The status server over real sockets: what it answers, what it refuses, and that nobody holds it up."""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailward.daemon import log
from mailward.daemon.status import CLIENT_SECONDS, MAX_CLIENTS, MAX_REQUEST, Response, StatusServer, address_warnings
from mailward.model.errors import ConfigError
from mailward.settings.values import Port
from tests.support.processes import free_port

DEADLINE_SECONDS = 20.0  # far more than loopback needs
LARGE = b"x" * 8_000_000  # more than the socket's buffers hold


class Loop:
    """A status server and its selector loop, turned by the test."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.address = Port("127.0.0.1", free_port())
        self.asked: list[tuple[str, str]] = []
        self.server = StatusServer(self.address, self.selector, self.respond, log.get("test"), "test.metrics")

    def respond(self, path: str, accept: str) -> Response:
        self.asked.append((path, accept))
        if path == "/large":
            return Response(200, LARGE)
        if path == "/":
            return Response(200, b"good\n", "text/html")
        return Response(503 if path == "/readyz" else 404, b"bad\n")

    def turn(self, seconds: float = 0.0) -> None:
        """Serve what is ready."""
        for key, _ in self.selector.select(seconds):
            key.data()

    def turn_until_quiet(self) -> None:
        while ready := self.selector.select(0.05):
            for key, _ in ready:
                key.data()

    def connect(self) -> socket.socket:
        client = socket.create_connection(self.address)
        client.setblocking(False)
        self.turn(DEADLINE_SECONDS)
        return client

    def finish(self, client: socket.socket) -> bytes:
        """Turn until the server closes the connection; return all that it sent. Closes the client, too."""
        received, deadline = b"", time.monotonic() + DEADLINE_SECONDS
        with client:
            while time.monotonic() < deadline:
                self.turn(0.01)
                with contextlib.suppress(BlockingIOError):
                    try:
                        octets = client.recv(1 << 20)
                    except ConnectionError:
                        return received
                    if not octets:
                        return received
                    received += octets
        raise AssertionError(f"the server did not close the connection; it sent {received[:200]!r}")

    def ask(self, *pieces: bytes) -> bytes:
        """Send the pieces one by one and return what comes back."""
        client = self.connect()
        for piece in pieces:
            with contextlib.suppress(ConnectionError, BlockingIOError):
                client.send(piece)
            self.turn()
        return self.finish(client)

    def close(self) -> None:
        self.server.close_inherited()
        self.selector.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    started = Loop()
    yield started
    started.close()


def parsed(reply: bytes) -> tuple[str, dict[str, str], bytes]:
    """Cut a reply into status line, fields and body."""
    head, _, body = reply.partition(b"\r\n\r\n")
    status, *lines = head.decode("ascii").split("\r\n")
    return status, {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}, body


def test_get_answers_with_a_page(loop: Loop) -> None:
    status, fields, body = parsed(loop.ask(b"GET / HTTP/1.1\r\nHost: localhost\r\nACCEPT:  text/html \r\n\r\n"))
    assert (status, body) == ("HTTP/1.1 200 OK", b"good\n")
    assert fields["content-length"] == "5"
    assert fields["content-type"] == "text/html"
    assert fields["connection"] == "close"
    assert loop.asked == [("/", "text/html")]


@pytest.mark.parametrize("path", [b"/", b"/readyz", b"/nowhere"])
def test_no_browser_takes_anything_else_for_an_answer(loop: Loop, path: bytes) -> None:
    fields = parsed(loop.ask(b"GET %s HTTP/1.1\r\n\r\n" % path))[1]
    assert fields["content-security-policy"].startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in fields["content-security-policy"]
    assert fields["referrer-policy"] == "no-referrer"
    assert fields["cross-origin-resource-policy"] == "same-origin"
    assert fields["x-content-type-options"] == "nosniff"
    assert fields["cache-control"] == "no-store"
    assert "set-cookie" not in fields


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9461", 200),
        ("127.0.0.1", 200),
        ("192.0.2.1:80", 200),
        ("[::1]:9461", 200),
        ("[::1]", 200),
        ("localhost:9461", 200),
        ("LOCALHOST.", 200),
        ("", 200),
        ("evil.example", 421),
        ("evil.example:9461", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example:80", 421),
        ("[evil]:1", 421),
        ("::", 200),
        ("1.2.3", 421),
    ],
)
def test_a_strangers_name_for_this_machine_is_not_shown_the_page(loop: Loop, host: str, status: int) -> None:
    assert parsed(loop.ask(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()))[0].split()[1] == str(status)


@pytest.mark.parametrize("octet", [b"\x85", b"\x0b", b"\x0c", b"\x1c", b"\r"])
def test_no_octet_in_a_value_makes_a_field_of_its_own(loop: Loop, octet: bytes) -> None:
    head = b"GET / HTTP/1.1\r\nX-Own: a" + octet + b"Host: localhost\r\nHost: evil.example\r\n\r\n"
    assert parsed(loop.ask(head))[0].split()[1] == "421"


def test_numbers_are_for_who_asks_by_any_name(loop: Loop) -> None:
    assert parsed(loop.ask(b"GET /readyz HTTP/1.1\r\nHost: mx.example.net\r\n\r\n"))[0].split()[1] == "503"


def test_head_answers_with_the_head_of_get(loop: Loop) -> None:
    get = parsed(loop.ask(b"GET /readyz HTTP/1.1\r\n\r\n"))
    head = parsed(loop.ask(b"HEAD /readyz HTTP/1.1\r\n\r\n"))
    assert head[0] == get[0] == "HTTP/1.1 503 Service Unavailable"
    assert head[1] | {"date": ""} == get[1] | {"date": ""}
    assert (get[2], head[2]) == (b"bad\n", b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get", "BREW"])
def test_other_methods_are_refused_and_told_which_are_allowed(loop: Loop, method: str) -> None:
    status, fields, _ = parsed(loop.ask(f"{method} / HTTP/1.1\r\nContent-Length: 0\r\n\r\n".encode()))
    assert status == "HTTP/1.1 405 Method Not Allowed"
    assert fields.get("allow") == "GET, HEAD"  # RFC 9110 15.5.6: MUST generate an Allow field
    assert loop.asked == []


@pytest.mark.parametrize(
    ("request_line", "path"),
    [
        pytest.param(b"GET /metrics?name=x HTTP/1.1", "/metrics", id="the query is cut off"),
        pytest.param(b"GET /metrics", "/metrics", id="no version"),
        pytest.param(b"GET /../etc/passwd HTTP/1.1", "/../etc/passwd", id="dots are only letters here"),
    ],
)
def test_the_path_is_handed_on(loop: Loop, request_line: bytes, path: str) -> None:
    loop.ask(request_line + b"\r\n\r\n")
    assert loop.asked == [(path, "")]


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        pytest.param(b"GET\r\n\r\n", "400", id="no path"),
        pytest.param(b"GET  / HTTP/1.1\r\n\r\n", "400", id="two spaces"),
        pytest.param(b"GET http://x/ HTTP/1.1\r\n\r\n", "400", id="a proxy's request"),
        pytest.param(b"\r\n\r\n", "405", id="nothing"),
        pytest.param(b"\n\n", "405", id="bare line feeds"),
        pytest.param(b"\x85\x0c\n\n", "405", id="what only Python takes for line ends"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\xff\xff\r\n\r\n", "405", id="TLS"),
        pytest.param(b"\x00\xff" * 100 + b"\r\n\r\n", "405", id="garbage"),
    ],
)
def test_garbage_gets_an_error_and_is_shown_to_nobody(loop: Loop, request_head: bytes, status: str) -> None:
    assert parsed(loop.ask(request_head))[0].split()[1] == status
    assert loop.asked == []


@settings(max_examples=50)
@given(st.binary(max_size=60))
def test_no_octets_make_it_stumble(loop: Loop, octets: bytes) -> None:
    reply = loop.ask(octets + b"\r\n\r\n")
    assert reply.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 4", b"HTTP/1.1 503 "))


def test_a_request_may_come_byte_by_byte(loop: Loop) -> None:
    request = b"GET / HTTP/1.1\r\nAccept: a/b\r\n\r\n"
    assert loop.ask(*(request[at : at + 1] for at in range(len(request)))).endswith(b"\r\n\r\ngood\n")
    assert loop.asked == [("/", "a/b")]


def test_a_large_page_goes_out_in_parts_while_others_are_served(loop: Loop) -> None:
    slow = loop.connect()
    slow.send(b"GET /large HTTP/1.1\r\n\r\n")
    loop.turn_until_quiet()
    assert loop.ask(b"GET / HTTP/1.1\r\n\r\n").endswith(b"good\n")
    assert parsed(loop.finish(slow))[2] == LARGE


@pytest.mark.parametrize("piece", [b"x" * 1000, b"X: y\r\n" * 100], ids=["one long line", "many fields"])
def test_a_request_that_is_too_long_is_cut_off(loop: Loop, piece: bytes) -> None:
    pieces = [b"GET / HTTP/1.1\r\n", *[piece] * (MAX_REQUEST // len(piece) + 2)]
    assert loop.ask(*pieces, b"\r\n\r\n") == b""
    assert loop.asked == []


@pytest.mark.parametrize("sent", [b"", b"GET / HT"], ids=["at once", "in mid request"])
def test_a_client_that_leaves_is_forgotten(loop: Loop, sent: bytes) -> None:
    client = loop.connect()
    client.send(sent)
    client.close()
    loop.turn_until_quiet()
    assert len(loop.selector.get_map()) == 1


def test_a_client_that_leaves_while_it_is_answered_is_forgotten(loop: Loop) -> None:
    client = loop.connect()
    client.send(b"GET /large HTTP/1.1\r\n\r\n")
    loop.turn()
    client.close()
    loop.turn_until_quiet()
    assert len(loop.selector.get_map()) == 1


def test_a_silent_client_holds_up_nobody_and_expires(loop: Loop) -> None:
    silent = loop.connect()
    assert loop.ask(b"GET / HTTP/1.1\r\n\r\n").endswith(b"good\n")
    loop.server.expire(time.monotonic() + CLIENT_SECONDS - 5)
    with pytest.raises(BlockingIOError):
        silent.recv(1)
    loop.server.expire(time.monotonic() + CLIENT_SECONDS + 1)
    assert loop.finish(silent) == b""
    assert len(loop.selector.get_map()) == 1


def test_no_more_clients_than_a_bounded_number_and_who_came_first_makes_room(loop: Loop) -> None:
    first, *clients = (loop.connect() for _ in range(MAX_CLIENTS))
    assert loop.ask(b"GET / HTTP/1.1\r\n\r\n").endswith(b"good\n")
    assert loop.finish(first) == b""
    for client in clients:
        client.send(b"GET / HTTP/1.1\r\n\r\n")
    assert all(loop.finish(client).endswith(b"good\n") for client in clients)


def test_silent_clients_keep_no_scrape_out(loop: Loop) -> None:
    silent = []
    for _ in range(4):
        silent += [loop.connect() for _ in range(MAX_CLIENTS)]
        assert loop.ask(b"GET / HTTP/1.1\r\n\r\n").endswith(b"good\n")
        assert len(loop.selector.get_map()) <= MAX_CLIENTS + 1
    for client in silent:
        client.close()


def test_who_makes_room_may_ask_at_that_very_moment(loop: Loop) -> None:
    first, *clients = (loop.connect() for _ in range(MAX_CLIENTS))
    late = socket.create_connection(loop.address)
    late.setblocking(False)
    first.send(b"GET / HTTP/1.1\r\n\r\n")
    loop.turn_until_quiet()
    late.send(b"GET / HTTP/1.1\r\n\r\n")
    assert loop.finish(late).endswith(b"good\n")
    for client in (first, *clients):
        client.close()


def test_an_address_that_is_taken_is_named_with_its_key(loop: Loop) -> None:
    open_before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigError) as caught:
        StatusServer(loop.address, loop.selector, loop.respond, log.get("test"), "dkim-sign.metrics")
    (mistake,) = caught.value.mistakes
    assert mistake.where == "dkim-sign.metrics"
    assert f"127.0.0.1:{loop.address.port}: Address already in use" in mistake.expected
    assert len(os.listdir("/proc/self/fd")) == open_before


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_an_address_that_the_machine_does_not_have_yet_keeps_no_mail_waiting(
    loop: Loop, host: str, capfd: pytest.CaptureFixture[str]
) -> None:
    log.configure()
    address = Port(host, free_port())
    server = StatusServer(address, loop.selector, loop.respond, log.get("test"), "dkim-sign.metrics")
    assert server._listener.getsockname()[:2] == address
    assert f"level=error program=test event=metrics-address-missing address={host}" in capfd.readouterr().err
    server.close_inherited()


@pytest.mark.parametrize(
    ("address", "warned"),
    [
        pytest.param(None, False, id="no page"),
        pytest.param(Port("127.0.0.1", 1), False, id="an address of this machine's"),
        pytest.param(Port("0.0.0.0", 1), False, id="all of them"),
        pytest.param(Port("192.0.2.1", 1), True, id="another machine's"),
        pytest.param(Port("2001:db8::1", 1), True, id="another machine's, IPv6"),
    ],
)
def test_an_address_that_may_be_mistyped_is_warned_of(address: Port | None, warned: bool) -> None:
    expected = (f"metrics: this machine does not have the address {address.host}",) if address and warned else ()
    assert address_warnings(address) == expected


def test_a_kernel_without_ipv6_is_named_with_the_key(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_family: int, _kind: int) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(ConfigError, match=r"dkim-sign\.metrics: cannot listen at ::1:9: Address family not supported"):
        StatusServer(Port("::1", 9), loop.selector, loop.respond, log.get("test"), "dkim-sign.metrics")


def test_ipv6_is_served(loop: Loop) -> None:
    loop.close()
    loop.selector = selectors.DefaultSelector()
    loop.address = Port("::1", free_port())
    loop.server = StatusServer(loop.address, loop.selector, loop.respond, log.get("test"), "test.metrics")
    assert loop.ask(b"GET / HTTP/1.1\r\n\r\n").endswith(b"good\n")
