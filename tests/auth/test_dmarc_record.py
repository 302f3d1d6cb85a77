"""DMARC policy records: the grammar of RFC 9989 4.8, what is discarded for a default, and no octets that are too much."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailward.auth.dmarc_record import MAX_CACHED_RECORD, MAX_RECORD, PolicyRecord, Psd, is_policy_record, parse
from mailward.model.results import Disposition

NONE, QUARANTINE, REJECT = Disposition.NONE, Disposition.QUARANTINE, Disposition.REJECT


@pytest.mark.parametrize(
    ("octets", "is_record"),
    [
        pytest.param(b"v=DMARC1; p=none", True, id="plain"),
        pytest.param(b"v=DMARC1", True, id="version alone"),
        pytest.param(b"v=DMARC1;", True, id="as a report consumer publishes it"),
        pytest.param(b"v \t= \tDMARC1 \t; p=none", True, id="white space around the signs"),
        pytest.param(b"V=DMARC1; p=none", True, id="the tag's name is of any case"),
        pytest.param(b"v=DMARC1;p=none", True, id="no white space"),
        pytest.param(b"v=DMARC1; \xff\x00", True, id="octets behind it do not matter"),
        pytest.param(b"v=dmarc1; p=none", False, id="the version's case matters"),
        pytest.param(b"v=DMARC10; p=none", False, id="another version"),
        pytest.param(b"v=DMARC1.0; p=none", False, id="a point version"),
        pytest.param(b"v=DMARC1 p=none", False, id="no semicolon behind the version"),
        pytest.param(b"v=DMARC1, p=none", False, id="a comma for a semicolon"),
        pytest.param(b"p=none; v=DMARC1", False, id="version not first"),
        pytest.param(b" v=DMARC1; p=none", False, id="white space before the version"),
        pytest.param(b'"v=DMARC1; p=none"', False, id="quotes that went into the record"),
        pytest.param(b"\xef\xbb\xbfv=DMARC1; p=none", False, id="a byte order mark"),
        pytest.param(b"v=DMARC1\n; p=none", False, id="a line feed"),
        pytest.param(b"v=DMARC1\n", False, id="a line feed at the end"),
        pytest.param(b"v=spf1 -all", False, id="SPF"),
        pytest.param(b"v=DKIM1; p=none", False, id="DKIM"),
        pytest.param(b"", False, id="nothing"),
        pytest.param(b"v=" + b" " * 60_000 + b"DMARC2", False, id="sixty thousand spaces"),
    ],
)
def test_a_record_is_known_by_its_version(octets: bytes, is_record: bool) -> None:
    assert is_policy_record(octets) is is_record


@pytest.mark.parametrize(
    ("tags", "policies"),
    [
        pytest.param("p=none", (NONE, NONE, NONE), id="none"),
        pytest.param("p=quarantine", (QUARANTINE,) * 3, id="sp and np default to p"),
        pytest.param("p=reject; sp=none", (REJECT, NONE, NONE), id="np defaults to sp"),
        pytest.param("p=none; sp=quarantine; np=reject", (NONE, QUARANTINE, REJECT), id="all three"),
        pytest.param("p=none; np=reject", (NONE, NONE, REJECT), id="np without sp"),
        pytest.param("np=reject; sp=quarantine; p=none", (NONE, QUARANTINE, REJECT), id="in any order"),
        pytest.param("P=Reject; SP=NONE", (REJECT, NONE, NONE), id="names and values are of any case"),
        pytest.param("p \t= \treject \t", (REJECT,) * 3, id="white space around the signs and at the end"),
        pytest.param(";; p=reject;;", (REJECT,) * 3, id="empty tags"),
        pytest.param(
            "p=reject; x-new=1; pct=0; rf=afrf; ri=1", (REJECT,) * 3, id="unknown and historic tags are ignored"
        ),
        pytest.param("p=reject; adkim; =s; a b=c; \xff\x00=\x01", (REJECT,) * 3, id="what is no tag is ignored"),
        pytest.param("", (NONE,) * 3, id="no p is p=none, without an rua too"),
        pytest.param("sp=reject", (NONE, REJECT, REJECT), id="no p, but sp"),
        pytest.param("p reject", (NONE,) * 3, id="no p where the equals sign is missing"),
        pytest.param("p=reject; v=DMARC2", (REJECT,) * 3, id="a second version is a syntax error in the remainder"),
        pytest.param("p=reject; p=reject", (REJECT,) * 3, id="p said twice alike"),
    ],
)
def test_policies_and_their_defaults(tags: str, policies: tuple[Disposition, ...]) -> None:
    record = parse(b"v=DMARC1; " + tags.encode("latin-1"))
    assert (record.policy, record.subdomain_policy, record.nonexistent_policy) == policies
    assert not record.fault


@pytest.mark.parametrize(
    "tags",
    [
        pytest.param("p=rejected", id="no such policy"),
        pytest.param("p=", id="empty"),
        pytest.param("p=reject rua", id="two words"),
        pytest.param("p=r\xe9ject", id="octets beyond ASCII"),
        pytest.param("p=reject\x00", id="NUL"),
        pytest.param("p=reject; sp=all", id="sp"),
        pytest.param("p=reject; np=all", id="np"),
        pytest.param("p=none; p=reject", id="p said twice, differently"),
        pytest.param("p=reject; sp=none; SP=reject; sp=none", id="sp said twice, differently"),
        pytest.param("p=reject; sp=bad; t=y; np=reject", id="one bad among good ones"),
    ],
)
def test_an_invalid_policy_is_none_with_an_rua_and_no_dmarc_without(tags: str) -> None:
    octets = b"v=DMARC1; " + tags.encode("latin-1")
    without, reporting = parse(octets), parse(octets + b"; rua=mailto:a@example.com")
    assert (without.policy, without.subdomain_policy, without.nonexistent_policy) == (None, None, None)
    assert (reporting.policy, reporting.subdomain_policy, reporting.nonexistent_policy) == (NONE, NONE, NONE)
    assert without.fault
    assert reporting.fault


@pytest.mark.parametrize(
    ("rua", "is_valid"),
    [
        pytest.param("mailto:a@example.com", True, id="mailto"),
        pytest.param("MAILTO:a@example.com", True, id="scheme in capitals"),
        pytest.param("mailto:a@example.com!10m", True, id="obsolete size"),
        pytest.param("mailto:a%2Cb@example.com?subject=x", True, id="percent code and a query"),
        pytest.param("https://example.com/dmarc", True, id="another scheme"),
        pytest.param("nobody , \tmailto:a@example.com", True, id="one good one in a list"),
        pytest.param("a@example.com", False, id="an address is no URI"),
        pytest.param("mailto:", False, id="nobody"),
        pytest.param("mailto:example.com", False, id="no at sign"),
        pytest.param("mailto:@example.com", False, id="no local part"),
        pytest.param("mailto:a@example.com!", False, id="a size without a number"),
        pytest.param("mailto:a!b@example.com", False, id="a bare exclamation mark"),
        pytest.param("mailto:a%2@example.com", False, id="half a percent code"),
        pytest.param("mailto: a@example.com", False, id="a space"),
        pytest.param("mailto:<a@example.com>", False, id="brackets"),
        pytest.param("1http://example.com", False, id="a scheme that begins with a digit"),
        pytest.param("", False, id="empty"),
        pytest.param(",,,", False, id="commas"),
        pytest.param("mailto:a@example.com; rua=mailto:b@example.com", False, id="rua said twice, differently"),
    ],
)
def test_a_reporting_uri_is_valid_or_not(rua: str, is_valid: bool) -> None:
    expected = NONE if is_valid else None
    assert parse(f"v=DMARC1; p=bad; rua={rua}".encode()).policy is expected


@pytest.mark.parametrize(
    ("tags", "policies"),
    [
        pytest.param("t=y; p=reject", (QUARANTINE,) * 3, id="reject becomes quarantine"),
        pytest.param("t=y; p=quarantine", (NONE,) * 3, id="quarantine becomes none"),
        pytest.param("t=y; p=none", (NONE,) * 3, id="none stays none"),
        pytest.param("t=y; p=none; sp=quarantine; np=reject", (NONE, NONE, QUARANTINE), id="sp and np, too"),
        pytest.param("p=reject; t=Y", (QUARANTINE,) * 3, id="a capital"),
        pytest.param("p=reject; t=n", (REJECT,) * 3, id="no"),
        pytest.param("p=reject; t=yes", (REJECT,) * 3, id="an invalid value is the default"),
        pytest.param("p=reject; t=y; t=n", (REJECT,) * 3, id="said twice, differently"),
        pytest.param("p=reject; pct=0", (REJECT,) * 3, id="pct=0 is historic"),
    ],
)
def test_test_mode_is_one_level_lower(tags: str, policies: tuple[Disposition, ...]) -> None:
    record = parse(b"v=DMARC1; " + tags.encode())
    assert (record.policy, record.subdomain_policy, record.nonexistent_policy) == policies


@pytest.mark.parametrize(
    ("tags", "psd", "is_dkim_strict", "is_spf_strict"),
    [
        pytest.param("", Psd.UNKNOWN, False, False, id="defaults"),
        pytest.param("psd=y", Psd.YES, False, False, id="psd=y"),
        pytest.param("psd=N", Psd.NO, False, False, id="psd=n, a capital"),
        pytest.param("psd=u", Psd.UNKNOWN, False, False, id="psd=u"),
        pytest.param("psd=yes", Psd.UNKNOWN, False, False, id="an invalid psd is the default"),
        pytest.param("psd=y; psd=n", Psd.UNKNOWN, False, False, id="psd said twice"),
        pytest.param("adkim=s", Psd.UNKNOWN, True, False, id="adkim"),
        pytest.param("aspf=S; adkim=r", Psd.UNKNOWN, False, True, id="aspf"),
        pytest.param("aspf=strict; adkim=", Psd.UNKNOWN, False, False, id="invalid modes are relaxed"),
    ],
)
def test_other_tags(tags: str, psd: Psd, is_dkim_strict: bool, is_spf_strict: bool) -> None:
    record = parse(b"v=DMARC1; p=none; " + tags.encode())
    assert (record.psd, record.is_dkim_strict, record.is_spf_strict) == (psd, is_dkim_strict, is_spf_strict)


def test_a_record_longer_than_anybody_needs_is_not_applied() -> None:
    longest = b"v=DMARC1; p=reject; x=".ljust(MAX_RECORD, b"y")
    assert parse(longest).policy is REJECT
    too_long = parse(longest + b"y")
    assert too_long.policy is None
    assert "too long" in too_long.fault
    assert len(too_long.text) < MAX_RECORD


def test_only_short_records_are_remembered() -> None:
    short = b"v=DMARC1; p=reject; x=".ljust(MAX_CACHED_RECORD, b"y")
    assert parse(short) is parse(bytes(bytearray(short)))
    long = short + b"y"
    assert parse(long) is not parse(long)
    assert parse(long) == parse(bytes(bytearray(long)))


_PIECES = st.sampled_from(
    [
        b"v",
        b"p",
        b"sp",
        b"np",
        b"psd",
        b"t",
        b"adkim",
        b"rua",
        b"=",
        b";",
        b" ",
        b"reject",
        b"none",
        b"y",
        b"mailto:a@b",
        b"\xff",
    ]
)


@given(st.binary(max_size=300) | st.lists(_PIECES, max_size=60).map(b"".join))
def test_no_octets_make_it_stumble(rest: bytes) -> None:
    assert is_policy_record(rest) in (True, False)
    record = parse(b"v=DMARC1;" + rest)
    assert isinstance(record, PolicyRecord)
    assert record.text.isascii()
    assert record.text.isprintable()
    assert (record.policy is None) == (record.subdomain_policy is None) == (record.nonexistent_policy is None)
    assert record.fault or record.policy is not None
