"""doveadm's HTTP API as a table of replies; tests/mail/test_doveadm.py asks a real Dovecot."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailward.policy.owners import account_of
from policyd.doveadm import Doveadm, Kicked, KickError, means_others
from tests.policyd.incident_support import ALICE
from tests.policyd.wire_support import HttpServer, http_server
from tests.support.processes import free_port

FLUSHED = '["doveadmResponse",[{"entries":"1"}],"flush"]'
KICKED = '["doveadmResponse",[{"result":"alice@example.com"}],"kick"]'
NOBODY = '["error",{"type":"exitCode", "exitCode":68},"kick"]'
KICKED_2_4 = '["doveadmResponse",[{"count":"1"}],"kick"]'
NOBODY_2_4 = '["doveadmResponse",[{"count":"0"}],"kick"]'


def commands_of(*parameters_of_kick: str) -> bytes:
    """Return the beginning of what Dovecot says it can do."""
    commands = {"reload": [], "kick": parameters_of_kick, "authCacheFlush": ["socketPath", "user"]}
    return json.dumps(
        [
            {"command": command, "parameters": [{"name": name, "type": "string"} for name in parameters]}
            for command, parameters in commands.items()
        ]
    ).encode()


DOVECOT_2_3 = commands_of("socketPath", "force", "mask")
DOVECOT_2_4 = commands_of("socketPath", "passdbField", "destHost", "mask")


def dovecot(reply: bytes | str, status: int = 200, page: bytes = DOVECOT_2_3) -> HttpServer:
    return HttpServer(status=status, reply=reply.encode() if isinstance(reply, str) else reply, page=page)


def kick(server: HttpServer, account: str = ALICE, path: str = "") -> Kicked:
    with http_server(server):
        return asyncio.run(Doveadm(server.url + path, "k:é", seconds=30).kick(account))


def test_the_password_is_forgotten_first_then_the_sessions_end() -> None:
    server = dovecot(f"[{FLUSHED},{KICKED}]")
    assert kick(server) is Kicked.KICKED
    [posted] = server.posted
    assert json.loads(posted.content) == [
        ["authCacheFlush", {"user": [ALICE]}, "flush"],
        ["kick", {"mask": [ALICE]}, "kick"],
    ]
    assert posted.path == "/doveadm/v1"
    assert posted.headers["authorization"] == "X-Dovecot-API " + base64.b64encode("k:é".encode()).decode()


@pytest.mark.parametrize(("reply", "kicked"), [(KICKED_2_4, Kicked.KICKED), (NOBODY_2_4, Kicked.NOBODY)])
def test_a_dovecot_that_would_panic_is_not_told_to_forget_the_password(reply: str, kicked: Kicked) -> None:
    server = dovecot(f"[{reply}]", page=DOVECOT_2_4)
    assert kick(server) is kicked
    assert [json.loads(posted.content) for posted in server.posted] == [[["kick", {"mask": [ALICE]}, "kick"]]]
    server = dovecot("[]", page=DOVECOT_2_4)
    assert kick(server, "*@example.com") is Kicked.REFUSED
    assert server.posted == []


@pytest.mark.parametrize("path", ["", "/", "/doveadm/v1"])
def test_the_url_may_be_the_listeners_or_the_whole(path: str) -> None:
    server = dovecot(f"[{FLUSHED},{NOBODY}]")
    assert kick(server, path=path) is Kicked.NOBODY
    assert server.posted[0].path == "/doveadm/v1"


@pytest.mark.parametrize(
    ("status", "reply", "reason"),
    [
        (401, "", "doveadm_api_key is another"),
        (403, "", "doveadm_api_key is another"),
        (404, "", "HTTP status 404"),
        (500, f"[{FLUSHED},{KICKED}]", "HTTP status 500"),
        (200, "", "no JSON"),
        (200, "[" * 60_000, "no JSON"),
        (200, "{}", "no list"),
        (200, "[]", "was not flushed: no result"),
        (200, f"[{FLUSHED}]", "no session was ended: no result"),
        (200, f'[{FLUSHED},["error",{{"type":"exitCode","exitCode":75}},"kick"]]', "type exitCode, exitCode 75"),
        (200, f'[["error",{{"type":"unknownMethod"}},"flush"],{KICKED}]', "was not flushed: type unknownMethod"),
        (200, f'[{FLUSHED},["error",[1],"kick"]]', "an error"),
        (200, '[1,null,["a"],[[],{},3],["doveadmResponse",[],["flush"]]]', "no result"),
    ],
)
def test_what_is_not_known_to_have_happened_is_an_error(status: int, reply: str, reason: str) -> None:
    with pytest.raises(KickError) as caught:
        kick(dovecot(reply, status))
    assert reason in str(caught.value)


def test_a_dovecot_that_is_away_is_an_error() -> None:
    with pytest.raises(KickError):
        asyncio.run(Doveadm(f"http://127.0.0.1:{free_port()}", "key").kick(ALICE))


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps).map(str.encode)
)
@settings(max_examples=15)
def test_no_reply_is_more_than_an_error(reply: bytes) -> None:
    with pytest.raises(KickError):
        kick(dovecot(reply))
    with pytest.raises(KickError):
        kick(dovecot(f"[{FLUSHED},{KICKED}]", page=reply))


@pytest.mark.parametrize(
    ("account", "is_so"),
    [
        ("alice@example.com", False),
        ("alice", False),
        ("10.example", False),
        ("1984@example.com", False),
        ("a/b@example.com", False),
        ("*", True),
        ("al?ce@example.com", True),
        ("*@example.com", True),
        ("192.0.2.1", True),
        ("0.0.0.0/0", True),
        ("::/0", True),
        ("[::1]", True),
        ("fe80::1%eth0", True),
        ("10.1", True),
        ("0x7f000001", True),
        ("0/0", True),
        ("12345", True),
        ("192.0.2.1 x", True),
        ("a\tb", True),
        ("", True),
    ],
)
def test_a_name_that_dovecot_takes_for_others_too_is_known(account: str, *, is_so: bool) -> None:
    assert means_others(account) is is_so


def test_whose_name_means_others_is_not_kicked_but_its_password_is_forgotten() -> None:
    server = dovecot(f"[{FLUSHED}]")
    assert kick(server, "*@example.com") is Kicked.REFUSED
    assert json.loads(server.posted[0].content) == [["authCacheFlush", {"user": ["*@example.com"]}, "flush"]]


@pytest.mark.parametrize("login", ["b\u00e9a", r"DOMAIN\alice", "a b@example.com", "a" * 400])
def test_who_has_another_name_to_dovecot_is_not_said_to_be_away(login: str) -> None:
    server = HttpServer(reply=f"[{FLUSHED},{NOBODY}]".encode())
    assert kick(server, account_of(login)) is Kicked.REFUSED
    assert not server.posted
