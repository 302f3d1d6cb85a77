"""`mailward keys`: what it writes, what it prints for the zone, and what the DNS says to it, by exit status."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import dns.rdatatype
import dns.zone
import pytest
from click.testing import CliRunner, Result

from mailward.auth.dkim import compare_record
from mailward.auth.keys import Algorithm, PrivateKey, generate_ed25519, generate_rsa, load_private_key
from mailward.model.results import Publication
from postmaster.__main__ import main
from postmaster.keys import zone_record
from tests.support.nameserver import Nameserver, txt_record
from tests.support.processes import open_folder

EX_TEMPFAIL, EX_CONFIG = 75, 78
RSA, OTHER, ED25519 = generate_rsa(2048), generate_rsa(2048), generate_ed25519()


def mailward(*arguments: str | Path) -> Result:
    """Run the command; `output` is stdout and stderr, in one with every click."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def new(*arguments: str | Path) -> Result:
    """Make a key, and touch no configuration of this machine's."""
    return mailward("keys", "new", *arguments, "--no-config")


def records_of(zone_text: str) -> dict[str, list[bytes]]:
    """Read the text as a zone file, as a nameserver would; return each name's TXT strings."""
    zone = dns.zone.from_text(zone_text, origin=".", relativize=False, check_origin=False)
    found: dict[str, list[bytes]] = {}
    for name, _, record in zone.iterate_rdatas(dns.rdatatype.TXT):
        assert str(name) not in found
        found[str(name)] = list(record.strings)  # type: ignore[attr-defined]
    return found


def publishes(zone_text: str, name: str, key: PrivateKey) -> bool:
    strings = records_of("$TTL 60\n" + zone_text)[name]
    assert all(len(string) <= 255 for string in strings)
    return compare_record((b"".join(strings),), key).state is Publication.PUBLISHED


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


@pytest.mark.parametrize(
    ("options", "algorithm", "bits"),
    [
        pytest.param([], Algorithm.RSA_SHA256, 2048, id="RSA of 2048 bits is the default"),
        pytest.param(["--rsa", "3072"], Algorithm.RSA_SHA256, 3072, id="RSA of 3072 bits"),
        pytest.param(["--ed25519"], Algorithm.ED25519_SHA256, 256, id="Ed25519"),
    ],
)
def test_a_new_key_is_written_and_its_record_printed(
    folder: Path, options: list[str], algorithm: Algorithm, bits: int
) -> None:
    done = new("Example.COM", "--selector", "2026a", "--keys", folder, *options)
    assert done.exit_code == 0, done.output
    path = folder / "example.com" / "2026a.pem"
    key = load_private_key(path.read_bytes())
    assert (key.algorithm, key.bits) == (algorithm, bits)
    assert not path.stat().st_mode & 0o007
    assert publishes(done.output, "2026a._domainkey.example.com.", key)
    assert f'file = "{path}"' in done.output
    assert "PRIVATE" not in done.output


@pytest.mark.parametrize("key", [RSA, generate_rsa(4096), ED25519], ids=["RSA 2048", "RSA 4096", "Ed25519"])
def test_a_record_is_a_zone_files_line(key: PrivateKey) -> None:
    text = zone_record("s", "example.com", key)
    assert publishes(text, "s._domainkey.example.com.", key)
    assert max(len(line) for line in text.splitlines()) < 400


def test_the_configuration_that_is_printed_makes_the_signer_use_the_key(folder: Path) -> None:
    done = new("example.com", "--keys", folder / "keys")
    lines = done.output.partition("[[dkim-sign.domain]]")[2].partition("; Next")[0].splitlines()
    config = folder / "mailward.toml"
    config.write_text("[[dkim-sign.domain]]\n" + "\n".join(line.removeprefix("; ") for line in lines))
    shown = mailward("keys", "show", "--config", config)
    assert shown.exit_code == 0, shown.output
    assert records_of("$TTL 60\n" + shown.output) == records_of("$TTL 60\n" + done.output)


@pytest.mark.parametrize(
    ("options", "selector"), [([], "[0-9]{6}"), (["--ed25519"], "[0-9]{6}-ed")], ids=["RSA", "Ed25519"]
)
def test_the_default_selector_is_this_month(folder: Path, options: list[str], selector: str) -> None:
    assert new("example.com", "--keys", folder, *options).exit_code == 0
    (path,) = (folder / "example.com").iterdir()
    assert re.fullmatch(selector + r"\.pem", path.name)


