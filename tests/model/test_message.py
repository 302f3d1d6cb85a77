"""Header fields picked from the bottom up, as a verifier picks them (RFC 6376 5.4.2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailward.model.message import HeaderField, by_name, pick_bottom_up

HEADER = [
    HeaderField(b"Received", b" 1"),
    HeaderField(b"To", b" a"),
    HeaderField(b"SUBJECT", b" s"),
    HeaderField(b"to", b" b"),
    HeaderField(b"To ", b" c"),
]


@pytest.mark.parametrize(
    ("names", "values"),
    [
        pytest.param([b"to"], [b" b"], id="the last instance first"),
        pytest.param([b"to", b"to"], [b" b", b" a"], id="then the one above"),
        pytest.param([b"to", b"to", b"to"], [b" b", b" a"], id="oversigning picks nothing"),
        pytest.param([b"subject", b"to", b"received"], [b" s", b" b", b" 1"], id="in the order of the names"),
        pytest.param([b"from"], [], id="a field that is not there"),
        pytest.param([b"to "], [b" c"], id="a space before the colon belongs to the name"),
        pytest.param([], [], id="no names"),
    ],
)
def test_instances_are_picked_from_the_bottom_up(names: list[bytes], values: list[bytes]) -> None:
    assert [field.raw_value for field in pick_bottom_up(by_name(HEADER), names)] == values


def test_groups_keep_the_order_of_the_message() -> None:
    assert {name: [field.raw_value for field in group] for name, group in by_name(HEADER).items()} == {
        b"received": [b" 1"],
        b"to": [b" a", b" b"],
        b"subject": [b" s"],
        b"to ": [b" c"],
    }


def test_what_is_picked_leaves_its_group() -> None:
    groups = by_name(HEADER)
    pick_bottom_up(groups, [b"to", b"subject", b"from"])
    assert [(name, len(group)) for name, group in groups.items()] == [
        (b"received", 1),
        (b"to", 1),
        (b"subject", 0),
        (b"to ", 1),
    ]


def test_the_header_stays_as_it_is() -> None:
    before = list(HEADER)
    pick_bottom_up(by_name(HEADER), [b"to", b"to", b"subject"])
    assert before == HEADER


def pick_as_the_rfc_says(fields: list[HeaderField], names: list[bytes]) -> list[HeaderField]:
    """Do it in the RFC's own words: search from the bottom for the first field of that name not yet used."""
    left, picked = list(fields), []
    for name in names:
        for at in range(len(left) - 1, -1, -1):
            if left[at].name.lower() == name:
                picked.append(left.pop(at))
                break
    return picked


fields = st.lists(
    st.builds(HeaderField, st.sampled_from([b"To", b"to", b"Cc", b"From", b"X"]), st.binary(max_size=3)), max_size=12
)


@given(fields, st.lists(st.sampled_from([b"to", b"cc", b"from", b"x", b"date"]), max_size=12))
def test_any_header_is_picked_as_the_rfc_says(header: list[HeaderField], names: list[bytes]) -> None:
    assert pick_bottom_up(by_name(header), names) == pick_as_the_rfc_says(header, names)


class CountedName(bytes):
    """A field's name that counts how often names are compared."""

    comparisons = 0

    def lower(self) -> CountedName:
        return CountedName(super().lower())

    def __eq__(self, other: object) -> bool:
        CountedName.comparisons += 1
        return super().__eq__(other)

    __hash__ = bytes.__hash__


def test_thousands_of_fields_are_walked_through_once() -> None:
    count = 3_000
    header = [HeaderField(CountedName(f"x-{number}", "ascii"), b"") for number in range(count)]
    names = [bytes(field.name).lower() for field in header]
    CountedName.comparisons = 0
    assert len(pick_bottom_up(by_name(header), names)) == count
    assert CountedName.comparisons < 20 * count
