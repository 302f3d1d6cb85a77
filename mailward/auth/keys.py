"""RSA and Ed25519 keys, private and as they stand in the DNS. The only import of cryptography.

No key leaves this file as a number: it signs digests, shows its public half and is compared with a record.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from enum import Enum

from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

MIN_RSA_BITS = 1024  # RFC 8301 3.2: signers MUST use at least this
RECOMMENDED_RSA_BITS = 2048  # and SHOULD use this
MAX_RSA_BITS = 8192  # larger ones fit no DNS answer and take a quarter of a second a signature
MAX_EXPONENT = 1 << 32  # 65537 is usual; a stranger's key with a huge one would keep us computing
ED25519_OCTETS = 32

_RSA_ENCRYPTION = bytes.fromhex("06092a864886f70d010101")  # the object identifier of RFC 3279 2.3.1, in DER
_SEQUENCE, _INTEGER = 0x30, 0x02

_PKCS1 = padding.PKCS1v15()
_DIGEST_OF_SHA256 = Prehashed(hashes.SHA256())


class InvalidKey(ValueError):
    """The octets are no key that may sign; the message says why."""


class Algorithm(Enum):
    """The signature algorithms a signer may use (RFC 8301, RFC 8463); rsa-sha1 is not one of them."""

    RSA_SHA256 = "rsa-sha256"
    ED25519_SHA256 = "ed25519-sha256"

    @property
    def key_type(self) -> str:
        """The `k=` of the key record."""
        return self.value.partition("-")[0]


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A key that signs; `public_key` is the content of its record's `p=` before base64, `bits` its size."""

    algorithm: Algorithm
    bits: int
    public_key: bytes
    _secret: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

    def sign(self, digest: bytes) -> bytes:
        """Return the signature of a SHA-256 digest (32 octets): RFC 6376 3.3, RFC 8463 3."""
        if isinstance(self._secret, rsa.RSAPrivateKey):
            return self._secret.sign(digest, _PKCS1, _DIGEST_OF_SHA256)
        return self._secret.sign(digest)

    @property
    def record(self) -> str:
        """The text of the TXT record that publishes this key (RFC 6376 3.6.1)."""
        return f"v=DKIM1; k={self.algorithm.key_type}; p={base64.b64encode(self.public_key).decode()}"

    def to_pem(self) -> bytes:
        """Return the private key as unencrypted PKCS#8 PEM."""
        encoding, no_password = serialization.Encoding.PEM, serialization.NoEncryption()
        return self._secret.private_bytes(encoding, serialization.PrivateFormat.PKCS8, no_password)


def generate_rsa(bits: int) -> PrivateKey:
    """Make a new RSA key of `bits` bits."""
    return _wrap(rsa.generate_private_key(public_exponent=65537, key_size=bits))


def generate_ed25519() -> PrivateKey:
    """Make a new Ed25519 key."""
    return _wrap(ed25519.Ed25519PrivateKey.generate())


