"""`mailward limits`: what it shows and orders, over the stores that cost nothing to start."""

from __future__ import annotations

import os
import pwd
import shlex
import time
from dataclasses import replace

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from mailward.adapters.account_changes import change_account
from mailward.model.accounts import AUTOMATIC, Account, AuditEntry, Incident, Suspension
from mailward.model.errors import StoreError, StoreFailure
from mailward.policy import incidents
from mailward.policy.limits import RuleSet
from policyd.notice import make_notice, text
from postmaster.__main__ import main
from postmaster.durations import clock
from postmaster.explain.layout import printable
from postmaster.limits import listing, opening
from postmaster.limits.allowances import allowances_of
from postmaster.limits.history import Past, past_incidents
from postmaster.limits.who import acting
from tests.postmaster.limiting import ALICE, BOB, DAY, HOUR, Limiting

EX_TEMPFAIL = 75


def open_incident(
    limiting: Limiting, account: str, hits: int = 1, cause: str = "account-recipients", ago: float = 0.0
) -> None:
    change_account(limiting.store, account, lambda one: incidents.hit(one, cause, hits, 0, limiting.now - ago))


def close_incident(limiting: Limiting, account: str, ago: float) -> None:
    """Let time close an incident, and policyd have told it."""
    change_account(limiting.store, account, lambda one: incidents.step(one, HOUR, limiting.now - ago))
    change_account(limiting.store, account, lambda one: (incidents.told(one, "closed"), ()))


def test_every_store_can_be_ordered_about(limiting_anywhere: Limiting) -> None:
    limiting = limiting_anywhere
    limiting.send(ALICE, 150, "4ABCDEF")
    limiting.write_to(ALICE, "carol@example.org")
    limiting.succeed("raise", ALICE, "1000/1h", "--for", "2d")
    assert "is suspended" in limiting.succeed("suspend", ALICE)
    (account,) = limiting.json("list")["accounts"]
    assert account["account"] == ALICE
    assert account["suspension"]["by"] == acting(os.environ)
    used = {(gauge["limit"], gauge["seconds"]): (gauge["used"], gauge["allowed"]) for gauge in account["limits"]}
    assert used["account-recipients", HOUR] == (150, 1000)
    tree = limiting.json("show", ALICE)
    assert (tree["known_recipients"], [each["queue_id"] for each in tree["sent"]]) == (1, ["4ABCDEF"])
    limiting.succeed("resume", ALICE)
    assert limiting.used(ALICE)["account-recipients", HOUR] == 0
    limiting.succeed("raise", ALICE, "--end")
    assert limiting.store.accounts() == {}
    assert [entry["action"] for entry in limiting.json("audit")["entries"]] == [
        "raise-ended",
        "resume",
        "reset",
        "suspend",
        "raise",
    ]


# ---- list ----


def test_accounts_that_are_stopped_come_first_then_those_nearest_to_their_limits(limiting: Limiting) -> None:
    limiting.send("low@example.com", 10)
    limiting.send("full@example.com", 200)
    limiting.send("half@example.com", 100)
    limiting.succeed("raise", "raised@example.com", "1000/1h", "--for", "1d")
    open_incident(limiting, "hit@example.com")
    limiting.succeed("suspend", "stopped@example.com")
    names = [account["account"].partition("@")[0] for account in limiting.json("list")["accounts"]]
    assert names == ["stopped", "hit", "raised", "full", "half", "low"]
    lines = limiting.succeed("list").splitlines()
    assert [line.split()[-1].partition("@")[0] for line in lines] == ["account", *names]
    assert "200 of 200 in 1h" in lines[4]
    assert "in 1h" in lines[4].partition("account-recipients")[2]


def test_a_list_is_bounded_unless_all_is_asked_for(limiting: Limiting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "USUAL", 3)
    for number in range(10):
        limiting.send(f"a{number}@example.com", 10 * (number + 1))
    assert [account["account"][:2] for account in limiting.json("list")["accounts"]] == ["a9", "a8", "a7"]
    assert limiting.json("list")["accounts_left_out"] == 7
    assert "... and 7 more accounts; --all shows them" in limiting.succeed("list")
    assert len(limiting.json("list", "--all")["accounts"]) == 10


