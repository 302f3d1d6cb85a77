"""`mailward keys new` and the configuration: what it writes into conf.d, what it leaves to the operator, whom it tells."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

import postmaster.keys
from mailward.settings.dkim_sign import Settings
from mailward.settings.load import read_sections, structure
from postmaster.__main__ import main
from postmaster.signing_file import HEAD, NotOurs, lines_for, with_key
from tests.programs.signer import Signer
from tests.support.processes import open_folder, wait_until

EX_CONFIG = 78
EMPTY = "# the operator's own\n"


class Place:
    """A folder with mailward.toml in it; `new` runs the command there."""

    def __init__(self, folder: Path, text: str = EMPTY) -> None:
        self.folder = folder
        self.config = folder / "mailward.toml"
        self.config.write_text(text)

    def new(self, domain: str, *options: str) -> Result:
        where = ["--keys", str(self.folder / "keys"), "--config", str(self.config)]
        return CliRunner().invoke(main, ["keys", "new", domain, *where, *options])

    def file(self, domain: str) -> Path:
        return self.folder / "conf.d" / f"dkim-{domain}.toml"

    def selectors(self, domain: str) -> list[str]:
        """Return the selectors that the signer would use, its configuration checked as it checks it."""
        settings = structure(read_sections(self.config), Settings)
        return [key.selector for each in settings.dkim_sign.domain if each.name == domain for key in each.keys]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Return a folder of a machine without systemd."""
    monkeypatch.setattr(postmaster.keys, "has_systemd", lambda: False)
    with open_folder() as folder:
        yield Place(folder)


def test_a_new_key_is_the_signers_at_once(place: Place) -> None:
    done = place.new("Example.COM", "--selector", "a")
    assert done.exit_code == 0, done.output
    assert place.selectors("example.com") == ["a"]
    file = place.file("example.com")
    assert file.read_text().startswith(HEAD)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert place.config.read_text() == EMPTY
    assert f"; {file} written; the signer reads it at its next start or HUP\n" in done.output
    next_step = "; Next: put the record into the zone of example.com; then: mailward keys verify example.com --config"
    assert done.output.endswith(f"{next_step} {place.config}\n")
    assert not [line for line in done.output.splitlines() if not line.startswith(("; ", "\t", "a._domainkey."))]


def test_a_second_key_of_the_domain_is_added_and_another_domain_has_its_own_file(place: Place) -> None:
    for domain, options in (
        ("example.com", ["--selector", "a"]),
        ("example.com", ["--selector", "a-ed", "--ed25519"]),
        ("example.net", ["--selector", "n"]),
        ("example.com", ["--selector", "b"]),
    ):
        assert place.new(domain, *options).exit_code == 0
    assert place.selectors("example.com") == ["a", "a-ed", "b"]
    assert place.selectors("example.net") == ["n"]
    assert sorted(each.name for each in place.file("x").parent.iterdir()) == [
        "dkim-example.com.toml",
        "dkim-example.net.toml",
    ]


def test_what_else_is_written_into_the_file_stays(place: Place) -> None:
    place.new("example.com", "--selector", "a")
    file = place.file("example.com")
    text = (
        file.read_text()
        .replace("keys = [\n", "subdomains = true # all of them\nkeys = [ \n  # the first\n")
        .replace("[ \n", "[\n")
    )
    file.write_text(text)
    assert place.new("example.com", "--selector", "b").exit_code == 0
    assert file.read_text().splitlines()[:-2] == text.splitlines()[:-1]
    assert structure(read_sections(place.config), Settings).dkim_sign.domain[0].subdomains
    assert place.selectors("example.com") == ["a", "b"]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="it is empty"),
        pytest.param("[[dkim-sign.domain]\n", id="it is no TOML"),
        pytest.param('[[dkim-sign.domain]]\nname = "example.com"\nkeys = [{}]\n', id="keys in one line"),
        pytest.param('[[dkim-sign.domain]]\nname = "example.net"\nkeys = [\n]\n', id="another domain"),
        pytest.param('[[dkim-sign.domain]]\nname = "example.com"\nkeys = [\n]\n' * 2, id="two tables"),
        pytest.param(
            'x = """\nkeys = [\n]\n"""\n[[dkim-sign.domain]]\nname = "example.com"\nkeys = []\n', id="in a string"
        ),
        pytest.param("\xff", id="no UTF-8"),
    ],
)
def test_a_file_that_was_changed_otherwise_stays_as_it_is(place: Place, text: str) -> None:
    file = place.file("example.com")
    file.parent.mkdir()
    file.write_bytes(text.encode("latin-1"))
    done = place.new("example.com", "--selector", "b")
    assert done.exit_code == 0, done.output
    assert file.read_bytes() == text.encode("latin-1")
    assert f"{file} is not as it was written here: add the key to it by hand." in done.output
    assert '; name = "example.com"\n' in done.output
    assert (place.folder / "keys" / "example.com" / "b.pem").exists()


