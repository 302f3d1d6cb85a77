"""DKIM verification of hostile input: any octets give a result, in time that grows with their number."""

from __future__ import annotations

import base64
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailward.auth.dkim import MAX_TAG_LIST
from mailward.auth.keys import PrivateKey
from mailward.auth.signature_field import without_signature
from mailward.model.message import HeaderField
from mailward.model.results import Result
from tests.auth.forge import (
    BODY,
    ED25519,
    NOW,
    RSA,
    Zone,
    dkim_signature,
    dkim_tags,
    record,
)
from tests.auth.received import (
    FAIL,
    FIELDS,
    NAME,
    PERMERROR,
    assert_safe,
    verify_all,
    verify_one,
)

# --- any octets give a result, in time that grows with their number --------------------------------------------------

octets = st.binary(max_size=300)
tag_values = (
    st.sampled_from([b"", b"1", b"from", b"rsa-sha256", b"relaxed/relaxed", b"example.com", b"sel", b"%d" % NOW])
    | octets
)
tag_lists = st.lists(
    st.tuples(
        st.sampled_from([b"v", b"a", b"b", b"bh", b"c", b"d", b"h", b"i", b"l", b"q", b"s", b"t", b"x", b"z"]),
        tag_values,
    ),
    max_size=14,
).map(lambda tags: b";".join(b"%s=%s" % tag for tag in tags))


@given(raw_value=octets | tag_lists)
def test_any_octets_in_a_signature_give_a_result(raw_value: bytes) -> None:
    (result,) = verify_all([HeaderField(b"DKIM-Signature", raw_value), *FIELDS], BODY, Zone({NAME: record(RSA)}))
    assert isinstance(result.result, Result)
    assert_safe(result)


@given(changes=st.dictionaries(st.sampled_from([*"abcdhilqstvx", "bh"]), st.text(max_size=40), min_size=1, max_size=3))
def test_any_text_in_a_tag_gives_a_result(changes: dict[str, str]) -> None:
    tags = dkim_tags(**{name: value.encode("utf-8", "replace").decode() for name, value in changes.items()})
    field = dkim_signature(FIELDS, BODY, RSA, {**tags, "c": "relaxed/relaxed"})
    (result,) = verify_all([field, *FIELDS], BODY, Zone({NAME: record(RSA)}))
    assert_safe(result)


@given(
    texts=st.lists(
        octets
        | st.builds(
            lambda k, p, rest: b"v=DKIM1; k=%s; p=%s;%s" % (k, base64.b64encode(p), rest),
            st.sampled_from([b"rsa", b"ed25519"]),
            octets,
            octets,
        ),
        max_size=6,
    )
)
@pytest.mark.parametrize("key", [RSA, ED25519], ids=["rsa", "ed25519"])
def test_any_octets_in_a_key_record_give_a_result(key: PrivateKey, texts: list[bytes]) -> None:
    result, _ = verify_one(dkim_tags(a=key.algorithm.value), key=key, records={NAME: texts})
    assert result.result in (PERMERROR, FAIL)
    assert_safe(result)


@given(body=st.binary(max_size=200), chunk=st.integers(1, 50))
def test_the_result_is_the_same_however_the_body_is_cut(body: bytes, chunk: int) -> None:
    fields = [
        dkim_signature(FIELDS, BODY, RSA, dkim_tags(c=form, l=limit))
        for form in ("simple", "relaxed/relaxed")
        for limit in (None, "9")
    ]
    zone = Zone({NAME: record(RSA)})
    for text in (body, BODY):
        whole = verify_all([*fields, *FIELDS], text, zone)
        assert verify_all([*fields, *FIELDS], text, zone, chunk=chunk) == whole


@given(st.binary(max_size=60).map(lambda text: b"; b=" + text + b";" + text))
def test_only_the_value_of_b_is_deleted(raw_value: bytes) -> None:
    without = without_signature(raw_value)
    assert without.startswith(b"; b=")
    assert len(without) <= len(raw_value)


# All else is as it should be, so that the reader comes to what is not.
GOOD_TAGS = b" v=1; a=rsa-sha256; b=AAAA; bh=" + b"A" * 43 + b"=; d=example.com; s=sel; h=from"
HOSTILE = {
    "folds": lambda n: b";" + b"\r\n\t" * n,
    "spaces behind a tag": lambda n: b"; c=relaxed" + b" " * n + b";",
    "spaces in bh=": lambda n: b"; bh=" + b" " * n + b"x",
    "h= items": lambda n: b":from" * n,
    "semicolons": lambda n: b";" * n,
    "tags": lambda n: b";" + b";".join(b"t%d=1" % i for i in range(n)),
    "i= escapes": lambda n: b"; i=" + b"=41" * n,
    "i= equals signs": lambda n: b"; i=" + b"=" * n,
    "i= at signs": lambda n: b"; i=" + b"@" * n,
    "i= labels": lambda n: b"; i=@" + b"a." * n,
    "c= slashes": lambda n: b"; c=" + b"/" * n,
    "digits": lambda n: b"; l=" + b"9" * n,
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_megabyte_in_one_field_is_over_at_once(make: Any) -> None:
    field = HeaderField(b"DKIM-Signature", GOOD_TAGS + make(300_000))
    assert steps([field, *FIELDS]) < 500
    just_short_enough = HeaderField(b"DKIM-Signature", (GOOD_TAGS + make(300_000))[: MAX_TAG_LIST - 1])
    assert steps([just_short_enough, *FIELDS]) < 1_000


def test_work_grows_with_the_header_and_not_with_its_square() -> None:
    def header(n: int) -> list[HeaderField]:
        fields = [HeaderField(b"X-%d" % (i % 50), b" x") for i in range(n)] + FIELDS
        return [*[dkim_signature(fields, BODY, RSA, dkim_tags(h="from" + ":x-1" * 900))] * 8, *fields]

    short, long = steps(header(2_000)), steps(header(8_000))
    assert long < 4.5 * short


def steps(fields: Sequence[HeaderField]) -> int:
    """Return how many lines of Python run while the signatures are verified."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    zone = Zone({NAME: record(RSA)})
    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        verify_all(fields, BODY, zone)
    finally:
        sys.settrace(previous)
    return count
