"""DMARC: who may speak for an author domain, which policy applies if nobody may, and what no forger can change about it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailward.auth.dmarc import MAX_AUTHOR_DOMAINS, evaluate, evaluate_all
from mailward.model.dns import Answer, AnswerStatus, Question
from mailward.model.results import (
    Authors,
    Disposition,
    DkimResult,
    DmarcResult,
    FromFault,
    Result,
    SpfIdentity,
    SpfResult,
)
from tests.support.zone import Zone

NONE, QUARANTINE, REJECT = Disposition.NONE, Disposition.QUARANTINE, Disposition.REJECT
REJECTS = "_dmarc.example.com TXT v=DMARC1; p=reject"


def spf_result(text: str) -> SpfResult:
    """Read `pass example.com`; nothing is no SPF record."""
    word, _, domain = text.partition(" ")
    return SpfResult(Result(word or "none"), SpfIdentity.MAILFROM, domain)


def dkim_results(text: str) -> list[DkimResult]:
    """Read `pass example.com, temperror example.net`."""
    pairs = [item.split() for item in text.split(",") if item]
    return [DkimResult(Result(word), position=at, signing_domain=domain) for at, (word, domain) in enumerate(pairs)]


def judge(zone: Zone, author_domain: str, spf: str = "", dkim: str = "") -> DmarcResult:
    return evaluate(author_domain, spf_result(spf), dkim_results(dkim), zone)


@pytest.mark.parametrize(
    ("author_domain", "spf", "dkim", "mode", "result", "aligned"),
    [
        # RFC 9989 B.1
        pytest.param("example.com", "pass example.com", "", "s", Result.PASS, "spf=example.com", id="B.1.1-1: SPF, strict"),
        pytest.param(
            "example.com", "pass child.example.com", "", "r", Result.PASS, "spf=child.example.com", id="B.1.1-2: SPF, relaxed"
        ),
        pytest.param("child.example.com", "pass example.net", "", "r", Result.FAIL, "", id="B.1.1-3: SPF, not aligned"),
        pytest.param("example.com", "", "pass example.com", "s", Result.PASS, "dkim=example.com", id="B.1.2-1: DKIM, strict"),
        pytest.param(
            "child.example.com", "", "pass example.com", "r", Result.PASS, "dkim=example.com", id="B.1.2-2: DKIM, relaxed"
        ),
        pytest.param("child.example.com", "", "pass example.net", "r", Result.FAIL, "", id="B.1.2-3: DKIM, not aligned"),
        # RFC 9989 4.4, the table
        pytest.param(
            "news.example.com", "", "pass foo.example.com", "r", Result.PASS, "dkim=foo.example.com", id="4.4: relaxed"
        ),
        pytest.param(
            "news.example.com", "", "pass news.example.com", "s", Result.PASS, "dkim=news.example.com", id="4.4: strict"
        ),
        pytest.param("news.example.com", "", "pass foo.example.net", "r", Result.FAIL, "", id="4.4: none"),
        # RFC 9989 B.3.1
        pytest.param(
            "example.com", "pass mail.example.com", "pass example.com", "r", Result.PASS, "dkim=example.com", id="B.3.1"
        ),
        pytest.param("example.com", "pass child.example.com", "", "s", Result.FAIL, "", id="strict: a child is not aligned"),
        pytest.param("child.example.com", "", "pass example.com", "s", Result.FAIL, "", id="strict: nor is a parent"),
        pytest.param(
            "example.com", "pass example.com", "fail x.com, pass example.com", "s", Result.PASS,
            "dkim=example.com spf=example.com", id="both, strict",
        ),
        pytest.param(
            "example.com", "fail example.com", "fail example.com, pass example.com, pass example.com", "r", Result.PASS,
            "dkim=example.com", id="one good signature is enough",
        ),
        pytest.param("notexample.com", "", "pass example.com", "r", Result.NONE, "", id="a suffix of letters is no parent"),
        pytest.param("example.com", "", "pass notexample.com", "r", Result.FAIL, "", id="nor a child"),
    ],
)  # fmt: skip
def test_identifier_alignment(author_domain: str, spf: str, dkim: str, mode: str, result: Result, aligned: str) -> None:
    found = judge(Zone(f"{REJECTS}; adkim={mode}; aspf={mode}"), author_domain, spf, dkim)
    assert (found.result, " ".join(found.aligned)) == (result, aligned)


@pytest.mark.parametrize(
    ("tags", "spf", "dkim"),
    [
        pytest.param("adkim=s", Result.PASS, Result.FAIL, id="adkim=s"),
        pytest.param("aspf=s", Result.FAIL, Result.PASS, id="aspf=s"),
        pytest.param("adkim=s; aspf=s", Result.FAIL, Result.FAIL, id="both"),
        pytest.param("adkim=r; aspf=r", Result.PASS, Result.PASS, id="neither"),
    ],
)
def test_each_method_has_its_own_mode(tags: str, spf: Result, dkim: Result) -> None:
    assert judge(Zone(f"{REJECTS}; {tags}"), "example.com", spf="pass a.example.com").result is spf
    assert judge(Zone(f"{REJECTS}; {tags}"), "example.com", dkim="pass a.example.com").result is dkim


@pytest.mark.parametrize(
    ("spf", "dkim", "names"),
    [
        pytest.param(
            "pass example.net", "pass example.org", "example.com", id="under another top: none can be aligned"
        ),
        pytest.param("pass a.example.com", "pass example.com", "example.com", id="an equal name: no walk"),
        pytest.param(
            "",
            "temperror a.example.com, pass b.example.com",
            "example.com com b.example.com",
            id="what passed comes first",
        ),
        pytest.param("fail a.example.com", "fail b.example.com", "example.com", id="nothing passed: no walk"),
    ],
)
def test_no_more_is_asked_than_the_result_needs(spf: str, dkim: str, names: str) -> None:
    zone = Zone(REJECTS)
    judge(zone, "example.com", spf, dkim)
    assert [question.name for question in zone.asked] == [f"_dmarc.{name}" for name in names.split()]


@pytest.mark.parametrize("word", [result.value for result in Result if result not in (Result.PASS, Result.TEMPERROR)])
def test_what_is_no_pass_never_counts(word: str) -> None:
    zone = Zone(REJECTS)
    assert judge(zone, "example.com", f"{word} example.com", f"{word} example.com").result is Result.FAIL
    assert judge(zone, "example.com", f"{word} example.com", "pass example.com").aligned == ("dkim=example.com",)
    assert judge(zone, "example.com", "pass example.com", f"{word} example.com").aligned == ("spf=example.com",)
    assert judge(zone, "example.com", f"{word} a.example.com", f"{word} b.example.com").result is Result.FAIL
    assert {question.name for question in zone.asked} == {"_dmarc.example.com"}


def test_the_helo_identity_is_refused() -> None:
    for result in Result:
        with pytest.raises(ValueError, match="HELO"):
            evaluate("example.com", SpfResult(result, SpfIdentity.HELO, "example.com"), (), Zone(REJECTS))
        with pytest.raises(ValueError, match="HELO"):
            evaluate_all(Authors(()), SpfResult(result, SpfIdentity.HELO, "example.com"), (), Zone())


SIMPLE = "_dmarc.example.com TXT v=DMARC1; p=reject\n_dmarc.signing.example.com TXT v=DMARC1; p=none"
DEEP = "a.b.c.d.e.f.g.h.i.j.k.example.com"
BANKS = "_dmarc.bank.example TXT v=DMARC1; p=none; sp=quarantine; psd=y"
GIANT = f"{BANKS}\n_dmarc.giant.bank.example TXT v=DMARC1; p=reject"


@pytest.mark.parametrize(
    ("lines", "author_domain", "spf", "dkim", "expected", "domains", "queries"),
    [
        # RFC 9989 B.4.1 to B.4.3; "domains" are the policy domain and the organizational domain
        pytest.param(
            SIMPLE, "example.com", "pass example.com", "pass signing.example.com",
            (Result.PASS, REJECT), "example.com example.com", 1, id="B.4.1: equal names need no walk",
        ),
        pytest.param(
            SIMPLE, "example.com", "fail example.com", "pass signing.example.com",
            (Result.PASS, REJECT), "example.com example.com", 3, id="B.4.1: DKIM alone, two walks of three names",
        ),
        pytest.param(
            SIMPLE, "example.com", "fail example.com", "fail signing.example.com",
            (Result.FAIL, REJECT), "example.com ", 1, id="B.4.1: neither passes",
        ),
        pytest.param(
            SIMPLE, DEEP, "pass example.com", "", (Result.PASS, REJECT), "example.com example.com", 8, id="B.4.2: SPF",
        ),
        pytest.param(
            SIMPLE, DEEP, "fail example.com", "pass signing.example.com",
            (Result.PASS, REJECT), "example.com example.com", 9, id="B.4.2: DKIM alone, three walks of nine names",
        ),
        pytest.param(
            SIMPLE, DEEP, "", "", (Result.FAIL, REJECT), "example.com example.com", 8, id="B.4.2: neither passes",
        ),
        pytest.param(
            GIANT, "giant.bank.example", "pass mail.giant.bank.example", "pass mail.mega.bank.example",
            (Result.PASS, REJECT), "giant.bank.example giant.bank.example", 3, id="B.4.3: SPF is aligned",
        ),
        pytest.param(
            GIANT, "giant.bank.example", "fail mail.giant.bank.example", "pass mail.mega.bank.example",
            (Result.FAIL, REJECT), "giant.bank.example giant.bank.example", 2, id="B.4.3: DKIM of another bank is not",
        ),
        # where the policy comes from
        pytest.param(
            GIANT, "mail.mega.bank.example", "", "", (Result.FAIL, QUARANTINE), "bank.example mega.bank.example", 3,
            id="a public suffix's policy for a bank without a record",
        ),
        pytest.param(
            GIANT, "mail.giant.bank.example", "", "", (Result.FAIL, REJECT), "giant.bank.example giant.bank.example", 3,
            id="a public suffix's policy is not for one that has its own",
        ),
        pytest.param(
            GIANT, "bank.example", "", "pass giant.bank.example", (Result.FAIL, NONE), "bank.example bank.example", 2,
            id="mail of the public suffix itself: nobody below speaks for it",
        ),
        pytest.param(
            "_dmarc.mail.example.com TXT v=DMARC1; p=reject\n_dmarc.example.com TXT v=DMARC1; p=none; sp=quarantine",
            "a.mail.example.com", "", "", (Result.FAIL, QUARANTINE), "example.com example.com", 4,
            id="of two records above, the one with the fewest labels",
        ),
        pytest.param(
            "_dmarc.mail.example.com TXT v=DMARC1; p=reject\n_dmarc.example.com TXT v=DMARC1; p=none; sp=quarantine",
            "mail.example.com", "", "", (Result.FAIL, REJECT), "mail.example.com ", 1, id="the author domain's own record first",
        ),
        pytest.param(
            "_dmarc.mail.example.com TXT v=DMARC1; p=reject; psd=n\n_dmarc.example.com TXT v=DMARC1; p=none",
            "a.mail.example.com", "", "pass example.com", (Result.FAIL, REJECT), "mail.example.com mail.example.com", 2,
            id="psd=n in the middle: its policy, and its parent is a stranger",
        ),
        pytest.param(
            "_dmarc.example.com TXT v=DMARC1; p=none; sp=reject; np=quarantine; psd=y",
            "example.com", "", "", (Result.FAIL, NONE), "example.com ", 1, id="the author domain has psd=y: its p",
        ),
        pytest.param(
            "_dmarc.mail.example.com TXT v=DMARC1; p=reject", "mail.example.com", "", "pass example.com",
            (Result.FAIL, REJECT), "mail.example.com mail.example.com", 3, id="the only record's parent does not align",
        ),
        pytest.param(
            "_dmarc.mail.example.com TXT v=DMARC1; p=reject", "example.com", "", "pass example.com", (Result.NONE, None),
            " example.com", 2, id="no record above: none, whoever signed",
        ),
        pytest.param(
            f"{REJECTS}\n_dmarc.example.com TXT v=DMARC1; p=none", "example.com", "", "", (Result.NONE, None),
            " example.com", 2, id="two records are none",
        ),
        pytest.param(
            f"_dmarc.mail.{REJECTS[7:]}\n_dmarc.mail.example.com TXT v=DMARC1\n{REJECTS}; sp=quarantine", "mail.example.com",
            "", "", (Result.FAIL, QUARANTINE), "example.com example.com", 3, id="two records are none: the next one above",
        ),
        pytest.param(
            "_dmarc.example.com TXT v=DMARC1; p=bad\n_dmarc.com TXT v=DMARC1; p=reject; psd=y", "example.com", "",
            "pass example.com", (Result.NONE, None), "example.com ", 1, id="an invalid record stops DMARC, even one above it",
        ),
        pytest.param(
            "_dmarc.example.com TXT v=DMARC1; p=bad; sp=reject; rua=mailto:a@b.example", "a.example.com", "", "",
            (Result.FAIL, NONE), "example.com example.com", 3, id="an invalid record with an rua is p=none",
        ),
        pytest.param(
            f"{REJECTS}; t=y", "example.com", "", "", (Result.FAIL, QUARANTINE), "example.com ", 1, id="test mode"
        ),
        pytest.param(
            f"{REJECTS}; t=y; np=none\na.example.com A 192.0.2.1", "a.example.com", "", "", (Result.FAIL, QUARANTINE),
            "example.com example.com", 4, id="test mode for a subdomain",
        ),
        pytest.param("", "example.com", "pass example.com", "", (Result.NONE, None), " example.com", 2, id="no record at all"),
    ],
)  # fmt: skip
def test_policy_discovery_and_tree_walk(
    lines: str,
    author_domain: str,
    spf: str,
    dkim: str,
    expected: tuple[Result, Disposition | None],
    domains: str,
    queries: int,
) -> None:
    zone = Zone(lines)
    found = judge(zone, author_domain, spf, dkim)
    assert (found.result, found.policy) == expected
    assert [found.policy_domain, found.organizational_domain] == domains.split(" ")
    assert len(zone.asked) == len(set(zone.asked)) == queries


@pytest.mark.parametrize(
    ("tags", "lines", "policy", "queries"),
    [
        pytest.param(
            "p=none; sp=quarantine; np=reject", "a.example.com A 192.0.2.1", QUARANTINE, 4, id="it exists: sp"
        ),
        pytest.param(
            "p=none; sp=quarantine; np=reject", "b.a.example.com A 192.0.2.1", QUARANTINE, 4, id="by what is below"
        ),
        pytest.param(
            "p=none; sp=quarantine; np=reject", "_dmarc.a.example.com TXT x", QUARANTINE, 3, id="by its _dmarc"
        ),
        pytest.param("p=none; sp=quarantine; np=reject", "", REJECT, 4, id="it does not: np"),
        pytest.param("p=none; sp=quarantine; np=reject", "a.example.com TEMPFAIL", None, 4, id="nobody knows"),
        pytest.param("p=quarantine; np=reject", "a.example.com A 192.0.2.1", QUARANTINE, 4, id="it exists, no sp: p"),
        pytest.param("p=none; sp=reject", "a.example.com TEMPFAIL", REJECT, 3, id="no np: nobody asks"),
        pytest.param("p=reject", "a.example.com TEMPFAIL", REJECT, 3, id="neither: nobody asks"),
        pytest.param("p=none; sp=reject; np=reject", "a.example.com TEMPFAIL", REJECT, 3, id="both alike: nobody asks"),
        pytest.param("p=none; sp=none; np=quarantine; t=y", "a.example.com TEMPFAIL", NONE, 3, id="alike in test mode"),
    ],
)
def test_subdomain_policies(tags: str, lines: str, policy: Disposition | None, queries: int) -> None:
    zone = Zone(f"_dmarc.example.com TXT v=DMARC1; {tags}\n{lines}")
    found = judge(zone, "a.example.com")
    assert found.policy is policy
    assert found.result is (Result.TEMPERROR if policy is None else Result.FAIL)
    assert len(zone.asked) == queries
    passed = judge(zone, "a.example.com", "pass example.com")
    assert (passed.result, passed.policy) == (Result.PASS, policy)


@pytest.mark.parametrize(
    ("lines", "author_domain", "spf", "dkim", "expected"),
    [
        pytest.param("_dmarc.example.com TEMPFAIL", "example.com", "", "", (Result.TEMPERROR, None), id="record not known"),
        pytest.param(
            "_dmarc.example.com TEMPFAIL", "example.com", "pass example.com", "pass example.com", (Result.TEMPERROR, None),
            id="record not known, everything passes",
        ),
        pytest.param("_dmarc.example.com TEMPFAIL", "a.example.com", "", "", (Result.TEMPERROR, None), id="above not known"),
        pytest.param(
            f"{REJECTS}\n_dmarc.com TEMPFAIL", "a.example.com", "", "", (Result.TEMPERROR, None), id="the top not known"
        ),
        pytest.param(
            f"{REJECTS}; psd=n\n_dmarc.com TEMPFAIL", "a.example.com", "", "", (Result.FAIL, REJECT), id="psd=n is top enough"
        ),
        pytest.param(REJECTS, "example.com", "", "temperror example.com", (Result.TEMPERROR, REJECT), id="key not available"),
        pytest.param(REJECTS, "example.com", "temperror example.com", "", (Result.TEMPERROR, REJECT), id="SPF not available"),
        pytest.param(
            REJECTS, "example.com", "temperror b.example.com", "fail example.com", (Result.TEMPERROR, REJECT),
            id="SPF of a subdomain not available",
        ),
        pytest.param(
            f"{REJECTS}; aspf=s", "example.com", "temperror b.example.com", "", (Result.FAIL, REJECT),
            id="SPF of a subdomain not available, and not aligned in strict mode",
        ),
        pytest.param(
            REJECTS, "example.com", "temperror example.com", "pass example.com", (Result.PASS, REJECT), id="DKIM passes anyway"
        ),
        pytest.param(
            REJECTS, "example.com", "pass example.com", "temperror example.com", (Result.PASS, REJECT), id="SPF passes anyway"
        ),
        pytest.param(
            REJECTS, "example.com", "temperror example.com", "temperror a.example.com, pass b.example.com",
            (Result.PASS, REJECT), id="a relaxed pass among errors",
        ),
        pytest.param(
            f"{REJECTS}\n_dmarc.a.example.com TEMPFAIL", "example.com", "", "pass a.example.com", (Result.TEMPERROR, REJECT),
            id="walk of an identifier that passed not known",
        ),
        pytest.param(
            f"{REJECTS}\n_dmarc.a.example.com TEMPFAIL", "example.com", "", "pass a.example.com, pass b.example.com",
            (Result.PASS, REJECT), id="walk of one not known, another one aligned",
        ),
        pytest.param(
            f"{REJECTS}\n_dmarc.a.example.com TEMPFAIL", "example.com", "", "fail a.example.com", (Result.FAIL, REJECT),
            id="walk of an identifier that failed is not needed",
        ),
        pytest.param(
            f"{REJECTS}\n_dmarc.com TEMPFAIL", "example.com", "", "pass a.example.com", (Result.TEMPERROR, REJECT),
            id="organizational domains not known: is one above both",
        ),
        pytest.param(
            f"{REJECTS}\n_dmarc.com TEMPFAIL", "example.com", "", "pass example.com", (Result.PASS, REJECT),
            id="organizational domain not needed",
        ),
        pytest.param("", "example.com", "temperror example.com", "temperror example.com", (Result.NONE, None), id="no record"),
    ],
)  # fmt: skip
def test_what_the_dns_did_not_say_is_neither_pass_nor_fail(
    lines: str, author_domain: str, spf: str, dkim: str, expected: tuple[Result, Disposition | None]
) -> None:
    found = judge(Zone(lines), author_domain, spf, dkim)
    assert (found.result, found.policy) == expected
    assert found.reason or found.result is Result.PASS


SILENT_STRANGERS = "\n".join(
    f"{prefix}{name} TEMPFAIL"
    for prefix in ("", "_dmarc.")
    for name in ("evil.net", "evil.com", "a.evil.com", "evil.bank.example", "example.com.evil.net", "notexample.com")
)


@pytest.mark.parametrize("words", ["pass", "temperror"])
@pytest.mark.parametrize(
    ("author_domain", "stranger"),
    [
        pytest.param("example.com", "evil.net", id="under another top"),
        pytest.param("example.com", "evil.com", id="under the same top"),
        pytest.param("example.com", "a.evil.com", id="a subdomain under the same top"),
        pytest.param("example.com", "notexample.com", id="a name that ends alike"),
        pytest.param("example.com", "example.com.evil.net", id="a name that begins alike"),
        pytest.param("mail.example.com", "evil.com", id="author is a subdomain"),
        pytest.param(DEEP, "evil.com", id="author is deep"),
        pytest.param("giant.bank.example", "evil.bank.example", id="under the same public suffix"),
        pytest.param("mail.giant.bank.example", "evil.bank.example", id="author is a subdomain under the same suffix"),
        pytest.param("bank.example", "evil.com", id="author is a public suffix"),
    ],
)
def test_no_silent_stranger_turns_a_failure_into_doubt(author_domain: str, stranger: str, words: str) -> None:
    zone = Zone(f"{REJECTS}\n{GIANT.replace('p=none', 'p=reject').replace('quarantine', 'reject')}\n{SILENT_STRANGERS}")
    found = judge(zone, author_domain, f"{words} {stranger}", f"{words} {stranger}, {words} a.{stranger}")
    assert (found.result, found.policy) == (Result.FAIL, REJECT)
    assert not any(question.name.endswith(stranger) for question in zone.asked)


def test_not_even_where_the_author_domains_parent_is_silent() -> None:
    zone = Zone(f"_dmarc.mail.example.com TXT v=DMARC1; p=reject\n_dmarc.example.com TEMPFAIL\n{SILENT_STRANGERS}")
    found = judge(zone, "mail.example.com", "pass evil.com", "temperror evil.com, pass a.evil.com")
    assert (found.result, found.policy, found.organizational_domain) == (Result.FAIL, REJECT, "")


def test_the_walk_of_the_author_domain_is_shown() -> None:
    found = judge(Zone(f"{REJECTS}\n_dmarc.com TXT hello"), "a.example.com")
    assert [(step.name, step.outcome, step.is_record) for step in found.walk] == [
        ("a.example.com", "no policy record", False),
        ("example.com", "v=DMARC1; p=reject", True),
        ("com", "no policy record", False),
    ]
    assert [step.name for step in judge(Zone(REJECTS), "example.com").walk] == ["example.com"]


AUTHORS = """
_dmarc.reject.example TXT v=DMARC1; p=reject
_dmarc.quarantine.example TXT v=DMARC1; p=quarantine
_dmarc.p-none.example TXT v=DMARC1; p=none
_dmarc.good.example TXT v=DMARC1; p=reject; adkim=s
_dmarc.silent.example TEMPFAIL
"""


@pytest.mark.parametrize(
    ("domains", "worst", "result", "policy"),
    [
        pytest.param("good", "good", Result.PASS, REJECT, id="one that passes"),
        pytest.param("good norecord", "norecord", Result.NONE, None, id="none is worse than pass"),
        pytest.param("norecord p-none", "p-none", Result.FAIL, NONE, id="a failure with p=none is worse than none"),
        pytest.param(
            "p-none silent", "silent", Result.TEMPERROR, None, id="temperror is worse than a failure with p=none"
        ),
        pytest.param(
            "silent quarantine", "quarantine", Result.FAIL, QUARANTINE, id="quarantine is worse than temperror"
        ),
        pytest.param("quarantine reject silent good", "reject", Result.FAIL, REJECT, id="reject is the worst"),
        pytest.param("good reject", "reject", Result.FAIL, REJECT, id="a good author domain hides no forged one"),
        pytest.param("norecord other", "norecord", Result.NONE, None, id="the first of equals"),
    ],
)
@pytest.mark.parametrize("is_reversed", [False, True])
def test_the_strictest_failing_policy_wins(
    domains: str, worst: str, result: Result, policy: Disposition | None, is_reversed: bool
) -> None:
    names = [f"{name}.example" for name in domains.split()]
    if is_reversed:
        names.reverse()
        worst = worst.replace("norecord", "other") if "other" in domains else worst
    found, counts = evaluate_all(
        Authors(tuple(names)), spf_result(""), dkim_results("pass good.example"), Zone(AUTHORS)
    )
    assert [one.author_domain for one in found] == names
    assert (counts.author_domain, counts.result, counts.policy) == (f"{worst}.example", result, policy)


@pytest.mark.parametrize("fault", list(FromFault))
def test_no_author_domain_is_an_error_that_names_the_fault(fault: FromFault) -> None:
    zone = Zone(REJECTS)
    found, counts = evaluate_all(
        Authors((), fault), spf_result("pass example.com"), dkim_results("pass example.com"), zone
    )
    assert found == (counts,)
    assert (counts.result, counts.author_domain, counts.policy, zone.asked) == (Result.PERMERROR, "", None, [])
    assert "From" in counts.reason


@pytest.mark.parametrize("fault", [FromFault.SEVERAL_FIELDS, FromFault.MALFORMED])
def test_a_faulty_from_passes_only_if_every_domain_does(fault: FromFault) -> None:
    for names, result in (("good.example",), Result.PASS), (("good.example", "reject.example"), Result.FAIL):
        _, counts = evaluate_all(
            Authors(names, fault), spf_result(""), dkim_results("pass good.example"), Zone(AUTHORS)
        )
        assert counts.result is result
        assert "From field" in counts.reason


@pytest.mark.parametrize(
    ("first", "policy"),
    [
        pytest.param("good", QUARANTINE, id="ten that pass before it"),
        pytest.param("norecord", QUARANTINE, id="ten without a record before it"),
        pytest.param("p-none", QUARANTINE, id="ten that fail with p=none before it"),
        pytest.param("silent", QUARANTINE, id="ten that do not answer before it"),
        pytest.param("reject", REJECT, id="one of the ten fails with p=reject"),
    ],
)
def test_an_eleventh_author_domain_is_not_hidden(first: str, policy: Disposition) -> None:
    names = [f"{first}.example"] + ["good.example"] * (MAX_AUTHOR_DOMAINS - 1) + ["victim.example"]
    zone = Zone(AUTHORS)
    found, counts = evaluate_all(Authors(tuple(names)), spf_result(""), dkim_results("pass good.example"), zone)
    assert (counts.result, counts.policy, counts.aligned) == (Result.PERMERROR, policy, ())
    assert "more than 10" in counts.reason
    assert len(found) == MAX_AUTHOR_DOMAINS
    assert not any("victim" in question.name for question in zone.asked)


def test_deep_names_do_not_use_up_the_queries_of_the_last_author_domain() -> None:
    deep = [".".join(f"l{at}x{label}" for label in range(20)) + ".example" for at in range(MAX_AUTHOR_DOMAINS - 1)]
    zone, asked = Zone(REJECTS), []

    def ask(question: Question) -> Answer:
        asked.append(question)
        return zone(question) if len(asked) <= 20 else Answer(AnswerStatus.TEMPFAIL)

    _, counts = evaluate_all(Authors((*deep, "example.com")), spf_result(""), (), ask)
    assert (counts.author_domain, counts.result, counts.policy) == ("example.com", Result.FAIL, REJECT)


def test_questions_of_one_message_are_asked_once() -> None:
    zone = Zone(REJECTS)
    names = ("a.example.com", "b.example.com", "example.com")
    evaluate_all(
        Authors(names), spf_result("pass c.example.com"), dkim_results("pass d.example.com, pass a.example.com"), zone
    )
    assert (
        len(zone.asked) == len(set(zone.asked)) == 5
    )  # a, b, example.com, com and d; d is aligned, so c does not matter


def test_a_name_of_hundreds_of_labels_is_judged_like_any_other() -> None:
    for labels in (8, 9, 13, 120, 300):
        zone = Zone(REJECTS)
        name = ".".join(["x"] * (labels - 2)) + ".example.com"
        assert judge(zone, name, "pass example.com", f"pass {name}").result is Result.PASS
        assert judge(zone, name, "pass evil.com", f"fail {name}, pass a.{name}x").result is Result.FAIL
        assert len(zone.asked) <= 2 * (8 + 8)


_WORDS = st.sampled_from([result.value for result in Result])
_NAMES = st.lists(st.sampled_from("abc"), min_size=1, max_size=9).map(".".join) | st.text(
    "ab.-_\u00e9", min_size=1, max_size=20
)
_TEXTS = st.sampled_from(
    [b"v=DMARC1; p=reject", b"v=DMARC1; psd=y", b"v=DMARC1; sp=none; np=reject", b"v=DMARC1; p=x", b"\xff"]
)
_ANSWERS = st.builds(
    Answer, st.just(AnswerStatus.FOUND), st.lists(_TEXTS | st.binary(max_size=40), max_size=2).map(tuple)
) | st.sampled_from([Answer(status) for status in AnswerStatus])


@given(
    st.lists(_NAMES, max_size=12, unique=True),
    st.none() | st.sampled_from(FromFault),
    st.tuples(_WORDS, _NAMES),
    st.lists(st.tuples(_WORDS, _NAMES), max_size=4),
    st.dictionaries(_NAMES, _ANSWERS, max_size=8),
    st.sampled_from([Answer(AnswerStatus.NXDOMAIN), Answer(AnswerStatus.TEMPFAIL), Answer(AnswerStatus.NODATA)]),
)
def test_anything_gives_a_result_that_rests_on_what_passed(
    names: list[str],
    fault: FromFault | None,
    spf: tuple[str, str],
    dkim: list[tuple[str, str]],
    answers: dict[str, Answer],
    otherwise: Answer,
) -> None:
    def ask(question: Question) -> Answer:
        return answers.get(question.name.removeprefix("_dmarc."), otherwise)

    spf_found = SpfResult(Result(spf[0]), SpfIdentity.MAILFROM, spf[1])
    dkim_found = [DkimResult(Result(word), signing_domain=domain) for word, domain in dkim]
    found, counts = evaluate_all(Authors(tuple(names), fault), spf_found, dkim_found, ask)
    passed = {f"dkim={domain}" for word, domain in dkim if word == "pass"}
    passed |= {f"spf={spf[1]}"} if spf[0] == "pass" else set()
    for one in (*found, counts):
        assert (one.result is Result.PASS) == bool(one.aligned)
        assert set(one.aligned) <= passed
        assert one.result is not Result.FAIL or one.policy is not None
    assert counts.result is not Result.PASS or all(one.result is Result.PASS for one in found)
