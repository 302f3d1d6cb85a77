"""DKIM verification: the RFCs' examples, and a row for every known hole of verifiers, closed.

Every signature of the tables would hold if the verifier looked at nothing but hashes: the rule that the row names refuses it.
"""

from __future__ import annotations

import base64

import pytest

from mailward.auth.body_hash import Canonicalization
from mailward.auth.dkim import ReceivedHeader
from mailward.auth.dkim_verify import (
    MAX_FIELDS,
    Signature,
    body_forms,
    header_verifies,
    parse_signatures,
)
from mailward.auth.keys import PrivateKey, load_private_key
from mailward.auth.signature_field import SINGLETONS
from mailward.model.message import HeaderField
from mailward.model.results import Result
from tests.auth.forge import (
    BODY,
    ED25519,
    NOW,
    RSA,
    RSA_2048,
    Zone,
    dkim_signature,
    dkim_tags,
    record,
)
from tests.auth.messages import FIXTURES, fixture
from tests.auth.received import (
    FAIL,
    FIELDS,
    LIMITS,
    NAME,
    PASS,
    PERMERROR,
    POLICY,
    assert_safe,
    verify_all,
    verify_one,
)

# --- what passes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body_form", ["simple", "relaxed"])
@pytest.mark.parametrize("header_form", ["simple", "relaxed"])
@pytest.mark.parametrize("key", [RSA, RSA_2048, ED25519], ids=["rsa-1024", "rsa-2048", "ed25519"])
def test_a_good_signature_passes(key: PrivateKey, header_form: str, body_form: str) -> None:
    result, zone = verify_one(dkim_tags(c=f"{header_form}/{body_form}", a=key.algorithm.value), key=key)
    assert (result.result, result.reason) == (PASS, "")
    assert (result.signing_domain, result.selector, result.auid) == ("example.com", "sel", "@example.com")
    assert (result.algorithm, result.key_bits) == (key.algorithm.value, key.bits)
    assert zone.asked == [NAME]


@pytest.mark.parametrize(
    ("tags", "last"),
    [
        pytest.param(dkim_tags(c=None), "", id="c= is simple/simple where it is missing"),
        pytest.param(dkim_tags(c="relaxed"), "", id="c= of one word leaves the body simple"),
        pytest.param(dkim_tags(), ";", id="a semicolon at the end"),
        pytest.param(dkim_tags(), " \r\n\t; y=1", id="b= that is not the last tag, with white space around it"),
        pytest.param(dkim_tags(c="simple/simple"), "\r\n ; y=1", id="the same in the simple form"),
        pytest.param(dkim_tags(t=None), "", id="without t="),
        pytest.param(dkim_tags(x=str(NOW + 1)), "", id="not yet expired"),
        pytest.param(dkim_tags(t=str(NOW - 900), x=str(NOW - 299)), "", id="expired within the clock skew"),
        pytest.param(dkim_tags(t=str(NOW + 299)), "", id="from the future within the clock skew"),
        pytest.param(dkim_tags(q="dns/txt"), "", id="q= as it is"),
        pytest.param(dkim_tags(q="x/y : dns/txt"), "", id="q= with another method, too"),
        pytest.param(dkim_tags(i="joe@mail.example.com"), "", id="i= below d="),
        pytest.param(dkim_tags(i="=6Aoe=40x@EXAMPLE.com"), "", id="i= in quoted-printable and capitals"),
        pytest.param(
            dkim_tags(h="From : to:SUBJECT:\r\n\t date :x-none:x-none"), "", id="h= with white space, absent fields"
        ),
        pytest.param(dkim_tags(h="from:from:subject:subject:to:to:cc"), "", id="oversigned"),
        pytest.param(dkim_tags(h="from:dkim-signature"), "", id="h= names DKIM-Signature: never the field itself"),
        pytest.param(dkim_tags(l=str(len(BODY) - 4)), "", id="l= that covers the whole body"),
        pytest.param(dkim_tags(z="From:x|To:y", unknown="1"), "", id="unknown tags"),
        pytest.param(dkim_tags(s="a.b_c"), "", id="a selector of two labels and an underscore"),
    ],
)
def test_forms_of_good_signatures(tags: dict[str, str], last: str) -> None:
    zone = Zone({f"{tags['s']}._domainkey.example.com": record(RSA)})
    field = dkim_signature(FIELDS, BODY, RSA, tags, last=last)
    (result,) = verify_all([field, *FIELDS], BODY, zone)
    assert (result.result, result.reason) == (PASS, "")


