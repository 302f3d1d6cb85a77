"""Key records as verifiers meet them: flags, revocations, several of them, and numbers no honest key has."""

from __future__ import annotations

import base64
import random
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from mailward.auth.dkim_verify import (
    DkimLimits,
)
from mailward.auth.keys import generate_rsa
from mailward.auth.published_key import MAX_KEY_RECORD, MAX_RECORDS, _read
from mailward.model.dns import Answer, AnswerStatus
from mailward.model.results import Result
from tests.auth.forge import (
    BODY,
    ED25519,
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
    PASS,
    PERMERROR,
    POLICY,
    assert_safe,
    verify_all,
    verify_one,
)
from tests.auth.test_keys import public_key, weak_key

# --- the key record ------------------------------------------------------------------------------------------------

P = base64.b64encode(RSA.public_key).decode()
OTHER = generate_rsa(1024)
WEAK = serialization.load_pem_private_key(weak_key(), None)


@pytest.mark.parametrize(
    ("records", "result", "reason"),
    [
        pytest.param(f"v=DKIM1; p={P}", PASS, "", id="defaults"),
        pytest.param(f"p={P[:60]} \t{P[60:]}", PASS, "", id="no v=, white space in p="),
        pytest.param(record(RSA, "; h=sha1:sha256; s=x:email; t=x; n=note"), PASS, "", id="lists that allow it"),
        pytest.param(record(RSA, "; t=s"), PASS, "", id="t=s and no subdomain in i="),
        pytest.param(Answer(AnswerStatus.NXDOMAIN), PERMERROR, "no key", id="no such name"),
        pytest.param(Answer(AnswerStatus.NODATA), PERMERROR, "no key", id="no TXT record"),
        pytest.param(Answer(AnswerStatus.FOUND), PERMERROR, "no key", id="an empty answer"),
        pytest.param(Answer(AnswerStatus.TEMPFAIL), Result.TEMPERROR, "did not answer", id="the DNS is silent"),
        pytest.param("v=DKIM1; p=", PERMERROR, "revoked", id="revoked"),
        pytest.param(f"v=DKIM2; p={P}", PERMERROR, "v=", id="v= of another version"),
        pytest.param(f"p={P}; v=DKIM1", PERMERROR, "v=", id="v= is not first"),
        pytest.param(f"v=dkim1; p={P}", PERMERROR, "v=", id="v= in lower case"),
        pytest.param("v=DKIM1", PERMERROR, "no p=", id="no p="),
        pytest.param(f"v=DKIM1; p={P}; p={P}", PERMERROR, "tag list", id="p= twice"),
        pytest.param("v=spf1 -all", PERMERROR, "v=", id="an SPF record"),
        pytest.param("", PERMERROR, "no p=", id="an empty record"),
        pytest.param(b"\xff\xfe\x00", PERMERROR, "tag list", id="garbage"),
        pytest.param(b"v=DKIM1; n=\xff\xfe; p=" + P.encode(), PASS, "", id="a note that is no UTF-8"),
        pytest.param(f"v=DKIM1; k=ed25519; p={P}", PERMERROR, "k=", id="k= of another type"),
        pytest.param(f"v=DKIM1; k=dsa; p={P}", PERMERROR, "k=", id="an unknown k="),
        pytest.param(ED25519.record, PERMERROR, "k=", id="an Ed25519 key for an RSA signature"),
        pytest.param(f"v=DKIM1; h=sha1; p={P}", PERMERROR, "h=", id="h= allows only SHA-1"),
        pytest.param(f"v=DKIM1; h=; p={P}", PERMERROR, "h=", id="h= allows nothing"),
        pytest.param(f"v=DKIM1; s=tlsrpt; p={P}", PERMERROR, "s=", id="s= is not for mail"),
        pytest.param("v=DKIM1; p=!!!", PERMERROR, "base64", id="p= is no base64"),
        pytest.param("v=DKIM1; p=AAAA", PERMERROR, "RSA public key", id="p= is no key"),
        pytest.param(f"v=DKIM1; n={'x' * MAX_KEY_RECORD}; p={P}", PERMERROR, "longer", id="a record of 4 kB and more"),
        pytest.param(OTHER.record, FAIL, "does not fit", id="another key"),
        pytest.param(record(RSA, "; t=y"), Result.NONE, "t=y); the signature holds", id="a key that is tested"),
        pytest.param(record(RSA, "; t=s:y"), Result.NONE, "t=y", id="t=y among other flags"),
        pytest.param(record(OTHER, "; t=y"), Result.NONE, "does not hold", id="a tested key that does not fit"),
        pytest.param([OTHER.record, RSA.record], PASS, "", id="one of two records holds the key"),
        pytest.param(["v=spf1 -all", RSA.record], PASS, "", id="something else stands beside the key"),
        pytest.param([RSA.record, "v=DKIM1; p="], PERMERROR, "revoked", id="a revocation beside the key"),
        pytest.param([OTHER.record, "garbage"], FAIL, "does not fit", id="another key beside garbage"),
        pytest.param([RSA.record] * (MAX_RECORDS + 1), PERMERROR, "more than 4 records", id="five records"),
    ],
)
@pytest.mark.parametrize("turned", [False, True], ids=["", "records turned round"])
def test_key_records(records: Any, result: Result, reason: str, turned: bool) -> None:
    if isinstance(records, list):
        records = [text.encode() for text in (records[::-1] if turned else records)]
    found, zone = verify_one(records={NAME: records})
    assert found.result is result
    assert reason in found.reason
    assert zone.asked == [NAME]
    assert_safe(found)


