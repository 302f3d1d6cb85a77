"""`mailward greylist export` and `import`: nothing is lost, nothing known is made worse, nothing hostile gets in."""

from __future__ import annotations

import itertools
import json
import os
import stat
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailward.model.greylist import Entry, EntryKind, OriginRecord, Triplet, TripletRecord
from mailward.model.ports import GreylistRecords
from postmaster.greylist.importing import KNOWN, TWICE
from postmaster.greylist.merging import better_origin, better_triplet
from postmaster.greylist.records import Skipped
from postmaster.greylist.records_file import NOT_OURS, header, read_records
from tests.postmaster.greylisting import DAY, WINDOWS, Greylisting

EX_DATAERR, EX_NOINPUT, EX_CANTCREAT = 65, 66, 73
NET = "192.0.2.0/24"
NOW = 1_800_000_000.0
TRIPLET = Triplet(NET, "a@example.com", "b@example.org")


def fill(greylisting: Greylisting) -> None:
    greylisting.learn(
        greylisting.waiting(NET, "a@example.com", "bob@example.org"),
        greylisting.passed("example.com", "", "bob@example.org"),
        greylisting.waiting(NET, "gone@example.com", "bob@example.org", ago=3 * DAY),
        greylisting.origin(NET, 5),
        greylisting.origin("gone.example", 5, ago=40 * DAY),
    )
    greylisting.store.record(["carol@example.com"], 30 * DAY)
    greylisting.store.set_entry(Entry(EntryKind.NAME, "mx.example.com", True, greylisting.now, 0.0, "caf\u00e9"))
    greylisting.store.set_entry(Entry(EntryKind.SENDER, "example.net", False, greylisting.now, greylisting.now + DAY))


def written(greylisting: Greylisting, *lines: object, name: str = "import") -> Path:
    path = greylisting.folder / name
    text = "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
    path.write_text(header(greylisting.now) + text)
    return path


def of_triplet(record: TripletRecord) -> dict[str, object]:
    return {
        "record": "triplet",
        "origin": record.triplet.origin,
        "mail_from": record.triplet.mail_from,
        "rcpt_to": record.triplet.rcpt_to,
        "first_seen": record.first_seen,
        "passed_at": record.passed_at,
        "expires": record.expires,
    }


def end(records: int) -> dict[str, object]:
    return {"record": "end", "records": records}