def test_white_space_before_a_colon_makes_no_other_field() -> None:
    fields = [HeaderField(b"From \t", b" Joe <joe@example.com>") if f.name == b"From" else f for f in FIELDS]
    for form in ("simple", "relaxed"):
        assert verify_one(dkim_tags(c=form), fields=fields)[0].result is PASS


def test_another_signature_can_be_signed() -> None:
    inner = dkim_signature(FIELDS, BODY, RSA, dkim_tags(d="inner.example"))
    for names in ("from:dkim-signature", "from:dkim-signature:dkim-signature"):
        outer = dkim_signature([inner, *FIELDS], BODY, RSA, dkim_tags(h=names))
        zone = Zone({NAME: record(RSA), "sel._domainkey.inner.example": record(RSA)})
        assert [r.result for r in verify_all([outer, inner, *FIELDS], BODY, zone)] == [PASS, PASS]
        changed = inner._replace(raw_value=inner.raw_value.replace(b"v=1", b"v=1; y=2"))
        assert verify_all([outer, changed, *FIELDS], BODY, zone)[0].result is FAIL


# --- the RFCs' examples --------------------------------------------------------------------------------------------

RFC_8463_ZONE = {
    "brisbane._domainkey.football.example.com": "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    "test._domainkey.football.example.com": (
        "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Q"
        "vx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB"
    ),
}


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_rfc_8463_appendix_a(chunk: int) -> None:
    fields, body = fixture("rfc8463-a.eml")
    results = verify_all(fields, body, Zone(RFC_8463_ZONE), chunk=chunk)
    assert [(r.result, r.selector, r.algorithm) for r in results] == [
        (PASS, "brisbane", "ed25519-sha256"),
        (PASS, "test", "rsa-sha256"),
    ]


def test_rfc_6376_appendix_a() -> None:
    fields, body = fixture("rfc6376-a.eml")
    key = load_private_key((FIXTURES / "rfc6376-key.pem").read_bytes())
    (result,) = verify_all(
        fields, body, Zone({"brisbane._domainkey.example.com": key.record}), ["football.example.com"]
    )
    assert (result.result, result.reason) == (PASS, "")
    assert (result.auid, result.signature_prefix) == ("joe@football.example.com", "AuUoFEfD")


# A: <SP> X <CRLF>, B <SP> : <SP> Y <HTAB> <CRLF> <HTAB> Z <SP> <SP> <CRLF>; the example's body is in test_body_hash.py.
RFC_FIELDS = [HeaderField(b"A", b" X"), HeaderField(b"B ", b" Y\t\r\n\tZ  ")]


@pytest.mark.parametrize(
    ("form", "canonical"),
    [
        pytest.param(Canonicalization.RELAXED, b"a:X\r\nb:Y Z\r\n", id="relaxed"),
        pytest.param(Canonicalization.SIMPLE, b"A: X\r\nB : Y\t\r\n\tZ  \r\n", id="simple"),
    ],
)
def test_rfc_6376_section_3_4_5(form: Canonicalization, canonical: bytes) -> None:
    header = ReceivedHeader(RFC_FIELDS)
    assert header.signed([b"a", b"b"], form, b"dkim-signature", 0) == canonical


# --- the signature field -------------------------------------------------------------------------------------------

