"""A resolver that has lost its line is found out though it answers for the root; and no sender can bring that about."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from mailward.adapters import dns_control, dns_servers
from mailward.adapters.dns_control import deep_question, put
from mailward.adapters.dns_servers import MISSES_TO_DOUBT
from mailward.adapters.dns_socket import Attempt
from mailward.adapters.resolver import Resolver
from mailward.model.dns import Answer, AnswerStatus, Failure
from tests.adapters.resolver_support import TIMEOUT, Start, Watch, Watched, label, question
from tests.support.odd_nameserver import (
    Message,
    OddNameserver,
    Reply,
    by_name,
    denied,
    found,
    ns_of_root,
    silent,
    with_code,
)
from tests.support.processes import wait_until


def armed(watch: Watch, *servers: OddNameserver, **options: float) -> Watched:
    """Return a resolver all of whose servers have answered a deep question."""
    watched = watch(*servers, **options)
    wait_until(lambda: all(server.has_answered_deep for server in watched.servers), "deep answers")
    return watched


def ask_until(watched: Watched, event: str) -> None:
    """Ask for new names, as a stream of strangers does, until something is told."""

    def is_told() -> bool:
        watched.ask(f"stranger{time.monotonic_ns()}.example")
        return watched.has_told(event)

    wait_until(is_told, event)


def ask_in_vain(watched: Watched, questions: int) -> None:
    for number in range(questions):
        assert watched.ask(f"bad{number}.example").status is AnswerStatus.TEMPFAIL


@pytest.mark.parametrize("reply", [with_code(2), silent], ids=["SERVFAIL", "silence"])
@pytest.mark.parametrize("is_hasty", [False, True], ids=["as shipped", "in haste"])
def test_a_resolver_that_has_lost_its_line_is_found_out(
    serve: Start, watch: Watch, reply: Reply, is_hasty: bool
) -> None:
    server = serve()
    watched = armed(watch, server, is_hasty=is_hasty)
    server.lose_line(reply)
    ask_until(watched, "dns-away")
    assert watched.ask("other.example").failure is Failure.AWAY
    asked = len(server.control_questions)
    wait_until(lambda: len(server.control_questions) >= asked + 2, "control questions that are answered")
    assert watched.resolver.is_away
    server.speak()
    watched.wait_for("dns-back")
    assert watched.ask("other.example").status is AnswerStatus.FOUND
    assert [event for _, event, _ in watched.events] == ["nameserver-away", "dns-away", "nameserver-back", "dns-back"]
    assert "beyond its memory" in watched.reasons[0]


def test_a_deep_question_is_new_each_time_and_bears_our_name(serve: Start, watch: Watch) -> None:
    server = serve()
    watched = armed(watch, server)
    server.lose_line()
    ask_until(watched, "dns-away")
    names = [str(asked.question[0].name) for asked in server.deep_questions]
    assert len(names) == len(set(names)) >= 3
    assert {(name.count("."), name[:9], name[-5:]) for name in names} == {(2, "mailward-", ".com.")}
    assert len({deep_question() for _ in range(1000)}) == 1000


def test_all_nameservers_must_have_lost_it_for_the_dns_to_be_away(serve: Start, watch: Watch) -> None:
    first, second = serve(), serve()
    watched = armed(watch, first, second)
    first.lose_line()
    ask_until(watched, "nameserver-away")
    assert watched.ask("a.example").nameserver == label(second)
    assert not watched.resolver.is_away
    second.lose_line()
    ask_until(watched, "dns-away")
    first.speak()
    watched.wait_for("dns-back")
    assert watched.ask("b.example").nameserver == label(first)


def test_a_resolver_without_a_line_and_a_silent_one_are_the_dns_away(serve: Start, watch: Watch) -> None:
    first, second = serve(), serve()
    watched = armed(watch, first, second)
    first.lose_line()
    second.silence()
    ask_until(watched, "dns-away")


# ---- nobody who sends mail decides ----


@pytest.mark.parametrize("deep", [denied(), with_code(5), found], ids=["NXDOMAIN", "REFUSED", "an answer"])
def test_names_that_all_fail_cost_one_deep_question_a_second_and_nothing_else(
    serve: Start, watch: Watch, deep: Reply
) -> None:
    server = serve(with_code(2), deep=deep)
    watched = armed(watch, server)
    started = time.monotonic()
    while len(server.deep_questions) < 4:
        ask_in_vain(watched, 20)
        watched.resolver._failures.clear()
        assert time.monotonic() - started < 30
    assert time.monotonic() - started > 2 * dns_servers.DEEP_INTERVAL
    server.reply = found
    assert watched.ask().status is AnswerStatus.FOUND
    assert watched.events == []


def test_a_useful_answer_now_and_then_is_enough_to_spare_the_deep_question(serve: Start, watch: Watch) -> None:
    server = serve(lambda asked: (with_code(2) if str(asked.question[0].name).startswith("bad") else found)(asked))
    watched = armed(watch, server)
    for number in range(20):
        ask_in_vain(watched, MISSES_TO_DOUBT - 1)
        watched.resolver._failures.clear()
        assert watched.ask(f"good{number}.example").status is AnswerStatus.FOUND
    wait_until(lambda: len(server.control_questions) >= 2, "the control question that they brought about")
    assert len(server.deep_questions) == 1


def test_a_resolver_that_never_knew_anything_beyond_serves_on(serve: Start, watch: Watch) -> None:
    server = serve(with_code(2), deep=with_code(2))
    watched = watch(server)
    ask_in_vain(watched, 3 * MISSES_TO_DOUBT)
    wait_until(lambda: len(server.control_questions) >= 2, "the next control question")
    server.reply = found
    assert watched.ask().status is AnswerStatus.FOUND
    assert watched.events == []
    assert len(server.deep_questions) == 1  # to be put again after a minute


def test_one_lost_deep_question_changes_nothing(serve: Start, watch: Watch) -> None:
    def lose_the_second(asked: Message) -> bytes | None:
        return None if len(server.deep_questions) == 2 else ns_of_root(asked)

    server = serve(with_code(2), deep=lose_the_second)
    watched = armed(watch, server)
    ask_in_vain(watched, MISSES_TO_DOUBT)
    wait_until(lambda: len(server.deep_questions) >= 3, "the third deep question")
    wait_until(lambda: not watched.first.is_cut_off, "its answer")
    assert watched.events == []


def test_an_operators_domain_is_all_that_is_asked_for(serve: Start, stack: ExitStack) -> None:
    server = serve(by_name({"own.example": found}, otherwise=with_code(2)))
    resolver = Resolver([server.address], TIMEOUT, 5.0, control="own.example")
    resolver.start()
    stack.callback(resolver.close)
    for number in range(2 * MISSES_TO_DOUBT):
        resolver.ask(question(f"bad{number}.example"))
    wait_until(lambda: server.names().count("own.example.") >= 2, "the second control question")
    assert not server.deep_questions


def test_a_start_without_a_line_is_made_good_for(serve: Start, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_servers, "ARMING_INTERVAL", 0.2)
    server = serve()
    server.lose_line()
    watched = watch(server)
    wait_until(lambda: len(server.deep_questions) >= 2, "a second try")
    assert not watched.first.has_answered_deep
    server.speak()
    wait_until(lambda: watched.first.has_answered_deep, "the answer")  # though nobody has asked anything
    server.lose_line()
    ask_until(watched, "dns-away")


# ---- how soon ----


@pytest.mark.parametrize("lose", [OddNameserver.silence, lambda server: server.lose_line(silent)], ids=["all", "line"])
def test_in_haste_nobody_waits_for_a_time_out(
    serve: Start, watch: Watch, lose: Callable[[OddNameserver], None]
) -> None:
    server = serve()
    watched = armed(watch, server, timeout=60.0, deadline=60.0, is_hasty=True)
    assert watched.ask().status is AnswerStatus.FOUND
    lose(server)
    answers: list[Answer] = []
    threads = [
        threading.Thread(target=lambda number=number: answers.append(watched.ask(f"n{number}.example")))
        for number in range(2 * MISSES_TO_DOUBT)
    ]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - started < 15.0  # 0.6 s and 1.5 s with nothing else to do; unhurried it is over a minute
    assert {answer.failure for answer in answers} == {Failure.AWAY}


def test_an_answer_that_came_while_this_machine_was_busy_counts(serve: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve()

    def attempt(*arguments: object, **options: object) -> Attempt:
        made = Attempt(*arguments, **options)  # type: ignore[arg-type]
        time.sleep(0.3)
        return made

    monkeypatch.setattr(dns_control, "Attempt", attempt)
    reply = put(server.address, question("a.example"), 0.1)
    assert (reply.failure, reply.is_useful) == (None, True)
    server.silence()
    assert put(server.address, question("a.example"), 0.1).failure is Failure.TIMEOUT
