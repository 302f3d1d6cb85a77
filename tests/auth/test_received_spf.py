"""Received-SPF: the grammar of RFC 7208 9.1 for whatever the envelope holds."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailward.auth.received_spf import format_received_spf
from mailward.model.results import Result, SpfIdentity, SpfResult

# RFC 7208 9.1 and 12, after unfolding.
_DOT_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
_PAIR = rf'([a-z-]+)=({_DOT_ATOM}|"(?:[ !#-\[\]-~]|\\[ -~])*")'
_FIELD = re.compile(
    r" (none|neutral|pass|fail|softfail|temperror|permerror|policy)"
    rf" \(([ !-'*-\[\]-~]*)\) ({_PAIR}(?:; {_PAIR})*)"
)


def read(raw_value: str) -> dict[str, str]:
    """Read a field by the letter of the grammar; the result stands under "result"."""
    assert all(len(line) <= 78 or " " not in line[1:] for line in ("Received-SPF:" + raw_value).split("\r\n"))
    assert all(line.strip() for line in raw_value.split("\r\n"))
    match = _FIELD.fullmatch(raw_value.replace("\r\n ", " "))
    assert match, raw_value
    pairs = re.findall(rf"(?:^|; ){_PAIR}", match.group(3))
    assert len({key for key, _ in pairs}) == len(pairs)
    return {
        "result": match.group(1),
        **{key: re.sub(r"\\(.)", r"\1", value[1:-1]) if value[0] == '"' else value for key, value in pairs},
    }


@pytest.mark.parametrize(
    ("result", "envelope", "field"),
    [
        pytest.param(
            SpfResult(Result.PASS, SpfIdentity.MAILFROM, "example.com", mechanism="ip4:192.0.2.0/24"),
            ("192.0.2.1", b"mx.example.com", b"bob@example.com"),
            {
                "result": "pass",
                "client-ip": "192.0.2.1",
                "envelope-from": "bob@example.com",
                "helo": "mx.example.com",
                "receiver": "mx.example.net",
                "identity": "mailfrom",
                "mechanism": "ip4:192.0.2.0/24",
            },
            id="pass",
        ),
        pytest.param(
            SpfResult(Result.NONE, SpfIdentity.HELO, "mx.example.com"),
            ("2001:db8::1", b"mx.example.com", b""),
            {
                "result": "none",
                "client-ip": "2001:db8::1",
                "envelope-from": "",
                "helo": "mx.example.com",
                "receiver": "mx.example.net",
                "identity": "helo",
            },
            id="null sender, IPv6",
        ),
        pytest.param(
            SpfResult(Result.TEMPERROR, SpfIdentity.MAILFROM, "example.com", reason="time-out"),
            ("192.0.2.1", b"", b"bob@example.com"),
            {
                "result": "temperror",
                "client-ip": "192.0.2.1",
                "envelope-from": "bob@example.com",
                "receiver": "mx.example.net",
                "identity": "mailfrom",
                "problem": "time-out",
            },
            id="an error says its problem",
        ),
        pytest.param(
            SpfResult(Result.FAIL, SpfIdentity.MAILFROM, ""),
            ("192.0.2.1", b"[192.0.2.1]", b'"a;\r\nb"@\xff) pass'),
            {
                "result": "fail",
                "client-ip": "192.0.2.1",
                "envelope-from": '"a;??b"@?) pass',
                "helo": "[192.0.2.1]",
                "receiver": "mx.example.net",
                "identity": "mailfrom",
            },
            id="an envelope that would write the field itself",
        ),
        pytest.param(
            SpfResult(Result.NEUTRAL, SpfIdentity.MAILFROM, "b.example"),
            ("192.0.2.1", b"a" + b" " * 200 + b"b", b"a@b.example"),
            {
                "result": "neutral",
                "client-ip": "192.0.2.1",
                "envelope-from": "a@b.example",
                "helo": "a b",
                "receiver": "mx.example.net",
                "identity": "mailfrom",
            },
            id="spaces that would fold into empty lines",
        ),
    ],
)
def test_the_field(result: SpfResult, envelope: tuple[str, bytes, bytes], field: dict[str, str]) -> None:
    client_address, helo, mail_from = envelope
    assert read(format_received_spf(result, client_address, "mx.example.net", helo, mail_from)) == field


NASTY = st.text(st.sampled_from('ab. "\\();=@\r\n\x00\u00e9\udcff') | st.characters(), max_size=400)


@given(
    st.builds(SpfResult, result=..., identity=..., domain=NASTY, reason=NASTY, mechanism=NASTY),
    NASTY,
    NASTY,
    st.binary(max_size=400) | NASTY.map(lambda text: text.encode("utf-8", "replace")),
    st.binary(max_size=400) | NASTY.map(lambda text: text.encode("utf-8", "replace")),
)
def test_any_text_gives_one_well_formed_field(
    result: SpfResult, client_address: str, receiver: str, helo: bytes, mail_from: bytes
) -> None:
    field = read(format_received_spf(result, client_address, receiver, helo, mail_from))
    assert field["result"] == result.result.value
    assert field["identity"] == result.identity.value
