"""`[policyd]`: safe defaults, what is refused, and the rules that come of it."""

from __future__ import annotations

import datetime
import stat
from pathlib import Path

import pytest

from mailward.daemon.metrics import NAMED_SLOTS
from mailward.model.errors import ConfigError
from mailward.model.limits import Window
from mailward.model.state import Durability
from mailward.policy.limits import DEFAULT_LIMITS, MAX_LIMITS, Act, Count, RuleSet, WarmUp
from mailward.settings.load import read_sections, structure
from mailward.settings.policyd import Settings, check_state
from mailward.settings.rule_set import read_rule_set
from mailward.settings.values import Port, SocketAddress
from policyd.__main__ import read_configured

HOUR, DAY = 3600.0, 86400.0
MAIL = '[[policyd.limit]]\nname = "mail"\nlimit = "100/1h"\n'


def read(folder: Path, text: str) -> Settings:
    file = folder / "mailward.toml"
    file.write_text(text, encoding="utf-8")
    return structure(read_sections(file), Settings)


def rules(folder: Path, text: str) -> RuleSet:
    return read_rule_set(read(folder, text).policyd)


def mistakes(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        rules(folder, text)
    return [f"{Path(one.file).name}: {one.where}: {one.expected}" for one in caught.value.mistakes]


def test_a_fresh_install_protects(tmp_path: Path) -> None:
    settings = read(tmp_path, "")
    table = settings.policyd
    assert table.socket == SocketAddress("/var/spool/postfix/mailward/policyd.sock", "", 0)
    assert (table.metrics, table.dovecot, table.workers) == (Port("127.0.0.1", 9464), None, 1)
    assert not stat.S_IMODE(table.socket_mode) & 0o007
    assert (table.on_store_error, table.store_timeout, table.correspondents) == ("dunno", 0.5, 60 * DAY)
    assert (table.incidents.quiet, table.incidents.mail_to) == (HOUR, ("postmaster",))
    assert read_rule_set(table) == RuleSet(DEFAULT_LIMITS)
    assert Durability(settings.durability) is Durability.PROCESS


def test_as_many_limits_as_have_a_label() -> None:
    assert MAX_LIMITS == NAMED_SLOTS


def test_a_limit_in_all_its_parts(tmp_path: Path) -> None:
    rule_set = rules(
        tmp_path,
        """[policyd]
tighten = 0.5
on_store_error = "defer"
correspondents = "0s"
[[policyd.limit]]
name = "new-address"
per = ["sasl_username", "recipient_domain"]
match = { client_address = ["192.0.2.0/24"], server_port = 587, sender = "!@own.example" }
count = "recipients"
limit = ["500/1d", "100/1h"]
action = "reject"
text = "Wait {wait}"
shadow = true
warm_up = { start = 2026-11-01T00:00:00Z, first = 50, double_every = "3d" }
""",
    )
    (limit,) = rule_set.limits
    assert (limit.name, limit.per, limit.count) == (
        "new-address",
        ("sasl_username", "recipient_domain"),
        Count.RECIPIENTS,
    )
    assert limit.windows == (Window(100, HOUR), Window(500, DAY))
    assert (limit.act, limit.text, limit.is_shadow, limit.suspend_after) == (Act.REJECT, "Wait {wait}", True, 0)
    assert limit.warm_up == WarmUp(datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC).timestamp(), 50, 3 * DAY)
    assert limit.match.matches({"client_address": "192.0.2.7", "server_port": "587"})
    assert not limit.match.matches({"client_address": "192.0.2.7", "server_port": "25"})
    assert not limit.match.matches({"client_address": "192.0.2.7", "server_port": "587", "sender": "a@own.example"})
    assert (rule_set.tighten, rule_set.defers_on_store_error, rule_set.records_correspondents) == (0.5, True, False)


