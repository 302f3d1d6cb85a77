"""From a request to its plan, and from what was counted to the answer."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailward.model.accounts import Account, Raise, Suspension
from mailward.model.limits import CounterKey, Force, Kind, Outcome, Reading, Sent, Window
from mailward.policy.limits import Act, Count, Limit, Overrides, RuleSet, WarmUp
from mailward.policy.matching import ATTRIBUTES, compile_match
from mailward.policy.ratelimit import charge
from policyd.rules import Decision, Hit
from tests.policyd.rules_support import ALICE, NOW, Policy

HOUR, DAY = 3600.0, 86400.0
MAIL = Limit("mail", ("sasl_username",), Count.MESSAGES, (Window(2, HOUR),))
SUSPENDED = Account(ALICE, suspension=Suspension(NOW, "root", "stolen"))
WHOLE = {
    "login": "Alice@Example.com",
    "sender": "Alice+x@Example.com",
    "client_address": "::ffff:192.0.2.7",
    "recipient": "Bob+lists@Example.org",
    "instance": "1",
}


@pytest.mark.parametrize(
    ("per", "key"),
    [
        pytest.param(("sasl_username",), CounterKey("sasl_username=alice@example.com", "mail"), id="login"),
        pytest.param(("sasl_domain",), CounterKey("sasl_domain=example.com", "mail"), id="domain of the login"),
        pytest.param(("sender",), CounterKey("sender=alice@example.com", "mail"), id="sender"),
        pytest.param(("sender_domain",), CounterKey("sender_domain=example.com", "mail"), id="sender's domain"),
        pytest.param(("client_address",), CounterKey("client_address=192.0.2.7", "mail"), id="client"),
        pytest.param(("client_network",), CounterKey("client_network=192.0.2.0/24", "mail"), id="network"),
        pytest.param(
            ("recipient_domain",), CounterKey("recipient_domain=example.org", "mail"), id="recipient's domain"
        ),
        pytest.param(("all",), CounterKey("all", "mail"), id="all"),
        pytest.param(
            ("sasl_username", "recipient_domain", "sender_domain"),
            CounterKey(
                "sasl_username=alice@example.com", "mail", "recipient_domain=example.org,sender_domain=example.com"
            ),
            id="a combination",
        ),
    ],
)
def test_the_owner_of_a_counter(per: tuple[str, ...], key: CounterKey) -> None:
    plan = Policy([replace(MAIL, per=per)]).plan(**WHOLE)
    assert [charge.key for charge in plan.charging.charges] == [key]
    assert plan.account == ALICE


@pytest.mark.parametrize(
    ("per", "absent"),
    [
        pytest.param(("sasl_username",), {"login": ""}, id="no login"),
        pytest.param(("sasl_domain",), {"login": "alice"}, id="a login without a domain"),
        pytest.param(("sender",), {"sender": ""}, id="the null sender"),
        pytest.param(("sender_domain",), {"sender": "postmaster"}, id="a sender without a domain"),
        pytest.param(("client_address",), {"client_address": "unknown"}, id="no address"),
        pytest.param(("client_network",), {"client_address": ""}, id="no network"),
        pytest.param(("recipient_domain",), {"recipient": ""}, id="no recipient"),
        pytest.param(("all", "recipient_domain"), {"recipient": ""}, id="half of a combination"),
    ],
)
def test_a_limit_does_not_apply_without_its_subject(per: tuple[str, ...], absent: dict[str, str]) -> None:
    policy = Policy([replace(MAIL, per=per)])
    assert policy.ask(**{**WHOLE, **absent}) == Decision("DUNNO", "granted")
    assert not policy.plans[-1].charging.charges


@pytest.mark.parametrize("stage", ["CONNECT", "EHLO", "HELO", "MAIL", "VRFY", "ETRN", "", "rcpt", "NEW"])
def test_nothing_is_counted_at_other_stages(stage: str) -> None:
    policy = Policy([MAIL, replace(MAIL, name="any", per=("all",))])
    assert policy.ask(stage, **WHOLE) == Decision("DUNNO", "granted")
    assert not policy.plans[-1].charging.charges


def test_a_limit_is_about_what_it_matches() -> None:
    policy = Policy([replace(MAIL, match=compile_match({"client_address": ["!192.0.2.0/24"]}))])
    assert not policy.plan(**WHOLE).charging.charges
    assert policy.plan(**{**WHOLE, "client_address": "198.51.100.1"}).charging.charges


def test_a_pattern_for_recipients_does_not_meet_a_message_to_several() -> None:
    """At DATA Postfix names no recipient where there are several: those it is not about would be counted."""
    policy = Policy([replace(MAIL, count=Count.RECIPIENTS, match=compile_match({"recipient": ["!@own.example"]}))])
    assert not policy.plan("DATA", login=ALICE, recipient="", recipient_count="9").charging.charges
    assert policy.plan("RCPT", login=ALICE, recipient="a@x.example").charging.charges


@pytest.mark.parametrize(
    ("limit", "kind", "force"),
    [
        pytest.param(MAIL, Kind.AMOUNT, Force.ENFORCED, id="defer"),
        pytest.param(replace(MAIL, act=Act.REJECT), Kind.AMOUNT, Force.ENFORCED, id="reject"),
        pytest.param(replace(MAIL, act=Act.HOLD), Kind.AMOUNT, Force.SHADOW, id="held mail has not been sent"),
        pytest.param(replace(MAIL, act=Act.LOG), Kind.AMOUNT, Force.FORCED, id="what is logged has been sent"),
        pytest.param(replace(MAIL, act=Act.LOG, is_shadow=True), Kind.AMOUNT, Force.SHADOW, id="shadow"),
        pytest.param(replace(MAIL, count=Count.FIRST_TIME), Kind.FIRST_TIME, Force.ENFORCED, id="first time"),
        pytest.param(replace(MAIL, count=Count.DISTINCT), Kind.DISTINCT, Force.ENFORCED, id="different"),
    ],
)
def test_how_a_limit_is_charged(limit: Limit, kind: Kind, force: Force) -> None:
    (charge,) = Policy([limit]).plan(**WHOLE).charging.charges
    assert (charge.kind, charge.force, charge.windows, charge.cost) == (kind, force, limit.windows, 1)
    assert len(charge.item) == (0 if kind is Kind.AMOUNT else 4)


# ---- answers ----


def ask_until_over(*limits: Limit) -> Decision:
    policy = Policy(limits)
    for number in range(3):
        decision = policy.ask(**{**WHOLE, "instance": str(number)})
    return decision


def test_beyond_a_limit_mail_is_deferred_and_told_for_how_long() -> None:
    decision = ask_until_over(replace(MAIL, suspend_after=50))
    assert decision.action == "DEFER 4.7.1 Sending limit reached (2 messages in 1 hour); try again in 62 minutes"
    assert (decision.reason, decision.limit, decision.is_refusal) == ("limit", "mail", True)
    assert HOUR < decision.clears_in <= HOUR + HOUR / 30
    assert decision.hits == (Hit(ALICE, "mail", 50),)


@pytest.mark.parametrize(
    ("limit", "action"),
    [
        pytest.param(
            replace(MAIL, act=Act.REJECT), "REJECT 5.7.1 Sending limit reached (2 messages in 1 hour)", id="reject"
        ),
        pytest.param(replace(MAIL, act=Act.HOLD), "HOLD limit mail reached (2 messages in 1 hour)", id="hold"),
        pytest.param(replace(MAIL, act=Act.LOG), "DUNNO", id="log"),
        pytest.param(
            replace(MAIL, text="Slow down: {limit}, {wait}"),
            "DEFER 4.7.1 Slow down: 2 messages in 1 hour, 62 ",
            id="text",
        ),
        pytest.param(
            replace(MAIL, windows=(Window(2, HOUR), Window(2, DAY))),
            "DEFER 4.7.1 Sending limit reached (2 messages in 1 day); try again in 25 hours",
            id="of two windows the longer",
        ),
        pytest.param(
            replace(MAIL, windows=(Window(0, HOUR),)),
            "DEFER 4.7.1 Sending limit reached (0 messages in 1 hour)",
            id="nothing at all, and nothing to wait for",
        ),
    ],
)
def test_what_postfix_is_told(limit: Limit, action: str) -> None:
    assert ask_until_over(limit).action.startswith(action)


@pytest.mark.parametrize(
    ("act", "reason"), [pytest.param(Act.HOLD, "hold", id="hold"), pytest.param(Act.LOG, "log", id="log")]
)
def test_what_refuses_nothing_is_a_hit_too(act: Act, reason: str) -> None:
    decision = ask_until_over(replace(MAIL, act=act))
    assert (decision.reason, decision.limit, decision.is_refusal) == (reason, "mail", False)
    assert decision.hits == (Hit(ALICE, "mail", 0),)


def test_the_first_limit_that_refuses_decides() -> None:
    decision = ask_until_over(
        replace(MAIL, name="held", act=Act.HOLD),
        replace(MAIL, name="first"),
        replace(MAIL, name="second", act=Act.REJECT),
    )
    assert decision.limit == "first"
    assert decision.action == "DEFER 4.7.1 Sending limit reached (2 messages in 1 hour); try again in 62 minutes"


def test_of_several_limits_that_refuse_the_longest_wait_is_told() -> None:
    decision = ask_until_over(MAIL, replace(MAIL, name="second", windows=(Window(2, DAY),)))
    assert decision.limit == "mail"
    assert decision.action.endswith("try again in 25 hours")
    assert decision.clears_in > DAY


def test_a_request_is_one_hit_of_the_limit_that_suspends_soonest() -> None:
    decision = ask_until_over(MAIL, replace(MAIL, name="b", suspend_after=50), replace(MAIL, name="c", suspend_after=1))
    assert decision.limit == "mail"
    assert decision.hits == (Hit("", "mail", 0), Hit("", "b", 0), Hit(ALICE, "c", 1))


def test_an_account_is_not_hit_by_what_others_used_up() -> None:
    assert ask_until_over(replace(MAIL, per=("all",))).hits == (Hit("", "mail", 0),)
    assert ask_until_over(replace(MAIL, per=("sasl_domain",))).hits == (Hit("", "mail", 0),)


@pytest.mark.parametrize(
    ("limits", "hits"),
    [
        pytest.param([replace(MAIL, act=Act.LOG, suspend_after=5)], (Hit(ALICE, "mail", 0),), id="logged"),
        pytest.param([replace(MAIL, act=Act.HOLD, suspend_after=5)], (Hit(ALICE, "mail", 0),), id="held"),
        pytest.param([replace(MAIL, suspend_after=5)], (Hit(ALICE, "mail", 5),), id="deferred"),
        pytest.param([replace(MAIL, act=Act.REJECT, suspend_after=5)], (Hit(ALICE, "mail", 5),), id="rejected"),
        pytest.param(
            [replace(MAIL, act=Act.LOG, suspend_after=1), replace(MAIL, name="b", suspend_after=50)],
            (Hit("", "mail", 0), Hit(ALICE, "b", 50)),
            id="logged by one, refused by the other",
        ),
        pytest.param(
            [replace(MAIL, act=Act.LOG), replace(MAIL, name="b")],
            (Hit("", "mail", 0), Hit(ALICE, "b", 0)),
            id="what refuses says why",
        ),
    ],
)
def test_only_what_is_refused_brings_an_account_nearer_to_suspension(
    limits: list[Limit], hits: tuple[Hit, ...]
) -> None:
    assert ask_until_over(*limits).hits == hits


# ---- routed addresses ----

OF_DOMAIN = replace(MAIL, per=("recipient_domain",))


@pytest.mark.parametrize(
    ("recipient", "domains"),
    [
        pytest.param("a@gmail.example", ["gmail.example"], id="none"),
        pytest.param("a%gmail.example@localhost", ["localhost", "gmail.example"], id="percent"),
        pytest.param('"a%GMail.example"@localhost', ["localhost", "gmail.example"], id="quoted"),
        pytest.param("a%gmail.example", ["gmail.example"], id="percent without a domain"),
        pytest.param("gmail.example!a@localhost", ["localhost", "gmail.example"], id="bang path"),
        pytest.param("gmail.example!a", ["gmail.example"], id="bang path without a domain"),
        pytest.param("@relay:a%gmail.example@localhost", ["localhost", "relay", "gmail.example"], id="source route"),
        pytest.param(
            "a%gmail.example%localhost@localhost", ["localhost", "gmail.example"], id="to itself and then elsewhere"
        ),
        pytest.param("a%x1@gmail.example", ["gmail.example", "x1"], id="somebody else's domain reads its own"),
        pytest.param("a%b%c%d%e%gmail.example@localhost", ["localhost", "%"], id="more than can be meant"),
        pytest.param("a(x)%(y)gmail.example@localhost", ["localhost", "%"], id="what postfix parses anew"),
        pytest.param("a:1@gmail.example", ["gmail.example"], id="no route"),
        pytest.param("a%@localhost", ["localhost"], id="to nowhere"),
    ],
)
def test_a_routed_address_counts_for_every_domain_it_may_go_to(recipient: str, domains: list[str]) -> None:
    policy = Policy([OF_DOMAIN])
    policy.ask(recipient=recipient, instance="1")
    charges = policy.plans[-1].charging.charges
    assert [one.key.owner for one in charges] == [f"recipient_domain={domain}" for domain in domains]
    policy.ask(recipient=recipient, instance="1")
    assert policy.costs() == []


@pytest.mark.parametrize(
    "route",
    ["v{}%gmail.example@localhost", '"v{}%gmail.example"@localhost', "gmail.example!v{}", "v{}%x{}@gmail.example"],
    ids=["percent", "quoted", "bang", "domains-of-its-own"],
)
def test_no_route_leads_past_a_domains_limit(route: str) -> None:
    policy = Policy([OF_DOMAIN])
    for number, recipient in enumerate(["a@gmail.example", "b@gmail.example"]):
        assert policy.ask(recipient=recipient, instance=str(number)).action == "DUNNO"
    decision = policy.ask(recipient=route.format(1, 1), instance="x")
    assert (decision.limit, decision.hits) == ("mail", (Hit("", "mail", 0),))


def test_what_cannot_be_read_shares_one_limit() -> None:
    policy = Policy([OF_DOMAIN])
    asked = [f"v(x)%gmail.example@d{number}.example" for number in range(4)]
    actions = [policy.ask(recipient=recipient, instance=recipient).action[:5] for recipient in asked]
    assert actions == ["DUNNO", "DUNNO", "DEFER", "DEFER"]


def test_a_limit_that_several_charges_of_a_request_reach_is_one_hit() -> None:
    limit = replace(MAIL, per=("sasl_username", "recipient_domain"), windows=(Window(0, HOUR),), suspend_after=3)
    shadow = replace(limit, name="shadow", is_shadow=True, suspend_after=0)
    decision = Policy([limit, shadow]).ask(login=ALICE, recipient="a%x.example@localhost", instance="1")
    assert (decision.hits, decision.shadows) == ((Hit(ALICE, "mail", 3),), ("shadow",))


# ---- what is not refused ----


def test_a_shadow_stops_nothing_and_is_told() -> None:
    decision = ask_until_over(replace(MAIL, is_shadow=True))
    assert decision == Decision("DUNNO", "granted", shadows=("mail",))
    both = ask_until_over(replace(MAIL, name="shadow", is_shadow=True), MAIL)
    assert (both.limit, both.shadows, both.hits) == ("mail", ("shadow",), (Hit(ALICE, "mail", 0),))


def test_a_refused_request_is_charged_nowhere() -> None:
    wide = replace(MAIL, name="wide", windows=(Window(100, HOUR),))
    policy = Policy([wide, MAIL])
    for number in range(10):
        policy.ask(**{**WHOLE, "instance": str(number)})
    assert [reading.totals for reading in look(policy).readings] == [(3,), (2,)]  # the first is what it would have been


def look(policy: Policy) -> Outcome:
    return charge(policy.plan(**{**WHOLE, "instance": "x"}).charging, policy.values, policy.now)[0]


@pytest.mark.parametrize(
    ("defers", "action"), [pytest.param(False, "DUNNO", id="dunno"), pytest.param(True, "DEFER 4.3.0 ", id="defer")]
)
def test_where_nobody_can_count_the_configuration_answers(defers: bool, action: str) -> None:
    policy = Policy(rule_set=RuleSet((MAIL,), defers_on_store_error=defers))
    decision = policy.plan(**WHOLE).decide(None)
    assert decision.action.startswith(action)
    assert decision.reason == "store-error"
    assert policy.plan("MAIL", **WHOLE).decide(None).action == "DUNNO"


# ---- accounts ----


@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA", "END-OF-MESSAGE"])
@pytest.mark.parametrize("login", [ALICE, "ALICE@example.COM"])
def test_a_suspended_account_is_rejected_before_anything_is_counted(stage: str, login: str) -> None:
    policy = Policy(rule_set=RuleSet((MAIL,), exempt=compile_match({"sasl_username": [ALICE]})))
    policy.accounts[ALICE] = SUSPENDED
    decision = policy.ask(stage, **{**WHOLE, "login": login, "queue_id": "4ABC"})
    assert decision.action.startswith("REJECT 5.7.1 ")
    assert (decision.reason, decision.is_refusal, decision.hits) == ("suspended", True, ())
    plan = policy.plans[-1]
    assert (plan.charging.charges, plan.charging.sent, plan.correspondents) == ((), None, ())


def test_the_neighbour_of_a_suspended_account_sends() -> None:
    policy = Policy([MAIL])
    policy.accounts[ALICE] = SUSPENDED
    assert policy.ask(**{**WHOLE, "login": "bob@example.com"}).action == "DUNNO"


@pytest.mark.parametrize("pattern", [ALICE, "@example.com"])
def test_an_exempt_account_has_no_limits_but_what_it_does_is_noted(pattern: str) -> None:
    policy = Policy(rule_set=RuleSet((MAIL,), exempt=compile_match({"sasl_username": [pattern]})))
    for number in range(5):
        decision = policy.ask(**{**WHOLE, "instance": str(number), "queue_id": "4ABC"})
        assert decision == Decision("DUNNO", "exempt")
        assert policy.plans[-1].charging.charges == ()
        assert policy.plans[-1].charging.sent == Sent(ALICE, "4ABC")
        assert policy.plans[-1].correspondents == ("bob+lists@example.org",)


def test_nobody_is_exempt_without_a_login() -> None:
    limit = replace(MAIL, per=("all",))
    policy = Policy(rule_set=RuleSet((limit,), exempt=compile_match({"sasl_username": ["a"]})))
    assert policy.plan(recipient="b@x.example").charging.charges


def windows_now(policy: Policy) -> tuple[Window, ...]:
    return policy.plan(**WHOLE).charging.charges[0].windows


def test_overrides_raises_and_tightening_hold_for_the_account() -> None:
    overrides = Overrides(of_login={ALICE: {"mail": (Window(10, HOUR),)}})
    policy = Policy(rule_set=RuleSet((MAIL,), overrides, tighten=0.5))
    assert windows_now(policy) == (Window(10, HOUR),)
    policy.accounts[ALICE] = Account(ALICE, raises=(Raise(100, HOUR, NOW + 60),))
    assert windows_now(policy) == (Window(100, HOUR),)
    policy.accounts[ALICE] = Account(ALICE, raises=(Raise(100, HOUR, NOW + 60),), is_tightened=True)
    assert windows_now(policy) == (Window(50, HOUR),)
    policy.now += 60
    assert windows_now(policy) == (Window(5, HOUR),)
    policy.accounts.clear()
    assert windows_now(policy) == (Window(10, HOUR),)


def test_an_account_without_limit_still_learns_whom_it_knows() -> None:
    limits = (MAIL, replace(MAIL, name="new", count=Count.FIRST_TIME), replace(MAIL, name="n", count=Count.DISTINCT))
    policy = Policy(rule_set=RuleSet(limits, Overrides(of_login={ALICE: {"*": ()}})))
    for number in range(5):
        assert policy.ask(**{**WHOLE, "instance": str(number)}).action == "DUNNO"
    (charge,) = policy.plans[-1].charging.charges
    assert (charge.key.limit, charge.windows) == ("new", ())
    assert look(policy).readings[0].is_known


def test_a_warm_up_grows_while_the_program_runs() -> None:
    policy = Policy([replace(MAIL, windows=(Window(100, DAY),), warm_up=WarmUp(NOW, 10, DAY))])
    seen = []
    for _ in range(6):
        seen.append(windows_now(policy)[0].most)
        policy.now += DAY
    assert seen == [10, 20, 40, 80, 100, 100]


def test_many_accounts_with_overrides_take_bounded_memory() -> None:
    policy = Policy(rule_set=RuleSet((MAIL,), Overrides(of_domain={"example.com": {"mail": (Window(9, HOUR),)}})))
    for number in range(5000):
        plan = policy.plan(**{**WHOLE, "login": f"u{number}@example.com"})
        assert plan.charging.charges[0].windows == (Window(9, HOUR),)
    assert len(policy.rules._profiles) <= 4096


# ---- what is noted ----


def test_what_is_in_the_queue_is_noted_once_a_message() -> None:
    policy = Policy([MAIL])
    policy.send("1", "a@x.example", "b@x.example")
    sent = [plan.charging.sent for plan in policy.plans]
    assert sent == [None, None, Sent(ALICE, "4ABC"), None]


@pytest.mark.parametrize("queue_id", ["", "../4ABC", "4A BC", "A" * 33, "\u00e9"])
def test_what_is_no_queue_id_is_not_noted(queue_id: str) -> None:
    assert Policy([MAIL]).plan(**{**WHOLE, "queue_id": queue_id}).charging.sent is None


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        pytest.param({}, ("bob+lists@example.org",), id="a recipient"),
        pytest.param({"login": ""}, (), id="not of a stranger"),
        pytest.param({"recipient": ""}, (), id="none"),
    ],
)
def test_whom_an_account_writes_to_is_a_correspondent(attributes: dict[str, str], expected: tuple[str, ...]) -> None:
    assert Policy([MAIL]).plan(**{**WHOLE, **attributes}).correspondents == expected
    assert Policy(rule_set=RuleSet((MAIL,), records_correspondents=False)).plan(**WHOLE).correspondents == ()


ANYTHING = st.text(st.characters(), max_size=40) | st.binary(max_size=40).map(
    lambda octets: octets.decode("utf-8", "surrogateescape")
)
PER = (
    "sasl_username",
    "sasl_domain",
    "sender",
    "sender_domain",
    "client_address",
    "client_network",
    "recipient_domain",
)
ANSWER = re.compile("DUNNO|DEFER 4.7.1 1 [a-z -]+ in 1 hour (a long time|[0-9]+ [a-z]+)")
SUBJECTS_AND_COUNTS = zip((*PER, "sender", "sender_domain", "client_address"), [*Count, *Count], strict=True)
EVERY = [
    Limit(f"limit-{at}", (per, "all"), count, (Window(1, HOUR),), text="{limit} {wait}")
    for at, (per, count) in enumerate(SUBJECTS_AND_COUNTS)
]


@settings(max_examples=150)
@given(
    st.dictionaries(st.sampled_from(ATTRIBUTES), ANYTHING),
    st.sampled_from(["RCPT", "DATA", "END-OF-MESSAGE", "x"]),
    st.booleans(),
    st.floats(0.0, math.inf),
)
def test_any_octets_give_an_answer_and_none_are_in_it(
    attributes: dict[str, str], stage: str, is_charged: bool, clears_in: float
) -> None:
    attributes.pop("protocol_state", None)
    plan = Policy(EVERY).plan(stage, **attributes)
    keys = [one.key for one in plan.charging.charges]
    for text in [part for key in keys for part in (key.owner, key.rest)]:
        assert len(text) <= 340
        assert all("!" <= character <= "~" for character in text)
    assert len(set(keys)) == len(keys)
    readings = tuple(Reading((1,), not is_charged, clears_in) for _ in keys)
    decision = plan.decide(Outcome(is_charged or not keys, readings))
    assert ANSWER.fullmatch(decision.action)