LONG_NAME = ".".join(["a" * 60] * 4)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        *[pytest.param(dkim_tags(**{tag: None}), tag, id=f"without {tag}=") for tag in ("v", "a", "d", "s", "h")],
        pytest.param(dkim_tags(v="2"), "v=", id="another version"),
        pytest.param(dkim_tags(v="1.0"), "v=", id="1.0 is not 1"),
        pytest.param(dkim_tags(a="rsa-sha1"), "rsa-sha1", id="rsa-sha1"),
        pytest.param(dkim_tags(a="rsa-md5"), "a=", id="an unknown algorithm"),
        pytest.param(dkim_tags(h="to:subject:date"), "From", id="From is not signed"),
        pytest.param(dkim_tags(h="xfrom:from-x:to"), "From", id="names that only look like From"),
        pytest.param(dkim_tags(h=""), "h=", id="nothing is signed"),
        pytest.param(dkim_tags(h="from" + ":x" * 1000), "more than 1000 items", id="h= of too many items"),
        pytest.param(dkim_tags(c="nofws/relaxed"), "c=", id="an unknown canonicalization"),
        pytest.param(dkim_tags(c="relaxed/"), "c=", id="half a canonicalization"),
        pytest.param(dkim_tags(q="http/json"), "q=", id="a key that is not in the DNS"),
        pytest.param(dkim_tags(d="com"), "d=", id="d= is a top-level domain"),
        pytest.param(dkim_tags(d=""), "d=", id="d= is empty"),
        pytest.param(dkim_tags(d="example.com."), "d=", id="d= ends with a dot"),
        pytest.param(dkim_tags(d="example.net(.example.com"), "d=", id="d= with a parenthesis"),
        pytest.param(dkim_tags(d='"example.com'), "d=", id="d= with a quote"),
        pytest.param(dkim_tags(d="example.com\0.evil.example"), "d=", id="d= with a NUL"),
        pytest.param(dkim_tags(d="=?utf-8?q?example.com?="), "d=", id="d= is an encoded word"),
        pytest.param(dkim_tags(d="exa mple.com"), "d=", id="d= with a space"),
        pytest.param(dkim_tags(d="example.com\r\n\t.evil.example"), "d=", id="d= with a fold"),
        pytest.param(dkim_tags(d="a" * 64 + ".example"), "d=", id="d= with a label of 64 octets"),
        pytest.param(dkim_tags(d=LONG_NAME, s="b" * 30), "longer together", id="s= and d= too long together"),
        pytest.param(dkim_tags(s="sel(.evil"), "s=", id="s= with a parenthesis"),
        pytest.param(dkim_tags(s='s"el'), "s=", id="s= with a quote"),
        pytest.param(dkim_tags(s="sel\0"), "s=", id="s= with a NUL"),
        pytest.param(dkim_tags(s="=?utf-8?q?sel?="), "s=", id="s= is an encoded word"),
        pytest.param(dkim_tags(s="sel..x"), "s=", id="s= with an empty label"),
        pytest.param(dkim_tags(i="joe@notexample.com"), "i=", id="i= only ends like d="),
        pytest.param(dkim_tags(d="mail.example.com", i="joe@example.com"), "i=", id="i= above d="),
        pytest.param(dkim_tags(i="joe"), "i=", id="i= without a domain"),
        pytest.param(dkim_tags(i="joe=4@example.com"), "i=", id="i= is no quoted-printable"),
        pytest.param(dkim_tags(t=str(NOW + 301)), "future", id="signed in the future"),
        pytest.param(dkim_tags(t="yesterday"), "t=", id="t= is no number"),
        pytest.param(dkim_tags(t="1" * 13), "t=", id="t= of 13 digits"),
        pytest.param(dkim_tags(t="-5"), "t=", id="t= is negative"),
        pytest.param(dkim_tags(t=str(NOW - 900), x=str(NOW - 301)), "expired", id="expired"),
        pytest.param(dkim_tags(t=None, x=str(NOW - 301)), "expired", id="expired, without t="),
        pytest.param(dkim_tags(x=str(NOW)), "x= is not after t=", id="x= is t="),
        pytest.param(dkim_tags(x=""), "x=", id="x= is empty"),
        pytest.param(dkim_tags(x="9" * 13), "x=", id="x= of 13 digits"),
        pytest.param(dkim_tags(l=""), "l=", id="l= is empty"),
        pytest.param(dkim_tags(l="-1"), "l=", id="l= is negative"),
        pytest.param(dkim_tags(l="9" * 77), "l=", id="l= of 77 digits"),
        pytest.param(dkim_tags(bh=""), "bh=", id="bh= is empty"),
        pytest.param(dkim_tags(bh="!!!!"), "bh= is not base64", id="bh= is no base64"),
        pytest.param(dkim_tags(bh=base64.b64encode(b"x" * 20).decode()), "bh=", id="bh= is a SHA-1"),
        pytest.param(dkim_tags(bh=base64.b64encode(b"x" * 40_000).decode()), "no tag list", id="bh= of 50 kB"),
        pytest.param(dkim_tags(b="!!!!"), "b= is not base64", id="b= is no base64"),
        pytest.param(dkim_tags(b=base64.b64encode(b"x" * 1025).decode()), "b=", id="b= longer than any key makes"),
    ],
)
def test_what_cannot_be_a_signature_costs_no_question(tags: dict[str, str], reason: str) -> None:
    zone = Zone({f"{tags.get('s', 'sel')}._domainkey.{tags.get('d', 'example.com')}": record(RSA), NAME: record(RSA)})
    field = dkim_signature(FIELDS, BODY, RSA, tags)
    (result,) = verify_all([field, *FIELDS], BODY, zone)
    assert result.result is PERMERROR
    assert reason in result.reason
    assert zone.asked == []
    assert_safe(result)


