"""Authentication-Results: ours says what was found out and nothing else, forged ones go, a sealer's is read for certain."""

from __future__ import annotations

import re
from dataclasses import replace

import authres
import pytest
from authres.core import AuthenticationResult
from hypothesis import given
from hypothesis import strategies as st

from mailward.auth.authres import (
    MAX_DKIM_RESULTS,
    MAX_FIELDS_READ,
    forged_fields,
    format_authenticated,
    format_none,
    format_results,
    passed_author_domains,
)
from mailward.model.message import HeaderField
from mailward.model.results import (
    ArcResult,
    Authors,
    Disposition,
    DkimResult,
    DmarcResult,
    Evaluation,
    IprevResult,
    Result,
    SpfIdentity,
    SpfResult,
)

OWN_ID = "mx.example.net"
SIGNATURE = DkimResult(
    Result.PASS,
    signing_domain="example.com",
    selector="2026a",
    auid="@example.com",
    algorithm="rsa-sha256",
    signature_prefix="aB/+cdef",
)
EVALUATION = Evaluation(
    authors=Authors(("example.com",)),
    iprev=IprevResult(Result.PASS, "2001:db8::1", "mx.example.com"),
    spf_helo=SpfResult(Result.NONE, SpfIdentity.HELO, "mx.example.com"),
    spf_mailfrom=SpfResult(Result.PASS, SpfIdentity.MAILFROM, "bounces.example.com"),
    dkim=(SIGNATURE,),
    arc=ArcResult(Result.NONE),
    dmarc=(),
    worst_dmarc=DmarcResult(Result.PASS, "example.com", policy=Disposition.REJECT, aligned=("dkim=example.com",)),
)

# ---- two readers that are not ours ----

_VALUE = r"(?:[A-Za-z0-9!#$%&'*+.^_`{|}~-]+|[A-Za-z0-9.+_-]*@[A-Za-z0-9._-]+|\"(?:[ !#-\[\]-~]|\\[ -~])+\")"
_RESULT = re.compile(
    rf"[a-z]+=[a-z]+(?: reason=\"(?:[ !#-\[\]-~]|\\[ -~])+\")?(?: (?:smtp|header|policy)\.[a-z]+={_VALUE})*"
)
_PARTS = re.compile(r"(?:[^;\"]|\"(?:[^\"\\]|\\.)*\")+")


def by_the_grammar(raw_value: str) -> list[str]:
    """Return the results of a field, read by the letter of RFC 8601 2.2 (without comments: we write none)."""
    lines = ("Authentication-Results:" + raw_value).split("\r\n")
    assert all(line.isascii() and line.isprintable() and line.strip() for line in lines)
    assert all(line.startswith(" ") for line in lines[1:])
    assert all(len(line) <= 78 or " " not in line[1:] for line in lines[1:])
    authserv_id, *results = _PARTS.findall(raw_value.replace("\r\n ", " "))
    assert authserv_id == " " + OWN_ID
    results = [result.removeprefix(" ") for result in results]
    assert results == ["none"] or all(_RESULT.fullmatch(result) for result in results), results
    return results


def by_the_library(raw_value: str) -> list[AuthenticationResult]:
    header = "Authentication-Results:" + raw_value.replace("\r\n ", " ")
    parsed = authres.all_features().parse(header)
    assert parsed.authserv_id == OWN_ID
    results: list[AuthenticationResult] = parsed.results
    return results


def told(raw_value: str) -> list[tuple[str, str]]:
    """Return method and result of each result, once both readers agree about them."""
    from_library = [(one.method, one.result) for one in by_the_library(raw_value)]
    in_text = [result.partition(" ")[0].partition("=")[::2] for result in by_the_grammar(raw_value)]
    assert from_library == in_text or (from_library, in_text) == ([], [("none", "")])
    return from_library


# ---- ours ----


def test_the_field_of_a_good_message() -> None:
    assert format_results(OWN_ID, EVALUATION) == (
        " mx.example.net;\r\n"
        " dkim=pass header.d=example.com header.i=@example.com header.s=2026a\r\n"
        ' header.a=rsa-sha256 header.b="aB/+cdef";\r\n'
        " spf=pass smtp.mailfrom=bounces.example.com;\r\n"
        " spf=none smtp.helo=mx.example.com;\r\n"
        " dmarc=pass header.from=example.com policy.dmarc=reject;\r\n"
        " arc=none;\r\n"
        ' iprev=pass policy.iprev="2001:db8::1"'
    )


