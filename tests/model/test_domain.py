"""Domain names: one normal form, A-labels that are nobody else's, and labels instead of string suffixes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailward.model.domain import MAX_LABEL, MAX_NAME, InvalidDomain, normalize, parents

LONGEST_LABEL = "a" * MAX_LABEL
LONGEST_NAME = ".".join([LONGEST_LABEL] * 3 + ["b" * 61])


@pytest.mark.parametrize(
    ("name", "normal"),
    [
        pytest.param("Example.COM", "example.com", id="case"),
        pytest.param("example.com.", "example.com", id="final dot"),
        pytest.param("localhost", "localhost", id="one label"),
        pytest.param("2026a._domainkey.example.com", "2026a._domainkey.example.com", id="underscore and digit"),
        pytest.param("a-b--c.example", "a-b--c.example", id="hyphens inside"),
        pytest.param(LONGEST_LABEL + ".example", LONGEST_LABEL + ".example", id="the longest label"),
        pytest.param(LONGEST_NAME + ".", LONGEST_NAME, id="the longest name, final dot not counted"),
        pytest.param("b\u00fccher.example", "xn--bcher-kva.example", id="U-label"),
        pytest.param("B\u00dcCHER.Example", "xn--bcher-kva.example", id="U-label in capitals"),
        pytest.param("bu\u0308cher.example", "xn--bcher-kva.example", id="U-label with a combining accent"),
        pytest.param("XN--Bcher-KVA.example", "xn--bcher-kva.example", id="A-label in capitals"),
        pytest.param("fa\u00df.example", "xn--fa-hia.example", id="sharp s is not ss"),
        pytest.param("\u03b2\u03cc\u03bb\u03bf\u03c2.example", "xn--nxasmm1c.example", id="final sigma is not sigma"),
        pytest.param("\u0915\u094d\u200d\u0937.example", "xn--11b2ezcw70k.example", id="a joiner behind a virama"),
        pytest.param("\u4f8b\u3002\u30c6\u30b9\u30c8", "xn--fsq.xn--zckzah", id="ideographic full stop"),
        pytest.param("\u4f8b\uff0ecom", "xn--fsq.com", id="fullwidth full stop"),
        pytest.param("\uff41\uff42\uff43.example", "abc.example", id="fullwidth letters"),
    ],
)
def test_normal_form(name: str, normal: str) -> None:
    assert normalize(name) == normal


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("", id="nothing"),
        pytest.param(".", id="the root"),
        pytest.param(".example.com", id="empty first label"),
        pytest.param("a..example", id="empty label"),
        pytest.param("example.com..", id="two final dots"),
        pytest.param(LONGEST_LABEL + "a.example", id="label too long"),
        pytest.param("a" + LONGEST_NAME, id="name too long"),
        pytest.param("-a.example", id="hyphen first"),
        pytest.param("a-.example", id="hyphen last"),
        pytest.param("a b.example", id="space"),
        pytest.param(" example.com", id="space before"),
        pytest.param("example.com\n", id="line end"),
        pytest.param("a\x00.example", id="control character"),
        pytest.param("a@b.example", id="at sign"),
        pytest.param("[192.0.2.1]", id="domain literal"),
        pytest.param("2001:db8::1", id="IPv6 address"),
        pytest.param("ban\ufe0fk.example", id="variation selector"),
        pytest.param("ban\u034fk.example", id="grapheme joiner"),
        pytest.param("ban\u200dk.example", id="a joiner between Latin letters"),
        pytest.param("\u200cbank.example", id="a joiner first"),
        pytest.param("*.example.com", id="star"),
        pytest.param("\\097.example", id="master file escape"),
        pytest.param("\u00fc" * 60 + ".example", id="A-label too long"),
        # Punycode takes quadratic time: whole seconds for these, were they not refused by their length.
        pytest.param("".join(map(chr, range(0x4E00, 0x9000))), id="a U-label of 16,896 characters"),
        pytest.param("a\u00a0\u00fc.example", id="no-break space"),
        pytest.param("a\u2028\u00fc.example", id="line separator"),
        pytest.param("\u00fc\u202e.example", id="right-to-left override"),
        pytest.param("\U0001f600.example", id="emoji"),
        pytest.param("\ud800.example", id="surrogate"),
        pytest.param("bank\u2488example", id="a digit with a full stop, which NFKC takes apart: no dot is made of it"),
        pytest.param("a\u2024example", id="one dot leader: no dot is made of it"),
    ],
)
def test_what_is_no_host_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidDomain) as caught:
        normalize(name)
    assert not name.strip(". ") or name not in str(caught.value)


names_by_chance = st.text("aB1-_. \u00fc\u00df\u3002\u2488\ud800", max_size=20) | st.text(max_size=30)


@given(names_by_chance)
def test_any_text_is_refused_or_has_a_normal_form_that_stays(name: str) -> None:
    try:
        normal = normalize(name)
    except InvalidDomain:
        return
    assert normal.isascii()
    assert normal == normal.lower()
    assert 0 < len(normal) <= MAX_NAME
    assert all(0 < len(label) <= MAX_LABEL for label in normal.split("."))
    assert normalize(normal) == normal


@given(st.text("a1-.\u2024\u2488\u3002\u00fc", min_size=1, max_size=6))
def test_no_character_makes_more_labels_than_the_name_has(name: str) -> None:
    dots = sum(name.count(dot) for dot in ".\u3002\uff0e\uff61")
    try:
        assert normalize(name).count(".") <= dots
    except InvalidDomain:
        return


labels = st.lists(st.sampled_from(["a", "b", "example", "com", "xn--fsq", "_dmarc"]), min_size=1, max_size=6)


@given(labels)
def test_parents_are_the_names_above_nearest_first(parts: list[str]) -> None:
    assert list(parents(".".join(parts))) == [".".join(parts[at:]) for at in range(1, len(parts))]
