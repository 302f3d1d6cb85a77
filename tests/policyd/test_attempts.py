"""One delivery attempt is counted once over its calls."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailward.model.limits import Charge, Charging, CounterKey, Outcome, Reading, Window
from mailward.policy.limits import Act, Count, Limit
from mailward.policy.matching import compile_match
from mailward.policy.ratelimit import charge
from policyd.attempts import MAX_ASKED, MAX_EXTENDED, Attempts, Booking, Repeat
from tests.policyd.rules_support import ALICE, Policy

HOUR = 3600.0


def limit(count: Count, most: int = 1000, *, per: tuple[str, ...] = ("sasl_username",), name: str = "one") -> Limit:
    return Limit(name, per, count, (Window(most, HOUR),))


def total(policy: Policy, **attributes: str) -> int:
    """Return what has been charged, as one more attempt sees it."""
    asked = {"instance": "look", "recipient": "look@look.example", "login": ALICE, **attributes}
    plan = policy.plan("RCPT", **asked)
    outcome, _ = charge(plan.charging, policy.values, policy.now)
    return outcome.readings[0].totals[0] - plan.charging.charges[0].cost


def test_a_message_is_counted_once_over_all_its_calls() -> None:
    policy = Policy([limit(Count.MESSAGES)])
    policy.send("1", "a@x.example", "b@x.example", "c@x.example")
    policy.send("2", "a@x.example")
    assert total(policy) == 2


def test_recipients_are_counted_one_by_one() -> None:
    policy = Policy([limit(Count.RECIPIENTS)])
    policy.send("1", "a@x.example", "b@x.example", "c@x.example")
    assert total(policy) == 3


def test_one_person_with_extensions_is_one_recipient() -> None:
    policy = Policy([limit(Count.RECIPIENTS)])
    policy.send("1", "a@x.example", "A+1@x.example", "a+2@X.EXAMPLE", "b@x.example")
    assert total(policy) == 2


def extended(number: int) -> list[str]:
    return [f"a+{one}@x.example" for one in range(number)]


@pytest.mark.parametrize(
    ("count", "recipients", "expected"),
    [
        pytest.param(Count.RECIPIENTS, extended(MAX_EXTENDED + 1), 1, id="extensions of one person"),
        pytest.param(
            Count.RECIPIENTS, extended(700), 700 - MAX_EXTENDED, id="more extensions than a person's mail has"
        ),
        pytest.param(Count.DISTINCT, extended(700), 700 - MAX_EXTENDED, id="different to the set, too"),
        pytest.param(Count.FIRST_TIME, extended(700), 700 - MAX_EXTENDED, id="and new"),
        pytest.param(Count.RECIPIENTS, extended(8) * MAX_ASKED, 1, id="extensions, and several lists that ask of them"),
        pytest.param(Count.RECIPIENTS, ["a@x.example"] * MAX_ASKED, 1, id="several lists that ask"),
        pytest.param(Count.RECIPIENTS, ["a@x.example"] * 20, 21 - MAX_ASKED, id="a copy for each ORCPT"),
        pytest.param(
            Count.RECIPIENTS, [f"{one}@x.example" for one in range(60)] * 2, 60, id="two lists, and many recipients"
        ),
        pytest.param(
            Count.RECIPIENTS,
            [f"@a+b:box{one}%x.example@localhost" for one in range(700)],
            700,
            id="a route is no extension",
        ),
        pytest.param(
            Count.FIRST_TIME,
            [f'"@a+b:box{one}%x.example"@localhost' for one in range(700)],
            700,
            id="a quoted route is none either",
        ),
        pytest.param(Count.RECIPIENTS, [f"a+b%{one}.example" for one in range(50)], 50, id="a route without a domain"),
        pytest.param(Count.RECIPIENTS, [f"x.example!a+{one}" for one in range(50)], 50, id="a bang path"),
    ],
)
def test_what_looks_like_a_repetition_is_free_so_often(count: Count, recipients: list[str], expected: int) -> None:
    policy = Policy([limit(count)])
    for recipient in recipients:
        policy.ask("RCPT", instance="1", login=ALICE, recipient=recipient)
    assert total(policy) == expected


@pytest.mark.parametrize(
    ("recipients", "recipient_count"),
    [
        pytest.param(extended(700), 700, id="extensions"),
        pytest.param(["a@x.example"] * 20, 20, id="copies"),
        pytest.param(["a@x.example", "b@x.example", "a@x.example"], 3, id="one that is named twice"),
        pytest.param(["a@x.example", "b@x.example"] * 2, 2, id="two lists that ask"),
        pytest.param(extended(700) * 2, 700, id="two lists that ask of extensions"),
    ],
)
def test_what_was_counted_at_rcpt_is_not_counted_again_at_the_end(recipients: list[str], recipient_count: int) -> None:
    policy = Policy([limit(Count.RECIPIENTS)])
    for recipient in recipients:
        policy.ask("RCPT", instance="1", login=ALICE, recipient=recipient)
    for stage in ("DATA", "END-OF-MESSAGE"):
        policy.ask(stage, instance="1", login=ALICE, recipient_count=str(recipient_count))
        assert policy.costs() == []


def test_recipients_that_were_not_asked_of_are_counted_at_the_end() -> None:
    policy = Policy([limit(Count.RECIPIENTS)])
    same = {"instance": "1", "login": ALICE}
    policy.ask("RCPT", recipient="a@x.example", **same)
    policy.ask("RCPT", recipient="a+again@x.example", **same)
    policy.ask("DATA", recipient_count="5", **same)
    assert policy.costs() == [3]
    policy.ask("END-OF-MESSAGE", recipient_count="5", **same)
    assert policy.costs() == []


@pytest.mark.parametrize("stage", ["DATA", "END-OF-MESSAGE"])
def test_where_postfix_calls_only_once_all_recipients_are_counted(stage: str) -> None:
    policy = Policy([limit(Count.RECIPIENTS)])
    policy.ask(stage, instance="1", login=ALICE, recipient_count="7")
    assert policy.costs() == [7]


def test_two_restriction_lists_that_ask_of_the_same_recipient_count_it_once() -> None:
    policy = Policy([limit(Count.RECIPIENTS)])
    for _ in range(2):
        policy.ask("RCPT", instance="1", login=ALICE, recipient="a@x.example")
    policy.ask("DATA", instance="1", login=ALICE, recipient="a@x.example", recipient_count="1")
    assert total(policy) == 1


def test_octets_are_charged_as_announced_and_then_as_they_are() -> None:
    policy = Policy([limit(Count.BYTES, 10**6)])
    same = {"instance": "1", "login": ALICE}
    costs: list[list[int]] = []
    for stage, size in (("RCPT", "1000"), ("RCPT", "1000"), ("DATA", "1000"), ("END-OF-MESSAGE", "1500")):
        policy.ask(stage, size=size, recipient=f"{len(costs)}@x.example", **same)
        costs.append(policy.costs())
    assert costs == [[1000], [], [], [500]]


def test_a_size_that_was_announced_too_large_is_not_given_back() -> None:
    policy = Policy([limit(Count.BYTES, 10**6)])
    policy.ask("RCPT", instance="1", login=ALICE, size="5000", recipient="a@x.example")
    policy.ask("END-OF-MESSAGE", instance="1", login=ALICE, size="10", recipient_count="1")
    assert policy.costs() == []


@pytest.mark.parametrize("count", [Count.FIRST_TIME, Count.DISTINCT])
def test_new_and_different_recipients_count_at_rcpt_only(count: Count) -> None:
    policy = Policy([limit(count)])
    policy.ask("DATA", instance="1", login=ALICE, recipient="a@x.example", recipient_count="1")
    assert policy.costs() == []
    policy.send("2", "a@x.example", "b@x.example", "b+2@x.example")
    assert total(policy) == 2


def test_a_refused_recipient_is_judged_anew_and_the_rest_of_the_message_goes_on() -> None:
    policy = Policy([limit(Count.RECIPIENTS, 2)])
    assert policy.send("1", "a@x.example", "b@x.example", "c@x.example") == [
        "DUNNO",
        "DUNNO",
        "DEFER",
        "DUNNO",
        "DUNNO",
    ]
    policy.now += 2 * HOUR
    assert policy.ask("RCPT", instance="1", login=ALICE, recipient="c@x.example").action == "DUNNO"
    assert policy.costs() == [1]


def test_a_message_that_was_refused_is_charged_when_it_passes() -> None:
    policy = Policy([limit(Count.MESSAGES), limit(Count.RECIPIENTS, 1, name="two")])
    policy.send("0", "z@x.example")
    assert policy.send("1", "a@x.example") == ["DEFER"]
    assert total(policy) == 1


def test_counters_of_a_recipients_domain_are_each_charged_once() -> None:
    policy = Policy([limit(Count.MESSAGES, per=("sasl_username", "recipient_domain"))])
    costs = []
    for recipient in ("a@x.example", "b@x.example", "a@y.example"):
        policy.ask("RCPT", instance="1", login=ALICE, recipient=recipient)
        costs.append(policy.costs())
    assert costs == [[1], [], [1]]


def test_a_limit_of_another_service_counts_the_same_recipient_too() -> None:
    """Postfix asks twice at RCPT, with policy contexts that two limits are about."""
    both = [
        Limit(name, ("all",), Count.RECIPIENTS, (Window(10, HOUR),), match=compile_match({"policy_context": [name]}))
        for name in ("first", "second")
    ]
    policy = Policy(both)
    for context in ("first", "second"):
        policy.ask("RCPT", instance="1", recipient="a@x.example", policy_context=context)
        assert policy.costs() == [1]


def test_what_is_held_is_not_charged_and_what_is_logged_is() -> None:
    for act, expected in ((Act.HOLD, 1), (Act.LOG, 3)):
        policy = Policy([Limit("one", ("all",), Count.RECIPIENTS, (Window(1, HOUR),), act)])
        for number in range(3):
            policy.ask("RCPT", instance="1", recipient=f"{number}@x.example")
        attempt = policy.attempts.find("1")
        assert attempt is not None
        assert attempt.amounts == {"one": expected}


@pytest.mark.parametrize("instance", [pytest.param("", id="none"), pytest.param("x" * 200, id="none of Postfix's")])
def test_without_an_instance_each_request_is_for_itself(instance: str) -> None:
    policy = Policy([limit(Count.RECIPIENTS)])
    for _ in range(2):
        policy.ask("RCPT", instance=instance, login=ALICE, recipient="a@x.example")
        assert policy.costs() == [1]
    assert len(policy.attempts) == 0


class Booked:
    """A plan as Attempts sees it."""

    def __init__(self, instance: str, *bookings: Booking) -> None:
        self.instance = instance
        self.bookings = bookings
        self.repeats: tuple[Repeat, ...] = ()
        key = CounterKey("all", "one")
        self.charging = Charging(tuple(Charge(key, (), booking.cost) for booking in bookings))


GRANTED = Outcome(True, (Reading(()),))


def test_the_oldest_attempts_make_room() -> None:
    attempts = Attempts(most=3)
    for instance in "abca":
        attempts.charged(Booked(instance, Booking("one", 1)), GRANTED)
    attempts.charged(Booked("d", Booking("one", 1)), GRANTED)
    assert [instance for instance in "abcd" if attempts.find(instance)] == ["a", "c", "d"]


def test_recipients_of_all_attempts_together_are_bounded() -> None:
    attempts = Attempts(most_things=50)
    for instance in range(20):
        for number in range(1, 10):
            attempts.charged(Booked(str(instance), Booking("one", 1, (number,))), GRANTED)
    assert len(attempts) == 5
    assert attempts.find("19") is not None


def test_what_the_store_refused_is_not_kept() -> None:
    attempts = Attempts()
    attempts.charged(Booked("a", Booking("one", 1)), Outcome(False, (Reading((), is_over=True),)))
    assert len(attempts) == 0


SPELLINGS = ["a@x.example", "a+1@x.example", "b@x.example", "C@y.example", "c@y.example"]
RECIPIENTS = st.lists(st.sampled_from([*SPELLINGS, *SPELLINGS]), unique=True) | st.permutations(
    [*SPELLINGS, *SPELLINGS]
)


@settings(max_examples=60)
@given(st.lists(RECIPIENTS, max_size=4))
def test_no_order_of_calls_counts_a_person_twice(messages: list[list[str]]) -> None:
    policy = Policy([limit(Count.RECIPIENTS, 10**6)])
    expected = 0
    for number, recipients in enumerate(messages):
        policy.send(str(number), *recipients)
        expected += len({recipient.partition("@")[0].partition("+")[0].lower() for recipient in recipients})
    assert total(policy) == expected


def test_an_attempt_hits_once_whatever_else_of_it_is_refused() -> None:
    attempts = Attempts()
    assert [attempts.is_first_hit(instance) for instance in ("1.a", "1.a", "1.b", "1.a")] == [True, False, True, False]
    assert [attempts.is_first_hit("") for _ in range(2)] == [True, True], "nobody says what belongs together"


def test_attempts_that_hit_are_bounded_like_others() -> None:
    attempts = Attempts(most=3)
    for number in range(10):
        attempts.is_first_hit(f"1.{number}")
    assert len(attempts) == 3
    assert attempts.is_first_hit("1.0")
