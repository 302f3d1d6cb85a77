"""SPF: whatever a stranger publishes or sends gives a result; and beside pyspf's own evaluation the same one."""

from __future__ import annotations

import pytest
import spf as pyspf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailward.auth import spf_record
from mailward.auth.spf import SpfLimits, check_helo, check_mail_from
from mailward.auth.spf_record import MAX_RECORD, MAX_TERM, MAX_TERMS
from mailward.model.dns import Answer, AnswerStatus, Question, RecordType
from mailward.model.results import Result
from tests.auth.spf_questions import CLIENT, HELO, LIMITS, judge
from tests.support import pyspf_oracle
from tests.support.zone import Zone


def test_what_pyspf_raises_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RecursionError

    monkeypatch.setattr(pyspf.query, "validate_mechanism", fails)
    assert judge("v=spf1 a:one.example -all").result is Result.PERMERROR
    monkeypatch.undo()
    monkeypatch.setattr(pyspf.query, "expand", fails)
    assert judge("v=spf1 a:%{d2} -all").reason == "a macro that cannot be expanded"
    assert judge("v=spf1 -all exp=e.example", "e.example TXT %{d}").result is Result.FAIL


# Hostile records


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(b"v=spf1 " + b"a" * 64_000, id="64 kB of one term"),
        pytest.param(b"v=spf1 " + b"a.example " * 6_400, id="64 kB of nonsense"),
        pytest.param(b"v=spf1 " + b"ip4:192.0.2.9 " * 4_500, id="thousands of networks"),
        pytest.param(b"v=spf1 " + b"ip4:192.0.2.9 " * 1_000 + b"moo", id="a thousand networks and an error"),
        pytest.param(b"v=spf1 a:" + b"a" * 500 + b"!", id="letters for pyspf's pattern of a top label"),
        pytest.param(b"v=spf1 " + (b"a:." + b"a" * 495 + b".1.example ") * 31, id="longer letters for the same"),
        pytest.param(b"v=spf1 a:a." + b"a-" * 240 + b"!", id="hyphens for the same"),
        pytest.param(b"v=spf1 exists:" + b"%{" * 200 + b".example", id="macros that do not end"),
        pytest.param(b"v=spf1 exists:" + b"%{l}" * 120 + b".x.example", id="a macro bomb"),
        pytest.param(b"v=spf1 exists:" + b"%{l999999999r}" * 30 + b".x.example", id="many labels of many"),
        pytest.param(b"v=spf1 " + b" " * 64_000 + b"-all", id="64 kB of spaces"),
        pytest.param(b"v=spf1 " + b"x=1 " * 16_000, id="thousands of modifiers"),
        pytest.param(b"v=spf1 " + b"\x00" * 1_000, id="NUL"),
        pytest.param(b"v=spf1 " + bytes(range(128, 256)) * 100, id="not ASCII"),
        pytest.param(b"v=spf1 ip4:" + b"9" * 400 + b" ip6:" + b":" * 400, id="no addresses"),
        pytest.param(b"v=spf1 a:%%%_.example exists:%-%-.example mx:..... ptr:%{d}%{d}.", id="odd names"),
    ],
)
def test_a_hostile_record_gives_a_result(record: bytes) -> None:
    zone = Zone()
    zone.add("example.com", RecordType.TXT, [record])
    for client in (CLIENT, "2001:db8::1"):
        found = check_mail_from(client, HELO, b"a.b.c@example.com", zone, SpfLimits(wants_terms=True))
        assert found.result in (Result.PERMERROR, Result.NEUTRAL, Result.FAIL)
        assert all((term.domain + term.term + term.outcome).isprintable() for term in found.terms)
        assert len(found.terms) <= 500


def test_limits_of_records_and_terms() -> None:
    longest_term = "ip4:192.0.2.1 x=" + "y" * (MAX_TERM - 2)
    assert judge(f"v=spf1 {longest_term}").result is Result.PASS
    assert judge(f"v=spf1 {longest_term}y").result is Result.PERMERROR
    assert judge("v=spf1 ip4:192.0.2.1" + " x=" * (MAX_TERMS - 1)).result is Result.PASS
    assert judge("v=spf1 ip4:192.0.2.1" + " x=" * MAX_TERMS).result is Result.PERMERROR
    record = "v=spf1 ip4:192.0.2.1".ljust(MAX_RECORD)
    zone = Zone()
    zone.add("example.com", RecordType.TXT, [record.encode()])
    zone.add("b.example", RecordType.TXT, [record.encode() + b" "])
    assert check_mail_from(CLIENT, HELO, b"a@example.com", zone, LIMITS).result is Result.PASS
    assert check_mail_from(CLIENT, HELO, b"a@b.example", zone, LIMITS).result is Result.PERMERROR