def test_the_field_of_a_bad_message() -> None:
    evaluation = Evaluation(
        authors=Authors(()),
        iprev=IprevResult(Result.PERMERROR, "192.0.2.1", reason="no PTR"),
        spf_helo=SpfResult(Result.NONE, SpfIdentity.HELO),
        spf_mailfrom=SpfResult(Result.NONE, SpfIdentity.MAILFROM, reason="no domain"),
        dkim=(),
        arc=ArcResult(Result.FAIL, "seal 1 does not verify"),
        dmarc=(),
        worst_dmarc=DmarcResult(Result.FAIL, "", "no author domain"),
    )
    value = format_results(OWN_ID, evaluation, dmarc_reason="trusted-forwarder: network; not applied")
    assert by_the_grammar(value) == [
        "dkim=none",
        'spf=none reason="no domain"',
        'dmarc=fail reason="no author domain, trusted-forwarder: network, not applied"',
        'arc=fail reason="seal 1 does not verify"',
        'iprev=permerror reason="no PTR" policy.iprev=192.0.2.1',
    ]
    assert len(told(value)) == 5


def test_one_author_passing_does_not_stand_beside_another_failing() -> None:
    failing = DmarcResult(Result.FAIL, "bank.example", policy=Disposition.REJECT)
    passing = DmarcResult(Result.PASS, "evil.example", policy=Disposition.NONE)
    value = format_results(OWN_ID, replace(EVALUATION, dmarc=(passing, failing), worst_dmarc=failing))
    assert [result for method, result in told(value) if method == "dmarc"] == ["fail"]
    assert "dmarc=fail header.from=bank.example policy.dmarc=reject" in by_the_grammar(value)


def test_each_signature_has_its_result_in_the_order_of_the_message() -> None:
    failed = replace(SIGNATURE, result=Result.FAIL, reason="the body was changed", signing_domain="list.example")
    value = format_results(OWN_ID, replace(EVALUATION, dkim=(failed, SIGNATURE)))
    first, second = by_the_library(value)[:2]
    assert (first.result, first.reason, first.header_d) == ("fail", "the body was changed", "list.example")
    assert (second.result, second.reason, second.header_d) == ("pass", None, "example.com")
    properties = {(one.type, one.name): one.value for one in second.properties}
    assert properties == {
        ("header", "d"): "example.com",
        ("header", "i"): "@example.com",
        ("header", "s"): "2026a",
        ("header", "a"): "rsa-sha256",
        ("header", "b"): "aB/+cdef",
    }


def test_of_too_many_signatures_those_that_count_are_told_first() -> None:
    failed = [replace(SIGNATURE, result=Result.FAIL, signing_domain=f"f{n}.example") for n in range(20)]
    passed = [replace(SIGNATURE, signing_domain=f"p{n}.example") for n in range(3)]
    value = format_results(OWN_ID, replace(EVALUATION, dkim=(*failed, *passed, SIGNATURE)))
    shown = [one.header_d for one in by_the_library(value) if one.method == "dkim"]
    expected = ["example.com", "p0.example", "p1.example", "p2.example", *(f"f{n}.example" for n in range(20))]
    assert shown == expected[:MAX_DKIM_RESULTS]


def test_the_longest_names_leave_the_field_below_8_kb() -> None:
    name = ".".join(["a" * 62] * 4)
    longest = replace(SIGNATURE, reason="r" * 999, signing_domain=name, selector=name, auid="a" * 64 + "@" + name)
    spf = SpfResult(Result.PERMERROR, SpfIdentity.MAILFROM, name, reason="r " * 999)
    value = format_results(
        OWN_ID,
        replace(
            EVALUATION,
            dkim=(longest,) * 100,
            spf_helo=spf,
            spf_mailfrom=spf,
            worst_dmarc=DmarcResult(Result.PERMERROR, name, "r" * 999),
        ),
        dmarc_reason="r" * 999,
    )
    assert len(value) < 8_000
    assert {method for method, _ in told(value)} == {"dkim", "spf", "dmarc", "arc", "iprev"}


