"""Keys of the table's domains, and of no library: they also sign as no library of ours would.

SHA-1, 512 bits, an exponent of 1: whoever may not make such signatures cannot show that they are refused.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cached_property

from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

DIGEST_INFO = {  # RFC 8017 9.2, note 1
    "sha1": bytes.fromhex("3021300906052b0e03021a05000414"),
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
}
RSA_OBJECT = bytes.fromhex("300d06092a864886f70d0101010500")  # rsaEncryption, no parameters


@dataclass(frozen=True)
class RsaKey:
    """An RSA key pair as numbers."""

    modulus: int
    exponent: int
    secret: int
    type: str = "rsa"

    def sign(self, octets: bytes, digest: str = "sha256") -> bytes:
        """Return the PKCS#1 v1.5 signature of `octets`."""
        size = (self.modulus.bit_length() + 7) // 8
        info = DIGEST_INFO[digest] + hashlib.new(digest, octets, usedforsecurity=False).digest()
        padded = b"\0\1" + b"\xff" * (size - len(info) - 3) + b"\0" + info
        return pow(int.from_bytes(padded, "big"), self.secret, self.modulus).to_bytes(size, "big")

    @cached_property
    def published(self) -> str:
        """The text of `p=`: base64 of SubjectPublicKeyInfo."""
        numbers = _der(0x30, _integer(self.modulus) + _integer(self.exponent))
        return base64.b64encode(_der(0x30, RSA_OBJECT + _der(0x03, b"\0" + numbers))).decode()


@dataclass(frozen=True)
class Ed25519Key:
    """An Ed25519 key pair."""

    private: ed25519.Ed25519PrivateKey
    type: str = "ed25519"

    def sign(self, octets: bytes, digest: str = "sha256") -> bytes:
        """Return the signature of the SHA-256 digest of `octets` (RFC 8463 3)."""
        return self.private.sign(hashlib.new(digest, octets).digest())

    @cached_property
    def published(self) -> str:
        """The text of `p=`: base64 of the 32 octets."""
        return base64.b64encode(self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


Key = RsaKey | Ed25519Key


def make_rsa(bits: int = 1024) -> RsaKey:
    """Make a key pair that an honest domain could have."""
    numbers = rsa.generate_private_key(public_exponent=65537, key_size=bits).private_numbers()
    return RsaKey(numbers.public_numbers.n, 65537, numbers.d)


def make_ed25519() -> Ed25519Key:
    """Make an Ed25519 key pair."""
    return Ed25519Key(ed25519.Ed25519PrivateKey.generate())


def make_512_bits() -> RsaKey:
    """Return a key pair of 512 bits; no library makes them any more."""
    p = 87768638462674915193546235198081577033010504906232459173905607576632568886097
    q = 89670524178957367769937625394164854938829073514135550798605432871409113600811
    return RsaKey(p * q, 65537, pow(65537, -1, (p - 1) * (q - 1)))


def with_exponent(key: RsaKey, exponent: int, secret: int = 1) -> RsaKey:
    """Return the same modulus with another exponent; with 1, and 1 for the secret, anybody can sign."""
    return RsaKey(key.modulus, exponent, secret)


def huge_numbers() -> RsaKey:
    """Return a key of 16384 bits with an exponent of as many: ten seconds of arithmetic for whoever tries it."""
    return RsaKey((1 << 16384) - 159, (1 << 16383) + 1, 1)


def _der(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + content


def _integer(number: int) -> bytes:
    return _der(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))
