"""The hoster's tables: what a line may say, each mistake with its number, and no line that makes the reader stumble."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailward.model.domain import InvalidDomain
from mailward.policy.signing import KeyRef
from mailward.policy.signing_table import LineMistake, normalize_pattern, parse_logins, parse_signing_table


@pytest.mark.parametrize(
    ("line", "pattern", "ref"),
    [
        pytest.param(
            "example.com 2026a /k/a.pem",
            "example.com",
            KeyRef("example.com", "2026a", "/k/a.pem"),
            id="a domain signs as itself",
        ),
        pytest.param(
            ".example.com 2026a a.pem",
            ".example.com",
            KeyRef("example.com", "2026a", "a.pem"),
            id="what is below signs as the domain",
        ),
        pytest.param("* 2026a a.pem", "*", KeyRef("", "2026a", "a.pem"), id="* signs as the author domain"),
        pytest.param(
            "* 2026a a.pem hoster.example",
            "*",
            KeyRef("hoster.example", "2026a", "a.pem"),
            id="a signing domain of its own",
        ),
        pytest.param(
            "Example.COM. S1._Sub A.PEM Other.Example.",
            "example.com",
            KeyRef("other.example", "s1._sub", "A.PEM"),
            id="names are folded, the file's name is not",
        ),
        pytest.param(
            "b\u00fccher.example 2026a a.pem",
            "xn--bcher-kva.example",
            KeyRef("xn--bcher-kva.example", "2026a", "a.pem"),
            id="U-labels",
        ),
        pytest.param(
            "\texample.com\t 2026a   a.pem # ours\n",
            "example.com",
            KeyRef("example.com", "2026a", "a.pem"),
            id="white space and a comment",
        ),
    ],
)
def test_a_line_of_the_table(line: str, pattern: str, ref: KeyRef) -> None:
    assert parse_signing_table([line]) == ({pattern: (ref,)}, [])


def test_lines_of_one_pattern_add_up_in_their_order() -> None:
    table, mistakes = parse_signing_table(
        ["example.com rsa a.pem", "", "# keys of 2026", "   ", "EXAMPLE.com ed b.pem", ".example.com rsa a.pem"]
    )
    assert not mistakes
    assert [ref.selector for ref in table["example.com"]] == ["rsa", "ed"]
    assert [ref.selector for ref in table[".example.com"]] == ["rsa"]


FIELDS, NAMES = "PATTERN SELECTOR KEYFILE [SIGNING-DOMAIN]", "domain names"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param("example.com", FIELDS, id="a pattern alone"),
        pytest.param("example.com 2026a", FIELDS, id="no key file"),
        pytest.param("example.com 2026a a.pem b.example c", FIELDS, id="a field too many"),
        pytest.param("example.com 2026a # a.pem", FIELDS, id="the key file is a comment"),
        pytest.param("exa(mple.com 2026a a.pem", NAMES, id="a pattern that is no name"),
        pytest.param("*.example.com 2026a a.pem", NAMES, id="a star inside a name"),
        pytest.param("..example.com 2026a a.pem", NAMES, id="two dots"),
        pytest.param(". 2026a a.pem", NAMES, id="a dot alone"),
        pytest.param("example.com -a a.pem", NAMES, id="a selector that is no name"),
        pytest.param("example.com 2026a a.pem .example.com", NAMES, id="a signing domain is no pattern"),
        pytest.param("example.com 2026a a.pem *", NAMES, id="a signing domain is no star"),
        pytest.param("x" * 64 + " 2026a a.pem", NAMES, id="a label too long"),
    ],
)
def test_a_mistake_in_the_table_has_its_line(line: str, expected: str) -> None:
    good = "example.org 2026a a.pem"
    table, mistakes = parse_signing_table([good, "# comment", "", line, good])
    assert [mistake.line for mistake in mistakes] == [4]
    assert expected in mistakes[0].expected
    assert len(table.pop("example.org")) == 2
    assert not table


def test_every_mistake_of_a_table_is_found_in_one_go() -> None:
    _, mistakes = parse_signing_table(["a", "example.com 2026a a.pem", "b", "a..b s f"])
    assert [mistake.line for mistake in mistakes] == [1, 3, 4]


def test_logins_fold_their_case_and_lines_of_one_login_add_up() -> None:
    rights, mistakes = parse_logins(
        ["Alice@Example.com Example.COM", "# x", "alice@example.com b.example. *", "@Example.net b\u00fccher.example"]
    )
    assert not mistakes
    assert rights == {
        "alice@example.com": {"example.com", "b.example", "*"},
        "@example.net": {"xn--bcher-kva.example"},
    }


def test_a_byte_order_mark_is_no_part_of_the_first_name() -> None:
    assert parse_logins(["\ufeffalice example.com", "bob example.net"])[0].keys() == {"alice", "bob"}
    assert parse_signing_table(["\ufeffexample.com 2026a a.pem"])[0].keys() == {"example.com"}
    assert parse_logins(["bob example.net", "\ufeffalice example.com"])[0].keys() == {"bob", "\ufeffalice"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param("alice@example.com", "LOGIN and at least one domain", id="no domain"),
        pytest.param("alice@example.com # example.com", "LOGIN and at least one domain", id="the domain is a comment"),
        pytest.param("alice@example.com example.com a..b", NAMES, id="one bad name among good ones"),
        pytest.param("alice@example.com *.example.com", NAMES, id="a star inside a name"),
        pytest.param("alice@example.com .example.com", NAMES, id="a dot-name: the domain itself stands for all below"),
        pytest.param("alice@example.com alice@example.com", NAMES, id="an address instead of a domain"),
    ],
)
def test_a_mistake_in_the_logins_has_its_line_and_gives_no_right(line: str, expected: str) -> None:
    rights, mistakes = parse_logins(["", line, "bob@example.com example.com"])
    assert [mistake.line for mistake in mistakes] == [2]
    assert expected in mistakes[0].expected
    assert rights == {"bob@example.com": {"example.com"}}


@pytest.mark.parametrize(
    ("pattern", "normal"),
    [
        ("*", "*"),
        (".Example.com", ".example.com"),
        ("EXAMPLE.com.", "example.com"),
        (".b\u00fccher.example", ".xn--bcher-kva.example"),
    ],
)
def test_patterns_have_one_normal_form(pattern: str, normal: str) -> None:
    assert normalize_pattern(pattern) == normal
    assert normalize_pattern(normal) == normal


@pytest.mark.parametrize(
    "pattern", ["", ".", "..", "**", "*.example.com", ".*", "a b", "a@b.example", "example.com..", "[::1]"]
)
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidDomain):
        normalize_pattern(pattern)


words = st.sampled_from(
    ["example.com", ".example.com", "*", "2026a", "a.pem", "@x.example", "#", "..", "-", "\u00e9.example"]
)
any_lines = st.lists(st.text(max_size=40) | st.lists(words, max_size=6).map(" ".join), max_size=8)


def entries(lines: list[str]) -> set[int]:
    first = [line.removeprefix("\ufeff") for line in lines[:1]]
    return {number for number, line in enumerate(first + lines[1:], 1) if line.partition("#")[0].strip()}


@given(any_lines)
def test_any_lines_are_keys_or_mistakes_of_the_table(lines: list[str]) -> None:
    table, mistakes = parse_signing_table(lines)
    check_lines(mistakes, entries(lines), sum(len(refs) for refs in table.values()))
    for pattern in table:
        assert normalize_pattern(pattern) == pattern


@given(any_lines)
def test_any_lines_are_rights_or_mistakes_of_the_logins(lines: list[str]) -> None:
    rights, mistakes = parse_logins(lines)
    wrong = {mistake.line for mistake in mistakes}
    assert wrong <= entries(lines)
    assert bool(rights) == bool(entries(lines) - wrong)
    for names in rights.values():
        assert names == {normalize_pattern(name) for name in names}


def check_lines(mistakes: list[LineMistake], numbers: set[int], good: int) -> None:
    """See that each line with words became one key or one mistake."""
    wrong = [mistake.line for mistake in mistakes]
    assert wrong == sorted(set(wrong))
    assert set(wrong) <= numbers
    assert good == len(numbers) - len(wrong)
