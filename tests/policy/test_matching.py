"""Which requests a limit is about."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailward.policy.matching import ATTRIBUTES, NEVER, compile_match
from mailward.policy.owners import account_named, account_of, client, network, read_address, rest_of


def request(**attributes: str) -> dict[str, str]:
    return attributes


@pytest.mark.parametrize(
    ("patterns", "attributes", "expected"),
    [
        pytest.param({}, request(), True, id="nothing asked"),
        pytest.param({"policy_context": ["Submission"]}, request(policy_context="submission"), True, id="a value"),
        pytest.param({"policy_context": ["submission"]}, request(policy_context="mx"), False, id="another value"),
        pytest.param({"policy_context": ["submission"]}, request(), False, id="an attribute of later versions"),
        pytest.param({"policy_context": ["a", "b"]}, request(policy_context="b"), True, id="one of several"),
        pytest.param({"sasl_username": ["*"]}, request(sasl_username="a"), True, id="any login"),
        pytest.param({"sasl_username": ["*"]}, request(sasl_username=""), False, id="no login"),
        pytest.param({"sasl_username": [""]}, request(sasl_username=""), True, id="wants none"),
        pytest.param({"sasl_username": [""]}, request(), True, id="wants none, and it is absent"),
        pytest.param({"sasl_username": [""]}, request(sasl_username="a"), False, id="wants none, and there is one"),
        pytest.param(
            {"sasl_username": ["Alice@example.com"]}, request(sasl_username="alice@Example.com"), True, id="case"
        ),
        pytest.param({"sasl_username": ["@example.com"]}, request(sasl_username="a@EXAMPLE.com"), True, id="a domain"),
        pytest.param(
            {"sasl_username": ["@example.com"]}, request(sasl_username="a@notexample.com"), False, id="a tail"
        ),
        pytest.param({"sender": ["@example.com"]}, request(sender="a@sub.example.com"), False, id="not what is below"),
        pytest.param({"sender": ["a@example.com"]}, request(sender="A+tag@example.com"), True, id="with an extension"),
        pytest.param({"sender": ["a+tag@example.com"]}, request(sender="a@example.com"), False, id="another extension"),
        pytest.param(
            {"recipient": ["@b\u00fccher.example"]}, request(recipient="x@xn--bcher-kva.example"), True, id="IDN"
        ),
        pytest.param({"sender": [""]}, request(sender=""), True, id="the null sender"),
        pytest.param({"client_address": ["192.0.2.0/24"]}, request(client_address="192.0.2.9"), True, id="a network"),
        pytest.param(
            {"client_address": ["192.0.2.0/24"]}, request(client_address="::ffff:192.0.2.9"), True, id="mapped"
        ),
        pytest.param({"client_address": ["192.0.2.0/24"]}, request(client_address="192.0.3.9"), False, id="outside"),
        pytest.param({"client_address": ["2001:db8::/32"]}, request(client_address="2001:db8::1"), True, id="IPv6"),
        pytest.param({"client_address": ["192.0.2.0/24"]}, request(client_address="unknown"), False, id="no address"),
        pytest.param({"client_address": ["!192.0.2.0/24"]}, request(client_address="192.0.2.9"), False, id="not there"),
        pytest.param({"client_address": ["!192.0.2.0/24"]}, request(client_address="192.0.3.9"), True, id="elsewhere"),
        pytest.param(
            {"sender": ["@a.example", "!x@a.example"]}, request(sender="x@a.example"), False, id="all but one"
        ),
        pytest.param(
            {"sender": ["@a.example", "!x@a.example"]}, request(sender="y@a.example"), True, id="not that one"
        ),
        pytest.param({"server_port": ["587"], "sender": ["*"]}, request(server_port="587"), False, id="all have to"),
        pytest.param({"sender": [NEVER]}, request(sender="a@b.example"), False, id="an empty list"),
        pytest.param({"client_address": [NEVER]}, request(client_address="192.0.2.9"), False, id="no networks"),
        pytest.param({"sasl_username": [NEVER]}, request(), False, id="an empty list, and nothing"),
    ],
)
def test_patterns(patterns: dict[str, list[str]], attributes: dict[str, str], expected: bool) -> None:
    assert compile_match(patterns).matches(attributes) is expected


ROUTED = "victim%gmail.example@localhost"


@pytest.mark.parametrize(
    ("patterns", "recipient", "expected"),
    [
        pytest.param(["@gmail.example"], ROUTED, True, id="the domain it goes to"),
        pytest.param(["@localhost"], ROUTED, True, id="the domain it names"),
        pytest.param(["victim@gmail.example"], ROUTED, True, id="the address it goes to"),
        pytest.param(["victim@gmail.example"], "victim+1%gmail.example@localhost", True, id="with an extension"),
        pytest.param(["victim@gmail.example"], "gmail.example!victim", True, id="as a bang path"),
        pytest.param(["@other.example"], ROUTED, False, id="another domain"),
        pytest.param(["bob@gmail.example"], ROUTED, False, id="another address"),
        pytest.param(["@gmail.example"], "victim(x)%(y)gmail.example@localhost", True, id="what cannot be read"),
        pytest.param(["@gmail.example"], "victim%gmail.example%a%b%c%d@localhost", True, id="what names too many"),
        pytest.param(["v@gmail.example"], "v(x)%gmail.example@localhost", True, id="an address that cannot be read"),
        pytest.param([""], "v(x)%gmail.example@localhost", False, id="wants none"),
        pytest.param(["!@localhost"], ROUTED, True, id="its own domain lets no route pass"),
        pytest.param(["!@gmail.example"], ROUTED, True, id="nor another's"),
        pytest.param(["!victim@gmail.example"], ROUTED, True, id="nor another's address"),
        pytest.param(["!@localhost"], "v(x)%gmail.example@localhost", True, id="nor what cannot be read"),
        pytest.param([f"!{ROUTED}"], ROUTED, False, id="the very address does"),
        pytest.param(["!@localhost"], "victim@localhost", False, id="and a domain without routes"),
        pytest.param(["!@localhost"], "victim+1@localhost", False, id="or with extensions"),
    ],
)
def test_a_routed_recipient_leads_past_no_pattern(patterns: list[str], recipient: str, expected: bool) -> None:
    assert compile_match({"recipient": patterns}).matches(request(recipient=recipient)) is expected


@pytest.mark.parametrize(
    ("attribute", "pattern"),
    [
        pytest.param("client_address", "192.0.2.300", id="no address"),
        pytest.param("client_address", "0.0.0.0/0", id="the Internet"),
        pytest.param("client_address", "mail.example", id="a name for an address"),
        pytest.param("sender", "@", id="no domain"),
        pytest.param("recipient", "example.com", id="no address"),
        pytest.param("sender", "a" * 400 + "@example.com", id="too long"),
    ],
)
def test_a_pattern_that_is_none_is_refused(attribute: str, pattern: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        compile_match({attribute: [pattern]})


ANYTHING = st.text(st.characters(), max_size=60) | st.binary(max_size=60).map(
    lambda octets: octets.decode("utf-8", "surrogateescape")
)


@given(ANYTHING, st.sampled_from(ATTRIBUTES))
def test_no_value_makes_a_pattern_fail(value: str, attribute: str) -> None:
    pattern = "192.0.2.1" if attribute.endswith("_address") else "a@b.example"
    compile_match({attribute: [pattern, "!", "*"]}).matches({attribute: value})


@given(ANYTHING)
def test_an_owner_is_plain_and_short_whatever_came_in(value: str) -> None:
    address = read_address(value)
    shown = (account_of(value), address.plain, address.domain, client(value), network(value))
    for text in (*shown, rest_of(shown)):
        assert len(text) <= 340
        assert all("!" <= character <= "~" for character in text)
    assert bool(account_of(value)) == bool(value)


@pytest.mark.parametrize(
    "start", [pytest.param("a" * 5000, id="long"), pytest.param("\u00e9" * 400, id="long once it is escaped")]
)
def test_two_long_logins_stay_two(start: str) -> None:
    assert account_of(start + "x") != account_of(start + "y")
    assert len(account_of(start)) == 320


@pytest.mark.parametrize(
    ("login", "account"),
    [
        pytest.param("Alice@Example.COM", "alice@example.com", id="ASCII in lower case"),
        pytest.param("\u00c9va", r"\xc9va", id="the rest as it is"),
        pytest.param("\u212aarl", r"\u212aarl", id="a Kelvin sign is no k"),
        pytest.param(r"DOMAIN\alice", r"domain\x5calice", id="a backslash"),
        pytest.param("\udcff\U0001f600", r"\udcff\U0001f600", id="no text, and an emoji"),
    ],
)
def test_an_accounts_name(login: str, account: str) -> None:
    assert account_of(login) == account
    assert account_named(account) == account
    assert account_named(login) == account


LOGINS = (
    st.text("aA\u00e9\u00c9\\x5cu0~ \u212a", max_size=8)
    | st.text(max_size=4)
    | st.text("a~", min_size=315, max_size=400)
)


def lower(login: str) -> str:
    """Lower-case as Dovecot does."""
    return "".join(one.lower() if one.isascii() else one for one in login)


@given(LOGINS, LOGINS)
def test_two_logins_that_dovecot_tells_apart_have_two_names(one: str, other: str) -> None:
    assert (account_of(one) == account_of(other)) is (lower(one) == lower(other))
    escaped = account_of(one)
    assert (account_of(escaped) == escaped) is ("\\" not in escaped)
    assert account_named(escaped) == escaped


def test_no_login_is_like_one_that_was_cut() -> None:
    cut = account_of("a" * 400)
    assert len(cut) == 320
    assert account_of(cut) != cut