def test_strict_keys_forbid_subdomains() -> None:
    result, _ = verify_one(dkim_tags(i="joe@mail.example.com"), records={NAME: record(RSA, "; t=s")})
    assert (result.result, "t=s" in result.reason) == (PERMERROR, True)


def odd(bits: int) -> int:
    """Return an odd number of exactly that many bits, the same each time."""
    return random.Random(bits).getrandbits(bits) | 1 << (bits - 1) | 1


@pytest.mark.parametrize(
    ("n", "e", "result", "reason"),
    [
        pytest.param(odd(1023), 65537, POLICY, "1023 bits", id="1023 bits"),
        pytest.param(odd(4097), 65537, POLICY, "4097 bits", id="4097 bits"),
        pytest.param(odd(16384), 65537, POLICY, "16384 bits", id="16384 bits"),
        pytest.param(odd(4096), 65537, FAIL, "does not fit", id="4096 bits are verified"),
        pytest.param(odd(2048), 3, FAIL, "does not fit", id="e=3 is weak, and an exponent"),
        pytest.param(odd(2048), 1, PERMERROR, "", id="e=1, with which anybody signs"),
        pytest.param(odd(2048), 0, PERMERROR, "", id="e=0"),
        pytest.param(odd(2048), 65536, PERMERROR, "", id="an even exponent"),
        pytest.param(odd(2048), 2**32 + 1, PERMERROR, "exponent", id="an exponent above 2^32"),
        pytest.param(odd(2048), odd(2000), PERMERROR, "exponent", id="an exponent of 2000 bits"),
        pytest.param(odd(2048) - 1, 65537, PERMERROR, "modulus", id="an even modulus"),
        pytest.param(0, 65537, PERMERROR, "", id="no modulus"),
    ],
)
@pytest.mark.parametrize("form", ["PKCS#1", "SubjectPublicKeyInfo"])
def test_rsa_numbers(form: str, n: int, e: int, result: Result, reason: str) -> None:
    p = base64.b64encode(public_key(n, e, form)).decode()
    found, _ = verify_one(records={NAME: f"v=DKIM1; p={p}"})
    assert found.result is result
    assert reason in found.reason


def test_a_signature_by_a_weak_key_that_holds_is_policy() -> None:
    """RFC 8301 3.2: under 1024 bits MUST NOT be considered valid."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils

    assert isinstance(WEAK, rsa.RSAPrivateKey)
    secret = WEAK

    class Weak:
        def sign(self, digest: bytes) -> bytes:
            return secret.sign(digest, padding.PKCS1v15(), utils.Prehashed(hashes.SHA256()))

    numbers = secret.public_key().public_numbers()
    p = base64.b64encode(public_key(numbers.n, numbers.e)).decode()
    field = dkim_signature(FIELDS, BODY, Weak(), dkim_tags())  # type: ignore[arg-type]
    zone = Zone({NAME: f"p={p}"})
    (result,) = verify_all([field, *FIELDS], BODY, zone)
    assert (result.result, result.key_bits) == (POLICY, secret.key_size)
    weak_is_enough = DkimLimits(min_rsa_bits=512)
    assert verify_all([field, *FIELDS], BODY, zone, limits=weak_is_enough)[0].result is PASS


def test_parsed_keys_are_remembered_by_the_octets_of_their_record() -> None:
    _read.cache_clear()
    for _ in range(3):
        assert verify_one()[0].result is PASS
    assert (_read.cache_info().misses, _read.cache_info().hits) == (1, 2)
    assert verify_one(records={NAME: OTHER.record})[0].result is FAIL
    assert verify_one(records={NAME: "v=DKIM1; p="})[0].result is PERMERROR
