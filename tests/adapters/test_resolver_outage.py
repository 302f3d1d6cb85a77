"""Nameservers that fall silent, are gone, come back; and that no sender can bring that about. Real sockets, real threads.

Time-outs are short, waits are generous: what is asserted is an order of events, or a difference of an order of magnitude.
"""

from __future__ import annotations

import errno
import itertools
import resource
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from mailward.adapters import dns_exchange
from mailward.adapters.dns_socket import Attempt
from mailward.adapters.resolver import Resolver
from mailward.model.dns import Answer, AnswerStatus, Failure
from tests.adapters.resolver_support import TIMEOUT, Start, Watch, Watched, label
from tests.support.odd_nameserver import (
    Message,
    OddNameserver,
    Reply,
    by_name,
    found,
    ns_of_root,
    saying,
    silent,
    with_code,
)
from tests.support.processes import wait_until


def test_a_server_that_falls_silent_is_left_alone_and_used_again_when_it_is_back(serve: Start, watch: Watch) -> None:
    server = serve()
    watched = watch(server)
    assert watched.ask("before.example").status is AnswerStatus.FOUND
    server.silence()
    assert watched.ask("during.example").failure in (Failure.TIMEOUT, Failure.AWAY)
    watched.wait_for("dns-away")
    asked = len(server.questions)
    assert watched.ask("other.example").failure is Failure.AWAY
    assert len(server.questions) == asked
    server.reply, server.control = found, ns_of_root
    watched.wait_for("dns-back")
    assert watched.ask("other.example").records == (b"good",)
    assert watched.ask("during.example").records == (b"good",)  # what failed then says nothing about now
    assert watched.events == [
        ("warning", "nameserver-away", label(server)),
        ("error", "dns-away", label(server)),
        ("info", "nameserver-back", label(server)),
        ("info", "dns-back", label(server)),
    ]
    assert watched.counts["dns_breaker_opened", label(server)] == 1
    assert watched.counts["dns_nameservers_open", label(server)] == 0


def test_while_the_dns_is_away_an_answer_takes_no_time(serve: Start, watch: Watch) -> None:
    first, second = serve(silent, control=silent), serve(silent, control=silent)
    watched = watch(first, second)
    watched.wait_for("dns-away")
    started = time.monotonic()
    answers = [watched.ask(f"n{number}.example") for number in range(1000)]
    assert time.monotonic() - started < 1000 * TIMEOUT / 100  # a time-out each would be 1000 s
    assert {answer.failure for answer in answers} == {Failure.AWAY}
    assert {answer.status for answer in answers} == {AnswerStatus.TEMPFAIL}


def test_a_server_that_is_gone_is_left_alone_and_used_again(serve: Start, watch: Watch) -> None:
    server = serve()
    watched = watch(server)
    server.stop()
    assert watched.ask("a.example").failure is Failure.NETWORK
    watched.wait_for("dns-away")
    server.start()
    watched.wait_for("dns-back")
    assert watched.ask("b.example").status is AnswerStatus.FOUND


def test_a_cold_start_without_dns_is_no_longer_than_an_outage(serve: Start, watch: Watch) -> None:
    server = serve(silent, control=silent)
    watched = watch(server)
    watched.wait_for("dns-away")  # though nobody has asked anything
    server.reply, server.control = found, ns_of_root
    watched.wait_for("dns-back")
    assert watched.ask().status is AnswerStatus.FOUND


@pytest.mark.parametrize("silent_one", [0, 1], ids=["the first", "the second"])
def test_with_one_of_two_away_the_other_is_asked_directly(serve: Start, watch: Watch, silent_one: int) -> None:
    servers = [serve(), serve()]
    servers[silent_one].silence()
    watched = watch(*servers, timeout=3.0)  # the other may be slow where the machine is busy
    watched.wait_for("nameserver-away")
    asked = len(servers[silent_one].questions)
    hedged = watched.counts["dns_hedged", ""]
    assert {watched.ask(f"n{number}.example").status for number in range(50)} == {AnswerStatus.FOUND}
    assert len(servers[silent_one].questions) == asked
    assert watched.counts["dns_hedged", ""] == hedged
    assert not watched.has_told("dns-away")
    assert watched.counts["dns_nameservers_open", label(servers[silent_one])] == 1


def test_before_that_a_silent_first_costs_the_delay_and_no_time_out(serve: Start, watch: Watch) -> None:
    first, second = serve(), serve()
    watched = watch(first, second, timeout=20.0)
    first.reply = silent
    started = time.monotonic()
    assert watched.ask().nameserver == label(second)
    assert time.monotonic() - started < 5.5  # a quarter of the time-out at the most


