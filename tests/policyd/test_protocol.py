"""The policy protocol: whole, octet by octet, and garbage."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailward.model.errors import ProtocolError
from policyd.protocol import MAX_ATTRIBUTES, MAX_REQUEST, Attributes, RequestReader, reply

# What Postfix's SMTPD_POLICY_README shows, and what 3.7 sent for a login of its own.
POSTFIX_2_1 = b"""request=smtpd_access_policy
protocol_state=RCPT
protocol_name=SMTP
helo_name=some.domain.tld
queue_id=8045F2AB23
sender=foo@bar.tld
recipient=bar@foo.tld
recipient_count=0
client_address=1.2.3.4
client_name=another.domain.tld
reverse_client_name=another.domain.tld
instance=123.456.7

"""
POSTFIX_3_12 = (
    POSTFIX_2_1[:-1]
    + b"""sasl_method=plain
sasl_username=you
sasl_sender=
size=12345
ccert_subject=
ccert_issuer=Wietse+20Venema
ccert_fingerprint=C2:9D:F4:87:71:73:73:D9:18:E7:C2:F3:C1:DA:6E:04
encryption_protocol=TLSv1/SSLv3
encryption_cipher=DHE-RSA-AES256-SHA
encryption_keysize=256
etrn_domain=
stress=
ccert_pubkey_fingerprint=68:B3:29:DA:98:93:E3:40:99:C7:D8:AD:5C:B9:C9:40
client_port=1234
policy_context=submission
server_address=10.3.2.1
server_port=54321
compatibility_level=3.8
mail_version=3.12.0
tls_sni=mx.example.net

"""
)


def read(octets: bytes) -> list[Attributes]:
    return RequestReader().feed(octets)


def test_every_attribute_of_a_request_is_read() -> None:
    (request,) = read(POSTFIX_3_12)
    assert len(request) == 32
    assert (request["sasl_username"], request["policy_context"], request["etrn_domain"]) == ("you", "submission", "")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1023])
def test_requests_in_pieces_are_the_same_requests(size: int) -> None:
    octets = POSTFIX_2_1 + POSTFIX_3_12 + POSTFIX_2_1
    reader, found = RequestReader(), []
    for at in range(0, len(octets), size):
        found += reader.feed(octets[at : at + size])
    assert found == read(octets)
    assert len(found) == 3
    assert reader.is_between_requests


def test_a_request_begun_is_told_from_none() -> None:
    reader = RequestReader()
    assert reader.is_between_requests
    assert reader.feed(POSTFIX_2_1[:-1]) == []
    assert not reader.is_between_requests


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"x_of_next_year=7", id="an attribute nobody knows"),
        pytest.param(b"helo_name=a=b==c", id="equals signs in a value"),
        pytest.param(b"helo_name=\xff\xfe\x80", id="octets that are no UTF-8"),
        pytest.param(b"helo_name=a\rb\x1b[31m", id="control characters"),
        pytest.param(b"=nameless", id="a value without a name"),
        pytest.param(b"sender=twice@example.com", id="an attribute twice"),
    ],
)
def test_what_is_odd_but_can_be_read_is_read(line: bytes) -> None:
    (request,) = read(POSTFIX_2_1[:-1] + line + b"\n\n")
    name, _, value = line.decode("utf-8", "surrogateescape").partition("=")
    assert request[name] == value
    assert request["recipient"] == "bar@foo.tld"


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"\n", id="an empty line"),
        pytest.param(b"GET / HTTP/1.1\n\n", id="another protocol"),
        pytest.param(b"sender=a@example.com\n\n", id="no kind of request"),
        pytest.param(b"request=junk_mail_policy\nsender=a\n\n", id="another kind of request"),
        pytest.param(POSTFIX_2_1[:-1] + b"without equals sign\n\n", id="a line that is no attribute"),
        pytest.param(POSTFIX_2_1[:-1] + b"sender=a\0b\n\n", id="a NUL"),
        pytest.param(POSTFIX_2_1 + b"\n", id="an empty line behind a request"),
        pytest.param(b"request=smtpd_access_policy\n" + b"a=b\n" * MAX_ATTRIBUTES + b"\n", id="too many attributes"),
        pytest.param(b"request=smtpd_access_policy\nsender=" + b"a" * MAX_REQUEST + b"\n\n", id="too large"),
        pytest.param(b"a" * (MAX_REQUEST + 1), id="too large and without an end"),
    ],
)
def test_what_is_no_request_is_an_error(octets: bytes) -> None:
    with pytest.raises(ProtocolError):
        read(octets)


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=200), max_size=6))
def test_garbage_gives_requests_or_a_protocol_error(pieces: list[bytes]) -> None:
    reader = RequestReader()
    try:
        for piece in pieces:
            for request in reader.feed(piece.replace(b"r", b"request=smtpd_access_policy\n")):
                assert request["request"] == "smtpd_access_policy"
    except ProtocolError:
        pass


@given(st.text(max_size=100))
def test_no_action_ends_the_reply_early(text: str) -> None:
    octets = reply(text)
    assert octets.endswith(b"\n\n")
    assert octets.count(b"\n") == 2
    assert octets.isascii()
