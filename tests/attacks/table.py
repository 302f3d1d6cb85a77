"""The table: one row an attack, and the honest mail beside it. Its ids read as a list of what Mailward withstands.

To add one: write a row (row.py says what it holds) into the file its subject has; names and keys are in zones.py. Three
tests run every row: the decision alone, the daemon by the milter protocol, and Postfix with the daemon.
"""

from __future__ import annotations

from tests.attacks import chains, controls, envelopes, forged_fields, from_fields, policies, signatures, sizes
from tests.attacks.row import Attack

ATTACKS: tuple[Attack, ...] = (
    *controls.ROWS,
    *from_fields.ROWS,
    *envelopes.ROWS,
    *signatures.ROWS,
    *policies.ROWS,
    *chains.ROWS,
    *forged_fields.ROWS,
    *sizes.ROWS,
)

# What OpenDKIM 2.11 beta 2 and OpenDMARC 1.4.2 (Debian 12), the one behind the other, call `dmarc=pass`; seen by running
# `python -m tests.mail.peers`. Some is their reading of the standard (a replay with a second Subject); most is none.
# Three of the malformed ARC sets end OpenDMARC.
PEERS_PASS = frozenset(
    {
        "a-hundred-from-fields-hide-none",
        "bare-cr-in-the-field-hides-no-author",
        "customer-who-says-psd-n-does-not-speak-for-his-host",
        "encoded-address-as-a-local-part-is-no-pass",
        "helo-with-a-parenthesis-is-no-domain",
        "helo-with-a-quote-is-no-domain",
        "key-in-test-mode-is-unsigned-mail",
        "key-of-another-type-is-no-key",
        "key-with-exponent-one-that-anybody-has-is-no-pass",
        "l-tag-of-zero-signs-no-body",
        "l-tag-with-appended-body-is-no-pass",
        "parenthesis-in-mail-from-does-not-cut-the-domain",
        "public-suffix-does-not-speak-for-its-domains",
        "replay-with-a-second-date-is-no-pass",
        "replay-with-a-second-from-is-no-pass",
        "replay-with-a-second-subject-in-odd-spelling-is-no-pass",
        "replay-with-a-second-subject-is-no-pass",
        "replay-with-a-second-to-is-no-pass",
        "replay-with-the-attackers-from-on-top-is-no-pass",
        "route-in-mail-from-does-not-name-the-victim",
        "rsa-sha1-proves-nothing",
        "second-at-sign-in-mail-from-does-not-name-the-victim",
        "second-from-field-below-is-judged-too",
        "second-from-field-in-other-case-is-judged-too",
        "second-from-field-that-cannot-be-read-is-no-pass-of-the-first",
        "second-from-field-with-a-space-before-the-colon-is-judged-too",
        "signature-of-a-top-level-domain-is-no-pass",
        "text-behind-the-address-is-suspected",
        "two-addresses-without-a-comma-are-suspected",
        "two-at-signs-are-suspected",
        "unquoted-name-that-is-another-address-is-suspected",
    }
)
