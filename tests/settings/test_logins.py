"""`[policyd.logins]`: safe defaults, what is refused, and what comes of it."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from mailward.model.errors import ConfigError
from mailward.model.limits import Window
from mailward.policy.logins import LOOPBACK, LoginRules
from mailward.settings.load import read_sections, structure
from mailward.settings.logins import LoginSettings


def read(folder: Path, text: str) -> LoginSettings:
    file = folder / "mailward.toml"
    file.write_text(text)
    return structure(read_sections(file), LoginSettings)


def test_the_defaults_are_the_rules_own(tmp_path: Path) -> None:
    assert read(tmp_path, "").rules() == LoginRules()


def test_every_value_arrives(tmp_path: Path) -> None:
    text = """
failures = ["5/10m", "20/1d"]
network_failures = "30/10m"
login_failures = "40/1h"
networks = ["3/1h"]
tarpit = "3s"
known_times = 4
stranger_times = 3
ipv4_prefix = 32
ipv6_prefix = 56
shared = ["Info@Example.com"]
uncounted_networks = ["203.0.113.10"]
"""
    assert read(tmp_path, text).rules() == LoginRules(
        (Window(5, 600.0), Window(20, 86400.0)),
        (Window(30, 600.0),),
        (Window(40, 3600.0),),
        (Window(3, 3600.0),),
        3,
        4,
        3,
        32,
        56,
        (*LOOPBACK, ipaddress.ip_network("203.0.113.10")),
        frozenset(("info@example.com",)),
    )


def test_any_number_of_networks_can_be_had(tmp_path: Path) -> None:
    assert read(tmp_path, "networks = []").rules().networks == ()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param('tarpit = "9s"', "tarpit: expected at most 7s", id="longer than Postfix waits"),
        pytest.param('failures = "500/1h"', "failures: expected 2 to 204 in a time", id="more than is remembered"),
        pytest.param('failures = "1/1h"', "failures: expected 2 to 204 in a time", id="one old password is too much"),
        pytest.param("failures = []", "failures: expected 1 to 4 windows", id="no limit"),
        pytest.param('networks = "10MB/1d"', "networks: expected 1 to 2047 in a time", id="octets"),
        pytest.param('network_failures = "9/90d"', "network_failures: expected windows of 10s to 30d", id="for months"),
        pytest.param("ipv4_prefix = 8", "ipv4_prefix: expected at least 16", id="a network of millions"),
        pytest.param("known_times = 0", "known_times: expected at least 1", id="times nothing"),
    ],
)
def test_a_value_that_cannot_be_is_refused(tmp_path: Path, line: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, line)
    assert [f"{mistake.where}: {mistake.expected}" for mistake in caught.value.mistakes] == [expected]