@pytest.mark.parametrize(
    "raw_value",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b" v=1; v=1;", id="a tag twice"),
        pytest.param(
            b" v=1; a=rsa-sha256; b=aaaa; d=example.com; s=sel; h=from; bh=aaaa; d=evil.example", id="d= twice"
        ),
        pytest.param(b" nonsense", id="no tags"),
        pytest.param(b" v=1; b=", id="hardly any"),
        pytest.param(b"\xff\xfe v=1", id="octets that are no UTF-8"),
        pytest.param(b" v=1; d=\xff.example.com; s=\xc3", id="names that are no UTF-8"),
        pytest.param(b" v=1;" + b"\r\n\t" * 33_000, id="100 kB of folds"),
        pytest.param(b" v=1;" + b" " * 50_000 + b"b=aaaa", id="50 kB of spaces"),
        pytest.param(b" v=1; h=" + b"from:" * 30_000, id="h= of 30,000 items"),
    ],
)
def test_a_malformed_field_is_a_permerror(raw_value: bytes) -> None:
    zone = Zone({})
    (result,) = verify_all([HeaderField(b"DKIM-Signature", raw_value), *FIELDS], BODY, zone)
    assert result.result is PERMERROR
    assert zone.asked == []
    assert_safe(result)


@pytest.mark.parametrize(
    ("auid", "shown"),
    [
        ("joe@example.com", "joe@example.com"),
        ("@Example.COM", "@example.com"),
        ("j=6F\r\n e@mail.\r\n\texample.com", "joe@mail.example.com"),
        ("=22a b=22@example.com", "@example.com"),
        ("a=28b=29@example.com", "@example.com"),
        ("=00@example.com", "@example.com"),
        ("j\u00f6rg@example.com", "@example.com"),
        ("a=\r\n b@example.com", None),
        ("joe@evil.example=40example.com", "@example.com"),
    ],
)
def test_auid_is_shown_only_where_it_is_plain(auid: str, shown: str | None) -> None:
    result, _ = verify_one(dkim_tags(i=auid))
    assert result.auid == (shown or "")
    assert result.result is (PASS if shown else PERMERROR)


def test_what_is_known_of_a_refused_signature_is_told() -> None:
    result, _ = verify_one(dkim_tags(a="rsa-sha1", i="joe@example.com"))
    assert (result.signing_domain, result.selector, result.auid) == ("example.com", "sel", "joe@example.com")
    assert result.algorithm == "rsa-sha1"
    assert len(result.signature_prefix) == 8


def test_u_labels_are_asked_as_a_labels_and_hashed_as_they_stand() -> None:
    """RFC 8616 4."""
    tags = dkim_tags(d="b\u00fccher.example", s="sch\u00f6n", i="joe@mail.b\u00fccher.example")
    zone = Zone({"xn--schn-7qa._domainkey.xn--bcher-kva.example": record(RSA)})
    field = dkim_signature(FIELDS, BODY, RSA, tags)
    (result,) = verify_all([field, *FIELDS], BODY, zone)
    assert (result.result, result.signing_domain) == (PASS, "xn--bcher-kva.example")
    assert (result.selector, result.auid) == ("xn--schn-7qa", "joe@mail.xn--bcher-kva.example")


