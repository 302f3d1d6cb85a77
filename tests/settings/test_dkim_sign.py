"""`[dkim-sign]` and the files it names: safe defaults, what is refused, and one policy out of domains and tables."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mailward.auth.dkim_sign import SigningRules
from mailward.auth.keys import generate_ed25519
from mailward.model.errors import ConfigError
from mailward.policy.signing import KeyRef, SigningPolicy
from mailward.settings.common import MAX_WORKERS
from mailward.settings.dkim_sign import Settings
from mailward.settings.load import read_sections, structure
from mailward.settings.signing_keys import read_signing_policy
from mailward.settings.values import Port, SocketAddress

PEM = generate_ed25519().to_pem()


class Signer:
    """A signer's configuration in a folder of its own; `{folder}` in a text is that folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "mailward.toml"
        (folder / "conf.d").mkdir()
        self.key("a.pem")

    def key(self, name: str, mode: int = 0o600) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(PEM)
        path.chmod(mode)
        return path

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.folder / name
        octets = text.encode() if isinstance(text, str) else text
        path.write_bytes(octets.replace(b"{folder}", os.fsencode(self.folder)))
        return path

    def settings(self, text: str) -> Settings:
        self.write("mailward.toml", text)
        return structure(read_sections(self.config), Settings)

    def policy(self, text: str) -> SigningPolicy:
        return read_signing_policy(self.settings(text))

    def mistakes(self, text: str) -> list[str]:
        """Return all that is wrong, each as `file: key: expected` with the file's name alone."""
        with pytest.raises(ConfigError) as caught:
            self.policy(text)
        return [str(mistake).replace(f"{self.folder}/", "") for mistake in caught.value.mistakes]


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path)


def test_the_defaults_are_safe(signer: Signer) -> None:
    settings = signer.settings("")
    table = settings.dkim_sign
    assert table.socket == SocketAddress("/var/spool/postfix/mailward/dkim-sign.sock", "", 0)
    assert table.metrics == Port("127.0.0.1", 9461)
    assert not stat.S_IMODE(table.socket_mode) & 0o007
    assert all(network.is_loopback for network in table.networks)
    assert {network.version for network in table.networks} == {4, 6}
    assert table.on_key_error == "tempfail"
    assert table.rules() == SigningRules()
    assert str(table.rules().canonicalizations) == "relaxed/relaxed"
    assert "from" in table.oversigned
    assert table.rules().expire_seconds == 0
    assert settings.dns.nameservers == ()
    assert settings.dns.timeout <= settings.dns.deadline


def test_an_empty_metrics_switches_the_page_off(signer: Signer) -> None:
    assert signer.settings('[dkim-sign]\nmetrics = ""').dkim_sign.metrics is None


def test_an_empty_socket_is_a_mistake(signer: Signer) -> None:
    assert len(signer.mistakes('[dkim-sign]\nsocket = ""')) == 1


def test_what_is_configured_is_what_the_signatures_cover(signer: Signer) -> None:
    rules = signer.settings(
        '[dkim-sign]\ncanonicalization = "simple/relaxed"\noversigned = ["from"]\noversigned_if_present = []\n'
        'signed = ["x-*"]\nexpire = "2w"\n'
    ).dkim_sign.rules()
    assert str(rules.canonicalizations) == "simple/relaxed"
    assert (rules.oversigned, rules.oversigned_if_present, rules.signed) == (("from",), (), ("x-*",))
    assert rules.expire_seconds == 14 * 86400
    assert signer.settings('[dkim-sign]\nexpire = "100ms"').dkim_sign.rules().expire_seconds == 1  # 0 is without x=


