"""DMARC records and domains arranged so that somebody else's policy, or none, applies."""

from __future__ import annotations

from tests.attacks.messages import Signer, message, sign
from tests.attacks.row import Attack, Fate
from tests.attacks.zones import (
    BANK_KEY,
    EVE_2_HOSTED_KEY,
    EVE_HOSTED_KEY,
    EVE_KEY,
    STRICT_NEWS_KEY,
    SUFFIX_KEY,
)

ACCEPTED, QUARANTINED, REFUSED = Fate.ACCEPTED, Fate.QUARANTINED, Fate.REFUSED


def row(identity: str, author: bytes, fate: Fate = REFUSED, *, dmarc: str = "fail", by: Signer | None = None) -> Attack:
    """A message of `author`, signed by `by`."""
    octets = message(b"From: x@" + author)
    return Attack(identity, sign(octets, by) if by else octets, dmarc, fate, author.decode())


ROWS = (
    row("non-existent-subdomain-of-the-victim-has-its-policy", b"notexist.bank.example"),
    row("subdomain-of-many-labels-is-found-to-be-the-victims", b"a.b.c.d.e.f.g.h.i.j.k.bank.example"),
    row("existing-subdomain-has-the-subdomain-policy", b"www.shop.example", ACCEPTED),
    row("non-existent-subdomain-has-the-policy-for-those", b"notexist.shop.example"),
    row("name-below-an-existing-subdomain-has-the-policy-for-what-does-not-exist", b"a.www.shop.example"),
    row("test-mode-is-one-step-milder-and-not-off", b"testing.example", QUARANTINED),
    row("pct-of-zero-is-history-and-switches-nothing-off", b"percent.example"),
    row("two-records-are-none", b"double.example", ACCEPTED, dmarc="none"),
    row("record-of-another-version-is-none", b"lower.example", ACCEPTED, dmarc="none"),
    row("invalid-policy-with-a-report-address-is-policy-none", b"invalid.example", ACCEPTED),
    row("garbage-behind-the-policy-does-not-hide-it", b"garbage.example"),
    row("subdomain-does-not-speak-for-a-strict-domain", b"strict.example", by=STRICT_NEWS_KEY),
    row("neighbour-under-a-public-suffix-is-not-aligned", b"victim.suffix.example", by=EVE_KEY),
    row("public-suffix-does-not-speak-for-its-domains", b"victim.suffix.example", by=SUFFIX_KEY),
    row("neighbour-without-a-record-has-the-suffixs-policy", b"new.suffix.example", by=EVE_KEY),
    row("customer-who-says-psd-n-does-not-speak-for-his-host", b"hosting.example", by=EVE_HOSTED_KEY),
    row("customer-who-says-psd-n-does-not-speak-for-his-neighbour", b"shop.hosting.example", by=EVE_HOSTED_KEY),
    row(
        "sibling-does-not-speak-for-a-domain-without-a-common-record",
        b"eve2.hosting.example",
        ACCEPTED,
        by=EVE_HOSTED_KEY,
    ),
    row("customer-who-says-psd-y-is-no-suffix-above-his-host", b"eve.hosting.example", ACCEPTED, by=EVE_2_HOSTED_KEY),
    row("victims-signature-does-not-speak-for-another-domain", b"strict.example", by=BANK_KEY),
)
