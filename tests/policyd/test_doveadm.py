"""doveadm's HTTP API as a table of replies; tests/mail/test_doveadm.py asks a real Dovecot."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyd.doveadm import Doveadm, Kicked, KickError, means_others
from tests.policyd.incident_support import ALICE
from tests.policyd.wire_support import HttpServer, http_server
from tests.support.processes import free_port

FLUSHED = '["doveadmResponse",[{"entries":"1"}],"flush"]'
KICKED = '["doveadmResponse",[{"result":"alice@example.com"}],"kick"]'
NOBODY = '["error",{"type":"exitCode", "exitCode":68},"kick"]'


def kick(server: HttpServer, account: str = ALICE, path: str = "") -> Kicked:
    with http_server(server):
        return asyncio.run(Doveadm(server.url + path, "k:é", seconds=30).kick(account))


def test_the_password_is_forgotten_first_then_the_sessions_end() -> None:
    server = HttpServer(reply=f"[{FLUSHED},{KICKED}]".encode())
    assert kick(server) is Kicked.KICKED
    [posted] = server.posted
    assert json.loads(posted.content) == [
        ["authCacheFlush", {"user": [ALICE]}, "flush"],
        ["kick", {"mask": [ALICE]}, "kick"],
    ]
    assert posted.path == "/doveadm/v1"
    assert posted.headers["authorization"] == "X-Dovecot-API " + base64.b64encode("k:é".encode()).decode()


@pytest.mark.parametrize("path", ["", "/", "/doveadm/v1"])
def test_the_url_may_be_the_listeners_or_the_whole(path: str) -> None:
    server = HttpServer(reply=f"[{FLUSHED},{NOBODY}]".encode())
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
        kick(HttpServer(status=status, reply=reply.encode()))
    assert reason in str(caught.value)


def test_a_dovecot_that_is_away_is_an_error() -> None:
    with pytest.raises(KickError):
        asyncio.run(Doveadm(f"http://127.0.0.1:{free_port()}", "key").kick(ALICE))


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps).map(str.encode)
)
@settings(max_examples=15, deadline=None)
def test_no_reply_is_more_than_an_error(reply: bytes) -> None:
    with pytest.raises(KickError):
        kick(HttpServer(reply=reply))


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
    server = HttpServer(reply=f"[{FLUSHED}]".encode())
    assert kick(server, "*@example.com") is Kicked.REFUSED
    assert json.loads(server.posted[0].content) == [["authCacheFlush", {"user": ["*@example.com"]}, "flush"]]
