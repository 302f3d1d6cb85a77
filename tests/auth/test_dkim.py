"""Tag lists, canonical header fields and key records."""

from __future__ import annotations

import base64

import pytest
from dkim.canonicalization import Relaxed
from hypothesis import given
from hypothesis import strategies as st

from mailward.auth.body_hash import Canonicalization
from mailward.auth.dkim import (
    MAX_TAG_LIST,
    MAX_TAGS,
    MalformedTagList,
    canonical_field,
    compare_record,
    find_publication,
    parse_tags,
)
from mailward.auth.keys import generate_ed25519, generate_rsa
from mailward.model.dns import Answer, AnswerStatus, Question, RecordType
from mailward.model.message import HeaderField
from mailward.model.results import Publication

RSA = generate_rsa(1024)
ED25519 = generate_ed25519()
OTHER = generate_rsa(1024)
P = base64.b64encode(RSA.public_key)

values = st.lists(
    st.sampled_from([b" ", b"\t", b"\r\n ", b"\r\n\t", b"a", b"B:c", b"\xc3\xa9", b"\xff", b"  ", b"="]), max_size=20
).map(b"".join)


@given(name=st.sampled_from([b"Subject", b"X-tEsT", b"From "]), value=values)
def test_relaxed_field_agrees_with_dkimpy(name: bytes, value: bytes) -> None:
    ((expected_name, expected_value),) = Relaxed.canonicalize_headers([(name, value)])
    assert canonical_field(HeaderField(name, value), Canonicalization.RELAXED) == expected_name + b":" + expected_value


@pytest.mark.parametrize(
    ("raw_value", "canonical"),
    [
        pytest.param(b" a\x0bb\x0c", b"x:a\x0bb\x0c\r\n", id="vertical tab and form feed are no white space"),
        pytest.param(b" a\rb", b"x:a\rb\r\n", id="a bare CR is an octet like any other"),
        pytest.param(b"\r\n value", b"x:value\r\n", id="a fold right behind the colon"),
        pytest.param(b" a \r\n\t b ", b"x:a b\r\n", id="a fold between words"),
        pytest.param(b" \x0b  \t a", b"x:\x0b a\r\n", id="white space beside an odd octet"),
        pytest.param(b"", b"x:\r\n", id="no value"),
    ],
)
def test_relaxed_field(raw_value: bytes, canonical: bytes) -> None:
    assert canonical_field(HeaderField(b"X", raw_value), Canonicalization.RELAXED) == canonical


@given(value=values)
def test_simple_field_stays_as_it_is(value: bytes) -> None:
    assert canonical_field(HeaderField(b"X-Y", value), Canonicalization.SIMPLE) == b"X-Y:" + value + b"\r\n"


def test_tags_are_parsed() -> None:
    assert parse_tags(b" v=DKIM1 ; p = a b=;\r\n t=s;") == {b"v": b"DKIM1", b"p": b"a b=", b"t": b"s"}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"v=1; v=1", id="a tag twice"),
        pytest.param(b"v=1; nonsense", id="no equals sign"),
        pytest.param(b"1=v", id="a name that begins with a digit"),
        pytest.param(b"v=" + b"x" * MAX_TAG_LIST, id="too long"),
        pytest.param(b";".join(b"t%d=" % n for n in range(MAX_TAGS + 2)), id="too many tags"),
    ],
)
def test_malformed_tag_lists_are_refused(text: bytes) -> None:
    with pytest.raises(MalformedTagList):
        parse_tags(text)


@given(st.binary(max_size=200))
def test_any_octets_are_a_tag_list_or_refused(text: bytes) -> None:
    try:
        parse_tags(text)
    except MalformedTagList:
        return


@pytest.mark.parametrize(
    ("records", "state", "reason"),
    [
        pytest.param([b"v=DKIM1; k=rsa; p=" + P], Publication.PUBLISHED, "", id="the key"),
        pytest.param([b"p=" + P], Publication.PUBLISHED, "", id="defaults"),
        pytest.param([b"v=DKIM1; p=" + P[:40] + b" \t" + P[40:]], Publication.PUBLISHED, "", id="white space in p="),
        pytest.param(
            [b"v=DKIM1; h=sha1:sha256; s=other:email; p=" + P], Publication.PUBLISHED, "", id="lists that allow it"
        ),
        pytest.param([b"v=DKIM1; x=unknown; p=" + P], Publication.PUBLISHED, "", id="unknown tags are ignored"),
        pytest.param([], Publication.MISSING, "no TXT record", id="no record"),
        pytest.param([b"v=DKIM1; p="], Publication.DIFFERENT, "revoked", id="revoked"),
        pytest.param([b"v=DKIM1"], Publication.DIFFERENT, "no p=", id="no p="),
        pytest.param([b"v=DKIM2; p=" + P], Publication.DIFFERENT, "v=", id="another version"),
        pytest.param([b"v=DKIM1; k=ed25519; p=" + P], Publication.DIFFERENT, "k=", id="another key type"),
        pytest.param([b"v=DKIM1; h=sha1; p=" + P], Publication.DIFFERENT, "h=", id="sha256 not allowed"),
        pytest.param([b"v=DKIM1; s=other; p=" + P], Publication.DIFFERENT, "s=", id="not for email"),
        pytest.param([b"v=DKIM1; p=!!!"], Publication.DIFFERENT, "base64", id="no base64"),
        pytest.param([b"v=DKIM1; p=AAAA"], Publication.DIFFERENT, "not an RSA public key", id="no key"),
        pytest.param([b"garbage"], Publication.DIFFERENT, "tag list", id="no tag list"),
        pytest.param(
            [b"v=DKIM1; p=" + base64.b64encode(OTHER.public_key)],
            Publication.DIFFERENT,
            "another key",
            id="another key",
        ),
        pytest.param([b"p=" + P, b"v=spf1 -all"], Publication.DIFFERENT, "v=", id="one of two records is another"),
    ],
)
def test_record_is_compared_with_the_key(records: list[bytes], state: Publication, reason: str) -> None:
    result = compare_record(tuple(records), RSA)
    assert result.state is state
    assert reason in result.reason


def test_bare_pkcs1_publishes_an_rsa_key_too() -> None:
    from cryptography.hazmat.primitives import serialization

    spki = serialization.load_der_public_key(RSA.public_key)
    pkcs1 = spki.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
    assert compare_record((b"p=" + base64.b64encode(pkcs1),), RSA).state is Publication.PUBLISHED


def test_ed25519_record() -> None:
    assert compare_record((ED25519.record.encode(),), ED25519).state is Publication.PUBLISHED
    assert compare_record((generate_ed25519().record.encode(),), ED25519).state is Publication.DIFFERENT
    assert compare_record((ED25519.record.encode(),), RSA).state is Publication.DIFFERENT


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (Answer(AnswerStatus.FOUND, (RSA.record.encode(),)), Publication.PUBLISHED),
        (Answer(AnswerStatus.NXDOMAIN), Publication.MISSING),
        (Answer(AnswerStatus.NODATA), Publication.MISSING),
        (Answer(AnswerStatus.TEMPFAIL, reason="time-out"), Publication.UNKNOWN),
    ],
    ids=lambda value: value.status.value if isinstance(value, Answer) else "",
)
def test_publication_follows_the_answer(answer: Answer, state: Publication) -> None:
    asked = []

    def ask(question: Question) -> Answer:
        asked.append(question)
        return answer

    assert find_publication("example.com", "2026a", RSA, ask).state is state
    assert asked == [Question("2026a._domainkey.example.com", RecordType.TXT)]
