"""`--hold-queue` and `--release-queue`: what is held is the account's, and what is released is what was held."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Set
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailward.adapters.stores import open_limits
from mailward.model.accounts import AuditEntry
from mailward.model.limits import Charge, Charging, CounterKey, Sent, Window
from mailward.model.ports import LimitRecords
from mailward.model.state import Durability, SqliteState
from mailward.settings.policyd import Settings
from mailward.settings.rule_set import read_rule_set
from postmaster.limits import holding, queue
from postmaster.limits.held import HOLD, RELEASE, entries_of, still_held
from postmaster.limits.opening import opened
from postmaster.limits.orders import Order
from postmaster.limits.queue import AHEAD_SECONDS, LONGEST_SECONDS, Message, Queue, of_account
from postmaster.opening import read_settings
from tests.postmaster.limiting import ALICE, BOB, Limiting
from tests.support.postfix import Postfix, smtpd_service
from tests.support.processes import free_port, open_folder, require_binary, require_root, run, wait_until

EX_UNAVAILABLE, EX_TEMPFAIL, EX_NOPERM = 69, 75, 77
ROOT = Path(__file__).parent.parent.parent
MESSAGE = b"From: alice@example.com\nSubject: hello\n\nHello.\n"


# ---- a real Postfix ----


class Installation:
    """A Postfix whose mail stays in the queue, and a state folder that belongs to the daemons' account."""

    def __init__(self, folder: Path, postfix: Postfix) -> None:
        self.postfix = postfix
        self.state = folder / "state"
        self.state.mkdir(0o750)
        owner = pwd.getpwnam("nobody")
        os.chown(self.state, owner.pw_uid, owner.pw_gid)
        self.config = folder / "mailward.toml"
        self.config.write_text(f'state = "sqlite:{self.state}"\n')

    def limits(self, *arguments: str) -> str:
        """Run `mailward limits` as root, and return what it printed."""
        words = ["limits", arguments[0], "--config", str(self.config), *arguments[1:]]
        done = subprocess.run(
            [sys.executable, "-m", "postmaster", *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "SUDO_USER": "carol"},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def queue(self) -> dict[str, tuple[str, int]]:
        """Return each message's queue, and when it arrived."""
        listing = run([require_binary("postqueue", "postfix"), "-c", str(self.postfix.etc), "-j"])
        trees = [json.loads(line) for line in listing.splitlines()]
        return {tree["queue_id"]: (tree["queue_name"], tree["arrival_time"]) for tree in trees}

    def send(self, mail_from: str, messages: int) -> list[str]:
        """Send messages that stay in the queue; return their ids."""
        before = set(self.queue())
        for _ in range(messages):
            self.postfix.sendmail(MESSAGE, mail_from=mail_from, rcpt_to=["dave@example.org"])

        def new() -> set[str]:
            return {name for name, (queue_name, _) in self.queue().items() if queue_name == "deferred"} - before

        wait_until(lambda: len(new()) == messages, "the messages in the queue", seconds=60)
        return sorted(new())


@pytest.fixture
def installation() -> Iterator[Installation]:
    require_root()
    with open_folder() as folder:
        port = free_port()
        settings = {"defer_transports": "smtp", "myhostname": "mx.example.net", "queue_run_delay": "3600s"}
        postfix = Postfix(folder / "postfix", settings=settings, services=[smtpd_service(port)], ports=[port])
        postfix.start()
        try:
            yield Installation(folder, postfix)
        finally:
            postfix.stop()


def note(store: LimitRecords, account: str, queue_id: str, now: float | None = None) -> None:
    """Let policyd have seen an account hand over a message."""
    key = CounterKey(f"sasl_username={account}", "account-recipients")
    charge = Charge(key, (Window(10_000, 3600.0),))
    (outcome,) = store.charge([Charging((charge,), Sent(account, queue_id))], now)
    assert outcome.is_charged


def test_postfix_holds_what_a_suspended_account_has_in_the_queue_and_releases_just_that(
    installation: Installation,
) -> None:
    installation.limits("list")  # the file is the daemons', whoever opens it first
    hers, his = installation.send(ALICE, 4), installation.send(BOB, 2)
    options = ["--postfix-config", str(installation.postfix.etc)]
    store = open_limits(SqliteState(installation.state), Durability.PROCESS, 30.0)
    try:
        for queue_id in hers:
            note(store, ALICE, queue_id)
        # His message has an id that one of hers had some minutes before.
        note(store, ALICE, his[0], time.time() - 600)
        for nothing in ("ALL", "4000000000", "-d"):
            note(store, ALICE, nothing)
        # One of hers is on hold because somebody wanted to look at it.
        run([require_binary("postsuper", "postfix"), "-c", str(installation.postfix.etc), "-h", hers[3]])

        told = installation.limits("suspend", ALICE, "--hold-queue", *options, "--why", "sends spam")
        assert "is suspended" in told
        assert "3 messages of it put on hold" in told
        assert "1 message of it had been put on hold by others" in told
        now = installation.queue()
        assert {queue_id for queue_id, (name, _) in now.items() if name == "hold"} == set(hers)
        assert {now[queue_id][0] for queue_id in his} == {"deferred"}

        again = installation.limits("suspend", ALICE, "--hold-queue", *options)
        assert "suspended already" in again
        assert "0 messages of it put on hold" in again
        assert "3 messages had been put on hold before" in again

        told = installation.limits("resume", ALICE, "--release-queue", *options, "--why", "password changed")
        assert "is given back" in told
        assert "3 messages released" in told
        now = installation.queue()
        assert {queue_id for queue_id, (name, _) in now.items() if name == "hold"} == {hers[3]}
        assert set(now) == {*hers, *his}, "nothing was lost"
        assert "0 messages released" in installation.limits("resume", ALICE, "--release-queue", *options)

        entries = [entry for entry in reversed(store.audit_log(ALICE)) if entry.action != "reset"]
        assert [entry.action for entry in entries] == [
            "suspend",
            "hold-queue",
            "queue-held",
            "resume",
            "release-queue",
            "queue-released",
        ]
        assert {entry.who for entry in entries} == {"carol (uid 0)"}
        assert (entries[2].after, entries[2].why) == ("3 messages put on hold", "sends spam")
    finally:
        store.close()
    assert {path.stat().st_uid for path in installation.state.iterdir()} == {pwd.getpwnam("nobody").pw_uid}


# ---- without Postfix ----


class OddQueue(Queue):
    """A queue in a dictionary, to which something may happen just before messages are moved."""

    def __init__(self, *messages: Message) -> None:
        super().__init__()
        self.waiting = dict.fromkeys(messages, False)
        self.before_moving: Callable[[], None] = lambda: None
        self.is_stuck = False

    def listed(self, wanted: Set[str]) -> dict[Message, bool]:
        return {message: is_held for message, is_held in self.waiting.items() if message.queue_id in wanted}

    def hold(self, messages: Iterable[Message]) -> None:
        self._put([message.queue_id for message in messages], True)

    def release(self, messages: Iterable[Message]) -> None:
        self._put([message.queue_id for message in messages], self.is_stuck)

    def _put(self, ids: list[str], is_held: bool) -> None:
        """Move messages as Postfix does: by their ids alone."""
        self.before_moving()
        for message in self.waiting:
            if message.queue_id in ids:
                self.waiting[message] = is_held


def opener(limiting: Limiting) -> holding.Open:
    """Return what opens the state, as a sub-command does it."""
    settings = read_settings(Settings, limiting.config)
    rules = read_rule_set(settings.policyd)
    return lambda: opened(settings, rules)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "BETWEEN_LOOKS", 0.0)


