"""Unit files are read as systemd reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packages.unit_file import Unit, command_of, confined, state_folders

SERVICE = """\
[Unit]
Description=One
[Service]
# User=root
User=mailward
Environment=A=1
Environment=B=2
ExecStart=-/usr/sbin/one \\
  --two "three four"
StateDirectory=mailward
StateDirectoryMode=0700
NoNewPrivileges=yes
"""


def test_a_setting_may_stand_more_than_once_and_the_last_of_those_that_may_not_counts() -> None:
    unit = Unit("one.service", [SERVICE, "[Service]\nUser=other\n"])
    assert unit.words("Service.Environment") == ["A=1", "B=2"]
    assert unit.one("Service.User") == "other"
    assert unit.one("Service.Group", "none") == "none"


def test_an_empty_value_forgets_those_before() -> None:
    unit = Unit("one.service", [SERVICE, "[Service]\nEnvironment=\nEnvironment=C=3\n"])
    assert unit.all("Service.Environment") == ["C=3"]


def test_a_command_is_read_with_its_quotes_over_several_lines_and_without_its_prefix() -> None:
    assert command_of(Unit("one.service", [SERVICE]), "ExecStart") == [["/usr/sbin/one", "--two", "three four"]]


def test_an_instance_knows_its_name() -> None:
    assert (
        Unit("postfix@second.service", ["[Service]\nExecStart=/bin/a %i 5%%\n"]).one("Service.ExecStart")
        == "/bin/a second 5%"
    )


def test_a_state_folder_has_its_mode() -> None:
    assert state_folders(Unit("one.service", [SERVICE])) == [(Path("/var/lib/mailward"), 0o700)]


@pytest.mark.parametrize("capability", ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--reuid=mailward"])
def test_an_unprivileged_service_gets_no_more_than_its_unit_says(capability: str) -> None:
    assert capability in confined(Unit("one.service", [SERVICE]), ["/usr/sbin/one"])


def test_what_names_no_account_is_started_as_it_is() -> None:
    assert confined(Unit("one.service", ["[Service]\nExecStart=/bin/a\n"]), ["/bin/a"]) == ["/bin/a"]
