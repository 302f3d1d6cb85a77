"""`mailward greylist`: what it orders, shows and forgets, over every kind of store."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from mailward.adapters import stores
from mailward.model.errors import StoreError, StoreFailure
from mailward.model.greylist import Entry, EntryKind, Triplet, TripletRecord
from mailward.policy import greylist
from postmaster.__main__ import main
from postmaster.durations import clock
from postmaster.greylist import opening
from tests.postmaster.greylisting import DAY, WINDOWS, Greylisting

EX_TEMPFAIL, EX_CONFIG = 75, 78

NET, OTHER_NET = "192.0.2.0/24", "198.51.100.0/24"


def test_the_switch_is_off_for_a_while_and_on_again(greylisting: Greylisting) -> None:
    told = greylisting.succeed("off", "2h")
    until = greylisting.store.orders().off_until
    assert 7190 < until - time.time() <= 7200
    assert clock(until) in told
    assert "(in 2h)" in told
    assert "switched off until" in greylisting.succeed("stats")
    assert "switched off until" in greylisting.succeed("list")
    assert "on again" in greylisting.succeed("on")
    assert greylisting.store.orders().off_until == 0.0
    assert "was not switched off" in greylisting.succeed("on")


@pytest.mark.parametrize("words", [("off", "1h"), ("allow", NET, "--for", "1h")], ids=["off", "allow"])
def test_an_order_that_the_states_clock_says_is_over_is_not_said_to_be_in_force(
    greylisting: Greylisting, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "time", SimpleNamespace(time=lambda: time.time() - 3 * 3600.0))
    done = greylisting.run(*words)
    assert done.exit_code == EX_TEMPFAIL
    assert "not in force" in done.output
    assert "Greylisting is off" not in done.output


def test_a_switch_that_is_over_by_our_clock_alone_is_shown_and_ended(
    greylisting: Greylisting, monkeypatch: pytest.MonkeyPatch
) -> None:
    greylisting.succeed("off", "1h")
    monkeypatch.setattr(opening, "time", SimpleNamespace(time=lambda: time.time() + 3 * 3600.0))
    for words in (("stats",), ("list",), ("show", "192.0.2.7")):
        assert "switched off until" in greylisting.run(*words).output
    assert "on again" in greylisting.succeed("on")


@pytest.mark.parametrize("duration", ["2", "", "h", "-1h", "0s", "31d", "forever", "1e9s"])
def test_a_switch_wants_a_duration_of_at_most_a_month(greylisting: Greylisting, duration: str) -> None:
    done = greylisting.run("off", "--", duration)
    assert done.exit_code == 2
    assert "expected a duration" in done.output
    assert greylisting.store.orders().off_until == 0.0


@pytest.mark.parametrize(
    ("arguments", "kind", "subject"),
    [
        pytest.param(["192.0.2.7"], EntryKind.NETWORK, "192.0.2.7/32", id="a client's address"),
        pytest.param(["192.0.2.0/24"], EntryKind.NETWORK, "192.0.2.0/24", id="a network"),
        pytest.param(["::ffff:192.0.2.7"], EntryKind.NETWORK, "192.0.2.7/32", id="a mapped address is the IPv4 one"),
        pytest.param(["2001:DB8::/32"], EntryKind.NETWORK, "2001:db8::/32", id="an IPv6 network"),
        pytest.param(["MX.Example.com."], EntryKind.NAME, "mx.example.com", id="a client's name"),
        pytest.param(["mail*.example.com"], EntryKind.NAME, "mail*.example.com", id="a pattern of names"),
        pytest.param(["Bob@Example.com", "--sender"], EntryKind.SENDER, "bob@example.com", id="a sender"),
        pytest.param(["<bob@example.com>", "--sender"], EntryKind.SENDER, "bob@example.com", id="a sender in brackets"),
        pytest.param(["Example.com", "--sender"], EntryKind.SENDER, "example.com", id="a sender's domain"),
        pytest.param(["bob@example.com", "--recipient"], EntryKind.RECIPIENT, "bob@example.com", id="a recipient"),
        pytest.param(["Postmaster@", "--recipient"], EntryKind.RECIPIENT, "postmaster@", id="a local part"),
    ],
)
@pytest.mark.parametrize("order", ["allow", "deny"])
def test_an_order_is_kept_in_its_one_form_until_it_is_forgotten(
    greylisting: Greylisting, order: str, arguments: list[str], kind: EntryKind, subject: str
) -> None:
    told = greylisting.succeed(order, *arguments, "--note", "a reason")
    (entry,) = greylisting.store.orders().entries
    assert (entry.kind, entry.subject, entry.is_allowed, entry.until) == (kind, subject, order == "allow", 0.0)
    assert entry.note == "a reason"
    assert f"{order} {kind.value} {subject}, for good" in told
    listed = greylisting.succeed("list")
    assert subject in listed
    assert "a reason" in listed
    forgotten = greylisting.succeed("forget", *arguments)
    assert subject in forgotten
    assert not greylisting.store.orders().entries


def test_an_order_may_end_by_itself(greylisting: Greylisting) -> None:
    greylisting.succeed("allow", "192.0.2.7", "--for", "30d")
    (entry,) = greylisting.store.orders().entries
    assert 30 * DAY - 10 < entry.until - time.time() <= 30 * DAY
    assert clock(entry.until) in greylisting.succeed("list")


def test_a_second_order_takes_the_place_of_the_first_and_says_so(greylisting: Greylisting) -> None:
    greylisting.succeed("allow", "192.0.2.7")
    assert "it was: allow network 192.0.2.7/32" in greylisting.succeed("deny", "192.0.2.7")
    assert greylisting.entries() == {"192.0.2.7/32": False}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        pytest.param(["0.0.0.0/0"], "large part of the Internet", id="everything"),
        pytest.param(["0.0.0.0/1"], "large part of the Internet", id="half of the Internet"),
        pytest.param(["::/3"], "large part of the Internet", id="all of IPv6"),
        pytest.param(["192.0.2.7/24"], "expected an address or a network", id="bits behind the prefix"),
        pytest.param(["192.0.2"], "expected an address or a network", id="part of an address"),
        pytest.param(["com"], "two labels or more", id="a top-level domain"),
        pytest.param(["com", "--sender"], "two labels or more", id="a top-level domain of senders"),
        pytest.param(["bob@example.com"], "--sender or --recipient", id="an address without its role"),
        pytest.param(["192.0.2.7", "--sender"], "found a client's network", id="a client as a sender"),
        pytest.param(["a b.example"], "expected a client's name", id="no name"),
        pytest.param(["\x1b[31m.example"], "expected a client's name", id="a name that colours the screen"),
        pytest.param(["<>", "--sender"], "expected an address", id="the null sender"),
        pytest.param(["", "--sender"], "expected an address", id="nothing"),
        pytest.param(["x" * 400, "--sender"], "at most 320 characters", id="far too long"),
        pytest.param(["192.0.2.7", "--for", "0s"], "expected a duration", id="for no time"),
        pytest.param(["192.0.2.7", "--for", "30"], "expected a duration", id="for thirty of something"),
        pytest.param(["192.0.2.7", "--note", "x" * 201], "printable characters", id="a note without end"),
        pytest.param(["192.0.2.7", "--note", "a\nb"], "printable characters", id="a note of two lines"),
        pytest.param(["a@b.example", "--sender", "--recipient"], "exclude each other", id="both roles"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_was_expected(
    greylisting: Greylisting, arguments: list[str], why: str
) -> None:
    done = greylisting.run("allow", *arguments)
    assert done.exit_code == 2
    assert why in " ".join(done.output.replace("│", " ").split())
    assert "\x1b" not in done.output
    assert not greylisting.store.orders().entries


def test_a_list_has_the_best_origins_at_the_top_and_is_bounded(greylisting: Greylisting) -> None:
    greylisting.learn(*(greylisting.origin(f"10.{number}.0.0/24", number) for number in range(1, 31)))
    greylisting.learn(greylisting.origin("10.99.0.0/24", 50, ago=40 * DAY))
    listed = greylisting.succeed("list", "--limit", "3").splitlines()
    rows = [line.split() for line in listed if "10." in line]
    assert [(row[0], row[-1]) for row in rows] == [("whitelisted", f"10.{number}.0.0/24") for number in (30, 29, 28)]
    assert any("... and 27 more origins; --limit shows more" in line for line in listed)
    tree = greylisting.json("list", "--limit", "28")
    assert [origin["state"] for origin in tree["origins"]] == ["whitelisted"] * 26 + ["on the way"] * 2
    assert tree["origins_left_out"] == 2


def test_triplets_are_listed_with_the_latest_first(greylisting: Greylisting) -> None:
    greylisting.learn(
        greylisting.passed(NET, "early@example.com", "bob@example.org"),
        greylisting.waiting(NET, "late@example.com", "bob@example.org"),
        greylisting.waiting(NET, "", "bob@example.org", ago=300),
        greylisting.waiting(NET, "gone@example.com", "bob@example.org", ago=3 * DAY),
    )
    listed = greylisting.succeed("list", "--triplets").splitlines()[2:]
    assert [line.split()[-2] for line in listed] == ["late@example.com", "<>", "early@example.com"]
    assert [line.split()[0] for line in listed] == ["waiting", "waiting", "passed"]
    waiting = greylisting.json("list", "--waiting")["triplets"]
    assert [triplet["mail_from"] for triplet in waiting] == ["late@example.com", ""]
    assert all(triplet["passes_from"] == pytest.approx(triplet["first_seen"] + 60) for triplet in waiting)


def test_an_empty_memory_is_said_to_be_so(greylisting: Greylisting) -> None:
    assert "No entries" in greylisting.succeed("list")
    assert "No triplets" in greylisting.succeed("list", "--triplets")
    assert "none was expected" in greylisting.succeed("stats")


@pytest.mark.parametrize(
    ("record", "words"),
    [
        pytest.param(("waiting", 10.0), "passes from {from} (in ", id="too early: from when it passes"),
        pytest.param(("waiting", 300.0), "passes at its next try, if that is before {expires}", id="its delay is over"),
        pytest.param(("waiting", 3 * DAY), "starts over: its time was over at {expires}", id="its window is over"),
        pytest.param(("passed", DAY), "forgotten at {expires}", id="it has passed"),
    ],
)
@pytest.mark.parametrize(
    "addr",
    [
        "192.0.2.7",
        "::ffff:192.0.2.200",
        "192.0.2.0/24",
        "192.0.0.0/16",
        "example.com",
        "alice@example.com",
        "Alice+tag@EXAMPLE.com",
        "bob@example.org",
        "example.org",
    ],
)
def test_show_says_what_a_triplet_waits_for(
    greylisting: Greylisting, addr: str, record: tuple[str, float], words: str
) -> None:
    kind, ago = record
    make = greylisting.waiting if kind == "waiting" else greylisting.passed
    known = make(NET, "alice@example.com", "bob@example.org", ago)
    greylisting.learn(known, make(OTHER_NET, "eve@elsewhere.example", "mallory@elsewhere.example", ago))
    moments = {"from": clock(known.first_seen + WINDOWS.delay), "expires": clock(known.expires)}
    shown = greylisting.succeed("show", addr)
    assert words.format(**moments) in shown
    assert "elsewhere.example" not in shown
    assert len(greylisting.json("show", addr)["triplets"]) == 1


def test_show_says_what_becomes_of_a_client(greylisting: Greylisting) -> None:
    assert "is delayed like everybody" in greylisting.run("show", "192.0.2.7").output
    greylisting.learn(greylisting.origin(NET, 3))
    assert "3 passes of 5" in greylisting.succeed("show", "192.0.2.7")
    greylisting.learn(greylisting.origin(NET, 5))
    assert "passes at once: whitelisted" in greylisting.succeed("show", "192.0.2.7")
    assert "passes at once" not in greylisting.succeed("show", "192.0.0.0/16"), "that much was not whitelisted"
    greylisting.succeed("deny", "192.0.0.0/16", "--note", "they know why")
    shown = greylisting.succeed("show", "192.0.2.7")
    assert "is delayed until its own retry" in shown
    assert "deny network 192.0.0.0/16, for good (they know why)" in shown
    greylisting.succeed("off", "1h")
    assert "passes: greylisting is switched off" in greylisting.succeed("show", "192.0.2.7")


def test_what_the_operator_said_of_a_part_is_not_said_of_the_whole(greylisting: Greylisting) -> None:
    greylisting.succeed("deny", "192.0.2.7")
    shown = greylisting.succeed("show", NET)
    assert "deny network 192.0.2.7/32" in shown
    assert "is delayed until its own retry" not in shown


def test_show_knows_what_the_configuration_exempts(greylisting: Greylisting) -> None:
    greylisting.config.write_text(
        greylisting.config.read_text()
        + '[greylist]\nnetworks = ["203.0.113.0/24"]\nrecipients = ["sales@example.org"]\n'
    )
    assert "configuration's `networks`" in greylisting.run("show", "203.0.113.9").output
    assert "configuration's `recipients`" in greylisting.run("show", "sales@example.org").output


def test_show_knows_whom_somebody_here_has_written_to(greylisting: Greylisting) -> None:
    greylisting.store.record(["alice@example.com"], 30 * DAY)
    assert "written to" in greylisting.succeed("show", "Alice@example.com")
    assert greylisting.run("show", "bob@example.com").exit_code == 1


def test_what_is_unknown_is_status_one(greylisting: Greylisting) -> None:
    shown, forgotten = greylisting.run("show", "192.0.2.7"), greylisting.run("forget", "192.0.2.7")
    assert (shown.exit_code, forgotten.exit_code) == (1, 1)
    assert "Nothing else is known" in shown.output
    assert "Forgot 0 entries, 0 origins, 0 triplets" in forgotten.output


FORGETTING = [
    pytest.param(["192.0.2.7"], {"net"}, id="a client's address"),
    pytest.param([NET], {"net"}, id="a network"),
    pytest.param(["192.0.0.0/16"], {"net"}, id="a wider network"),
    pytest.param(
        ["example.com"], {"net", "spf", "below"}, id="a domain: of the origin or the sender, and what is below"
    ),
    pytest.param(["example.com", "--sender"], {"net", "spf", "below"}, id="a sender's domain"),
    pytest.param(["alice@example.com"], {"net", "spf"}, id="a sender"),
    pytest.param(["bob@example.org"], {"net", "spf", "null"}, id="a recipient"),
    pytest.param(["bob@example.org", "--sender"], set(), id="a recipient that is no sender"),
    pytest.param(["example.org"], set(), id="a recipient's domain, which nobody named as that"),
    pytest.param(["example.org", "--recipient"], {"net", "spf", "below", "null"}, id="a recipient's domain"),
    pytest.param(["<>"], {"null"}, id="the null sender"),
    pytest.param(["ample.com"], set(), id="no domain by its end alone"),
]


@pytest.mark.parametrize(("arguments", "gone"), FORGETTING)
def test_forget_takes_what_was_named_and_nothing_else(
    greylisting: Greylisting, arguments: list[str], gone: set[str]
) -> None:
    records = {
        "net": greylisting.waiting(NET, "alice@example.com", "bob@example.org"),
        "spf": greylisting.passed("example.com", "alice@example.com", "bob@example.org"),
        "below": greylisting.passed("a.example.com", "carol@a.example.com", "dora@example.org"),
        "null": greylisting.waiting(OTHER_NET, "", "bob@example.org"),
        "other": greylisting.waiting(OTHER_NET, "eve@example.net", "dora@example.edu"),
    }
    greylisting.learn(*records.values())
    before = greylisting.triplets()
    would = greylisting.run("forget", *arguments, "--dry-run")
    assert f"{len(gone)} triplets" in would.output
    assert greylisting.triplets() == before
    told = greylisting.run("forget", *arguments)
    assert f"Forgot 0 entries, 0 origins, {len(gone)} triplets." in told.output
    assert (would.exit_code, told.exit_code) == ((0, 0) if gone else (1, 1))
    assert set(greylisting.triplets()) == {record.triplet for name, record in records.items() if name not in gone}


def test_forget_takes_what_an_origin_has_earned(greylisting: Greylisting) -> None:
    greylisting.learn(
        greylisting.origin(NET, 9), greylisting.origin("example.com", 2), greylisting.origin(OTHER_NET, 1)
    )
    assert f"forgot origin: {NET}" in greylisting.succeed("forget", "192.0.2.9")
    assert "forgot origin: example.com" in greylisting.succeed("forget", "example.com")
    assert set(greylisting.origins()) == {OTHER_NET}


def test_forget_leaves_orders_that_say_more_than_was_named(greylisting: Greylisting) -> None:
    for subject in ("192.0.0.0/16", NET, "192.0.2.7"):
        greylisting.succeed("allow", subject)
    greylisting.succeed("forget", NET)
    assert set(greylisting.entries()) == {"192.0.0.0/16"}


def test_forget_in_steps_forgets_all(greylisting: Greylisting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postmaster.greylist.entries.BATCH", 7)
    greylisting.learn(*(greylisting.waiting(NET, f"a{n}@example.com", "bob@example.org") for n in range(30)))
    told = greylisting.succeed("forget", NET)
    assert "30 triplets" in told
    assert told.count("forgot triplet") == 20
    assert not greylisting.triplets()


def test_stats_count_everything(greylisting: Greylisting) -> None:
    greylisting.learn(
        greylisting.waiting(NET, "a@example.com", "bob@example.org"),
        greylisting.waiting(NET, "b@example.com", "bob@example.org", ago=3 * DAY),
        greylisting.passed(NET, "c@example.com", "bob@example.org", ago=10 * DAY),
        greylisting.origin(NET, 5),
        greylisting.origin(OTHER_NET, 1),
        greylisting.origin("example.com", 7, ago=50 * DAY),
    )
    greylisting.store.record(["alice@example.com"], 30 * DAY)
    greylisting.succeed("allow", "192.0.2.7")
    told = greylisting.succeed("stats")
    assert "1 waiting, 1 passed, 1 expired" in told
    assert "1 whitelisted, 1 on the way, 1 expired" in told
    assert "(10d ago)" in told
    tree = greylisting.json("stats")
    assert tree["triplets"] == {"waiting": 1, "passed": 1, "expired": 1}
    assert (tree["correspondents"], tree["entries"]) == (1, {"allow": 1, "deny": 0})
    assert tree["oldest_triplet"] == pytest.approx(greylisting.now - 10 * DAY - 300)


def test_stats_tell_how_many_came_back_of_those_that_had_the_time(greylisting: Greylisting) -> None:
    start = greylist.bucket_of(greylisting.now - 6 * 3600)
    for number in range(4):
        greylisting.learn(greylisting.origin(f"10.0.{number}.0/24", 2))
        triplet = Triplet(f"10.0.{number}.0/24", "a@example.com", "bob@example.org")
        greylisting.store.sight(triplet, WINDOWS, now=start)
        if number:
            greylisting.store.sight(triplet, WINDOWS, now=start + 100)
    greylisting.learn(greylisting.origin("10.0.9.0/24", 2))
    late = Triplet("10.0.9.0/24", "a@example.com", "bob@example.org")
    greylisting.store.sight(late, WINDOWS, now=greylisting.now)
    assert "3 of 4 came in the last two days (75 %)" in greylisting.succeed("stats")
    assert greylisting.json("stats")["returns"] == {"expected": 4, "returned": 3, "rate": 0.75, "breaker": "closed"}


def test_what_came_from_outside_is_escaped(greylisting: Greylisting) -> None:
    hostile = "\x1b[31m\u202eeve\\@example.com"
    greylisting.learn(
        TripletRecord(Triplet(NET, hostile, "bob@example.org"), greylisting.now, 0.0, greylisting.now + DAY)
    )
    greylisting.store.set_entry(Entry(EntryKind.NAME, "mx.example.com", True, greylisting.now, note="\x1b]0;owned\x07"))
    for arguments in (["list", "--triplets"], ["list"], ["show", "192.0.2.7"], ["stats"], ["forget", NET]):
        told = greylisting.succeed(*arguments)
        assert all(character == "\n" or " " <= character <= "~" for character in told)
    assert r"\x1b]0;owned\x07" in greylisting.succeed("list")


@pytest.mark.parametrize("failure", list(StoreFailure), ids=lambda failure: failure.value)
def test_a_state_that_is_away_is_named_with_what_to_do(
    greylisting: Greylisting, monkeypatch: pytest.MonkeyPatch, failure: StoreFailure
) -> None:
    class Away:
        def orders(self) -> None:
            raise StoreError(failure, "\x1b[31mdetail")

        def close(self) -> None:
            pass

    monkeypatch.setattr(stores, "open_greylist", lambda *_arguments: Away())
    done = greylisting.run("list")
    assert done.exit_code == EX_TEMPFAIL
    (line,) = done.output.splitlines()
    assert line.startswith(rf"mailward: sqlite:{greylisting.state}: {failure.value}: \x1b[31mdetail; ")


def test_memory_is_nobody_elses(greylisting: Greylisting) -> None:
    greylisting.config.write_text('state = "memory:"\n')
    done = greylisting.run("list")
    assert done.exit_code == EX_CONFIG
    assert "state" in done.output


def test_a_wrong_configuration_is_told_as_ever(greylisting: Greylisting) -> None:
    greylisting.config.write_text('[greylist]\ndelay = "soon"\n')
    done = greylisting.run("stats")
    assert done.exit_code == EX_CONFIG
    assert "greylist.delay" in done.output


def test_help_names_every_sub_command() -> None:
    done = CliRunner().invoke(main, ["greylist", "--help"])
    for name in ("off", "on", "list", "show", "allow", "deny", "forget", "stats", "export", "import"):
        assert f"\n  {name} " in done.output
