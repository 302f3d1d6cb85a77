"""What Tab offers: by click's own class for it, which is what the shells ask."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from postmaster.__main__ import main
from tools import completion

CONFIG = """\
[[dkim-sign.domain]]
name = "example.com"
keys = [ { selector = "a", file = "/nowhere/a.pem" } ]
[[dkim-sign.domain]]
name = "example.org"
keys = []
[[dkim-sign.domain]]
name = "*"
keys = []
"""
LIMITS = """\
[[policyd.limit]]
name = "newsletters"
limit = "100/1h"
[[policyd.limit]]
name = "clients"
per = "client_network"
limit = "100/1h"
"""


def offered(typed: str) -> list[tuple[str, str]]:
    """Return what is offered for the last word: "plain" with a value, or "file" and "dir", which the shell looks for."""
    *words, incomplete = typed.split(" ")
    found = ShellComplete(main, {}, "mailward", "_MAILWARD_COMPLETE").get_completions(words, incomplete)
    return [(item.type, item.value) for item in found]


@pytest.mark.parametrize(
    ("typed", "kind"),
    [
        ("explain mess", "file"),
        ("explain --zone mess", "file"),
        ("greylist import mess", "file"),
        ("greylist export mess", "file"),
        ("limits list --config mess", "file"),
        ("keys new --keys mess", "dir"),
        ("setup -c mess", "dir"),
        ("limits suspend --postfix-config mess", "dir"),
    ],
)
def test_the_shell_looks_for_files_and_folders(typed: str, kind: str) -> None:
    assert offered(typed) == [(kind, "mess")]


@pytest.mark.parametrize("command", ["new", "show", "verify"])
def test_domains_with_keys_are_offered_whoever_may_read_these(tmp_path: Path, command: str) -> None:
    (tmp_path / "mailward.toml").write_text(CONFIG)
    typed = f"keys {command} --config {tmp_path}/mailward.toml exa"
    assert offered(typed) == [("plain", "example.com"), ("plain", "example.org")]


def test_limits_of_accounts_are_offered(tmp_path: Path) -> None:
    (tmp_path / "mailward.toml").write_text(LIMITS)
    typed = f"limits raise --config {tmp_path}/mailward.toml alice 5/1h --limit "
    assert offered(typed) == [("plain", "newsletters")]
    (tmp_path / "mailward.toml").write_text("")
    assert ("plain", "account-surge") in offered(typed)


@pytest.mark.parametrize("text", ["[dkim-sign", "dkim-sign = 1", "dkim-sign = { domain = 1 }", "policyd = 1", None])
@pytest.mark.parametrize("typed", ["keys show --config {config} ", "limits raise --config {config} a 1/1h --limit "])
def test_a_configuration_that_is_wrong_offers_nothing(tmp_path: Path, typed: str, text: str | None) -> None:
    if text is not None:
        (tmp_path / "mailward.toml").write_text(text)
    found = offered(typed.format(config=tmp_path / "mailward.toml"))
    assert [value for _, value in found if not value.startswith("account-")] == []


def test_daemons_are_offered_one_after_the_other() -> None:
    assert ("plain", "policyd") in offered("setup --only ")
    assert offered("setup --only dkim-sign,g") == [("plain", "dkim-sign,greylist")]


def test_fish_shows_what_stands_behind_a_comma(tmp_path: Path) -> None:
    completion.main(tmp_path)
    assert 'string split --max 1 "," $completion' in (tmp_path / "mailward.fish").read_text()