def test_of_more_accounts_than_are_kept_the_fullest_are_listed(
    limiting: Limiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "USUAL", 3)
    monkeypatch.setattr(listing, "MOST_KEPT", 8)
    for number in [*range(0, 60, 2), *range(1, 60, 2)]:
        limiting.send(f"a{number}@example.com", number + 1)
    assert [account["account"][:3] for account in limiting.json("list")["accounts"]] == ["a59", "a58", "a57"]


def test_each_account_is_measured_by_its_own_limits(limiting: Limiting) -> None:
    overrides = limiting.folder / "overrides"
    overrides.write_text("big@example.com account-recipients 10000/1h\nfree@example.com * unlimited\n")
    limiting.configure(f'[policyd]\noverrides = "{overrides}"\n')
    limiting.succeed("raise", "raised@example.com", "1000/1h", "--for", "1d")
    limiting.send("big@example.com", 199)
    limiting.send("free@example.com", 190)
    limiting.send("raised@example.com", 180)
    limiting.send("small@example.com", 20)
    rows = limiting.json("list")["accounts"]
    assert [row["account"].partition("@")[0] for row in rows] == ["raised", "small", "big", "free"]
    used = [[(each["used"], each["allowed"]) for each in row["limits"][:1]] for row in rows]
    assert used == [[(180, 1000)], [(20, 200)], [(199, 10000)], []]
    tree = limiting.json("show", "free@example.com")
    assert tree["limits"] == []
    assert tree["without_limit"] == ["account-recipients", "account-first-time", "account-surge"]
    assert "no limit" in limiting.succeed("show", "free@example.com")


def test_an_empty_list_says_so(limiting: Limiting) -> None:
    assert "Nothing is counted" in limiting.succeed("list")
    assert limiting.json("list")["accounts"] == []


# ---- show ----


def test_an_account_is_shown_with_what_it_has_used_and_when_more_is_allowed(limiting: Limiting) -> None:
    limiting.send(ALICE, 200, "4ABCDEF")
    limiting.write_to(ALICE, "carol@example.org", "dave@example.org")
    limiting.log_in_from(ALICE, "192.0.2.0/24", "198.51.100.0/24")
    tree = limiting.json("show", "Alice@Example.com")
    assert tree["account"] == ALICE
    assert tree["is_known"] is True
    gauges = {(gauge["limit"], gauge["seconds"]): gauge for gauge in tree["limits"]}
    hour, day = gauges["account-recipients", HOUR], gauges["account-recipients", DAY]
    assert (hour["used"], hour["allowed"], day["used"], day["allowed"]) == (200, 200, 200, 1000)
    assert HOUR - 5 <= hour["clears_in"] <= HOUR + HOUR / 30
    assert day["clears_in"] == 0
    assert gauges["account-first-time", DAY]["used"] == 2
    assert gauges["account-surge", 600]["used"] == 0
    assert tree["known_recipients"] == 2
    assert [(gauge["limit"], gauge["used"]) for gauge in tree["logins"]] == [("login-networks", 2)]
    assert [each["queue_id"] for each in tree["sent"]] == ["4ABCDEF"]
    page = limiting.succeed("show", ALICE)
    for words in (
        "has reached account-recipients",
        "200 of 200 in 1h",
        "known recipients: 2",
        "4ABCDEF",
        "2 of 10 in 1d",
    ):
        assert words in page


def test_of_an_unknown_account_nothing_is_known_and_that_is_no_error(limiting: Limiting) -> None:
    assert "Nothing is known of it" in limiting.succeed("show", "nobody@example.com")
    assert limiting.json("show", "nobody@example.com")["is_known"] is False
    assert "Nothing was counted" in limiting.succeed("reset", "nobody@example.com")
    assert "not suspended" in limiting.succeed("resume", "nobody@example.com")
    assert "nothing of nobody@example.com" in limiting.succeed("audit", "nobody@example.com")
    assert limiting.actions() == []


