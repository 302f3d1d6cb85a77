"""Reading responses: what belongs to a query, what it says, and dnspython as the oracle for any octets."""

from __future__ import annotations

import itertools
import struct

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailward.adapters.dns_response import HEADER, MAX_POINTERS, MAX_RECORDS, Query, belongs, read_answer
from mailward.adapters.dns_wire import make_query
from mailward.model.dns import Answer, AnswerStatus, Failure, Question, RecordType
from tests.support.odd_nameserver import Message, denied, response

NAME = "www.example.com"
QUERY = make_query(Question(NAME, RecordType.TXT))


def query(record_type: RecordType = RecordType.TXT, name: str = NAME) -> Query:
    return make_query(Question(name, record_type))


def octets_of(asked: Query, *records: str, code: int = 0) -> bytes:
    return response(dns.message.from_wire(asked.octets), *records, code=code).to_wire(max_size=65535)


def answer_to(record_type: RecordType, *records: str, code: int = 0) -> Answer:
    asked = query(record_type)
    return read_answer(asked, octets_of(asked, *records, code=code))


@pytest.mark.parametrize(
    ("record_type", "records", "values"),
    [
        pytest.param("A", ["@ 9 A 192.0.2.1", "@ 9 A 192.0.2.2"], {b"192.0.2.1", b"192.0.2.2"}, id="A"),
        pytest.param("AAAA", ["@ 9 AAAA 2001:db8::0:1"], {b"2001:db8::1"}, id="AAAA"),
        pytest.param("AAAA", ["@ 9 AAAA ::ffff:192.0.2.1"], {b"::ffff:192.0.2.1"}, id="AAAA of a mapped address"),
        pytest.param("MX", ["@ 9 MX 10 mx.example.com."], {b"10 mx.example.com."}, id="MX"),
        pytest.param("MX", ["@ 9 MX 0 ."], {b"0 ."}, id="a null MX"),
        pytest.param("NS", ["@ 9 NS ns.example.com."], {b"ns.example.com."}, id="NS"),
        pytest.param(
            "PTR", ["@ 9 PTR a\\.b\\032c\\255\\\\.example."], {b"a\\.b\\032c\\255\\\\.example."}, id="PTR, escaped"
        ),
        pytest.param("TXT", ['@ 9 TXT "a" "b" ""'], {b"ab"}, id="TXT, strings joined"),
        pytest.param("TXT", ['@ 9 TXT ""'], {b""}, id="TXT, empty"),
        pytest.param("TXT", ["@ 9 CNAME a.example.", 'a.example. 9 TXT "x"'], {b"x"}, id="by an alias"),
        pytest.param("TXT", ["@ 9 CNAME A.Example.", 'a.eXample. 9 TXT "x"'], {b"x"}, id="by an alias in capitals"),
        pytest.param("TXT", ['@ 9 TXT "x"', 'other.example. 9 TXT "y"'], {b"x"}, id="not what is of another name"),
        pytest.param("TXT", ['@ 9 TXT "x"', "@ 9 A 192.0.2.1"], {b"x"}, id="not what is of another type"),
    ],
)
def test_what_is_found(record_type: str, records: list[str], values: set[bytes]) -> None:
    answer = answer_to(RecordType(record_type), *records)
    assert (answer.status, set(answer.records)) == (AnswerStatus.FOUND, values)


@pytest.mark.parametrize(
    ("records", "ttl"),
    [
        pytest.param(['@ 300 TXT "x"'], 300, id="the record's"),
        pytest.param(["@ 60 CNAME a.example.", 'a.example. 300 TXT "x"'], 60, id="an alias's, if that is shorter"),
        pytest.param(["@ 300 CNAME a.example.", 'a.example. 60 TXT "x"'], 60, id="the target's, if that is shorter"),
        pytest.param(['@ 604800 TXT "x"'], 86400, id="a day at the most"),
        pytest.param(['@ 0 TXT "x"'], 0, id="none"),
    ],
)
def test_how_long_an_answer_holds(records: list[str], ttl: int) -> None:
    assert answer_to(RecordType.TXT, *records).ttl == ttl


def test_a_time_to_live_with_the_sign_bit_is_none() -> None:
    octets = bytearray(octets_of(QUERY, '@ 300 TXT "x"'))
    at = octets.index(struct.pack("!HHI", 16, 1, 300))
    octets[at + 4] |= 0x80
    assert read_answer(QUERY, bytes(octets)).ttl == 0


