"""The auth-policy server as Dovecot sees it: what it answers, what it refuses, and that nothing a stranger sends upsets it."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import zlib
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailward.model.errors import ProtocolError
from mailward.model.limits import Charging, Outcome, Window
from mailward.policy.logins import Cause, LoginRules, Result
from policyd import dovecot, strangers
from policyd.login_request import read_request
from tests.policyd.login_server import API_KEY, LoginServer

T = TypeVar("T")

ALLOW, REPORT = "/?command=allow", "/?command=report"
ALICE = {"login": "alice@example.com", "pwhash": "0f3c", "remote": "198.51.100.7", "protocol": "imap", "tls": False}
KEY = {"X-API-Key": API_KEY}


class Reply(NamedTuple):
    status: int
    content: Any
    is_kept: bool


class Client:
    """One HTTP connection, by hand."""

    def __init__(self, server: LoginServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer
        self.others: list[asyncio.StreamWriter] = []

    async def send(
        self, path: str, content: bytes, headers: dict[str, str] | None = None, *, method: str = "POST"
    ) -> Reply:
        fields = {"Host": "x", "Content-Type": "application/json", "Content-Length": str(len(content))}
        fields |= KEY if headers is None else headers
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.writer.write(head.encode("latin-1") + b"\r\n" + content)
        return await self.reply()

    async def ask(self, path: str, **changes: object) -> Reply:
        return await self.send(path, json.dumps({**ALICE, **changes}).encode())

    async def reply(self) -> Reply:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.partition("content-length: ")[2].partition("\r")[0])
        content = await self.reader.readexactly(length)
        is_json = "application/json" in head
        return Reply(int(head.split()[1]), json.loads(content) if is_json else content, "connection: close" not in head)


def served(dialogue: Callable[[Client], Awaitable[T]], server: LoginServer | None = None) -> T:
    """Run a dialogue with a server on loopback."""

    async def run() -> T:
        used = server or LoginServer()
        listener = socket.create_server(("127.0.0.1", 0))
        address = listener.getsockname()
        await used.start(listener)
        reader, writer = await asyncio.open_connection(*address[:2])
        try:
            client = Client(used, reader, writer)
            return await asyncio.wait_for(dialogue(client), 60)
        finally:
            for each in (writer, *client.others):
                each.close()
            await used.close()

    return asyncio.run(run())


def test_an_ordinary_login_is_allowed_on_one_connection() -> None:
    async def dialogue(client: Client) -> None:
        assert await client.ask(ALLOW) == Reply(200, {"status": 0, "msg": ""}, True)
        assert (await client.ask(ALLOW)).content["status"] == 0
        assert (await client.ask(REPORT, success=True, policy_reject=False)).status == 200

    served(dialogue)


def test_guessing_is_slowed_then_denied_with_words_for_who_logs_in() -> None:
    async def dialogue(client: Client) -> list[Any]:
        answers = []
        for number in range(6):
            answers.append((await client.ask(ALLOW, pwhash=f"{number:04x}")).content)
            await client.ask(REPORT, pwhash=f"{number:04x}", success=False, policy_reject=False)
        return answers

    answers = served(dialogue)
    assert [each["status"] for each in answers] == [0, 0, 2, 3, 4, -1]
    assert answers[-1]["msg"]


@pytest.mark.parametrize(
    "path",
    [
        "/?command=allow",
        "/?x=1&command=allow",
        "/&command=allow",
        "/auth/policy?command=allow",
        "/?command=x&command=allow",
    ],
)
def test_the_command_is_found_wherever_dovecot_puts_it(path: str) -> None:
    assert served(lambda client: client.ask(path)).status == 200


@pytest.mark.parametrize("path", ["/", "/?command=", "/?command=deny", "/?command=report&command=x", "/allow"])
def test_no_other_command_is_taken(path: str) -> None:
    reply = served(lambda client: client.ask(path, success=True))
    assert reply == Reply(400, {"msg": "expected command=allow or command=report in the URL"}, False)


def basic(login_and_password: bytes) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(login_and_password).decode()}"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"X-API-Key": API_KEY}, 200, id="the key"),
        pytest.param({"x-api-key": f"  {API_KEY} "}, 200, id="the key as Dovecot writes it"),
        pytest.param(basic(f"mailward:{API_KEY}".encode()), 200, id="a password in the URL"),
        pytest.param({}, 401, id="no key"),
        pytest.param({"X-API-Key": API_KEY[:-1]}, 401, id="a part of the key"),
        pytest.param({"X-API-Key": API_KEY + "x"}, 401, id="more than the key"),
        pytest.param({"X-API-Key": "\xe9" * 10}, 401, id="octets"),
        pytest.param({"X-API-Key": ""}, 401, id="an empty key"),
        pytest.param(basic(API_KEY.encode()), 401, id="the key as a login"),
        pytest.param({"Authorization": "Basic %%%"}, 401, id="no base64"),
        pytest.param({"Authorization": f"Bearer {API_KEY}"}, 401, id="another scheme"),
    ],
)
def test_only_who_has_the_key_is_answered(headers: dict[str, str], status: int) -> None:
    server = LoginServer()
    reply = served(lambda client: client.send(ALLOW, json.dumps(ALICE).encode(), headers), server)
    assert reply.status == status
    assert len(server.charged) == (status == 200)


@pytest.mark.parametrize("headers", [{}, {"X-API-Key": ""}], ids=["nothing shown", "an empty key shown"])
def test_without_a_key_nobody_is_answered(headers: dict[str, str]) -> None:
    server = LoginServer(api_key="")
    reply = served(lambda client: client.send(ALLOW, json.dumps(ALICE).encode(), headers), server)
    assert reply.status == 401
    assert not server.charged


def test_key_and_rules_are_those_of_the_moment() -> None:
    async def dialogue(client: Client) -> None:
        await client.ask(REPORT, success=False)
        await client.ask(REPORT, pwhash="beef", success=False)
        client.server.rules = LoginRules(failures=(Window(2, 3600.0),))
        assert (await client.ask(ALLOW)).content["status"] == -1
        client.server.api_key = "another"
        assert (await client.ask(ALLOW)).status == 401

    served(dialogue)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_only_post_is_answered(method: str) -> None:
    server = LoginServer()
    reply = served(lambda client: client.send(ALLOW, json.dumps(ALICE).encode(), method=method), server)
    assert reply.status == 405
    assert server.numbers.of[dovecot.REFUSED, "method"] == 1


BAD_CONTENT = [
    pytest.param(b"", "expected a JSON object in UTF-8", id="nothing"),
    pytest.param(b"{", "expected a JSON object in UTF-8", id="half an object"),
    pytest.param(b"\xff\xfe{}", "expected a JSON object in UTF-8", id="no UTF-8"),
    pytest.param(b"[" * 60_000, "expected a JSON object in UTF-8", id="nested without end"),
    pytest.param(b'{"login":' * 7_000, "expected a JSON object in UTF-8", id="objects without end"),
    pytest.param(b'{"login": ' + b"9" * 60_000 + b"}", "expected a JSON object in UTF-8", id="a long number"),
    pytest.param(b"[]", "expected a JSON object", id="a list"),
    pytest.param(b'"allow"', "expected a JSON object", id="a string"),
    pytest.param(b"{}", 'expected "login" in auth_policy_request_attributes', id="no login"),
    pytest.param(b'{"login": null}', 'expected a string for "login"', id="null"),
    pytest.param(b'{"login": {"a": "b"}}', 'expected a string for "login"', id="a nested login"),
    pytest.param(b'{"login": "a", "pwhash": 1}', 'expected a string for "pwhash"', id="a number"),
    pytest.param(
        b'{"login": "a", "remote": ["192.0.2.1"]}', 'expected a string for "remote"', id="a list of addresses"
    ),
    pytest.param(
        b'{"login": "a", "session_id": true}', 'expected a string for "session_id"', id="a session that is true"
    ),
]


@pytest.mark.parametrize(("content", "text"), BAD_CONTENT)
def test_strange_content_is_refused_in_a_sentence(content: bytes, text: str) -> None:
    server = LoginServer()
    assert served(lambda client: client.send(ALLOW, content), server) == Reply(400, {"msg": text}, False)
    assert server.numbers.of[dovecot.REFUSED, "content"] == 1


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        pytest.param({}, 'expected "success" in a report', id="no success"),
        pytest.param({"success": "yes"}, 'expected true or false for "success"', id="a string"),
        pytest.param(
            {"success": False, "policy_reject": 0}, 'expected true or false for "policy_reject"', id="a number"
        ),
    ],
)
def test_a_report_says_true_or_false(changes: dict[str, object], text: str) -> None:
    assert served(lambda client: client.ask(REPORT, **changes)) == Reply(400, {"msg": text}, False)


def test_a_request_has_64_kilobytes_and_no_more() -> None:
    def padded(octets: int) -> bytes:
        return json.dumps(ALICE).encode().ljust(octets)

    assert served(lambda client: client.send(ALLOW, padded(64 * 1024))).status == 200
    server = LoginServer()
    reply = served(lambda client: client.send(ALLOW, padded(64 * 1024 + 1)), server)
    assert reply == Reply(413, {"msg": "expected at most 65536 octets"}, False)
    assert server.numbers.of[dovecot.REFUSED, "size"] == 1


def test_nothing_is_unpacked() -> None:
    packed = zlib.compress(b" " * 50_000_000)
    server = LoginServer()
    reply = served(lambda client: client.send(ALLOW, packed, {**KEY, "Content-Encoding": "deflate"}), server)
    assert reply == Reply(400, {"msg": "expected JSON that is not compressed"}, False)


def test_a_request_that_does_not_come_to_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dovecot, "READ_SECONDS", 0.1)
    server = LoginServer()

    async def dialogue(client: Client) -> Reply:
        client.writer.write(
            f"POST {ALLOW} HTTP/1.1\r\nHost: x\r\nX-API-Key: {API_KEY}\r\nContent-Length: 50\r\n\r\n{{".encode()
        )
        return await client.reply()

    assert served(dialogue, server).status == 408


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"\0\xff\x80garbage\r\n\r\n", id="octets"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", id="TLS"),
        pytest.param(b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", id="a length that is none"),
        pytest.param(b"POST / HTTP/1.1\r\nA: " + b"a" * 100_000 + b"\r\n\r\n", id="a header without end"),
        pytest.param(
            f"POST {ALLOW} HTTP/1.1\r\nHost: x\r\nX-API-Key: {API_KEY}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n".encode(),
            id="chunks that are none",
        ),
    ],
)
def test_what_is_no_http_is_closed_and_written_nowhere(octets: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    server = LoginServer()

    async def dialogue(client: Client) -> int:
        client.writer.write(octets)
        await client.reader.read()
        reader, writer = await asyncio.open_connection(*client.writer.get_extra_info("peername")[:2])
        reply = await Client(server, reader, writer).ask(ALLOW)
        writer.close()
        return reply.status

    assert served(dialogue, server) == 200
    assert capfd.readouterr() == ("", "")
    assert all("garbage" not in str(line) for line in server.lines)


def test_a_suspended_account_is_denied_at_once_and_without_the_store() -> None:
    server = LoginServer()
    server.keeper.suspend("alice@example.com")
    reply = served(lambda client: client.ask(ALLOW, login="Alice@Example.com"), server)
    assert reply.content["status"] == -1
    assert "suspended" in reply.content["msg"]
    assert server.charged == []
    assert server.numbers.of[dovecot.ANSWERS, Cause.SUSPENDED.value] == 1


def test_a_store_that_is_away_lets_anybody_try() -> None:
    async def away(_charging: Charging) -> Outcome | None:
        return None

    server = LoginServer()
    server.charge = away

    async def dialogue(client: Client) -> None:
        assert (await client.ask(ALLOW)).content["status"] == 0
        assert (await client.ask(REPORT, success=True)).status == 200

    served(dialogue, server)
    assert server.numbers.of[dovecot.ANSWERS, Cause.UNKNOWN.value] == 1


def test_our_own_fault_is_an_http_error_and_the_next_request_is_answered() -> None:
    async def broken(_charging: Charging) -> Outcome | None:
        raise RuntimeError("a bug with a secret")

    server = LoginServer()
    server.charge = broken
    reply = served(lambda client: client.ask(ALLOW), server)
    assert reply == Reply(500, {"msg": "Mailward failed; its log says why"}, False)
    assert server.numbers.of[dovecot.REFUSED, "our-error"] == 1
    assert [line["event"] for line in server.lines] == ["login-request-failed"]


@pytest.mark.parametrize(
    ("fields", "result"),
    [
        pytest.param({"success": True, "policy_reject": False}, Result.SUCCEEDED, id="2.3, the right password"),
        pytest.param({"success": False, "policy_reject": False}, Result.FAILED, id="2.3, a wrong one"),
        pytest.param({"success": False, "policy_reject": True}, Result.REFUSED, id="2.3, denied by us"),
        pytest.param({"success": False, "fail_type": "credentials"}, Result.FAILED, id="2.4, a wrong password"),
        pytest.param({"success": False, "fail_type": "account"}, Result.FAILED, id="2.4, an unknown login"),
        pytest.param({"success": False, "fail_type": "policy"}, Result.REFUSED, id="2.4, denied by us"),
        pytest.param({"success": False, "fail_type": "internal"}, Result.BROKEN, id="2.4, the database is away"),
    ],
)
def test_a_report_is_one_line_of_the_log_and_one_call_of_the_store_at_most(
    fields: dict[str, object], result: Result
) -> None:
    server = LoginServer()
    served(lambda client: client.ask(REPORT, session_id="s1", **fields), server)
    assert server.lines == [
        {
            "level": "info",
            "event": "login",
            "login": "alice@example.com",
            "result": result.value,
            "client": "198.51.100.7",
            "protocol": "imap",
            "session": "s1",
            "networks": "",
        }
    ]
    assert server.numbers.of[dovecot.REPORTS, result.value] == 1
    assert len(server.charged) == (result in (Result.SUCCEEDED, Result.FAILED))


def test_a_login_from_too_many_networks_is_told_to_the_keeper() -> None:
    server = LoginServer(LoginRules(networks=(Window(2, 3600.0),)))

    async def dialogue(client: Client) -> None:
        for number in range(4):
            await client.ask(REPORT, login="ALICE@example.com", remote=f"10.0.{number}.1", success=True)

    served(dialogue, server)
    assert server.keeper.told == [("alice@example.com", 3), ("alice@example.com", 4)]


def test_without_a_hash_every_failure_counts() -> None:
    server = LoginServer()

    async def dialogue(client: Client) -> int:
        for _ in range(5):
            await client.ask(REPORT, pwhash="", success=False)
        status: int = (await client.ask(ALLOW, pwhash="")).content["status"]
        return status

    assert served(dialogue, server) == -1


def test_every_word_that_is_counted_under_is_declared() -> None:
    values = {counter.name: counter.values for counter in dovecot.METRICS}
    assert set(values) == {dovecot.ANSWERS, dovecot.REPORTS, dovecot.REFUSED}
    assert all(cause.value in values[dovecot.ANSWERS] for cause in Cause)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["login", "pwhash", "remote", "protocol", "session_id", "success", "policy_reject", "fail_type"]
)


@settings(max_examples=80)
@given(st.binary(max_size=200) | st.dictionaries(NAMES, JSON).map(lambda values: json.dumps(values).encode()))
def test_any_octets_are_a_request_or_a_protocol_error(octets: bytes) -> None:
    for command in ("allow", "report"):
        try:
            request = read_request(command, octets)
        except ProtocolError:
            pass
        else:
            assert isinstance(request.attempt.login, str)
            assert (request.result is None) is (command == "allow")


async def stranger(client: Client, octets: bytes = b"") -> asyncio.StreamReader:
    """Connect and send no more than that; return what is read from."""
    address = client.writer.get_extra_info("peername")
    reader, writer = await asyncio.open_connection(*address[:2])
    writer.write(octets)
    await writer.drain()
    client.others.append(writer)
    return reader


def test_of_too_many_that_show_no_key_the_oldest_goes_and_dovecot_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "MAX_STRANGERS", 3)

    async def dialogue(client: Client) -> None:
        assert (await client.ask(ALLOW)).status == 200
        idle = [await stranger(client) for _ in range(3)]
        half = [await stranger(client, b"POST /?command=allow HTTP/1.1\r\nHost: x\r\n") for _ in range(2)]
        assert [await reader.read() for reader in idle[:2]] == [b"", b""]
        assert not any(reader.at_eof() for reader in (idle[2], *half))
        assert (await client.ask(ALLOW)).status == 200, "who has shown the key is none of them"
        assert client.server.numbers.of[dovecot.REFUSED, "slow"] == 2
        assert [line["level"] for line in client.server.lines] == ["warning"], "told once, however many there are"

    served(dialogue)


def test_who_shows_no_key_for_too_long_is_closed_and_dovecot_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dovecot, "LOOK_SECONDS", 0.01)

    async def dialogue(client: Client) -> None:
        assert (await client.ask(ALLOW)).status == 200
        monkeypatch.setattr(strangers, "STRANGER_SECONDS", 0.0)
        # A request's head that has begun is no better than none.
        for octets in (b"", b"POST /?command=allow HTTP/1.1\r\nX-API"):
            assert await (await stranger(client, octets)).read() == b""
        assert (await client.ask(ALLOW)).status == 200

    served(dialogue)
