"""The RFC 7208 test suite, every case, through mailward.auth.spf."""

from __future__ import annotations

import pytest

from mailward.auth.spf import SpfLimits, check_mail_from
from mailward.model.results import Result, SpfResult
from tests.support.rfc7208_suite import PACKAGE, Case, load_cases, zone_of

MISSING = f"{PACKAGE} is missing: run `make suites` (`make test` and `make test-debian` do it by themselves)"
CASES: list[Case | None] = [*load_cases()] if PACKAGE.exists() else [None]
NO_EXPLANATION = "DEFAULT"  # the suite's word for "the receiver's own text"


def check_host(case: Case, limits: SpfLimits) -> SpfResult:
    return check_mail_from(case.client_address, case.helo.encode(), case.mail_from.encode(), zone_of(case), limits)


def test_the_whole_suite_is_there() -> None:
    assert PACKAGE.exists(), MISSING
    assert len(CASES) == 203


@pytest.mark.parametrize("wants_terms", [False, True], ids=["judged", "explained"])
@pytest.mark.parametrize("case", CASES, ids=[case.name if case else "missing" for case in CASES])
def test_case(case: Case | None, wants_terms: bool) -> None:
    assert case is not None, MISSING
    result = check_host(case, SpfLimits(wants_terms=wants_terms))
    assert result.result.value in case.results
    if case.explanation is not None:
        assert result.explanation == ("" if case.explanation == NO_EXPLANATION else case.explanation)
    if result.result is not Result.FAIL:
        assert result.explanation == ""
