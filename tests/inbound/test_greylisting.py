"""One recipient from envelope to ruling: who passes, who is deferred, and what an outage does to nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from mailward.adapters.memory_greylist import MemoryGreylist
from mailward.inbound.greylisting import Aside, Conditions, Incoming, Rules, Ruling
from mailward.model.dns import Answer, AnswerStatus, Failure, Question, failed
from mailward.model.greylist import Entry, EntryKind, Sighting, Triplet, Windows
from mailward.model.message import Envelope
from mailward.model.results import Result
from mailward.policy.dns_lists import Kind, ListFailure, parse_dns_list
from mailward.policy.exemptions import Exemptions, compile_exemptions
from mailward.policy.suspicion import Suspicion

START = 1_800_000_000.0
ALICE, BOB, CAROL = b"alice@example.com", b"bob@our.example", b"carol@our.example"
CLIENT, POOL, STRANGER = "192.0.2.7", "198.51.100.9", "203.0.113.5"
ZONE = {
    "example.com": ("TXT", ["v=spf1 ip4:192.0.2.0/24 ip4:198.51.100.0/24 -all"]),
    "everybody.example": ("TXT", ["v=spf1 +all"]),
    "mail.example.com": ("A", [CLIENT]),
    "7.2.0.192.in-addr.arpa": ("PTR", ["mail.example.com"]),
    "7.2.0.192.white.example": ("A", ["127.0.5.2"]),
    "5.113.0.203.black.example": ("A", ["127.0.0.2"]),
    "9.100.51.198.black.example": ("A", ["127.255.255.254"]),
}


@dataclass
class World:
    """A store, a clock, the DNS of ZONE with failures on top, and what the configuration says."""

    rules: Rules = Rules()
    conditions: Conditions = Conditions(Exemptions())
    zone: Mapping[str, tuple[str, list[str]]] = field(default_factory=lambda: ZONE)
    failures: Mapping[str, Failure] = field(default_factory=dict)
    now: float = START
    is_store_away: bool = False
    store: MemoryGreylist = field(default_factory=MemoryGreylist)
    sighted: list[Triplet] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def ask(self, question: Question) -> Answer:
        self.asked.append(question.name)
        if "*" in self.failures or question.name in self.failures:
            return failed(self.failures.get(question.name) or self.failures["*"])
        kind, records = self.zone.get(question.name, ("", []))
        if kind != question.record_type.value:
            return Answer(AnswerStatus.NODATA if kind else AnswerStatus.NXDOMAIN)
        return Answer(AnswerStatus.FOUND, tuple(record.encode() for record in records), 300)

    def sight(self, triplet: Triplet, windows: Windows, *, correspondent: str = "") -> Sighting | None:
        if self.is_store_away:
            return None
        self.sighted.append(triplet)
        return self.store.sight(triplet, windows, correspondent=correspondent, now=self.now)

    def recalls(self, triplet: Triplet, windows: Windows) -> bool:
        return not self.is_store_away and self.store.recalls(triplet, windows, self.now)

    def incoming(
        self, client: str = CLIENT, mail_from: bytes = ALICE, *, helo: bytes = b"", login: str = ""
    ) -> Incoming:
        envelope = Envelope(client, "unknown", "smtpd", helo or b"mail.example.com", mail_from, login=login)
        return Incoming(self.rules, envelope, self.ask)

    def judge(
        self,
        client: str = CLIENT,
        mail_from: bytes = ALICE,
        recipient: bytes = BOB,
        *,
        helo: bytes = b"",
        login: str = "",
        after: float = 0,
    ) -> Ruling:
        """Judge one recipient of one message, `after` seconds."""
        self.now += after
        return self.incoming(client, mail_from, helo=helo, login=login).judge(recipient, self.conditions, self)


@pytest.fixture
def world() -> World:
    return World()


def shown(ruling: Ruling) -> str:
    return f"{'defer' if ruling.is_deferred else 'pass'} {ruling.reason}"


def test_a_first_sighting_waits_and_its_retry_passes(world: World) -> None:
    first = world.judge()
    assert (shown(first), first.seconds_left, first.is_stranger) == ("defer first-sighting", 60, True)
    early = world.judge(after=20)
    assert (shown(early), early.seconds_left, early.is_stranger) == ("defer too-early", 40, False)
    retry = world.judge(after=45)
    assert (shown(retry), retry.waited) == ("pass retried", 65.0)
    assert shown(world.judge(after=3)) == "pass passed-before"


def test_a_retry_after_the_window_starts_over(world: World) -> None:
    world.judge()
    late = world.judge(after=world.rules.windows.retry_window)
    assert (shown(late), late.seconds_left) == ("defer late-retry", 60)


def test_each_recipient_is_judged_by_itself(world: World) -> None:
    world.judge()
    assert shown(world.judge(after=100)) == "pass retried"
    assert shown(world.judge(recipient=CAROL)) == "defer first-sighting"


def test_a_pools_other_machine_passes_where_spf_passes(world: World) -> None:
    assert world.judge(CLIENT).origin == "example.com"
    assert shown(world.judge(POOL, after=61)) == "pass retried"


def test_another_network_is_another_client_where_spf_does_not_pass(world: World) -> None:
    assert world.judge(STRANGER).origin == "203.0.113.0/24"
    assert shown(world.judge("203.0.114.5", after=61)) == "defer first-sighting"
    assert shown(world.judge("203.0.113.99")) == "pass retried"


@pytest.mark.parametrize(
    ("client", "record", "is_vouched"),
    [
        pytest.param(CLIENT, "ip4:192.0.2.0/24", True, id="a network"),
        pytest.param(CLIENT, "ip4:192.0.0.0/14", True, id="as wide as Microsoft's"),
        pytest.param(CLIENT, "a:mail.example.com/24", True, id="a name's network"),
        pytest.param("2001:db8::7", "ip6:2001:db8::/32", True, id="a provider's IPv6"),
        pytest.param(CLIENT, "+all", False, id="everybody"),
        pytest.param(CLIENT, "ip4:0.0.0.0/0", False, id="all networks"),
        pytest.param(CLIENT, "ip4:0.0.0.0/1 ip4:128.0.0.0/1", False, id="all networks in two halves"),
        pytest.param(CLIENT, "ip4:192.0.0.0/13", False, id="wider than any large sender's"),
        pytest.param("2001:db8::7", "ip6:2001:d00::/24", False, id="several providers' IPv6"),
        pytest.param("::ffff:192.0.2.7", "ip4:192.0.0.0/8", False, id="IPv4 in IPv6"),
        pytest.param(CLIENT, "a:mail.example.com/0", False, id="a name, and all networks"),
        pytest.param(CLIENT, "exists:mail.example.com", False, id="a name that exists"),
        pytest.param(CLIENT, "ptr:example.com", False, id="a name that the client's owner gives it"),
        pytest.param(CLIENT, "include:everybody.example", False, id="everybody in an included record"),
        pytest.param(CLIENT, "redirect=everybody.example", False, id="everybody in a record redirected to"),
    ],
)
def test_a_record_vouches_for_the_networks_that_it_names_and_not_for_everybody(
    world: World, client: str, record: str, is_vouched: bool
) -> None:
    world.zone = {**ZONE, "wide.example": ("TXT", [f"v=spf1 {record}"])}
    ruling = world.judge(client, b"x@wide.example")
    assert ruling.spf is Result.PASS
    assert (ruling.origin == "wide.example") is is_vouched


def test_what_lets_everybody_send_is_not_whitelisted_for_everybody(world: World) -> None:
    for number in range(5):
        for after in (3600, 60):
            world.judge(mail_from=b"x@everybody.example", recipient=b"%d@our.example" % number, after=after)
    assert shown(world.judge(mail_from=b"x@everybody.example")) == "pass whitelisted-origin"
    assert shown(world.judge(STRANGER, b"x@everybody.example")) == "defer first-sighting"


def test_the_null_sender_is_known_by_the_helo_that_spf_vouches_for(world: World) -> None:
    assert world.judge(mail_from=b"", helo=b"example.com").origin == "example.com"
    assert world.judge(mail_from=b"", helo=b"other.example").origin == "192.0.2.0/24"


def test_five_passes_an_hour_apart_whitelist_the_origin(world: World) -> None:
    for number in range(5):
        recipient = b"%d@our.example" % number
        assert shown(world.judge(recipient=recipient, after=3600)) == "defer first-sighting"
        assert shown(world.judge(recipient=recipient, after=60)) == "pass retried"
    assert shown(world.judge(POOL, recipient=CAROL)) == "pass whitelisted-origin"
    assert shown(world.judge(STRANGER, recipient=CAROL)) == "defer first-sighting"


def test_a_correspondent_passes_only_where_spf_vouches(world: World) -> None:
    world.store.record(["alice7@example.com"], 1000.0, START)
    assert shown(world.judge(mail_from=b"alice7@example.com")) == "pass correspondent"
    assert shown(world.judge(STRANGER, mail_from=b"alice7@example.com")) == "defer first-sighting"


def test_a_correspondent_is_that_very_address(world: World) -> None:
    world.store.record(["alice7@example.com"], 1000.0, START)
    assert shown(world.judge(mail_from=b"alice8@example.com")) == "defer first-sighting"
    assert shown(world.judge(mail_from=b"prvs=4521a0b3c1=Alice7@example.com")) == "pass correspondent"


@pytest.mark.parametrize(
    ("exemptions", "expected"),
    [
        pytest.param({"recipients": ["bob@our.example"]}, "pass recipient", id="a recipient who opted out"),
        pytest.param({"senders": ["example.com"]}, "pass sender", id="a listed sender"),
        pytest.param({"non_retrier_names": ["mail.example.com"]}, "defer first-sighting", id="no confirmed name"),
    ],
)
def test_who_is_listed_passes_without_a_question(
    world: World, exemptions: Mapping[str, Sequence[str]], expected: str
) -> None:
    world.conditions = Conditions(compile_exemptions(**exemptions))  # type: ignore[arg-type]
    assert shown(world.judge()) == expected
    assert bool(world.asked) is expected.startswith("defer")


def test_who_logged_in_passes_whatever_is_away_or_denied(world: World) -> None:
    denied = Entry(EntryKind.NETWORK, "192.0.2.0/24", False, START)
    world.conditions = Conditions(Exemptions().with_entries([denied]), Aside.STORE)
    assert shown(world.judge(login="alice")) == "pass authenticated"


def test_who_is_denied_passes_by_its_own_retry_alone(world: World) -> None:
    world.store.record(["alice@example.com"], 1e6, START)
    for number in range(6):
        world.judge(mail_from=b"eve@example.com", recipient=b"%d@our.example" % number, after=3600)
        world.judge(mail_from=b"eve@example.com", recipient=b"%d@our.example" % number, after=60)
    assert shown(world.judge(mail_from=b"eve@example.com")) == "pass whitelisted-origin"
    denied = Entry(EntryKind.SENDER, "example.com", False, START)
    world.conditions = Conditions(Exemptions().with_entries([denied]))
    assert shown(world.judge()) == "defer first-sighting"
    assert shown(world.judge(after=60)) == "pass retried"
    world.failures = {"example.com": Failure.SERVFAIL}
    assert shown(world.judge(recipient=CAROL)) == "defer first-sighting"


@pytest.mark.parametrize("aside", Aside, ids=lambda aside: aside.value)
def test_while_greylisting_stands_aside_everything_passes_and_nothing_is_asked(world: World, aside: Aside) -> None:
    world.conditions = Conditions(Exemptions(), aside)
    assert shown(world.judge()) == f"pass {aside.value}"
    assert not world.asked
    assert not world.sighted


def test_a_store_that_does_not_answer_defers_nobody(world: World) -> None:
    world.is_store_away = True
    assert shown(world.judge()) == "pass store-away"


def test_a_dns_that_goes_away_while_it_is_asked_defers_nobody(world: World) -> None:
    world.failures = {"*": Failure.AWAY}
    assert shown(world.judge()) == "pass dns-away"
    assert not world.sighted


@pytest.mark.parametrize("failure", [Failure.TIMEOUT, Failure.SERVFAIL, Failure.DEADLINE, Failure.BUDGET])
def test_a_domain_that_does_not_answer_is_known_by_its_network(world: World, failure: Failure) -> None:
    world.failures = {"example.com": failure}
    first = world.judge()
    assert (shown(first), first.origin) == ("defer first-sighting", "192.0.2.0/24")
    assert shown(world.judge(after=61)) == "pass retried"


def test_who_passed_by_its_domain_does_not_start_over_when_the_dns_is_slow(world: World) -> None:
    world.judge()
    world.judge(after=61)
    world.failures = {"example.com": Failure.TIMEOUT}
    assert shown(world.judge(after=10)) == "pass recalled"
    assert shown(world.judge(STRANGER)) == "pass recalled"  # who it is nobody can tell just now
    assert shown(world.judge(recipient=CAROL)) == "defer first-sighting"


@pytest.mark.parametrize("failure", [Failure.DEADLINE, Failure.BUDGET])
def test_a_message_that_used_up_its_own_time_is_not_excused_by_that(world: World, failure: Failure) -> None:
    world.judge()
    assert shown(world.judge(after=61)) == "pass retried"
    world.failures = {"example.com": failure}
    assert shown(world.judge(STRANGER, after=10)) == "defer first-sighting"


def test_greylisting_that_tries_itself_out_concerns_the_triplets_that_are_tried(world: World) -> None:
    world.conditions = Conditions(Exemptions(), None, lambda triplet: triplet.rcpt_to == "carol@our.example")
    assert shown(world.judge()) == "pass nobody-returns"
    assert shown(world.judge(recipient=CAROL)) == "defer first-sighting"


WELCOME = (parse_dns_list("white.example=127.0.[0..255].[1..3]", Kind.WELCOME),)
BLOCK = (parse_dns_list("black.example", Kind.BLOCK),)


def test_a_client_on_a_dnswl_passes_and_is_asked_about_once_a_message(world: World) -> None:
    world.rules = Rules(dnswl=WELCOME)
    message = world.incoming()
    assert shown(message.judge(BOB, world.conditions, world)) == "pass dnswl"
    assert shown(message.judge(CAROL, world.conditions, world)) == "pass dnswl"
    assert world.asked.count("7.2.0.192.white.example") == 1
    assert shown(world.judge(STRANGER)) == "defer first-sighting"


@pytest.mark.parametrize(
    ("client", "helo", "expected", "suspicion"),
    [
        pytest.param(CLIENT, b"mail.example.com", "pass unsuspicious", None, id="a name that leads back"),
        pytest.param(CLIENT, b"[203.0.113.9]", "defer first-sighting", Suspicion.HELO, id="another's address in HELO"),
        pytest.param(CLIENT, b"mx.our.example", "defer first-sighting", Suspicion.HELO, id="our own name in HELO"),
        pytest.param("192.0.2.8", b"", "defer first-sighting", Suspicion.NO_NAME, id="no name"),
    ],
)
def test_suspicious_mode_defers_who_looks_odd(
    world: World, client: str, helo: bytes, expected: str, suspicion: Suspicion | None
) -> None:
    world.rules = Rules(is_suspicious_only=True, own_names=frozenset({"mx.our.example"}))
    message = world.incoming(client, helo=helo)
    assert shown(message.judge(BOB, world.conditions, world)) == expected
    assert message.suspicion is suspicion


def named(world: World, client: str) -> Incoming:
    envelope = Envelope(client, "mail.named.example", "smtpd", b"mail.named.example", ALICE)
    return Incoming(world.rules, envelope, world.ask)


def test_suspicious_mode_defers_who_is_on_a_dnsbl(world: World) -> None:
    world.rules = Rules(is_suspicious_only=True, dnsbl=BLOCK)
    assert shown(named(world, STRANGER).judge(BOB, world.conditions, world)) == "defer first-sighting"
    assert shown(named(world, CLIENT).judge(BOB, world.conditions, world)) == "pass unsuspicious"


def test_an_error_answer_of_a_dnsbl_is_no_listing_and_is_told(world: World) -> None:
    world.rules = Rules(is_suspicious_only=True, dnsbl=BLOCK)
    message = named(world, POOL)
    assert shown(message.judge(BOB, world.conditions, world)) == "pass unsuspicious"
    assert message.list_failures == (("black.example", ListFailure.REFUSED),)


def test_suspicious_mode_suspects_nobody_of_whom_the_dns_says_nothing(world: World) -> None:
    world.rules = Rules(is_suspicious_only=True)
    world.failures = {"7.2.0.192.in-addr.arpa": Failure.TIMEOUT}
    assert shown(world.judge()) == "pass unsuspicious"


def test_spf_is_asked_for_once_a_message(world: World) -> None:
    message = world.incoming()
    for recipient in (BOB, CAROL, b"dave@our.example"):
        assert message.judge(recipient, world.conditions, world).is_deferred
    assert world.asked.count("example.com") == 1


def test_suspicious_mode_asks_the_lists_before_a_stranger_can_waste_its_time(world: World) -> None:
    """His address has ten names, and nobody answers for any of them."""
    names = [f"{number}.silent.example" for number in range(10)]
    world.zone = {**ZONE, "5.113.0.203.in-addr.arpa": ("PTR", names), "9.113.0.203.in-addr.arpa": ("PTR", names)}
    world.failures = dict.fromkeys(names, Failure.TIMEOUT)
    world.rules = Rules(is_suspicious_only=True, dnsbl=BLOCK)
    listed = world.incoming(STRANGER)
    assert shown(listed.judge(BOB, world.conditions, world)) == "defer first-sighting"
    assert listed.suspicion is Suspicion.DNSBL
    assert not set(names) & set(world.asked)
    assert shown(world.judge("203.0.113.9")) == "pass unsuspicious"
    assert len(set(names) & set(world.asked)) == 3
