"""What triplets are compared by: what stays the same from message to message, and nothing that could do harm in a key."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailward.policy.greylist_key import (
    MAX_KEY,
    UNKNOWN_NETWORK,
    compared_recipient,
    compared_sender,
    correspondent,
    network_of,
)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        pytest.param("192.0.2.77", "192.0.2.0/24", id="IPv4"),
        pytest.param("2001:db8:0:1:2::3", "2001:db8:0:1::/64", id="IPv6"),
        pytest.param("2001:DB8::", "2001:db8::/64", id="one spelling of IPv6"),
        pytest.param("::ffff:192.0.2.77", "192.0.2.0/24", id="a mapped address is IPv4"),
        pytest.param("fe80::1%eth0", "fe80::/64", id="a zone is ours"),
        pytest.param("fe80::1%{a}", "fe80::/64", id="a zone brings no braces"),
        pytest.param("", UNKNOWN_NETWORK, id="no address"),
        pytest.param("unknown", UNKNOWN_NETWORK, id="no address but a word"),
        pytest.param("192.0.2.777", UNKNOWN_NETWORK, id="nearly an address"),
        pytest.param("1" * 100_000, UNKNOWN_NETWORK, id="very long"),
    ],
)
def test_a_client_is_compared_by_its_network(address: str, network: str) -> None:
    assert network_of(address, 24, 64) == network


def test_prefixes_are_the_configurations() -> None:
    assert network_of("192.0.2.77", 32, 128) == "192.0.2.77/32"
    assert network_of("192.0.2.77", 19, 64) == "192.0.0.0/19"
    assert network_of("2001:db8:1:2::3", 24, 48) == "2001:db8:1::/48"


@pytest.mark.parametrize(
    ("sender", "compared"),
    [
        pytest.param(b"", "", id="the null sender stays empty"),
        pytest.param(b"Alice@Example.COM", "alice@example.com", id="lower case"),
        pytest.param(b"alice@example.com.", "alice@example.com", id="no final dot"),
        pytest.param("a@b\u00fccher.example".encode(), "a@xn--bcher-kva.example", id="A-labels"),
        pytest.param("jos\u00e9@example.com".encode(), "jos\\xc3\\xa9@example.com", id="UTF-8 is escaped and no id"),
        pytest.param(b"a\xff@ex\xffample.com", "a\\xff@ex\\xffample.com", id="no UTF-8"),
        pytest.param(b'"a b@c"@example.com', '"a\\x20b@c"@example.com', id="a quoted local part"),
        pytest.param(b"a\r\n\x00b@example.com", "a\\x0d\\x0a\\x00b@example.com", id="control characters"),
        pytest.param(b"postmaster", "postmaster", id="no domain"),
        pytest.param(b"a@[192.0.2.1]", "a@[192.0.2.1]", id="an address literal"),
        pytest.param(b"a@", "a@", id="an empty domain"),
        pytest.param(b"a@mail7.example.com", "a@mail7.example.com", id="the domain keeps its digits"),
        pytest.param(b"alice+tag+more@example.com", "alice@example.com", id="an extension"),
        pytest.param(b"+tag@example.com", "+tag@example.com", id="nothing but an extension"),
        pytest.param(
            b"list-return-1234-bob=example.org@lists.example",
            "list-return-#-bob=example.org@lists.example",
            id="VERP as ezmlm writes it",
        ),
        pytest.param(
            b"list-bounces+bob=example.org@lists.example", "list-bounces@lists.example", id="VERP as Mailman writes it"
        ),
        pytest.param(
            b"bounces+123-ab12-bob=example.org@em7.example.com",
            "bounces@em7.example.com",
            id="VERP as SendGrid writes it",
        ),
        pytest.param(
            b"0100018f3a2b1c0d-1a2b3c4d-abcd-4bad-beef-0123456789ab-000000@amazonses.com",
            "#-#-#@amazonses.com",
            id="ids as SES writes them",
        ),
        pytest.param(
            b"bounce-md_30101.6123abcd.v1-0123456789abcdef@mail.example",
            "bounce-md_#.#.v#-#@mail.example",
            id="ids as Mandrill writes them",
        ),
        pytest.param(b"bounce-x7Kq29Lm3@example.com", "bounce-#@example.com", id="letters and digits mixed"),
        pytest.param(b"bob7@example.com", "bob#@example.com", id="digits behind a name"),
        pytest.param(b"b-deadbeef@example.com", "b-#@example.com", id="a hex id that has no digit"),
        pytest.param(b"facade@example.com", "facade@example.com", id="a short word of hex letters stays"),
        pytest.param(b"abcdefab-abcd-abcd-abcd-abcdefabcdef@example.com", "#@example.com", id="a UUID without digits"),
        pytest.param(b"x-ab1c@example.com", "x-#@example.com", id="a short hex id"),
        pytest.param(b"a1#2@example.com", "a#@example.com", id="marks beside numbers are one"),
        pytest.param(b"1234567@example.com", "#@example.com", id="a number"),
        pytest.param(b"prvs=4521a0b3c1=alice@example.com", "alice@example.com", id="BATV"),
        pytest.param(b"prvs=alice=4521a0b3c1@example.com", "alice@example.com", id="BATV the other way round"),
        pytest.param(b"msprvs1=19000bIYFcKbB=bounces-12@example.com", "bounces-#@example.com", id="BATV of SparkPost"),
        pytest.param(b"btv1==052ba1c7f1e==alice@example.com", "alice@example.com", id="BATV of Barracuda"),
        pytest.param(b"prvs=@example.com", "prvs=@example.com", id="no BATV but its first letters"),
        pytest.param(b"SRS0=aB3d=7Z=example.net=bob@fwd.example", "srs0=#=#=example.net=bob@fwd.example", id="SRS0"),
        pytest.param(
            b"SRS0+aB3d=7Z=example.net=bob@fwd.example", "srs0+#=#=example.net=bob@fwd.example", id="SRS0 with a plus"
        ),
        pytest.param(
            b"SRS1=xYz1=fwd.example==aB3d=7Z=example.net=bob@two.example",
            "srs1=#=fwd.example==#=#=example.net=bob@two.example",
            id="SRS1",
        ),
        pytest.param(
            b"SRS0=aB3d=7Z=example.net=prvs=4521a0b3c1=bob@fwd.example",
            "srs0=#=#=example.net=bob@fwd.example",
            id="SRS of BATV",
        ),
        pytest.param(
            b"SRS0=aB3d=7Z=one.example=SRS1=xYz1=fwd.example==aB3d=7Z=two.example=bob@three.example",
            "srs0=#=#=one.example=srs1=#=fwd.example==#=#=two.example=bob@three.example",
            id="SRS of SRS",
        ),
        pytest.param(
            b"SRS1=xYz1=a.example==aB3d=7Z=b.example=SRS0=aB3d=7Z=c.example=bob@d.example",
            "srs1=#=a.example==#=#=b.example=srs0=#=#=c.example=bob@d.example",
            id="SRS of SRS, the other way round",
        ),
        pytest.param(b"bounces+SRS=aB3dE=7Z@example.com", "bounces@example.com", id="SRS as Exchange Online writes it"),
    ],
)
def test_a_sender_is_compared_without_what_changes(sender: bytes, compared: str) -> None:
    assert compared_sender(sender) == compared
    assert compared_sender(compared.encode()) == compared


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"prvs=4521a0b3c1=a@example.com", b"prvs=4522ffb3c1=a@example.com"),
        (b"SRS0=aB3d=7Z=example.net=bob@fwd.example", b"SRS0=Qq9x=7A=example.net=bob@fwd.example"),
        (b"news-9-abc123ef@example.com", b"news-10-ffffffff@example.com"),
    ],
)
def test_two_messages_of_one_sender_compare_equal(one: bytes, other: bytes) -> None:
    assert compared_sender(one) == compared_sender(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(b"alice@example.com", b"bob@example.com", id="local part"),
        pytest.param(b"alice@mail1.example.com", b"alice@mail2.example.com", id="domain"),
        pytest.param(
            b"SRS0=aB3d=7Z=example.net=bob@fwd.example",
            b"SRS0=aB3d=7Z=example.org=bob@fwd.example",
            id="forwarded domain",
        ),
        pytest.param(b"x" * 400 + b"a@example.com", b"x" * 400 + b"b@example.com", id="longer than a key"),
        pytest.param(b"x" * 4000 + b"a@example.com", b"x" * 4000 + b"b@example.com", id="longer than is read"),
    ],
)
def test_two_senders_stay_two(one: bytes, other: bytes) -> None:
    assert compared_sender(one) != compared_sender(other)


@pytest.mark.parametrize(
    ("recipient", "compared"),
    [
        (b"Bob@Example.ORG", "bob@example.org"),
        (b"bob+lists@example.org", "bob@example.org"),
        (b"bob7@example.org", "bob7@example.org"),
        ("b\u00f6b@b\u00fccher.example".encode(), "b\\xc3\\xb6b@xn--bcher-kva.example"),
        (b"postmaster", "postmaster"),
        (b"", ""),
    ],
)
def test_a_recipient_is_compared_without_its_extension(recipient: bytes, compared: str) -> None:
    assert compared_recipient(recipient) == compared


@pytest.mark.parametrize(
    ("address", "compared"),
    [
        (b"Bob@Example.ORG", "bob@example.org"),
        (b"bob+lists@example.org", "bob+lists@example.org"),
        (b"bob7@example.org", "bob7@example.org"),
        (b"prvs=4521a0b3c1=bob@example.org", "bob@example.org"),
        (b"", ""),
    ],
)
def test_a_correspondent_is_one_address_in_both_directions(address: bytes, compared: str) -> None:
    assert correspondent(address) == compared


HOSTILE = (
    b"prvs=|4521a0b3c1=|SRS0=|SRS1=|ab=|==|+|-|@|#|x|12|deadbeef|A7|\\x4|btv1==|.|example.com|\xff| |\xc3\xbc|12345678"
)
fragments = st.sampled_from([*HOSTILE.split(b"|"), b"-1234-1234-1234-123456789abc"])
any_address = st.binary(max_size=400) | st.lists(fragments, max_size=40).map(b"".join)


@given(any_address)
@example(b"x" * 320)
@example(b"x" * 321)
@example(b"\xff" * 5000)
def test_any_octets_make_a_key_that_harms_nothing(address: bytes) -> None:
    for compare in (compared_sender, compared_recipient, correspondent):
        key = compare(address)
        assert re.fullmatch(r"[!-~]{0,320}", key)
        if len(key) < MAX_KEY:  # a longer one ends in a digest
            assert compare(key.encode()) == key


@given(st.text(max_size=50), st.integers(0, 32), st.integers(0, 128))
@example("fe80::1%{x} y", 24, 64)
def test_any_text_has_a_network_that_harms_nothing(address: str, ipv4_prefix: int, ipv6_prefix: int) -> None:
    assert re.fullmatch(r"unknown|[0-9a-f:.]+/[0-9]+", network_of(address, ipv4_prefix, ipv6_prefix))


@pytest.mark.parametrize(
    "piece", [b"1", b"a1", b"-", b"=", b"prvs=x=", b"SRS0=a=b=c=", b"SRS1=a=b==c=d=e=", b"12345678-"]
)
def test_long_and_hostile_addresses_cost_little(piece: bytes) -> None:
    """A thousand octets are read at most, each a few times: a pattern that goes back over them would take hours."""
    assert len(compared_sender(piece * (1000 // len(piece)) + b"@example.com")) <= MAX_KEY