def test_what_was_exported_comes_back(greylisting: Greylisting) -> None:
    fill(greylisting)
    before = (greylisting.triplets(), greylisting.origins(), greylisting.store.orders().entries)
    path = greylisting.folder / "export"
    assert "6 records written" in greylisting.succeed("export", path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes().isascii()
    for subject in (NET, "example.com", "example.net", "gone.example", "mx.example.com"):
        greylisting.run("forget", subject)
    assert not greylisting.triplets()
    told = greylisting.succeed("import", path)
    for kind, number in (("entries", 2), ("origins", 1), ("triplets", 2)):
        assert f"{kind:<14}  {number} taken, 0 skipped" in told
    triplets, origins, entries = before
    assert greylisting.triplets() == {key: each for key, each in triplets.items() if each.expires > greylisting.now}
    assert greylisting.origins() == {NET: origins[NET]}
    assert set(greylisting.store.orders().entries) == set(entries)


def test_an_import_may_be_repeated_and_changes_nothing(greylisting: Greylisting) -> None:
    fill(greylisting)
    greylisting.succeed("export", greylisting.folder / "export")
    before = (greylisting.triplets(), greylisting.origins(), greylisting.store.orders().entries)
    told = greylisting.succeed("import", greylisting.folder / "export")
    assert "taken" in told
    assert told.count(" 0 taken") == told.count(" taken")
    assert before == (greylisting.triplets(), greylisting.origins(), greylisting.store.orders().entries)


def test_an_export_goes_through_a_pipe(greylisting: Greylisting) -> None:
    fill(greylisting)
    exported = greylisting.succeed("export")
    assert len(exported.splitlines()) == 8
    greylisting.run("forget", NET)
    done = greylisting.run("import", "-", standard_input=exported)
    assert done.exit_code == 0
    assert NET in greylisting.origins()


def test_an_export_that_fails_leaves_the_file_as_it_was(
    greylisting: Greylisting, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = greylisting.folder / "export"
    path.write_text("the old one")
    fill(greylisting)

    def broken(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("postmaster.greylist.writing.footer", broken)
    assert greylisting.run("export", path).exit_code == 1
    assert path.read_text() == "the old one"
    assert sorted(os.listdir(greylisting.folder)) == ["export", "mailward.toml", "state"]


def test_an_export_that_cannot_be_written_is_told(greylisting: Greylisting) -> None:
    done = greylisting.run("export", greylisting.folder / "nowhere" / "export")
    assert done.exit_code == EX_CANTCREAT
    assert "cannot be written: No such file" in done.output


@pytest.mark.parametrize(
    ("known", "offered", "kept"),
    [
        pytest.param((100, 0), (50, 0), "offered", id="waiting: who has waited longer"),
        pytest.param((50, 0), (100, 0), "known", id="waiting: what is known has waited longer"),
        pytest.param((50, 0), (1000, 900), "offered", id="what passed is better than what waits"),
        pytest.param((1000, 900), (50, 0), "known", id="what waits never takes the place of what passed"),
        pytest.param((1000, 100), (2000, 900), "offered", id="both passed: what is remembered longer"),
        pytest.param((1000, 900), (2000, 100), "known", id="both passed: what is known is remembered longer"),
    ],
)
def test_the_better_record_is_kept(
    greylisting: Greylisting, known: tuple[float, float], offered: tuple[float, float], kept: str
) -> None:
    def record(first: float, passed: float) -> TripletRecord:
        at = greylisting.now - DAY
        if passed:
            return TripletRecord(TRIPLET, at + first, at + passed, at + passed + WINDOWS.remember)
        return TripletRecord(TRIPLET, at + first, 0.0, at + first + WINDOWS.retry_window)

    greylisting.learn(record(*known))
    (before,) = greylisting.triplets().values()
    greylisting.succeed("import", written(greylisting, of_triplet(record(*offered)), end(1)))
    (after,) = greylisting.triplets().values()
    if kept == "known":
        assert after == before
    else:
        assert bool(after.passed_at) == bool(offered[1])
        assert after.expires >= record(*offered).expires - 1e-3


def test_a_return_that_is_counted_on_stays_where_it_was_counted() -> None:
    known = TripletRecord(TRIPLET, NOW - 100, 0.0, NOW + DAY, is_expected=True)
    offered = TripletRecord(TRIPLET, NOW - 5000, 0.0, NOW + DAY)
    assert better_triplet(known, offered, NOW) is known


moments = st.floats(NOW - 50 * DAY, NOW, allow_nan=False)
triplet_records = st.builds(
    lambda first, waited, left, passed: TripletRecord(
        TRIPLET, first, min(NOW, first + waited) if passed else 0.0, NOW + left
    ),
    moments,
    st.floats(60, 5000),
    st.floats(-DAY, 30 * DAY),
    st.booleans(),
)
origin_records = st.builds(
    lambda passes, counted, left: OriginRecord(NET, passes, counted, NOW + left),
    st.integers(1, 10),
    moments,
    st.floats(-DAY, 30 * DAY),
)


@given(st.none() | triplet_records, triplet_records.filter(lambda record: record.expires > NOW))
@settings(max_examples=200)
def test_no_import_lowers_a_triplet(known: TripletRecord | None, offered: TripletRecord) -> None:
    kept = better_triplet(known, offered, NOW)
    assert kept == better_triplet(kept, offered, NOW), "a second import changes nothing"
    if known is None or known.expires <= NOW:
        assert kept == offered
        return
    assert bool(kept.passed_at) == bool(known.passed_at or offered.passed_at)
    if bool(kept.passed_at) == bool(known.passed_at):
        assert kept.expires >= known.expires
        assert kept.first_seen <= known.first_seen or kept.passed_at


@given(st.none() | origin_records, origin_records.filter(lambda record: record.expires > NOW))
@settings(max_examples=100)
def test_no_import_lowers_an_origin(known: OriginRecord | None, offered: OriginRecord) -> None:
    kept = better_origin(known, offered, NOW)
    assert kept == better_origin(kept, offered, NOW)
    for each in filter(lambda record: record is not None and record.expires > NOW, (known, offered)):
        assert each is not None
        assert kept.passes >= each.passes
        assert kept.expires >= each.expires


def test_an_order_of_the_operators_is_never_replaced(greylisting: Greylisting) -> None:
    greylisting.succeed("deny", "mx.example.com")
    entry = {"record": "entry", "kind": "name", "subject": "MX.example.com", "is_allowed": True}
    entry |= {"added_at": 1, "until": 0, "note": ""}
    told = greylisting.succeed("import", written(greylisting, entry, end(1)))
    assert "0 taken, 1 skipped" in told
    assert greylisting.entries() == {"mx.example.com": False}


def test_nothing_lasts_longer_than_if_it_had_been_learned_here(greylisting: Greylisting) -> None:
    for_ever = 2.0**53
    greylisting.succeed(
        "import",
        written(
            greylisting,
            of_triplet(replace(greylisting.passed(NET, "a@example.com", "b@example.org"), expires=for_ever)),
            of_triplet(replace(greylisting.waiting(NET, "c@example.com", "b@example.org"), expires=for_ever)),
            {"record": "origin", "origin": NET, "passes": 9, "counted_at": greylisting.now, "expires": for_ever},
            {"record": "correspondent", "address": "carol@example.com", "expires": for_ever},
            end(4),
        ),
    )
    most = greylisting.now + WINDOWS.remember + 60
    assert len(greylisting.triplets()) == 2
    assert all(record.expires < most for record in greylisting.triplets().values())
    assert all(record.expires < most for record in greylisting.origins().values())
    assert all(expires < most for _, expires in greylisting.store.correspondents())


GOOD = {
    "record": "triplet",
    "origin": NET,
    "mail_from": "a@example.com",
    "rcpt_to": "b@example.org",
    "first_seen": 1.0,
    "passed_at": 0.0,
    "expires": 2.0**40,
}

ENTRY = {
    "record": "entry",
    "kind": "sender",
    "subject": "",
    "is_allowed": True,
    "added_at": 0,
    "until": 0,
    "note": "",
}


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("", id="an empty line"),
        pytest.param("{", id="half a line"),
        pytest.param("[" * 10_000, id="nested without end"),
        pytest.param("[" * 100_000, id="a line without end"),
        pytest.param("7", id="a number"),
        pytest.param("null", id="nothing"),
        pytest.param("\x00\x1b[31m", id="control characters"),
        pytest.param(json.dumps({"record": "else"}), id="another kind"),
        pytest.param(json.dumps({"record": ["triplet"]}), id="a kind that is none"),
        pytest.param(json.dumps({**GOOD, "origin": ""}), id="no origin"),
        pytest.param(json.dumps({**GOOD, "origin": "a b"}), id="a space in the origin"),
        pytest.param(json.dumps({**GOOD, "origin": "x" * 321}), id="an origin without end"),
        pytest.param(json.dumps({**GOOD, "mail_from": None}), id="a sender that is none"),
        pytest.param(json.dumps({**GOOD, "mail_from": 0}), id="a sender that is a number"),
        pytest.param(json.dumps({**GOOD, "mail_from": "\x1b[31m"}), id="a sender that colours the screen"),
        pytest.param(json.dumps({**GOOD, "rcpt_to": "caf\u00e9"}), id="a recipient that is not ASCII"),
        pytest.param(json.dumps({**GOOD, "rcpt_to": "\ud800"}), id="half a character"),
        pytest.param(json.dumps({**GOOD, "first_seen": "1"}), id="a time that is text"),
        pytest.param(json.dumps({**GOOD, "first_seen": True}), id="a time that is true"),
        pytest.param(json.dumps({**GOOD, "expires": float("nan")}), id="a time that is no number"),
        pytest.param(json.dumps({**GOOD, "expires": float("inf")}), id="a time without end"),
        pytest.param(json.dumps({**GOOD, "expires": -1}), id="a time before 1970"),
        pytest.param(json.dumps(GOOD).replace("1.0", "1" * 5000), id="a number of five thousand digits"),
        pytest.param(json.dumps({"record": "origin", "origin": NET, "passes": 2**70}), id="passes without end"),
        pytest.param(json.dumps({"record": "entry", "kind": "network", "subject": "0.0.0.0/0"}), id="all the Internet"),
        pytest.param(json.dumps({**ENTRY, "subject": 7}), id="an entry of a number"),
        pytest.param(json.dumps({**ENTRY, "subject": "\ud800.example"}), id="an entry with half a character"),
    ],
)
def test_a_line_that_is_none_is_counted_and_the_others_are_taken(greylisting: Greylisting, line: str) -> None:
    good = of_triplet(greylisting.waiting(NET, "a@example.com", "b@example.org"))
    done = greylisting.run("import", written(greylisting, line + "\n", good, end(2)))
    assert NOT_OURS in done.output
    assert len(greylisting.triplets()) == 1
    assert not greylisting.origins()
    assert not greylisting.entries()
    assert all(character == "\n" or " " <= character <= "~" for character in done.output)


@given(st.lists(st.binary(max_size=300), max_size=5))
@settings(max_examples=100)
def test_any_octets_are_records_or_reasons(lines: list[bytes]) -> None:
    for item in read_records(iter(lines)):
        assert isinstance(item, Skipped)


def test_a_file_that_ends_early_is_taken_as_far_as_it_goes(greylisting: Greylisting) -> None:
    good = of_triplet(greylisting.waiting(NET, "a@example.com", "b@example.org"))
    cut = greylisting.run("import", written(greylisting, good, '{"record":"trip'))
    assert cut.exit_code == EX_DATAERR
    assert "missing at the end" in cut.output
    assert len(greylisting.triplets()) == 1
    lines_lost = greylisting.run("import", written(greylisting, good, end(7)))
    assert lines_lost.exit_code == EX_DATAERR
    assert "missing: of those before the end 1 are here" in lines_lost.output


def test_what_is_from_the_future_is_not_taken(greylisting: Greylisting) -> None:
    ahead = greylisting.waiting(NET, "a@example.com", "b@example.org", ago=-DAY)
    told = greylisting.succeed("import", written(greylisting, of_triplet(ahead), end(1)))
    assert "from the future" in told
    assert not greylisting.triplets()


def test_an_import_in_batches_takes_all(greylisting: Greylisting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postmaster.greylist.importing.BATCH", 7)
    records = [greylisting.waiting(NET, f"a{n}@example.com", "b@example.org") for n in range(30)]
    told = greylisting.succeed("import", written(greylisting, *map(of_triplet, records), end(30)))
    assert "30 taken, 0 skipped" in told
    assert len(greylisting.triplets()) == 30
    again = greylisting.succeed("import", written(greylisting, *map(of_triplet, records), end(30)))
    assert "0 taken, 30 skipped" in again
    assert KNOWN in again


def test_an_interrupted_import_keeps_what_was_taken_and_goes_on_later(
    greylisting: Greylisting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postmaster.greylist.importing.BATCH", 5)
    records = [greylisting.waiting(NET, f"a{n}@example.com", "b@example.org") for n in range(30)]
    path = written(greylisting, *map(of_triplet, records), end(30))
    kind = type(greylisting.store)
    put_triplets, calls = kind.put_triplets, itertools.count(1)

    def interrupted(self: GreylistRecords, records: Iterable[TripletRecord]) -> None:
        if next(calls) == 3:
            raise KeyboardInterrupt
        put_triplets(self, records)

    with monkeypatch.context() as patched:
        patched.setattr(kind, "put_triplets", interrupted)
        done = greylisting.run("import", path)
    assert done.exit_code == 1
    assert "takes the rest" in done.output
    assert len(greylisting.triplets()) == 10
    assert "20 taken, 10 skipped" in greylisting.succeed("import", path)
    assert len(greylisting.triplets()) == 30


def test_the_same_twice_in_a_file_is_one(greylisting: Greylisting) -> None:
    good = of_triplet(greylisting.waiting(NET, "a@example.com", "b@example.org"))
    told = greylisting.succeed("import", written(greylisting, good, good, end(2)))
    assert TWICE in told
    assert len(greylisting.triplets()) == 1


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param('{"mailward": "greylist", "version": 2}\n', "newer Mailward", id="a newer version"),
        pytest.param('{"mailward": "other"}\n', "expected an export, postgrey's", id="another file of ours"),
        pytest.param("", "expected an export", id="an empty file"),
        pytest.param("\x00\xff" * 100_000, "expected an export", id="another file"),
    ],
)
def test_a_file_that_is_something_else_is_refused(greylisting: Greylisting, content: str, why: str) -> None:
    path = greylisting.folder / "file"
    path.write_text(content)
    done = greylisting.run("import", path)
    assert done.exit_code == EX_DATAERR
    assert why in done.output


def test_a_file_that_is_not_there_is_named(greylisting: Greylisting) -> None:
    done = greylisting.run("import", greylisting.folder / "\x1b[31mnothing")
    assert done.exit_code == EX_NOINPUT
    assert r"\x1b[31mnothing: No such file" in done.output


CLIENTS = """\
# a comment
mail.example.com     # another
192.0.2.7
198.51.100
203.0.113.0/24
2001:db8::/32
/^smtp\\d+\\.example\\.net$/
/(a|b)+$/
"""


def test_postgreys_whitelist_of_clients_becomes_allow(greylisting: Greylisting) -> None:
    path = greylisting.folder / "whitelist_clients.local"
    path.write_text(CLIENTS)
    done = greylisting.run("import", path)
    assert done.exit_code == 0
    assert "entries         6 taken, 1 skipped" in done.output
    assert "whitelist_clients.local: line 8: " in done.output
    names = {"mail.example.com", "smtp*.example.net"}
    networks = {"192.0.2.7/32", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"}
    assert greylisting.entries() == dict.fromkeys(names | networks, True)
    assert "smtp\\\\d+" in greylisting.succeed("list")
    assert "0 taken, 7 skipped" in greylisting.succeed("import", path)


def test_postgreys_whitelist_of_recipients_becomes_allow(greylisting: Greylisting) -> None:
    path = greylisting.folder / "list"
    path.write_text("postmaster@\nabuse@\nbob@example.org\nexample.edu\n")
    assert greylisting.run("import", path).exit_code == EX_DATAERR
    assert "4 taken, 0 skipped" in greylisting.succeed("import", path, "--as", "postgrey-recipients")
    assert greylisting.entries() == dict.fromkeys(("postmaster@", "abuse@", "bob@example.org", "example.edu"), True)
    assert all(entry.kind is EntryKind.RECIPIENT for entry in greylisting.store.orders().entries)


def test_the_whitelists_that_debian_ships_can_be_taken(greylisting: Greylisting) -> None:
    for name in ("whitelist_clients", "whitelist_recipients"):
        told = greylisting.run("import", Path("/etc/postgrey") / name)
        assert told.exit_code == 0, told.output
    assert len(greylisting.entries()) > 100
    assert greylisting.entries()["postmaster@"]


def test_there_is_a_last_entry(greylisting: Greylisting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postmaster.greylist.importing.MAX_ENTRIES", 3)
    monkeypatch.setattr("postmaster.greylist.entries.MAX_ENTRIES", 3)
    path = greylisting.folder / "whitelist_clients"
    path.write_text("a.example\nb.example\nc.example\nd.example\n")
    assert "3 taken, 1 skipped" in greylisting.succeed("import", path)
    done = greylisting.run("allow", "e.example")
    assert done.exit_code == 1
    assert "entries already" in done.output
