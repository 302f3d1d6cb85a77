"""Signatures: the RFCs' own examples to the octet, any message verified by dkimpy, and what h= lists."""

from __future__ import annotations

import base64
import hashlib
import re

import dkim
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from hypothesis import given
from hypothesis import strategies as st

from mailward.auth.body_hash import BodyHash, Canonicalization
from mailward.auth.dkim import Canonicalizations, canonical_field, parse_tags
from mailward.auth.dkim_sign import (
    MAX_ALWAYS_ITEMS,
    MAX_OTHER_ITEMS,
    SIGNED_FIELDS,
    SignedHeader,
    SigningKey,
    SigningRules,
    TooManyFields,
)
from mailward.auth.keys import PrivateKey, generate_ed25519, generate_rsa, load_private_key
from mailward.model.message import HeaderField, by_name, pick_bottom_up
from tests.auth.messages import FIXTURES, fixture, parse

RFC_KEY = load_private_key((FIXTURES / "rfc6376-key.pem").read_bytes())
# RFC 8463 A.2 gives the seed; PKCS#8 wraps it in these sixteen octets (RFC 8410 7).
ED25519_SEED = base64.b64decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
ED25519_PEM = b"-----BEGIN PRIVATE KEY-----\n%s\n-----END PRIVATE KEY-----\n" % base64.b64encode(
    bytes.fromhex("302e020100300506032b657004220420") + ED25519_SEED
)
RFC_ED25519_KEY = load_private_key(ED25519_PEM)

RSA_KEY = SigningKey("example.com", "2026a", generate_rsa(1024))
ED_KEY = SigningKey("example.com", "2026a-ed", generate_ed25519())
FORMS = [Canonicalizations(header, body) for header in Canonicalization for body in Canonicalization]


# RFC 8463 A.2 gives the public half alone of its RSA key.
RFC_8463_RSA = serialization.load_der_public_key(
    base64.b64decode(
        "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3Fu"
        "tACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB"
    )
)


@pytest.mark.parametrize(
    ("name", "index", "key"),
    [
        pytest.param("rfc6376-a.eml", 0, RFC_KEY, id="RFC 6376 A.2, rsa-sha256, simple/simple"),
        pytest.param("rfc8463-a.eml", 0, RFC_ED25519_KEY, id="RFC 8463 A.3, ed25519-sha256, relaxed/relaxed"),
    ],
)
def test_the_examples_of_the_rfcs_are_reproduced(name: str, index: int, key: PrivateKey) -> None:
    """Both algorithms are deterministic: from the example's own tags the same signature has to come out."""
    digest, signature = signed_digest(name, index)
    assert key.sign(digest) == signature


def test_the_rsa_signature_of_rfc_8463_covers_what_we_would_sign() -> None:
    digest, signature = signed_digest("rfc8463-a.eml", 1)
    assert isinstance(RFC_8463_RSA, rsa.RSAPublicKey)
    RFC_8463_RSA.verify(signature, digest, padding.PKCS1v15(), Prehashed(hashes.SHA256()))


def signed_digest(name: str, index: int) -> tuple[bytes, bytes]:
    """Compute with our own parts what an example's signature is made over; return that digest and the signature."""
    fields, body = fixture(name)
    signature = fields[index]
    tags = parse_tags(signature.raw_value)
    header_form, _, body_form = tags[b"c"].decode().partition("/")
    names = [item.strip().lower() for item in tags[b"h"].split(b":")]
    body_hash = BodyHash(Canonicalization(body_form))
    body_hash.update(body)
    assert base64.b64encode(body_hash.digest()) == tags[b"bh"]
    unsigned = HeaderField(signature.name, re.sub(rb"\bb=[^;]*", b"b=", signature.raw_value))
    others = [field for field in fields if field.name != b"DKIM-Signature"]
    picked = [canonical_field(field, Canonicalization(header_form)) for field in pick_bottom_up(by_name(others), names)]
    last = canonical_field(unsigned, Canonicalization(header_form)).removesuffix(b"\r\n")
    return hashlib.sha256(b"".join(picked) + last).digest(), base64.b64decode(b"".join(tags[b"b"].split()))


