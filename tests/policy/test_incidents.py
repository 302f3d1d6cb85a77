"""An account's way through an incident: opened once, told once each, suspended, resumed, closed, forgotten; all on record."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailward.model.accounts import AUTOMATIC, Account, AuditEntry, Raise
from mailward.policy import incidents
from mailward.policy.incidents import LOGIN_NETWORKS, MAX_RAISES, MAX_TAKEN, TELLING_SECONDS

START = 1767225600.0
QUIET, SETTLE = 3600.0, 10.0
ALICE = Account("alice@example.com")


class Story:
    """An account, what is on record of it, and what was told."""

    def __init__(self) -> None:
        self.account = ALICE
        self.now = START
        self.record: list[AuditEntry] = []
        self.told: list[str] = []

    def take(self, step: incidents.Step) -> None:
        self.account, entries = step
        self.record += entries
        assert all(entry.account == ALICE.name and entry.at == self.now for entry in entries)

    def hit(self, hits: int = 1, suspend_after: int = 0, cause: str = "recipients") -> None:
        self.take(incidents.hit(self.account, cause, hits, suspend_after, self.now))

    def step(self) -> None:
        self.take(incidents.step(self.account, QUIET, self.now))

    def suspend(self) -> None:
        self.take(incidents.suspend(self.account, "root", "stolen", self.now))

    def resume(self) -> None:
        self.take(incidents.resume(self.account, "root", "new password", self.now))

    def tell(self) -> None:
        """Tell what there is to tell, as a policyd does: take it, tell, note it."""
        while what := incidents.to_tell(self.account, SETTLE, self.now):
            self.account = incidents.take_telling(self.account, self.now)
            assert incidents.to_tell(self.account, SETTLE, self.now) == ""
            self.told.append(what)
            self.account = incidents.told(self.account, what)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.step()
        self.tell()

    def actions(self) -> list[str]:
        return [entry.action for entry in self.record]


@pytest.fixture
def story() -> Story:
    return Story()


def test_the_first_hit_opens_an_incident_and_the_others_are_counted(story: Story) -> None:
    story.hit()
    story.hit(3)
    incident = story.account.incident
    assert incident is not None
    assert (incident.cause, incident.hits, incident.opened_at) == ("recipients", 4, START)
    assert story.actions() == ["incident-opened"]
    assert story.record[0].who == AUTOMATIC


def test_it_is_told_once_when_it_has_settled_and_once_when_it_closes(story: Story) -> None:
    story.hit()
    story.tell()
    assert story.told == []
    for _ in range(20):
        story.hit(5)
        story.advance(SETTLE)
    assert story.told == ["opened"]
    story.advance(QUIET - SETTLE - 1)
    assert story.told == ["opened"]
    story.advance(1)
    assert story.told == ["opened", "closed"]
    assert story.account.is_plain
    assert story.actions() == ["incident-opened", "incident-closed"]


def test_a_suspension_within_seconds_is_told_with_the_opening(story: Story) -> None:
    story.hit(1, suspend_after=50)
    story.advance(1)
    story.hit(49, suspend_after=50)
    assert story.account.suspension is not None
    assert story.account.suspension.by == AUTOMATIC
    story.advance(SETTLE)
    story.hit(100, suspend_after=50)
    story.advance(QUIET)
    assert story.told == ["suspended"]
    assert story.actions() == ["incident-opened", "suspend"]


def test_a_suspension_that_comes_later_is_told_once_too(story: Story) -> None:
    story.hit()
    story.advance(SETTLE)
    story.hit(50, suspend_after=50)
    story.advance(1)
    story.advance(SETTLE)
    assert story.told == ["opened", "suspended"]


@pytest.mark.parametrize(("hits", "suspend_after"), [(49, 50), (10**6, 0)], ids=["too few hits", "never"])
def test_what_suspends_nobody(story: Story, hits: int, suspend_after: int) -> None:
    story.hit(hits, suspend_after)
    assert story.account.suspension is None


def test_what_refused_nothing_brings_nobody_nearer_to_suspension(story: Story) -> None:
    story.hit(1000, suspend_after=0, cause="watch")
    story.hit(49, suspend_after=50)
    assert story.account.suspension is None
    story.hit(1000, suspend_after=0, cause="watch")
    assert story.account.suspension is None
    story.hit(1, suspend_after=50)
    assert story.account.suspension is not None
    assert story.account.suspension.why == "limit recipients reached, 50 refused"
    assert story.account.incident is not None
    assert (story.account.incident.hits, story.account.incident.refused) == (2050, 50)


def test_a_suspended_account_stays_so_however_quiet_it_is(story: Story) -> None:
    story.hit(1, suspend_after=1)
    for _ in range(5):
        story.advance(30 * 86400.0)
    assert story.account.suspension is not None
    assert story.account.incident is not None
    assert not story.account.incident.closed_at
    assert story.told == ["suspended"]


def test_a_resumed_account_starts_at_no_hits_and_its_incident_closes_when_it_stays_quiet(story: Story) -> None:
    story.hit(50, suspend_after=50)
    story.advance(5 * QUIET)
    story.resume()
    assert story.account.suspension is None
    story.hit(49, suspend_after=50)
    assert story.account.suspension is None
    story.advance(QUIET)
    assert story.told == ["suspended", "closed"]
    assert story.account.is_plain
    entry = next(entry for entry in story.record if entry.action == "resume")
    assert (entry.who, entry.why, entry.after) == ("root", "new password", "active")
    assert "recipients" in entry.before


def test_who_is_suspended_again_after_it_was_resumed_is_told_again(story: Story) -> None:
    for _ in range(2):
        story.hit(50, suspend_after=50)
        story.advance(SETTLE)
        story.resume()
    assert story.told == ["suspended", "suspended"]


def test_an_operator_who_suspends_without_an_incident_need_not_be_told(story: Story) -> None:
    story.suspend()
    story.suspend()
    story.advance(SETTLE)
    assert story.told == []
    assert story.actions() == ["suspend"]
    story.resume()
    story.resume()
    assert story.account.is_plain
    assert story.actions() == ["suspend", "resume"]


def test_one_that_flares_up_before_its_closing_was_told_goes_on(story: Story) -> None:
    story.hit()
    story.advance(SETTLE)
    story.now += QUIET
    story.step()
    story.hit()
    story.advance(SETTLE)
    assert story.told == ["opened"]
    story.advance(QUIET)
    assert story.told == ["opened", "closed"]


def test_one_that_is_hit_while_its_closing_is_told_is_told_anew(story: Story) -> None:
    story.hit()
    story.advance(SETTLE)
    story.now += QUIET
    story.step()
    story.account = incidents.take_telling(story.account, story.now)
    story.hit()
    story.account = incidents.told(story.account, "closed")
    story.advance(SETTLE)
    assert story.told == ["opened", "opened"]


def test_what_one_has_taken_to_tell_another_tells_only_when_its_time_is_over(story: Story) -> None:
    story.hit()
    story.now += SETTLE
    story.account = incidents.take_telling(story.account, story.now)
    assert incidents.to_tell(story.account, SETTLE, story.now + TELLING_SECONDS - 1) == ""
    assert incidents.to_tell(story.account, SETTLE, story.now + TELLING_SECONDS) == "opened"


def test_what_was_taken_by_a_clock_that_was_wrong_is_told(story: Story) -> None:
    story.hit()
    story.account = incidents.take_telling(story.account, story.now + MAX_TAKEN + 1e6)
    assert incidents.to_tell(story.account, SETTLE, story.now + SETTLE) == "opened"


def test_nothing_is_noted_as_told_of_an_account_without_incident() -> None:
    assert incidents.told(ALICE, "opened") == ALICE
    assert incidents.to_tell(ALICE, SETTLE, START) == ""


def test_many_networks_tighten_the_limits_until_the_incident_is_over(story: Story) -> None:
    for networks in (11, 12):
        story.take(incidents.many_networks(story.account, networks, story.now))
    assert story.account.is_tightened
    assert story.account.incident is not None
    assert story.account.incident.cause == LOGIN_NETWORKS
    assert story.actions() == ["incident-opened", "tighten"]
    story.advance(SETTLE)
    story.advance(QUIET)
    assert story.told == ["opened", "closed"]
    assert story.account.is_plain


def test_resuming_gives_an_account_its_whole_limits_back(story: Story) -> None:
    story.take(incidents.many_networks(story.account, 11, story.now))
    story.hit(1, suspend_after=1)
    story.resume()
    assert not story.account.is_tightened


def test_a_raise_takes_the_place_of_one_for_the_same_and_ends_by_itself(story: Story) -> None:
    first, second = Raise(1000, 3600.0, START + 60), Raise(2000, 3600.0, START + 120)
    other = Raise(50, 3600.0, START + 1000, "account-surge")
    for raised in (first, other, second):
        story.take(incidents.raise_limit(story.account, raised, "root", "newsletter", story.now))
    assert set(story.account.raises) == {second, other}
    assert story.record[2].before == incidents.shown_raise(first)
    story.advance(119)
    assert set(story.account.raises) == {second, other}
    story.advance(1)
    assert story.account.raises == (other,)
    assert story.actions() == ["raise", "raise", "raise", "raise-ended"]
    story.take(incidents.end_raises(story.account, "root", "enough", story.now))
    assert story.account.is_plain
    assert story.record[-1].before == incidents.shown_raise(other)


def test_raises_are_bounded_and_what_is_there_can_still_be_changed(story: Story) -> None:
    for number in range(MAX_RAISES):
        story.take(incidents.raise_limit(story.account, Raise(1, number, START + 9), "root", "", story.now))
    with pytest.raises(ValueError, match="raises"):
        incidents.raise_limit(story.account, Raise(1, MAX_RAISES, START + 9), "root", "", story.now)
    story.take(incidents.raise_limit(story.account, Raise(2, 0, START + 9), "root", "", story.now))
    assert len(story.account.raises) == MAX_RAISES


def test_where_nothing_changes_nothing_is_recorded() -> None:
    assert incidents.step(ALICE, QUIET, START) == (ALICE, ())
    assert incidents.resume(ALICE, "root", "", START) == (ALICE, ())
    assert incidents.end_raises(ALICE, "root", "", START) == (ALICE, ())
    suspended, _ = incidents.suspend(ALICE, "root", "stolen", START)
    assert incidents.suspend(suspended, "eve", "again", START + 1) == (suspended, ())


def test_an_incident_of_a_clock_that_was_wrong_closes(story: Story) -> None:
    story.hit()
    assert story.account.incident is not None
    story.account = replace(story.account, incident=replace(story.account.incident, last_hit_at=START + 1e9))
    story.advance(SETTLE)
    assert story.told == ["opened", "closed"]


EVENTS = st.lists(
    st.sampled_from(["hit", "hits", "suspend", "resume", "networks"]) | st.sampled_from([0.0, 1.0, 10.0, 3600.0]),
    max_size=40,
)


@settings(max_examples=200)
@given(EVENTS)
def test_in_any_order_everything_is_told_and_recorded_once(events: list[str | float]) -> None:
    story = Story()
    for event in events:
        match event:
            case "hit":
                story.hit()
            case "hits":
                story.hit(50, suspend_after=50)
            case "suspend":
                story.suspend()
            case "resume":
                story.resume()
            case "networks":
                story.take(incidents.many_networks(story.account, 11, story.now))
            case _:
                story.advance(float(event))
    story.resume()
    story.advance(SETTLE)
    story.advance(QUIET)
    assert story.account.is_plain
    actions = story.actions()
    assert actions.count("incident-opened") == actions.count("incident-closed")
    assert actions.count("suspend") == actions.count("resume")
    assert story.told.count("closed") <= actions.count("incident-closed")
    assert all(what != "opened" or following != "opened" for what, following in pairwise(story.told))
    assert not story.told or story.told[-1] == "closed"