def test_a_limit_that_never_clears_is_null_in_json(limiting: Limiting) -> None:
    limiting.configure('[[policyd.limit]]\nname = "none"\nper = "sasl_username"\nlimit = "0/1h"\n')
    (gauge,) = limiting.json("show", ALICE)["limits"]
    assert (gauge["allowed"], gauge["clears_in"]) == (0, None)
    assert "never" in limiting.succeed("show", ALICE)


def test_a_limit_that_the_account_shares_is_shown_as_such(limiting: Limiting) -> None:
    limiting.configure(
        '[[policyd.limit]]\nname = "domain"\nper = "sasl_domain"\nlimit = "500/1h"\n'
        '[[policyd.limit]]\nname = "everybody"\nper = "all"\nlimit = "5000/1h"\n'
        '[[policyd.limit]]\nname = "strangers"\nper = "client_address"\nlimit = "5/1h"\n'
    )
    owners = {gauge["limit"]: gauge["owner"] for gauge in limiting.json("show", ALICE)["limits"]}
    assert owners == {"domain": "sasl_domain=example.com", "everybody": "all"}
    assert "sasl_domain=example.com" in limiting.succeed("show", ALICE)


def test_an_exempt_account_is_shown_as_such(limiting: Limiting) -> None:
    limiting.configure(f'[policyd]\nexempt = ["{ALICE}"]\n')
    assert limiting.json("show", ALICE)["is_exempt"] is True
    assert limiting.json("show", BOB)["is_exempt"] is False
    assert "`exempt` has it" in limiting.succeed("show", ALICE)


# ---- raise ----


def test_a_raise_holds_for_longer_windows_for_its_time_and_can_be_taken_back(limiting: Limiting) -> None:
    told = limiting.succeed("raise", ALICE, "5000/1h", "--for", "2d", "--why", "ticket 4711")
    (raised,) = limiting.store.account(ALICE).raises
    assert (raised.most, raised.seconds, raised.limit) == (5000, HOUR, "")
    assert 2 * DAY - 10 < raised.until - time.time() <= 2 * DAY
    assert clock(raised.until) in told
    gauges = {(gauge["limit"], gauge["seconds"]): gauge for gauge in limiting.json("show", ALICE)["limits"]}
    assert gauges["account-recipients", HOUR]["allowed"] == 5000
    assert gauges["account-recipients", HOUR]["usual"] == 200
    assert gauges["account-recipients", DAY]["allowed"] == 5000
    assert gauges["account-surge", 600]["allowed"] == 100, "a window of ten minutes is shorter"
    assert "usually 200" in limiting.succeed("show", ALICE)
    assert "usual limits again" in limiting.succeed("raise", ALICE, "--end")
    assert limiting.store.account(ALICE).is_plain
    assert limiting.actions(ALICE) == ["raise", "raise-ended"]
    assert "Nothing was raised" in limiting.succeed("raise", ALICE, "--end")


def test_a_raise_may_be_of_one_limit(limiting: Limiting) -> None:
    limiting.succeed("raise", ALICE, "500/1d", "--for", "1h", "--limit", "account-first-time")
    allowed = {(gauge["limit"], gauge["seconds"]): gauge["allowed"] for gauge in limiting.json("show", ALICE)["limits"]}
    assert allowed["account-first-time", DAY] == 500
    assert allowed["account-recipients", DAY] == 1000


def test_a_raise_that_changes_nothing_says_so(limiting: Limiting) -> None:
    assert "changes nothing" in limiting.succeed("raise", ALICE, "10/1h", "--for", "1h")
    assert "changes nothing" in limiting.succeed("raise", ALICE, "100000/2d", "--for", "1h"), "no window is as long"
    for lifetime in ("1h", "2h"):
        assert "changes nothing" not in limiting.succeed("raise", ALICE, "3000/1h", "--for", lifetime)


