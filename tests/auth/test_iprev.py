"""iprev: a name of the client's address that leads back to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailward.auth.iprev import MAX_NAMES, check_iprev
from mailward.model.dns import Answer, AnswerStatus, Question, RecordType
from mailward.model.results import IprevResult, Result
from tests.support.zone import Zone

REVERSE = "1.2.0.192.in-addr.arpa"
REVERSE_6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"


@pytest.mark.parametrize(
    ("address", "zone", "result", "name"),
    [
        pytest.param(
            "192.0.2.1", f"{REVERSE} PTR Mail.example.com\nmail.example.com A 192.0.2.1", Result.PASS, "mail.example.com",
            id="a name that leads back",
        ),
        pytest.param(
            "192.0.2.1", f"{REVERSE} PTR a.example\n{REVERSE} PTR b.example\nb.example A 192.0.2.9\nb.example A 192.0.2.1",
            Result.PASS, "b.example", id="one name of two, one address of two",
        ),
        pytest.param(
            "::ffff:192.0.2.1", f"{REVERSE} PTR a.example\na.example A 192.0.2.1", Result.PASS, "a.example",
            id="an IPv4-mapped address",
        ),
        pytest.param(
            "2001:0DB8::1", f"{REVERSE_6} PTR a.example\na.example AAAA 2001:db8:0:0::1", Result.PASS, "a.example", id="IPv6"
        ),
        pytest.param(
            "192.0.2.1", f"{REVERSE} PTR a.example\n{REVERSE} PTR b.example\na.example TEMPFAIL\nb.example A 192.0.2.1",
            Result.PASS, "b.example", id="a silent name and one that leads back",
        ),
        pytest.param("192.0.2.1", "", Result.PERMERROR, "", id="NXDOMAIN for the address"),
        pytest.param("192.0.2.1", f"{REVERSE} TXT x", Result.PERMERROR, "", id="no PTR record"),
        pytest.param("192.0.2.1", f"{REVERSE} TEMPFAIL", Result.TEMPERROR, "", id="no answer for the address"),
        pytest.param("192.0.2.1", f"{REVERSE} PTR a.example", Result.FAIL, "", id="NXDOMAIN for the name"),
        pytest.param("192.0.2.1", f"{REVERSE} PTR a.example\na.example TXT x", Result.FAIL, "", id="a name without address"),
        pytest.param("192.0.2.1", f"{REVERSE} PTR a.example\na.example A 192.0.2.2", Result.FAIL, "", id="another address"),
        pytest.param(
            "192.0.2.1", f"{REVERSE} PTR a.example\na.example AAAA ::ffff:c000:201", Result.FAIL, "", id="another type"
        ),
        pytest.param(
            "192.0.2.1", f"{REVERSE} PTR a.example\n{REVERSE} PTR b.example\na.example TEMPFAIL", Result.TEMPERROR, "",
            id="a silent name and a wrong one",
        ),
        pytest.param("192.0.2.1", f"{REVERSE} PTR a(x)\\032b.example", Result.FAIL, "", id="a name nobody can have"),
        pytest.param("", "", Result.NONE, "", id="no network client"),
        pytest.param("unix:/socket", "", Result.NONE, "", id="no IP address"),
        pytest.param("fe80::1%eth0", "", Result.PERMERROR, "", id="a link-local address with its zone"),
    ],
)  # fmt: skip
def test_iprev(address: str, zone: str, result: Result, name: str) -> None:
    found = check_iprev(address, Zone(zone))
    assert (found.result, found.name) == (result, name)
    assert bool(found.reason) is (result is not Result.PASS)


def test_names_are_bounded() -> None:
    zone = Zone("\n".join(f"{REVERSE} PTR n{n}.example\nn{n}.example A 192.0.2.{n // MAX_NAMES}" for n in range(11)))
    assert check_iprev("192.0.2.1", zone).result is Result.FAIL
    assert len(zone.asked) == 1 + MAX_NAMES


def test_addresses_are_bounded() -> None:
    zone = Zone(f"{REVERSE} PTR a.example")
    zone.add("a.example", RecordType.A, [b"192.0.2.9"] * 100_000 + [b"192.0.2.1"])
    assert check_iprev("192.0.2.1", zone).result is Result.FAIL


@given(address=st.text(max_size=20) | st.ip_addresses().map(str), records=st.lists(st.binary(max_size=40), max_size=15))
def test_any_octets_give_a_result(address: str, records: list[bytes]) -> None:
    def ask(_: Question) -> Answer:
        return Answer(AnswerStatus.FOUND, tuple(records))

    found = check_iprev(address, ask)
    assert isinstance(found, IprevResult)
    assert found.name.isascii()


def test_fewer_names_are_asked_about_where_the_caller_has_less_time() -> None:
    zone = Zone("".join(f"{REVERSE} PTR n{number}.example\n" for number in range(5)) + "n2.example A 192.0.2.1")
    assert check_iprev("192.0.2.1", zone, max_names=2).result is Result.FAIL
    assert check_iprev("192.0.2.1", zone, max_names=3).name == "n2.example"
