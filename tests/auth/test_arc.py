"""ARC: chains that pass, every way in which one fails, dkimpy as the oracle, and hostile sets."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailward.auth.arc import MAX_SETS, ArcChain, parse_chain, verify_chain
from mailward.auth.body_hash import BodyHash
from mailward.auth.dkim import ReceivedHeader
from mailward.auth.dkim_verify import DkimLimits
from mailward.auth.keys import PrivateKey
from mailward.model.dns import Answer, AnswerStatus
from mailward.model.message import HeaderField
from mailward.model.results import ArcResult, Result
from tests.auth.forge import BODY, ED25519, MESSAGE, NOW, RSA, RSA_2048, Zone, arc_set, record, unparse
from tests.auth.messages import parse
from tests.support import dkimpy_oracle

LIMITS = DkimLimits()
FIELDS, _ = parse(MESSAGE)
NAME = "sel._domainkey.lists.example.org"
RECORDS = {NAME: record(RSA)}
PASS, FAIL = Result.PASS, Result.FAIL


def verify(
    fields: Sequence[HeaderField], body: bytes = BODY, records: Any = RECORDS, now: float = NOW, chunk: int = 1 << 20
) -> tuple[ArcResult, Zone]:
    """Verify a chain as the milter does; returns the result and the zone that was asked."""
    zone = Zone(records)
    header = ReceivedHeader(fields)
    chain = parse_chain(header, LIMITS, now)
    digest = None
    if chain.body_form is not None:
        body_hash = BodyHash(*chain.body_form)
        for at in range(0, len(body), chunk):
            body_hash.update(body[at : at + chunk])
        digest = body_hash.finish()
    return verify_chain(chain, header, digest, zone.ask, LIMITS), zone


def chain(
    sets: int,
    signature_tags: Mapping[str, str | None] = {},
    seal_tags: Mapping[str, str | None] = {},
    key: PrivateKey = RSA,
    of_set: int = 0,
) -> list[HeaderField]:
    """Return the message with that many sets on it; the tags are those of set `of_set`, or of the newest."""
    fields = list(FIELDS)
    for instance in range(1, sets + 1):
        is_it = instance == (of_set or sets)
        fields = [
            *arc_set(fields, BODY, key, instance, signature_tags if is_it else {}, seal_tags if is_it else {}),
            *fields,
        ]
    return fields


def test_a_message_without_arc_fields_costs_nothing() -> None:
    result, zone = verify(FIELDS)
    assert (result, zone.asked) == (ArcResult(Result.NONE), [])


@pytest.mark.parametrize("sets", [1, 2, 3, MAX_SETS])
def test_a_good_chain_passes(sets: int) -> None:
    result, zone = verify(chain(sets))
    assert (result.result, result.reason, result.instances) == (PASS, "", sets)
    assert result.sealers == ("lists.example.org",) * sets
    assert result.passed_author_domains == ("example.com",)
    assert zone.asked == [NAME]  # one key, one question


@pytest.mark.parametrize(
    ("signature_tags", "seal_tags"),
    [
        pytest.param({"c": "simple/simple"}, {}, id="the message signature in the simple form"),
        pytest.param({"c": "relaxed/simple", "t": None}, {"t": None}, id="without t="),
        pytest.param({"v": "7"}, {}, id="v= of a message signature is ignored"),
        pytest.param({"h": "from:from:to:dkim-signature:subject"}, {}, id="oversigned"),
        pytest.param({"l": str(len(BODY) - 4)}, {}, id="l= that covers the whole body"),
        pytest.param({}, {"c": "simple/simple", "l": "0", "bh": "x"}, id="tags that mean nothing in a seal"),
    ],
)
def test_forms_of_good_sets(signature_tags: Mapping[str, str | None], seal_tags: Mapping[str, str | None]) -> None:
    assert verify(chain(2, signature_tags, seal_tags))[0].result is PASS


def test_sealers_of_different_domains_and_algorithms() -> None:
    fields = [*arc_set(FIELDS, BODY, RSA, 1), *FIELDS]
    other = {"d": "Forwarder.EXAMPLE", "s": "ed", "a": "ed25519-sha256"}
    fields = [*arc_set(fields, BODY, ED25519, 2, other, other, " forwarder.example; dmarc=none"), *fields]
    result, zone = verify(fields, records={**RECORDS, "ed._domainkey.forwarder.example": record(ED25519)})
    assert result.sealers == ("lists.example.org", "forwarder.example")
    assert result.passed_author_domains == ()
    assert zone.asked == ["ed._domainkey.forwarder.example", NAME]


def test_order_of_the_fields_does_not_matter() -> None:
    fields = chain(4)
    random.Random(1).shuffle(fields)
    assert verify(fields)[0].result is PASS


@pytest.mark.parametrize("chunk", [1, 5])
def test_the_result_is_the_same_however_the_body_is_cut(chunk: int) -> None:
    assert verify(chain(2), chunk=chunk)[0].result is PASS


def test_an_older_message_signature_need_not_hold_any_more() -> None:
    """A list changes the subject: its own set covers that, the older ones need only be sealed (RFC 8617 5.2)."""
    older = chain(1)
    changed = [field._replace(raw_value=b" [list] dinner") if field.name == b"Subject" else field for field in older]
    assert verify(changed)[0].result is FAIL
    assert verify([*arc_set(changed, BODY + b"footer\r\n", RSA, 2), *changed], BODY + b"footer\r\n")[0].result is PASS


# --- what fails ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sets", [1, 3])
@pytest.mark.parametrize(
    ("signature_tags", "seal_tags", "reason"),
    [
        pytest.param({"a": "rsa-sha1"}, {}, "rsa-sha1", id="message signature with rsa-sha1"),
        pytest.param({}, {"a": "rsa-sha1"}, "rsa-sha1", id="seal with rsa-sha1"),
        pytest.param({"h": "to:subject"}, {}, "From", id="From is not signed"),
        pytest.param({"h": "from:arc-seal"}, {}, "h= names", id="h= names ARC-Seal"),
        pytest.param(
            {"h": "from:ARC-Authentication-Results"}, {}, "h= names", id="h= names ARC-Authentication-Results"
        ),
        pytest.param({"h": "from:Authentication-Results"}, {}, "h= names", id="h= names Authentication-Results"),
        pytest.param({"h": None}, {}, "h=", id="message signature without h="),
        pytest.param({"bh": "AAAA"}, {}, "bh=", id="bh= is no hash"),
        pytest.param({"d": None}, {}, "d=", id="message signature without d="),
        pytest.param({"d": "example.net(.lists.example.org"}, {}, "d=", id="message signature with a bracket in d="),
        pytest.param({"l": "5"}, {}, "l= leaves", id="l= leaves a part of the body unsigned"),
        pytest.param({"l": "5000"}, {}, "shorter than l=", id="l= larger than the body"),
        pytest.param({"t": str(NOW - 900), "x": str(NOW - 600)}, {}, "expired", id="expired"),
        pytest.param({"t": str(NOW + 900)}, {}, "future", id="signed in the future"),
        pytest.param({"i": None}, {}, "i=", id="message signature without i="),
        pytest.param({"i": "0"}, {}, "numbered", id="message signature of instance 0"),
        pytest.param({"i": "+1"}, {}, "i=", id="message signature whose i= has a sign"),
        pytest.param({"i": "\u0661"}, {}, "i=", id="message signature whose i= is an Arabic digit"),
        pytest.param({"i": "101"}, {}, "i=", id="i= of three digits"),
        pytest.param({}, {"i": "9"}, "numbered", id="a gap"),
        pytest.param({}, {"i": None}, "i=", id="seal without i="),
        pytest.param({}, {"h": "from"}, "h= tag", id="seal with h="),
        pytest.param({}, {"cv": None}, "cv=", id="seal without cv="),
        pytest.param({}, {"cv": ""}, "cv=", id="seal with an empty cv="),
        pytest.param({}, {"cv": "fail"}, "chain had failed", id="the newest seal says fail"),
        pytest.param({}, {"cv": "Pass"}, "cv=", id="cv= in capitals"),
        pytest.param({}, {"s": None}, "s=", id="seal without s="),
        pytest.param({}, {"d": "sel\0.example"}, "d=", id="seal with a NUL in d="),
        pytest.param({}, {"d": "com"}, "d=", id="seal by a top-level domain"),
        pytest.param({}, {"d": "no-key.example"}, "no key", id="seal without a key"),
        pytest.param({"d": "no-key.example"}, {}, "no key", id="message signature without a key"),
    ],
)
def test_a_set_that_cannot_hold(
    sets: int, signature_tags: Mapping[str, str | None], seal_tags: Mapping[str, str | None], reason: str
) -> None:
    result, _ = verify(chain(sets, signature_tags, seal_tags))
    assert result.result is FAIL
    assert reason in result.reason
    assert_safe(result)


def assert_safe(result: ArcResult) -> None:
    """See that a failed chain names nobody, and nothing a stranger wrote gets out as it came."""
    assert re.fullmatch(r"[A-Za-z0-9 ,.:;='()/^-]*", result.reason)
    assert result.result is PASS or not result.sealers + result.passed_author_domains
    assert not result.is_temporary


@pytest.mark.parametrize(
    ("of_set", "seal_tags", "reason"),
    [
        pytest.param(1, {"cv": "pass"}, "cv=", id="the first seal says pass"),
        pytest.param(2, {"cv": "none"}, "cv=", id="the second says none"),
        pytest.param(2, {"cv": "fail"}, "cv=", id="the second says fail, and the third does not care"),
        pytest.param(1, {"h": "from"}, "h= tag", id="the first seal has h="),
        pytest.param(1, {"b": "AAAA"}, "tag list", id="the first seal has two signatures"),
        pytest.param(1, {"d": "no-key.example"}, "seal 1: no key", id="the first seal has no key"),
    ],
)
def test_every_seal_counts(of_set: int, seal_tags: Mapping[str, str | None], reason: str) -> None:
    result, _ = verify(chain(3, {}, seal_tags, of_set=of_set))
    assert result.result is FAIL
    assert reason in result.reason


def without(fields: list[HeaderField], name: bytes, which: int = 0) -> list[HeaderField]:
    positions = [position for position, field in enumerate(fields) if field.name == name]
    return [field for position, field in enumerate(fields) if position != positions[which]]


@pytest.mark.parametrize("name", [b"ARC-Seal", b"ARC-Message-Signature", b"ARC-Authentication-Results"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_structure(name: bytes, which: int) -> None:
    fields = chain(3)
    (field,) = {*fields} - {*without(fields, name, which)}
    hurt = [
        without(fields, name, which),
        [field, *fields],
        [field._replace(name=name.upper()), *fields],
        [f._replace(raw_value=f.raw_value.replace(b"i=", b"j=", 1)) if f == field else f for f in fields],
        [f._replace(raw_value=b"") if f == field else f for f in fields],
        [f._replace(raw_value=b" i=9;") if f == field else f for f in fields],
    ]
    for one in hurt:
        result, zone = verify(one)
        assert result.result is FAIL
        assert zone.asked == []  # what is no chain costs no question
    renamed = [f._replace(name=name.upper()) if f == field else f for f in fields]
    assert verify(renamed)[0].result is PASS
    only = [field, *FIELDS]
    assert verify(only)[0].result is FAIL


def test_a_missing_middle_set() -> None:
    fields = chain(3)
    for name in (b"ARC-Seal", b"ARC-Message-Signature", b"ARC-Authentication-Results"):
        fields = without(fields, name, 1)
    assert "without a gap" in verify(fields)[0].reason


@pytest.mark.parametrize("count", [MAX_SETS + 1, 5000])
def test_too_many_sets_are_not_even_read(count: int) -> None:
    fields = [HeaderField(b"ARC-Seal", b" i=%d;" % n) for n in range(count)]
    result, zone = verify([*fields, *FIELDS])
    assert (result.result, zone.asked) == (FAIL, [])
    assert "more than 50" in result.reason


@pytest.mark.parametrize("name", [b"ARC-Seal", b"ARC-Message-Signature", b"ARC-Authentication-Results"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_any_change_to_a_set_breaks_the_chain(name: bytes, which: int) -> None:
    fields = chain(3)
    (field,) = {*fields} - {*without(fields, name, which)}
    changed = [f._replace(raw_value=f.raw_value + b" ; y=1") if f == field else f for f in fields]
    assert verify(changed)[0].result is FAIL


@pytest.mark.parametrize(
    ("fields", "body", "reason"),
    [
        pytest.param([HeaderField(b"Subject", b" evil"), *chain(2)], BODY, "second Subject", id="an added Subject"),
        pytest.param([HeaderField(b"From", b" e@evil.example"), *chain(2)], BODY, "second From", id="an added From"),
        pytest.param(chain(2), BODY + b"more\r\n", "body hash", id="an appended text"),
        pytest.param(
            [f._replace(raw_value=b" e@evil.example") if f.name == b"From" else f for f in chain(2)],
            BODY,
            "does not fit",
            id="another From",
        ),
    ],
)
def test_replay_of_a_chain(fields: list[HeaderField], body: bytes, reason: str) -> None:
    result, _ = verify(fields, body)
    assert result.result is FAIL
    assert reason in result.reason


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        pytest.param("v=DKIM1; p=", "revoked", id="revoked"),
        pytest.param(record(RSA, "; t=y"), "t=y", id="a key that is tested"),
        pytest.param(record(RSA, "; s=x"), "s=", id="a key that is not for mail"),
        pytest.param(record(RSA_2048), "does not fit", id="another key"),
        pytest.param(b"\xff", "tag list", id="garbage"),
    ],
)
def test_keys(records: Any, reason: str) -> None:
    result, _ = verify(chain(2), records={NAME: records})
    assert result.result is FAIL
    assert reason in result.reason


def test_a_silent_dns_fails_the_chain_for_now_only() -> None:
    result, zone = verify(chain(3), records={NAME: Answer(AnswerStatus.TEMPFAIL)})
    assert (result.result, result.is_temporary, result.sealers) == (FAIL, True, ())
    assert len(zone.asked) == 1


def test_a_changed_body_costs_no_question() -> None:
    result, zone = verify(chain(3), BODY + b"x\r\n")
    assert (result.result, zone.asked) == (FAIL, [])


def test_a_chain_whose_body_nobody_hashed_fails() -> None:
    header = ReceivedHeader(chain(1))
    parsed = parse_chain(header, LIMITS, NOW)
    assert verify_chain(parsed, header, None, Zone(RECORDS).ask, LIMITS).result is FAIL
    assert verify_chain(ArcChain(), header, None, Zone(RECORDS).ask, LIMITS).result is FAIL


# --- RFC 8617 appendix B: its keys were never published, so what is read of it is tested ------------------------------

APPENDIX_B = b"""\
ARC-Seal: i=3; a=rsa-sha256; cv=pass; d=clochette.example.org; s=
        clochette; t=12345; b=CU87XzXlNlk5X/yW4l73UvPUcP9ivwYWxyBWcVrRs7
        +HPx3K05nJhny2fvymbReAmOA9GTH/y+k9kEc59hAKVg==
