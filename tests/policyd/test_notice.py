"""What a person and a program are told of an incident, whatever the account's name."""

from __future__ import annotations

import json
import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailward.model.accounts import AUTOMATIC, Account, Incident, Suspension
from mailward.policy.incidents import LOGIN_NETWORKS
from policyd.notice import News, as_json, as_variables, make_notice, subject, text
from tests.policyd.incident_support import ALICE, START, notice

SUSPENDED = Suspension(START + 30, AUTOMATIC, "limit account-surge reached, 51 refused")
NAMES = st.text(max_size=400) | st.text("\r\n\0\x1b'\"$`;| \udcff\u202e", max_size=30)


@pytest.mark.parametrize(
    ("told", "what", "suspension", "news", "line"),
    [
        ("", "opened", None, News.OPENED, f"[mailward] {ALICE} has reached the limit account-surge"),
        ("", "suspended", SUSPENDED, News.OPENED, f"[mailward] {ALICE} is SUSPENDED"),
        ("opened", "suspended", SUSPENDED, News.SUSPENDED, f"[mailward] {ALICE} is SUSPENDED"),
        ("opened", "closed", None, News.CLOSED, f"[mailward] {ALICE}: incident over"),
    ],
    ids=["first-hit", "suspended-at-once", "suspended-later", "over"],
)
def test_the_subject_says_what_has_happened(
    told: str, what: str, suspension: Suspension | None, news: News, line: str
) -> None:
    incident = Incident(START, "account-surge", 51, START + 30, told=told)
    made = make_notice(Account(ALICE, incident, suspension), what, "mx.example.net")
    assert made.news is news
    assert subject(made) == line


def test_who_is_woken_reads_what_happened_and_what_to_do() -> None:
    words = text(notice(suspended=SUSPENDED))
    for part in (
        "alice@example.com has reached the limit account-surge. It is SUSPENDED: it can neither send nor log in.",
        "reached:    51 times",
        "since:      2027-01-15 08:00:00 UTC",
        "suspended:  2027-01-15 08:00:30 UTC, by mailward-policyd",
        "seen by:    mx.example.net",
        "mailward limits show alice@example.com",
        "mailward limits resume alice@example.com",
    ):
        assert part in words


def test_what_was_only_logged_is_not_called_refused() -> None:
    incident = Incident(START, "watch", 51, START + 30)
    made = make_notice(Account(ALICE, incident), "opened", "mx.example.net")
    assert "refused" not in text(made)
    assert json.loads(as_json(made))["refused"] == 0


@pytest.mark.parametrize(
    ("made", "part"),
    [
        (notice(), "It is NOT suspended"),
        (notice(), "mailward limits suspend alice@example.com"),
        (notice(cause=LOGIN_NETWORKS), "logs in from more networks than one person has"),
        (notice(news=News.CLOSED), "over since:"),
        (notice(news=News.CLOSED), "Nothing is left to do."),
    ],
    ids=["still-active", "how-to-stop-it", "many-networks", "closed-when", "closed-advice"],
)
def test_the_words_fit_the_news(made: object, part: str) -> None:
    assert part in text(made)  # type: ignore[arg-type]


def test_what_is_pasted_into_a_shell_runs_nothing_of_the_name() -> None:
    words = text(notice("$(reboot);`id`'\"@example.com", suspended=SUSPENDED))
    [line] = [line for line in words.splitlines() if " limits resume " in line]
    assert shlex.split(line) == ["mailward", "limits", "resume", "$(reboot);`id`'\"@example.com"]


def test_a_name_like_an_option_is_none_to_the_command() -> None:
    assert "mailward limits show -- --help" in text(notice("--help"))


@given(NAMES, NAMES)
@settings(max_examples=80)
def test_no_name_and_no_reason_breaks_a_line_or_turns_one_round(name: str, why: str) -> None:
    made = notice(name, suspended=Suspension(START, name, why), cause=why)
    plain = notice("x", suspended=Suspension(START, "x", "x"), cause="x")
    assert text(made).count("\n") == text(plain).count("\n")
    assert all(character.isprintable() for character in text(made).replace("\n", "") + subject(made))


@given(NAMES, NAMES)
@settings(max_examples=80)
def test_programs_get_json_and_variables_of_any_name(name: str, why: str) -> None:
    made = notice(name, suspended=Suspension(START, name, why), cause=why)
    read = json.loads(as_json(made))
    assert read["account"].encode("utf-8", "surrogatepass") == name.encode("utf-8", "backslashreplace")
    assert (read["event"], read["hits"], read["suspended"]) == ("incident-opened", 51, True)
    for value in as_variables(made).values():
        assert b"\0" not in value.encode("utf-8")


@pytest.mark.parametrize("at", [float("inf"), float("nan"), 1e300, -1e18], ids=["never", "no-number", "far", "before"])
def test_a_clock_that_was_wrong_keeps_nobody_from_being_told(at: float) -> None:
    made = make_notice(Account(ALICE, Incident(at, "account-surge", 1, at)), "opened", "mx.example.net")
    assert ALICE in text(made)
