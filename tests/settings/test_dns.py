"""`[dns]`: safe defaults, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailward.model.errors import ConfigError
from mailward.settings.common import Dns
from mailward.settings.dkim_sign import Settings
from mailward.settings.load import read_sections, structure


def read(folder: Path, text: str) -> Dns:
    config = folder / "mailward.toml"
    config.write_text(f"[dns]\n{text}\n")
    return structure(read_sections(config), Settings).dns


def test_the_defaults(tmp_path: Path) -> None:
    assert read(tmp_path, "") == Dns(
        nameservers=(),
        timeout=2.0,  # type: ignore[arg-type]
        deadline=20.0,  # type: ignore[arg-type]
        queries=120,
        control=".",
        cache=5000,
    )


def test_all_of_it_can_be_set(tmp_path: Path) -> None:
    dns = read(
        tmp_path,
        'nameservers = ["9.9.9.9", "[::1]:5353"]\ntimeout = "1s"\ndeadline = "500ms"\nqueries = 30\n'
        'control = "b\u00fccher.example"\ncache = 100',
    )
    assert dns == Dns(("9.9.9.9", "[::1]:5353"), 1.0, 0.5, 30, "b\u00fccher.example", 100)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param('nameservers = ["dns.example"]', 'found "dns.example"', id="a name as nameserver"),
        pytest.param('timeout = "49ms"', "dns.timeout: expected at least 50ms", id="no time for a server"),
        pytest.param('timeout = "2m"', "dns.timeout: expected at most 1m", id="all the time for a server"),
        pytest.param('deadline = "1ms"', "dns.deadline: expected at least 50ms", id="no time for a message"),
        pytest.param('deadline = "1h"', "dns.deadline: expected at most 10m", id="more than Postfix waits"),
        pytest.param("queries = 0", "dns.queries: expected at least 1", id="no query"),
        pytest.param("queries = 1001", "dns.queries: expected at most 1000", id="a thousand queries and one"),
        pytest.param("cache = 0", "dns.cache: expected at least 1", id="no memory"),
        pytest.param("cache = 100001", "dns.cache: expected at most 100000", id="all the memory"),
        pytest.param('control = ""', "dns.control: expected a domain name", id="no control question"),
        pytest.param('control = "a..example"', "dns.control: expected a domain name", id="no name"),
        pytest.param("control = true", "dns.control: expected a string", id="no text"),
    ],
)
def test_what_is_refused(tmp_path: Path, line: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, line)
    (mistake,) = caught.value.mistakes
    assert expected in str(mistake)