@pytest.mark.parametrize(
    ("reply", "status", "ttl"),
    [
        pytest.param(denied(soa_ttl=300, minimum=60), "nxdomain", 60, id="NXDOMAIN, the SOA's minimum"),
        pytest.param(denied(soa_ttl=30, minimum=60), "nxdomain", 30, id="NXDOMAIN, what is left of the SOA"),
        pytest.param(denied(soa_ttl=99999, minimum=99999), "nxdomain", 3600, id="NXDOMAIN, an hour at the most"),
        pytest.param(denied(code=0), "nodata", 60, id="NODATA"),
        pytest.param(denied(zone="com."), "nxdomain", 60, id="the SOA of a parent"),
        pytest.param(denied(zone="ample.com."), "nxdomain", 0, id="the SOA of a zone the name is not in"),
        pytest.param(denied(zone="x.www.example.com."), "nxdomain", 0, id="the SOA of a zone below"),
    ],
)
def test_how_long_nothing_holds(reply: object, status: str, ttl: int) -> None:
    octets = reply(dns.message.from_wire(QUERY.octets))  # type: ignore[operator]
    answer = read_answer(QUERY, octets)
    assert (answer.status.value, answer.ttl, answer.records) == (status, ttl, ())


def test_the_end_of_the_aliases_decides() -> None:
    asked = dns.message.from_wire(QUERY.octets)
    made = response(asked, "@ 20 CNAME gone.example.", code=3)
    made.authority.append(dns.rrset.from_text("example.", 300, "IN", "SOA", "a. b. 1 2 3 4 60"))
    answer = read_answer(QUERY, made.to_wire())
    assert (answer.status, answer.ttl) == (AnswerStatus.NXDOMAIN, 20)


@pytest.mark.parametrize(
    ("code", "failure", "reason"),
    [
        pytest.param(2, Failure.SERVFAIL, "SERVFAIL", id="SERVFAIL"),
        pytest.param(5, Failure.REFUSED, "REFUSED", id="REFUSED"),
        pytest.param(4, Failure.RESPONSE_CODE, "response code: NOTIMP", id="NOTIMP"),
        pytest.param(7, Failure.RESPONSE_CODE, "response code: YXRRSET", id="YXRRSET"),
        pytest.param(15, Failure.RESPONSE_CODE, "response code: 15", id="a code nobody has defined"),
        pytest.param(16, Failure.RESPONSE_CODE, "response code: 16", id="a code that needs EDNS to be said"),
    ],
)
def test_failures_stay_apart(code: int, failure: Failure, reason: str) -> None:
    asked = query()
    made = response(dns.message.from_wire(asked.octets))
    made.use_edns(0)
    made.set_rcode(code)  # type: ignore[arg-type]
    answer = read_answer(asked, made.to_wire(), "192.0.2.53")
    assert (answer.status, answer.failure, answer.reason) == (AnswerStatus.TEMPFAIL, failure, reason)
    assert answer.nameserver == "192.0.2.53"


def test_a_name_too_long_below_a_dname_is_a_name_that_nobody_has_and_is_not_kept() -> None:
    """RFC 6672 2.2; a failure would let whoever has a DNAME keep anybody's look-up below it from ending."""
    made = response(dns.message.from_wire(QUERY.octets), code=6)
    made.answer.append(dns.rrset.from_text("example.com.", 300, "IN", "DNAME", f"{'a' * 63}.{'b' * 63}.example."))
    answer = read_answer(QUERY, made.to_wire(), "192.0.2.53")
    assert answer == Answer(AnswerStatus.NXDOMAIN, nameserver="192.0.2.53")
    assert answer.ttl == 0


def chain(length: int) -> list[str]:
    names = ["@", *(f"a{number}.example." for number in range(length))]
    return [f"{name} 9 CNAME {target}" for name, target in itertools.pairwise(names)] + [f'{names[-1]} 9 TXT "x"']


@pytest.mark.parametrize(
    ("records", "status"),
    [
        pytest.param(chain(12), "found", id="12 aliases are followed"),
        pytest.param(chain(13), "tempfail", id="13 are not"),
        pytest.param(chain(1000), "tempfail", id="1000 are not"),
        pytest.param(["@ 9 CNAME a.example.", f"a.example. 9 CNAME {NAME}."], "tempfail", id="a ring"),
        pytest.param([f"@ 9 CNAME {NAME}."], "tempfail", id="an alias of itself"),
    ],
)
def test_aliases_are_bounded(records: list[str], status: str) -> None:
    answer = answer_to(RecordType.TXT, *records)
    assert answer.status.value == status
    assert status == "found" or answer.failure is Failure.GARBAGE


def test_records_of_a_name_that_is_said_not_to_exist_are_garbage() -> None:
    assert answer_to(RecordType.TXT, '@ 9 TXT "x"', code=3).failure is Failure.GARBAGE


@pytest.mark.parametrize("records", [[], ["@ 9 CNAME elsewhere.example."]], ids=["a referral", "an alias left alone"])
def test_a_server_that_does_not_recurse_is_no_resolver(records: list[str]) -> None:
    made = response(dns.message.from_wire(QUERY.octets), *records, flags=0)
    made.authority.append(dns.rrset.from_text("com.", 9, "IN", "NS", "ns.example."))
    assert read_answer(QUERY, made.to_wire()).failure is Failure.NO_RECURSION