ORDER = Order(ALICE, "carol (uid 0)", "because")


def now_message(queue_id: str, ago: int = 0) -> Message:
    return Message(queue_id, int(time.time()) - ago)


def test_an_id_that_was_given_away_meanwhile_is_let_go_at_once(
    limiting: Limiting, capsys: pytest.CaptureFixture[str]
) -> None:
    hers, other = now_message("4AAAAAA", ago=30), now_message("4AAAAAA")
    note(limiting.store, ALICE, "4AAAAAA", hers.arrived_at + 0.5)
    postfix = OddQueue(hers)

    def give_away() -> None:
        if hers in postfix.waiting:
            del postfix.waiting[hers]
            postfix.waiting[other] = False

    postfix.before_moving = give_away
    holding.hold_queue(opener(limiting), ORDER, postfix)
    assert postfix.waiting == {other: False}
    assert "0 messages of it put on hold" in capsys.readouterr().out
    holding.release_queue(opener(limiting), ORDER, postfix)
    assert "1 message that had been put on hold here, or on another machine" in capsys.readouterr().out


def test_what_comes_into_the_queue_after_the_first_look_is_held_too(
    limiting: Limiting, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = now_message("4AAAAAA"), now_message("4BBBBBB")
    note(limiting.store, ALICE, "4AAAAAA")
    postfix = OddQueue(first)

    def arrive(_seconds: float) -> None:
        note(limiting.store, ALICE, "4BBBBBB")
        postfix.waiting[second] = False

    monkeypatch.setattr(time, "sleep", arrive)
    holding.hold_queue(opener(limiting), ORDER, postfix)
    assert postfix.waiting == {first: True, second: True}
    told = capsys.readouterr().out
    assert "2 messages of it put on hold" in told
    assert "before" not in told


def test_who_was_interrupted_while_holding_can_release_all_the_same(
    limiting: Limiting, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = [now_message(f"4AAAAA{number}") for number in range(9)]
    for message in messages:
        note(limiting.store, ALICE, message.queue_id)
    postfix = OddQueue(*messages)

    def interrupt() -> None:
        postfix.waiting[messages[0]] = postfix.waiting[messages[1]] = True
        raise KeyboardInterrupt

    postfix.before_moving = interrupt
    with pytest.raises(KeyboardInterrupt):
        holding.hold_queue(opener(limiting), ORDER, postfix)
    assert sum(postfix.waiting.values()) == 2
    postfix.before_moving = lambda: None
    holding.release_queue(opener(limiting), ORDER, postfix)
    assert not any(postfix.waiting.values())
    assert "2 messages released" in capsys.readouterr().out


def test_what_cannot_be_released_is_said_and_tried_again(
    limiting: Limiting, capsys: pytest.CaptureFixture[str]
) -> None:
    message = now_message("4AAAAAA")
    note(limiting.store, ALICE, message.queue_id)
    postfix = OddQueue(message)
    holding.hold_queue(opener(limiting), ORDER, postfix)
    postfix.is_stuck = True
    holding.release_queue(opener(limiting), ORDER, postfix)
    assert "1 message could not be released" in capsys.readouterr().out
    postfix.is_stuck = False
    holding.release_queue(opener(limiting), ORDER, postfix)
    assert "1 message released" in capsys.readouterr().out
    assert limiting.actions(ALICE) == ["hold-queue", "queue-held", "release-queue", "queue-released"]


@pytest.mark.parametrize("arguments", [["suspend", ALICE, "--hold-queue"], ["resume", ALICE, "--release-queue"]])
def test_the_queue_wants_root_and_without_it_nothing_is_done(
    limiting: Limiting, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = limiting.run(*arguments)
    assert done.exit_code == EX_NOPERM
    assert "run as root" in done.output
    assert limiting.actions() == []


def test_without_postfix_the_account_is_suspended_and_that_is_said(
    limiting: Limiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_root()
    note(limiting.store, ALICE, "4AAAAAA")
    monkeypatch.setattr(queue, "PATH", "/nonexistent")
    done = limiting.run("suspend", ALICE, "--hold-queue")
    assert done.exit_code == EX_UNAVAILABLE
    assert "the account is suspended; its queue was not put on hold" in done.output
    assert limiting.store.account(ALICE).suspension is not None


def test_what_postfix_says_when_it_fails_is_shown_escaped(limiting: Limiting, monkeypatch: pytest.MonkeyPatch) -> None:
    require_root()
    note(limiting.store, ALICE, "4AAAAAA")
    program = limiting.folder / "postqueue"
    program.write_text("#!/bin/sh\nprintf 'fatal: \\033[2J' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(queue, "PATH", f"{limiting.folder}:/usr/bin:/bin")
    done = limiting.run("suspend", ALICE, "--hold-queue")
    assert done.exit_code == EX_TEMPFAIL
    assert "Postfix: fatal: \\x1b[2J; the account is suspended" in done.output


def test_a_folder_of_postfix_without_its_queue_is_refused(limiting: Limiting) -> None:
    done = limiting.run("suspend", ALICE, "--postfix-config", "/etc/postfix")
    assert done.exit_code == 2
    assert limiting.actions() == []


# ---- which messages ----


@pytest.mark.parametrize(
    ("arrived_at", "is_hers"),
    [
        pytest.param(1_000_000, True, id="in the second in which it was counted"),
        pytest.param(1_000_000 - 3600, True, id="an hour before: it was long"),
        pytest.param(1_000_000 + AHEAD_SECONDS, True, id="a clock that is ahead"),
        pytest.param(1_000_000 + AHEAD_SECONDS + 1, False, id="after it was counted: another message with its id"),
        pytest.param(1_000_000 - LONGEST_SECONDS - 1, False, id="long before: a message of another machine"),
    ],
)
def test_a_message_is_an_accounts_if_its_id_was_counted_after_it_had_arrived(arrived_at: int, is_hers: bool) -> None:
    message = Message("4AAAAAA", int(arrived_at))
    assert of_account([(1_000_000.0, "4AAAAAA")], {message: False}) == ({message: False} if is_hers else {})


MESSAGES = st.sets(
    st.builds(Message, st.from_regex(r"[0-9A-Za-z]{6,40}", fullmatch=True), st.integers(0, 2**40)), max_size=130
)


@given(MESSAGES, MESSAGES)
def test_what_is_noted_as_held_and_not_as_released_is_still_held(held: set[Message], released: set[Message]) -> None:
    log = [
        *entries_of(HOLD, ALICE, held, who="x", why="", now=1.0),
        *entries_of(RELEASE, ALICE, released, who="x", why="", now=2.0),
    ]
    assert still_held(log[::-1]) == held - released
    assert all(len(entry.before + entry.after) < 3000 for entry in log)


@given(st.text(), st.sampled_from([HOLD, RELEASE, "suspend"]))
def test_any_text_of_the_audit_log_gives_messages_that_postsuper_can_be_told(text: str, action: str) -> None:
    for message in still_held([AuditEntry(1.0, "x", action, ALICE, "", text, text)]):
        assert queue.QUEUE_ID.fullmatch(message.queue_id)


@given(st.lists(st.text() | st.sampled_from(['{"queue_id":', "[]", "null", '{"queue_id":"ALL","arrival_time":1}'])))
def test_what_postqueue_should_not_print_is_passed_over(lines: list[str]) -> None:
    assert list(queue._messages(lines)) == []


@pytest.mark.parametrize("text", ["ALL", "", "4AAAAAA\nALL", "-d", "../../etc", "4" * 41])
def test_only_queue_ids_are_given_to_postsuper(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    told: list[str] = []
    monkeypatch.setattr(Queue, "_run", lambda _queue, *_options, words: told.append(words))
    Queue().hold([Message(text, 1), Message("4AAAAAA", 1)])
    assert told == ["4AAAAAA\n"]