ARC-Message-Signature: i=3; a=rsa-sha256; c=relaxed/relaxed; d=
        clochette.example.org; h=message-id:date:from:to:subject; s=
        clochette; t=12345; bh=KWSe46TZKCcDbH4klJPo+tjk5LWJnVRlP5pvjXFZY
        LQ=; b=o71vwyLsK+Wm4cOSlirXoRwzEvi0vqIjd/2/GkYFYlSd/GGfKzkAgPqxf
        K7ccBMP7Zjb/mpeggswHjEMS8x5NQ==
ARC-Authentication-Results: i=3; clochette.example.org; spf=fail
    smtp.from=jqd@d1.example; dkim=fail (512-bit key)
    header.i=@d1.example; dmarc=fail; arc=pass (as.2.gmail.example=pass,
    ams.2.gmail.example=pass, as.1.lists.example.org=pass,
    ams.1.lists.example.org=fail (message has been altered))
ARC-Seal: i=2; a=rsa-sha256; cv=pass; d=gmail.example; s=20120806; t=
        12345; b=Zpukh/kJL4Q7Kv391FKwTepgS56dgHIcdhhJZjsalhqkFIQQAJ4T9BE
        8jjLXWpRNuh81yqnT1/jHn086RwezGw==
ARC-Message-Signature: i=2; a=rsa-sha256; c=relaxed/relaxed; d=
        gmail.example; h=message-id:date:from:to:subject; s=20120806; t=
        12345; bh=KWSe46TZKCcDbH4klJPo+tjk5LWJnVRlP5pvjXFZYLQ=; b=CVoG44
        cVZvoSs2mMig2wwqPaJ4OZS5XGMCegWqQs1wvRZJS894tJM0xO1RJLgCPsBOxdA5
        9WSqI9s9DfyKDfWg==
