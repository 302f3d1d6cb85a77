"""Mail, webhook and command: what arrives, what counts as taken, and that nobody is waited for without end."""

from __future__ import annotations

import asyncio
import email
import email.policy
import json
import os
import sys
from collections.abc import Sequence
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import policyd.notify
from mailward.model.accounts import Suspension
from policyd.http_client import MAX_REPLY, HttpError, Reply, place_of, post_json
from policyd.notice import News
from policyd.notify import (
    MAX_OUTPUT,
    Channel,
    Command,
    Mail,
    NotifyError,
    NotifyRules,
    Webhook,
    channels_of,
    make_mail,
    run,
)
from tests.policyd.incident_support import ALICE, START, Events, notice
from tests.policyd.wire_support import HttpServer, SmtpServer, http_server, smtp_server
from tests.support.processes import free_port, wait_until

RULES = NotifyRules("mx.example.net", mail_to=("postmaster", "abuse@example.org"))
HEADERS = {
    "from",
    "to",
    "subject",
    "date",
    "message-id",
    "auto-submitted",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
}


def send(channel: Channel, account: str = ALICE) -> None:
    asyncio.run(asyncio.wait_for(channel.send(notice(account)), 60))


def read(mail: bytes) -> EmailMessage:
    parsed = email.message_from_bytes(mail, policy=email.policy.SMTP)
    assert isinstance(parsed, EmailMessage)
    return parsed


def mail_channel(port: int, events: Events | None = None, mail_from: str = "") -> Mail:
    rules = NotifyRules(RULES.authserv_id, RULES.mail_to, mail_from, smtp_port=port)
    return Mail(rules, events if events is not None else Events())


def test_each_way_that_is_configured_is_a_channel() -> None:
    rules = NotifyRules("mx.example.net", ("postmaster",), webhook="http://[::1]/", command=("/bin/true",))
    assert [channel.name for channel in channels_of(rules, Events())] == ["mail", "webhook", "command"]
    assert channels_of(NotifyRules("mx.example.net"), Events()) == ()


def test_mail_comes_from_nobody_and_says_that_a_program_wrote_it() -> None:
    with smtp_server(SmtpServer()) as server:
        send(mail_channel(server.port))
    assert server.commands[0] == "ehlo mx.example.net"
    assert [command.lower() for command in server.commands[1:4]] == [
        "mail from:<>",
        "rcpt to:<postmaster>",
        "rcpt to:<abuse@example.org>",
    ]
    mail = read(server.mails[0])
    assert {name.lower() for name in mail} == HEADERS
    assert mail["From"] == "Mailward <postmaster@mx.example.net>"
    assert mail["To"] == "postmaster@mx.example.net, abuse@example.org"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Date"].datetime is not None
    assert mail["Message-ID"].endswith("@mx.example.net>")
    assert mail.get_content_type() == "text/plain"
    assert "mailward limits suspend alice@example.com" in mail.get_content()


def test_mail_comes_from_the_configured_address() -> None:
    with smtp_server(SmtpServer()) as server:
        send(mail_channel(server.port, mail_from="watch@example.org"))
    assert "mail from:<watch@example.org>" in [command.lower() for command in server.commands]
    assert read(server.mails[0])["From"] == "Mailward <watch@example.org>"


def test_the_same_news_has_the_same_message_id_and_other_news_another() -> None:
    suspended = Suspension(START + 60, "root", "stolen")
    mails = [
        make_mail(RULES, each) for each in (notice(), notice(news=News.CLOSED), notice(suspended=suspended), notice())
    ]
    identities = [read(mail)["Message-ID"] for mail in mails]
    assert identities[0] == identities[3]
    assert len(set(identities)) == 3


@given(st.text(max_size=400) | st.text("\r\n\t \0:;,<>@=?\"'\x85\u2028\udc80é", max_size=60))
@settings(max_examples=100)
def test_no_name_of_an_account_becomes_a_header_or_ends_the_mail(name: str) -> None:
    octets = make_mail(RULES, notice(name, suspended=Suspension(START, name, name), cause=name))
    mail = read(octets)
    assert {header.lower() for header in mail} == HEADERS
    assert mail["To"] == "postmaster@mx.example.net, abuse@example.org"
    plain = read(make_mail(RULES, notice("x", suspended=Suspension(START, "x", "x"), cause="x")))
    assert mail.get_content().count("\n") == plain.get_content().count("\n")
    assert all(len(line) <= 998 for line in octets.split(b"\r\n"))
    assert octets.isascii()


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({"connect": "554 no"}, "554 no"),
        ({"mail": "451 later"}, "451 later"),
        ({"rcpt": "550 nobody"}, "every recipient was refused"),
        ({"data": "452 disk full"}, "452 disk full"),
        ({"message": "552 too large"}, "552 too large"),
        ({"message": "550 \x1b[2J\u202e"}, "\\x1b[2J"),
    ],
    ids=["at-connect", "at-mail", "at-rcpt", "at-data", "at-the-end", "with-escapes"],
)
def test_mail_that_is_refused_is_not_taken(answers: dict[str, str], reason: str) -> None:
    with smtp_server(SmtpServer(answers)) as server, pytest.raises(NotifyError) as caught:
        send(mail_channel(server.port))
    assert reason in str(caught.value)


