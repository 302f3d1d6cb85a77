"""Private keys: the forms they come in, those that may not sign, and what a damaged one does."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

from mailward.auth.keys import Algorithm, InvalidKey, generate_ed25519, generate_rsa, load_private_key

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