# ---- the order, until the breaker opens ----


@pytest.fixture
def pair(serve: Start, watch: Watch) -> tuple[OddNameserver, OddNameserver, Watched]:
    """Two servers that have answered; the time-out is too long for a breaker to open while a test runs."""
    first, second = serve(), serve()
    watched = watch(first, second, timeout=6.0, deadline=2.0)
    wait_until(lambda: not any(server.signs.is_missing for server in watched.servers), "the controls' answers")
    return first, second, watched


Pair = tuple[OddNameserver, OddNameserver, Watched]


def test_one_question_waits_for_a_server_that_has_fallen_silent_and_the_next_do_not(pair: Pair) -> None:
    first, second, watched = pair
    first.silence()
    answers = [watched.ask(f"n{number}.example") for number in range(50)]
    assert {answer.nameserver for answer in answers} == {label(second)}
    assert len(first.questions) == 1
    assert watched.counts["dns_hedged", ""] == 1
    assert watched.events == []  # the breaker has had no part in this


def test_it_is_preferred_again_once_it_has_answered_the_control_question(serve: Start, watch: Watch) -> None:
    first, second = serve(), serve()
    watched = watch(first, second, timeout=4.0)
    wait_until(lambda: not any(server.signs.is_missing for server in watched.servers), "the controls' answers")
    first.silence()
    assert watched.ask("a.example").nameserver == label(second)
    wait_until(lambda: len(first.control_questions) == 2, "the control question")
    first.reply, first.control = found, ns_of_root
    wait_until(lambda: not watched.first.signs.is_missing, "the next one")
    assert watched.ask("b.example").nameserver == label(first)
    assert watched.events == []


def test_it_is_preferred_again_once_it_has_answered_anybodys_question(pair: Pair) -> None:
    first, second, watched = pair
    first.silence()
    assert watched.ask("a.example").nameserver == label(second)
    first.reply = with_code(2)  # what it answers is all the same; the control question it still does not
    second.reply = by_name({"b.example": silent})
    thread = threading.Thread(target=watched.ask, args=("b.example",))
    thread.start()
    wait_until(lambda: not watched.first.signs.is_missing, "the answer to b.example")
    first.reply = found
    assert watched.ask("c.example").nameserver == label(first)
    second.reply = found
    thread.join()


def test_a_name_that_is_silent_everywhere_leaves_the_order_as_it_was(pair: Pair) -> None:
    first, second, watched = pair
    for server in (first, second):
        server.reply, server.control = by_name({"bad.example": silent}), silent
    thread = threading.Thread(target=watched.ask, args=("bad.example",))
    thread.start()
    wait_until(lambda: all(server.signs.is_missing for server in watched.servers), "both to be late")
    assert watched.ask("a.example").nameserver == label(first)
    assert watched.ask("b.example").nameserver == label(first)
    assert not watched.first.signs.is_missing
    assert watched.events == []
    for server in (first, second):
        server.reply = found
    thread.join()


def test_a_late_name_says_nothing_about_a_server_that_has_answered_another_since(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, watched = pair
    monkeypatch.setattr(watched.resolver._nameservers, "delay_of", lambda server: 0.3)
    first.reply, first.control = by_name({"bad.example": silent}), silent
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(watched.ask("bad.example")))
    thread.start()
    wait_until(lambda: bool(first.questions), "the silent name")
    assert watched.ask("good.example").nameserver == label(first)
    thread.join()
    assert [answer.nameserver for answer in answers] == [label(second)]
    assert not watched.first.signs.is_missing


