"""Signing keys for the benchmark, and what a bare signature costs; the only import of cryptography here."""

from __future__ import annotations

import base64
import functools
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.backends.openssl import backend
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

SIGNATURES = 2000  # for one figure: half a second to two seconds


@dataclass(frozen=True, slots=True)
class Key:
    """A private key's file, its selector, and the text of the record that publishes it."""

    selector: str
    file: Path
    record: str


def rsa_key(folder: Path, selector: str) -> Key:
    """Make an RSA-2048 key in a PEM file of `folder`."""
    private_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    # RFC 6376 3.6.1 wants RSAPublicKey in p=, and everybody publishes SubjectPublicKeyInfo: so does this.
    public_key = private_key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return _write(private_key, folder / f"{selector}.pem", selector, f"v=DKIM1; k=rsa; p={_text(public_key)}")


def ed25519_key(folder: Path, selector: str) -> Key:
    """Make an Ed25519 key in a PEM file of `folder`."""
    private_key = ed25519.Ed25519PrivateKey.generate()
    public_key = private_key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return _write(private_key, folder / f"{selector}.pem", selector, f"v=DKIM1; k=ed25519; p={_text(public_key)}")


def sign_sha256(key: Key, octets: bytes) -> bytes:
    """Sign octets with an RSA key (PKCS#1 v1.5, SHA-256)."""
    private_key = _loaded(key.file)
    return private_key.sign(octets, padding.PKCS1v15(), hashes.SHA256())


def bare_signature_microseconds() -> float:
    """Return the CPU time of an RSA-2048 signature made through cryptography, as a Python program does."""
    private_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    scheme, digest, text = padding.PKCS1v15(), hashes.SHA256(), b"x" * 32
    started = time.process_time()
    for _ in range(SIGNATURES):
        private_key.sign(text, scheme, digest)
    return (time.process_time() - started) / SIGNATURES * 1e6


def openssl_version() -> str:
    """Return the version of the OpenSSL that cryptography uses: its wheels bring their own."""
    return backend.openssl_version_text()


@functools.cache
def _loaded(file: Path) -> rsa.RSAPrivateKey:
    private_key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    assert isinstance(private_key, rsa.RSAPrivateKey)
    return private_key


def _write(private_key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey, file: Path, selector: str, record: str) -> Key:
    pem = private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.touch(mode=0o600)
    file.write_bytes(pem)
    return Key(selector, file, record)


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")