def test_mail_is_taken_where_one_recipient_is_and_the_others_are_told() -> None:
    events = Events()
    with smtp_server(SmtpServer(refused="<postmaster>")) as server:
        send(mail_channel(server.port, events))
    assert len(server.mails) == 1
    assert events == [("error", "notification-recipient-refused", {"recipient": "postmaster"})]


def test_what_a_mail_server_says_after_it_has_taken_the_mail_is_no_failure() -> None:
    with smtp_server(SmtpServer({"quit": "421 in a hurry"})) as server:
        send(mail_channel(server.port))
    assert len(server.mails) == 1


def test_mail_that_nobody_takes_fails() -> None:
    with pytest.raises(NotifyError):
        send(mail_channel(free_port()))


@pytest.mark.parametrize("drips", [False, True], ids=["silent", "an-octet-at-a-time"])
@pytest.mark.parametrize("silent_at", ["connect", "rcpt", "message"])
def test_a_mail_server_that_never_answers_is_left(
    monkeypatch: pytest.MonkeyPatch, silent_at: str, *, drips: bool
) -> None:
    monkeypatch.setattr(policyd.notify, "ANSWER_SECONDS", 60.0 if drips else 0.2)
    monkeypatch.setattr(policyd.notify, "MAIL_SECONDS", 0.4 if drips else 60.0)
    with (
        smtp_server(SmtpServer(silent_at=silent_at, drips=drips)) as server,
        pytest.raises(NotifyError),
    ):
        send(mail_channel(server.port))


def test_a_webhook_gets_json_and_its_key() -> None:
    with http_server(HttpServer(status=204, reply=b"")) as server:
        send(Webhook(f"{server.url}/hook?a=1", "s3cret"))
    [posted] = server.posted
    assert posted.path == "/hook?a=1"
    assert posted.headers["authorization"] == "Bearer s3cret"
    assert posted.headers["content-type"] == "application/json"
    assert json.loads(posted.content)["account"] == ALICE


def test_without_a_key_a_webhook_gets_none() -> None:
    with http_server(HttpServer()) as server:
        send(Webhook(server.url))
    assert "authorization" not in server.posted[0].headers


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_what_a_webhook_does_not_take_names_the_server_and_no_secret(status: int) -> None:
    with http_server(HttpServer(status=status)) as server, pytest.raises(NotifyError) as caught:
        send(Webhook(f"{server.url}/hook/s3cret?token=s3cret", "s3cret"))
    assert str(caught.value) == f"{server.url}: HTTP status {status}"


def test_a_redirect_is_not_followed() -> None:
    with http_server(HttpServer()) as elsewhere:
        redirect = HttpServer(status=307, headers={"Location": elsewhere.url})
        with http_server(redirect), pytest.raises(NotifyError):
            send(Webhook(redirect.url, "s3cret"))
    assert not elsewhere.posted


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with http_server(HttpServer()) as proxy, http_server(HttpServer()) as server:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        send(Webhook(server.url))
    assert not proxy.posted
    assert len(server.posted) == 1


@pytest.mark.parametrize(
    "server",
    [HttpServer(is_silent=True), HttpServer(is_endless=True), HttpServer(reply=b"x" * (MAX_REPLY + 1))],
    ids=["silent", "endless", "large"],
)
def test_a_web_server_that_is_of_no_use_is_left(server: HttpServer) -> None:
    with http_server(server), pytest.raises(NotifyError):
        send(Webhook(server.url, seconds=0.5 if server.is_silent else 30))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://",
        "nonsense",
        "http://[::1",
        "http://127.0.0.1:99999/",
        "ftp://127.0.0.1/",
        "http://\udcff/",
        "http://a b/",
    ],
)
def test_a_url_that_is_none_fails(url: str) -> None:
    with pytest.raises(NotifyError):
        send(Webhook(url))
    assert place_of(url)


@pytest.mark.parametrize("key", ["a\r\nX: y", "a\nb"])
def test_a_key_that_is_no_header_goes_nowhere(key: str) -> None:
    with http_server(HttpServer()) as server, pytest.raises(NotifyError) as caught:
        send(Webhook(server.url, key))
    assert key not in str(caught.value)
    assert not server.posted