@pytest.mark.parametrize(
    "auid",
    [
        pytest.param("dmarc=pass@example.com", id="a result as local part"),
        pytest.param('"a;dmarc=pass"@example.com', id="a quoted local part"),
        pytest.param("a)@example.com", id="parenthesis"),
        pytest.param("@example.com\r\n dmarc=pass", id="fold"),
    ],
)
def test_an_auid_that_a_careless_reader_could_take_for_a_result_is_left_out(auid: str) -> None:
    value = format_results(OWN_ID, replace(EVALUATION, dkim=(replace(SIGNATURE, auid=auid),)))
    assert value == format_results(OWN_ID, EVALUATION).replace(
        " header.i=@example.com header.s=2026a\r\n header.a=rsa-sha256 ",
        " header.s=2026a header.a=rsa-sha256\r\n ",
    )


@pytest.mark.parametrize(
    ("login", "mail_from_domain", "result"),
    [
        ("alice", "example.com", "auth=pass smtp.auth=alice smtp.mailfrom=example.com"),
        ("alice@example.com", "", "auth=pass smtp.auth=alice@example.com"),
        ("al ice;@x", "example.com", 'auth=pass smtp.mailfrom=example.com smtp.auth="al ice,@x"'),
        ('a"\\b', "", 'auth=pass smtp.auth="a\'/b"'),
        ("j\u00f6rg\r\n", "", 'auth=pass smtp.auth="j?rg??"'),
        (" ", "example.com", 'auth=pass smtp.mailfrom=example.com smtp.auth="?"'),
    ],
    ids=["name", "address", "separators", "quotes", "control characters and UTF-8", "nothing visible"],
)
def test_the_field_of_an_authenticated_client(login: str, mail_from_domain: str, result: str) -> None:
    value = format_authenticated(OWN_ID, login, mail_from_domain)
    assert by_the_grammar(value) == [result]
    assert told(value) == [("auth", "pass")]


def test_the_field_where_nothing_was_asked() -> None:
    assert format_none(OWN_ID) == " mx.example.net; none"
    assert told(format_none(OWN_ID)) == []


@pytest.mark.parametrize("authserv_id", ["", "a b", "a;b", "a\r\nb", "b\u00fccher.example", 'a"', "(a)", "a\x00"])
def test_an_authserv_id_that_is_no_name_is_refused(authserv_id: str) -> None:
    with pytest.raises(ValueError, match="authserv_id"):
        format_none(authserv_id)


NASTY = st.text(st.sampled_from('ab. "\\();=/@\r\n\x00\x7f\u00e9\u2028\udcff') | st.characters(), max_size=40)
NASTY |= st.sampled_from(["example.com", "@example.com", "a@b@c", "x; dmarc=pass", "r" * 500, "x " * 200])
SPF = st.builds(SpfResult, result=..., identity=..., domain=NASTY, reason=NASTY)
DKIM = st.builds(
    DkimResult,
    result=...,
    reason=NASTY,
    signing_domain=NASTY,
    selector=NASTY,
    auid=NASTY,
    algorithm=NASTY,
    signature_prefix=NASTY,
)
DMARC = st.builds(DmarcResult, result=..., author_domain=NASTY, reason=NASTY, policy=...)
EVALUATIONS = st.builds(
    Evaluation,
    authors=st.just(Authors(())),
    iprev=st.builds(IprevResult, result=..., address=NASTY, name=NASTY, reason=NASTY),
    spf_helo=SPF,
    spf_mailfrom=SPF,
    dkim=st.lists(DKIM, max_size=4).map(tuple),
    arc=st.builds(ArcResult, result=..., reason=NASTY),
    dmarc=st.just(()),
    worst_dmarc=DMARC,
)


@given(EVALUATIONS, NASTY)
def test_any_text_gives_a_field_with_exactly_our_results(evaluation: Evaluation, dmarc_reason: str) -> None:
    expected = [("dkim", one.result.value) for one in evaluation.dkim] or [("dkim", "none")]
    expected.append(("spf", evaluation.spf_mailfrom.result.value))
    if evaluation.spf_helo.domain:
        expected.append(("spf", evaluation.spf_helo.result.value))
    expected.append(("dmarc", evaluation.worst_dmarc.result.value))
    expected.append(("arc", evaluation.arc.result.value))
    if evaluation.iprev.result is not Result.NONE:
        expected.append(("iprev", evaluation.iprev.result.value))
    assert told(format_results(OWN_ID, evaluation, dmarc_reason=dmarc_reason)) == expected


@given(NASTY, NASTY)
def test_any_login_gives_one_result(login: str, mail_from_domain: str) -> None:
    assert told(format_authenticated(OWN_ID, login, mail_from_domain)) == [("auth", "pass")]