ELSEWHERE = '[[dkim-sign.domain]]\nname = "Example.com"\nkeys = [ {{ selector = "old", file = "{key}" }} ]\n'


@pytest.mark.parametrize("where", ["mailward.toml", "conf.d/90-mine.toml", "table"])
def test_a_domain_that_the_operator_configures_is_left_to_him(place: Place, where: str) -> None:
    place.new("other.example", "--selector", "old")
    key = place.folder / "keys" / "other.example" / "old.pem"
    file = place.folder / where
    if where == "table":
        file.write_text(f"example.com old {key}\n")
        place.config.write_text(f'[dkim-sign]\ntable = "{file}"\n')
    else:
        file.write_text(ELSEWHERE.format(key=key))
    before = file.read_text()
    done = place.new("example.com", "--selector", "b")
    assert done.exit_code == 0, done.output
    assert f"; example.com is configured in {file}, which is yours: add the key there.\n" in done.output
    assert f'file = "{place.folder}/keys/example.com/b.pem"' in done.output
    assert file.read_text() == before
    assert not place.file("example.com").exists()


def test_a_name_that_only_covers_the_domain_is_no_configuration_of_it(place: Place) -> None:
    place.new("other.example", "--selector", "old")
    key = place.folder / "keys" / "other.example" / "old.pem"
    place.config.write_text(ELSEWHERE.format(key=key).replace("Example.com", "*"))
    assert place.new("example.com", "--selector", "b").exit_code == 0
    assert place.selectors("example.com") == ["b"]


def test_no_config_prints_the_lines_and_writes_nothing(place: Place) -> None:
    done = place.new("example.com", "--selector", "a", "--no-config")
    assert "; For the configuration (conf.d/*.toml):\n; [[dkim-sign.domain]]\n" in done.output
    assert sorted(each.name for each in place.folder.iterdir()) == ["keys", "mailward.toml"]
    place.config.unlink()
    assert place.new("example.net", "--selector", "a").exit_code == 0, "so it does where there is no configuration"
    assert sorted(each.name for each in place.folder.iterdir()) == ["keys"]


def test_a_configuration_that_cannot_be_read_is_found_before_a_key_is_made(place: Place) -> None:
    place.config.write_text("[dkim-sign\n")
    done = place.new("example.com")
    assert (done.exit_code, [each.name for each in place.folder.iterdir()]) == (EX_CONFIG, ["mailward.toml"])


def test_a_conf_d_that_cannot_be_read_is_found_before_a_key_is_made(place: Place) -> None:
    (place.folder / "conf.d").write_text("a file")
    done = place.new("example.com")
    assert (done.exit_code, "conf.d: cannot be read" in done.output) == (EX_CONFIG, True)
    assert not (place.folder / "keys").exists()


def test_a_file_that_cannot_be_written_is_named_and_the_lines_printed(place: Place) -> None:
    place.file("example.com").mkdir(parents=True)
    done = place.new("example.com", "--selector", "a")
    assert done.exit_code == 1
    assert f"; {place.file('example.com')} cannot be written: " in done.output
    assert '; name = "example.com"' in done.output


def test_a_path_is_written_so_that_it_is_read_as_it_is(place: Place) -> None:
    folder = place.folder / 'a "quoted" \\ folder é'
    options = ["--keys", str(folder), "--config", str(place.config), "--selector", "a"]
    done = CliRunner().invoke(main, ["keys", "new", "example.com", *options])
    assert done.exit_code == 0, done.output
    assert place.selectors("example.com") == ["a"]
    refused = CliRunner().invoke(
        main, ["keys", "new", "example.com", "--keys", f"{folder}\n[x]", "--config", str(place.config)]
    )
    assert (refused.exit_code, "printable characters" in refused.output) == (2, True)


def test_a_relative_folder_is_written_whole(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.folder)
    done = CliRunner().invoke(
        main, ["keys", "new", "example.com", "--keys", "keys", "--config", str(place.config), "--selector", "a"]
    )
    assert done.exit_code == 0, done.output
    (key,) = structure(read_sections(place.config), Settings).dkim_sign.domain[0].keys
    assert key.file == place.folder / "keys" / "example.com" / "a.pem"


