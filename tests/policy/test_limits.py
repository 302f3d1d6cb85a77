"""What is left of a limit's windows: overrides, warm-up, raises, tightening; and limits that never count."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailward.model.accounts import Account, Raise
from mailward.model.limits import Window
from mailward.policy.limits import (
    DEFAULT_LIMITS,
    Count,
    Limit,
    Overrides,
    WarmUp,
    base_windows,
    effective_windows,
    misplaced,
    warm_up_allows,
)
from mailward.policy.matching import compile_match
from mailward.policy.ratelimit import MAX_ITEMS

HOUR, DAY = 3600.0, 86400.0
NOW = 1_767_225_600.0
ALICE = "alice@example.com"
LIMIT = Limit("mail", ("sasl_username",), Count.MESSAGES, (Window(100, HOUR), Window(500, DAY)))
OF_DOMAIN = replace(LIMIT, name="domain-mail", per=("sasl_domain",))
OF_CLIENT = replace(LIMIT, name="client-mail", per=("client_address",))
FIRST_TIME = replace(LIMIT, name="new", count=Count.FIRST_TIME)
BYTES = replace(LIMIT, name="octets", count=Count.BYTES)


def windows(*pairs: tuple[int, float]) -> tuple[Window, ...]:
    return tuple(Window(*pair) for pair in pairs)


W1, W2, W3, W4 = (windows((most, HOUR)) for most in (1, 2, 3, 4))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        pytest.param(Overrides(), LIMIT.windows, id="nobody's"),
        pytest.param(Overrides(of_login={"bob": {"mail": W1}}), LIMIT.windows, id="somebody else's"),
        pytest.param(Overrides(of_login={ALICE: {"mail": W1}}), W1, id="the login's"),
        pytest.param(Overrides(of_login={ALICE: {"*": W1}}), W1, id="the login's, of every limit"),
        pytest.param(Overrides(of_login={ALICE: {"*": W1, "mail": W2}}), W2, id="by name before every limit"),
        pytest.param(Overrides(of_login={ALICE: {"other": W1}}), LIMIT.windows, id="another limit's"),
        pytest.param(Overrides(of_domain={"example.com": {"mail": W1}}), W1, id="the domain's"),
        pytest.param(Overrides(of_domain={"com": {"mail": W1}}), LIMIT.windows, id="not of the domain above"),
        pytest.param(
            Overrides(of_login={ALICE: {"*": W1}}, of_domain={"example.com": {"mail": W2}}),
            W1,
            id="login before domain",
        ),
        pytest.param(
            Overrides(
                of_class={"a": {"mail": W2}}, class_of_login={ALICE: "a"}, of_domain={"example.com": {"mail": W1}}
            ),
            W2,
            id="class before domain",
        ),
        pytest.param(
            Overrides(of_class={"a": {"mail": W2}}, class_of_login={ALICE: "a"}, of_login={ALICE: {"mail": W3}}),
            W3,
            id="login before class",
        ),
        pytest.param(
            Overrides(
                of_class={"a": {"mail": W2}, "b": {"mail": W3}},
                class_of_login={ALICE: "a"},
                class_of_domain={"example.com": "b"},
            ),
            W2,
            id="a class by login before one by domain",
        ),
        pytest.param(
            Overrides(of_class={"b": {"mail": W3}}, class_of_domain={"example.com": "b"}), W3, id="a class by domain"
        ),
        pytest.param(
            Overrides(of_login={ALICE: {"other": W1}}, of_domain={"example.com": {"mail": W2}}),
            W2,
            id="the domain's, where the login's says nothing of the limit",
        ),
        pytest.param(Overrides(of_login={ALICE: {"mail": ()}}), (), id="unlimited"),
    ],
)
def test_the_most_specific_override_wins(overrides: Overrides, expected: tuple[Window, ...]) -> None:
    assert base_windows(LIMIT, overrides, ALICE) == expected


@pytest.mark.parametrize(
    ("limit", "overrides", "expected"),
    [
        pytest.param(OF_DOMAIN, Overrides(of_domain={"example.com": {"*": W1}}), W1, id="a domain's limit by domain"),
        pytest.param(OF_DOMAIN, Overrides(of_login={ALICE: {"*": W1}}), LIMIT.windows, id="no domain's limit by login"),
        pytest.param(OF_CLIENT, Overrides(of_login={ALICE: {"*": W1}}), LIMIT.windows, id="no client's limit"),
        pytest.param(
            BYTES, Overrides(of_login={ALICE: {"*": W1}}), LIMIT.windows, id="octets not by a number of mails"
        ),
        pytest.param(BYTES, Overrides(of_login={ALICE: {"*": ()}}), (), id="octets unlimited with the rest"),
        pytest.param(BYTES, Overrides(of_login={ALICE: {"octets": W1}}), W1, id="octets by name"),
        pytest.param(
            FIRST_TIME,
            Overrides(of_login={ALICE: {"*": windows((5000, DAY))}}),
            windows((MAX_ITEMS, DAY)),
            id="no more new recipients than are remembered",
        ),
    ],
)
def test_an_override_reaches_what_it_can_speak_of(
    limit: Limit, overrides: Overrides, expected: tuple[Window, ...]
) -> None:
    assert base_windows(limit, overrides, ALICE) == expected


@pytest.mark.parametrize(
    ("limit", "raised", "expected"),
    [
        pytest.param(LIMIT, Raise(300, HOUR, NOW + 1), windows((300, HOUR), (500, DAY)), id="the day has more already"),
        pytest.param(LIMIT, Raise(1000, HOUR, NOW + 1), windows((1000, HOUR), (1000, DAY)), id="longer windows, too"),
        pytest.param(LIMIT, Raise(1000, DAY, NOW + 1), windows((100, HOUR), (1000, DAY)), id="shorter windows stay"),
        pytest.param(LIMIT, Raise(1000, 7 * DAY, NOW + 1), LIMIT.windows, id="no window as long"),
        pytest.param(LIMIT, Raise(1, HOUR, NOW + 1), LIMIT.windows, id="never lowers"),
        pytest.param(LIMIT, Raise(1000, HOUR, NOW), LIMIT.windows, id="its time is over"),
        pytest.param(LIMIT, Raise(300, HOUR, NOW + 1, "other"), LIMIT.windows, id="another limit's"),
        pytest.param(LIMIT, Raise(300, HOUR, NOW + 1, "mail"), windows((300, HOUR), (500, DAY)), id="by name"),
        pytest.param(BYTES, Raise(1000, HOUR, NOW + 1), LIMIT.windows, id="of all limits: not of octets"),
        pytest.param(
            BYTES, Raise(1000, DAY, NOW + 1, "octets"), windows((100, HOUR), (1000, DAY)), id="octets by name"
        ),
        pytest.param(
            FIRST_TIME, Raise(9000, DAY, NOW + 1), windows((100, HOUR), (MAX_ITEMS, DAY)), id="as are remembered"
        ),
        pytest.param(OF_CLIENT, Raise(300, HOUR, NOW + 1), LIMIT.windows, id="an account raises no client's"),
    ],
)
def test_a_raise_reaches_its_windows(limit: Limit, raised: Raise, expected: tuple[Window, ...]) -> None:
    account = Account(ALICE, raises=(raised,))
    assert effective_windows(limit, limit.windows, account, 0.25, NOW) == expected


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        pytest.param(100, 25, id="a part"),
        pytest.param(3, 1, id="at least one"),
        pytest.param(0, 0, id="who may nothing still may nothing"),
    ],
)
def test_tightening_leaves_a_part(most: int, expected: int) -> None:
    account = Account(ALICE, is_tightened=True)
    assert effective_windows(LIMIT, windows((most, HOUR)), account, 0.25, NOW) == windows((expected, HOUR))
    assert effective_windows(OF_CLIENT, windows((most, HOUR)), account, 0.25, NOW) == windows((most, HOUR))


def test_a_raise_of_a_tightened_account_is_tightened_too() -> None:
    account = Account(ALICE, raises=(Raise(1000, HOUR, NOW + 1),), is_tightened=True)
    assert effective_windows(LIMIT, LIMIT.windows, account, 0.25, NOW) == windows((250, HOUR), (250, DAY))


def test_unlimited_stays_unlimited() -> None:
    account = Account(ALICE, raises=(Raise(1000, HOUR, NOW + 1),), is_tightened=True)
    assert effective_windows(LIMIT, (), account, 0.25, NOW) == ()


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        pytest.param(-10, windows((50, HOUR), (50, DAY)), id="before the start"),
        pytest.param(0, windows((50, HOUR), (50, DAY)), id="the first day"),
        pytest.param(3, windows((100, HOUR), (100, DAY)), id="doubled"),
        pytest.param(9, windows((100, HOUR), (400, DAY)), id="doubled three times"),
        pytest.param(12, windows((100, HOUR), (500, DAY)), id="as large as the limit"),
        pytest.param(40_000, windows((100, HOUR), (500, DAY)), id="a century later"),
    ],
)
def test_a_warm_up_grows_up_to_the_limit(days: float, expected: tuple[Window, ...]) -> None:
    limit = replace(OF_CLIENT, warm_up=WarmUp(NOW, 50, 3 * DAY))
    assert effective_windows(limit, limit.windows, None, 0.25, NOW + days * DAY) == expected


@given(st.floats(-1e12, 1e12), st.integers(1, 10**9), st.floats(3600.0, 1e8), st.floats(0.0, 1e9))
def test_a_warm_up_never_shrinks(start: float, first: int, double: float, later: float) -> None:
    warm_up = WarmUp(start, first, double)
    assert first <= warm_up_allows(warm_up, NOW) <= warm_up_allows(warm_up, NOW + later)


def why(limit: Limit, *seen: str) -> str:
    return next((text for _, text in misplaced([limit], set(seen))), "")


def test_nothing_is_misplaced_before_anything_came() -> None:
    assert not misplaced(DEFAULT_LIMITS, set())


@pytest.mark.parametrize(
    ("limit", "seen", "expected"),
    [
        pytest.param(LIMIT, {"RCPT+login"}, "", id="messages at RCPT"),
        pytest.param(LIMIT, {"MAIL+login", "CONNECT"}, "it counts at DATA, END-OF-MESSAGE, RCPT", id="too early"),
        pytest.param(LIMIT, {"RCPT"}, "no request came with one", id="nobody logs in there"),
        pytest.param(OF_DOMAIN, {"RCPT"}, "no request came with one", id="no domain of a login"),
        pytest.param(OF_CLIENT, {"RCPT"}, "", id="a client needs no login"),
        pytest.param(LIMIT, {"DATA+login", "RCPT"}, "", id="logged in at DATA"),
        pytest.param(FIRST_TIME, {"DATA+login", "RCPT"}, "it counts at RCPT", id="new recipients at DATA"),
        pytest.param(FIRST_TIME, {"RCPT+login"}, "", id="new recipients at RCPT"),
        pytest.param(
            replace(LIMIT, per=("recipient_domain",)),
            {"DATA"},
            "it sees a recipient of several",
            id="recipients at DATA",
        ),
        pytest.param(
            replace(OF_CLIENT, match=compile_match({"recipient": ["@example.org"]})),
            {"END-OF-MESSAGE"},
            "it sees a recipient of several",
            id="a pattern for recipients at the end",
        ),
        pytest.param(BYTES, {"RCPT+login"}, "only the size that a client may announce", id="octets before the end"),
        pytest.param(BYTES, {"END-OF-MESSAGE+login"}, "", id="octets at the end"),
        pytest.param(
            replace(LIMIT, match=compile_match({"protocol_state": ["data"]})),
            {"RCPT+login"},
            "it counts at DATA",
            id="a stage of its own",
        ),
    ],
)
def test_a_limit_that_never_counts_is_found(limit: Limit, seen: set[str], expected: str) -> None:
    found = why(limit, *seen)
    assert expected in found if expected else not found


@pytest.mark.parametrize(
    "limit",
    [
        pytest.param(replace(BYTES, per=("recipient_domain",)), id="per the recipient's domain"),
        pytest.param(replace(BYTES, per=("sasl_username", "recipient_domain")), id="per a pair"),
        pytest.param(replace(BYTES, match=compile_match({"recipient": ["@example.org"]})), id="for some recipients"),
        pytest.param(replace(BYTES, match=compile_match({"recipient": ["!@example.org"]})), id="not for some"),
    ],
)
@pytest.mark.parametrize("seen", [set(), {"RCPT+login", "END-OF-MESSAGE+login"}], ids=["before any came", "everywhere"])
def test_octets_of_a_recipient_are_misplaced_wherever_postfix_calls(limit: Limit, seen: set[str]) -> None:
    assert "count messages or recipients" in why(limit, *seen)


def test_the_limits_of_a_fresh_install() -> None:
    assert [(one.name, one.count.value, one.suspend_after) for one in DEFAULT_LIMITS] == [
        ("account-recipients", "recipients", 50),
        ("account-first-time", "first-time-recipients", 50),
        ("account-surge", "first-time-recipients", 20),
    ]
    assert all(limit.is_of_accounts for limit in DEFAULT_LIMITS)