# --- the body ------------------------------------------------------------------------------------------------------


def test_a_changed_body_costs_no_question_and_its_header_is_evidence() -> None:
    result, zone = verify_one(signed_body=BODY, body=BODY + b"-- \r\na list's footer\r\n")
    assert (result.result, result.is_body_changed, zone.asked) == (FAIL, True, [])
    field = dkim_signature(FIELDS, BODY, RSA, dkim_tags())
    for fields, verifies in ((FIELDS, True), ([*FIELDS[:3], HeaderField(b"Subject", b" other"), *FIELDS[4:]], False)):
        header = ReceivedHeader([field, *fields])
        (signature,) = parse_signatures(header, [], LIMITS, NOW)
        assert isinstance(signature, Signature)
        assert header_verifies(signature, header, Zone({NAME: record(RSA)}).ask, LIMITS) is verifies
        assert not header_verifies(signature, header, Zone({}).ask, LIMITS)


def test_a_header_with_an_added_field_is_no_evidence() -> None:
    header = ReceivedHeader(
        [dkim_signature(FIELDS, BODY, RSA, dkim_tags()), HeaderField(b"Subject", b" Evil"), *FIELDS]
    )
    (signature,) = parse_signatures(header, [], LIMITS, NOW)
    assert isinstance(signature, Signature)
    assert not header_verifies(signature, header, Zone({NAME: record(RSA)}).ask, LIMITS)


@pytest.mark.parametrize(
    ("limit", "appended", "result", "reason"),
    [
        pytest.param(0, b"", POLICY, "l= leaves", id="l=0 signs no body at all"),
        pytest.param(len(BODY) - 5, b"", POLICY, "l= leaves", id="one octet is unsigned"),
        pytest.param(len(BODY) - 4, b"more\r\n", POLICY, "l= leaves", id="text appended behind what l= covers"),
        pytest.param(len(BODY) - 4, b"\r\n\r\n", PASS, "", id="only empty lines appended, which no form keeps"),
        pytest.param(len(BODY), b"", FAIL, "shorter than l=", id="l= larger than the body"),
        pytest.param(10**75, b"", FAIL, "shorter than l=", id="l= of 76 digits"),
    ],
)
def test_body_length_limits(limit: int, appended: bytes, result: Result, reason: str) -> None:
    found, _ = verify_one(dkim_tags(l=str(limit)), signed_body=BODY, body=BODY + appended)
    assert found.result is result
    assert reason in found.reason
    assert found.is_body_changed is (result is not PASS)


def test_a_limited_signature_that_is_wrong_is_a_fail_and_not_policy() -> None:
    result, _ = verify_one(dkim_tags(l="10"), signed_body=BODY, body=b"X" + BODY)
    assert result.result is FAIL


def test_each_distinct_body_form_is_hashed_once() -> None:
    tags = [
        dkim_tags(),
        dkim_tags(d="b.example"),
        dkim_tags(c="simple"),
        dkim_tags(l="5"),
        dkim_tags(l="5", d="c.example"),
    ]
    fields = [dkim_signature(FIELDS, BODY, RSA, one) for one in tags]
    signatures = parse_signatures(ReceivedHeader([*fields, *FIELDS]), [], LIMITS, NOW)
    relaxed, simple = Canonicalization.RELAXED, Canonicalization.SIMPLE
    assert body_forms(signatures) == {(relaxed, None), (simple, None), (relaxed, 5)}


# --- the header ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shown", SINGLETONS.values())
@pytest.mark.parametrize("at", [0, 99], ids=["on top", "at the bottom"])
def test_replay_with_an_added_field(shown: str, at: int) -> None:
    name = shown.encode()
    fields = [*[field for field in FIELDS if field.name != name], HeaderField(name, b" joe@example.com")]
    every = ":".join(SINGLETONS[key] for key in SINGLETONS)
    added = list(fields)
    added.insert(at, HeaderField(name.upper(), b" evil@example.net"))
    result, _ = verify_one(dkim_tags(h=every), signed_fields=fields, fields=added)
    if at == 0:  # the one at the bottom is the signed one: the signature holds, and says too little
        assert (result.result, result.reason) == (POLICY, f"a second {shown} field is not signed")
    else:
        assert result.result is FAIL
    oversigned, _ = verify_one(dkim_tags(h=f"{every}:{shown}"), signed_fields=fields, fields=added)
    assert oversigned.result is FAIL