# ---- forged ones ----


def forged(*raw_values: bytes, own: tuple[str, ...] = (OWN_ID,)) -> list[int]:
    return forged_fields([HeaderField(b"Authentication-Results", value) for value in raw_values], own)


@pytest.mark.parametrize(
    "raw_value",
    [
        pytest.param(b" mx.example.net; dmarc=pass header.from=bank.example", id="our id"),
        pytest.param(b" MX.Example.NET; none", id="another case"),
        pytest.param(b"mx.example.net;none", id="no space"),
        pytest.param(b" mx.example.net.; none", id="final dot"),
        pytest.param(b"\r\n\tmx.example.net\r\n\t; none", id="folds around it"),
        pytest.param(b" mx.example.net 1; none", id="version 1"),
        pytest.param(b" (c) mx.example.net (d) 1 (e); none", id="comments around it"),
        pytest.param(b' "mx.example.net"; none', id="quoted"),
        pytest.param(b' "m\\x.example\\.net"; none', id="quoted with escapes"),
        pytest.param(b' "mx.example.net" 1; none', id="quoted, with a version"),
        pytest.param("\uff4d\uff58.example.net; none".encode(), id="full-width letters"),
        pytest.param("mx\u3002example\uff0enet; none".encode(), id="other dots"),
        pytest.param("mx.exam\u200dple.net; none".encode(), id="a joiner that one IDNA drops"),
        pytest.param("mx.exam\u00adple.net; none".encode(), id="a soft hyphen"),
        pytest.param(b" xn--mx-.example.net; none", id="an A-label that stands for ASCII"),
        pytest.param(b" second.example.net; none", id="our second id"),
        pytest.param("b\u00fccher.example; none".encode(), id="our third id as U-label"),
        pytest.param("B\u00dcCHER.example; none".encode(), id="its U-label in capitals"),
        pytest.param(b" xn--BCHER-kva.example; none", id="its A-label in capitals"),
    ],
)
def test_a_field_with_an_id_of_ours_goes(raw_value: bytes) -> None:
    assert forged(raw_value, own=(OWN_ID, "Second.example.net", "b\u00fccher.example")) == [1]


@pytest.mark.parametrize(
    "raw_value",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b" ; spf=pass", id="no id"),
        pytest.param(
            b" spf=pass (sender IP is 192.0.2.1) smtp.mailfrom=x.example; dkim=none", id="Office 365's, no id"
        ),
        pytest.param(b" mx.google.com", id="an id and nothing else"),
        pytest.param(b" mx.google.com, mx.example.net; none", id="a comma"),
        pytest.param(b" mx.google.com mx.example.net; none", id="two ids"),
        pytest.param(b" mx.google(c).com; none", id="a comment inside the id"),
        pytest.param(b' "mx".google.com; none', id="half of it quoted"),
        pytest.param(b' "mx.google.com\r\n mx.example.net"; none', id="two ids in quotes"),
        pytest.param(b" mx.google.com 2; none", id="another version"),
        pytest.param(b" mx.google.com 1 1; none", id="two versions"),
        pytest.param(b" mx.google.com v1; none", id="a version that is none"),
        pytest.param(b" (mx.google.com; none", id="a comment that does not end"),
        pytest.param(b' "mx.google.com; none', id="quotes that do not end"),
        pytest.param(b' mx.google.com; spf=pass reason="x', id="quotes that do not end behind the id"),
        pytest.param(b" mx.google.com; spf=pass (x", id="a comment that does not end behind the id"),
        pytest.param(b" mx.google.com); none", id="a comment that never began"),
        pytest.param(b"(" * 1000 + b")" * 1000 + b" mx.google.com; none", id="a thousand nested comments"),
        pytest.param(b" mx.google.com; spf=pass " + b"(" * 1000 + b")" * 1000, id="a thousand behind the id"),
        pytest.param(b" mx.google.com\x00mx.example.net; none", id="NUL"),
        pytest.param(b" mx.google.com; none\x00", id="NUL behind the id"),
        pytest.param(b" mx.google.com\rmx.example.net; none", id="CR"),
        pytest.param(b" mx.g\xf6\xf6gle.com; none", id="no UTF-8"),
        pytest.param(b" mx.google.com; spf=\xff", id="no UTF-8 behind the id"),
        pytest.param("\u00a0mx.google.com; none".encode(), id="a no-break space"),
        pytest.param(b" =?utf-8?q?mx.google.com?=; none", id="an encoded word"),
        pytest.param(b" mx.google.com/mx.example.net; none", id="a slash"),
        pytest.param(b" <mx.google.com>; none", id="angle brackets"),
        pytest.param(b" mx..google.com; none", id="an empty label"),
        pytest.param(b" xn--a.example; none", id="an A-label that is none"),
        pytest.param("stra\u00dfe.example; none".encode(), id="a U-label of two readings"),
        pytest.param(b" " + b"x" * 300 + b"; none", id="longer than any name"),
        pytest.param("".join(map(chr, range(0x4E00, 0x7000))).encode() + b"; none", id="a U-label of 8,704 characters"),
        pytest.param(b" mx.google.com; none" + b" " * 40_000, id="longer than any field"),
    ],
)
def test_a_field_from_which_no_foreign_id_can_be_read_for_certain_goes(raw_value: bytes) -> None:
    assert forged(raw_value) == [1]


