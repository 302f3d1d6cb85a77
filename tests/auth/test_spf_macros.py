"""SPF: macros, explanations, and the way of an evaluation term by term."""

from __future__ import annotations

import pytest

from mailward.auth.spf import SpfLimits, check_mail_from
from mailward.auth.spf_evaluation import MAX_EXPLANATION
from mailward.model.dns import RecordType
from mailward.model.results import Result, SpfTerm
from tests.auth.spf_questions import CLIENT, HELO, LIMITS, asked, judge
from tests.support.zone import Zone

# Macros


@pytest.mark.parametrize("macro", ["l", "s", "L", "S", "lr", "s1r-"])
@pytest.mark.parametrize("local_part", [b"\xc3\xbc", b"a\xff", b"x" * 1000], ids=["U", "no UTF-8", "long"])
def test_a_local_part_no_name_can_hold_matches_nothing(macro: str, local_part: bytes) -> None:
    zone = Zone(f"example.com TXT v=spf1 exists:%{{{macro}}}.m.example include:%{{{macro}}}.m.example a:%{{d}} ?all")
    zone.add("example.com", RecordType.A, [b"192.0.2.9"])
    found = check_mail_from(CLIENT, HELO, local_part + b"@example.com", zone, LIMITS)
    assert (found.result, found.mechanism, found.void_lookups) == (Result.NEUTRAL, "?all", 0)
    assert {name for name, _ in asked(zone)} == {"example.com"}


@pytest.mark.parametrize(
    ("spec", "mail_from", "name"),
    [
        pytest.param("%{i}.%{v}.x.example", b"a@example.com", "192.0.2.1.in-addr.x.example", id="the address"),
        pytest.param("%{ir}.%{d2}", b"a@example.com", "1.2.0.192.example.com", id="the address reversed"),
        pytest.param("%{lr-}.x.example", b"a-b@example.com", "b.a.x.example", id="a local part taken apart"),
        pytest.param("%{o}.x.example", b'"b@c"@example.com', "example.com.x.example", id="the last at sign"),
        pytest.param("100%%", b"a@example.com", "100%", id="a percent sign last"),
        pytest.param("%{h}.x.example", b"a@example.com", "mail.example.com.x.example", id="HELO"),
        pytest.param("%{p}.x.example", b"a@example.com", "unknown.x.example", id="no confirmed name"),
        pytest.param(
            "%{l}.%{l}.%{l}.%{l}.%{l}.x.example", b"a" * 62 + b"@example.com", ".".join(["a" * 62] * 3 + ["x.example"]),
            id="a long name loses labels from the left until it fits",
        ),
    ],
)  # fmt: skip
def test_macros(spec: str, mail_from: bytes, name: str) -> None:
    zone = Zone(f"example.com TXT v=spf1 exists:{spec} -all\n{name} A 127.0.0.2")
    assert check_mail_from(CLIENT, HELO, mail_from, zone, LIMITS).result is Result.PASS


CONFIRMED = """
1.2.0.192.in-addr.arpa PTR other.example
1.2.0.192.in-addr.arpa PTR below.example.com
1.2.0.192.in-addr.arpa PTR example.com
other.example A 192.0.2.1
"""


@pytest.mark.parametrize(
    ("zone", "confirmed"),
    [
        pytest.param("below.example.com A 192.0.2.1\nexample.com A 192.0.2.1", "example.com", id="the domain itself"),
        pytest.param(
            "below.example.com A 192.0.2.1\nexample.com A 192.0.2.2", "below.example.com", id="else one below it"
        ),
        pytest.param("example.com A 192.0.2.2", "other.example", id="else any"),
        pytest.param(
            "other.example A TEMPFAIL\nbelow.example.com TEMPFAIL", "other.example", id="silent ones are skipped"
        ),
    ],
)
def test_the_confirmed_name(zone: str, confirmed: str) -> None:
    assert (
        judge("v=spf1 exists:%{p}.x.example -all", f"{CONFIRMED}{zone}\n{confirmed}.x.example A 127.0.0.2").result
        is Result.PASS
    )


def test_names_of_the_client_are_asked_for_once() -> None:
    zone = Zone(
        f"{CONFIRMED}example.com TXT v=spf1 exists:%{{p}}.x.example exists:%{{p}}.y.example ptr ptr:other.example -all"
    )
    found = check_mail_from(CLIENT, HELO, b"a@example.com", zone, LIMITS)
    assert (found.mechanism, found.lookups, found.void_lookups) == ("ptr:other.example", 4, 2)
    assert len(zone.asked) == 1 + 1 + 3 + 2


# Explanations