def test_a_raise_names_the_shorter_windows_that_it_leaves_alone(limiting: Limiting) -> None:
    told = limiting.succeed("raise", ALICE, "1000/1h", "--for", "1h")
    assert "Shorter windows stay as they are: account-surge 100 in 10m." in told
    for rate, *named in (("1000/10m",), ("50/1h",), ("1000/1h", "--limit", "account-first-time")):
        assert "Shorter windows" not in limiting.succeed("raise", ALICE, rate, "--for", "1h", *named)


def test_the_raise_that_a_notice_proposes_raises_every_limit_there_is_by_default(limiting: Limiting) -> None:
    account = Account(ALICE, Incident(time.time(), "account-surge", 1, time.time()))
    (command,) = [line for line in text(make_notice(account, "opened", "mx")).splitlines() if "limits raise" in line]
    assert "Shorter windows" not in limiting.succeed(*shlex.split(command)[2:])
    assert {one.windows[0].most for one in allowances_of(RuleSet(), limiting.store.account(ALICE), time.time())} == {
        1000
    }


def test_there_are_only_so_many_raises_of_an_account(limiting: Limiting) -> None:
    for seconds in range(incidents.MAX_RAISES):
        limiting.succeed("raise", ALICE, f"1000/{seconds + 1}h", "--for", "1h")
    done = limiting.run("raise", ALICE, "1000/1m", "--for", "1h")
    assert done.exit_code == 1
    assert "20 raises" in done.output


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        pytest.param(["1000", "--for", "1h"], "expected so many in a time", id="no window"),
        pytest.param(["1000/1", "--for", "1h"], "expected so many in a time", id="a window of one of something"),
        pytest.param(["/1h", "--for", "1h"], "expected so many in a time", id="no amount"),
        pytest.param(["0/1h", "--for", "1h"], "an amount from 1 on", id="an amount of nothing"),
        pytest.param(["1k/1h", "--for", "1h"], "expected so many in a time", id="thousands"),
        pytest.param(["1000 / 1h", "--for", "1h"], "expected so many in a time", id="spaces"),
        pytest.param(["\u0661/1h", "--for", "1h"], "expected so many in a time", id="other digits"),
        pytest.param(["1e3/1h", "--for", "1h"], "expected so many in a time", id="an exponent"),
        pytest.param(["1000/0s", "--for", "1h"], "a window from 1s", id="no time"),
        pytest.param(["1000/1h"], "and --for with a duration", id="for no time"),
        pytest.param(["--for", "1h"], "expected a RATE", id="no rate"),
        pytest.param(["1000/1h", "--for", "2"], "expected a duration", id="for two of something"),
        pytest.param(["1000/1h", "--for", "366d"], "expected a duration", id="for ever"),
        pytest.param(
            ["1000/1h", "--for", "1h", "--limit", "none"], "is no limit of accounts", id="a limit that is not"
        ),
        pytest.param(["1000/1h", "--for", "1h", "--end"], "stands alone", id="a raise and its end"),
        pytest.param(["1000/1h", "--for", "1h", "--why", "x" * 201], "printable characters", id="a reason without end"),
        pytest.param(
            ["1000/1h", "--for", "1h", "--why", "\x1b[2J"],
            "printable characters",
            id="a reason with control characters",
        ),
    ],
)
def test_a_raise_is_read_strictly(limiting: Limiting, arguments: list[str], why: str) -> None:
    done = limiting.run("raise", ALICE, *arguments)
    assert done.exit_code == 2
    assert why in " ".join(done.output.replace("│", " ").split())
    assert "\x1b" not in done.output
    assert limiting.store.account(ALICE).is_plain


# ---- reset, suspend, resume ----


