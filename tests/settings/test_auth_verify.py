"""`[auth-verify]`: safe defaults, what is refused, and the judge that comes of it."""

from __future__ import annotations

import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mailward.auth.evaluate import Limits
from mailward.inbound.judge import Judge
from mailward.model.errors import ConfigError
from mailward.model.results import Disposition
from mailward.policy.enforcement import EnforcementRules
from mailward.settings.auth_verify import Settings, read_judge
from mailward.settings.load import read_sections, structure
from mailward.settings.values import Port, SocketAddress


class Configuration:
    """mailward.toml in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "mailward.toml"

    def settings(self, text: str) -> Settings:
        self.file.write_text(text)
        return structure(read_sections(self.file), Settings)

    def judge(self, table: str) -> Judge:
        return read_judge(self.settings(f'authserv_id = "MX.Our.example"\n[auth-verify]\n{table}\n'))

    def mistakes(self, text: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            self.settings(text)
        return [f"{mistake.where}: {mistake.expected}" for mistake in caught.value.mistakes]


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    return Configuration(tmp_path)


def test_the_defaults_are_safe(configuration: Configuration) -> None:
    settings = configuration.settings("")
    table, judge = settings.auth_verify, read_judge(settings)
    assert table.socket == SocketAddress("/var/spool/postfix/mailward/auth-verify.sock", "", 0)
    assert table.metrics == Port("127.0.0.1", 9462)
    assert not stat.S_IMODE(table.socket_mode) & 0o007
    assert all(network.is_loopback for network in judge.networks)
    assert judge.rules == EnforcementRules(enforce=Disposition.QUARANTINE)
    assert (judge.is_shadow, judge.holds, judge.writes_received_spf) == (False, False, False)
    assert judge.limits == Limits()
    assert table.on_own_bug == "tempfail"
    assert settings.authserv_id in judge.own_ids


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        pytest.param('enforce = "reject"', {"enforce": Disposition.REJECT}, id="enforce"),
        pytest.param('on_temperror = "tempfail"', {"tempfail_on_temperror": True}, id="on_temperror"),
        pytest.param('no_author_domain = "none"', {"no_author_domain": Disposition.NONE}, id="no_author_domain"),
        pytest.param(
            'trusted_sealers = ["Google.com."]', {"trusted_sealers": frozenset({"google.com"})}, id="trusted_sealers"
        ),
        pytest.param('mailing_lists = ["l.example"]', {"mailing_lists": frozenset({"l.example"})}, id="mailing_lists"),
        pytest.param(
            'accept_domains = ["b\\u00fccher.example"]',
            {"accept_domains": frozenset({"xn--bcher-kva.example"})},
            id="accept_domains in U-labels",
        ),
        pytest.param(
            'reject_domains = ["our.example"]', {"reject_domains": frozenset({"our.example"})}, id="reject_domains"
        ),
        pytest.param(
            'forwarder_names = ["f.example"]', {"forwarder_names": frozenset({"f.example"})}, id="forwarder_names"
        ),
    ],
)
def test_what_is_configured_is_how_mail_is_judged(
    configuration: Configuration, table: str, expected: dict[str, Any]
) -> None:
    rules = configuration.judge(table).rules
    assert {name: getattr(rules, name) for name in expected} == expected


def test_the_judge_has_the_rest(configuration: Configuration) -> None:
    judge = configuration.judge(
        'shadow = true\nquarantine = "hold"\nreceived_spf = true\nown_authserv_ids = ["old.example"]\n'
        'networks = ["10.0.0.0/8"]\nspf_void_lookups = 4\nmax_signatures = 3\nclock_skew = "1m"\n'
        'forwarder_networks = ["192.0.2.0/24"]'
    )
    assert judge.authserv_id == "mx.our.example"
    assert judge.own_ids == {"mx.our.example", "old.example"}
    assert (judge.is_shadow, judge.holds, judge.writes_received_spf) == (True, True, True)
    assert [str(network) for network in judge.networks] == ["10.0.0.0/8"]
    assert [str(network) for network in judge.rules.forwarder_networks] == ["192.0.2.0/24"]
    assert judge.limits.spf.void_lookups == 4
    assert (judge.limits.dkim.max_signatures, judge.limits.dkim.clock_skew_seconds) == (3, 60)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param('enforce = "drop"', 'expected one of none, quarantine, reject, found "drop"', id="enforce"),
        pytest.param('quarantine = "junk"', 'expected one of header, hold, found "junk"', id="quarantine"),
        pytest.param('on_temperror = "reject"', "expected one of accept, tempfail", id="an error never rejects"),
        pytest.param('networks = ["0.0.0.0/0"]', "expected networks that are yours", id="the whole Internet is ours"),
        pytest.param('forwarder_networks = ["0.0.0.0/0"]', "expected networks", id="all the Internet forwards"),
        pytest.param('trusted_sealers = ["a b"]', "expected a domain name", id="no domain"),
        pytest.param("shadow = 1", "expected true or false", id="no boolean"),
        pytest.param("spf_void_lookups = 11", "expected at most 10", id="more void look-ups than terms"),
        pytest.param("max_signatures = 0", "expected at least 1", id="no signature at all"),
        pytest.param('enforced = "none"', 'did you mean "enforce"?', id="a key that is nearly right"),
    ],
)
def test_what_is_wrong_names_the_key_and_what_was_expected(
    configuration: Configuration, line: str, expected: str
) -> None:
    (mistake,) = configuration.mistakes(f"[auth-verify]\n{line}\n")
    assert mistake.startswith(f"auth-verify.{line.partition(' ')[0]}")
    assert expected in mistake


def test_an_authserv_id_is_a_domain_name(configuration: Configuration) -> None:
    (mistake,) = configuration.mistakes('authserv_id = "mx; dmarc=pass"\n')
    assert "authserv_id: expected a domain name" in mistake


def test_a_host_whose_name_can_stand_in_no_field_is_localhost(
    configuration: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailward.settings.common.socket", SimpleNamespace(gethostname=lambda: "bad name;"))
    assert configuration.settings("").authserv_id == "localhost"


def test_the_other_programs_tables_are_theirs_to_judge(configuration: Configuration) -> None:
    settings = configuration.settings("[dkim-sign]\nx = 1\n[greylist]\ny = [1]\n[policyd]\n")
    assert settings.auth_verify.log_level == "info"
