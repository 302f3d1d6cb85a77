"""Queries as dnspython reads them, names nobody can have, resolv.conf, and zone files as a nameserver would answer from them."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import dns.message
import dns.name
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailward.adapters import dns_wire
from mailward.adapters.dns_wire import NoName, Zone, make_query, read_resolv_conf, system_nameservers
from mailward.model.dns import Answer, AnswerStatus, Question, RecordType

LONGEST_LABEL = "a" * 63


@pytest.mark.parametrize("record_type", RecordType)
def test_a_query_is_one_question_that_allows_for_answers_that_pass_unfragmented(record_type: RecordType) -> None:
    message = dns.message.from_wire(make_query(Question("WWW.example.com", record_type)).octets)
    (question,) = message.question
    assert (str(question.name), question.rdtype) == ("www.example.com.", dns.rdatatype.from_text(record_type.value))
    assert (message.edns, message.payload, message.flags) == (0, 1232, dns.flags.RD)


def test_without_edns_there_is_no_trace_of_it() -> None:
    assert dns.message.from_wire(make_query(Question("a", RecordType.A), has_edns=False).octets).edns == -1


def test_ids_are_random() -> None:
    ids = {make_query(Question("a", RecordType.A)).octets[:2] for _ in range(200)}
    assert len(ids) > 190


@pytest.mark.parametrize(
    ("name", "is_name"),
    [
        pytest.param("", True, id="the root"),
        pytest.param(LONGEST_LABEL, True, id="the longest label"),
        pytest.param(LONGEST_LABEL + "a", False, id="a label too long"),
        pytest.param(f"{LONGEST_LABEL}." * 3 + "a" * 61, True, id="the longest name"),
        pytest.param(f"{LONGEST_LABEL}." * 3 + "a" * 62, False, id="a name too long"),
        pytest.param("a..example", False, id="an empty label"),
        pytest.param("example.", False, id="a final dot"),
        pytest.param(".example", False, id="a first dot"),
        pytest.param("b\u00fccher.example", False, id="a U-label, which is the caller's to translate"),
        pytest.param("a b@c.example", True, id="octets no host name has"),
        pytest.param("a\\999.example", False, id="no octet"),
        pytest.param("a" * 1_000_000, False, id="a million octets"),
    ],
)
def test_what_is_a_name(name: str, is_name: bool) -> None:
    if is_name:
        make_query(Question(name, RecordType.A))
    else:
        with pytest.raises(NoName):
            make_query(Question(name, RecordType.A))


@given(st.text(max_size=20) | st.text("a.\\0129@\x00\u00fc\ud800", max_size=12))
def test_any_text_is_a_name_or_none(text: str) -> None:
    try:
        octets = make_query(Question(text, RecordType.A)).octets
    except NoName:
        return
    assert len(dns.message.from_wire(octets).question) == 1


ZONE = """\
example.com 300 TXT "v=spf1 -all"
www.example.com A 192.0.2.1
www.example.com A 192.0.2.2
alias.example.com 60 CNAME www.example.com
ring.example.com CNAME ring2.example.com
ring2.example.com CNAME ring.example.com
*.wild.example.com TXT "any" " name"
there.wild.example.com A 192.0.2.3
$ORIGIN example.net.
@ MX 10 mail
mail AAAA 2001:db8::1
"""


@pytest.mark.parametrize(
    ("name", "record_type", "status", "records"),
    [
        pytest.param("example.com", "TXT", "found", {b"v=spf1 -all"}, id="TXT"),
        pytest.param("EXAMPLE.com", "TXT", "found", {b"v=spf1 -all"}, id="capitals"),
        pytest.param("www.example.com", "A", "found", {b"192.0.2.1", b"192.0.2.2"}, id="two records"),
        pytest.param("alias.example.com", "A", "found", {b"192.0.2.1", b"192.0.2.2"}, id="an alias"),
        pytest.param("alias.example.com", "TXT", "nodata", set(), id="an alias without that type"),
        pytest.param("www.example.com", "TXT", "nodata", set(), id="another type"),
        pytest.param("com", "TXT", "nodata", set(), id="a name that only others are below"),
        pytest.param("x.example.com", "A", "nxdomain", set(), id="no such name"),
        pytest.param("example.org", "A", "nxdomain", set(), id="not in the file"),
        pytest.param("a..b", "A", "nxdomain", set(), id="no name"),
        pytest.param("ring.example.com", "A", "tempfail", set(), id="a ring"),
        pytest.param("x.wild.example.com", "TXT", "found", {b"any name"}, id="a wildcard"),
        pytest.param("y.x.wild.example.com", "TXT", "found", {b"any name"}, id="a wildcard, two labels below"),
        pytest.param("there.wild.example.com", "TXT", "nodata", set(), id="a name that exists hides the wildcard"),
        pytest.param("x.there.wild.example.com", "TXT", "nxdomain", set(), id="and so for all below it"),
        pytest.param("example.net", "MX", "found", {b"10 mail.example.net."}, id="relative to $ORIGIN"),
        pytest.param("mail.example.net", "AAAA", "found", {b"2001:db8::1"}, id="AAAA"),
    ],
)
def test_a_zone_file_answers(name: str, record_type: str, status: str, records: set[bytes]) -> None:
    answer = Zone(ZONE).ask(Question(name, RecordType(record_type)))
    assert (answer.status.value, set(answer.records)) == (status, records)


def test_a_zone_files_times() -> None:
    zone = Zone(ZONE)
    assert zone.ask(Question("example.com", RecordType.TXT)).ttl == 300
    assert zone.ask(Question("alias.example.com", RecordType.A)).ttl == 60
    assert zone.ask(Question("www.example.com", RecordType.A)).ttl == 3600


def test_an_empty_zone_file_knows_nothing() -> None:
    assert Zone("").ask(Question("a.example", RecordType.A)) == Answer(AnswerStatus.NXDOMAIN, ttl=3600)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("example.com A 192.0.2.999\n", id="no address"),
        pytest.param("example.com\n", id="no record"),
        pytest.param("$INCLUDE /etc/passwd\n", id="another file"),
        pytest.param('example.com TXT "open\n', id="an open quote"),
        pytest.param("example.com NOTYPE x\n", id="no type"),
        pytest.param("a..b A 192.0.2.1\n", id="no name"),
        pytest.param('"" A 192.0.2.1\n', id="an empty string for a name"),
    ],
)
def test_a_mistake_in_a_zone_file_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        Zone(text)


@given(st.text(max_size=60) | st.text('a. \n\t"();$*\\A0T', max_size=60))
def test_any_text_is_a_zone_file_or_none(text: str) -> None:
    try:
        zone = Zone(text)
    except ValueError:
        return
    assert zone.ask(Question("a", RecordType.A)).status in AnswerStatus


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        pytest.param("nameserver 192.0.2.53\nnameserver 2001:db8::53\n", ("192.0.2.53", "2001:db8::53"), id="two"),
        pytest.param("nameserver\t192.0.2.53 # the router", ("192.0.2.53",), id="what stands behind it"),
        pytest.param("  nameserver  fe80::1%eth0", ("fe80::1%eth0",), id="an address of a link, with its interface"),
        pytest.param("# nameserver 192.0.2.53\n;nameserver 192.0.2.54", (), id="comments"),
        pytest.param("search example.net\noptions edns0\n", (), id="other lines"),
        pytest.param("nameserver ns.example.net\nnameserver 192.0.2.53.\nnameserver", (), id="no addresses"),
        pytest.param("nameserver 192.0.2.53\r\n\x00\ufffd\n", ("192.0.2.53",), id="odd octets"),
        pytest.param("", (), id="nothing"),
    ],
)
def test_resolv_conf_names_the_nameservers(text: str, addresses: tuple[str, ...]) -> None:
    assert read_resolv_conf(text) == addresses


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        pytest.param("nameserver 192.0.2.53\n", (("192.0.2.53", 53),), id="as the file says"),
        pytest.param("search example.net\n", (("127.0.0.1", 53),), id="the local one where the file names none"),
        pytest.param(None, (("127.0.0.1", 53),), id="the local one without the file"),
    ],
)
def test_the_systems_nameservers(
    text: str | None, servers: tuple[tuple[str, int], ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "resolv.conf"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr(dns_wire, "RESOLV_CONF", file)
    assert system_nameservers() == servers


@given(st.text())
def test_whatever_resolv_conf_holds_only_addresses_come_out(text: str) -> None:
    for address in read_resolv_conf(f"nameserver {text}\n{text}"):
        ipaddress.ip_address(address)