def test_silent_names_do_not_move_honest_ones_that_are_answered_meanwhile(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, watched = pair
    monkeypatch.setattr(watched.resolver._nameservers, "delay_of", lambda server: 0.3)  # far above a hiccup of ours
    for server in (first, second):
        server.reply = lambda asked: None if str(asked.question[0].name).startswith("bad") else found(asked)
        server.control = silent  # the control question is not what keeps the order
    bad = [threading.Thread(target=watched.ask, args=(f"bad{number}.example",)) for number in range(20)]
    good: list[Answer] = []
    numbers = itertools.count()
    for thread in bad:
        thread.start()
        until = time.monotonic() + 0.06
        while (asked_at := time.monotonic()) < until:
            good.append(watched.ask(f"good{next(numbers)}.example"))
            if time.monotonic() - asked_at > 0.25:  # a hiccup of this machine's, which says nothing of the servers
                watched.resolver._nameservers.servers[0].signs.seen(time.monotonic())
                good.clear()
    assert watched.counts["dns_hedged", ""] >= 5  # silent names have been late
    assert len(good) > 50
    assert {answer.status for answer in good} == {AnswerStatus.FOUND}
    assert [answer.nameserver for answer in good].count(label(first)) > 0.8 * len(good)
    assert watched.events == []
    for server in (first, second):
        server.reply = found
    for thread in bad:
        thread.join()


def test_it_takes_all_servers_for_the_dns_to_be_away(serve: Start, watch: Watch) -> None:
    first, second = serve(silent, control=silent), serve()
    watched = watch(first, second)
    watched.wait_for("nameserver-away")
    assert watched.ask("a.example").status is AnswerStatus.FOUND
    second.silence()
    watched.ask("b.example")
    watched.wait_for("dns-away")
    first.reply, first.control = found, ns_of_root
    watched.wait_for("dns-back")
    assert watched.ask("c.example").nameserver == label(first)


def test_threads_that_wait_for_an_answer_give_up_when_the_dns_goes_away(serve: Start, watch: Watch) -> None:
    server = serve(by_name({"silent.example": silent}, otherwise=with_code(2)))
    watched = watch(server, timeout=60.0, deadline=60.0)
    server.control = with_code(2)
    answers: list[Answer] = []
    names = ["silent.example"] * 5  # one asks, four wait for it
    threads = [threading.Thread(target=lambda name=name: answers.append(watched.ask(name))) for name in names]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    wait_until(lambda: bool(server.questions), "the question")
    watched.ask("other.example")
    for thread in threads:
        thread.join()
    assert time.monotonic() - started < 30
    assert [answer.failure for answer in answers] == [Failure.AWAY] * 5


# ---- stale answers ----


def test_stale_answers_serve_while_the_dns_is_away_and_only_then(serve: Start, watch: Watch) -> None:
    server = serve(saying('@ 1 TXT "old"'))
    watched = watch(server)
    assert watched.ask().is_stale is False
    server.reply = silent
    time.sleep(1.05)
    assert watched.ask().failure is Failure.TIMEOUT  # this name's failure: no reason to bring back what is over
    server.control = silent
    watched.ask("other.example")
    watched.wait_for("dns-away")
    stale = watched.ask()
    assert (stale.records, stale.is_stale, stale.is_cached) == ((b"old",), True, True)
    assert watched.counts["dns_stale", ""] == 1
    assert watched.ask("other.example").failure is Failure.AWAY


# ---- nobody who sends mail decides ----

BAD_REPLIES: dict[str, Reply] = {
    "silence": silent,
    "SERVFAIL": with_code(2),
    "REFUSED": with_code(5),
    "FORMERR": with_code(1),
    "garbage": lambda question: b"\xff" * 30,
    "half an answer": lambda question: saying('@ 60 TXT "x"')(question)[:-3],  # type: ignore[index]
}

WAITED_FOR = ("silence", "garbage")  # each of these questions takes all of the time-out


@pytest.mark.parametrize("kind", BAD_REPLIES)
def test_no_sender_can_take_a_nameserver_out_of_use(serve: Start, watch: Watch, kind: str) -> None:
    def reply(asked: Message) -> object:
        is_bad = str(asked.question[0].name).startswith("bad")
        return (BAD_REPLIES[kind] if is_bad else found)(asked)

    servers = [serve(reply), serve(reply)]  # type: ignore[arg-type]
    # 200 threads and both servers share this process: where they are kept busy, an answer takes its time.
    watched = watch(*servers, timeout=1.0 if kind in WAITED_FOR else 20.0, deadline=60.0)
    started = time.monotonic()
    threads = [
        threading.Thread(target=lambda start=start: [watched.ask(f"bad{n}.example") for n in range(start, start + 5)])
        for start in range(0, 1000, 5)
    ]
    for thread in threads:
        thread.start()
    good = [watched.ask(f"good{number}.example") for number in range(200)]
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - started
    assert {answer.status for answer in good} == {AnswerStatus.FOUND}
    assert watched.ask("after.example").status is AnswerStatus.FOUND
    assert watched.events == []
    for server in servers:
        assert len(server.control_questions) <= seconds + 2  # one a second, however many fail
        assert len(server.deep_questions) <= seconds + 2


@pytest.mark.parametrize("code", [1, 4, 5], ids=["FORMERR", "NOTIMP", "REFUSED"])
def test_a_server_that_refuses_the_control_question_serves_on(serve: Start, watch: Watch, code: int) -> None:
    server = serve(by_name({"bad.example": with_code(2)}), control=with_code(code))
    watched = watch(server)
    for _ in range(3):
        watched.ask("bad.example")
        watched.resolver._failures.clear()
        time.sleep(1.0)
    assert len(server.control_questions) >= 2
    assert watched.ask().status is AnswerStatus.FOUND
    assert watched.events == []


def test_a_servfail_to_the_control_question_says_that_the_server_has_lost_the_dns(serve: Start, watch: Watch) -> None:
    server = serve()
    watched = watch(server)
    server.reply = server.control = with_code(2)
    watched.ask()
    watched.wait_for("dns-away")


def test_unless_it_never_could_answer_it(serve: Start, watch: Watch) -> None:
    server = serve(by_name({"bad.example": with_code(2)}), control=with_code(2))
    watched = watch(server)
    watched.ask("bad.example")
    wait_until(lambda: len(server.control_questions) >= 2, "the second control question")
    time.sleep(0.2)
    assert watched.ask().status is AnswerStatus.FOUND
    assert watched.events == []


def test_one_lost_control_question_changes_nothing(serve: Start, watch: Watch) -> None:
    asked_before: list[Message] = []

    def lose_the_first(asked: Message) -> bytes | None:
        asked_before.append(asked)
        return None if len(asked_before) == 1 else ns_of_root(asked)

    server = serve(control=lose_the_first)
    watched = watch(server)
    wait_until(lambda: len(server.control_questions) >= 2, "the second control question")
    time.sleep(0.2)
    assert watched.events == []
    assert watched.ask().status is AnswerStatus.FOUND


def test_our_own_lack_of_descriptors_is_no_nameservers_fault(serve: Start, watch: Watch) -> None:
    server = serve()
    watched = watch(server)
    wait_until(lambda: watched.first.has_answered_deep, "the last of the start's questions")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[socket.socket] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        while True:
            try:
                taken.append(socket.socket())
            except OSError:
                break
        until = time.monotonic() + 2.5
        failures: list[Failure | None] = []
        while time.monotonic() < until:
            failures.append(watched.ask(f"n{len(failures)}.example").failure)
            time.sleep(0.1)
        assert set(failures) == {Failure.OWN_WANT}
    finally:
        for one in taken:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert watched.events == []
    assert len(server.control_questions) == 1  # the one of the start: nobody is suspected
    assert watched.ask("n0.example").status is AnswerStatus.FOUND  # and what failed was not kept


def without_descriptors(monkeypatch: pytest.MonkeyPatch, wants: Callable[[int, int], bool]) -> None:
    """Have no descriptor for an attempt of which `wants` says so, given the server's number and how many were before."""
    made: list[int] = []

    def attempt(server: int, *arguments: object, **options: object) -> Attempt:
        made.append(server)
        if wants(server, len(made) - 1):
            raise OSError(errno.EMFILE, "Too many open files")
        return Attempt(server, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(dns_exchange, "Attempt", attempt)


def test_what_one_server_says_is_not_kept_where_the_other_could_not_be_asked(
    serve: Start, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = serve(), serve(with_code(2))
    watched = watch(first, second)
    wait_until(lambda: not watched.first.signs.is_missing, "the control question's answer")
    with monkeypatch.context() as patch:
        without_descriptors(patch, lambda server, _: server == 0)
        answer = watched.ask()
        assert (answer.status, answer.failure) == (AnswerStatus.TEMPFAIL, Failure.OWN_WANT)
        assert second.questions
    assert watched.ask().nameserver == label(first)


def test_no_descriptor_for_the_repetition_does_not_end_the_wait(
    serve: Start, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    watched = watch(server, timeout=2.0)
    server.delay = 1.4
    without_descriptors(monkeypatch, lambda _, before: before == 1)  # put after a second
    assert watched.ask().status is AnswerStatus.FOUND
    assert len(server.questions) == 1


def test_the_operator_may_choose_the_control_question(serve: Start, stack: ExitStack) -> None:
    server = serve()
    resolver = Resolver([server.address], TIMEOUT, 5.0, control="own.example")
    resolver.start()
    stack.callback(resolver.close)
    wait_until(lambda: server.names() == ["own.example."], "the control question")
    assert not server.control_questions


def test_closing_ends_the_threads(serve: Start) -> None:
    before = threading.active_count()
    watched = Watched(serve(), serve())
    watched.ask()
    assert threading.active_count() > before
    watched.resolver.close()
    wait_until(lambda: threading.active_count() <= before + 2, "the threads to end")  # the servers' own two