def test_an_added_field_with_white_space_before_its_colon_is_seen() -> None:
    fields = [HeaderField(b"From ", b" evil@example.net"), *FIELDS]
    assert verify_one(signed_fields=FIELDS, fields=fields)[0].result is POLICY


@pytest.mark.parametrize(
    ("names", "result"),
    [
        pytest.param("from:to", PASS, id="a field that is not signed at all may stand twice"),
        pytest.param("from:to:subject:subject", PASS, id="both are signed"),
    ],
)
def test_repeated_fields_that_are_no_replay(names: str, result: Result) -> None:
    fields = [HeaderField(b"Subject", b" another"), *FIELDS]
    assert verify_one(dkim_tags(h=names), fields=fields)[0].result is result


def test_a_changed_field_is_a_fail() -> None:
    fields = [HeaderField(b"To", b" somebody@example.net") if field.name == b"To" else field for field in FIELDS]
    result, _ = verify_one(signed_fields=FIELDS, fields=fields)
    assert (result.result, result.is_body_changed, result.key_bits) == (FAIL, False, 1024)


# --- several signatures --------------------------------------------------------------------------------------------


def test_more_signatures_than_are_tried() -> None:
    strangers = [dkim_signature(FIELDS, BODY, RSA, dkim_tags(d=f"s{n}.example")) for n in range(9)]
    ours = [dkim_signature(FIELDS, BODY, RSA, dkim_tags(d=d)) for d in ("example.com", "mail.example.com", "a.b.org")]
    zone = Zone({f"sel._domainkey.{d}": record(RSA) for d in ("example.com", "mail.example.com", "a.b.org")})
    results = verify_all([*strangers, *ours, *FIELDS], BODY, zone, ["example.com", "x.a.b.org"])
    assert [r.result for r in results] == [PERMERROR] * 5 + [POLICY] * 4 + [PASS] * 3
    assert [r.position for r in results] == list(range(12))
    assert {r.reason for r in results[5:9]} == {"more than 8 signatures"}
    assert len(zone.asked) == 8


def test_a_body_is_hashed_for_two_lengths_at_most() -> None:
    lengths = [str(n) for n in (3, 4, 5)]
    strangers = [dkim_signature(FIELDS, BODY, RSA, dkim_tags(d="s.example", l=length)) for length in lengths]
    ours = [
        dkim_signature(FIELDS, BODY, RSA, dkim_tags(l=str(len(BODY)))),
        dkim_signature(FIELDS, BODY, RSA, dkim_tags()),
    ]
    parsed = parse_signatures(ReceivedHeader([*strangers, *ours, *FIELDS]), ["example.com"], LIMITS, NOW)
    assert [getattr(one, "reason", "tried") for one in parsed] == [
        "tried",
        *["more than 2 different values of l="] * 2,
        "tried",
        "tried",
    ]
    assert len([form for form in body_forms(parsed) if form.limit is not None]) == 2


def test_what_cannot_be_a_signature_takes_no_place() -> None:
    junk = [HeaderField(b"DKIM-Signature", b" v=1; nonsense")] * 30
    field = dkim_signature(FIELDS, BODY, RSA, dkim_tags())
    results = verify_all([*junk, field, *FIELDS], BODY, Zone({NAME: record(RSA)}), ["other.example"])
    assert results[-1].result is PASS


def test_a_thousand_fields_give_a_hundred_results() -> None:
    fields = [dkim_signature(FIELDS, BODY, RSA, dkim_tags())] * 1000
    zone = Zone({NAME: record(RSA)})
    results = verify_all([*fields, *FIELDS], BODY, zone)
    assert len(results) == MAX_FIELDS
    assert len(zone.asked) == 8


def test_a_message_without_signatures_has_no_results() -> None:
    assert verify_all(FIELDS, BODY, Zone({})) == []