def test_keys_made_at_once_are_all_there(place: Place) -> None:
    options = ["--config", str(place.config), "--keys", str(place.folder / "keys"), "--ed25519"]
    selectors = [f"s{number}" for number in range(4)]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "postmaster", "keys", "new", "example.com", *options, "--selector", selector],
            stdout=subprocess.DEVNULL,
            cwd=Path(__file__).parents[2],
        )
        for selector in selectors
    ]
    assert [each.wait(60) for each in started] == [0] * len(started)
    assert sorted(place.selectors("example.com")) == selectors


NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)


@given(st.lists(NAMES, min_size=1, max_size=5, unique=True), st.booleans())
def test_keys_add_up_in_their_order(selectors: list[str], has_comma: bool) -> None:
    text = HEAD + lines_for("example.com", selectors[0], Path("/k/0.pem"))
    for number, selector in enumerate(selectors[1:], 1):
        text = text if has_comma else text.replace("},\n]", "}\n]")
        text = with_key(text.encode(), "example.com", selector, Path(f"/k/{number}.pem"))
    (table,) = tomllib.loads(text)["dkim-sign"]["domain"]
    assert table["keys"] == [
        {"selector": selector, "file": f"/k/{number}.pem"} for number, selector in enumerate(selectors)
    ]


@given(
    st.binary(max_size=60),
    st.sampled_from([b"", HEAD.encode() + b'[[dkim-sign.domain]]\nname = "example.com"\nkeys = [\n']),
)
def test_any_octets_are_taken_or_refused(octets: bytes, before: bytes) -> None:
    try:
        text = with_key(before + octets, "example.com", "s", Path("/k.pem"))
    except NotOurs:
        return
    assert tomllib.loads(text)["dkim-sign"]["domain"][0]["keys"][-1] == {"selector": "s", "file": "/k.pem"}


SYSTEMCTL = """\
#!/bin/sh
echo "$@" >> {folder}/asked
case "$1" in
  is-active) exit {is_inactive} ;;
  reload) {reload} ;;
esac
"""


def with_systemd(place: Place, monkeypatch: pytest.MonkeyPatch, reload: str, *, is_inactive: int = 0) -> None:
    """Have a systemctl that does what `reload` says."""
    systemctl = place.folder / "bin" / "systemctl"
    systemctl.parent.mkdir()
    systemctl.write_text(SYSTEMCTL.format(folder=place.folder, is_inactive=is_inactive, reload=reload))
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{systemctl.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(postmaster.keys, "has_systemd", lambda: True)


@pytest.mark.parametrize(
    ("reload", "is_inactive", "says"),
    [
        pytest.param("exit 0", 0, "the signer reads it now", id="it runs"),
        pytest.param("exit 1", 0, "the signer was not reloaded: run systemctl reload", id="it cannot be told"),
        pytest.param("exit 0", 3, "the signer reads it at its next start or HUP", id="it does not run"),
    ],
)
def test_a_signer_that_systemd_runs_is_told(
    place: Place, monkeypatch: pytest.MonkeyPatch, reload: str, is_inactive: int, says: str
) -> None:
    with_systemd(place, monkeypatch, reload, is_inactive=is_inactive)
    assert says in place.new("example.com").output
    asked = (place.folder / "asked").read_text().splitlines()
    assert asked[0] == "is-active --quiet mailward-dkim-sign.service"
    assert asked[1:] == ([] if is_inactive else ["reload mailward-dkim-sign.service"])


def test_a_running_signer_signs_with_a_fresh_key_without_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = [(b"From", b" a@fresh.example"), (b"To", b" b@example.net"), (b"Subject", b" hi")]
    with open_folder() as folder:
        signer = Signer(folder)
        signer.start()
        try:
            assert signer.send(fields).inserted() == []
            place = Place(folder, signer.config.read_text())
            with_systemd(place, monkeypatch, f"kill -HUP {signer.pid}")
            assert place.new("fresh.example", "--selector", "new").exit_code == 0
            signatures: list[bytes] = []  # of the first message that has one: a worker from before may take the next

            def is_signed() -> bool:
                signatures[:] = signer.send(fields).inserted()
                return bool(signatures)

            wait_until(is_signed, "the fresh key signs")
            (signature,) = signatures
            assert b"d=fresh.example" in signature
            assert b"s=new" in signature
            assert len(signer.sign()) == 2, "the other domain's keys sign as before"
        finally:
            signer.stop()
