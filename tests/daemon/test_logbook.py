"""The last errors: none is pushed out by one that comes often, none is too long, and telling them holds nobody up."""

from __future__ import annotations

import os
import socket
import time

import pytest

from mailward.daemon import log as logging
from mailward.daemon.logbook import LINES, LINES_KEPT, LOG_METRICS, MAX_EVENTS, MAX_TEXT, Logbook, clipped
from mailward.daemon.metrics import Metrics
from mailward.daemon.worker import MAX_NOTE, TOLD, TOLD_IN_A_MINUTE, Telltale
from tests.daemon.test_metrics import scraped


def test_the_event_that_came_last_stands_first() -> None:
    book = Logbook()
    for at, event in enumerate(["a", "b", "a"]):
        book.take("error", f"{event} n={at}", "worker 1", float(at))
    assert [(entry.event, entry.seen, entry.first) for entry in book.entries()] == [("a", 2, 0.0), ("b", 1, 1.0)]
    assert [line.text for line in book.entries()[0].lines] == ["a n=0", "a n=2"]


def test_an_error_that_comes_a_thousand_times_pushes_no_other_out() -> None:
    book = Logbook()
    book.take("critical", "key-unusable file=x", "worker 1", 0.0)
    for number in range(1000):
        book.take("error", f"own-bug n={number}", "worker 2", 1.0)
    assert [(entry.level, entry.event, entry.seen) for entry in book.entries()] == [
        ("error", "own-bug", 1000),
        ("critical", "key-unusable", 1),
    ]
    assert [line.text for line in book.entries()[0].lines] == [f"own-bug n={n}" for n in range(1000 - LINES_KEPT, 1000)]


def test_the_events_are_bounded() -> None:
    book = Logbook()
    for number in range(MAX_EVENTS + 5):
        book.take("error", f"event-{number} x=1", "worker 1", 0.0)
    assert len(book.entries()) == MAX_EVENTS
    assert book.entries()[0].event == f"event-{MAX_EVENTS + 4}"


@pytest.mark.parametrize("level", ["warning", "info", "", "<script>", "error\n"])
def test_what_is_no_error_is_not_kept(level: str) -> None:
    book = Logbook()
    book.take(level, "a b=c", "worker 1", 0.0)
    assert book.entries() == []


@pytest.mark.parametrize(
    ("line", "text"),
    [
        pytest.param("<3>level=error program=p event=a b=c", "a b=c", id="it begins with the event"),
        pytest.param('level=error program=p event=a b=" event=x"', 'a b=" event=x"', id="with the first one"),
        pytest.param("nonsense", "nonsense", id="a line of another form"),
    ],
)
def test_a_line_is_told_without_what_every_line_has(line: str, text: str) -> None:
    assert clipped(line) == text


def test_a_long_line_keeps_both_ends() -> None:
    text = clipped("level=error program=p event=own-bug " + "\u00e9" * 2000 + " ValueError: last")
    assert text.startswith("own-bug \u00e9")
    assert text.endswith("\u00e9 ValueError: last")
    assert len(text.encode()) <= MAX_TEXT


def told(ours: socket.socket) -> list[bytes]:
    ours.setblocking(False)
    messages = []
    try:
        while True:
            messages.append(ours.recv(MAX_NOTE))
    except BlockingIOError:
        return messages


def test_errors_are_told_up_to_a_bound_and_all_are_counted() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    metrics = Metrics("mailward_test", LOG_METRICS)
    with ours, theirs:
        tell = Telltale(theirs, metrics.row(1))
        for number in range(1000):
            tell("error", f"level=error program=p event=own-bug n={number}")
            tell("warning", f"level=warning program=p event=odd n={number}")
        tell("critical", "level=critical program=p event=late " + "x" * 5000)
        messages = told(ours)
    assert messages == [TOLD + b"error\0own-bug n=%d" % number for number in range(TOLD_IN_A_MINUTE)]
    found = scraped(metrics)
    assert [found[f"{LINES}_total {level}"] for level in ("warning", "error", "critical")] == [1000, 1000, 1]


def test_the_longest_line_is_one_message() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        Telltale(theirs, Metrics("mailward_test", LOG_METRICS).row(1))("critical", "event=" + "\u20ac" * 3000)
        (message,) = told(ours)
    assert len(message) < MAX_NOTE


def test_telling_nobody_who_reads_holds_nobody_up() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.setblocking(False)
        try:
            while True:
                theirs.send(b"x" * 1000)
        except BlockingIOError:
            theirs.setblocking(True)
        started = time.monotonic()
        Telltale(theirs, Metrics("mailward_test", LOG_METRICS).row(1))("error", "event=a")
        assert time.monotonic() - started < 20


def test_the_log_shows_its_watcher_what_is_no_mere_report(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []
    monkeypatch.setattr(logging, "_watch", logging._watch)  # whoever watched goes on afterwards
    nowhere = os.open(os.devnull, os.O_WRONLY)
    kept = os.dup(2)
    os.dup2(nowhere, 2)
    try:
        logging.configure("debug")
        logging.watch(lambda level, line: seen.append((level, clipped(line))))
        log = logging.get("test")
        for level in ("debug", "info", "warning", "error", "critical"):
            getattr(log, level)("event", of=level)
        try:
            raise ValueError("a bug")
        except ValueError:
            log.exception("own-bug")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
    assert seen[:3] == [(level, f"event of={level}") for level in ("warning", "error", "critical")]
    assert seen[3][0] == "error"
    assert seen[3][1].endswith('ValueError: a bug"')
    assert len(seen) == 4
