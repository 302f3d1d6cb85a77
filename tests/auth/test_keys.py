"""Keys: the forms they come in, those that may not sign or verify, and what a damaged one does."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from mailward.auth.keys import (
    Algorithm,
    InvalidKey,
    PrivateKey,
    generate_ed25519,
    generate_rsa,
    load_private_key,
    load_public_key,
)

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = serialization.Encoding.PEM
PKCS1 = serialization.PrivateFormat.TraditionalOpenSSL
PKCS8 = serialization.PrivateFormat.PKCS8
OPEN = serialization.NoEncryption()


@pytest.mark.parametrize("form", [PKCS1, PKCS8], ids=["PKCS#1", "PKCS#8"])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_rsa_in_both_forms(form: serialization.PrivateFormat, line_end: bytes) -> None:
    key = load_private_key(RSA.private_bytes(PEM, form, OPEN).replace(b"\n", line_end))
    assert (key.algorithm, key.bits) == (Algorithm.RSA_SHA256, 2048)
    assert key.record.startswith("v=DKIM1; k=rsa; p=MII")


def test_ed25519() -> None:
    key = load_private_key(generate_ed25519().to_pem())
    assert key.algorithm is Algorithm.ED25519_SHA256
    assert len(key.public_key) == 32
    assert len(key.sign(b"x" * 32)) == 64


@pytest.mark.parametrize("bits", [1024, 2048, 3072])
def test_a_new_rsa_key_can_be_read_back(bits: int) -> None:
    key = generate_rsa(bits)
    again = load_private_key(key.to_pem())
    assert (again.bits, again.public_key) == (bits, key.public_key)


def weak_key() -> bytes:
    """Return an RSA key of 512 bits; newer libraries refuse to make one, so it is written down."""
    return (
        b"-----BEGIN RSA PRIVATE KEY-----\n"
        b"MIIBOgIBAAJBAKj34GkxFhD90vcNLYLInFEX6Ppy1tPf9Cnzj4p4WGeKLs1Pt8Qu\n"
        b"KUpRKfFLfRYC9AIKjbJTWit+CqvjWYzvQwECAwEAAQJAIJLixBy2qpFoS4DSmoEm\n"
        b"o3qGy0t6z09AIJtH+5OeRV1be+N4cDYJKffGzDa88vQENZiRm0GRq6a+HPGQMd2k\n"
        b"TQIhAKMSvzIBnni7ot/OSie2TmJLY4SwTQAevXysE2RbFDYdAiEBCUEaRQnMnbp7\n"
        b"9mxDXDf6AU0cN/RPBjb9qSHDcWZHGzUCIG2Es59z8ugGrDY+pxLQnwfotadxd+Uy\n"
        b"v/Ow5T0q5gIJAiEAyS4RaI9YG8EWx/2w0T67ZUVAw8eOMB6BIUg0Xcu+3okCIBOs\n"
        b"/5OiPgoTdSy7bcF9IGpSE8ZgGKzgYQVZeN97YE00\n"
        b"-----END RSA PRIVATE KEY-----\n"
    )


def rsa_pem(wrong_digit: int = 0) -> bytes:
    """Write RSA's numbers down as PKCS#1, with a wrong digit in the exponents: such a key would sign, and never verify.

    By hand, since cryptography 38 (Debian 12) does not let one be made.
    """
    numbers = RSA.private_numbers()
    public = numbers.public_numbers
    exponents = (numbers.d ^ wrong_digit, numbers.p, numbers.q, numbers.dmp1 ^ wrong_digit, numbers.dmq1)
    integers = (0, public.n, public.e, *exponents, numbers.iqmp)
    der = der_element(0x30, b"".join(der_element(0x02, n.to_bytes(n.bit_length() // 8 + 1, "big")) for n in integers))
    return b"-----BEGIN RSA PRIVATE KEY-----\n" + base64.encodebytes(der) + b"-----END RSA PRIVATE KEY-----\n"


def der_element(tag: int, content: bytes) -> bytes:
    """Return one element of DER."""
    length = len(content)
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag]) + (octets if length < 128 else bytes([128 + len(octets)]) + octets) + content


@pytest.mark.parametrize(
    ("pem", "why"),
    [
        pytest.param(b"", "PEM", id="nothing"),
        pytest.param(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "PEM", id="garbage"),
        pytest.param(weak_key(), "1024 to 8192", id="RSA of 512 bits"),
        pytest.param(
            RSA.private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"x")), "passphrase", id="encrypted"
        ),
        pytest.param(
            ec.generate_private_key(ec.SECP256R1()).private_bytes(PEM, PKCS8, OPEN), "neither", id="an elliptic curve"
        ),
        pytest.param(dsa.generate_private_key(1024).private_bytes(PEM, PKCS8, OPEN), "neither", id="DSA"),
    ],
)
def test_what_may_not_sign_is_refused(pem: bytes, why: str) -> None:
    with pytest.raises(InvalidKey, match=why):
        load_private_key(pem)


def test_a_damaged_key_is_noticed_before_it_signs_mail() -> None:
    assert load_private_key(rsa_pem()).bits == 2048
    with pytest.raises(InvalidKey):
        load_private_key(rsa_pem(wrong_digit=4))


def test_a_public_key_is_no_private_one() -> None:
    pem = RSA.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(InvalidKey, match="PEM"):
        load_private_key(pem)


def public_key(n: int, e: int, form: str = "SubjectPublicKeyInfo") -> bytes:
    """Write an RSA public key down as DER, whatever its numbers: no library makes the ones that must be refused."""
    pkcs1 = der_element(0x30, b"".join(der_element(0x02, m.to_bytes(m.bit_length() // 8 + 1, "big")) for m in (n, e)))
    if form == "PKCS#1":
        return pkcs1
    rsa_encryption = bytes.fromhex("300d06092a864886f70d0101010500")  # RFC 3279 2.3.1
    return der_element(0x30, rsa_encryption + der_element(0x03, b"\0" + pkcs1))


DIGEST = b"d" * 32


@pytest.mark.parametrize(
    "key", [generate_rsa(1024), generate_rsa(2048), generate_ed25519()], ids=["1024", "2048", "ed"]
)
def test_a_public_key_verifies_what_its_private_key_signed(key: PrivateKey) -> None:
    public = load_public_key(key.algorithm, base64.b64encode(key.public_key))
    signature = key.sign(DIGEST)
    assert (public.algorithm, public.bits) == (key.algorithm, key.bits)
    assert public.verify(DIGEST, signature)
    assert not public.verify(DIGEST, signature[:-1] + bytes([signature[-1] ^ 1]))
    assert not public.verify(b"e" * 32, signature)
    for octets in (b"", b"x", signature[:-1], signature + b"\0", b"\0" + signature, b"\xff" * len(signature)):
        assert not public.verify(DIGEST, octets)


@pytest.mark.parametrize("form", ["PKCS#1", "SubjectPublicKeyInfo"])
def test_an_rsa_public_key_may_have_two_forms(form: str) -> None:
    numbers = RSA.public_key().public_numbers()
    public = load_public_key(Algorithm.RSA_SHA256, base64.encodebytes(public_key(numbers.n, numbers.e, form)))
    assert public.bits == 2048


ELLIPTIC = ec.generate_private_key(ec.SECP256R1()).public_key()
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo
ED25519_SPKI = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(serialization.Encoding.DER, SPKI)


@pytest.mark.parametrize(
    ("algorithm", "octets"),
    [
        pytest.param(Algorithm.RSA_SHA256, b"", id="nothing"),
        pytest.param(Algorithm.RSA_SHA256, b"\x30\x80", id="half a key"),
        pytest.param(Algorithm.RSA_SHA256, b"x" * 32, id="an Ed25519 key as RSA"),
        pytest.param(
            Algorithm.RSA_SHA256, ELLIPTIC.public_bytes(serialization.Encoding.DER, SPKI), id="an elliptic curve"
        ),
        pytest.param(Algorithm.RSA_SHA256, ED25519_SPKI, id="Ed25519 in ASN.1 as RSA"),
        pytest.param(Algorithm.RSA_SHA256, b"\x30\x84\xff\xff\xff\xff" + b"\x30" * 1000, id="nested and too long"),
        pytest.param(Algorithm.ED25519_SHA256, b"", id="no Ed25519 key"),
        pytest.param(Algorithm.ED25519_SHA256, b"x" * 31, id="31 octets"),
        pytest.param(Algorithm.ED25519_SHA256, b"x" * 33, id="33 octets"),
        pytest.param(Algorithm.ED25519_SHA256, ED25519_SPKI, id="Ed25519 in ASN.1: RFC 8463 wants the octets alone"),
    ],
)
def test_what_is_no_public_key_is_refused(algorithm: Algorithm, octets: bytes) -> None:
    with pytest.raises(InvalidKey):
        load_public_key(algorithm, base64.b64encode(octets))


@given(algorithm=st.sampled_from(Algorithm), published=st.binary(max_size=300))
def test_any_octets_are_a_public_key_or_refused(algorithm: Algorithm, published: bytes) -> None:
    for text in (published, base64.b64encode(published)):
        try:
            assert not load_public_key(algorithm, text).verify(DIGEST, b"x" * 64)
        except InvalidKey:
            continue


@pytest.mark.parametrize(
    "der",
    [
        pytest.param(ELLIPTIC.public_bytes(serialization.Encoding.DER, SPKI), id="a named curve"),
        pytest.param(
            dsa.generate_private_key(1024).public_key().public_bytes(serialization.Encoding.DER, SPKI), id="DSA"
        ),
        pytest.param(
            b"\x30\x82\x01\x00\x30\x81\xf0\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x30" + b"x" * 250,
            id="a curve of its own",
        ),
    ],
)
def test_openssl_never_reads_a_public_key_of_another_kind(der: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(serialization, "load_der_public_key", lambda octets: read.append(octets))
    with pytest.raises(InvalidKey):
        load_public_key(Algorithm.RSA_SHA256, base64.b64encode(der))
    assert read == []