def test_a_reset_forgets_what_was_counted_but_not_to_whom_an_account_writes(limiting: Limiting) -> None:
    limiting.send(ALICE, 150)
    limiting.send(BOB, 20)
    limiting.write_to(ALICE, "carol@example.org")
    limiting.log_in_from(ALICE, "192.0.2.0/24")
    assert "3 counters forgotten" in limiting.succeed("reset", ALICE, "--why", "a newsletter")
    assert set(limiting.used(ALICE).values()) == {0}
    assert limiting.used(BOB)["account-recipients", HOUR] == 20
    assert limiting.json("show", ALICE)["known_recipients"] == 1
    assert limiting.json("show", ALICE)["logins"] == []
    (entry,) = limiting.store.audit_log(ALICE)
    assert (entry.action, entry.why) == ("reset", "a newsletter")
    assert "account-recipients 150/200 in 1h" in entry.before


def test_an_account_is_suspended_and_given_back_with_its_counters_at_zero(limiting: Limiting) -> None:
    limiting.send(ALICE, 200)
    open_incident(limiting, ALICE, hits=7)
    assert "is suspended" in limiting.succeed("suspend", ALICE, "--why", "sends spam")
    suspension = limiting.store.account(ALICE).suspension
    assert suspension is not None
    assert suspension.why == "sends spam"
    assert "suspended already" in limiting.succeed("suspend", ALICE)
    page = limiting.succeed("show", ALICE)
    assert "suspended since" in page
    assert "sends spam" in page
    assert "given back" in limiting.succeed("resume", ALICE, "--why", "password changed")
    account = limiting.store.account(ALICE)
    assert account.suspension is None
    assert account.incident is not None
    assert account.incident.hits == 0
    assert limiting.used(ALICE)["account-recipients", HOUR] == 0
    assert limiting.actions(ALICE) == ["incident-opened", "suspend", "reset", "resume"]
    assert limiting.store.audit_log(ALICE)[0].who == acting(os.environ)


def test_counters_may_be_kept(limiting: Limiting) -> None:
    limiting.send(ALICE, 200)
    limiting.succeed("suspend", ALICE)
    assert "stay as they are" in limiting.succeed("resume", ALICE, "--keep-counters")
    assert limiting.used(ALICE)["account-recipients", HOUR] == 200


@pytest.mark.parametrize(
    ("login", "shown"),
    [("B\u00e9a", r"b\xe9a"), (r"DOMAIN\alice", r"domain\x5calice")],
    ids=["no-ascii", "a-backslash"],
)
def test_an_account_is_named_by_its_login_or_as_it_is_shown(limiting: Limiting, login: str, shown: str) -> None:
    for name in (login, shown, printable(shown)):  # a terminal shows each backslash twice
        limiting.succeed("suspend", name)
        assert list(limiting.store.accounts()) == [shown]
        limiting.succeed("resume", shown)
        assert limiting.store.accounts() == {}


def test_what_is_not_suspended_keeps_its_counters_when_it_is_resumed(limiting: Limiting) -> None:
    limiting.send(ALICE, 200)
    assert "`mailward limits reset`" in limiting.succeed("resume", ALICE)
    assert limiting.used(ALICE)["account-recipients", HOUR] == 200


def test_a_login_is_one_account_however_it_is_written(limiting: Limiting) -> None:
    limiting.succeed("suspend", "ALICE@Example.COM")
    assert limiting.store.account(ALICE).suspension is not None


@pytest.mark.parametrize("login", ["", " ", "x" * 321])
def test_what_cannot_be_a_login_is_refused(limiting: Limiting, login: str) -> None:
    done = limiting.run("suspend", login)
    assert done.exit_code == 2
    assert "expected a login" in done.output


@pytest.mark.parametrize(
    "login", ["\x1b[2J@example.com", "b\u00e9a", "a b", "a\nb\u202e", "\udc80\udc81", "-", "a\\x20b"]
)
def test_any_other_login_is_taken_and_shown_escaped(limiting: Limiting, login: str) -> None:
    for arguments in (["suspend"], ["show"], ["show", "--json"], ["audit"], ["reset"], ["resume"]):
        done = limiting.run(*arguments, "--", login)
        assert done.exit_code == 0, (done.output, done.exception)
        assert done.output.isascii()
        assert done.output.replace("\n", "").isprintable()
    limiting.succeed("list")
    limiting.succeed("incidents")