def test_a_reply_is_returned_whatever_its_status() -> None:
    with http_server(HttpServer(status=418, reply=b"tea")) as server:
        assert asyncio.run(post_json(server.url, b"{}", {}, 30)) == Reply(418, b"tea")


def test_a_refused_connection_says_so() -> None:
    with pytest.raises(HttpError, match=r"(?i)connect"):
        asyncio.run(post_json(f"http://127.0.0.1:{free_port()}/", b"{}", {}, 30))


def program(folder: Path, text: str) -> Sequence[str]:
    path = folder / "told.py"
    path.write_text(text)
    return (sys.executable, str(path), "an argument; with $(spaces)")


def test_a_command_gets_json_and_variables_and_no_shell(tmp_path: Path) -> None:
    text = f"""
import json, os, sys
json.dump([sys.argv[1], json.load(sys.stdin), dict(os.environ), os.getcwd()], open({str(tmp_path / "seen")!r}, "w"))
"""
    os.environ["MAILWARD_TEST_SECRET"] = "x"
    try:
        send(Command(program(tmp_path, text), Events()), "bob\n@example.com")
    finally:
        del os.environ["MAILWARD_TEST_SECRET"]
    argument, given, environment, folder = json.loads((tmp_path / "seen").read_text())
    assert argument == "an argument; with $(spaces)"
    assert given["account"] == environment["MAILWARD_ACCOUNT"] == "bob\n@example.com"
    assert environment["MAILWARD_EVENT"] == "incident-opened"
    assert environment["MAILWARD_SUSPENDED"] == "no"
    assert "MAILWARD_TEST_SECRET" not in environment
    assert folder == "/"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("/nonexistent/program",), "No such file"),
        (("/",), "Permission denied"),
        (("/bin/false",), "exit status 1"),
        (("/bin/sh", "-c", "echo out of order; exit 3"), "exit status 3; it said: out of order"),
        (("/bin/sh", "-c", "kill -9 $$"), "exit status -9"),
        (("/bin/sh\0", "-c"), "ValueError"),
    ],
    ids=["missing", "no-program", "fails", "says-why", "killed", "with-a-nul"],
)
def test_a_command_that_fails_has_taken_nothing(words: Sequence[str], reason: str) -> None:
    with pytest.raises(NotifyError) as caught:
        send(Command(words, Events()))
    assert reason in str(caught.value)


def test_what_a_command_says_is_logged_clipped_and_plain() -> None:
    events = Events()
    send(Command(("/bin/sh", "-c", r"printf 'a\033[2J\n'; head -c 100000 /dev/zero | tr '\0' x"), events))
    [(_, event, fields)] = events
    assert event == "notification-command-output"
    assert str(fields["output"]).startswith("a\\x1b[2J\\x0axxx")
    assert len(str(fields["output"])) < MAX_OUTPUT


def test_a_command_that_reads_nothing_and_says_nothing_is_fine() -> None:
    events = Events()
    send(Command(("/bin/sh", "-c", "exec <&- >&- 2>&-; exit 0"), events))
    assert not events


def test_of_what_a_command_says_only_the_first_is_kept() -> None:
    status, output = run(("/bin/sh", "-c", "yes | head -c 10000000"), b"", {"PATH": os.defpath}, 60)
    assert status == 0
    assert len(output) == MAX_OUTPUT


@pytest.mark.parametrize(
    "script",
    [
        "echo $$ > {file}; sleep 1000 & echo $! >> {file}; wait",
        "echo $$ > {file}; exec >&- 2>&-; sleep 1000",
        "echo $$ > {file}; yes",
    ],
    ids=["with-a-child", "with-its-output-closed", "talking-without-end"],
)
def test_a_command_that_does_not_end_is_killed_with_its_children(tmp_path: Path, script: str) -> None:
    file = tmp_path / "pids"
    with pytest.raises(NotifyError, match="killed"):
        send(Command(("/bin/sh", "-c", script.format(file=file)), Events(), seconds=1.0))
    pids = [int(line) for line in file.read_text().split()]
    wait_until(lambda: not any(is_alive(pid) for pid in pids), "they are gone", seconds=30)


def test_what_a_command_leaves_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    status, output = run(("/bin/sh", "-c", f"sleep 1000 & echo $! > {file}; echo done"), b"", {"PATH": os.defpath}, 60)
    pid = int(file.read_text())
    assert is_alive(pid)
    os.kill(pid, 9)
    assert (status, output) == (0, b"done\n")


def is_alive(pid: int) -> bool:
    """Say whether it runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