@pytest.mark.parametrize(
    ("text", "explanation"),
    [
        pytest.param(b"%{i} may not send for %{d}", "192.0.2.1 may not send for example.com", id="macros"),
        pytest.param(b"100%% of%_it%-", "100% of it%20", id="percent signs"),
        pytest.param(b"no\r\n250 OK\x00\x1b[31m\x7f", "no??250 OK??[31m?", id="control characters"),
        pytest.param(b"100 % of it", "", id="a percent sign that is no macro"),
        pytest.param(b"%{z}", "", id="a macro nobody knows"),
        pytest.param("nein f\u00fcr dich".encode(), "", id="not ASCII"),
        pytest.param(b"x" * 300, "x" * MAX_EXPLANATION, id="clipped"),
        pytest.param(b"a.b " * 100, ("a.b " * 100)[:MAX_EXPLANATION], id="a long text is no long name"),
        pytest.param(b"%{d}" * 250, ("example.com" * 100)[:MAX_EXPLANATION], id="a macro bomb"),
        pytest.param(b"%" * 60_000, "", id="60 kB"),
    ],
)
def test_explanation(text: bytes, explanation: str) -> None:
    zone = Zone("example.com TXT v=spf1 -all exp=e.%{d}")
    zone.add("e.example.com", RecordType.TXT, [text])
    found = check_mail_from(CLIENT, HELO, b"a@example.com", zone, LIMITS)
    assert (found.result, found.explanation) == (Result.FAIL, explanation)


@pytest.mark.parametrize(
    ("record", "zone", "explanation"),
    [
        pytest.param("v=spf1 ~all exp=e.example", "e.example TXT no", "", id="not with softfail"),
        pytest.param("v=spf1 -all exp=e.example", "e.example TEMPFAIL", "", id="no answer"),
        pytest.param("v=spf1 -all exp=e.example", "e.example TXT a\ne.example TXT b", "", id="two texts"),
        pytest.param("v=spf1 exp=e.example redirect=r.example", "r.example TXT v=spf1 -all\ne.example TXT no", "",
                     id="not that of a record which redirects"),
        pytest.param("v=spf1 redirect=r.example", "r.example TXT v=spf1 -all exp=e.%{d}\ne.r.example TXT no", "no",
                     id="that of the record redirected to"),
        pytest.param("v=spf1 include:i.example -all", "i.example TXT v=spf1 -all exp=e.example\ne.example TXT no", "",
                     id="not that of an included record"),
        pytest.param("v=spf1 a a:a.example -all exp=e.example", "e.example TXT %{p} no", "",
                     id="a void look-up too many for the explanation changes nothing else"),
    ],
)  # fmt: skip
def test_whose_explanation(record: str, zone: str, explanation: str) -> None:
    found = judge(record, zone)
    assert found.explanation == explanation
    assert found.result in (Result.FAIL, Result.SOFTFAIL)
    assert found.void_lookups <= LIMITS.void_lookups


def test_an_explanation_does_not_name_a_local_part_it_cannot_hold() -> None:
    zone = Zone("example.com TXT v=spf1 -all exp=e.example\ne.example TXT %{s} no")
    assert check_mail_from(CLIENT, HELO, b"\xc3\xbc@example.com", zone, LIMITS).explanation == ""


# Term by term


def test_terms_tell_the_whole_way() -> None:
    zone = Zone("""
        example.com TXT v=spf1 a include:i.example redirect=r.example
        example.com A 198.51.100.1
        i.example TXT v=spf1 ip4:192.0.2.1 ?exists:%{d} -all
        i.example TXT other
        r.example TXT v=spf1 mx ~all
    """)
    found = check_mail_from("192.0.2.2", HELO, b"a@example.com", zone, SpfLimits(wants_terms=True))
    assert (found.result, found.mechanism, found.lookups) == (Result.SOFTFAIL, "~all", 5)
    assert found.terms == (
        SpfTerm("example.com", "a", "no match (1 of 10 lookups)"),
        SpfTerm("example.com", "include:i.example", "no match (3 of 10 lookups, 1 void)"),
        SpfTerm("i.example", "ip4:192.0.2.1", "no match"),
        SpfTerm("i.example", "?exists:%{d}", "no match (3 of 10 lookups, 1 void)"),
        SpfTerm("i.example", "-all", "match: fail"),
        SpfTerm("example.com", "redirect=r.example", "no term matched (4 of 10 lookups, 1 void)"),
        SpfTerm("r.example", "mx", "no match (5 of 10 lookups, 2 void)"),
        SpfTerm("r.example", "~all", "match: softfail"),
    )


def test_terms_say_where_an_error_was() -> None:
    zone = Zone(
        "example.com TXT v=spf1 include:i.example -all\ni.example TXT v=spf1 a:silent.example\nsilent.example TEMPFAIL"
    )
    found = check_mail_from(CLIENT, HELO, b"a@example.com", zone, SpfLimits(wants_terms=True))
    assert [term.outcome.partition(":")[0] for term in found.terms] == ["temperror", "temperror"]


def test_terms_are_not_written_down_unasked() -> None:
    assert judge("v=spf1 ip4:192.0.2.1 -all").terms == ()