def test_the_other_programs_tables_are_theirs_to_judge(signer: Signer) -> None:
    settings = signer.settings("[auth-verify]\nx = 1\n[greylist]\ny = [1]\n[policyd]\n[[policyd.limit]]\nz = {}\n")
    assert settings.dkim_sign.log_level == "info"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param('networks = ["0.0.0.0/0"]', "networks: expected networks that are yours", id="the whole Internet"),
        pytest.param('signed = ["received"]', 'signed: "received" changes on the way', id="Received"),
        pytest.param('signed = ["arc-seal"]', 'signed: "arc-seal" changes on the way', id="ARC"),
        pytest.param('signed = ["re*"]', 'signed: "re*" ', id="a family that has Received in it"),
        pytest.param('signed = ["arc*"]', 'signed: "arc*" ', id="a family that has ARC-Seal in it"),
        pytest.param(
            'oversigned = ["from", "return-path"]',
            'oversigned: "return-path" changes on the way',
            id="Return-Path oversigned",
        ),
        pytest.param(
            'oversigned_if_present = ["dkim-signature"]',
            "oversigned_if_present:",
            id="DKIM-Signature oversigned if present",
        ),
        pytest.param('oversigned = ["to"]', 'oversigned: expected "from" among them', id="From not oversigned"),
        pytest.param("oversigned = []", 'oversigned: expected "from" among them', id="nothing oversigned"),
        pytest.param('oversigned = ["from", "x-*"]', "lower case", id="a family oversigned"),
        pytest.param('signed = ["Subject"]', 'lower case, found "Subject"', id="capitals"),
        pytest.param('signed = ["*"]', "lower case", id="every field"),
        pytest.param('signed = [""]', "lower case", id="no name"),
        pytest.param('signed = ["a:b"]', "lower case", id="a colon"),
        pytest.param('signed = ["\u00fc"]', "lower case", id="no ASCII"),
        pytest.param('signed = ["a\\u0001"]', "dkim-sign.signed", id="a control character (RFC 5322 3.6.8)"),
        pytest.param('canonicalization = "relaxed"', "canonicalization: expected one of", id="half a canonicalization"),
        pytest.param('on_key_error = "reject"', "on_key_error: expected one of tempfail, accept", id="never a reject"),
        pytest.param('log_level = "loud"', "log_level: expected one of debug", id="log level"),
        pytest.param(f"workers = {MAX_WORKERS + 1}", "workers: expected 1 to 64", id="too many workers"),
        pytest.param("workers = -1", "workers: expected 1 to 64", id="fewer than none"),
        pytest.param(
            "max_sessions = 1_000_000_000", "max_sessions: expected at most 5000", id="more than files can be open"
        ),
        pytest.param(
            'worker_timeout = "1w"', "worker_timeout: expected at most 1h", id="a worker that may hang for ever"
        ),
        pytest.param('drain_timeout = "2d"', "drain_timeout: expected at most 1d", id="a stop that never comes"),
        pytest.param('reload_timeout = "2d"', "reload_timeout: expected at most 1d", id="an old generation that stays"),
        pytest.param('expire = "999999999w"', "expire: expected at most 3650d", id="x= of too many digits"),
        pytest.param("key_cache = 0", "key_cache: expected at least 1", id="no cache"),
        pytest.param('worker_timeout = "1s"', "worker_timeout: expected at least 2s", id="an impatient supervisor"),
        pytest.param(
            'publication_interval = "0s"', "publication_interval: expected at least 1s", id="asking all the time"
        ),
        pytest.param(
            '[dns]\nnameservers = ["dns.example"]', "dns.nameservers: expected IP addresses", id="a name as nameserver"
        ),
        pytest.param('[dns]\nnameservers = ["9.9.9.9:x"]', 'found "9.9.9.9:x"', id="a port that is none"),
        pytest.param('[dns]\ntimeout = "1ms"', "dns.timeout: expected at least 50ms", id="no time for an answer"),
        pytest.param(
            '[[dkim-sign.domain]]\nname = "x.example"\nkeys = []',
            "domain[0].keys: expected at least one key",
            id="no key",
        ),
        pytest.param(
            '[[dkim-sign.domain]]\nname = "x..example"\nkeys = [{selector = "s", file = "{folder}/a.pem"}]',
            "domain[0].name: expected a domain name",
            id="a domain that is none",
        ),
        pytest.param(
            '[[dkim-sign.domain]]\nname = "x.example"\nkeys = [{selector = "-", file = "{folder}/a.pem"}]',
            "domain[0].keys[0].selector: expected a domain name",
            id="a selector that is none",
        ),
        pytest.param('table = "{folder}/no"', "no: dkim-sign.table: cannot be read: No such file", id="no table"),
        pytest.param('logins = "{folder}/no"', "no: dkim-sign.logins: cannot be read: No such file", id="no logins"),
    ],
)
def test_what_is_refused(signer: Signer, line: str, expected: str) -> None:
    (mistake,) = signer.mistakes(f"[dkim-sign]\n{line}\n")
    assert expected in mistake


DOMAIN = '[[dkim-sign.domain]]\nname = "{name}"\nkeys = [{ selector = "s", file = "{folder}/{file}" }]\n'


def domain(name: str, file: str = "a.pem") -> str:
    return DOMAIN.replace("{name}", name).replace("{file}", file)


