"""The DNS tree walk: the names it asks about, in order, and the organizational domain it ends at (RFC 9989 4.10, B.4)."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailward.auth.tree_walk import MAX_QUERIES, Alignment, TreeWalks
from mailward.model.dns import Answer, AnswerStatus, Question, RecordType
from tests.support.zone import Zone


def zone_of(records: dict[str, str]) -> Zone:
    return Zone("\n".join(f"_dmarc.{name} TXT v=DMARC1; {tags}" for name, tags in records.items()))


def names_asked(zone: Zone) -> list[str]:
    assert all(question.record_type is RecordType.TXT for question in zone.asked)
    return [question.name for question in zone.asked]


@pytest.mark.parametrize(
    ("records", "start", "organizational_domain", "queries"),
    [
        # RFC 9989 4.10.2
        pytest.param(
            {"mail.example.com": "p=none", "example.com": "p=none"},
            "a.mail.example.com",
            "example.com",
            4,
            id="4.10.2: of two records the one with the fewest labels",
        ),
        pytest.param({"mail.example.com": "psd=n"}, "a.mail.example.com", "mail.example.com", 2, id="4.10.2: psd=n ends it"),
        pytest.param({"com": "psd=y"}, "a.mail.example.com", "example.com", 4, id="4.10.2: one below psd=y"),
        # RFC 9989 B.4
        pytest.param({"example.com": "", "signing.example.com": ""}, "example.com", "example.com", 2, id="B.4.1: author"),
        pytest.param(
            {"example.com": "", "signing.example.com": ""}, "signing.example.com", "example.com", 3, id="B.4.1: DKIM"
        ),
        pytest.param(
            {"example.com": "", "signing.example.com": ""},
            "a.b.c.d.e.f.g.h.i.j.k.example.com",
            "example.com",
            8,
            id="B.4.2: thirteen labels",
        ),
        pytest.param(
            {"bank.example": "psd=y", "giant.bank.example": ""},
            "giant.bank.example",
            "giant.bank.example",
            2,
            id="B.4.3: author, with a record of its own",
        ),
        pytest.param(
            {"bank.example": "psd=y", "giant.bank.example": ""},
            "mail.giant.bank.example",
            "giant.bank.example",
            3,
            id="B.4.3: SPF",
        ),
        pytest.param(
            {"bank.example": "psd=y", "giant.bank.example": ""},
            "mail.mega.bank.example",
            "mega.bank.example",
            3,
            id="B.4.3: DKIM, without any record",
        ),
        # what the rules leave to be tried
        pytest.param({}, "a.mail.example.com", "a.mail.example.com", 4, id="no record: the start itself"),
        pytest.param({"mail.example.com": ""}, "mail.example.com", "mail.example.com", 3, id="only the start has a record"),
        pytest.param({"bank.example": "psd=y"}, "bank.example", "bank.example", 1, id="psd=y at the start is its own"),
        pytest.param(
            {"mail.example.com": "psd=n", "example.com": "psd=n"}, "mail.example.com", "mail.example.com", 1,
            id="psd=n at the start",
        ),
        pytest.param(
            {"mail.example.com": "", "example.com": "psd=n", "com": ""}, "a.mail.example.com", "example.com", 3,
            id="psd=n in the middle hides what is above, and wins over what is below",
        ),
        pytest.param(
            {"a.b.example.com": "", "com": "psd=y"}, "a.b.example.com", "example.com", 4,
            id="psd=y wins over a record below, even where the name below it has none",
        ),
        pytest.param({"com": ""}, "a.example.com", "com", 3, id="a top-level domain that forgot psd=y is taken at its word"),
        pytest.param(
            {"c.d.e.f.g.example.com": "psd=y"}, "a.b.c.d.e.f.g.example.com", "b.c.d.e.f.g.example.com", 2,
            id="one below psd=y where the walk jumped over it",
        ),
        pytest.param(
            {"b.c.d.e.f.g.example.com": "psd=n", "example.com": ""}, "mail.a.b.c.d.e.f.g.example.com", "example.com", 8,
            id="5.1.8: a record that is jumped over is never seen",
        ),
        pytest.param({"example.com": "p=bad"}, "mail.example.com", "example.com", 3, id="a record that cannot be applied counts"),
        pytest.param({"localhost": ""}, "localhost", "localhost", 1, id="one label"),
    ],
)  # fmt: skip
def test_the_organizational_domain(
    records: dict[str, str], start: str, organizational_domain: str, queries: int
) -> None:
    zone = zone_of(records)
    walk = TreeWalks(zone).walk(start)
    assert walk.organizational_domain == organizational_domain
    assert len(zone.asked) == queries


@pytest.mark.parametrize(
    ("start", "names"),
    [
        pytest.param(
            "a.b.c.d.e.f.g.h.i.j.mail.example.com",
            "a.b.c.d.e.f.g.h.i.j.mail.example.com g.h.i.j.mail.example.com h.i.j.mail.example.com i.j.mail.example.com"
            " j.mail.example.com mail.example.com example.com com",
            id="4.10: thirteen labels",
        ),
        pytest.param(
            "mail.a.b.c.d.e.f.g.example.com",
            "mail.a.b.c.d.e.f.g.example.com c.d.e.f.g.example.com d.e.f.g.example.com e.f.g.example.com f.g.example.com"
            " g.example.com example.com com",
            id="5.1.8: ten labels",
        ),
        pytest.param("9.8.7.6.5.4.3.2.1", "9.8.7.6.5.4.3.2.1 7.6.5.4.3.2.1 6.5.4.3.2.1 5.4.3.2.1 4.3.2.1 3.2.1 2.1 1", id="9"),
        pytest.param("8.7.6.5.4.3.2.1", "8.7.6.5.4.3.2.1 7.6.5.4.3.2.1 6.5.4.3.2.1 5.4.3.2.1 4.3.2.1 3.2.1 2.1 1", id="8"),
        pytest.param("7.6.5.4.3.2.1", "7.6.5.4.3.2.1 6.5.4.3.2.1 5.4.3.2.1 4.3.2.1 3.2.1 2.1 1", id="7"),
        pytest.param("a.mail.example.com", "a.mail.example.com mail.example.com example.com com", id="4.10.2: four labels"),
        pytest.param("com", "com", id="one label"),
    ],
)  # fmt: skip
def test_the_names_asked_about(start: str, names: str) -> None:
    zone = Zone()
    walk = TreeWalks(zone).walk(start)
    assert names_asked(zone) == [f"_dmarc.{name}" for name in names.split()]
    assert [site.name for site in walk.sites] == names.split()


def test_a_name_of_three_hundred_labels_costs_no_more_than_eight_queries() -> None:
    zone = Zone()
    start = ".".join("x" * 300)
    assert TreeWalks(zone).walk(start).organizational_domain == start
    # The name itself, with `_dmarc.` before it, is too long to be in any DNS.
    assert len(zone.asked) == MAX_QUERIES - 1


@pytest.mark.parametrize(
    ("texts", "outcome", "is_record"),
    [
        pytest.param([b"v=DMARC1; p=none"], "v=DMARC1; p=none", True, id="one record"),
        pytest.param([b"v=spf1 -all", b"v=DMARC1; p=none", b"x"], "v=DMARC1; p=none", True, id="one among other texts"),
        pytest.param([b"v=DMARC1; p=none"] * 2, "several policy records: none counts", False, id="two alike"),
        pytest.param(
            [b"v=DMARC1", b"v=DMARC1; p=bad"], "several policy records: none counts", False, id="one bad of two"
        ),
        pytest.param([b"v=DMARC2; p=none"], "no policy record", False, id="another version"),
        pytest.param([b"v=DMARC1; p=\x00\r\nx: y\xff"], "v=DMARC1; p=???x: y?", True, id="octets nobody should see"),
        pytest.param([b"v=spf1"] * 3000, "no policy record", False, id="three thousand texts"),
    ],
)
def test_one_record_counts_and_several_are_none(texts: list[bytes], outcome: str, is_record: bool) -> None:
    zone = Zone("_dmarc.com TXT v=DMARC1; psd=y")
    zone.add("_dmarc.example.com", RecordType.TXT, texts)
    site = TreeWalks(zone).site("example.com")
    assert (site.step.name, site.step.outcome, site.step.is_record) == ("example.com", outcome, is_record)


def test_no_name_is_asked_about_twice() -> None:
    zone = zone_of({"example.com": ""})
    walks = TreeWalks(zone)
    for start in ("a.example.com", "b.example.com", "example.com", "example.org", "a.example.com"):
        walks.walk(start)
    assert names_asked(zone) == [
        f"_dmarc.{name}" for name in ("a.example.com", "example.com", "com", "b.example.com", "example.org", "org")
    ]


@pytest.mark.parametrize(
    ("records", "silent", "start", "possible"),
    [
        pytest.param(
            {"example.com": "psd=n"}, ["com"], "a.example.com", "example.com", id="silence above psd=n is not heard"
        ),
        pytest.param({}, ["com"], "com", "com", id="a silent single label can only be its own"),
        pytest.param({}, ["example.com"], "example.com", "example.com", id="so can a start with nothing above it"),
        pytest.param({"com": ""}, ["example.com"], "example.com", "example.com com", id="unless there is something"),
        pytest.param(
            {"example.com": ""}, ["com"], "example.com", "example.com com", id="silence above may hide a record"
        ),
        pytest.param(
            {"a.b.com": ""}, ["b.com"], "a.b.com", "a.b.com b.com", id="silence in the middle: itself, or one below it"
        ),
        pytest.param({}, ["a.b.com", "b.com", "com"], "a.b.com", "a.b.com b.com com", id="silence all the way"),
    ],
)
def test_silence_leaves_several_organizational_domains_possible(
    records: dict[str, str], silent: list[str], start: str, possible: str
) -> None:
    zone = zone_of(records)
    for name in silent:
        zone.silence(f"_dmarc.{name}")
    walk = TreeWalks(zone).walk(start)
    assert walk.organizational_domains == set(possible.split())
    assert walk.organizational_domain == ("" if " " in possible else possible)


@pytest.mark.parametrize("start", ["a.b.c", "7.6.5.4.3.2.1.0"])
def test_what_is_possible_is_exactly_what_the_silent_names_could_hold(start: str) -> None:
    """Every mix of records and silence on the three topmost names, against every way the silence could be filled."""
    names = [".".join(start.split(".")[-count:]) for count in (3, 2, 1)]
    contents = (None, "p=none", "psd=n", "psd=y")

    def walked(held: tuple[str | None, ...], silent: tuple[bool, ...]) -> frozenset[str]:
        spoken = zip(names, held, silent, strict=True)
        zone = zone_of({name: tags for name, tags, is_silent in spoken if tags is not None and not is_silent})
        for name, is_silent in zip(names, silent, strict=True):
            if is_silent:
                zone.silence(f"_dmarc.{name}")
        return TreeWalks(zone).walk(start).organizational_domains

    certain = {held: walked(held, (False,) * 3) for held in product(contents, repeat=3)}
    assert all(len(domains) == 1 for domains in certain.values())
    for held, silent in product(certain, product((False, True), repeat=3)):
        fillings = product(*(contents if is_silent else (tags,) for tags, is_silent in zip(held, silent, strict=True)))
        assert walked(held, silent) == frozenset().union(*(certain[filling] for filling in fillings)), (held, silent)


@pytest.mark.parametrize(
    ("records", "silent", "pair", "alignment", "queries"),
    [
        pytest.param(
            {"example.com": ""}, [], "a.example.com b.example.com", Alignment.ALIGNED, 4, id="two below one"
        ),
        pytest.param({}, [], "example.com mail.example.com", Alignment.NOT_ALIGNED, 3, id="no record, so no kinship"),
        pytest.param(
            {"mail.example.com": ""}, [], "mail.example.com example.com", Alignment.NOT_ALIGNED, 3,
            id="the parent of the only record",
        ),
        pytest.param(
            {"example.com": "", "b.example.com": "psd=n"}, [], "a.example.com b.example.com", Alignment.NOT_ALIGNED, 4,
            id="a department that went its own way",
        ),
        pytest.param({"example": "psd=y"}, [], "a.example b.example", Alignment.NOT_ALIGNED, 2, id="two under a public suffix"),
        pytest.param({"example": "psd=y"}, [], "x.a.example y.a.example", Alignment.ALIGNED, 4, id="two under one below it"),
        pytest.param({"example": "psd=y"}, [], "example a.example", Alignment.NOT_ALIGNED, 2, id="the public suffix itself"),
        pytest.param({"example.com": ""}, ["evil.com"], "example.com evil.com", Alignment.NOT_ALIGNED, 2, id="a silent stranger"),
        pytest.param(
            {"example.com": ""}, ["a.evil.com", "evil.com"], "x.example.com a.evil.com", Alignment.NOT_ALIGNED, 3,
            id="a silent stranger's subdomain",
        ),
        pytest.param(
            {"mail.example.com": ""}, ["example.com"], "mail.example.com evil.com", Alignment.NOT_ALIGNED, 3,
            id="the author's parent is silent, the stranger is none of its",
        ),
        pytest.param(
            {"example.com": ""}, ["b.example.com"], "example.com b.example.com", Alignment.UNKNOWN, 3,
            id="a silent name of the same organization",
        ),
        pytest.param({"example.com": ""}, ["com"], "example.com evil.com", Alignment.UNKNOWN, 3, id="a silent top-level domain"),
        pytest.param(
            {"example.com": "psd=n"}, ["com"], "example.com evil.com", Alignment.NOT_ALIGNED, 1, id="is not asked beyond psd=n"
        ),
    ],
)  # fmt: skip
def test_alignment(records: dict[str, str], silent: list[str], pair: str, alignment: Alignment, queries: int) -> None:
    zone = zone_of(records)
    for name in silent:
        zone.silence(f"_dmarc.{name}")
    author_domain, identifier = pair.split()
    assert TreeWalks(zone).alignment(author_domain, identifier) is alignment
    assert len(zone.asked) == queries


@pytest.mark.parametrize(
    ("lines", "exists", "queries"),
    [
        pytest.param("a.example.com A 192.0.2.1", True, 2, id="an address"),
        pytest.param("x.a.example.com A 192.0.2.1", True, 2, id="only something below it"),
        pytest.param("_dmarc.a.example.com TXT x", True, 1, id="told by its _dmarc already"),
        pytest.param("example.com A 192.0.2.1", False, 2, id="nothing"),
        pytest.param("a.example.com TEMPFAIL", None, 2, id="silence"),
    ],
)
def test_existence_is_not_nxdomain(lines: str, exists: bool | None, queries: int) -> None:
    zone = Zone(lines)
    assert TreeWalks(zone).does_exist("a.example.com") is exists
    assert len(zone.asked) == queries


_LABELS = st.sampled_from("abc")
_DOMAINS = st.lists(_LABELS, min_size=1, max_size=10).map(".".join)
_ANSWERS = st.one_of(
    st.just(Answer(AnswerStatus.NXDOMAIN)),
    st.just(Answer(AnswerStatus.TEMPFAIL)),
    st.lists(st.sampled_from([b"v=DMARC1", b"v=DMARC1; psd=y", b"v=DMARC1;psd=n", b"x"]), max_size=2).map(
        lambda texts: Answer(AnswerStatus.FOUND, tuple(texts))
    ),
)


@given(_DOMAINS, _DOMAINS, st.dictionaries(_DOMAINS, _ANSWERS))
def test_any_dns_gives_an_answer_in_eight_queries_a_walk(
    author_domain: str, other: str, answers: dict[str, Answer]
) -> None:
    asked: list[str] = []

    def ask(question: Question) -> Answer:
        asked.append(question.name)
        return answers.get(question.name.removeprefix("_dmarc."), Answer(AnswerStatus.NODATA))

    walks = TreeWalks(ask)
    there, back = walks.alignment(author_domain, other), walks.alignment(other, author_domain)
    assert there is back
    if author_domain == other:
        assert there is not Alignment.NOT_ALIGNED
    assert len(asked) == len(set(asked)) <= 2 * MAX_QUERIES
    for domain in walks.walk(author_domain).organizational_domains:
        assert ("." + author_domain).endswith("." + domain)
