"""SPF: the identities, what is asked, the results with their reasons, and the limits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import spf as pyspf

from mailward.auth.spf import SpfLimits, check_helo, check_mail_from
from mailward.model.dns import Answer, Failure, Question, RecordType, failed
from mailward.model.results import Result, SpfIdentity, SpfMatch
from tests.auth.spf_questions import CLIENT, HELO, LIMITS, asked, judge
from tests.support.zone import Zone

# Identities


IDENTITIES = Zone("""
example.com TXT v=spf1 ip4:192.0.2.1 -all
mail.example.com TXT v=spf1 -all
xn--bcher-kva.example TXT v=spf1 ip4:192.0.2.1 -all
b.example TXT v=spf1 ip6:2001:db8::1 -all
""")


@pytest.mark.parametrize(
    ("client", "helo", "mail_from", "result", "domain"),
    [
        pytest.param(CLIENT, HELO, b"a@example.com", Result.PASS, "example.com", id="MAIL FROM, whatever HELO says"),
        pytest.param(CLIENT, HELO, b"a@EXAMPLE.com.", Result.PASS, "example.com", id="case and final dot"),
        pytest.param(CLIENT, HELO, b"", Result.FAIL, "mail.example.com", id="the null sender is judged by HELO"),
        pytest.param(CLIENT, b"[192.0.2.1]", b"", Result.NONE, "", id="the null sender, HELO a literal"),
        pytest.param(CLIENT, b"", b"", Result.NONE, "", id="the null sender, no HELO"),
        pytest.param(CLIENT, b"", b"a@example.com", Result.PASS, "example.com", id="no HELO"),
        pytest.param(CLIENT, HELO, b"@example.com", Result.PASS, "example.com", id="no local part"),
        pytest.param(
            CLIENT, HELO, b'"x@mail.example.com"@example.com', Result.PASS, "example.com", id="a quoted at sign"
        ),
        pytest.param(CLIENT, HELO, b"@relay.example:a@example.com", Result.PASS, "example.com", id="a source route"),
        pytest.param(CLIENT, HELO, b"example.com", Result.NONE, "", id="no at sign: nothing is taken for a domain"),
        pytest.param(CLIENT, HELO, b"a@", Result.NONE, "", id="no domain"),
        pytest.param(CLIENT, HELO, b"a@com", Result.NONE, "", id="a single label"),
        pytest.param(CLIENT, HELO, b"a@[192.0.2.1]", Result.NONE, "", id="a domain literal"),
        pytest.param(CLIENT, HELO, b"a@192.0.2.1", Result.NONE, "", id="an address for a domain"),
        pytest.param(CLIENT, HELO, b"a@example.com\x00.evil.example", Result.NONE, "", id="NUL in the domain"),
        pytest.param(CLIENT, HELO, b"a@exa mple.com", Result.NONE, "", id="a space in the domain"),
        pytest.param(CLIENT, HELO, b"a@(x)example.com", Result.NONE, "", id="a comment in the domain"),
        pytest.param(CLIENT, HELO, b"a@\xff.example.com", Result.NONE, "", id="a domain that is no UTF-8"),
        pytest.param(CLIENT, HELO, b"a@" + b"a" * 64 + b".example", Result.NONE, "", id="a label too long"),
        pytest.param(CLIENT, HELO, b"a@" + b"a." * 100_000 + b"example", Result.NONE, "", id="a domain of 200 kB"),
        pytest.param(
            CLIENT, HELO, "a@b\u00fccher.example".encode(), Result.PASS, "xn--bcher-kva.example", id="U-labels"
        ),
        pytest.param(CLIENT, HELO, b"\xff\xfe@example.com", Result.PASS, "example.com", id="a local part no UTF-8"),
        pytest.param(
            CLIENT, HELO, b"a\r\n\x00 b@example.com", Result.PASS, "example.com", id="a local part of controls"
        ),
        pytest.param(
            CLIENT, HELO, b"x" * 100_000 + b"@example.com", Result.PASS, "example.com", id="a long local part"
        ),
        pytest.param("::ffff:192.0.2.1", HELO, b"a@example.com", Result.PASS, "example.com", id="IPv4-mapped is IPv4"),
        pytest.param("2001:db8::1", HELO, b"a@example.com", Result.FAIL, "example.com", id="an IPv6 client"),
        pytest.param("2001:DB8:0::1", HELO, b"a@b.example", Result.PASS, "b.example", id="IPv6, written otherwise"),
        pytest.param("", HELO, b"a@example.com", Result.NONE, "example.com", id="no network client"),
        pytest.param("unix:/x", HELO, b"a@example.com", Result.NONE, "example.com", id="no IP address"),
        pytest.param("1" * 100_000, HELO, b"a@example.com", Result.NONE, "example.com", id="100 kB of address"),
        pytest.param(CLIENT, HELO, b"a@other.example", Result.NONE, "other.example", id="no record"),
    ],
)
def test_mail_from(client: str, helo: bytes, mail_from: bytes, result: Result, domain: str) -> None:
    found = check_mail_from(client, helo, mail_from, IDENTITIES, LIMITS)
    assert (found.result, found.identity, found.domain) == (result, SpfIdentity.MAILFROM, domain)
    assert bool(found.reason) is (result is Result.NONE)


@pytest.mark.parametrize(
    ("helo", "result", "domain"),
    [
        pytest.param(HELO, Result.FAIL, "mail.example.com", id="a name"),
        pytest.param("b\u00fccher.example".encode(), Result.PASS, "xn--bcher-kva.example", id="U-labels"),
        pytest.param(b"", Result.NONE, "", id="nothing"),
        pytest.param(b"[192.0.2.1]", Result.NONE, "", id="an IPv4 literal"),
        pytest.param(b"[IPv6:2001:db8::1]", Result.NONE, "", id="an IPv6 literal"),
        pytest.param(b"192.0.2.1", Result.NONE, "", id="an address"),
        pytest.param(b"localhost", Result.NONE, "", id="a single label"),
        pytest.param(b"\xff\xfe.example", Result.NONE, "", id="no UTF-8"),
        pytest.param(b"a b\r\n.example", Result.NONE, "", id="white space"),
    ],
)
def test_helo(helo: bytes, result: Result, domain: str) -> None:
    found = check_helo(CLIENT, helo, IDENTITIES, LIMITS)
    assert (found.result, found.identity, found.domain) == (result, SpfIdentity.HELO, domain)


# What is asked


def test_a_domain_without_a_record_costs_one_question() -> None:
    zone = Zone("example.com TXT something else\nexample.com TXT v=spf10 -all\nexample.com TXT V=SPF1-all")
    assert check_mail_from(CLIENT, HELO, b"a@example.com", zone, LIMITS).result is Result.NONE
    assert asked(zone) == [("example.com", "TXT")]


def test_names_behind_the_match_are_not_asked_for() -> None:
    zone = Zone("""
        example.com TXT v=spf1 ip4:192.0.2.1 a mx include:i.example exists:%{p}.example redirect=r.example exp=e.example
        e.example TXT not for you
    """)
    result = check_mail_from(CLIENT, HELO, b"a@example.com", zone, LIMITS)
    assert (result.result, result.mechanism, result.lookups) == (Result.PASS, "ip4:192.0.2.1", 0)
    assert asked(zone) == [("example.com", "TXT")]


def test_pyspf_asks_nothing_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def own_look_up(*_: object) -> None:
        raise AssertionError("pyspf asked the DNS")

    monkeypatch.setattr(pyspf, "DNSLookup", own_look_up)
    zone = """
        example.com MX 10 mx.example
        1.2.0.192.in-addr.arpa PTR mail.example.com
        mail.example.com A 192.0.2.1
        i.example TXT v=spf1 -all
        e.example TXT %{p} may not
    """
    record = "v=spf1 a mx ?exists:%{p}.x.example ?exists:%{l}.x.example include:i.example -ptr exp=e.example"
    result = judge(record, zone)
    assert (result.result, result.mechanism) == (Result.PERMERROR, "")
    result = check_mail_from(
        CLIENT, HELO, b"a@example.com", Zone(f"example.com TXT {record}\n{zone}"), SpfLimits(void_lookups=9)
    )
    assert (result.result, result.mechanism, result.explanation) == (Result.FAIL, "-ptr", "mail.example.com may not")


def test_what_ask_raises_goes_through() -> None:
    class OurBug(Exception):
        pass

    def ask(question: Question) -> Answer:
        if question.record_type is not RecordType.PTR:
            return Zone("example.com TXT v=spf1 exists:%{p}.example -all")(question)
        raise OurBug

    with pytest.raises(OurBug):
        check_mail_from(CLIENT, HELO, b"a@example.com", ask, LIMITS)


def test_threads_do_not_meet() -> None:
    zone = Zone(
        "\n".join(
            f"d{n}.example TXT v=spf1 exists:%{{l}}.%{{d}} -all\nl{n}.d{n}.example A 127.0.0.2" for n in range(50)
        )
    )

    def one(n: int) -> Result:
        return check_mail_from(CLIENT, HELO, b"l%d@d%d.example" % (n % 50, n % 50), zone, LIMITS).result

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(one, range(500))) == {Result.PASS}


# Results and their reasons


@pytest.mark.parametrize(
    ("record", "zone", "result", "reason"),
    [
        pytest.param("v=spf1", "", Result.NEUTRAL, "no term matched", id="an empty record"),
        pytest.param(
            "v=spf1 -all", "example.com TXT v=spf1 +all", Result.PERMERROR, "more than one SPF", id="two records"
        ),
        pytest.param(
            "v=spf1 ip4:192.0.2.1 moo", "", Result.PERMERROR, "syntax error in moo", id="an error after the match"
        ),
        pytest.param(
            "v=spf1 ip4:1.2.3.4/33", "", Result.PERMERROR, "syntax error in ip4:1.2.3.4/33", id="CIDR too long"
        ),
        pytest.param("v=spf1 a//129", "", Result.PERMERROR, "syntax error in a//129", id="IPv6 CIDR too long"),
        pytest.param(
            "v=spf1 a/" + "9" * 500, "", Result.PERMERROR, "syntax error", id="a CIDR no integer can be read from"
        ),
        pytest.param("v=spf1 a:%{d", "", Result.PERMERROR, "syntax error", id="a macro that does not end"),
        pytest.param(
            "v=spf1 exists:%{foo.com", "", Result.PERMERROR, "syntax error", id="a macro that pyspf lets pass"
        ),
        pytest.param("v=spf1 exists:%{d0}.com", "", Result.PERMERROR, "syntax error", id="zero labels"),
        pytest.param(
            "v=spf1 exists:%{c}.com", "", Result.PERMERROR, "syntax error", id="a macro for explanations only"
        ),
        pytest.param(
            "v=spf1 redirect=a.example redirect=b.example", "", Result.PERMERROR, "syntax error", id="two redirects"
        ),
        pytest.param(
            "v=spf1 REDIRECT=no.example", "", Result.PERMERROR, "redirect has no SPF", id="modifiers have no case"
        ),
        pytest.param("v=spf1 x=1 x=2 ?all", "", Result.NEUTRAL, "", id="unknown modifiers may stand often"),
        pytest.param("v=spf1 \u00fc -all", "", Result.PERMERROR, "syntax error in ??", id="a record beyond ASCII"),
        pytest.param("v=spf1 a\x00b -all", "", Result.PERMERROR, "syntax error in a?b", id="NUL in a record"),
        pytest.param(
            'v=spf1 a"b(c)\\; -all', "", Result.PERMERROR, "syntax error in a?b?c???", id="quotes are not repeated"
        ),
        pytest.param("v=spf1 include:example.com", "", Result.PERMERROR, "includes itself", id="an include of itself"),
        pytest.param(
            "v=spf1 include:no.example", "", Result.PERMERROR, "included domain has no", id="an include of nothing"
        ),
        pytest.param(
            "v=spf1 redirect=no.example", "", Result.PERMERROR, "redirect has no SPF", id="a redirect to nothing"
        ),
        pytest.param(
            "v=spf1 redirect=example.com", "", Result.PERMERROR, "more than 10 DNS", id="a redirect to itself"
        ),
        pytest.param(
            "v=spf1 include:i.example",
            "i.example TXT v=spf1 include:example.com",
            Result.PERMERROR,
            "more than 10 DNS",
            id="includes in a circle",
        ),
        pytest.param(
            "v=spf1 include:i.example", "i.example TEMPFAIL", Result.TEMPERROR, "no DNS answer", id="a silent include"
        ),
        pytest.param(
            "v=spf1 a -all", "example.com A TEMPFAIL", Result.TEMPERROR, "no DNS answer", id="a silent address"
        ),
        pytest.param("v=spf1 mx -all", "example.com MX TEMPFAIL", Result.TEMPERROR, "no DNS answer", id="a silent MX"),
        pytest.param(
            "v=spf1 exists:x.example", "x.example TEMPFAIL", Result.TEMPERROR, "no DNS answer", id="a silent exists"
        ),
        pytest.param("v=spf1 mx -all", "example.com MX 0 .", Result.FAIL, "", id="a null MX"),
        pytest.param(
            "v=spf1 ptr -all",
            "1.2.0.192.in-addr.arpa TEMPFAIL",
            Result.FAIL,
            "",
            id="a silent PTR matches nothing (5.5)",
        ),
    ],
)
def test_result_and_reason(record: str, zone: str, result: Result, reason: str) -> None:
    found = judge(record, zone)
    assert found.result is result
    assert reason in found.reason
    assert found.reason.isascii()
    assert found.reason.isprintable()


def test_a_silent_domain_is_a_temperror() -> None:
    found = check_mail_from(CLIENT, HELO, b"a@example.com", Zone("example.com TEMPFAIL"), LIMITS)
    assert (found.result, found.reason) == (Result.TEMPERROR, "no DNS answer: no nameserver answered in time")


def test_the_mechanism_is_that_of_the_senders_own_record() -> None:
    assert judge("v=spf1 include:i.example -all", "i.example TXT v=spf1 +all").mechanism == "include:i.example"
    assert judge("v=spf1 redirect=i.example", "i.example TXT v=spf1 ~all").mechanism == "~all"


# Limits


TEN = " ".join(f"a:a{n}.example" for n in range(10))
TEN_ADDRESSES = "\n".join(f"a{n}.example A 198.51.100.1" for n in range(10))


@pytest.mark.parametrize(
    ("record", "zone", "result", "lookups", "void_lookups"),
    [
        pytest.param(f"v=spf1 {TEN} -all", TEN_ADDRESSES, Result.FAIL, 10, 0, id="ten terms"),
        pytest.param(f"v=spf1 {TEN} a -all", TEN_ADDRESSES, Result.PERMERROR, 11, 0, id="eleven terms"),
        pytest.param(f"v=spf1 {TEN} redirect=r.example", TEN_ADDRESSES, Result.PERMERROR, 11, 0, id="a redirect is a term"),
        pytest.param(
            f"v=spf1 {TEN} redirect=r.example", "a9.example A 192.0.2.1\n" + TEN_ADDRESSES, Result.PASS, 10, 0,
            id="a redirect that is not followed is none",
        ),
        pytest.param("v=spf1 a a:b.example -all", "", Result.FAIL, 2, 2, id="two void look-ups"),
        pytest.param("v=spf1 a a:b.example a:c.example -all", "", Result.PERMERROR, 3, 3, id="three void look-ups"),
        pytest.param(
            "v=spf1 mx a ip4:192.0.2.1 -all", "\n".join(f"example.com MX 1 m{n}.example" for n in range(10)),
            Result.PASS, 2, 2, id="ten MX names without an address are one term that finds nothing",
        ),
        pytest.param("v=spf1 a:a..example a:%{l}..example exists:%_.x.example -all",
                     " .x.example A 127.0.0.1", Result.FAIL, 3, 1, id="names nobody can have are not asked for"),
        pytest.param(
            "v=spf1 mx -all", "\n".join(f"example.com MX 1 m{n}.example\nm{n}.example A 192.0.2.{n + 10}" for n in range(10)),
            Result.FAIL, 1, 0, id="ten MX names",
        ),
        pytest.param(
            "v=spf1 mx -all", "\n".join(f"example.com MX 1 m{n}.example\nm{n}.example A 192.0.2.1" for n in range(11)),
            Result.PERMERROR, 1, 0, id="eleven MX names",
        ),
        pytest.param(
            "v=spf1 ptr -all",
            "\n".join(f"1.2.0.192.in-addr.arpa PTR p{n}.example.com\np{n}.example.com A 192.0.2.{n // 10}" for n in range(11)),
            Result.FAIL, 1, 0, id="the eleventh name of a PTR is ignored",
        ),
        pytest.param(
            "v=spf1 ptr -all",
            "\n".join(f"1.2.0.192.in-addr.arpa PTR p{n}.example.com\np{n}.example.com A 192.0.2.{n // 9}" for n in range(10)),
            Result.PASS, 1, 0, id="the tenth name of a PTR counts",
        ),
        pytest.param(
            "v=spf1 ptr -all", "1.2.0.192.in-addr.arpa PTR notexample.com\nnotexample.com A 192.0.2.1", Result.FAIL, 1, 0,
            id="a PTR name is compared by labels",
        ),
    ],
)  # fmt: skip
def test_limits(record: str, zone: str, result: Result, lookups: int, void_lookups: int) -> None:
    found = judge(record, zone)
    assert (found.result, found.lookups, found.void_lookups) == (result, lookups, void_lookups)


def test_hosts_without_ipv6_stand_in_no_providers_way() -> None:
    zone = Zone("""
        shop.example TXT v=spf1 a mx include:provider.example -all
        shop.example A 192.0.2.1
        shop.example MX 10 m1.shop.example
        shop.example MX 20 m2.shop.example
        m1.shop.example A 192.0.2.2
        m2.shop.example A 192.0.2.3
        provider.example TXT v=spf1 ip6:2001:db8::/32 -all
    """)
    assert check_mail_from("2001:db8::25", HELO, b"a@shop.example", zone, LIMITS).result is Result.PASS


@pytest.mark.parametrize(("limit", "result"), [(0, Result.PERMERROR), (2, Result.PERMERROR), (3, Result.FAIL)])
def test_the_limit_of_void_lookups_is_configured(limit: int, result: Result) -> None:
    zone = Zone("example.com TXT v=spf1 a a:b.example a:c.example -all")
    found = check_mail_from(CLIENT, HELO, b"a@example.com", zone, SpfLimits(void_lookups=limit))
    assert found.result is result
    assert ("void" in found.reason) is (result is Result.PERMERROR)


@pytest.mark.parametrize("failure", [Failure.AWAY, Failure.OWN_WANT])
def test_a_dns_that_is_away_as_a_whole_is_an_error_for_ptr_too(failure: Failure) -> None:
    zone = Zone("example.com TXT v=spf1 ptr -all")

    def ask(question: Question) -> Answer:
        return zone(question) if question.record_type is RecordType.TXT else failed(failure)

    assert check_mail_from("192.0.2.1", b"h.example", b"a@example.com", ask, LIMITS).result is Result.TEMPERROR


# What matched in the end: by how much of the client's address

LEAVES = """
all.example TXT v=spf1 +all
wide.example TXT v=spf1 ip4:192.0.0.0/9 -all
refuses.example TXT v=spf1 -ip4:192.0.2.0/24 ?all
through.example TXT v=spf1 include:wide.example -all
a.example A 192.0.2.77
a.example AAAA 2001:db8::77
mx.example MX 10 a.example
1.2.0.192.in-addr.arpa PTR p.example.com
p.example.com A 192.0.2.1
"""


@pytest.mark.parametrize(
    ("record", "prefix_length"),
    [
        pytest.param("v=spf1 ip4:192.0.2.1 -all", 32, id="an address"),
        pytest.param("v=spf1 ip4:192.0.2.0/24 -all", 24, id="a network"),
        pytest.param("v=spf1 ip4:0.0.0.0/0 -all", 0, id="all networks"),
        pytest.param("v=spf1 ip4:0.0.0.0/1 ip4:128.0.0.0/1 -all", 1, id="all networks in two halves"),
        pytest.param("v=spf1 a:a.example/24 -all", 24, id="a name's network"),
        pytest.param("v=spf1 a:a.example/0 -all", 0, id="a name, and all networks"),
        pytest.param("v=spf1 mx:mx.example/16 -all", 16, id="an exchange's network"),
        pytest.param("v=spf1 +all", 0, id="all"),
        pytest.param("v=spf1 exists:a.example -all", 0, id="exists"),
        pytest.param("v=spf1 ptr:example.com -all", 0, id="ptr"),
        pytest.param("v=spf1 include:all.example -all", 0, id="all of an included record"),
        pytest.param("v=spf1 redirect=all.example", 0, id="all of a record redirected to"),
        pytest.param("v=spf1 include:through.example -all", 9, id="a network two records below"),
        pytest.param("v=spf1 include:refuses.example +all", 0, id="not what made an included record fail"),
    ],
)
def test_how_much_of_the_address_mattered(record: str, prefix_length: int) -> None:
    found = judge(record, LEAVES)
    assert (found.result, found.match) == (Result.PASS, SpfMatch(prefix_length, 32))


@pytest.mark.parametrize(
    ("record", "prefix_length"),
    [("v=spf1 ip6:2001:db8::/32 -all", 32), ("v=spf1 a:a.example/24//40 -all", 40), ("v=spf1 ip6:::/0 -all", 0)],
)
def test_how_much_of_an_ipv6_address_mattered(record: str, prefix_length: int) -> None:
    found = judge(record, LEAVES, client="2001:db8::1")
    assert (found.result, found.match) == (Result.PASS, SpfMatch(prefix_length, 128))


@pytest.mark.parametrize("record", ["v=spf1 -all", "v=spf1 -ip4:192.0.2.1", "v=spf1 ?all", "v=spf1", "v=spf1 oops"])
def test_only_a_pass_has_a_match(record: str) -> None:
    assert judge(record).match is None
