"""Wrong passwords: who is slowed, who is denied, and who must never be, whatever somebody else does."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailward.adapters.memory_counters import MemoryLimits
from mailward.model.accounts import Account, Suspension
from mailward.model.limits import Outcome, Window
from mailward.policy.logins import (
    Answer,
    Attempt,
    Cause,
    LoginRules,
    Result,
    answer,
    look,
    networks_beyond,
    report,
)

HOUR = 3600.0
ALICE, BOB = "alice@example.com", "bob@example.com"
HOME, NEIGHBOUR, ELSEWHERE = "192.0.2.7", "192.0.2.99", "198.51.100.7"
RIGHT = "right"


class World:
    """Logins one after the other, as Dovecot asks and reports them; every password but RIGHT is wrong."""

    def __init__(self, rules: LoginRules | None = None) -> None:
        self.rules = rules or LoginRules()
        self.now = 1_800_000_000.0
        self.store = MemoryLimits()

    def allow(self, login: str, client: str, password: str = RIGHT) -> Answer:
        attempt = Attempt(login, password, client)
        (outcome,) = self.store.charge([look(attempt, self.rules)], self.now)
        return answer(attempt, None, outcome, self.rules)

    def log_in(self, login: str, client: str, password: str = RIGHT) -> Answer:
        """Ask, try if that is allowed, and report; return what was answered first."""
        answered = self.allow(login, client, password)
        result = Result.REFUSED if answered.status < 0 else Result.SUCCEEDED if password == RIGHT else Result.FAILED
        self.networks = self.report(login, client, password, result)
        return answered

    def report(self, login: str, client: str, password: str, result: Result) -> int:
        attempt = Attempt(login, password, client)
        charging = report(attempt, result, self.rules)
        outcome = self.store.charge([charging], self.now)[0] if charging.charges else None
        return networks_beyond(attempt, charging, outcome, self.rules)

    def guess(self, login: str, client: str, times: int, *, start: int = 0) -> list[int]:
        """Try so many different wrong passwords; return the answers."""
        return [self.log_in(login, client, f"wrong {number}").status for number in range(start, start + times)]


def world_of(*logins: tuple[str, str], rules: LoginRules | None = None) -> World:
    """Return a world in which these logins have succeeded from these addresses."""
    world = World(rules)
    for login, client in logins:
        world.log_in(login, client)
    return world


def test_guessing_is_slowed_ever_more_and_then_denied() -> None:
    world = world_of((ALICE, HOME))
    answers = world.guess(ALICE, ELSEWHERE, 12)
    assert answers == [0, 0, 0, 0, 1, 2, 3, 3, 4, 5, -1, -1]
    assert world.allow(ALICE, ELSEWHERE).cause is Cause.DENIED_LOGIN


def test_the_owner_logs_in_at_once_from_where_she_has_been_before() -> None:
    world = world_of((ALICE, HOME))
    world.guess(ALICE, ELSEWHERE, 50)
    assert world.log_in(ALICE, HOME) == Answer(0, Cause.ORDINARY)


def test_a_login_that_never_succeeded_has_half_as_many_tries() -> None:
    assert World().guess("nobody", ELSEWHERE, 7) == [0, 0, 2, 3, 4, -1, -1]


def test_the_same_wrong_password_counts_once() -> None:
    world = world_of((ALICE, HOME))
    assert {world.log_in(ALICE, ELSEWHERE, "old").status for _ in range(200)} == {0}


def test_the_same_password_of_two_logins_counts_twice_for_their_network() -> None:
    rules = LoginRules(network_failures=(Window(10, HOUR),))
    world = World(rules)
    answers = [world.log_in(f"login{number}", ELSEWHERE, "123456").status for number in range(7)]
    assert answers[-1] == -1


def test_a_phone_with_an_old_password_locks_out_nobody() -> None:
    world = world_of((ALICE, HOME))
    for _ in range(500):
        assert world.log_in(ALICE, ELSEWHERE, "old").status == 0
        world.now += 10
    assert world.allow(ALICE, HOME).status == 0
    assert world.allow(ALICE, ELSEWHERE).status == 0
    assert world.allow(BOB, ELSEWHERE).status == 0


@pytest.mark.parametrize("most", [2, 3, 4, 10, 200])
def test_one_wrong_password_neither_waits_nor_is_denied_whatever_the_limits(most: int) -> None:
    windows = (Window(most, HOUR),)
    world = World(LoginRules(windows, windows, windows, stranger_times=10))
    world.log_in(ALICE, ELSEWHERE, "old")
    assert world.allow(ALICE, ELSEWHERE).status == world.allow(BOB, ELSEWHERE).status == 0


def test_many_networks_guessing_slow_an_owner_at_a_new_place_and_lock_her_out_nowhere() -> None:
    world = world_of((ALICE, HOME))
    for number in range(200):
        world.guess(ALICE, f"10.{number}.0.1", 9, start=9 * number)
    assert world.allow(ALICE, HOME) == Answer(0, Cause.ORDINARY)
    assert world.log_in(ALICE, "203.0.113.5") == Answer(5, Cause.SLOWED)
    assert world.allow(ALICE, "203.0.113.5").status == 0


def test_a_network_that_guesses_at_many_logins_is_denied_but_not_to_those_who_have_logged_in_from_there() -> None:
    world = world_of((ALICE, HOME), (BOB, ELSEWHERE))
    for number in range(60):
        world.guess(f"login{number}", NEIGHBOUR, 1)
    assert world.allow("another", NEIGHBOUR).cause is Cause.DENIED_NETWORK
    assert world.allow(ALICE, HOME) == Answer(0, Cause.ORDINARY)
    assert world.allow(BOB, NEIGHBOUR).status in range(6), "an owner who is new there is at most slowed"


def test_guessing_from_the_owners_own_network_comes_to_an_end_too() -> None:
    world = world_of((ALICE, HOME))
    answers = world.guess(ALICE, NEIGHBOUR, 120)
    assert answers.index(-1) == 100
    assert world.allow(ALICE, ELSEWHERE).status in range(6), "she is denied there alone"


@pytest.mark.parametrize("client", ["127.0.0.1", "::1", "203.0.113.10", "", "unix:/run/x"])
def test_what_speaks_for_many_is_never_denied(client: str) -> None:
    rules = LoginRules(uncounted=(*LoginRules().uncounted, ipaddress.ip_network("203.0.113.10")))
    world = world_of((BOB, client), rules=rules)
    assert -1 not in world.guess(ALICE, client, 200)
    assert world.allow(BOB, client) == Answer(0, Cause.ORDINARY)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        pytest.param("192.0.2.1", "192.0.2.254", True, id="the same /24"),
        pytest.param("192.0.2.1", "192.0.3.1", False, id="another /24"),
        pytest.param("192.0.2.1", "::ffff:192.0.2.9", True, id="a mapped address"),
        pytest.param("2001:db8::1", "2001:db8::ffff:1:2:3", True, id="the same /64"),
        pytest.param("2001:db8::1", "2001:db8:0:1::1", False, id="another /64"),
    ],
)
def test_a_network_is_a_24_or_a_64(one: str, other: str, is_same: bool) -> None:
    world = World()
    world.guess(ALICE, one, 10)
    assert (world.allow(ALICE, other).status == -1) is is_same


def test_a_login_is_the_same_in_any_case() -> None:
    world = World()
    world.guess(ALICE.upper(), ELSEWHERE, 10)
    assert world.allow(ALICE, ELSEWHERE).status == -1


def test_a_denial_ends_however_often_it_is_asked() -> None:
    world = world_of((ALICE, HOME))
    world.guess(ALICE, ELSEWHERE, 10)
    for _ in range(61):
        last = world.log_in(ALICE, ELSEWHERE, "once more")
        world.now += 60
    assert last.status == 0


@pytest.mark.parametrize("result", [Result.REFUSED, Result.BROKEN])
def test_what_says_nothing_of_the_password_is_not_counted(result: Result) -> None:
    world = World()
    for number in range(50):
        world.report(ALICE, ELSEWHERE, f"wrong {number}", result)
    assert world.allow(ALICE, ELSEWHERE) == Answer(0, Cause.ORDINARY)


def test_a_suspended_account_is_denied_whatever_was_counted_or_not() -> None:
    account = Account(ALICE, suspension=Suspension(0.0, "root", "stolen"))
    attempt = Attempt(ALICE, RIGHT, HOME)
    for outcome in (None, MemoryLimits().charge([look(attempt, LoginRules())], 1e9)[0]):
        answered = answer(attempt, account, outcome, LoginRules())
        assert (answered.status, answered.cause) == (-1, Cause.SUSPENDED)
        assert "suspended" in answered.text


def test_where_nobody_could_look_anybody_may_try() -> None:
    assert answer(Attempt(ALICE, RIGHT, HOME), None, None, LoginRules()) == Answer(0, Cause.UNKNOWN)


def test_a_login_from_more_networks_than_one_person_has_is_told() -> None:
    world = World()
    told = []
    for number in range(12):
        world.log_in(ALICE, f"10.0.{number}.1")
        told.append(world.networks)
    assert told == [0] * 10 + [11, 12]
    world.log_in(ALICE, "10.0.0.1")
    assert world.networks == 12, "as long as there are too many"
    world.now += 86401
    world.log_in(ALICE, "10.0.0.1")
    assert world.networks == 0


@pytest.mark.parametrize(
    ("rules", "clients"),
    [
        pytest.param(LoginRules(), [f"192.0.2.{number}" for number in range(50)], id="addresses of one network"),
        pytest.param(LoginRules(), [f"2001:db8:0:{number:x}::1" for number in range(50)], id="a phone at one carrier"),
        pytest.param(
            LoginRules(shared=frozenset((ALICE,))), [f"10.0.{number}.1" for number in range(50)], id="a shared login"
        ),
        pytest.param(LoginRules(networks=()), [f"10.0.{number}.1" for number in range(50)], id="no limit"),
        pytest.param(LoginRules(), [f"127.0.{number}.1" for number in range(50)], id="this machine"),
    ],
)
def test_one_person_is_not_taken_for_many(rules: LoginRules, clients: list[str]) -> None:
    world = World(rules)
    for client in clients:
        world.log_in(ALICE, client)
        assert world.networks == 0


def test_a_look_changes_nothing_and_is_one_charging() -> None:
    world = world_of((ALICE, HOME))
    before = list(world.store.all_counters())
    for number in range(100):
        world.allow(ALICE, ELSEWHERE, f"wrong {number}")
    assert list(world.store.all_counters()) == before
    charges = look(Attempt(ALICE, RIGHT, ELSEWHERE), world.rules).charges
    assert all(charge.cost == 0 for charge in charges)
    assert len({charge.key for charge in charges}) == len(charges)


ANYWHERE_ELSE = st.integers(0, 40).map(lambda number: f"10.{number}.0.1")
GUESS = st.tuples(st.sampled_from([ALICE, BOB, "root"]), ANYWHERE_ELSE, st.integers(0, 5000), st.integers(0, 900))


@settings(max_examples=40)
@given(st.lists(GUESS, max_size=150))
def test_nobody_elsewhere_can_lock_an_owner_out(guesses: list[tuple[str, str, int, int]]) -> None:
    world = world_of((ALICE, HOME))
    for login, client, password, later in guesses:
        world.log_in(login, client, f"wrong {password}")
        world.now += later
    assert world.allow(ALICE, HOME) == Answer(0, Cause.ORDINARY)
    assert world.allow(ALICE, "203.0.113.5").status in range(world.rules.tarpit + 1)


@settings(max_examples=40)
@given(st.lists(st.tuples(GUESS, st.booleans()), max_size=150))
def test_whatever_was_tried_all_is_as_before_a_window_later(
    attempts: list[tuple[tuple[str, str, int, int], bool]],
) -> None:
    world = World()
    for (login, client, password, later), is_right in attempts:
        answered = world.log_in(login, client, RIGHT if is_right else f"wrong {password}")
        assert answered.status in range(-1, world.rules.tarpit + 1)
        world.now += later
    world.now += HOUR + 1
    for (login, client, _, _), _ in attempts:
        assert world.allow(login, client) == Answer(0, Cause.ORDINARY)


@settings(max_examples=150)
@given(st.text(max_size=400), st.text(max_size=80), st.text(max_size=80))
def test_whatever_dovecot_says_gives_printable_keys_and_an_answer(login: str, password: str, remote: str) -> None:
    attempt = Attempt(login, password, remote)
    for charging in (look(attempt, LoginRules()), *(report(attempt, one, LoginRules()) for one in Result)):
        for charge in charging.charges:
            for text in (charge.key.owner, charge.key.limit, charge.key.rest):
                assert len(text) <= 340
                assert text.isascii()
                assert text.isprintable()
                assert " " not in text
        outcome: Outcome = MemoryLimits().charge([charging], 1.8e9)[0]
        assert networks_beyond(attempt, charging, outcome, LoginRules()) == 0
    assert (
        answer(attempt, None, MemoryLimits().charge([look(attempt, LoginRules())], 1.8e9)[0], LoginRules()).status == 0
    )
