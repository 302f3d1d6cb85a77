"""The shipped examples for the policy server: Postfix reads them without a word of complaint, as it means them to be read."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mail.limiting import SHIPPED_MAIN, SHIPPED_MASTER
from tests.support.processes import open_folder, require_binary

CALL = "unix:mailward/policyd.sock, timeout=3s, try_limit=1, request_limit=1, default_action=DUNNO"
ON_PORT_25 = f"check_policy_service {{ {CALL} }}"
ON_SUBMISSION = f"check_policy_service,{{ {CALL}, policy_context=submission }}"
SUBMISSIONS = ("submission", "submissions")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a configuration folder of Postfix's with the examples in it, as shipped."""
    with open_folder() as made:
        for path, name in ((SHIPPED_MAIN, "main.cf"), (SHIPPED_MASTER, "master.cf")):
            write(made / name, path.read_text())
        yield made


def write(path: Path, text: str) -> None:
    """Write a file as if long ago: Postfix waits two seconds for whoever may not be done with a fresh one."""
    path.write_text(text)
    os.utime(path, (1e9, 1e9))


def postconf(folder: Path, *options: str) -> tuple[str, str]:
    """Return what postconf says, and what it complains of."""
    command = [require_binary("postconf", "postfix"), "-c", str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout, done.stderr


def settings(text: str) -> dict[str, str]:
    return dict(line.split(" = ", 1) for line in text.splitlines())


@pytest.mark.parametrize("options", [("-n",), ("-M",), ("-P",)], ids=["main.cf", "services", "services-settings"])
def test_postconf_has_nothing_to_complain_about(folder: Path, options: tuple[str, ...]) -> None:
    words, complaints = postconf(folder, *options)
    assert words
    assert complaints == ""


def test_a_name_that_does_not_exist_would_be_complained_about(folder: Path) -> None:
    write(folder / "main.cf", SHIPPED_MAIN.read_text() + "mailward_policy = misspelt\n")
    assert "unused parameter: mailward_policy=misspelt" in postconf(folder, "-n")[1]


def test_port_25_asks_for_each_recipient(folder: Path) -> None:
    assert settings(postconf(folder, "-nx")[0])["smtpd_recipient_restrictions"] == ON_PORT_25


@pytest.mark.parametrize("service", SUBMISSIONS)
@pytest.mark.parametrize("call", ["smtpd_recipient_restrictions", "smtpd_end_of_data_restrictions"])
def test_submission_asks_for_each_recipient_and_at_the_end(folder: Path, service: str, call: str) -> None:
    assert settings(postconf(folder, "-Px")[0])[f"{service}/inet/{call}"] == ON_SUBMISSION


@pytest.mark.parametrize("service", SUBMISSIONS)
def test_submission_still_lets_only_those_relay_who_log_in(folder: Path, service: str) -> None:
    relaying = settings(postconf(folder, "-P")[0])[f"{service}/inet/smtpd_relay_restrictions"]
    assert relaying == "permit_sasl_authenticated,reject"


@pytest.mark.parametrize("name", ["main.cf", "master.cf"])
def test_what_is_commented_out_can_be_had_by_taking_the_sign_away(folder: Path, name: str) -> None:
    path = folder / name
    text = re.sub(r"^#(?=\S+ = |  -o |127)", "", path.read_text(), flags=re.MULTILINE)
    assert text != path.read_text()
    write(path, text)
    for options in (("-n",), ("-M",), ("-P",)):
        assert postconf(folder, *options)[1] == ""


def test_the_call_before_the_permit_is_as_the_comment_has_it(folder: Path) -> None:
    path = folder / "master.cf"
    comment = re.search(r"^#   (-o \{ smtpd_recipient_restrictions = .*\})$", path.read_text(), re.MULTILINE)
    assert comment is not None
    write(path, f"submission inet n - y - - smtpd\n  {comment.group(1)}\n")
    words, complaints = postconf(folder, "-Px")
    assert complaints == ""
    asked, permitted = (words.index(word) for word in ("check_policy_service", "permit_sasl_authenticated"))
    assert asked < permitted
