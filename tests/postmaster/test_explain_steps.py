"""The steps that `mailward explain` shows: SPF term by term, policy and alignment in words, signatures, ARC."""

from __future__ import annotations

from typing import Any

import pytest

from mailward.model.message import HeaderField
from tests.auth.forge import BODY, NOW, RSA_2048, arc_set
from tests.postmaster.explaining import FIELDS, Postmaster, octets, signed


def test_spf_is_told_term_by_term(postmaster: Postmaster) -> None:
    found = postmaster.json(octets(FIELDS), client="203.0.113.5")["spf"]["mailfrom"]
    assert (found["result"], found["domain"], found["mechanism"]) == ("fail", "example.com", "-all")
    assert (found["lookups"], found["void_lookups"]) == (3, 1)
    assert [(term["domain"], term["term"]) for term in found["terms"]] == [
        ("example.com", "ip4:192.0.2.7"),
        ("example.com", "include:_spf.example.net"),
        ("_spf.example.net", "a:mail.example.net"),
        ("_spf.example.net", "~all"),
        ("example.com", "exists:%{i}.void.example"),
        ("example.com", "-all"),
    ]
    assert "3 of 10 lookups, 1 of 2 in vain" in postmaster.run(octets(FIELDS), client="203.0.113.5").output


def author(address: bytes) -> bytes:
    return octets([HeaderField(b"From", b" " + address), *FIELDS[1:]])


@pytest.mark.parametrize(
    ("address", "mail_from", "policy", "policy_words", "aligned"),
    [
        pytest.param(b"a@example.com", "a@mail.example.com", "reject", "p= of its own record", True, id="relaxed"),
        pytest.param(b"a@example.com", "a@weak.example", "reject", "p= of its own record", False, id="another domain"),
        pytest.param(
            b"a@mail.example.com",
            "a@example.com",
            "quarantine",
            "sp= of the record of example.com, for mail.example.com exists",
            True,
            id="a subdomain",
        ),
        pytest.param(
            b"a@none.example.com",
            "a@weak.example",
            "none",
            "np= of the record of example.com, for none.example.com does not exist",
            False,
            id="a subdomain that does not exist",
        ),
        pytest.param(
            b"a@strict.example",
            "a@out.strict.example",
            "none",
            "p= of its own record, one step milder for t=y",
            False,
            id="strict, and in test mode",
        ),
    ],
)
def test_policy_and_alignment_are_told_in_words(
    postmaster: Postmaster, address: bytes, mail_from: str, policy: str, policy_words: str, aligned: bool
) -> None:
    (dmarc,) = postmaster.json(author(address), mail_from=mail_from)["dmarc"]
    assert (dmarc["policy"], dmarc["policy_words"]) == (policy, policy_words)
    (identifier,) = dmarc["identifiers"]
    assert (identifier["domain"], identifier["is_aligned"]) == (mail_from.partition("@")[2], aligned)


def test_an_arc_chain_is_told(postmaster: Postmaster) -> None:
    fields = signed()
    sealed = [*arc_set(fields, BODY, RSA_2048, 1), *fields]
    found = postmaster.json(octets(sealed))["arc"]
    assert (found["result"], found["sealers"], found["passed_author_domains"]) == (
        "pass",
        ["lists.example.org"],
        ["example.com"],
    )
    assert "sealed by   lists.example.org" in postmaster.run(octets(sealed)).output


@pytest.mark.parametrize(
    ("change", "result", "reason"),
    [
        pytest.param({"body": b"other\r\n"}, "fail", "the body hash differs", id="another body"),
        pytest.param({"now": str(NOW + 999_999)}, "permerror", "the signature has expired (x=)", id="expired"),
    ],
)
def test_a_signature_that_does_not_pass_says_why(
    postmaster: Postmaster, change: dict[str, Any], result: str, reason: str
) -> None:
    message = octets(signed(), change.get("body", BODY))
    options = ["--now", change["now"]] if "now" in change else []
    (found,) = postmaster.json(message, *options)["dkim"]
    assert (found["result"], found["reason"]) == (result, reason)
    assert (found["signed_at"], found["expires_at"]) == (NOW, NOW + 86400)