def test_more_records_than_any_answer_has_are_garbage() -> None:
    records = [f"@ 9 A 10.0.{number // 250}.{number % 250}" for number in range(MAX_RECORDS)]  # and the OPT record
    assert answer_to(RecordType.A, *records[:-1]).status is AnswerStatus.FOUND
    assert answer_to(RecordType.A, *records).failure is Failure.GARBAGE


def changed(octets: bytes, at: int, value: int) -> bytes:
    return octets[:at] + bytes([value]) + octets[at + 1 :]


GOOD = octets_of(QUERY, '@ 9 TXT "x"')


@pytest.mark.parametrize(
    ("octets", "is_ours"),
    [
        pytest.param(GOOD, True, id="the answer"),
        pytest.param(GOOD.replace(b"example", b"eXaMPLe"), True, id="the name in other capitals"),
        pytest.param(changed(GOOD, 0, GOOD[0] ^ 1), False, id="another id"),
        pytest.param(changed(GOOD, 2, GOOD[2] & 0x7F), False, id="a query"),
        pytest.param(changed(GOOD, 2, GOOD[2] | 0x28), False, id="another opcode"),
        pytest.param(GOOD.replace(b"example", b"exemple"), False, id="another name"),
        pytest.param(changed(GOOD, 12 + len(QUERY.name) + 1, 1), False, id="another type"),
        pytest.param(changed(GOOD, 12 + len(QUERY.name) + 3, 3), False, id="another class"),
        pytest.param(changed(GOOD, 5, 0), False, id="no question, and no error"),
        pytest.param(changed(GOOD, 5, 2), False, id="two questions"),
        pytest.param(GOOD[:2] + b"\x81\x82" + bytes(8), True, id="SERVFAIL and nothing else"),
        pytest.param(GOOD[:2] + b"\x81\x83" + bytes(8), False, id="NXDOMAIN of nothing"),
        pytest.param(GOOD[:11], False, id="half a header"),
        pytest.param(GOOD[: 12 + len(QUERY.question) - 1], False, id="half a question"),
        pytest.param(b"", False, id="nothing"),
    ],
)
def test_what_belongs_to_a_query(octets: bytes, is_ours: bool) -> None:
    assert belongs(QUERY, octets) is is_ours


@pytest.mark.parametrize("end", range(12 + len(QUERY.question), len(GOOD)))
def test_an_answer_cut_off_anywhere_is_garbage(end: int) -> None:
    assert read_answer(QUERY, GOOD[:end]).failure is Failure.GARBAGE


def test_a_name_that_points_at_itself_is_garbage() -> None:
    header = HEADER.pack(0, 0x8180, 1, 1, 0, 0) + QUERY.question
    pointer = struct.pack("!H", 0xC000 | len(header))
    assert read_answer(QUERY, header + pointer + struct.pack("!HHIH", 16, 1, 9, 0)).failure is Failure.GARBAGE


def with_pointers(count: int) -> bytes:
    """Return a response whose second record's name is `count` pointers long; the first one's value holds all but the last."""
    start = HEADER.size + len(QUERY.question)
    owner = b"\xc0\x0c"
    first = start + len(owner) + 10
    chain_of = [HEADER.size, *(first + 2 * number for number in range(count - 1))]
    value = b"".join(struct.pack("!H", 0xC000 | at) for at in chain_of[:-1])
    held = owner + struct.pack("!HHIH", 10, 1, 9, len(value)) + value  # a NULL record: nobody reads its value
    last = struct.pack("!H", 0xC000 | chain_of[-1]) + struct.pack("!HHIH", 16, 1, 9, 2) + b"\x01x"
    return QUERY.octets[:2] + HEADER.pack(0, 0x8180, 1, 2, 0, 0)[2:] + QUERY.question + held + last


@pytest.mark.parametrize(
    ("count", "status"),
    [
        pytest.param(1, "found", id="one"),
        pytest.param(MAX_POINTERS, "found", id="as many as a name can have labels"),
        pytest.param(MAX_POINTERS + 1, "tempfail", id="one more"),
        pytest.param(8000, "tempfail", id="as many as an answer has room for"),
    ],
)
def test_the_pointers_of_a_name_are_bounded(count: int, status: str) -> None:
    octets = with_pointers(count)
    assert belongs(QUERY, octets)
    answer = read_answer(QUERY, octets)
    assert answer.status.value == status
    assert answer.records == ((b"x",) if status == "found" else ())
    assert answer.failure is (None if status == "found" else Failure.GARBAGE)