ARC-Authentication-Results: i=2; gmail.example; spf=fail
    smtp.from=jqd@d1.example; dkim=fail (512-bit key)
    header.i=@example.org; dmarc=fail; arc=pass
    (as.1.lists.example.org=pass, ams.1.lists.example.org=pass)
ARC-Seal: i=1; a=rsa-sha256; cv=none; d=lists.example.org; s=dk-lists;
         t=12345; b=TlCCKzgk3TrAa+G77gYYO8Fxk4q/Ml0biqduZJeOYh6+0zhwQ8u/
        lHxLi21pxu347isLSuNtvIagIvAQna9a5A==
ARC-Message-Signature: i=1; a=rsa-sha256; c=relaxed/relaxed; d=
        lists.example.org; h=message-id:date:from:to:subject; s=
        dk-lists; t=12345; bh=KWSe46TZKCcDbH4klJPo+tjk5LWJnVRlP5pvjXFZYL
        Q=; b=DsoD3n3hiwlrN1ma8IZQFgZx8EDO7Wah3hUjIEsYKuShRKYB4LwGUiKD5Y
        yHgcIwGHhSc/4+ewYqHMWDnuFxiQ==
ARC-Authentication-Results: i=1; lists.example.org; spf=pass
    smtp.mfrom=jqd@d1.example; dkim=pass (512-bit key)
    header.i=@d1.example; dmarc=pass
