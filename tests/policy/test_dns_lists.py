"""Lists in the DNS: what is a listing, and what only says that the list does not answer, or is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailward.model.dns import Answer, AnswerStatus, Failure, Question, RecordType, failed
from mailward.policy.dns_lists import DnsList, Kind, ListFailure, Listing, ListsAnswer, listed, parse_dns_list

NOTHING = Answer(AnswerStatus.NXDOMAIN)


def found(*addresses: str) -> Answer:
    return Answer(AnswerStatus.FOUND, tuple(address.encode() for address in addresses), 60)


class Zones:
    """A DNS of names and their A answers, which remembers what it was asked."""

    def __init__(self, answers: dict[str, Answer]) -> None:
        self._answers = answers
        self.asked: list[str] = []

    def ask(self, question: Question) -> Answer:
        assert question.record_type is RecordType.A
        self.asked.append(question.name)
        return self._answers.get(question.name, NOTHING)


ZEN = parse_dns_list("zen.spamhaus.org", Kind.BLOCK)
DNSWL = parse_dns_list("list.dnswl.org", Kind.WELCOME)
WIDE_DNSWL = parse_dns_list("list.dnswl.org=127.[0..255].[0..255].[0..255]", Kind.WELCOME)


def ask_one(dns_list: DnsList, answer: Answer) -> ListsAnswer:
    return listed("192.0.2.7", [dns_list], Zones({f"7.2.0.192.{dns_list.zone}": answer}).ask)


@pytest.mark.parametrize(
    ("dns_list", "answer", "failure"),
    [
        pytest.param(ZEN, found("127.0.0.2"), None, id="the usual answer"),
        pytest.param(ZEN, found("127.0.0.4", "127.0.0.11"), None, id="several lists in one"),
        pytest.param(ZEN, found("127.255.255.252"), ListFailure.REFUSED, id="a misspelt zone"),
        pytest.param(ZEN, found("127.255.255.254"), ListFailure.REFUSED, id="a public resolver"),
        pytest.param(ZEN, found("127.255.255.255"), ListFailure.REFUSED, id="too many questions"),
        pytest.param(ZEN, found("127.0.0.2", "127.255.255.254"), ListFailure.REFUSED, id="a refusal beside an answer"),
        pytest.param(ZEN, found("127.0.0.1"), ListFailure.REFUSED, id="a refusal as URIBL writes it"),
        pytest.param(ZEN, found("203.0.113.1"), ListFailure.NO_LIST, id="a parked zone"),
        pytest.param(ZEN, found("127.0.0.2", "203.0.113.1"), ListFailure.NO_LIST, id="half a parked zone"),
        pytest.param(ZEN, failed(Failure.TIMEOUT), ListFailure.NO_ANSWER, id="no answer in time"),
        pytest.param(ZEN, failed(Failure.SERVFAIL), ListFailure.NO_ANSWER, id="a broken zone"),
        pytest.param(DNSWL, found("127.0.5.1"), None, id="low trust"),
        pytest.param(DNSWL, found("127.0.15.3"), None, id="high trust"),
        pytest.param(DNSWL, found("127.0.0.255"), ListFailure.REFUSED, id="over dnswl's limit"),
        pytest.param(WIDE_DNSWL, found("127.0.0.255"), ListFailure.REFUSED, id="over dnswl's limit, whatever counts"),
    ],
)
def test_an_answer_lists_the_client_or_says_something_of_the_list(
    dns_list: DnsList, answer: Answer, failure: ListFailure | None
) -> None:
    result = ask_one(dns_list, answer)
    assert result.failures == (((dns_list.zone, failure),) if failure else ())
    assert (result.listing is None) == (failure is not None)


@pytest.mark.parametrize(
    ("dns_list", "answer"),
    [
        pytest.param(ZEN, NOTHING, id="no such name"),
        pytest.param(ZEN, Answer(AnswerStatus.NODATA), id="no address"),
        pytest.param(ZEN, found("127.0.0.255"), id="an answer that the default does not count"),
        pytest.param(ZEN, found("no address", "::1"), id="garbage"),
        pytest.param(DNSWL, found("127.0.5.0"), id="no trust"),
        pytest.param(
            parse_dns_list("zen.spamhaus.org=127.0.0.[2..9]", Kind.BLOCK), found("127.0.0.10"), id="not counted"
        ),
    ],
)
def test_a_client_is_not_listed(dns_list: DnsList, answer: Answer) -> None:
    assert ask_one(dns_list, answer) == ListsAnswer()


def test_a_list_of_everybody_lists_nobody() -> None:
    for dns_list in (ZEN, DNSWL):
        high = found("127.0.10.3")
        zones = Zones({f"7.2.0.192.{dns_list.zone}": high, f"1.0.0.127.{dns_list.zone}": high})
        assert listed("192.0.2.7", [dns_list], zones.ask).failures == ((dns_list.zone, ListFailure.LISTS_ALL),)


def test_a_list_whose_control_question_goes_unanswered_is_believed() -> None:
    zones = Zones(
        {"7.2.0.192.zen.spamhaus.org": found("127.0.0.2"), "1.0.0.127.zen.spamhaus.org": failed(Failure.TIMEOUT)}
    )
    assert listed("192.0.2.7", [ZEN], zones.ask).listing == Listing("zen.spamhaus.org", "127.0.0.2")


def test_the_first_listing_ends_the_asking_and_failures_before_it_are_told() -> None:
    lists = [parse_dns_list(f"{zone}.example", Kind.BLOCK) for zone in ("away", "clean", "hit", "never")]
    zones = Zones({"7.2.0.192.away.example": failed(Failure.TIMEOUT), "7.2.0.192.hit.example": found("127.0.0.3")})
    result = listed("192.0.2.7", lists, zones.ask)
    assert result == ListsAnswer(Listing("hit.example", "127.0.0.3"), (("away.example", ListFailure.NO_ANSWER),))
    assert not any(name.endswith("never.example") for name in zones.asked)


def test_a_client_that_no_list_has_costs_a_question_a_list() -> None:
    zones = Zones({})
    listed("192.0.2.7", [ZEN, DNSWL], zones.ask)
    assert zones.asked == ["7.2.0.192.zen.spamhaus.org", "7.2.0.192.list.dnswl.org"]


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.7", "7.2.0.192"),
        ("::ffff:192.0.2.7", "7.2.0.192"),
        ("2001:db8::7", "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"),
        ("fe80::1%eth0", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.e.f"),
    ],
)
def test_an_address_is_asked_about_backwards(address: str, name: str) -> None:
    zones = Zones({})
    listed(address, [ZEN], zones.ask)
    assert zones.asked == [f"{name}.zen.spamhaus.org"]


@pytest.mark.parametrize("address", ["", "unknown", "192.0.2.777", "1" * 5000])
def test_what_is_no_address_is_not_asked_about(address: str) -> None:
    zones = Zones({})
    assert listed(address, [ZEN], zones.ask) == ListsAnswer()
    assert not zones.asked


@pytest.mark.parametrize(
    ("text", "kind", "counted", "not_counted"),
    [
        ("zen.spamhaus.org", Kind.BLOCK, ["127.0.0.2", "127.0.1.254"], ["127.0.0.0", "127.255.0.2"]),
        (" Zen.Spamhaus.ORG. = 127.0.0.[2..4;10] ", Kind.BLOCK, ["127.0.0.2", "127.0.0.10"], ["127.0.0.5"]),
        ("bl.example=127.0.0.2", Kind.BLOCK, ["127.0.0.2"], ["127.0.0.3", "127.0.1.2"]),
        ("list.dnswl.org", Kind.WELCOME, ["127.0.0.1", "127.0.255.3"], ["127.0.5.0", "127.0.5.4", "127.1.5.1"]),
        ("list.dnswl.org=127.0.[0..255].[1..3]", Kind.WELCOME, ["127.0.9.2"], ["127.0.9.0"]),
        ("wl.example=127.0.0.1", Kind.WELCOME, ["127.0.0.1"], ["127.0.0.2"]),
        ("wl.example=127.0.0.[16..20]", Kind.WELCOME, ["127.0.0.16"], ["127.0.0.2"]),
    ],
)
def test_a_list_is_read_as_postfix_writes_it(text: str, kind: Kind, counted: list[str], not_counted: list[str]) -> None:
    dns_list = parse_dns_list(text, kind)
    for address in counted:
        assert ask_one(dns_list, found(address)).listing == Listing(dns_list.zone, address)
    for address in not_counted:
        assert ask_one(dns_list, found(address)) == ListsAnswer()


FILTER = "which answers count"


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("", Kind.BLOCK, "a list such as"),
        ("zen spamhaus", Kind.BLOCK, "a list such as"),
        ("localhost", Kind.BLOCK, "a list's zone"),
        ("127.0.0.2", Kind.BLOCK, "a list's zone"),
        (f"{'x' * 60}.{'x' * 60}.{'x' * 60}.example", Kind.BLOCK, "at most 189"),
        ("wl.example", Kind.WELCOME, "which answers vouch"),
        ("notdnswl.org", Kind.WELCOME, "which answers vouch"),
        ("bl.example=", Kind.BLOCK, FILTER),
        ("bl.example=127.0.0", Kind.BLOCK, FILTER),
        ("bl.example=127.0.0.2*3", Kind.BLOCK, "no weight"),
        ("bl.example=127.0.0.*", Kind.BLOCK, FILTER),
        ("bl.example=127.0.0.[2", Kind.BLOCK, FILTER),
        ("bl.example=127.0.0.256", Kind.BLOCK, "numbers up to 255"),
        ("bl.example=127.0.0.[5..2]", Kind.BLOCK, "numbers up to 255"),
        ("bl.example=127.0.0.[2..]", Kind.BLOCK, "numbers up to 255"),
        ("bl.example=127.0.0.[]", Kind.BLOCK, FILTER),
        ("bl.example=10.0.0.2", Kind.BLOCK, "127.0.0.0/8"),
        ("bl.example=[126..127].0.0.2", Kind.BLOCK, "127.0.0.0/8"),
        ("bl.example=127.0.0.\u0662", Kind.BLOCK, FILTER),
    ],
)
def test_a_mistake_says_what_was_expected(text: str, kind: Kind, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        parse_dns_list(text, kind)


@given(
    st.text(max_size=60) | st.from_regex(r"[a-z]{1,5}\.[a-z]{1,5}=[0-9.;\[\]]{1,30}", fullmatch=True),
    st.sampled_from(Kind),
)
def test_any_text_is_a_list_or_a_mistake(text: str, kind: Kind) -> None:
    try:
        dns_list = parse_dns_list(text, kind)
    except ValueError as error:
        assert str(error).startswith("expected")  # noqa: PT017 - either way something must hold
    else:
        assert dns_list.counted[0] == {127}


@given(st.lists(st.binary(max_size=20), max_size=40), st.sampled_from(AnswerStatus))
def test_any_answer_is_a_listing_a_failure_or_nothing(records: list[bytes], status: AnswerStatus) -> None:
    result = listed("192.0.2.7", [ZEN], lambda _question: Answer(status, tuple(records)))
    # All questions have the same answer here, the control question too: nobody can be listed.
    assert result.listing is None