def oracle(asked: Query, octets: bytes) -> tuple[str, set[str], int] | None:
    """Return what dnspython makes of it, names in lower case; None where it refuses to read it."""
    try:
        message = dns.message.from_wire(octets, ignore_trailing=True)
        chained = message.resolve_chaining()  # type: ignore[attr-defined]
    except Exception:
        return None
    if chained.answer is not None:
        kind = chained.answer.rdtype
        records = {
            repr(b"".join(record.strings)) if kind == dns.rdatatype.TXT else repr(str(record).lower().encode())
            for record in chained.answer
        }
        return "found", records, min(chained.minimum_ttl, 86400)
    return ("nxdomain" if message.rcode() == 3 else "nodata"), set(), -1


LABELS = st.text("ab.\\", min_size=1, max_size=3).map(lambda text: text.replace("\\", "\\\\").replace(".", "\\."))
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(lambda labels: ".".join(labels) + ".")
VALUES = {
    RecordType.A: st.integers(0, 255).map(lambda last: f"192.0.2.{last}"),
    RecordType.AAAA: st.integers(0, 2**16 - 1).map(lambda last: f"2001:db8::{last:x}"),
    RecordType.MX: st.tuples(st.integers(0, 65535), NAMES).map(lambda pair: f"{pair[0]} {pair[1]}"),
    RecordType.NS: NAMES,
    RecordType.PTR: NAMES,
    RecordType.TXT: st.lists(st.binary(max_size=20), min_size=1, max_size=3).map(
        lambda strings: " ".join('"' + "".join(f"\\{octet:03d}" for octet in string) + '"' for string in strings)
    ),
}


@st.composite
def messages(draw: st.DrawFn) -> tuple[Query, Message]:
    record_type = draw(st.sampled_from(RecordType))
    name, *targets = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))  # a name has one alias
    asked = make_query(Question(name.removesuffix("."), record_type))
    records, owner = [], "@"
    for target in targets:
        records.append(f"{owner} {draw(st.integers(0, 1000))} CNAME {target}")
        owner = target
    ttl = draw(st.integers(0, 1000))
    values = draw(st.lists(VALUES[record_type], max_size=4))
    records += [f"{owner} {ttl} {record_type.value} {value}" for value in values]
    return asked, response(dns.message.from_wire(asked.octets), *records, code=draw(st.sampled_from([0, 0, 0, 3])))


def agrees(asked: Query, octets: bytes) -> None:
    if not belongs(asked, octets):
        return
    answer, expected = read_answer(asked, octets), oracle(asked, octets)
    if expected is None or answer.status is AnswerStatus.TEMPFAIL:
        return
    status, records, ttl = expected
    assert answer.status.value == status
    is_name = asked.record_type is not RecordType.TXT
    assert {repr(record.lower() if is_name else record) for record in answer.records} == records
    assert ttl < 0 or answer.ttl == ttl


@given(messages())
def test_a_good_message_says_what_dnspython_reads_in_it(message: tuple[Query, Message]) -> None:
    asked, made = message
    octets = made.to_wire()
    agrees(asked, octets)
    if oracle(asked, octets) is not None:
        assert read_answer(asked, octets).status is not AnswerStatus.TEMPFAIL


@given(messages(), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4), st.integers(0, 400))
def test_a_damaged_message_never_raises(
    message: tuple[Query, Message], damage: list[tuple[int, int]], cut: int
) -> None:
    asked, made = message
    octets = bytearray(made.to_wire())
    for at, value in damage:
        octets[12 + len(asked.question) + at % max(1, len(octets) - 12 - len(asked.question)) - 1] = value
    read_answer(asked, bytes(octets))
    read_answer(asked, bytes(octets[: len(octets) - cut % len(octets)]))


@given(st.sampled_from(RecordType), st.binary(max_size=200))
def test_any_octets_behind_a_question_give_an_answer(record_type: RecordType, rest: bytes) -> None:
    asked = make_query(Question("a.example", record_type))
    octets = HEADER.pack(0, 0x8180, 1, 3, 1, 1) + asked.question + rest
    assert read_answer(asked, octets).status in AnswerStatus
    assert isinstance(belongs(asked, rest), bool)


def test_a_hostile_answer_costs_no_more_than_its_records() -> None:
    """Names of 100 labels, compressed to 8 octets each: 20 kB that say 250 kB. A generous bound, dnspython needs seconds."""
    asked = make_query(Question("a." * 100 + "example", RecordType.MX))
    count = MAX_RECORDS
    records = b"".join(
        b"\xc0\x0c" + struct.pack("!HHIHH", 15, 1, 300, 10, 10) + b"\x05n%04d" % number + b"\xc0\x0c"
        for number in range(count)
    )
    octets = asked.octets[:2] + b"\x81\x80" + struct.pack("!HHHH", 1, count, 0, 0) + asked.question + records
    assert belongs(asked, octets)
    assert len(read_answer(asked, octets).records) == count