Message-ID: <54B84785.1060301@d1.example.org>
Date: Thu, 14 Jan 2015 15:00:01 -0800
From: John Q Doe <jqd@d1.example.org>
To: arc@dmarc.org
Subject: [List 2] Example 1

Hey gang,
This is a test message.
--J.
""".replace(b"\n", b"\r\n")


def test_the_example_of_rfc_8617() -> None:
    fields, body = parse(APPENDIX_B)
    header = ReceivedHeader(fields)
    parsed = parse_chain(header, LIMITS, NOW)
    assert parsed.result is None
    assert [arc_set.seal.signing_domain for arc_set in parsed.sets] == [
        "lists.example.org",
        "gmail.example",
        "clochette.example.org",
    ]
    result, zone = verify(fields, body)
    assert "no key" in result.reason  # so the body hash, which is the first thing compared, is right
    assert zone.asked == ["clochette._domainkey.clochette.example.org"]


# --- dkimpy as the oracle ------------------------------------------------------------------------------------------

ORACLE_RECORDS = {NAME: RSA_2048.record.encode()}


def dkimpy_chain(sets: int) -> bytes:
    """Return a message that dkimpy sealed that often."""
    message = MESSAGE
    for instance in range(1, sets + 1):
        arc = "" if instance == 1 else " arc=pass;"
        found = f"Authentication-Results: lists.example.org;{arc} dmarc=pass header.from=example.com\r\n".encode()
        fields = dkimpy_oracle.arc_sign_with(
            found + message, RSA_2048.to_pem(), "lists.example.org", "sel", "lists.example.org"
        )
        assert fields
        message = fields + message
    return message


@pytest.mark.parametrize("sets", [1, 2, 3])
def test_what_dkimpy_seals_passes(sets: int) -> None:
    import time

    fields, body = parse(dkimpy_chain(sets))
    result, _ = verify(fields, body, ORACLE_RECORDS, time.time())
    assert (result.result, result.reason) == (PASS, "")
    assert result.passed_author_domains == ("example.com",)


@pytest.mark.parametrize("sets", [1, 2, 3])
def test_what_we_make_for_these_tests_passes_with_dkimpy(sets: int) -> None:
    assert dkimpy_oracle.arc_verify_with(unparse(chain(sets, key=RSA_2048), BODY), ORACLE_RECORDS) == "pass"


SEALED = [unparse(chain(sets, key=RSA_2048), BODY) for sets in (1, 2, 3)]
CLOSED_HOLES = ("numbered from 1", "begin with its instance", "second", "tag list", "same instance", "i= is missing")


@settings(max_examples=200)
@given(
    message=st.sampled_from(SEALED),
    edits=st.lists(
        st.tuples(
            st.integers(0, 5000),
            st.integers(0, 2),
            st.sampled_from([b"", b" ", b";", b"=", b"1", b"2", b"a", b"\r\n ", b"\x80", b"Subject: x\r\n"]),
        ),
        max_size=2,
    ),
)
def test_agrees_with_dkimpy_but_for_the_closed_holes(message: bytes, edits: list[tuple[int, int, bytes]]) -> None:
    for at, deleted, octets in edits:
        at = 0 if octets.startswith(b"Subject") else at % len(message)
        message = message[:at] + octets + message[at + (0 if at == 0 else deleted) :]
    fields, body = parse(message)
    if re.search(rb"(?<!\r)\n|\r(?!\n)", message) or not all(re.fullmatch(rb"[!-9;-~]+", f.name) for f in fields):
        return
    body = body if body.endswith(b"\r\n") or not body else body + b"\r\n"
    ours, _ = verify(fields, body, ORACLE_RECORDS)
    theirs = dkimpy_oracle.arc_verify_with(unparse(fields, body), ORACLE_RECORDS)
    if ours.result is PASS:
        assert theirs == "pass", message
    elif theirs == "pass":
        assert any(hole in ours.reason for hole in CLOSED_HOLES), (ours, message)


# --- any octets give a result ---------------------------------------------------------------------------------------

values = st.binary(max_size=120) | st.lists(
    st.tuples(
        st.sampled_from([b"i", b"a", b"b", b"bh", b"c", b"cv", b"d", b"h", b"l", b"s", b"t", b"v", b"x"]),
        st.sampled_from([b"1", b"2", b"rsa-sha256", b"none", b"pass", b"fail", b"example.org", b"from", b"AAAA"])
        | st.binary(max_size=20),
    ),
    max_size=12,
).map(lambda tags: b";".join(b"%s=%s" % tag for tag in tags))
names = st.sampled_from([b"ARC-Seal", b"ARC-Message-Signature", b"ARC-Authentication-Results", b"arc-seal "])


@given(st.lists(st.builds(HeaderField, names, values), min_size=1, max_size=8))
def test_any_octets_in_a_set_give_a_result(fields: list[HeaderField]) -> None:
    result, _ = verify([*fields, *FIELDS])
    assert result.result is FAIL
    assert_safe(result)


@given(at=st.integers(0, 8), value=values)
def test_any_octets_in_place_of_a_field_give_a_result(at: int, value: bytes) -> None:
    fields = GOOD.copy()
    fields[at] = fields[at]._replace(raw_value=value)
    result, _ = verify(fields)
    assert result.result is FAIL
    assert_safe(result)


GOOD = chain(3)


def test_work_grows_with_the_sets_and_not_with_their_square() -> None:
    counts = [steps(chain(sets)) for sets in (6, 12, 24, 48)]
    for fewer, more in pairwise(counts):
        assert more < 2.3 * fewer


@pytest.mark.parametrize(
    "raw_value",
    [
        pytest.param(b" " * 300_000 + b"i=1;", id="spaces before the instance"),
        pytest.param(b" i" + b" " * 300_000 + b"=1;", id="spaces behind i"),
        pytest.param(b" i=1" + b"\r\n\t" * 100_000 + b";", id="folds behind the instance"),
        pytest.param(b" i=1;" + b"(" * 300_000, id="nested comments"),
        pytest.param(b" i=1;" + b";" * 300_000, id="semicolons"),
    ],
)
def test_a_long_field_is_over_at_once(raw_value: bytes) -> None:
    for name in (b"ARC-Seal", b"ARC-Message-Signature", b"ARC-Authentication-Results"):
        fields = [f._replace(raw_value=raw_value) if f.name == name else f for f in chain(1)]
        assert steps(fields) < 3_000


def steps(fields: Sequence[HeaderField]) -> int:
    """Return how many lines of Python run while the chain is verified."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        verify(fields)
    finally:
        sys.settrace(previous)
    return count