def sign(message: bytes, keys: list[SigningKey], rules: SigningRules) -> bytes:
    """Return the message with its signatures on top."""
    fields, body = parse(message)
    body_hash = BodyHash(rules.canonicalizations.body)
    body_hash.update(body)
    signed_header, digest = SignedHeader(fields, rules), body_hash.digest()
    signatures = [signed_header.sign(key, digest, 1_795_000_000) for key in keys]
    return b"".join(field.name + b":" + field.raw_value + b"\r\n" for field in signatures) + message


def verify(message: bytes, index: int) -> bool:
    """Have unmodified dkimpy verify the `index`-th signature."""
    records = {
        f"{key.selector}._domainkey.example.com.".encode(): key.private_key.record.encode() for key in (RSA_KEY, ED_KEY)
    }

    def dns(name: bytes, timeout: int = 5) -> bytes | None:
        return records.get(name)

    return bool(dkim.DKIM(message).verify(idx=index, dnsfunc=dns))


names_of_fields = st.sampled_from(
    [
        "Subject",
        "To",
        "Cc",
        "X-Other",
        "Received",
        "List-Unsubscribe",
        "Content-Type",
        "DATE",
        "References",
        "resent-to",
    ]
)
values_of_fields = st.text("abc \t.:;=<>@\u00e9", max_size=30).map(lambda text: text.encode())
folds = st.sampled_from([b"", b"\r\n ", b"\r\n\t"])
fields_of_messages = st.tuples(names_of_fields, values_of_fields, folds, values_of_fields).map(
    lambda part: part[0].encode() + b": x" + part[1] + part[2] + b"y" + part[3]
)
bodies = st.lists(st.sampled_from([b"text ", b" \t", b"\r\n", b"\xff"]), max_size=12).map(
    lambda p: b"".join(p) + b"\r\n"
)


@pytest.mark.parametrize("form", FORMS, ids=str)
@given(header=st.lists(fields_of_messages, max_size=8), body=bodies)
def test_dkimpy_verifies_every_message(form: Canonicalizations, header: list[bytes], body: bytes) -> None:
    message = b"\r\n".join([b"From: a@example.com", *header]) + b"\r\n\r\n" + body
    signed = sign(message, [RSA_KEY, ED_KEY], SigningRules(canonicalizations=form))
    assert verify(signed, 0)
    assert verify(signed, 1)


MESSAGE = b"From: a@example.com\r\nTo: b@example.net\r\nSubject: hi\r\n\r\nHello\r\n"


@pytest.mark.parametrize(
    "added",
    [
        b"From: x@evil.example\r\n",
        b"Subject: other\r\n",
        b"To: c@example.net\r\n",
        b"Cc: c@example.net\r\n",
        b"Reply-To: x@y.z\r\n",
    ],
    ids=lambda added: added.split(b":")[0].decode() if isinstance(added, bytes) else None,
)
def test_a_field_added_on_the_way_breaks_the_signature(added: bytes) -> None:
    signed = sign(MESSAGE, [RSA_KEY], SigningRules())
    assert verify(signed, 0)
    assert not verify(added + signed, 0)


def h_items(message: bytes, rules: SigningRules | None = None) -> list[str]:
    fields, _ = parse(sign(message, [RSA_KEY], rules or SigningRules()))
    return [item.strip().decode() for item in parse_tags(fields[0].raw_value)[b"h"].split(b":")]


@pytest.mark.parametrize("name", [name for name, how in SIGNED_FIELDS.items() if how == "always"])
def test_what_readers_see_is_oversigned_present_or_not(name: str) -> None:
    without = b"\r\n".join(line for line in MESSAGE.split(b"\r\n") if not line.lower().startswith(name.encode() + b":"))
    assert h_items(b"X: y\r\n" + without).count(name) == 1
    present = name.encode() + b": x@example.com\r\n" + without
    assert h_items(present).count(name) == 2


@pytest.mark.parametrize("name", [name for name, how in SIGNED_FIELDS.items() if how == "present"])
def test_what_a_list_may_add_is_oversigned_only_where_present(name: str) -> None:
    assert name not in h_items(MESSAGE)
    assert h_items(name.upper().encode() + b": x\r\n" + MESSAGE).count(name) == 2


@pytest.mark.parametrize("name", ["sender", "in-reply-to", "references", "content-language", "resent-from", "list-id"])
def test_other_fields_are_signed_as_they_occur(name: str) -> None:
    assert name not in h_items(MESSAGE)
    field = name.encode() + b": x\r\n"
    assert h_items(field + field + MESSAGE).count(name) == 2