def load_private_key(pem: bytes) -> PrivateKey:
    """Read a PEM private key, PKCS#1 or PKCS#8, and see that it signs what its public half verifies.

    Raises InvalidKey for anything else: encrypted, of another kind, RSA under 1024 or over 8192 bits, inconsistent.
    """
    try:
        secret = _load_pem(pem)
    except TypeError:
        raise InvalidKey("the key is encrypted; a daemon has nobody to ask for the passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidKey("no private key in PEM form (PKCS#1 or PKCS#8) could be read") from None
    if not isinstance(secret, rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        raise InvalidKey("the key is neither RSA nor Ed25519")
    key = _wrap(secret)
    if key.algorithm is Algorithm.RSA_SHA256 and not MIN_RSA_BITS <= key.bits <= MAX_RSA_BITS:
        raise InvalidKey(f"an RSA key has {MIN_RSA_BITS} to {MAX_RSA_BITS} bits; this one has {key.bits}")
    _prove(key)
    return key


def _load_pem(pem: bytes) -> object:
    """Parse without OpenSSL's check of the primes where the library allows: 1 ms instead of 50; _prove() stands in."""
    try:
        return serialization.load_pem_private_key(pem, None, unsafe_skip_rsa_key_validation=True)
    except TypeError as error:
        if "unsafe_skip_rsa_key_validation" not in str(error):  # an encrypted key is a TypeError, too
            raise
    return serialization.load_pem_private_key(pem, None)  # cryptography 38 (Debian 12)


def _wrap(secret: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> PrivateKey:
    public = secret.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        encoding, spki = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        return PrivateKey(Algorithm.RSA_SHA256, public.key_size, public.public_bytes(encoding, spki), secret)
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return PrivateKey(Algorithm.ED25519_SHA256, 256, raw, secret)


def _prove(key: PrivateKey) -> None:
    """Sign and verify once: a damaged key would make bad signatures, and a faulty RSA signature can give the key away."""
    secret, digest = key._secret, hashlib.sha256(b"mailward").digest()
    try:
        if isinstance(secret, rsa.RSAPrivateKey):
            secret.public_key().verify(key.sign(digest), digest, _PKCS1, _DIGEST_OF_SHA256)
        else:
            secret.public_key().verify(key.sign(digest), digest)
    except (InvalidSignature, ValueError):
        raise InvalidKey("the key does not verify its own signature: the file is damaged") from None


def same_public_key(key: PrivateKey, published: bytes) -> bool:
    """Say whether `published`, the text of a record's `p=`, is the public half of `key`.

    RSA keys are published as SubjectPublicKeyInfo or, by some, as bare PKCS#1: they are compared as numbers.
    Raises InvalidKey where `published` is no key of that type at all.
    """
    der = _decode(published)
    if key.algorithm is Algorithm.ED25519_SHA256 or der == key.public_key:
        return der == key.public_key
    public, secret = _load_rsa(der), key._secret
    return isinstance(secret, rsa.RSAPrivateKey) and public.public_numbers() == secret.public_key().public_numbers()


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key from the DNS that verifies; nothing is said here about whether `bits` are enough."""

    algorithm: Algorithm
    bits: int
    _public: rsa.RSAPublicKey | ed25519.Ed25519PublicKey

    def verify(self, digest: bytes, signature: bytes) -> bool:
        """Say whether `signature` is this key's for a SHA-256 digest; any octets get an answer."""
        try:
            if isinstance(self._public, rsa.RSAPublicKey):
                self._public.verify(signature, digest, _PKCS1, _DIGEST_OF_SHA256)
            else:
                self._public.verify(signature, digest)
        except (InvalidSignature, ValueError, UnsupportedAlgorithm, InternalError):
            return False
        return True


def load_public_key(algorithm: Algorithm, published: bytes) -> PublicKey:
    """Read the text of a record's `p=`: base64 of SubjectPublicKeyInfo or bare PKCS#1, or of 32 octets (RFC 8463 4).

    Raises InvalidKey for anything else, and for RSA numbers with which no honest signature can be made. All of it is
    looked at before the first computation: a modulus or exponent of a stranger's choice may take seconds.
    """
    octets = _decode(published)
    if algorithm is Algorithm.ED25519_SHA256:
        if len(octets) != ED25519_OCTETS:
            raise InvalidKey("p= is not the 32 octets of an Ed25519 key")
        return PublicKey(algorithm, 256, ed25519.Ed25519PublicKey.from_public_bytes(octets))
    public = _load_rsa(octets)
    numbers = public.public_numbers()
    if numbers.e <= 1 or numbers.e % 2 == 0 or numbers.e > MAX_EXPONENT:
        raise InvalidKey("the RSA exponent is even, 1, or above 2^32")
    if numbers.n % 2 == 0:
        raise InvalidKey("the RSA modulus is even")
    return PublicKey(algorithm, public.key_size, public)


def _decode(published: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(published.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidKey("p= is not base64") from None


def _load_rsa(der: bytes) -> rsa.RSAPublicKey:
    if not _claims_to_be_rsa(der):
        raise InvalidKey("p= is not an RSA public key")
    try:
        public = serialization.load_der_public_key(der)
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError):
        raise InvalidKey("p= is not an RSA public key") from None
    if not isinstance(public, rsa.RSAPublicKey):
        raise InvalidKey("p= is not an RSA public key")
    return public


def _claims_to_be_rsa(der: bytes) -> bool:
    """Say whether DER begins as an RSA public key does, so that OpenSSL never reads one of another kind.

    A stranger's elliptic curve with parameters of his own has made every reader of public keys hang (CVE-2022-0778).
    """
    if len(der) < 16 or der[0] != _SEQUENCE:
        return False
    at = 2 + (der[1] & 0x7F if der[1] >= 0x80 else 0)  # behind the length, which may have a length of its own
    if der[at : at + 1] == bytes([_INTEGER]):
        return True  # PKCS#1: the modulus
    return der[at : at + 1] == bytes([_SEQUENCE]) and der[at + 2 : at + 13] == _RSA_ENCRYPTION