def test_a_date_is_the_midnight_of_this_machine(tmp_path: Path) -> None:
    text = MAIL + 'warm_up = { start = 2026-11-01, first = 50, double_every = "3d" }'
    warm_up = rules(tmp_path, text).limits[0].warm_up
    assert warm_up is not None
    assert warm_up.start == datetime.datetime(2026, 11, 1).timestamp()


def test_octets_have_units(tmp_path: Path) -> None:
    (limit,) = rules(tmp_path, '[[policyd.limit]]\nname = "b"\ncount = "bytes"\nlimit = ["50MB/1h", "1GB/1d"]').limits
    assert limit.windows == (Window(50_000_000, HOUR), Window(10**9, DAY))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param('limit = "100"', 'limit: expected so many in a time, such as "100/1h"', id="no window"),
        pytest.param('limit = "100/hour"', "limit: expected so many in a time", id="a window in words"),
        pytest.param("limit = 100", "limit: expected so many in a time", id="a number"),
        pytest.param("limit = []", "limit: expected 1 to 5 windows", id="no windows"),
        pytest.param(
            f"limit = {[f'{n}/{n}h' for n in range(1, 7)]}", "limit: expected 1 to 5 windows", id="too many windows"
        ),
        pytest.param('limit = "1/59s"', "limit: expected windows of 1m to 30d", id="a window too short"),
        pytest.param('limit = "1/31d"', "limit: expected windows of 1m to 30d", id="a window too long"),
        pytest.param('limit = ["1/1h", "2/60m"]', "limit: expected windows of different lengths", id="twice the same"),
        pytest.param('limit = ["100/1h", "50/1d"]', "limit: expected a longer window", id="a window never reached"),
        pytest.param(
            'limit = "5MB/1h"', "limit: expected a plain number: this counts messages", id="octets of messages"
        ),
        pytest.param(
            'count = "first-time-recipients"\nlimit = "2049/1d"', "limit: expected at most 2048", id="new ones"
        ),
        pytest.param(
            'count = "distinct-recipients"\nlimit = "2049/1d"', "limit: expected at most 2048", id="different"
        ),
        pytest.param('name = "A b"', "name: expected a name of a-z", id="a name"),
        pytest.param('name = "known"', "name: expected another name", id="a reserved name"),
        pytest.param('per = "sasl_user"', "per: expected sasl_username, sasl_domain, sender", id="a subject"),
        pytest.param('per = ["all", "sender"]', "per: expected one subject, or several", id="all and more"),
        pytest.param("per = []", "per: expected one subject, or several", id="nobody"),
        pytest.param('count = "mails"', "count: expected one of messages, recipients", id="what is counted"),
        pytest.param('action = "drop"', "action: expected one of defer, reject, hold, log", id="an action"),
        pytest.param('text = "{login} stop"', "text: expected no braces but those of {limit} and {wait}", id="braces"),
        pytest.param('text = "4.7.1 stop"', "text: expected no reply code", id="a code"),
        pytest.param('text = "h\u00f6r auf"', "text: expected at most 200 characters of ASCII", id="no ASCII"),
        pytest.param("suspend_after = -1", "suspend_after: expected 0 (never) to 1000000", id="a negative number"),
        pytest.param(
            'per = "client_address"\nsuspend_after = 1', 'suspend_after: expected "sasl_username" in per', id="nobody's"
        ),
        pytest.param(
            "shadow = true\nsuspend_after = 1", "suspend_after: expected no shadow", id="a shadow that suspends"
        ),
        pytest.param(
            'match = { client_adress = "*" }', 'match: "client_adress" is no attribute', id="a slip of the pen"
        ),
        pytest.param('match = { sender = "example.com" }', "match: sender: expected an address, or", id="no address"),
        pytest.param('match = { client_address = "0.0.0.0/0" }', "match: client_address: expected", id="the Internet"),
        pytest.param("match = { sender = [] }", "match: expected 1 to 1000 patterns for sender", id="no patterns"),
        pytest.param(
            'match = { sender = "file:list" }', "match: sender: expected a file with its whole path", id="a path"
        ),
        pytest.param('match = "x"', "match: expected a table of patterns", id="no table"),
        pytest.param(
            'match = { protocol_state = "MAIL" }', "match: it never counts anything: messages are counted at", id="MAIL"
        ),
        pytest.param(
            'count = "first-time-recipients"\nmatch = { protocol_state = ["DATA", "END-OF-MESSAGE"] }',
            "match: it never counts anything: first-time-recipients are counted at RCPT",
            id="new recipients at DATA",
        ),
        pytest.param('windows = "1/1h"', "windows: unknown key", id="an unknown key"),
        pytest.param(
            'warm_up = { start = "2026-11-01", first = 1, double_every = "3d" }',
            "warm_up.start: expected a date, such as 2026-11-01 (without quotes)",
            id="a date in quotes",
        ),
        pytest.param(
            'warm_up = { start = 2026-11-01, first = 0, double_every = "3d" }',
            "warm_up.first: expected at least 1",
            id="0",
        ),
        pytest.param("warm_up = { start = 2026-11-01 }", "warm_up.first: is missing", id="half a warm-up"),
    ],
)
def test_a_limit_that_cannot_be_is_refused(tmp_path: Path, lines: str, expected: str) -> None:
    keys = {line.partition(" ")[0] for line in lines.splitlines()}
    own = [line for line in ('name = "mail"', 'limit = "100/1h"') if line.partition(" ")[0] not in keys]
    found = mistakes(tmp_path, "\n".join(["[[policyd.limit]]", *own, lines]))
    assert len(found) == 1 or "warm_up" in lines
    assert found[0].startswith(f"mailward.toml: policyd.limit[0].{expected}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(MAIL + MAIL, 'policyd.limit: expected each name once, found "mail" 2 times', id="a name twice"),
        pytest.param(
            "".join(MAIL.replace("mail", f"mail-{number}") for number in range(17)),
            "policyd.limit: expected at most 16 limits, found 17",
            id="too many limits",
        ),
        pytest.param('[policyd]\ntighten = "0.5"', "policyd.tighten: expected a number, such as 0.25", id="in quotes"),
        pytest.param("[policyd]\ntighten = 0", "policyd.tighten: expected a part of the limits", id="nothing left"),
        pytest.param("[policyd]\ntighten = nan", "policyd.tighten: expected a part of the limits", id="no number"),
        pytest.param(
            '[policyd]\non_store_error = "accept"', "policyd.on_store_error: expected one of dunno", id="a word"
        ),
        pytest.param('[policyd]\nexempt = ["*"]', "policyd.exempt: expected logins", id="everybody exempt"),
        pytest.param(
            '[policyd]\noverrides = "x"', "policyd.overrides: expected a file with its whole path", id="a path"
        ),
        pytest.param(
            '[policyd]\ndovecot = "127.0.0.1:9465"', "policyd.dovecot: expected dovecot_api_key_file", id="no key"
        ),
        pytest.param('[policyd]\nstore_timeout = "1ms"', "policyd.store_timeout: expected at least 10ms", id="no time"),
        pytest.param(
            '[policyd.incidents]\ndoveadm = "http://127.0.0.1:8080"',
            "policyd.incidents.doveadm: expected doveadm_key_file",
            id="doveadm without its key",
        ),
        pytest.param(
            '[policyd.incidents]\nwebhook = "http://me:secret@x.example/"',
            "policyd.incidents.webhook: expected an address",
            id="a password in a URL",
        ),
        pytest.param(
            '[policyd.incidents]\nwebhook = "http://[::1/"',
            "policyd.incidents.webhook: expected an address",
            id="a URL",
        ),
        pytest.param(
            '[policyd.incidents]\nmail_to = ["postmaster", ""]',
            "policyd.incidents.mail_to: expected addresses",
            id="no address",
        ),
        pytest.param(
            '[policyd.incidents]\nmail_to = ["a@b.example, c@d.example"]',
            "policyd.incidents.mail_to: expected addresses",
            id="two addresses in one",
        ),
        pytest.param(
            '[policyd.incidents]\ncommand = ["tell"]', "policyd.incidents.command: expected the program", id="a command"
        ),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    (found,) = mistakes(tmp_path, text)
    assert found.startswith(f"mailward.toml: {expected}")
    assert "secret" not in found


def test_lists_are_read_from_files(tmp_path: Path) -> None:
    lists = tmp_path / "senders"
    lists.write_text("# ours\nnews@own.example\n@lists.example # all of it\n\n", encoding="utf-8")
    rule_set = rules(
        tmp_path, f'[policyd]\nexempt = ["root", "file:{lists}"]\n{MAIL}match = {{ sender = "!file:{lists}" }}\n'
    )
    match = rule_set.limits[0].match
    assert [
        match.matches({"sender": f"{name}"}) for name in ("news@own.example", "x@lists.example", "a@b.example")
    ] == [
        False,
        False,
        True,
    ]
    exempt = rule_set.exempt
    assert exempt is not None
    assert [exempt.matches({"sasl_username": name}) for name in ("root", "x@lists.example", "a@b.example")] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(("sign", "expected"), [pytest.param("", False, id="of it"), pytest.param("!", True, id="not")])
def test_an_empty_list_has_nobody(tmp_path: Path, sign: str, expected: bool) -> None:
    (tmp_path / "list").write_text("# nobody yet\n")
    (limit,) = rules(tmp_path, f'{MAIL}match = {{ client_address = "{sign}file:{tmp_path}/list" }}\n').limits
    assert limit.match.matches({"client_address": "192.0.2.1"}) is expected


def test_every_mistake_of_a_list_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("192.0.2.1\nmail.example\n*\n192.0.2.999\n")
    found = mistakes(tmp_path, f'{MAIL}match = {{ client_address = "file:{tmp_path}/list" }}\n')
    assert [one.split(": ")[:2] for one in found] == [["list", "line 2"], ["list", "line 3"], ["list", "line 4"]]


@pytest.mark.parametrize(
    ("setting", "where"),
    [
        ('[policyd]\nexempt = "file:{folder}/none"\n', "policyd.exempt"),
        ('[policyd]\noverrides = "{folder}/none"\n', "policyd.overrides"),
        (MAIL + 'match = {{ client_address = "file:{folder}/none" }}\n', "policyd.limit[0].match"),
    ],
    ids=["exempt", "overrides", "match"],
)
def test_a_file_that_cannot_be_read_is_named_with_its_setting(tmp_path: Path, setting: str, where: str) -> None:
    missing = mistakes(tmp_path, setting.format(folder=tmp_path))
    assert missing == [f"none: {where}: cannot be read: No such file or directory"]


@pytest.mark.parametrize(
    ("table", "setting"),
    [
        ("policyd", "dovecot_api_key_file"),
        ("policyd.incidents", "webhook_key_file"),
        ("policyd.incidents", "doveadm_key_file"),
    ],
)
def test_a_key_file_that_cannot_be_read_is_named_with_its_setting(tmp_path: Path, table: str, setting: str) -> None:
    beside = 'doveadm = "http://127.0.0.1:8080"\n' if setting.startswith("doveadm") else ""
    settings = read(tmp_path, f'[{table}]\n{beside}{setting} = "{tmp_path}/none"\n')
    with pytest.raises(ConfigError, match=rf"none: {table}\.{setting}: cannot be read: No such file"):
        read_configured(settings)


def test_no_worker_is_told_to_hold_more_connections_than_it_can_have_files_open(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_sessions: expected at most 15000"):
        read(tmp_path, "[policyd]\nmax_sessions = 1_000_000_000")


def test_memory_is_for_one_worker(tmp_path: Path) -> None:
    check_state(read(tmp_path, 'state = "memory:"'), "mailward.toml")
    with pytest.raises(ConfigError, match="workers = 1 alone"):
        check_state(read(tmp_path, 'state = "memory:"\n[policyd]\nworkers = 2'), "mailward.toml")