def test_long_records_do_not_stay_in_memory() -> None:
    before = spf_record._parse_cached.cache_info().currsize
    judge("v=spf1 " + "ip4:192.0.2.9 " * 41 + "-all")
    judge("v=spf1 x=" + "y" * 400 + " x=" + "y" * 400 + " x=" + "y" * 400)
    assert spf_record._parse_cached.cache_info().currsize == before


octets = st.binary(max_size=60) | st.text(max_size=20).map(str.encode)
PIECES = (
    "a mx ptr all exists: include: ip4: ip6: redirect= exp= %{ } %{d} %{l1r-} %{p} %% %_ % : / // 24 33 129 - ? ~ + . x "
    "192.0.2.1 ::1 i.example \x00 \u00fc"
)
records = st.lists(st.sampled_from([*PIECES.split(" "), " "]), max_size=25).map("".join)


@given(client=st.sampled_from([CLIENT, "2001:db8::1"]), helo=octets, mail_from=octets, record=records, other=octets)
@example(client=CLIENT, helo=b"", mail_from=b"@", record="", other=b"")
@settings(max_examples=400)
def test_any_octets_give_a_result(client: str, helo: bytes, mail_from: bytes, record: str, other: bytes) -> None:
    def ask(question: Question) -> Answer:
        values = {
            RecordType.TXT: (b"v=spf1 " + record.encode(), other),
            RecordType.MX: (b"10 mx.example.", other),
            RecordType.PTR: (b"mail.example.com.", other),
        }.get(question.record_type, (CLIENT.encode(), other))
        return Answer(AnswerStatus.FOUND, values)

    for found in (
        check_mail_from(client, helo, mail_from + b"@example.com", ask, SpfLimits(wants_terms=True)),
        check_mail_from(client, helo, mail_from, ask, LIMITS),
        check_helo(client, helo, ask, LIMITS),
    ):
        shown = (found.domain, found.reason, found.mechanism, found.explanation, *(t.term for t in found.terms))
        assert all(text.isascii() and (text.isprintable() or not text) for text in shown)
        assert bool(found.explanation) <= (found.result is Result.FAIL)


# Beside pyspf's own evaluation, where the two mean the same: names that exist, no redirect at the limit.
WORLD = """
a.example A 192.0.2.1
b.example A 198.51.100.1
example.com A 198.51.100.2
a.example AAAA 2001:db8::1
example.com MX 10 a.example
b.example MX 10 b.example
pass.example TXT v=spf1 +all
fail.example TXT v=spf1 -all
soft.example TXT v=spf1 a:a.example ~all
bad.example TXT v=spf1 moo
silent.example TEMPFAIL
1.2.0.192.in-addr.arpa PTR a.example
3.100.51.198.in-addr.arpa PTR b.example
1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa PTR a.example
"""
TERMS = (
    "a mx a:a.example a:b.example/24 a/30 mx:b.example a:silent.example a:none.example a//64 a/33 ptr all all:x "
    "ip4:192.0.2.0/30 ip4:198.51.100.1 ip4:1.2.3 ip6:2001:db8::/64 exists exists:%{l}.example exists:%{ir}.example "
    "include:pass.example include:fail.example include:soft.example include:bad.example include:none.example "
    "include:silent.example"
)
qualified_terms = st.builds(str.__add__, st.sampled_from(["", "+", "-", "~", "?"]), st.sampled_from(TERMS.split()))
modifiers = st.sampled_from(
    ["redirect=pass.example", "redirect=fail.example", "redirect=none.example", "exp=a.example", "moo=1", ""]
)


@given(
    client=st.sampled_from([CLIENT, "198.51.100.3", "2001:db8::1", "::ffff:192.0.2.1"]),
    local_part=st.sampled_from(["a", "b", "c-d"]),
    terms=st.lists(qualified_terms, max_size=6),
    modifier=modifiers,
)
@settings(max_examples=400)
def test_pyspf_agrees(client: str, local_part: str, terms: list[str], modifier: str) -> None:
    zone = Zone(f"{WORLD}\nexample.com TXT {' '.join(['v=spf1', *terms, modifier])}")
    expected = pyspf_oracle.check_host(client, HELO.decode(), f"{local_part}@example.com", zone)
    found = check_mail_from(client, HELO, f"{local_part}@example.com".encode(), zone, LIMITS)
    assert found.result.value == expected
