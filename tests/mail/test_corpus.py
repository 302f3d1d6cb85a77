"""Malformed but deliverable mail comes out signed, and two other implementations verify every signature."""

from __future__ import annotations

import pytest

from tests.mail.corpus import make_corpus
from tests.mail.delivered import assert_signed
from tests.mail.domains import EXAMPLE_COM
from tests.mail.installation import ALICE, Installation

CORPUS = make_corpus(160)
PER_SESSION = 40


@pytest.fixture(scope="module")
def recipients(installation: Installation) -> dict[str, str]:
    """Submit the whole corpus in a few sessions; return each message's recipient by its name."""
    sent = {malformed.name: installation.new_recipient() for malformed in CORPUS}
    for start in range(0, len(CORPUS), PER_SESSION):
        with installation.submission(ALICE) as session:
            for malformed in CORPUS[start : start + PER_SESSION]:
                session.sendmail(ALICE, [sent[malformed.name]], malformed.raw)
    return sent


@pytest.mark.parametrize("name", [malformed.name for malformed in CORPUS])
def test_malformed_mail_comes_out_with_every_signature_valid(
    installation: Installation, recipients: dict[str, str], name: str
) -> None:
    assert_signed(installation.delivered(recipients[name]), EXAMPLE_COM)