def test_an_existing_key_is_never_overwritten(folder: Path) -> None:
    first = new("example.com", "--selector", "s", "--keys", folder)
    path = folder / "example.com" / "s.pem"
    before = path.read_bytes()
    again = new("example.com", "--selector", "S", "--keys", folder, "--ed25519")
    assert (first.exit_code, again.exit_code) == (0, 1)
    assert f"{path} exists and stays as it is" in again.output
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["s.pem"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        pytest.param(["example.com", "--rsa", "2048", "--ed25519"], "exclude each other", id="two kinds at once"),
        pytest.param(["example.com", "--rsa", "1024"], "1024", id="a weak key"),
        pytest.param(["example..com"], "DOMAIN: expected a domain name", id="a domain that is none"),
        pytest.param(["../../etc"], "DOMAIN: expected a domain name", id="a path for a domain"),
        pytest.param(["a@example.com"], "DOMAIN: expected a domain name", id="an address for a domain"),
        pytest.param(
            ["example.com", "--selector", "../x"], "--selector: expected a domain name", id="a path for a selector"
        ),
        pytest.param([], "DOMAIN", id="no domain"),
    ],
)
def test_wrong_options_write_nothing(folder: Path, arguments: list[str], why: str) -> None:
    done = new(*arguments, "--keys", folder / "keys")
    assert done.exit_code == 2
    assert why in done.output
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(folder: Path) -> None:
    (folder / "keys").write_text("a file")
    done = new("example.com", "--selector", "s", "--keys", folder / "keys")
    assert done.exit_code == 1
    assert "s.pem cannot be written: Not a directory" in done.output


DOMAIN = '[[dkim-sign.domain]]\nname = "{name}"\nkeys = [{keys}]\n'


class Postmaster:
    """A configuration with keys, and the nameserver it asks."""

    def __init__(self, folder: Path, nameserver: str = "127.0.0.1:9") -> None:
        self.folder = folder
        self.config = folder / "mailward.toml"
        self.config.write_text(f'[dns]\nnameservers = ["{nameserver}"]\ntimeout = "2s"\ndeadline = "4s"\n')

    def add(self, name: str, **keys: PrivateKey) -> None:
        """Configure a domain with a key for each selector."""
        entries = []
        for selector, key in keys.items():
            path = self.folder / f"{selector}.pem"
            path.write_bytes(key.to_pem())
            path.chmod(0o600)
            entries.append(f'{{ selector = "{selector}", file = "{path}" }}')
        with self.config.open("a") as file:
            file.write(DOMAIN.replace("{name}", name).replace("{keys}", ", ".join(entries)))

    def run(self, command: str, *arguments: str) -> Result:
        return mailward("keys", command, "--config", self.config, *arguments)


def test_show_prints_every_configured_key_once_or_one_domains(folder: Path) -> None:
    postmaster = Postmaster(folder)
    postmaster.add("example.com", a=RSA, b=ED25519)
    postmaster.add(".example.com", a=RSA)
    postmaster.add("example.net", c=OTHER)
    done = postmaster.run("show")
    assert done.exit_code == 0, done.output
    assert sorted(records_of("$TTL 60\n" + done.output)) == [
        f"{name}." for name in ("a._domainkey.example.com", "b._domainkey.example.com", "c._domainkey.example.net")
    ]
    assert publishes(done.output, "c._domainkey.example.net.", OTHER)
    only = postmaster.run("show", "Example.NET")
    assert list(records_of("$TTL 60\n" + only.output)) == ["c._domainkey.example.net."]


def test_show_says_which_key_cannot_be_used_and_prints_the_others(folder: Path) -> None:
    postmaster = Postmaster(folder)
    postmaster.add("example.com", a=RSA, b=ED25519)
    (folder / "a.pem").write_text("garbage")
    done = postmaster.run("show")
    assert done.exit_code == 1
    assert f"{folder}/a.pem: no private key" in done.output
    assert "b._domainkey.example.com. IN TXT" in done.output


@pytest.mark.parametrize("command", ["show", "verify"])
def test_a_domain_without_keys_is_not_well(folder: Path, command: str) -> None:
    postmaster = Postmaster(folder)
    assert "no key is configured" in postmaster.run(command).output
    postmaster.add("example.com", a=ED25519)
    done = postmaster.run(command, "example.org")
    assert (done.exit_code, "no key is configured for example.org" in done.output) == (1, True)
    assert postmaster.run(command, "example..org").exit_code == 2


