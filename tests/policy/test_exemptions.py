"""Who passes at once: what an entry means, which list wins, and that no octets of a stranger's make it stumble."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailward.model.greylist import Entry, EntryKind
from mailward.policy.exemptions import DENIED, ORDINARY, Exemption, Exemptions, Standing, compile_exemptions
from mailward.policy.subjects import normalize_subject

CLIENT, NAME, SENDER, RECIPIENT = (
    "192.0.2.7",
    "mx1.mail.example.com",
    b"alice@news.example.net",
    b"Bob+lists@example.org",
)


def allow(kind: EntryKind, subject: str) -> Entry:
    return Entry(kind, subject, is_allowed=True, added_at=0.0)


def deny(kind: EntryKind, subject: str) -> Entry:
    return Entry(kind, subject, is_allowed=False, added_at=0.0)


def find(exemptions: Exemptions, *, is_authenticated: bool = False) -> Standing:
    return exemptions.find(CLIENT, NAME, SENDER, RECIPIENT, is_authenticated=is_authenticated)


MEANINGS = [
    pytest.param(EntryKind.NETWORK, "192.0.2.0/24", True, id="a network"),
    pytest.param(EntryKind.NETWORK, "192.0.2.7", True, id="an address"),
    pytest.param(EntryKind.NETWORK, "::ffff:192.0.2.0/120", True, id="a mapped network is IPv4"),
    pytest.param(EntryKind.NETWORK, "192.0.3.0/24", False, id="another network"),
    pytest.param(EntryKind.NETWORK, "2001:db8::/32", False, id="a network of the other family"),
    pytest.param(EntryKind.NAME, "mx1.mail.example.com", True, id="a name"),
    pytest.param(EntryKind.NAME, "Example.COM.", True, id="the domain above a name"),
    pytest.param(EntryKind.NAME, ".example.com", True, id="a domain with a dot before it"),
    pytest.param(EntryKind.NAME, "ample.com", False, id="the end of a label"),
    pytest.param(EntryKind.NAME, "mx2.mail.example.com", False, id="the name beside it"),
    pytest.param(EntryKind.NAME, "mx*.mail.example.com", True, id="how a name begins"),
    pytest.param(EntryKind.NAME, "mx1*.example.com", True, id="how a name begins, further above"),
    pytest.param(EntryKind.NAME, "mail*.example.com", False, id="how another name begins"),
    pytest.param(EntryKind.NAME, "mx*.mx1.mail.example.com", False, id="how a name below it begins"),
    pytest.param(EntryKind.NAME, "mx*.mail.example.org", False, id="how a name of another domain begins"),
    pytest.param(EntryKind.SENDER, "alice@news.example.net", True, id="a sender"),
    pytest.param(EntryKind.SENDER, "<Alice@News.Example.Net>", True, id="a sender as SMTP writes it"),
    pytest.param(EntryKind.SENDER, "example.net", True, id="the domain above a sender's"),
    pytest.param(EntryKind.SENDER, "@news.example.net", True, id="a sender's domain with an at sign"),
    pytest.param(EntryKind.SENDER, "alice@", True, id="a sender's local part"),
    pytest.param(EntryKind.SENDER, "alice@example.net", False, id="a sender of the domain above"),
    pytest.param(EntryKind.SENDER, "bob@example.org", False, id="the recipient as a sender"),
    pytest.param(EntryKind.RECIPIENT, "bob@example.org", True, id="a recipient without the extension"),
    pytest.param(EntryKind.RECIPIENT, "bob+lists@example.org", True, id="a recipient with its extension"),
    pytest.param(EntryKind.RECIPIENT, "bob+other@example.org", False, id="a recipient with another extension"),
    pytest.param(EntryKind.RECIPIENT, "example.org", True, id="a recipient's domain"),
    pytest.param(EntryKind.RECIPIENT, "BOB@", True, id="a recipient's local part"),
    pytest.param(EntryKind.RECIPIENT, "ob@", False, id="the end of a local part"),
]


@pytest.mark.parametrize(("kind", "subject", "is_meant"), MEANINGS)
def test_an_entry_means(kind: EntryKind, subject: str, is_meant: bool) -> None:
    allowed = Exemptions().with_entries([allow(kind, subject)])
    denied = Exemptions().with_entries([deny(kind, subject)])
    assert find(allowed) == (Standing(Exemption.ALLOWED) if is_meant else ORDINARY)
    assert find(denied) == (DENIED if is_meant else ORDINARY)


def test_the_configuration_and_the_entries_mean_the_same() -> None:
    network = ipaddress.ip_network("192.0.2.0/24")
    assert find(compile_exemptions(networks=[network])).exemption is Exemption.NETWORK
    assert find(compile_exemptions(names=["example.com"])).exemption is Exemption.NAME
    assert find(compile_exemptions(senders=["alice@news.example.net"])).exemption is Exemption.SENDER
    assert find(compile_exemptions(recipients=["bob@"])).exemption is Exemption.RECIPIENT
    assert find(compile_exemptions(non_retrier_networks=[network])).exemption is Exemption.NON_RETRIER
    assert find(compile_exemptions(non_retrier_names=["mx*.example.com"])).exemption is Exemption.NON_RETRIER


def test_networks_of_one_size_in_two_lists_are_both_found() -> None:
    one, other = ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("198.51.100.0/24")
    both = compile_exemptions([one], non_retrier_networks=[other])
    assert both.find("192.0.2.1", "unknown", b"", b"").exemption is Exemption.NETWORK
    assert both.find("198.51.100.1", "unknown", b"", b"").exemption is Exemption.NON_RETRIER


def test_names_of_one_domain_in_two_lists_are_both_found() -> None:
    both = compile_exemptions(names=["mx*.example.com"], non_retrier_names=["out*.example.com"])
    assert both.find(CLIENT, "mx1.example.com", b"", b"").exemption is Exemption.NAME
    assert both.find(CLIENT, "out1.example.com", b"", b"").exemption is Exemption.NON_RETRIER


FULL = compile_exemptions(
    [ipaddress.ip_network("192.0.2.0/24")],
    ["example.com"],
    ["example.net"],
    ["example.org"],
    [ipaddress.ip_network("192.0.2.7/32")],
    ["mx1.mail.example.com"],
)


@pytest.mark.parametrize(
    ("kind", "subject"),
    [
        (EntryKind.NETWORK, "192.0.0.0/16"),
        (EntryKind.NAME, "example.com"),
        (EntryKind.SENDER, "example.net"),
        (EntryKind.RECIPIENT, "bob@"),
    ],
)
def test_a_denial_wins_over_every_list_and_over_more_exact_permissions(kind: EntryKind, subject: str) -> None:
    entries = [allow(EntryKind.NETWORK, "192.0.2.7"), deny(kind, subject), allow(EntryKind.SENDER, SENDER.decode())]
    assert find(FULL.with_entries(entries)) == DENIED


def test_who_is_authenticated_passes_even_what_is_denied() -> None:
    denying = FULL.with_entries([deny(EntryKind.SENDER, "example.net")])
    assert find(denying, is_authenticated=True) == Standing(Exemption.AUTHENTICATED)
    assert find(Exemptions(), is_authenticated=True) == Standing(Exemption.AUTHENTICATED)


def test_entries_replace_those_that_were_there() -> None:
    denying = FULL.with_entries([deny(EntryKind.SENDER, "example.net")])
    assert find(denying.with_entries([])) == find(FULL) == Standing(Exemption.NETWORK)


def test_an_entry_that_says_nothing_is_kept_apart() -> None:
    bad = [allow(EntryKind.NETWORK, "no network"), deny(EntryKind.NAME, "a..b"), allow(EntryKind.SENDER, "\ud800@a b")]
    compiled = Exemptions().with_entries([*bad, allow(EntryKind.NETWORK, CLIENT)])
    assert compiled.unreadable == tuple(bad)
    assert find(compiled) == Standing(Exemption.ALLOWED)


@pytest.mark.parametrize("name", ["", "unknown", "UNKNOWN", "[192.0.2.7]", "192.0.2.7", "a..b", "\u00e9" * 300])
def test_a_client_without_a_confirmed_name_has_none(name: str) -> None:
    named = compile_exemptions(names=["example.com"])
    assert named.find(CLIENT, name, b"", b"") == ORDINARY


def test_an_ipv6_client_and_its_mapped_cousin() -> None:
    networks = compile_exemptions([ipaddress.ip_network("2001:db8::/32"), ipaddress.ip_network("192.0.2.0/24")])
    assert networks.find("2001:db8::1", "unknown", b"", b"").exemption is Exemption.NETWORK
    assert networks.find("::ffff:192.0.2.9", "unknown", b"", b"").exemption is Exemption.NETWORK
    assert networks.find("2001:db9::1", "unknown", b"", b"") == ORDINARY
    assert networks.find("", "unknown", b"", b"") == ORDINARY


def test_no_sender_entry_means_the_null_sender() -> None:
    senders = compile_exemptions(senders=["example.net", "alice@"])
    assert senders.find(CLIENT, NAME, b"", RECIPIENT) == ORDINARY


def test_postmaster_needs_no_domain() -> None:
    recipients = compile_exemptions(recipients=["postmaster@"])
    assert recipients.find(CLIENT, NAME, SENDER, b"Postmaster").exemption is Exemption.RECIPIENT
    assert recipients.find(CLIENT, NAME, SENDER, b"postmaster@example.org").exemption is Exemption.RECIPIENT


@pytest.mark.parametrize(
    ("kind", "subject", "expected"),
    [
        (EntryKind.NETWORK, "192.0.2.0/23/1", "an address or a network"),
        (EntryKind.NETWORK, "192.0.2.1/24", "an address or a network"),
        (EntryKind.NETWORK, "example.com", "an address or a network"),
        (EntryKind.NETWORK, "fe80::1%eth0", "an address or a network"),
        (EntryKind.NETWORK, "0.0.0.0/0", "large part of the Internet"),
        (EntryKind.NETWORK, "::/0", "large part of the Internet"),
        (EntryKind.NETWORK, "::ffff:0:0/96", "large part of the Internet"),
        (EntryKind.NAME, "", "a client's name"),
        (EntryKind.NAME, "*.example.com", "a client's name"),
        (EntryKind.NAME, "mail*.com", "a client's name"),
        (EntryKind.NAME, "com", "two labels"),
        (EntryKind.NAME, "unknown", "two labels"),
        (EntryKind.NAME, "192.0.2.7", "two labels"),
        (EntryKind.SENDER, "a b@example.com", "without spaces"),
        (EntryKind.NAME, "ma il*.example.com", "a client's name"),
        (EntryKind.NAME, "/mail.*/", "a client's name"),
        (EntryKind.SENDER, "", "an address, a domain"),
        (EntryKind.SENDER, "a@b@c d", "an address, a domain"),
        (EntryKind.RECIPIENT, "x" * 321, "at most 320"),
    ],
)
def test_a_subject_that_says_nothing_is_refused_with_what_was_expected(
    kind: EntryKind, subject: str, expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        normalize_subject(kind, subject)


@given(st.sampled_from(EntryKind), st.text(max_size=60) | st.from_regex(r"[a-z0-9.*@+/:<>\-]{1,30}", fullmatch=True))
def test_any_subject_has_one_normal_form_or_is_refused(kind: EntryKind, text: str) -> None:
    try:
        subject = normalize_subject(kind, text)
    except ValueError as error:
        assert str(error).startswith("expected")  # noqa: PT017 - either way something must hold
    else:
        assert subject.isascii()
        assert subject.isprintable()
        assert " " not in subject
        assert normalize_subject(kind, subject) == subject


@given(st.text(max_size=80), st.text(max_size=80), st.binary(max_size=400), st.binary(max_size=400))
def test_strangers_make_nothing_stumble(address: str, name: str, sender: bytes, recipient: bytes) -> None:
    listing = FULL.with_entries([deny(EntryKind.SENDER, "example.net"), allow(EntryKind.NAME, "mx*.example.com")])
    assert listing.find(address, name, sender, recipient) in (ORDINARY, DENIED)


words = st.sampled_from(["a", "b", "mx1", "mx2", "example"])
names = st.lists(words, min_size=2, max_size=4).map(".".join)
octet_pairs = st.tuples(st.integers(0, 3), st.integers(0, 255))


@given(st.lists(st.tuples(octet_pairs, st.integers(8, 32)), max_size=8), octet_pairs)
def test_networks_mean_what_the_library_says(pairs: list[tuple[tuple[int, int], int]], pair: tuple[int, int]) -> None:
    networks = [ipaddress.ip_network((f"10.{high}.0.{low}", prefix), strict=False) for (high, low), prefix in pairs]
    address = ipaddress.ip_address(f"10.{pair[0]}.0.{pair[1]}")
    found = compile_exemptions(networks).find(str(address), "unknown", b"", b"")
    assert (found.exemption is Exemption.NETWORK) == any(address in network for network in networks)


@given(st.lists(names, max_size=6), names)
def test_names_mean_themselves_and_what_is_below(listed: list[str], name: str) -> None:
    found = compile_exemptions(names=listed).find(CLIENT, name, b"", b"")
    assert (found.exemption is Exemption.NAME) == any(f".{name}".endswith(f".{domain}") for domain in listed)
