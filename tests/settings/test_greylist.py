"""`[greylist]`: safe defaults, what is refused, and what comes of it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from mailward.inbound.greylisting import Rules
from mailward.model.errors import ConfigError
from mailward.model.greylist import Windows
from mailward.model.state import Durability, SqliteState
from mailward.policy.exemptions import Exemption
from mailward.settings.greylist import Settings, check_state, read_exemptions
from mailward.settings.load import read_sections, structure
from mailward.settings.values import Port, SocketAddress


def read(folder: Path, text: str) -> Settings:
    file = folder / "mailward.toml"
    file.write_text(text)
    return structure(read_sections(file), Settings)


def mistakes(folder: Path, table: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_exemptions(read(folder, f"[greylist]\n{table}\n").greylist)
    return [f"{mistake.where}: {mistake.expected}" for mistake in caught.value.mistakes]


def test_the_defaults_are_safe(tmp_path: Path) -> None:
    settings = read(tmp_path, "")
    table = settings.greylist
    assert table.socket == SocketAddress("/var/spool/postfix/mailward/greylist.sock", "", 0)
    assert table.metrics == Port("127.0.0.1", 9463)
    assert not stat.S_IMODE(table.socket_mode) & 0o007
    assert not table.networks
    assert settings.rules() == Rules(own_names=frozenset((settings.authserv_id,)))
    assert settings.rules().windows == Windows(60, 2 * 86400, 36 * 86400, 5, 3600)
    assert (table.shadow, table.field, table.mode, table.non_retriers) == (False, False, "all", True)
    assert settings.state.state == SqliteState(Path("/var/lib/mailward"))
    assert Durability(settings.durability) is Durability.PROCESS


def test_dns_at_rcpt_takes_no_longer_than_postfix_waits(tmp_path: Path) -> None:
    assert float(read(tmp_path, "").dns_at_rcpt().deadline) == 5
    assert float(read(tmp_path, '[dns]\ndeadline = "2s"\n').dns_at_rcpt().deadline) == 2
    assert float(read(tmp_path, '[greylist]\ndeadline = "9s"\n').dns_at_rcpt().deadline) == 9
    assert mistakes(tmp_path, 'deadline = "30s"') == ["greylist.deadline: expected at most 25s"]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        pytest.param('delay = "0s"', "greylist.delay: expected at least 1s", id="no delay"),
        pytest.param('delay = "2d"', "greylist.delay: expected at most 1d", id="a delay of days"),
        pytest.param(
            'delay = "10m"\nretry_window = "10m"',
            "greylist.retry_window: expected at least twice the delay: a retry has to come between the two",
            id="a window in which nobody can pass",
        ),
        pytest.param("ipv4_prefix = 33", "greylist.ipv4_prefix: expected at most 32", id="a prefix"),
        pytest.param('mode = "some"', 'greylist.mode: expected one of all, suspicious, found "some"', id="a mode"),
        pytest.param('store_timeout = "1ms"', "greylist.store_timeout: expected at least 10ms", id="an impatient one"),
    ],
)
def test_a_value_that_cannot_be_is_refused(tmp_path: Path, table: str, expected: str) -> None:
    assert mistakes(tmp_path, table) == [expected]


@pytest.mark.parametrize(
    ("table", "key"),
    [
        pytest.param('dnsbl = ["127.0.0.2"]', "greylist.dnsbl", id="an address for a list's zone"),
        pytest.param('dnsbl = ["zen.example=127.0.0.[2..300]"]', "greylist.dnsbl", id="an octet of 300"),
        pytest.param('dnswl = ["white.example"]', "greylist.dnswl", id="a white list without its answers"),
        pytest.param('senders = ["not an address"]', "greylist.senders", id="a sender"),
        pytest.param('recipients = ["@"]', "greylist.recipients", id="a recipient"),
        pytest.param('names = ["com"]', "greylist.names", id="half of the Internet"),
        pytest.param('networks = ["0.0.0.0/0"]', "greylist.networks", id="all of the Internet"),
    ],
)
def test_a_list_that_says_nothing_or_too_much_is_refused(tmp_path: Path, table: str, key: str) -> None:
    (mistake,) = mistakes(tmp_path, table)
    assert mistake.startswith(f"{key}: expected")


def test_a_list_of_ones_own_adds_to_the_shipped_one(tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("# source: us\n192.0.2.0/24\nslow.example\n")
    exemptions = read_exemptions(read(tmp_path, f'[greylist]\nnon_retriers_files = ["{own}"]\n').greylist)
    for address, name in (("192.0.2.1", "unknown"), ("203.0.113.1", "a.slow.example")):
        assert exemptions.find(address, name, b"a@b.example", b"c@d.example").exemption is Exemption.NON_RETRIER


def test_every_mistake_of_a_list_names_file_and_line(tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("good.example\nnot a name\n300.1.1.1\n")
    with pytest.raises(ConfigError) as caught:
        read_exemptions(read(tmp_path, f'[greylist]\nnon_retriers_files = ["{own}"]\n').greylist)
    assert [(mistake.file, mistake.where) for mistake in caught.value.mistakes] == [
        (str(own), "line 2"),
        (str(own), "line 3"),
    ]


def test_a_list_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.txt: greylist\.non_retriers_files: cannot be read"):
        read_exemptions(read(tmp_path, f'[greylist]\nnon_retriers_files = ["{tmp_path}/missing.txt"]\n').greylist)


def test_loopback_passes_whatever_the_networks_are(tmp_path: Path) -> None:
    exemptions = read_exemptions(read(tmp_path, '[greylist]\nnetworks = ["10.99.0.0/16"]\n').greylist)
    for address in ("127.0.0.1", "::1", "10.99.1.1"):
        assert exemptions.find(address, "localhost", b"a@b.example", b"c@d.example").exemption is Exemption.NETWORK


def test_memory_that_no_two_workers_share_is_for_one_worker(tmp_path: Path) -> None:
    expected = 'state: expected "memory:" with workers = 1 alone: each worker would have a memory of its own'
    with pytest.raises(ConfigError) as caught:
        check_state(read(tmp_path, 'state = "memory:"'), str(tmp_path))
    assert [f"{mistake.where}: {mistake.expected}" for mistake in caught.value.mistakes] == [expected]
    check_state(read(tmp_path, 'state = "memory:"\n[greylist]\nworkers = 1\n'), str(tmp_path))


def test_a_password_in_the_wrong_place_is_not_shown(tmp_path: Path) -> None:
    (mistake,) = mistakes(tmp_path, 'socket = "redis://:secret@127.0.0.1/0"')
    assert "secret" not in mistake
    assert "redis://…@127.0.0.1/0" in mistake


def test_without_the_shipped_list_nobody_is_a_non_retrier(tmp_path: Path) -> None:
    with_list = read_exemptions(read(tmp_path, "").greylist)
    without = read_exemptions(read(tmp_path, "[greylist]\nnon_retriers = false\n").greylist)
    assert with_list != without