def test_what_a_store_holds_is_shown_escaped(limiting: Limiting) -> None:
    odd = "\x1b[2J\u202e"
    account = Account("x@example.com", Incident(1.0, odd, 1, 1.0), Suspension(1.0, odd, odd))
    entry = AuditEntry(1.0, odd, odd, "x@example.com", odd, odd, odd)
    assert limiting.store.swap(Account("x@example.com"), account, [entry])
    for arguments in (["list"], ["show", "x@example.com"], ["incidents"], ["audit"], ["suspend", "x@example.com"]):
        assert limiting.succeed(*arguments).replace("\n", "").isprintable()


# ---- incidents, audit ----


def test_incidents_are_listed_the_open_ones_and_those_closed_lately(limiting: Limiting) -> None:
    now = limiting.now
    open_incident(limiting, "old@example.com", 3, "account-surge", ago=30 * DAY)
    open_incident(limiting, "late@example.com", 3, "account-surge", ago=2 * DAY)
    open_incident(limiting, "now@example.com", 3, "account-surge", ago=60)
    close_incident(limiting, "old@example.com", ago=29 * DAY)
    close_incident(limiting, "late@example.com", ago=DAY)
    tree = limiting.json("incidents")
    assert [each["account"] for each in tree["open"]] == ["now@example.com"]
    assert [each["account"] for each in tree["closed"]] == ["late@example.com"]
    assert tree["closed"][0]["cause"] == "account-surge"
    assert tree["closed"][0]["opened_at"] == pytest.approx(now - 2 * DAY)
    assert [each["account"] for each in limiting.json("incidents", "--all")["closed"]] == [
        "late@example.com",
        "old@example.com",
    ]
    page = limiting.succeed("incidents")
    assert page.index("now@example.com") < page.index("Closed in the last 7 days") < page.index("late@example.com")
    assert "3 hits" in page


def test_no_incident_is_said_so(limiting: Limiting) -> None:
    page = limiting.succeed("incidents")
    assert "No incident is open" in page
    assert "None was closed" in page


def test_incidents_are_paired_with_their_beginning_as_far_as_the_log_goes_back() -> None:
    def entry(at: float, action: str, account: str) -> AuditEntry:
        return AuditEntry(at, AUTOMATIC, action, account, "", "open, surge" if "closed" in action else "")

    log = [
        entry(1.0, "incident-closed", "a"),
        entry(2.0, "incident-opened", "a"),
        entry(3.0, "incident-opened", "b"),
        entry(4.0, "incident-closed", "a"),
    ]
    assert past_incidents(log[::-1]) == [Past("a", 2.0, 4.0, "surge", ""), Past("a", 0.0, 1.0, "surge", "")]


def test_the_audit_log_says_who_did_what_when_and_why(limiting: Limiting) -> None:
    limiting.succeed("raise", ALICE, "1000/1h", "--for", "1h", "--why", "first")
    limiting.succeed("suspend", BOB, "--why", "second")
    entries = limiting.json("audit")["entries"]
    assert [(each["account"], each["action"], each["why"]) for each in entries] == [
        (BOB, "suspend", "second"),
        (ALICE, "raise", "first"),
    ]
    assert all(each["who"] == acting(os.environ) and abs(each["at"] - time.time()) < 600 for each in entries)
    assert [each["account"] for each in limiting.json("audit", ALICE)["entries"]] == [ALICE]
    page = limiting.succeed("audit", ALICE)
    assert "first" in page
    assert BOB not in page