@pytest.mark.parametrize(
    "raw_value",
    [
        pytest.param(
            b" mx.google.com; dkim=pass header.b=ab/c== smtp.remote-ip=2001:db8::1;", id="as large ones write"
        ),
        pytest.param(b" mx.microsoft.com 1; spf=pass smtp.mailfrom=x.example", id="with a version"),
        pytest.param(b' "mx.google.com"; none', id="quoted"),
        pytest.param(b" mail.example (amavisd-new); dkim=pass", id="with a comment"),
        pytest.param(b" (mx.example.net;) mx.google.com; none", id="our id in a comment"),
        pytest.param(b" mx.google.com; spf=pass smtp.helo=mx.example.net", id="our name as a value"),
        pytest.param(b" notmx.example.net; none", id="a name that ends like ours"),
        pytest.param(b" example.net; none", id="the domain above ours"),
        pytest.param(b" a.mx.example.net; none", id="a name below ours"),
        pytest.param("b\u00fccher.example; none".encode(), id="a U-label"),
        pytest.param(b" OpenDMARC; dmarc=fail", id="one label"),
    ],
)
def test_a_field_that_is_foreign_for_certain_stays(raw_value: bytes) -> None:
    assert forged(raw_value) == []


def test_numbers_are_counted_among_all_fields_of_the_name_from_the_top() -> None:
    ours, foreign = b" mx.example.net; none", b" mx.google.com; none"
    header = [
        HeaderField(b"Received", b" x"),
        HeaderField(b"Authentication-Results", foreign),
        HeaderField(b"AUTHENTICATION-RESULTS", ours),
        HeaderField(b"ARC-Authentication-Results", b" i=1; mx.example.net; none"),
        HeaderField(b"Authentication-Results-Original", ours),
        HeaderField(b"authentication-results \t", ours),
        HeaderField(b"Authentication-Results", foreign),
        HeaderField(b"Authentication-Results", ours),
    ]
    assert forged_fields(header, (OWN_ID,)) == [2, 3, 5]


def test_sixty_four_forged_fields_are_all_found() -> None:
    assert forged(*[b" mx.example.net; dmarc=pass"] * 64) == list(range(1, 65))


def test_no_number_of_foreign_fields_keeps_us_reading() -> None:
    count = MAX_FIELDS_READ + 50
    assert forged(*[b" mx.google.com; none"] * count) == list(range(MAX_FIELDS_READ + 1, count + 1))


def test_a_message_without_such_fields_has_none_forged() -> None:
    assert forged_fields([HeaderField(b"From", b" a@b.example")], (OWN_ID,)) == []


OCTETS = st.text('mx.exampl;" ()\\=1\r\n\t\u00fc\u200d\x00', max_size=40).map(str.encode) | st.binary(max_size=40)


@given(OCTETS)
def test_any_octets_are_ours_or_foreign(raw_value: bytes) -> None:
    assert forged(raw_value) in ([], [1])


@given(st.text("mMxX.", min_size=1, max_size=6), st.sampled_from([b"%s", b' "%s"', b"(a)%s", b" %s (a) 1", b"\t%s 1"]))
def test_what_the_library_reads_as_ours_never_stays(name: str, written: bytes) -> None:
    raw_value = written % name.encode() + b"; none"
    try:
        read = authres.all_features().parse("Authentication-Results:" + raw_value.decode()).authserv_id
    except authres.AuthResError:
        return
    if read == "mx.x":
        assert forged(raw_value, own=("mx.x",)) == [1]