def test_a_key_file_that_everyone_can_open_is_named_with_its_key(signer: Signer) -> None:
    signer.key("open.pem", 0o644)
    assert signer.mistakes(domain("x.example") + domain("y.example", "open.pem") + domain("z.example", "none.pem")) == [
        "mailward.toml: dkim-sign.domain[1].keys[0].file: "
        "open.pem: everyone can open it (mode 0644); expected at most 0640",
        "mailward.toml: dkim-sign.domain[2].keys[0].file: none.pem: cannot be read: No such file or directory",
    ]


@pytest.mark.parametrize("text", [domain("x.example", "none.pem"), domain("x..example")], ids=["key file", "name"])
def test_a_mistake_in_conf_d_names_its_file(signer: Signer, text: str) -> None:
    signer.write("conf.d/x.toml", text)
    (mistake,) = signer.mistakes(domain("y.example"))
    assert mistake.startswith("conf.d/x.toml: dkim-sign.domain[1].")


def selectors(policy: SigningPolicy, author_domain: str) -> list[tuple[str, str]]:
    return [(ref.signing_domain, ref.selector) for ref in policy.table.lookup(author_domain)]


def test_domains_and_table_make_one_policy(signer: Signer) -> None:
    signer.write("table", "# ours\nx.example t {folder}/a.pem\n.y.example t a.pem\n* any a.pem hoster.example\n")
    signer.write("logins", "@x.example x.example\n")
    policy = signer.policy(
        '[dkim-sign]\ntable = "{folder}/table"\nlogins = "{folder}/logins"\nnetworks = ["192.0.2.0/24"]\n'
        + domain("X.example")
        + domain("y.example")
        + "subdomains = true\n"
    )
    assert selectors(policy, "x.example") == [("x.example", "s"), ("x.example", "t")]
    assert selectors(policy, "y.example") == [("y.example", "s")]
    assert selectors(policy, "a.y.example") == [("y.example", "s"), ("y.example", "t")]
    assert selectors(policy, "z.example") == [("hoster.example", "any")]
    assert policy.rights is not None
    assert policy.rights.permit("a@x.example", "x.example")
    assert not policy.rights.permit("a@x.example", "y.example")
    assert [str(network) for network in policy.networks] == ["192.0.2.0/24"]


def test_without_logins_file_there_are_no_rights_to_ask_for(signer: Signer) -> None:
    policy = signer.policy(domain("*"))
    assert policy.rights is None
    assert selectors(policy, "any.example") == [("any.example", "s")]


def test_key_files_of_a_table_are_relative_to_its_folder(signer: Signer) -> None:
    key = signer.key("sub/b.pem")
    signer.write("sub/table", f"x.example s b.pem\ny.example s {key}\n")
    keys = signer.policy('[dkim-sign]\ntable = "{folder}/sub/table"\n').table.keys
    assert keys == {name: (KeyRef(name, "s", str(key)),) for name in ("x.example", "y.example")}


def test_mistakes_in_both_tables_are_found_in_one_go_with_their_lines(signer: Signer) -> None:
    signer.key("open.pem", 0o604)
    signer.write("table", "x.example s a.pem\n\ny.example s\nz.example s open.pem\n")
    signer.write("logins", "# who\nalice\nbob x.example\ncarol a..b\n")
    text = '[dkim-sign]\ntable = "{folder}/table"\nlogins = "{folder}/logins"\n'
    assert [mistake.partition(": expected")[0] for mistake in signer.mistakes(text)] == [
        "table: line 3",
        "table: z.example: open.pem: everyone can open it (mode 0604); expected at most 0640",
        "logins: line 2",
        "logins: line 4",
    ]


@pytest.mark.parametrize(
    ("content", "mistake"),
    [
        pytest.param(b"# \xff\n", "table: octet 2: expected UTF-8 text", id="no UTF-8"),
        pytest.param(b"#" * 20_000 + b"\xff", "table: octet 20000: expected UTF-8 text", id="no UTF-8, further down"),
        pytest.param(b"# a\x0cpage\nx\n", "table: line 2: expected PATTERN", id="a form feed ends no line"),
        pytest.param("# a\u2028b\nx\n".encode(), "table: line 2: expected PATTERN", id="nor does U+2028"),
        pytest.param(b"# x\r\nx\r\n", "table: line 2: expected PATTERN", id="CRLF ends one"),
        pytest.param(b"x.example s a\x00b\n", "table: ", id="NUL in a file's name"),
    ],
)
def test_odd_octets_in_a_table(signer: Signer, content: bytes, mistake: str) -> None:
    signer.write("table", content)
    (found,) = signer.mistakes('[dkim-sign]\ntable = "{folder}/table"\n')
    assert found.startswith(mistake)
