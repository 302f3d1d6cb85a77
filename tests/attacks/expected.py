"""What all three tests of the table look at: the field that was written, and the fields that must be gone or stay."""

from __future__ import annotations

from collections.abc import Iterable

from tests.attacks.row import AUTHSERV_ID, FOREIGN, FORGED, Attack
from tests.support.results_field import ResultsField, read_results_field

OURS = (b"authentication-results", b"x-mailward-quarantine")
MAX_FIELD = 10_000  # octets; nobody makes us write more


def read_own_field(raw_value: bytes) -> ResultsField:
    """Read the field we wrote, and see that it is ours and of one piece."""
    assert len(raw_value) < MAX_FIELD
    field = read_results_field(raw_value)
    assert field.authserv_id == AUTHSERV_ID
    for method in ("dmarc", "arc", "iprev"):
        assert len(field.of(method)) <= 1, f"{method} stands twice: {raw_value!r}"
    assert len(field.of("spf")) <= 2
    for result in field.results:
        parts = result.reason.split(", ")
        assert len(set(parts)) == len(parts), f"a reason is given twice: {result.reason}"
    return field


def assert_results(attack: Attack, field: ResultsField, *, dmarc: str = "", author: str | None = None) -> None:
    """Compare the field with the row; `dmarc` and `author` stand in for the row's where the MTA changed the message."""
    (result,) = field.of("dmarc")
    assert result.result == (dmarc or attack.dmarc), field
    assert result.properties.get("header.from", "") == (attack.author if author is None else author), field
    if dmarc:
        return
    if attack.dkim is not None:
        assert field.words("dkim") == attack.dkim, field
    if attack.spf is not None:
        assert field.words("spf")[0] == attack.spf, field
    if attack.arc is not None:
        assert field.words("arc") == (attack.arc,), field


def assert_cleaned(before: Iterable[tuple[bytes, bytes]], after: Iterable[tuple[bytes, bytes]]) -> None:
    """Of the fields that only we may write, every forged one is gone and every foreign one still there."""

    def count(fields: Iterable[tuple[bytes, bytes]], mark: bytes) -> int:
        return sum(1 for name, value in fields if name.strip().lower() in OURS and mark in value)

    assert count(after, FORGED) == 0
    assert count(after, FOREIGN) == count(before, FOREIGN)
