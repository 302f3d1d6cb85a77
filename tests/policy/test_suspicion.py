"""Who is suspicious: names made of addresses, HELOs that fit nothing; and that what is not known is no suspicion."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailward.model.address import read_address
from mailward.model.results import IprevResult, Result
from mailward.policy.suspicion import Suspicion, helo_fits, is_generic, suspect

CLIENT = "192.0.2.7"
GOOD_NAME, GOOD_HELO = "mx1.example.com", b"mx1.example.com"
OWN = frozenset({"mx.own.example", "own.example"})


class Asked:
    """What the DNS would say, and how often it was asked."""

    def __init__(self, iprev: IprevResult | None = None, *, is_on_list: bool = False) -> None:
        self._iprev = iprev
        self._is_on_list = is_on_list
        self.count = 0

    def check_iprev(self) -> IprevResult:
        self.count += 1
        assert self._iprev is not None, "asked for a name that is known"
        return self._iprev

    def is_listed(self) -> bool:
        self.count += 1
        return self._is_on_list


def judge(asked: Asked, address: str = CLIENT, name: str = GOOD_NAME, helo: bytes = GOOD_HELO) -> Suspicion | None:
    return suspect(address, name, helo, OWN, asked.check_iprev, asked.is_listed)


def iprev(result: Result, name: str = "") -> IprevResult:
    return IprevResult(result, CLIENT, name=name)


def test_a_mail_server_is_not_suspicious() -> None:
    assert judge(Asked()) is None


@pytest.mark.parametrize("name", ["unknown", "[192.0.2.7]", "", "192.0.2.7"])
@pytest.mark.parametrize(
    ("answer", "suspicion"),
    [
        pytest.param(iprev(Result.PERMERROR), Suspicion.NO_NAME, id="no name"),
        pytest.param(iprev(Result.FAIL), Suspicion.NO_NAME, id="a name that leads elsewhere"),
        pytest.param(iprev(Result.TEMPERROR), None, id="no answer from the DNS"),
        pytest.param(iprev(Result.NONE), None, id="no address to ask about"),
        pytest.param(iprev(Result.PASS, GOOD_NAME), None, id="Postfix's DNS was away, ours is not"),
        pytest.param(
            iprev(Result.PASS, "dsl-192-0-2-7.isp.example"), Suspicion.GENERIC_NAME, id="a generic name after all"
        ),
    ],
)
def test_a_name_that_postfix_does_not_know_is_asked_for(
    name: str, answer: IprevResult, suspicion: Suspicion | None
) -> None:
    assert judge(Asked(answer), name=name) is suspicion


def test_a_listed_client_is_suspicious() -> None:
    assert judge(Asked(is_on_list=True)) is Suspicion.DNSBL
    assert judge(Asked(iprev(Result.TEMPERROR), is_on_list=True), name="unknown") is Suspicion.DNSBL


def test_the_lists_are_asked_before_the_clients_own_servers() -> None:
    """Who owns them can have them silent until no time is left."""
    asked = Asked(iprev(Result.TEMPERROR), is_on_list=True)
    assert judge(asked, name="unknown") is Suspicion.DNSBL
    assert asked.count == 1


def test_what_is_cheap_comes_first() -> None:
    asked = Asked(is_on_list=True)
    assert judge(asked, helo=b"localhost") is Suspicion.HELO
    assert judge(asked, name="dsl-192-0-2-7.isp.example") is Suspicion.GENERIC_NAME
    assert asked.count == 0


@pytest.mark.parametrize("address", ["", "unknown", "x" * 500])
def test_what_is_no_network_client_is_not_suspicious(address: str) -> None:
    asked = Asked(is_on_list=True)
    assert judge(asked, address, "unknown", b"localhost") is None
    assert asked.count == 0


@pytest.mark.parametrize(
    ("helo", "fits"),
    [
        pytest.param(b"mx1.example.com", True, id="a name"),
        pytest.param(b"MX1.Example.COM.", True, id="capitals and a final dot"),
        pytest.param(b"other.pool.example.net", True, id="another machine's name"),
        pytest.param(b"win_server.example.com", True, id="an underscore"),
        pytest.param(b"[192.0.2.7]", True, id="its own address"),
        pytest.param(b"[192.0.2.8]", False, id="another address"),
        pytest.param(b"[IPv6:::ffff:192.0.2.7]", True, id="its own address, mapped"),
        pytest.param(b"[192.0.2.7", False, id="half a bracket"),
        pytest.param(b"[]", False, id="empty brackets"),
        pytest.param(b"192.0.2.7", False, id="an address without brackets"),
        pytest.param(b"", False, id="nothing"),
        pytest.param(b"friend", False, id="a bare word"),
        pytest.param(b"localhost", False, id="localhost"),
        pytest.param(b"localhost.localdomain", False, id="a name of every installation"),
        pytest.param(b"server.firm.local", False, id="a name of a local network"),
        pytest.param(b"router.home.arpa", False, id="a name of a home network"),
        pytest.param(b"mx.own.example", False, id="our own name"),
        pytest.param(b"Own.Example", False, id="our own domain"),
        pytest.param(b"mx2.own.example", True, id="a machine of our domain that we do not know"),
        pytest.param(b"ex ample.com", False, id="a space"),
        pytest.param(b"a..example.com", False, id="an empty label"),
        pytest.param(b"mx.\xc3\xa9.example", False, id="no ASCII"),
        pytest.param(b"x." * 200 + b"example", False, id="too long"),
    ],
)
def test_a_helo_fits_or_not(helo: bytes, fits: bool) -> None:
    assert helo_fits(helo, read_address(CLIENT), OWN) is fits


@pytest.mark.parametrize(
    ("helo", "fits"), [(b"[IPv6:2001:db8::7]", True), (b"[ipv6:2001:DB8:0::7]", True), (b"[IPv6:2001:db8::8]", False)]
)
def test_an_ipv6_client_names_its_address(helo: bytes, fits: bool) -> None:
    assert helo_fits(helo, read_address("2001:db8::7"), OWN) is fits


@pytest.mark.parametrize(
    ("name", "address"),
    [
        pytest.param("dsl-192-0-2-7.isp.example", "192.0.2.7", id="octets"),
        pytest.param("192.0.2.7.isp.example", "192.0.2.7", id="octets as labels"),
        pytest.param("7.2.0.192.isp.example", "192.0.2.7", id="octets backwards"),
        pytest.param("host192-000-002-007.isp.example", "192.0.2.7", id="padded octets"),
        pytest.param("ip192000002007.isp.example", "192.0.2.7", id="padded octets without anything between"),
        pytest.param("c0000207.isp.example", "192.0.2.7", id="hex"),
        pytest.param("x070200c0.isp.example", "192.0.2.7", id="hex backwards"),
        pytest.param("0-2-7.static.isp.example", "192.0.2.7", id="the last three octets"),
        pytest.param("7-2-0.static.isp.example", "192.0.2.7", id="the last three octets backwards"),
        pytest.param("7.net-192-0-2.isp.example", "192.0.2.7", id="the first three octets"),
        pytest.param("x.2.0.192.isp.example", "192.0.2.7", id="the first three octets backwards"),
        pytest.param("static.88-198-12-34.clients.your-server.example", "88.198.12.34", id="a hoster's"),
        pytest.param("p5dd0c1b2.dip0.t-ipconnect.example", "93.208.193.178", id="an access provider's, in hex"),
        pytest.param("dyn-1234.isp.example", "192.0.2.7", id="dyn and a number"),
        pytest.param("pool77.isp.example", "192.0.2.7", id="pool and a number"),
        pytest.param("customer-4711.isp.example", "192.0.2.7", id="customer and a number"),
        pytest.param("77-12.adsl.isp.example", "192.0.2.7", id="a number below adsl"),
        pytest.param("a0b1c2.dhcp.isp.example", "192.0.2.7", id="a hex number below dhcp"),
        pytest.param("host77.cable.city.isp.example", "192.0.2.7", id="a numbered machine below cable"),
        pytest.param("2001-db8--7.isp.example", "2001:db8::7", id="IPv6"),
        pytest.param("20010db8000000000000000000000007.isp.example", "2001:db8::7", id="IPv6 in 32 digits"),
        pytest.param(
            "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.isp.example", "2001:db8::7", id="backwards"
        ),
        pytest.param("x-1-2-3-4.isp.example", "2001:db8::1:2:3:4", id="the last half of IPv6"),
    ],
)
def test_a_name_is_generic(name: str, address: str) -> None:
    assert is_generic(name, read_address(address))


@pytest.mark.parametrize(
    ("name", "address"),
    [
        pytest.param("mx1.example.com", "192.0.2.7", id="a mail server"),
        pytest.param("example.com", "192.0.2.7", id="a domain"),
        pytest.param("zeus.example.com", "192.0.2.7", id="a machine"),
        pytest.param("srv2-7.example.com", "192.0.2.7", id="two octets"),
        pytest.param("mail.dsl.example", "192.0.2.7", id="the mail server of a provider"),
        pytest.param("www7.cable.example", "192.0.2.7", id="a machine of a provider"),
        pytest.param("pool.example.com", "192.0.2.7", id="a word without a number"),
        pytest.param("69-171-232-143.mail-mail.facebook.com", "69.171.232.143", id="a large sender's"),
        pytest.param("mta-209-41-76.sender.example", "209.41.76.9", id="a large sender's with an address in it"),
        pytest.param("smtp-pool-3.example.com", "192.0.2.7", id="a pool of mail servers"),
        pytest.param("mail-eopbgr10051.outbound.protection.outlook.com", "40.107.1.51", id="Outlook's"),
        pytest.param("a8-29.smtp-out.amazonses.com", "54.240.8.29", id="SES's"),
        pytest.param("o1678911x12.outbound-mail.sendgrid.net", "167.89.11.12", id="SendGrid's"),
        pytest.param("mail-wr1-f41.google.com", "209.85.221.41", id="Google's"),
        pytest.param("srv1.dynamo.example.com", "192.0.2.7", id="a word that only begins like one"),
        pytest.param("srv-198-51-100-8.example.com", "192.0.2.7", id="another's address"),
        pytest.param("mx.2001-db8.example.com", "2001:db8::7", id="half an IPv6 address"),
    ],
)
def test_a_name_is_not_generic(name: str, address: str) -> None:
    assert not is_generic(name, read_address(address))


@given(st.binary(max_size=300), st.text(max_size=100), st.ip_addresses().map(str))
def test_strangers_make_nothing_stumble(helo: bytes, name: str, address: str) -> None:
    assert judge(Asked(iprev(Result.PERMERROR)), address, name, helo) in (None, *Suspicion)


@given(st.from_regex(r"[a-z0-9-]{1,12}(\.[a-z0-9-]{1,12}){1,8}", fullmatch=True), st.ip_addresses())
def test_any_name_can_be_judged(name: str, address: object) -> None:
    assert is_generic(name, read_address(str(address))) in (True, False)
