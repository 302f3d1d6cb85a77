"""The resolver against real servers on loopback: what they say, what they refuse, and when they say nothing at all."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailward.adapters.resolver import Resolver
from mailward.model.dns import Answer, AnswerStatus, Question, RecordType
from tests.support.nameserver import PORT, Nameserver, txt_record
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


Reply = Callable[[dns.message.Message], bytes | None]


class OddServer:
    """A nameserver over UDP, on loopback, that answers each question with what `reply` makes of it; None is silence."""

    def __init__(self, reply: Reply, port: int = 0) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", port))
        self._reply = reply
        self._thread = threading.Thread(target=self._serve)
        self.address: tuple[str, int] = self._socket.getsockname()
        self.questions: list[dns.message.Message] = []

    def __enter__(self) -> OddServer:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stop:
            stop.sendto(b"", self.address)
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            octets, client = self._socket.recvfrom(4096)
            if not octets:
                return
            question = dns.message.from_wire(octets)
            self.questions.append(question)
            reply = self._reply(question)
            if reply is not None:
                self._socket.sendto(reply, client)


def with_code(code: dns.rcode.Rcode) -> Reply:
    def reply(question: dns.message.Message) -> bytes:
        response = dns.message.make_response(question)
        response.set_rcode(code)
        return response.to_wire()

    return reply


def found(question: dns.message.Message) -> bytes:
    response = dns.message.make_response(question)
    name = question.question[0].name
    response.answer.append(dns.rrset.from_text(name, 60, "IN", "TXT", '"good"'))
    return response.to_wire()


def silent(_question: dns.message.Message) -> None:
    return None


def without_question(question: dns.message.Message) -> bytes:
    response = dns.message.make_response(question)
    response.question.clear()
    return response.to_wire()


def of_another_question(question: dns.message.Message) -> bytes:
    return found(dns.message.make_query("evil.example", "TXT", id=question.id))


def with_another_id(question: dns.message.Message) -> bytes:
    octets = found(question)
    return bytes([octets[0] ^ 1]) + octets[1:]


ODD_REPLIES: dict[str, Reply] = {
    "SERVFAIL": with_code(dns.rcode.SERVFAIL),
    "REFUSED": with_code(dns.rcode.REFUSED),
    "NOTIMP": with_code(dns.rcode.NOTIMP),
    "FORMERR": with_code(dns.rcode.FORMERR),
    "silence": silent,
    "garbage": lambda question: b"\xff" * 40,
    "the answer cut off": lambda question: found(question)[:-3],
    "an answer without its question": without_question,
    "an answer to another question": of_another_question,
    "an answer with another id": with_another_id,
    "truncated, and no TCP": lambda question: truncated(question),
}


def truncated(question: dns.message.Message) -> bytes:
    response = dns.message.make_response(question)
    response.flags |= dns.flags.TC
    return response.to_wire()


QUESTION = Question("one.test.example", RecordType.TXT)


@pytest.mark.parametrize("reply", ODD_REPLIES.values(), ids=ODD_REPLIES.keys())
def test_what_is_no_answer_is_a_failure_within_the_deadline(reply: Reply) -> None:
    with OddServer(reply) as server:
        started = time.monotonic()
        answer = Resolver([server.address], 0.2, 0.5).ask(QUESTION)
        assert time.monotonic() - started < GENEROUS_SECONDS
        assert server.questions
    assert (answer.status, answer.records) == (AnswerStatus.TEMPFAIL, ())
    assert answer.reason


def test_nobody_at_the_address_is_a_failure_within_the_deadline() -> None:
    with OddServer(silent) as server:
        address = server.address
    started = time.monotonic()
    answer = Resolver([address, ("::1", address[1])], 0.2, 0.5).ask(QUESTION)
    assert time.monotonic() - started < GENEROUS_SECONDS
    assert answer.status is AnswerStatus.TEMPFAIL


@pytest.mark.parametrize("first", ["SERVFAIL", "REFUSED", "silence", "garbage"])
def test_the_next_nameserver_is_asked(nameserver: Nameserver, first: str) -> None:
    with OddServer(ODD_REPLIES[first]) as server:
        answer = Resolver([server.address, (nameserver.address, PORT)], 0.2, 5.0).ask(QUESTION)
        assert server.questions
    assert answer.records == (b"v=DKIM1; p=abc",)


@pytest.mark.parametrize("order", [1, -1], ids=["the good one first", "the good one last"])
def test_two_nameservers_of_one_address_are_told_apart_by_their_ports(order: int) -> None:
    with OddServer(found) as good, OddServer(with_code(dns.rcode.REFUSED)) as bad:
        answer = Resolver([good.address, bad.address][::order], 0.2, 2.0).ask(QUESTION)
    assert answer.records == (b"good",)


def test_questions_allow_for_answers_that_pass_unfragmented() -> None:
    with OddServer(found) as server:
        Resolver([server.address], 2.0, 5.0).ask(QUESTION)
        (question,) = server.questions
    assert (question.edns, question.payload) == (0, 1232)


@settings(deadline=None, max_examples=40)
@given(st.text(max_size=20) | st.text("a.\\0129@\x00\u00fc\ud800", max_size=12))
def test_no_name_makes_it_raise(name: str) -> None:
    nowhere = Resolver([("127.0.0.1", 9)], 0.001, 0.001)
    assert nowhere.ask(Question(name, RecordType.TXT)).status in (AnswerStatus.TEMPFAIL, AnswerStatus.NXDOMAIN)