# ---- a sealer's ----


@pytest.mark.parametrize(
    ("payload", "domains"),
    [
        pytest.param(
            b" i=1; mx.google.com;\r\n       dkim=pass header.i=@gmail.com header.s=20230601 header.b=aB/c+d==;\r\n"
            b"       spf=pass (google.com: domain of b@gmail.com designates 2001:db8::1 as permitted sender)"
            b" smtp.mailfrom=b@gmail.com;\r\n       dmarc=pass (p=NONE sp=QUARANTINE dis=NONE) header.from=gmail.com;\r\n"
            b"       dara=neutral header.i=@x.example",
            ("gmail.com",),
            id="Google",
        ),
        pytest.param(
            b" i=1; mx.microsoft.com 1; spf=pass\r\n smtp.mailfrom=contoso.example; dmarc=pass action=none\r\n"
            b" header.from=contoso.example; dkim=pass header.d=contoso.example; arc=none",
            ("contoso.example",),
            id="Microsoft",
        ),
        pytest.param(
            b" i=2; mx.microsoft.com 1; spf=pass (sender ip is\r\n 192.0.2.1) smtp.rcpttodomain=a.example"
            b" smtp.mailfrom=gmail.com; dmarc=pass\r\n (p=none sp=quarantine pct=100) action=none header.from=gmail.com;"
            b" dkim=pass\r\n (signature was verified) header.d=gmail.com; arc=pass (0 oda=1 ltdi=1\r\n"
            b" spf=[1,1,smtp.mailfrom=gmail.com] dmarc=[1,1,header.from=gmail.com])",
            ("gmail.com",),
            id="Microsoft, second hop",
        ),
        pytest.param(
            b" i=1; mx4.messagingengine.com;\r\n    x-csa=none;\r\n    x-me-sender=none;\r\n    x-ptr=pass"
            b" smtp.helo=m.google.com policy.ptr=m.google.com;\r\n    arc=none (no signatures found);\r\n"
            b"    dkim=pass (2048-bit rsa key sha256) header.d=gmail.com header.i=@gmail.com header.b=ElQTnYvP"
            b" header.a=rsa-sha256 header.s=20161025 x-bits=2048;\r\n    dmarc=pass policy.published-domain-policy=none"
            b" policy.applied-disposition=none (p=none,sp=quarantine,d=none,d.eval=none) policy.policy-from=p"
            b" header.from=gmail.com;\r\n    iprev=pass smtp.remote-ip=2001:db8::1 (m.google.com);\r\n"
            b"    spf=pass smtp.mailfrom=b@gmail.com smtp.helo=m.google.com;\r\n    x-tls=pass smtp.version=TLSv1.2"
            b" smtp.cipher=ECDHE-RSA-AES128-GCM-SHA256 smtp.bits=128/128;\r\n    x-vs=clean score=50 state=0",
            ("gmail.com",),
            id="Fastmail",
        ),
        pytest.param(
            b' i=1;\r\n\tmail.example;\r\n\tdkim=pass header.d=a.example header.s=x header.b="ab/cd+ef";\r\n\tspf=pass'
            b' (mail.example: domain of "b@a.example" designates 192.0.2.1 as permitted sender)'
            b' smtp.mailfrom="b@a.example";\r\n\tdmarc=pass (policy=none) header.from=a.example',
            ("a.example",),
            id="rspamd",
        ),
        pytest.param(
            b" i=1; mx.zohomail.com;\r\n\tdkim=pass  header.i=a.example;\r\n\tspf=pass  smtp.mailfrom=b@a.example;\r\n"
            b"\tdmarc=pass header.from=<b@a.example>",
            ("a.example",),
            id="Zoho",
        ),
        pytest.param(b" mx.example; dmarc=pass header.from=A.Example", ("a.example",), id="without its instance"),
        pytest.param(
            b' "mx.example" 1; dmarc = pass reason="x" header.from = "a.example"', ("a.example",), id="quotes"
        ),
        pytest.param(
            "mx.example; dmarc=pass header.from=b\u00fccher.example".encode(), ("xn--bcher-kva.example",), id="U"
        ),
        pytest.param(b"mx.example; DMARC/1=Pass Header.From=a.example;", ("a.example",), id="case, method's version"),
        pytest.param(
            b"m.example; dmarc=pass header.from=a.example; dmarc=pass header.from=b.example",
            ("a.example", "b.example"),
            id="two authors",
        ),
        pytest.param(EVALUATION, ("example.com",), id="ours"),
    ],
)
def test_passes_of_a_sealer_are_read_as_sealers_write_them(
    payload: bytes | Evaluation, domains: tuple[str, ...]
) -> None:
    if isinstance(payload, Evaluation):
        payload = b" i=3;" + format_results(OWN_ID, payload).encode()
    assert passed_author_domains(payload) == domains


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b" i=1", id="an instance alone"),
        pytest.param(b"mx.example; none", id="none"),
        pytest.param(b"mx.example; dmarc=none header.from=a.example", id="no result"),
        pytest.param(b"mx.example; spf=none (; dmarc=pass header.from=a.example;)", id="in a comment"),
        pytest.param(b'mx.example; spf=none reason="; dmarc=pass header.from=a.example;"', id="in a quoted string"),
        pytest.param(
            b'mx.example; spf=none smtp.mailfrom="\\"; dmarc=pass header.from=a.example; "',
            id="behind an escaped quote",
        ),
        pytest.param(b"mx.example; dmarc=fail (dmarc=pass) header.from=a.example", id="a comment that says pass"),
        pytest.param(b'mx.example; dmarc=fail reason="dmarc=pass" header.from=a.example', id="a reason that says pass"),
        pytest.param(b'mx.example; "dmarc"=pass header.from=a.example', id="a quoted method"),
        pytest.param(b"dmarc=pass header.from=a.example", id="no authserv-id"),
        pytest.param(b" i=1; dmarc=pass header.from=a.example; dmarc=pass header.from=a.example", id="no id behind i="),
        pytest.param(b"mx.example 2; dmarc=pass header.from=a.example", id="another version"),
        pytest.param(b"mx.example; dmarc/2=pass header.from=a.example", id="another version of the method"),
        pytest.param(b"mx.example; dmarc=pass", id="no header.from"),
        pytest.param(b"mx.example; dmarc=pass header.from=", id="an empty header.from"),
        pytest.param(b"mx.example; dmarc=pass header.from=a.example header.from=b.example", id="two in one result"),
        pytest.param(
            b"mx.example; dmarc=pass header.from=a.example; dmarc=fail header.from=a.example", id="pass, then fail"
        ),
        pytest.param(
            b"mx.example; dmarc=fail header.from=a.example; dmarc=pass header.from=a.example", id="fail, then pass"
        ),
        pytest.param(b"mx.example; dmarc=pass fail header.from=a.example", id="two results in one"),
        pytest.param(b"mx.example; dmarc=pass spf=fail, header.from=a.example x", id="a stray word"),
        pytest.param(b"mx.example; dmarc=passed header.from=a.example", id="another word"),
        pytest.param(b"mx.example; dmarc=pass header.from=a.example (", id="a comment that does not end"),
        pytest.param(b'mx.example; dmarc=pass header.from=a.example; x="', id="quotes that do not end"),
        pytest.param(b"mx.example; dmarc=pass header.from=a..example", id="no domain"),
        pytest.param(b"mx.example; dmarc=pass header.from=b@c@a.example", id="two at signs"),
        pytest.param(b'mx.example; dmarc=pass header.from="b@c.example"@a.example', id="a quoted local part"),
        pytest.param(b"mx.example; dmarc=pass header.from=[192.0.2.1]", id="an address literal"),
        pytest.param(b"mx.example; dmarc=pass header.from=a.example\x00", id="NUL"),
        pytest.param(b"mx.example; dmarc=pass header.from=a.ex\xe4mple", id="no UTF-8"),
        pytest.param(b"mx.example; dmarc=pass header.from=a.example;" + b"(" * 1000 + b")" * 1000, id="deep comments"),
        pytest.param(
            b"mx.example" + b"".join(b"; dmarc=pass header.from=%d.example" % n for n in range(11)), id="eleven authors"
        ),
    ],
)
def test_what_a_sealer_does_not_say_for_certain_is_not_said(payload: bytes) -> None:
    assert passed_author_domains(payload) == ()


@given(st.text('dmarc=ps;."\\ ()<>@1\r\nbei/', max_size=60).map(str.encode) | st.binary(max_size=60))
def test_any_octets_give_domains_or_none(octets: bytes) -> None:
    domains = passed_author_domains(b"i=1; mx.example; dmarc=pass header.from=" + octets)
    assert all(re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", domain) for domain in domains)