def test_an_audit_log_is_bounded_unless_all_is_asked_for(limiting: Limiting) -> None:
    for number in range(60):
        limiting.store.audit(AuditEntry(float(number), "x", "reset", ALICE, f"why {number}"))
    tree = limiting.json("audit")
    assert [entry["why"] for entry in tree["entries"]][:2] == ["why 59", "why 58"]
    assert (len(tree["entries"]), tree["is_more"]) == (50, True)
    assert "... and more" in limiting.succeed("audit")
    assert len(limiting.json("audit", "--all")["entries"]) == 60


# ---- who, and what is away ----


@pytest.mark.parametrize(
    ("uid", "environment", "expected"),
    [
        pytest.param(0, {"SUDO_USER": "alice"}, "alice (uid 0)", id="who called sudo"),
        pytest.param(0, {"SUDO_USER": "a\x1b[2J"}, "a\\x1b[2J (uid 0)", id="whatever the name is"),
        pytest.param(0, {"SUDO_USER": "x" * 99}, "x" * 64 + " (uid 0)", id="however long it is"),
        pytest.param(65534, {"SUDO_USER": "alice"}, "nobody (uid 65534)", id="only root's environment is believed"),
        pytest.param(0, {}, "root (uid 0)", id="the account without sudo"),
        pytest.param(4_000_000, {}, "? (uid 4000000)", id="an account without a name"),
    ],
)
def test_who_acts_is_who_called_it(
    monkeypatch: pytest.MonkeyPatch, uid: int, environment: dict[str, str], expected: str
) -> None:
    def no_login() -> str:
        raise OSError

    monkeypatch.setattr(os, "getuid", lambda: uid)
    monkeypatch.setattr(os, "getlogin", no_login)
    assert acting(environment) == expected


def test_who_has_logged_in_is_named_before_the_account_he_became(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setattr(os, "getlogin", lambda: "alice")
    assert acting({}) == "alice (uid 0)"
    assert pwd.getpwuid(0).pw_name != "alice"


def test_a_state_that_is_away_is_said_with_what_to_do(limiting: Limiting, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> object:
        raise StoreError(StoreFailure.DAMAGED, "\x1b[2J")

    monkeypatch.setattr(type(limiting.store), "account", fail)
    done = limiting.run("suspend", ALICE)
    assert done.exit_code == EX_TEMPFAIL
    assert "stop mailward-policyd and move what is damaged away: counting starts anew" in done.output
    assert "\x1b" not in done.output


def test_a_wrong_configuration_is_named(limiting: Limiting) -> None:
    limiting.configure("[policyd]\nnothing = 1\n")
    done = limiting.run("list")
    assert done.exit_code == 78
    assert "policyd.nothing" in done.output


def test_every_sub_command_says_what_it_does() -> None:
    page = CliRunner().invoke(main, ["limits", "--help"]).output
    for name in ("list", "show", "raise", "reset", "suspend", "resume", "incidents", "audit"):
        assert name in page
        assert "--config" in CliRunner().invoke(main, ["limits", name, "--help"]).output


@given(st.text(max_size=400))
def test_no_argument_ends_in_a_traceback(text: str) -> None:
    for arguments in (["raise", "a", text, "--for", "1h"], ["raise", "a", "1/1h", "--for", text], ["show", "--", text]):
        done = CliRunner().invoke(main, ["limits", arguments[0], "--config", "/nonexistent", *arguments[1:]])
        assert done.exit_code in (2, 78), (done.output, done.exception)


def test_an_account_that_changes_meanwhile_is_changed_all_the_same(
    limiting: Limiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the command's reading and its writing a daemon counts a hit."""
    really, raced = limiting.store.account, list[int]()

    def account(name: str) -> Account:
        found = really(name)
        if not raced and name == ALICE:
            raced.append(1)
            open_incident(limiting, ALICE)
            return replace(found, is_tightened=False)
        return found

    monkeypatch.setattr(opening, "open_limits", lambda *_arguments: limiting.store)
    monkeypatch.setattr(limiting.store, "account", account, raising=False)
    limiting.succeed("suspend", ALICE)
    after = really(ALICE)
    assert after.suspension is not None
    assert after.incident is not None
