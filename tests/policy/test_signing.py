"""Which keys sign: tables and rights by labels, clients by address, and what the DNS shows."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping

import pytest

from mailward.model.message import Envelope
from mailward.model.results import Publication
from mailward.policy.signing import (
    MAX_SIGNATURES,
    Choice,
    KeyRef,
    Rights,
    Selection,
    SigningPolicy,
    SigningTable,
    Unsigned,
    choose_published,
    select,
)


def key(signing_domain: str, selector: str = "2026a") -> KeyRef:
    return KeyRef(signing_domain, selector, f"/keys/{signing_domain or 'any'}/{selector}.pem")


TABLE = SigningTable(
    {
        "example.com": (key("example.com"), key("example.com", "2026a-ed")),
        ".example.com": (key("example.com", "below"),),
        "shop.example.com": (key("shop.example.com"),),
        ".eu.example.com": (key("eu.example.com"),),
        ".net": (key("hoster.example"),),
        "*": (key(""),),
    }
)


@pytest.mark.parametrize(
    ("author_domain", "found"),
    [
        pytest.param("example.com", [("example.com", "2026a"), ("example.com", "2026a-ed")], id="the domain itself"),
        pytest.param("a.example.com", [("example.com", "below")], id="below it"),
        pytest.param("a.b.c.example.com", [("example.com", "below")], id="far below it"),
        pytest.param("shop.example.com", [("shop.example.com", "2026a")], id="a subdomain with an entry of its own"),
        pytest.param(
            "a.shop.example.com", [("example.com", "below")], id="below an entry that stands for itself alone"
        ),
        pytest.param("a.eu.example.com", [("eu.example.com", "2026a")], id="the nearest parent wins"),
        pytest.param("eu.example.com", [("example.com", "below")], id="a dot-name does not hold for the name itself"),
        pytest.param(
            "notexample.com", [("notexample.com", "2026a")], id="a string suffix is no parent: * signs as itself"
        ),
        pytest.param("any.net", [("hoster.example", "2026a")], id="below a top-level domain"),
        pytest.param("net", [("net", "2026a")], id="* where the rest does not match"),
    ],
)
def test_the_most_specific_name_has_the_keys(author_domain: str, found: list[tuple[str, str]]) -> None:
    assert [(ref.signing_domain, ref.selector) for ref in TABLE.lookup(author_domain)] == found


def test_a_domain_in_no_table_has_no_key() -> None:
    table = SigningTable({"example.com": (key("example.com"),)})
    for stranger in ("example.org", "a.example.com", "com", "xexample.com", "example.com.evil.example"):
        assert table.lookup(stranger) == ()


@pytest.mark.parametrize(
    ("author_domain", "name"),
    [
        pytest.param("example.com", "example.com", id="itself"),
        pytest.param("a.b.example.com", ".example.com", id="below"),
        pytest.param("example.org", "", id="none"),
    ],
)
def test_a_domain_is_known_by_the_name_that_matches(author_domain: str, name: str) -> None:
    keys = (key("example.com"),)
    assert SigningTable({"example.com": keys, ".example.com": keys}).name_of(author_domain) == name


def test_the_rest_is_known_by_its_star() -> None:
    assert SigningTable({"*": (key("example.com"),)}).name_of("any.example") == "*"


class CountingTable(Mapping[str, tuple[KeyRef, ...]]):
    """A table that counts how often it is asked, and may not be walked through."""

    def __init__(self, names: list[str]) -> None:
        self._names = {name: (key(name.lstrip(".*")),) for name in names}
        self.lookups = 0

    def __getitem__(self, name: str) -> tuple[KeyRef, ...]:
        self.lookups += 1
        return self._names[name]

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("the whole table was walked through")

    def __len__(self) -> int:
        raise AssertionError("the whole table was counted")


@pytest.mark.parametrize("author_domain", ["d7.example", "a.b.d7.example", "a.b.c.stranger.test"])
def test_ten_thousand_domains_cost_as_many_look_ups_as_one(author_domain: str) -> None:
    small = CountingTable(["d7.example"])
    large = CountingTable([f"d{number}.example" for number in range(10_000)])
    assert SigningTable(small).lookup(author_domain) == SigningTable(large).lookup(author_domain)
    assert small.lookups == large.lookups <= author_domain.count(".") + 2


RIGHTS = Rights(
    {
        "alice@example.com": frozenset({"example.com"}),
        "@example.net": frozenset({"example.net"}),
        "carol@example.net": frozenset({"example.org"}),
        "relay": frozenset({"*"}),
    }
)


@pytest.mark.parametrize(
    ("login", "author_domain", "may"),
    [
        pytest.param("alice@example.com", "example.com", True, id="the listed domain"),
        pytest.param("Alice@EXAMPLE.com", "example.com", True, id="logins fold their case"),
        pytest.param("alice@example.com", "a.b.example.com", True, id="a domain stands for all below it, too"),
        pytest.param("alice@example.com", "com", False, id="but for nothing above it"),
        pytest.param("alice@example.com", "notexample.com", False, id="a string suffix is no subdomain"),
        pytest.param("dave@example.net", "example.net", True, id="every login of a domain"),
        pytest.param("DAVE@Example.Net", "a.example.net", True, id="every login of a domain, case folded"),
        pytest.param("dave@a.example.net", "example.net", False, id="@domain is not for its subdomains"),
        pytest.param("dave@evilexample.net", "example.net", False, id="@domain is no string suffix"),
        pytest.param('"x@example.net"@evil.example', "example.net", False, id="the last at sign counts, against it"),
        pytest.param('"x@evil.example"@example.net', "example.net", True, id="the last at sign counts, and for it"),
        pytest.param("carol@example.net", "example.org", True, id="a login's own rights"),
        pytest.param("carol@example.net", "example.net", True, id="and those of its domain beside them"),
        pytest.param("dave@example.net", "example.org", False, id="another login's rights are not mine"),
        pytest.param("relay", "any.example", True, id="* stands for every domain"),
        pytest.param("mallory", "example.com", False, id="a login nobody listed"),
        pytest.param("example.net", "example.net", False, id="a login without an at sign is no domain"),
    ],
)
def test_a_login_speaks_for_its_domains(login: str, author_domain: str, may: bool) -> None:
    assert RIGHTS.permit(login, author_domain) is may


POLICY = SigningPolicy(
    TABLE,
    tuple(ipaddress.ip_network(text) for text in ("192.0.2.0/24", "2001:db8::/32", "::1")),
    RIGHTS,
)


@pytest.mark.parametrize(
    ("envelope", "is_ours"),
    [
        pytest.param(
            Envelope(login="alice@example.com", client_address="198.51.100.1"), True, id="logged in, anywhere"
        ),
        pytest.param(Envelope(login="alice@example.com"), True, id="logged in, no address"),
        pytest.param(Envelope(client_address="192.0.2.255"), True, id="listed IPv4"),
        pytest.param(Envelope(client_address="192.0.3.0"), False, id="the address after the network"),
        pytest.param(Envelope(client_address="2001:db8:ffff::1"), True, id="listed IPv6"),
        pytest.param(Envelope(client_address="2001:db9::1"), False, id="not listed IPv6"),
        pytest.param(Envelope(client_address="::1"), True, id="a single address"),
        pytest.param(Envelope(client_address="::ffff:192.0.2.1"), True, id="IPv4-mapped IPv6"),
        pytest.param(Envelope(client_address="::ffff:c000:0201"), True, id="IPv4-mapped IPv6 in hexadecimal"),
        pytest.param(Envelope(client_address="::ffff:198.51.100.1"), False, id="IPv4-mapped IPv6 not listed"),
        pytest.param(Envelope(), False, id="no address at all"),
    ],
)
def test_whose_mail_is_signed(envelope: Envelope, is_ours: bool) -> None:
    assert POLICY.accepts_client(envelope) is is_ours


LOGGED_IN = Envelope(login="alice@example.com")
NETWORK_CLIENT = Envelope(client_address="192.0.2.1")
SMALL_TABLE = SigningTable({name: (key(name),) for name in ("example.com", "example.net", "example.org")})


@pytest.mark.parametrize(
    ("envelope", "author_domains", "selection"),
    [
        pytest.param(LOGGED_IN, [], Selection((), Unsigned.NO_AUTHOR), id="no author"),
        pytest.param(LOGGED_IN, ["example.com"], Selection((key("example.com"),)), id="its own domain"),
        pytest.param(LOGGED_IN, ["example.net"], Selection((), Unsigned.NO_RIGHT), id="somebody else's domain"),
        pytest.param(
            LOGGED_IN,
            ["example.com", "example.net"],
            Selection((), Unsigned.NO_RIGHT),
            id="two authors, a right for the first",
        ),
        pytest.param(
            LOGGED_IN,
            ["example.net", "example.com"],
            Selection((), Unsigned.NO_RIGHT),
            id="two authors, a right for the last",
        ),
        pytest.param(
            NETWORK_CLIENT,
            ["example.net", "stranger.test", "example.com"],
            Selection((key("example.net"), key("example.com"))),
            id="each author domain that has keys signs",
        ),
        pytest.param(NETWORK_CLIENT, ["stranger.test"], Selection((), Unsigned.NO_KEY), id="a domain without keys"),
        pytest.param(
            Envelope(login="relay"), ["stranger.test"], Selection((), Unsigned.NO_KEY), id="every right, and no key"
        ),
    ],
)
def test_selection(envelope: Envelope, author_domains: list[str], selection: Selection) -> None:
    assert select(SigningPolicy(SMALL_TABLE, POLICY.networks, RIGHTS), envelope, author_domains) == selection


def test_without_a_logins_file_every_login_may_sign_for_every_domain() -> None:
    policy = SigningPolicy(SMALL_TABLE, (), None)
    assert select(policy, Envelope(login="mallory"), ["example.org"]) == Selection((key("example.org"),))


def test_one_key_of_two_author_domains_signs_once() -> None:
    shared = key("hoster.example")
    policy = SigningPolicy(SigningTable({"example.com": (shared,), "example.net": (shared,)}), ())
    assert select(policy, NETWORK_CLIENT, ["example.com", "example.net"]) == Selection((shared,))


def test_a_message_gets_no_more_signatures_than_verifiers_read() -> None:
    keys = tuple(key("example.com", f"s{number}") for number in range(MAX_SIGNATURES + 1))
    policy = SigningPolicy(SigningTable({"example.com": keys}), ())
    assert select(policy, NETWORK_CLIENT, ["example.com"]) == Selection(keys[:MAX_SIGNATURES])


OLD, NEW, OTHER = key("example.com", "old"), key("example.com", "new"), key("example.net")
IN, OUT, WRONG, AWAY = Publication.PUBLISHED, Publication.MISSING, Publication.DIFFERENT, Publication.UNKNOWN


@pytest.mark.parametrize(
    ("states", "signing", "unpublished"),
    [
        pytest.param({OLD: IN, NEW: IN}, [OLD, NEW], [], id="both published: both sign"),
        pytest.param({OLD: IN, NEW: OUT}, [OLD], [], id="a new key waits for its record"),
        pytest.param({OLD: OUT, NEW: IN}, [NEW], [], id="an old key whose record is gone steps back"),
        pytest.param({OLD: WRONG, NEW: IN}, [NEW], [], id="a wrong record steps back"),
        pytest.param({OLD: AWAY, NEW: AWAY}, [OLD, NEW], [], id="the DNS is away: as if published"),
        pytest.param({OLD: OUT, NEW: AWAY}, [NEW], [], id="unknown is better than missing"),
        pytest.param({OLD: OUT, NEW: WRONG}, [OLD], ["example.com"], id="none is good: the first signs all the same"),
        pytest.param({OLD: OUT, OTHER: IN}, [OLD, OTHER], ["example.com"], id="domains do not stand in for each other"),
        pytest.param(
            {OLD: OUT, NEW: OUT, OTHER: OUT},
            [OLD, OTHER],
            ["example.com", "example.net"],
            id="none of two domains is good",
        ),
        pytest.param({}, [], [], id="no keys"),
    ],
)
def test_published_keys_go_first(
    states: dict[KeyRef, Publication], signing: list[KeyRef], unpublished: list[str]
) -> None:
    assert choose_published(list(states), states.__getitem__) == Choice(tuple(signing), tuple(unpublished))


def test_the_state_of_each_key_is_asked_for_once() -> None:
    asked: list[KeyRef] = []

    def state_of(ref: KeyRef) -> Publication:
        asked.append(ref)
        return Publication.MISSING

    choose_published([OLD, OTHER, NEW], state_of)
    assert sorted(asked) == sorted([OLD, NEW, OTHER])
