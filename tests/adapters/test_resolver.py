"""The resolver against real servers on loopback: a good one's answers, odd ones' answers, time, budget, memory.

What happens when servers are away is in test_resolver_outage.py.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.message
import dns.rcode
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailward.adapters.resolver import Resolver
from mailward.model.dns import Answer, AnswerStatus, Failure, Question, RecordType
from tests.support.nameserver import PORT, Nameserver, txt_record
from tests.support.odd_nameserver import (
    Message,
    OddNameserver,
    Reply,
    by_name,
    denied,
    found,
    response,
    saying,
    silent,
    truncated,
    with_code,
)
from tests.support.processes import open_folder

LARGE = "x" * 20_000  # more than any UDP answer holds
LONGEST_LABEL = "a" * 63
GENEROUS_SECONDS = 10.0  # an upper bound far above every deadline here

ZONE = f"""\
one IN TXT "v=DKIM1; p=abc"
{txt_record("strings", "a" * 255 + "b" * 255 + "c")}
octets IN TXT "\\255\\000\\"" "\\\\ "
two IN TXT "1"
two IN TXT "2"
empty IN TXT ""
{txt_record("large", LARGE)}
address IN A 192.0.2.1
address IN AAAA 2001:db8::1
mail IN MX 10 mx.test.example.
alias IN CNAME one
aliases IN CNAME alias
dangling IN CNAME nowhere
loop IN CNAME loop2
loop2 IN CNAME loop
below.deep IN TXT "x"
old 300 IN TXT "x"
"""


@pytest.fixture(scope="module")
def nameserver() -> Iterator[Nameserver]:
    with open_folder() as folder:
        nameserver = Nameserver(folder / "nsd", {"test.example": ZONE})
        nameserver.start()
        try:
            yield nameserver
        finally:
            nameserver.stop()


def ask(nameserver: Nameserver, name: str, record_type: RecordType = RecordType.TXT) -> Answer:
    return Resolver([(nameserver.address, PORT)], 2.0, 5.0).ask(Question(name, record_type))


@pytest.mark.parametrize(
    ("name", "record_type", "records"),
    [
        pytest.param("one", RecordType.TXT, {b"v=DKIM1; p=abc"}, id="a TXT record"),
        pytest.param("strings", RecordType.TXT, {b"a" * 255 + b"b" * 255 + b"c"}, id="strings are joined"),
        pytest.param("octets", RecordType.TXT, {b'\xff\x00"\\ '}, id="octets as they are"),
        pytest.param("two", RecordType.TXT, {b"1", b"2"}, id="two records stay two"),
        pytest.param("empty", RecordType.TXT, {b""}, id="an empty string is a record"),
        pytest.param("large", RecordType.TXT, {LARGE.encode()}, id="a large answer comes by TCP"),
        pytest.param("address", RecordType.A, {b"192.0.2.1"}, id="A"),
        pytest.param("address", RecordType.AAAA, {b"2001:db8::1"}, id="AAAA"),
        pytest.param("mail", RecordType.MX, {b"10 mx.test.example."}, id="MX"),
        pytest.param("alias", RecordType.TXT, {b"v=DKIM1; p=abc"}, id="a CNAME is followed"),
        pytest.param("aliases", RecordType.TXT, {b"v=DKIM1; p=abc"}, id="a CNAME of a CNAME, too"),
        pytest.param("ONE", RecordType.TXT, {b"v=DKIM1; p=abc"}, id="capitals"),
    ],
)
def test_what_is_found(nameserver: Nameserver, name: str, record_type: RecordType, records: set[bytes]) -> None:
    answer = ask(nameserver, f"{name}.test.example", record_type)
    assert (answer.status, set(answer.records)) == (AnswerStatus.FOUND, records)
    assert len(answer.records) == len(records)
    assert answer.reason == ""


def test_the_ttl_comes_with_the_answer(nameserver: Nameserver) -> None:
    assert ask(nameserver, "old.test.example").ttl == 300
    assert ask(nameserver, "one.test.example").ttl == 1


@pytest.mark.parametrize(
    ("name", "record_type", "status"),
    [
        pytest.param("address.test.example", RecordType.TXT, AnswerStatus.NODATA, id="another type is there"),
        pytest.param("deep.test.example", RecordType.TXT, AnswerStatus.NODATA, id="only names below are there"),
        pytest.param(
            "alias.test.example", RecordType.A, AnswerStatus.NODATA, id="a CNAME whose target has another type"
        ),
        pytest.param("nowhere.test.example", RecordType.TXT, AnswerStatus.NXDOMAIN, id="no such name"),
        pytest.param("one.test.example.other", RecordType.TXT, AnswerStatus.NXDOMAIN, id="no such domain"),
        pytest.param("dangling.test.example", RecordType.TXT, AnswerStatus.NXDOMAIN, id="a CNAME that leads nowhere"),
        pytest.param("one", RecordType.TXT, AnswerStatus.NXDOMAIN, id="no search list is tried"),
        pytest.param(LONGEST_LABEL + "a.test.example", RecordType.TXT, AnswerStatus.NXDOMAIN, id="a label too long"),
        pytest.param(f"{LONGEST_LABEL}." * 4 + "example", RecordType.TXT, AnswerStatus.NXDOMAIN, id="a name too long"),
        pytest.param("a..example", RecordType.TXT, AnswerStatus.NXDOMAIN, id="an empty label"),
        pytest.param("loop.test.example", RecordType.TXT, AnswerStatus.TEMPFAIL, id="CNAMEs in a ring"),
    ],
)
def test_what_is_not_found(nameserver: Nameserver, name: str, record_type: RecordType, status: AnswerStatus) -> None:
    answer = ask(nameserver, name, record_type)
    assert (answer.status, answer.records) == (status, ())


def test_the_root_can_be_asked_for(nameserver: Nameserver) -> None:
    assert ask(nameserver, "", RecordType.NS).status is AnswerStatus.FOUND


QUESTION = Question("one.test.example", RecordType.TXT)


def without_question(question: Message) -> bytes:
    made = response(question, '@ 60 TXT "evil"')
    made.question.clear()
    return made.to_wire()


def of_another_question(question: Message) -> bytes:
    asked = dns.message.make_query("evil.example", "TXT", id=question.id)
    return response(asked, '@ 60 TXT "evil"').to_wire()


def with_another_id(question: Message) -> bytes:
    octets = evil(question)
    assert isinstance(octets, bytes)
    return bytes([octets[0] ^ 1]) + octets[1:]


def cut_off(question: Message) -> bytes:
    return whole(question)[:-3]


def whole(question: Message) -> bytes:
    octets = found(question)
    assert isinstance(octets, bytes)
    return octets


evil = saying('@ 60 TXT "evil"')
chained = saying(*[f"{'@' if n == 0 else f'a{n}.example.'} 60 CNAME a{n + 1}.example." for n in range(1000)])

ODD_REPLIES: dict[str, tuple[Reply, Failure]] = {
    "SERVFAIL": (with_code(dns.rcode.SERVFAIL), Failure.SERVFAIL),
    "REFUSED": (with_code(dns.rcode.REFUSED), Failure.REFUSED),
    "NOTIMP": (with_code(dns.rcode.NOTIMP), Failure.RESPONSE_CODE),
    "FORMERR": (with_code(dns.rcode.FORMERR), Failure.RESPONSE_CODE),
    "silence": (silent, Failure.TIMEOUT),
    "garbage": (lambda question: b"\xff" * 40, Failure.GARBAGE),
    "an empty datagram": (lambda question: b"", Failure.GARBAGE),
    "the answer cut off": (cut_off, Failure.GARBAGE),
    "an answer without its question": (without_question, Failure.GARBAGE),
    "an answer to another question": (of_another_question, Failure.GARBAGE),
    "an answer with another id": (with_another_id, Failure.GARBAGE),
    "truncated, and nobody at TCP": (truncated, Failure.NETWORK),
    "1000 CNAMEs, truncated, and nobody at TCP": (truncated, Failure.NETWORK),
}


@pytest.mark.parametrize(("reply", "failure"), ODD_REPLIES.values(), ids=ODD_REPLIES.keys())
def test_what_is_no_answer_is_a_failure_with_its_reason_within_the_deadline(reply: Reply, failure: Failure) -> None:
    with OddNameserver(reply) as server:
        started = time.monotonic()
        answer = Resolver([server.address], 0.2, 0.5).ask(QUESTION)
        assert time.monotonic() - started < GENEROUS_SECONDS
        assert server.questions
    assert (answer.status, answer.records, answer.failure) == (AnswerStatus.TEMPFAIL, (), failure)
    assert answer.reason.startswith(failure.value)


def test_an_answer_from_another_port_is_not_heard() -> None:
    with OddNameserver(evil) as server:
        server.is_from_elsewhere = True
        assert Resolver([server.address], 0.2, 0.5).ask(QUESTION).failure is Failure.TIMEOUT


@pytest.mark.parametrize(
    "forged",
    [with_another_id, of_another_question, without_question, lambda question: b"\xff" * 40, lambda question: b""],
    ids=["another id", "another question", "no question", "garbage", "an empty datagram"],
)
def test_a_forged_answer_does_not_keep_the_true_one_out(forged: Callable[[Message], bytes]) -> None:
    with OddNameserver(lambda question: [forged(question)] * 3 + [whole(question)]) as server:
        assert Resolver([server.address], 2.0, 5.0).ask(QUESTION).records == (b"good",)


def test_each_query_has_an_id_and_a_port_of_its_own() -> None:
    with OddNameserver(found) as server:
        resolver = Resolver([server.address], 2.0, 5.0)
        for number in range(50):
            resolver.ask(Question(f"n{number}.example", RecordType.TXT))
        assert len({question.id for question in server.questions}) > 45


@pytest.mark.parametrize(
    ("tcp_reply", "status", "failure"),
    [
        pytest.param(found, "found", None, id="the whole answer"),
        pytest.param(
            lambda question: [
                octet.to_bytes(1, "big") for octet in struct.pack("!H", len(whole(question))) + whole(question)
            ],
            "found",
            None,
            id="octet by octet",
        ),
        pytest.param(lambda question: [b"\x00\x30abc"], "tempfail", Failure.NETWORK, id="less than was promised"),
        pytest.param(lambda question: [], "tempfail", Failure.NETWORK, id="nothing"),
        pytest.param(silent, "tempfail", Failure.TIMEOUT, id="silence"),
        pytest.param(with_another_id, "tempfail", Failure.GARBAGE, id="another id"),
        pytest.param(chained, "tempfail", Failure.GARBAGE, id="1000 CNAMEs"),
        pytest.param(with_code(2), "tempfail", Failure.SERVFAIL, id="SERVFAIL"),
        pytest.param(
            saying(*(f"@ 60 A 10.9.{n // 200}.{n % 200}" for n in range(1100))), "nodata", None, id="a thousand records"
        ),
    ],
)
def test_a_truncated_answer_is_asked_for_by_tcp(tcp_reply: Reply, status: str, failure: Failure | None) -> None:
    with OddNameserver(truncated, tcp_reply) as server:
        answer = Resolver([server.address], 1.5, 5.0).ask(QUESTION)
        assert server.tcp_questions
    assert (answer.status.value, answer.failure) == (status, failure)


def test_a_server_that_knows_no_edns_is_asked_without() -> None:
    def reply(question: Message) -> bytes:
        return whole(question) if question.edns < 0 else question.id.to_bytes(2, "big") + b"\x80\x81" + bytes(8)

    with OddNameserver(reply) as server:
        assert Resolver([server.address], 2.0, 5.0).ask(QUESTION).records == (b"good",)
        assert [question.edns for question in server.questions] == [0, -1]


def test_a_lost_datagram_is_sent_again() -> None:
    with OddNameserver(lambda question: whole(question) if len(server.questions) > 1 else None) as server:
        assert Resolver([server.address], 1.0, 5.0).ask(QUESTION).records == (b"good",)


def test_nobody_at_the_address_is_a_failure_at_once() -> None:
    with OddNameserver(silent) as server:
        address = server.address
    started = time.monotonic()
    answer = Resolver([address, ("::1", address[1])], GENEROUS_SECONDS, GENEROUS_SECONDS).ask(QUESTION)
    assert time.monotonic() - started < GENEROUS_SECONDS / 4
    assert answer.failure is Failure.NETWORK


@pytest.mark.parametrize("first", ODD_REPLIES)
def test_the_next_nameserver_is_asked(nameserver: Nameserver, first: str) -> None:
    with OddNameserver(ODD_REPLIES[first][0]) as server:
        answer = Resolver([server.address, (nameserver.address, PORT)], 0.2, 5.0).ask(QUESTION)
        assert server.questions
    assert answer.records == (b"v=DKIM1; p=abc",)
    assert answer.nameserver == nameserver.address


@pytest.mark.parametrize("order", [1, -1], ids=["the good one first", "the good one last"])
def test_two_nameservers_of_one_address_are_told_apart_by_their_ports(order: int) -> None:
    with OddNameserver(found) as good, OddNameserver(with_code(dns.rcode.REFUSED)) as bad:
        answer = Resolver([good.address, bad.address][::order], 0.2, 2.0).ask(QUESTION)
    assert answer.records == (b"good",)


def test_the_first_nameserver_is_preferred() -> None:
    with OddNameserver(found) as first, OddNameserver(found) as second:
        resolver = Resolver([first.address, second.address], 2.0, 5.0)
        for number in range(20):
            resolver.ask(Question(f"n{number}.example", RecordType.TXT))
        assert len(first.questions) == 20
        assert len(second.questions) <= 2  # where the machine made the first late


def test_a_late_first_is_overtaken_by_the_second() -> None:
    with OddNameserver(saying('@ 60 TXT "late"')) as first, OddNameserver(found) as second:
        first.delay = GENEROUS_SECONDS / 2
        started = time.monotonic()
        answer = Resolver([first.address, second.address], 2.0, GENEROUS_SECONDS).ask(QUESTION)
        assert time.monotonic() - started < GENEROUS_SECONDS / 2
        assert answer.records == (b"good",)
        first.delay = 0.0


def test_a_late_first_may_still_win_where_the_second_fails() -> None:
    with OddNameserver(found) as first, OddNameserver(with_code(2)) as second:
        first.delay = 0.8
        answer = Resolver([first.address, second.address], 2.0, GENEROUS_SECONDS).ask(QUESTION)
        assert second.questions
        assert answer.records == (b"good",)


# ---- one deadline and one budget for a message ----


def test_a_message_has_one_deadline_for_all_its_questions() -> None:
    with OddNameserver(silent) as server:
        message = Resolver([server.address], 0.4, 0.6).for_message()
        started = time.monotonic()
        failures = [message.ask(Question(f"n{number}.example", RecordType.TXT)).failure for number in range(20)]
        assert time.monotonic() - started < GENEROUS_SECONDS / 4
    assert failures[:2] == [Failure.TIMEOUT, Failure.DEADLINE]
    assert set(failures[2:]) == {Failure.DEADLINE}


def test_the_next_message_has_its_own() -> None:
    with OddNameserver(by_name({"silent.example": silent})) as server:
        resolver = Resolver([server.address], 0.2, 0.2)
        message = resolver.for_message()
        message.ask(Question("silent.example", RecordType.TXT))
        time.sleep(0.2)
        assert message.ask(QUESTION).failure is Failure.DEADLINE
        assert resolver.for_message().ask(QUESTION).records == (b"good",)


def test_a_message_has_a_budget_of_queries() -> None:
    with OddNameserver(found) as server:
        resolver = Resolver([server.address], 2.0, 5.0, queries=3)
        message = resolver.for_message()
        answers = [message.ask(Question(f"n{number}.example", RecordType.TXT)) for number in (1, 2, 1, 3, 4, 2)]
    assert [answer.failure for answer in answers] == [None, None, None, None, Failure.BUDGET, None]
    assert message.queries == 3  # what was known costs nothing


def test_what_a_message_may_not_ask_another_may() -> None:
    with OddNameserver(found) as server:
        resolver = Resolver([server.address], 2.0, 5.0, queries=1)
        message = resolver.for_message()
        message.ask(Question("other.example", RecordType.TXT))
        assert message.ask(QUESTION).failure is Failure.BUDGET
        assert resolver.ask(QUESTION).status is AnswerStatus.FOUND


# ---- memory ----


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        pytest.param(found, AnswerStatus.FOUND, id="found"),
        pytest.param(denied(), AnswerStatus.NXDOMAIN, id="NXDOMAIN"),
        pytest.param(denied(code=0), AnswerStatus.NODATA, id="NODATA"),
    ],
)
def test_what_was_said_is_not_asked_again(reply: Reply, status: AnswerStatus) -> None:
    with OddNameserver(reply) as server:
        resolver = Resolver([server.address], 2.0, 5.0)
        first, second = resolver.ask(QUESTION), resolver.ask(Question("ONE.test.example", RecordType.TXT))
        assert len(server.questions) == 1
    assert (first.status, first.is_cached) == (status, False)
    assert (second.status, second.is_cached, second.records) == (status, True, first.records)


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(saying('@ 0 TXT "good"'), id="no time to live"),
        pytest.param(saying(code=3), id="NXDOMAIN without SOA (RFC 2308 5)"),
        pytest.param(denied(zone="other.example."), id="the SOA of another zone"),
    ],
)
def test_what_must_not_be_kept_is_asked_again(reply: Reply) -> None:
    with OddNameserver(reply) as server:
        resolver = Resolver([server.address], 2.0, 5.0)
        assert resolver.ask(QUESTION).status == resolver.ask(QUESTION).status != AnswerStatus.TEMPFAIL
        assert len(server.questions) == 2


def test_what_is_over_is_asked_again() -> None:
    with OddNameserver(saying('@ 1 TXT "old"')) as server:
        resolver = Resolver([server.address], 2.0, 5.0)
        resolver.ask(QUESTION)
        server.reply = found
        time.sleep(1.05)
        assert resolver.ask(QUESTION).records == (b"good",)


def test_a_silent_name_costs_one_message_a_time_out_and_not_each() -> None:
    with OddNameserver(silent) as server:
        resolver = Resolver([server.address], 0.2, 5.0)
        first = resolver.ask(QUESTION)
        asked = len(server.questions)
        second = resolver.ask(QUESTION)
        assert len(server.questions) == asked
    assert (first.failure, second.failure) == (Failure.TIMEOUT, Failure.TIMEOUT)
    assert (first.is_cached, second.is_cached) == (False, True)


def test_a_failure_does_not_bring_what_is_over_back() -> None:
    with OddNameserver(saying('@ 1 TXT "withdrawn"')) as server:
        resolver = Resolver([server.address], 0.2, 5.0)
        resolver.ask(QUESTION)
        server.reply = silent
        time.sleep(1.05)
        answer = resolver.ask(QUESTION)
    assert (answer.status, answer.records) == (AnswerStatus.TEMPFAIL, ())


def test_a_flood_of_names_does_not_grow_it() -> None:
    with OddNameserver(found) as server:
        resolver = Resolver([server.address], 2.0, 5.0, cache_entries=100)
        for number in range(500):
            resolver.ask(Question(f"n{number}.example", RecordType.TXT))
        assert len(resolver.cache.entries) == 100


# ---- many threads ----


def in_threads(count: int, act: Callable[[int], Answer]) -> list[Answer]:
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda number=number: answers.append(act(number))) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_equal_questions_in_flight_are_asked_once() -> None:
    with OddNameserver(found) as server:
        server.delay = 0.3
        resolver = Resolver([server.address], 2.0, 5.0)
        answers = in_threads(30, lambda _: resolver.ask(QUESTION))
        assert len(server.questions) == 1
    assert [answer.records for answer in answers] == [(b"good",)] * 30


def test_whoever_waits_for_anothers_question_keeps_its_own_deadline() -> None:
    with OddNameserver(silent) as server:
        resolver = Resolver([server.address], 3.0, 3.0)
        leader = threading.Thread(target=lambda: resolver.ask(QUESTION))
        leader.start()
        while not server.questions:
            time.sleep(0.01)
        message = resolver.for_message()
        message.deadline = time.monotonic() + 0.1
        started = time.monotonic()
        assert message.ask(QUESTION).failure is Failure.DEADLINE
        assert time.monotonic() - started < 2
        server.reply = found
        leader.join()


def test_whoever_has_more_time_takes_over() -> None:
    with OddNameserver(found) as server:
        server.delay = 0.5
        resolver = Resolver([server.address], 3.0, 10.0)
        hurried = resolver.for_message()
        hurried.deadline = time.monotonic() + 0.2
        failures: list[Failure | None] = []
        leader = threading.Thread(target=lambda: failures.append(hurried.ask(QUESTION).failure))
        leader.start()
        while not server.questions:
            time.sleep(0.01)
        assert resolver.ask(QUESTION).records == (b"good",)
        leader.join()
    assert failures == [Failure.DEADLINE]


def test_threads_that_ask_many_names_get_each_its_own() -> None:
    def reply(question: Message) -> bytes:
        return response(question, f'@ 60 TXT "{question.question[0].name}"').to_wire()

    with OddNameserver(reply) as server:
        resolver = Resolver([server.address], 2.0, 20.0, cache_entries=50)

        def ask_all(thread: int) -> Answer:
            for number in range(60):
                name = f"n{(number * 7 + thread) % 90}.example"
                assert resolver.ask(Question(name, RecordType.TXT)).records == (f"{name}.".encode(),)
            return resolver.ask(QUESTION)

        answers = in_threads(8, ask_all)
    assert len(answers) == 8


def test_descriptors_beyond_a_thousand_are_waited_for_as_well() -> None:
    opened = [socket.socket() for _ in range(100)]
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    try:
        while opened[-1].fileno() < 1030:
            opened.append(socket.socket())
        with OddNameserver(found) as server:
            assert Resolver([server.address], 2.0, 5.0).ask(QUESTION).records == (b"good",)
    finally:
        for one in opened:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_every_socket_is_closed() -> None:
    def open_descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    with OddNameserver(silent) as first, OddNameserver(truncated, cut_off) as second:
        resolver = Resolver([first.address, second.address], 0.2, 0.3)
        resolver.ask(QUESTION)
        before = open_descriptors()
        for number in range(5):
            resolver.ask(Question(f"n{number}.example", RecordType.TXT))
        assert open_descriptors() <= before


# ---- counting ----


class Counts(Counter[tuple[str, str]]):
    def count(self, name: str, value: str = "", amount: float = 1.0) -> None:
        self[name, value] += int(amount)


def test_what_is_counted() -> None:
    with OddNameserver(with_code(2)) as first, OddNameserver(found) as second:
        counts = Counts()
        resolver = Resolver([first.address, second.address], 2.0, 5.0, counts=counts)
        resolver.ask(QUESTION)
        resolver.ask(QUESTION)
    labels = [f"127.0.0.1:{server.address[1]}" for server in (first, second)]
    assert counts == {
        ("dns_queries", labels[0]): 1,
        ("dns_failures", labels[0]): 1,
        ("dns_failure_reasons", "SERVFAIL"): 1,
        ("dns_queries", labels[1]): 1,
        ("dns_cache_hits", ""): 1,
    }


def test_overtaking_is_counted() -> None:
    with OddNameserver(silent) as first, OddNameserver(found) as second:
        counts = Counts()
        Resolver([first.address, second.address], 0.4, 5.0, counts=counts).ask(QUESTION)
    assert counts["dns_hedged", ""] == 1
    assert not [name for name, _ in counts if name == "dns_failures"]  # late is no failure


@settings(max_examples=40)
@given(st.text(max_size=20) | st.text("a.\\0129@\x00\u00fc\ud800", max_size=12))
def test_no_name_makes_it_raise(name: str) -> None:
    nowhere = Resolver([("127.0.0.1", 9)], 0.001, 0.001)
    assert nowhere.ask(Question(name, RecordType.TXT)).status in (AnswerStatus.TEMPFAIL, AnswerStatus.NXDOMAIN)