@pytest.mark.parametrize(
    "name", ["received", "return-path", "authentication-results", "arc-seal", "dkim-signature", "x-spam", "comments"]
)
def test_trace_fields_and_strangers_are_not_signed(name: str) -> None:
    assert name not in h_items(name.encode() + b": x\r\n" + MESSAGE)


def test_one_click_unsubscription_is_covered_by_one_signature() -> None:
    message = b"List-Unsubscribe: <https://x/y>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" + MESSAGE
    items = h_items(message)
    assert "list-unsubscribe" in items
    assert "list-unsubscribe-post" in items


def test_thousands_of_fields_make_a_bounded_list_that_still_verifies() -> None:
    message = b"References: <a@b>\r\n" * 5_000 + MESSAGE
    assert h_items(message).count("references") == MAX_OTHER_ITEMS
    assert verify(sign(message, [RSA_KEY], SigningRules()), 0)


@pytest.mark.parametrize("added", [b"Subject: other\r\n", b"Cc: x@example.net\r\n", b"To: x@example.net\r\n"])
def test_no_number_of_fields_pushes_the_oversigned_ones_out(added: bytes) -> None:
    message = b"Cc: c@example.net\r\n" * 1_000 + b"References: <a@b>\r\n" * 2_000 + MESSAGE
    signed = sign(message, [RSA_KEY], SigningRules())
    assert verify(signed, 0)
    assert not verify(added + signed, 0)


def test_more_oversigned_fields_than_h_can_list_are_refused() -> None:
    with pytest.raises(TooManyFields):
        sign(b"Cc: c@example.net\r\n" * MAX_ALWAYS_ITEMS + MESSAGE, [RSA_KEY], SigningRules())


def test_a_name_its_author_made_endless_is_not_signed() -> None:
    assert h_items(b"List-" + b"x" * 300 + b": y\r\n" + MESSAGE).count("from") == 2
    assert not any(len(item) > 60 for item in h_items(b"List-" + b"x" * 300 + b": y\r\n" + MESSAGE))


@pytest.mark.parametrize("name", [b"List-a;b", b"Content-;l=0;x="])
def test_a_name_that_would_break_the_list_is_not_signed(name: bytes) -> None:
    message = name + b": y\r\nList-=,<>: z\r\n" + MESSAGE
    assert name.lower().decode() not in h_items(message)
    assert "list-=,<>" in h_items(message)
    assert verify(sign(message, [RSA_KEY], SigningRules()), 0)


@pytest.mark.parametrize("octet", [b"\x0b", b"\x0c"], ids=["vertical tab", "form feed"])
def test_where_verifiers_differ_on_white_space_the_simple_form_signs(octet: bytes) -> None:
    message = MESSAGE.replace(b"Subject: hi", b"Subject: " + octet + b"hi" + octet)
    signed = sign(message, [RSA_KEY], SigningRules())
    assert b"c=simple/relaxed" in signed
    assert verify(signed, 0)
    assert b"c=relaxed/relaxed" in sign(MESSAGE.replace(b"Hello", octet), [RSA_KEY], SigningRules())


def test_lines_are_at_most_78_octets_and_l_is_never_there() -> None:
    fields, _ = parse(sign(b"List-Id: x\r\n" * 40 + MESSAGE, [RSA_KEY, ED_KEY], SigningRules(expire_seconds=60)))
    for field in fields[:2]:
        lines = (field.name + b":" + field.raw_value).split(b"\r\n")
        assert max(len(line.expandtabs(8)) for line in lines) <= 80
        assert max(len(line) for line in lines) <= 78
        assert b"l" not in parse_tags(field.raw_value)


def test_expiry_is_counted_from_the_time_of_signing() -> None:
    fields, _ = parse(sign(MESSAGE, [RSA_KEY], SigningRules(expire_seconds=3600)))
    tags = parse_tags(fields[0].raw_value)
    assert int(tags[b"x"]) == int(tags[b"t"]) + 3600
    fields, _ = parse(sign(MESSAGE, [RSA_KEY], SigningRules()))
    assert b"x" not in parse_tags(fields[0].raw_value)


def test_a_configured_family_is_signed() -> None:
    rules = SigningRules(oversigned=("from",), oversigned_if_present=(), signed=("x-*",))
    assert h_items(b"X-One: 1\r\nX-Two: 2\r\n" + MESSAGE, rules) == ["from", "from", "x-one", "x-two"]