@pytest.mark.parametrize("command", ["show", "verify"])
def test_a_wrong_configuration_has_a_line_for_each_mistake(folder: Path, command: str) -> None:
    postmaster = Postmaster(folder)
    postmaster.add("example.com", a=ED25519)
    (folder / "a.pem").chmod(0o644)
    with postmaster.config.open("a") as file:
        file.write("[greylsit]\n")
    done = postmaster.run(command)
    assert done.exit_code == EX_CONFIG
    lines = done.output.splitlines()
    assert len(lines) == 2
    assert f"mailward: {postmaster.config}: greylsit: unknown key" in lines[0]
    assert "everyone can open it" in lines[1]
    postmaster.config.unlink()
    assert postmaster.run(command).exit_code == EX_CONFIG


@pytest.fixture(scope="module")
def nameserver() -> Iterator[Nameserver]:
    zone = [
        txt_record("good._domainkey", RSA.record),
        txt_record("ed._domainkey", ED25519.record),
        txt_record("changed._domainkey", OTHER.record),
        'revoked._domainkey IN TXT "v=DKIM1; p="',
    ]
    with open_folder() as folder:
        nameserver = Nameserver(folder / "nsd", {"test.example": "\n".join(zone)})
        nameserver.start()
        try:
            yield nameserver
        finally:
            nameserver.stop()


@pytest.mark.parametrize(
    ("keys", "states", "status"),
    [
        pytest.param({"good": RSA}, ["published"], 0, id="published"),
        pytest.param({"good": RSA, "ed": ED25519}, ["published", "published"], 0, id="both published"),
        pytest.param({"absent": RSA}, ["missing"], 1, id="missing"),
        pytest.param({"changed": RSA}, ["different"], 1, id="another key"),
        pytest.param({"revoked": RSA}, ["different"], 1, id="revoked"),
        pytest.param({"good": RSA, "absent": ED25519}, ["published", "missing"], 1, id="one of two"),
    ],
)
def test_verify_asks_the_dns(
    folder: Path, nameserver: Nameserver, keys: dict[str, PrivateKey], states: list[str], status: int
) -> None:
    postmaster = Postmaster(folder, nameserver.address)
    postmaster.add("test.example", **keys)
    done = postmaster.run("verify")
    assert done.exit_code == status, done.output
    lines = [line.split()[:2] for line in done.output.splitlines()]
    assert lines == [[state, f"{key}._domainkey.test.example"] for state, key in zip(states, keys, strict=True)]


def test_verify_cannot_speak_for_a_domain_it_does_not_know(folder: Path, nameserver: Nameserver) -> None:
    postmaster = Postmaster(folder, nameserver.address)
    postmaster.add("*", good=RSA)
    done = postmaster.run("verify")
    assert done.exit_code == 1
    assert done.output.startswith("unusable")


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        pytest.param("*", "test.example", id="any domain"),
        pytest.param(".test.example", "news.test.example", id="below a domain"),
    ],
)
def test_a_domain_is_shown_the_keys_that_sign_for_it(
    folder: Path, nameserver: Nameserver, name: str, asked: str
) -> None:
    postmaster = Postmaster(folder, nameserver.address)
    postmaster.add(name, good=RSA)
    postmaster.add("example.net", c=OTHER)
    done = postmaster.run("verify", asked)
    assert (done.exit_code, done.output.split()) == (0, ["published", "good._domainkey.test.example"])
    shown = postmaster.run("show", asked)
    assert shown.exit_code == 0
    assert publishes(shown.output, "good._domainkey.test.example.", RSA)
    assert list(records_of("$TTL 60\n" + shown.output)) == ["good._domainkey.test.example."]


def test_with_the_dns_away_nothing_can_be_said(folder: Path, nameserver: Nameserver) -> None:
    postmaster = Postmaster(folder, nameserver.address)
    postmaster.config.write_text(postmaster.config.read_text().replace('"2s"', '"200ms"').replace('"4s"', '"400ms"'))
    postmaster.add("test.example", good=RSA)
    nameserver.stop()
    try:
        done = postmaster.run("verify")
        assert (done.exit_code, done.output.split()[:2]) == (EX_TEMPFAIL, ["unknown", "good._domainkey.test.example"])
        (folder / "good.pem").write_text("garbage")
        assert postmaster.run("verify").exit_code == 1
    finally:
        nameserver.start()
    assert postmaster.run("verify").exit_code == 1
