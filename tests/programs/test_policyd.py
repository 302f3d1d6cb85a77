"""mailward-policyd as Postfix and systemd see it: octets, signals, sockets, and what happens to its processes meanwhile."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import count

import pytest

from mailward.adapters.stores import open_greylist
from mailward.model.state import Durability
from mailward.policy.greylist_key import correspondent
from mailward.policy.limits import DEFAULT_LIMITS
from mailward.settings.state import read_state
from tests.support.policy_server import ROOT, PolicyClient, PolicyServer
from tests.support.processes import ProgramError, open_folder, wait_until
from tests.support.redis import Redis

_NUMBERS = count(1)
Start = Callable[..., PolicyServer]

ONE_LIMIT = """
[policyd.incidents]
mail_to = []

[[policyd.limit]]
name = "few"
per = "sasl_username"
count = "recipients"
limit = "{most}/1h"
"""


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    with open_folder() as folder, ExitStack() as stack:

        def start_one(settings: str = "") -> PolicyServer:
            server = PolicyServer(folder, settings, name=f"policyd-{next(_NUMBERS)}")
            server.start()
            stack.callback(server.stop)
            return server

        yield start_one


@pytest.fixture(scope="module")
def plain(start: Start) -> PolicyServer:
    """A daemon without any configuration of its own."""
    return start("[policyd.incidents]\nmail_to = []")


def recipient(login: str, number: int = 0) -> dict[str, str]:
    return {
        "protocol_state": "RCPT",
        "sasl_username": login,
        "sender": login,
        "recipient": f"rcpt{number}@example.org",
        "instance": f"{login}.{number}",
        "client_address": "192.0.2.9",
    }


def test_an_account_is_limited_without_any_configuration(plain: PolicyServer) -> None:
    with PolicyClient(plain.socket_path) as client:
        actions = [client.ask(**recipient("all@example.com", number)) for number in range(101)]
    assert actions[:100] == ["DUNNO"] * 100
    assert actions[100].startswith("DEFER 4.7.1 ")
    assert {limit.name for limit in DEFAULT_LIMITS} <= set(plain.amounts("sasl_username=all@example.com"))


def test_who_has_not_logged_in_is_not_counted(plain: PolicyServer) -> None:
    with PolicyClient(plain.socket_path) as client:
        actions = {client.ask(**{**recipient("", number), "sender": "a@example.com"}) for number in range(300)}
    assert actions == {"DUNNO"}


def raw(server: PolicyServer, octets: bytes) -> bytes:
    """Send octets and return what comes until the connection is closed."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(server.socket_path))
        with suppress(BrokenPipeError):  # closed before we have said anything
            connection.sendall(octets)
        received = b""
        while piece := connection.recv(4096):
            received += piece
    return received


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\n\n", id="HTTP"),
        pytest.param(b"\0" * 100 + b"\n\n", id="NULs"),
        pytest.param(b"request=smtpd_access_policy\nsender=" + b"a" * 20_000, id="a request without bounds"),
        pytest.param(b"request=something else\n\n", id="another kind of request"),
    ],
)
def test_whoever_does_not_speak_the_protocol_gets_no_reply(plain: PolicyServer, octets: bytes) -> None:
    before = plain.metrics()["protocol_errors_total"]
    assert raw(plain, octets) == b""
    assert plain.metrics()["protocol_errors_total"] == before + 1


def test_octet_by_octet_a_request_is_answered_once(plain: PolicyServer) -> None:
    request = "".join(f"{name}={value}\n" for name, value in recipient("slow@example.com").items())
    octets = f"request=smtpd_access_policy\n{request}\n".encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(plain.socket_path))
        for octet in octets:
            connection.sendall(bytes([octet]))
        assert connection.recv(4096) == b"action=DUNNO\n\n"


def test_idle_connections_keep_nobody_from_being_answered(start: Start) -> None:
    server = start("[policyd.incidents]\nmail_to = []")
    with ExitStack() as stack:
        idle = [stack.enter_context(PolicyClient(server.socket_path)) for _ in range(1000)]
        wait_until(lambda: server.metrics()["sessions"] == 1000, "every connection to be taken")
        assert server.ask(**recipient("busy@example.com")) == "DUNNO"
        assert [idle[at].ask(**recipient("idle@example.com", at)) for at in (0, 500, 999)] == ["DUNNO"] * 3


def test_a_connection_beyond_the_bound_is_closed_and_the_others_stay(start: Start) -> None:
    server = start("max_sessions = 2\n\n[policyd.incidents]\nmail_to = []")
    with PolicyClient(server.socket_path) as first, PolicyClient(server.socket_path) as second:
        assert [one.ask(**recipient("a@example.com")) for one in (first, second)] == ["DUNNO"] * 2
        assert raw(server, b"") == b""
        assert first.ask(**recipient("b@example.com")) == "DUNNO"
    assert server.metrics()["sessions_refused_total"] == 1


def test_hup_changes_the_limits_of_connections_that_stay_open(start: Start) -> None:
    server = start(ONE_LIMIT.format(most=2))
    with PolicyClient(server.socket_path) as client:
        actions = [client.ask(**recipient("a@example.com", number)).partition(" ")[0] for number in range(3)]
        assert actions == ["DUNNO", "DUNNO", "DEFER"]
        server.configure(ONE_LIMIT.format(most=4))
        server.signal(signal.SIGHUP)
        wait_until(lambda: server.metrics()['reloads_total{result="done"}'] == 1, "the reload")
        wait_until(lambda: client.ask(**recipient("b@example.com", len(server.output()))) != "", "an answer")
        wait_until(
            lambda: client.ask(**recipient("a@example.com", 4)) == "DUNNO", "the new limit to hold for what was counted"
        )
        workers = server.processes()
    assert len(workers) == 2
    assert server.metrics()['worker_restarts_total{reason="died"}'] == 0


def test_a_configuration_that_is_broken_changes_nothing(start: Start) -> None:
    server = start(ONE_LIMIT.format(most=1))
    with PolicyClient(server.socket_path) as client:
        assert client.ask(**recipient("a@example.com", 1)) == "DUNNO"
        server.configure(ONE_LIMIT.format(most=0) + 'action = "explode"')
        server.signal(signal.SIGHUP)
        wait_until(lambda: server.metrics()['reloads_total{result="refused"}'] == 1, "the refusal")
        assert server.metrics()["last_reload_successful"] == 0
        assert client.ask(**recipient("a@example.com", 2)).startswith("DEFER")
        server.configure(ONE_LIMIT.format(most=1))
        server.signal(signal.SIGHUP)
        wait_until(lambda: server.metrics()["last_reload_successful"] == 1, "the mended one")
    assert any("explode" in line.get("mistake", "") for line in server.log_lines("reload-refused"))


def test_a_configuration_with_another_state_is_not_taken_without_a_restart(start: Start) -> None:
    server = start(ONE_LIMIT.format(most=1))
    assert server.ask(**recipient("a@example.com", 1)) == "DUNNO"
    text = server.configuration.read_text()
    other = server.folder / "other-state"
    other.mkdir()
    server.configuration.write_text(text.replace(server.state, f"sqlite:{other}").replace("1/1h", "9/1h"))
    server.signal(signal.SIGHUP)
    wait_until(lambda: server.metrics()['reloads_total{result="refused"}'] == 1, "the refusal")
    assert [line["setting"] for line in server.log_lines("restart-needed")] == ["state"]
    os.kill(server.processes()[1], signal.SIGKILL)
    wait_until(lambda: server.metrics().get('worker_restarts_total{reason="died"}') == 1, "the death to be noticed")
    wait_until(server.is_serving, "another worker")
    assert server.ask(**recipient("a@example.com", 2)).startswith("DEFER"), "it counts where it did before"
    assert list(other.iterdir()) == []


def test_limits_that_a_reload_names_are_counted_under_their_names(start: Start) -> None:
    server = start(ONE_LIMIT.format(most=1))
    server.configure(ONE_LIMIT.format(most=1).replace('"few"', '"fewer"'))
    server.signal(signal.SIGHUP)
    wait_until(lambda: server.metrics()['reloads_total{result="done"}'] == 1, "the reload")

    def hits() -> float:
        for number in range(3):
            server.ask(**recipient("c@example.com", number))
        return server.metrics().get('limit_hits_total{limit="fewer"}', 0.0)

    wait_until(lambda: hits() > 0, "a hit of the limit with its new name")


def test_term_answers_what_was_asked_writes_what_was_gathered_and_ends(start: Start) -> None:
    server = start(ONE_LIMIT.format(most=1))
    assert [server.ask(**recipient("a@example.com", at)).partition(" ")[0] for at in range(2)] == ["DUNNO", "DEFER"]
    server.stop()
    assert server.account("a@example.com").incident is not None
    assert not server.socket_path.exists()


def ask_on(server: PolicyServer, login: str, refused: list[str]) -> None:
    """Ask without pause until the connection is closed; keep what was refused."""
    with PolicyClient(server.socket_path) as client, suppress(ProgramError):
        for number in count():
            action = client.ask(**recipient(login, number))
            if action.startswith("DEFER"):
                refused.append(action)


def test_what_is_refused_while_it_ends_is_written_too(start: Start) -> None:
    server, refused = start(ONE_LIMIT.format(most=1)), list[list[str]]([[], [], []])
    names = [f"busy{number}@example.com" for number in range(len(refused))]
    asking = [threading.Thread(target=ask_on, args=(server, *pair)) for pair in zip(names, refused, strict=True)]
    for thread in asking:
        thread.start()
    wait_until(lambda: all(len(each) > 50 for each in refused), "hits to come all the time")
    server.stop()
    for thread in asking:
        thread.join(60)
    for name, each in zip(names, refused, strict=True):
        incident = server.account(name).incident
        assert incident is not None
        assert incident.hits >= len(each)


def test_while_nobody_takes_notices_reloads_lose_no_hits_and_gauges_stay_right(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        notices = f'settle = "0s"\nmail_to = ["root"]\nsmtp = "127.0.0.1:{silent.getsockname()[1]}"'
        server = start(ONE_LIMIT.format(most=1).replace("mail_to = []", notices))

        def hit(login: str) -> None:
            assert [server.ask(**recipient(login, at)).partition(" ")[0] for at in range(2)] == ["DUNNO", "DEFER"]

        def is_written(login: str) -> bool:
            return server.account(login).incident is not None

        first = [f"first{number}@example.com" for number in range(10)]  # more than may be told of at a time
        for login in first:
            hit(login)
        wait_until(lambda: all(map(is_written, first)), "the incidents that cannot be told")
        for login in ("second@example.com", "third@example.com", "fourth@example.com"):
            server.signal(signal.SIGHUP)
            hit(login)
        wait_until(lambda: is_written("fourth@example.com"), "what was hit last")
        assert is_written("second@example.com")
        assert is_written("third@example.com")
        wait_until(lambda: server.metrics()['reloads_total{result="done"}'] >= 1, "a reload")
        wait_until(lambda: server.metrics()["incidents_open"] == 13, "the gauge to say how many there are")
        server.order("suspend", "carol@example.com")
        wait_until(lambda: server.metrics()["accounts_suspended"] == 1, "the operator's order to be obeyed")
        server.order("resume", "carol@example.com")
        wait_until(lambda: server.metrics()["accounts_suspended"] == 0, "no account to be suspended")
        assert server.metrics()["incidents_open"] == 13


def test_a_state_that_is_removed_gives_no_suspended_account_back(start: Start) -> None:
    server = start(ONE_LIMIT.format(most=1))
    server.order("suspend", "alice@example.com")
    wait_until(lambda: server.ask(**recipient("alice@example.com")).startswith("REJECT"), "the operator's order")
    (server.state_folder / "policyd.sqlite").unlink()
    told = server.wait_for_log("accounts-put-back")
    assert (told["level"], told["suspended"]) == ("critical", "1")
    assert server.ask(**recipient("alice@example.com")).startswith("REJECT")
    assert server.account("alice@example.com").suspension is not None


def test_a_worker_that_dies_is_replaced_and_what_was_counted_is_still_there(start: Start) -> None:
    server = start(ONE_LIMIT.format(most=2))
    assert [server.ask(**recipient("a@example.com", at)) for at in range(2)] == ["DUNNO", "DUNNO"]
    os.kill(server.processes()[1], signal.SIGKILL)
    wait_until(lambda: server.metrics().get('worker_restarts_total{reason="died"}') == 1, "the death to be noticed")
    wait_until(server.is_serving, "another worker")
    assert server.ask(**recipient("a@example.com", 3)).startswith("DEFER")


SYSTEMD = """
import os, socket, sys
main = socket.socket(socket.AF_UNIX); main.bind(sys.argv[1]); main.listen()
dovecot = socket.create_server(("127.0.0.1", int(sys.argv[2])))
for number, one in ((3, dovecot), (4, main)):
    os.dup2(one.fileno(), 10 + number)
for number in (3, 4):
    os.dup2(10 + number, number); os.set_inheritable(number, True)
os.environ.update(LISTEN_FDS="2", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="dovecot:mailward-policyd.socket")
os.execv(sys.executable, [sys.executable, "-m", "policyd", "--config", sys.argv[3]])
"""


def test_systemds_sockets_are_told_apart_by_their_names(start: Start) -> None:
    other = start()  # for its folder, and what it configures
    path, key = other.folder / "handed.sock", other.folder / "dovecot.key"
    key.write_text("0123456789abcdef")
    key.chmod(0o600)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    configuration = other.folder / "handed.toml"
    text = other.configuration.read_text().replace(f"127.0.0.1:{other.port}", "127.0.0.1:9")
    text = text.replace('metrics = "127.0.0.1:9"', f'dovecot = "127.0.0.1:{port}"\ndovecot_api_key_file = "{key}"')
    configuration.write_text(text)
    command = [sys.executable, "-c", SYSTEMD, str(path), str(port), str(configuration)]
    running = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:

        def answers() -> bool:
            with PolicyClient(path) as client:
                return client.ask(**recipient("a@example.com")) == "DUNNO"

        wait_until(path.exists, "the socket")
        wait_until(answers, "an answer at systemd's socket")
        with socket.create_connection(("127.0.0.1", port), timeout=60) as dovecot:
            dovecot.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert b" 405 " in dovecot.recv(4096)
    finally:
        running.terminate()
        errors = running.communicate(timeout=60)[1]
    assert running.returncode == 0, errors
    assert path.exists(), "systemd's socket is systemd's to remove"


def test_check_names_limits_that_cannot_count_where_postfix_asks(start: Start) -> None:
    server = start("[policyd.incidents]\nmail_to = []")
    with server.records() as records:
        records.put_note("stages", f"DATA+login={time.time():.0f}")
    done = subprocess.run(
        [sys.executable, "-m", "policyd", "--config", str(server.configuration), "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "account-first-time" in done.stderr
    assert "account-recipients" not in done.stderr


def test_what_it_does_is_logged_so_that_an_operator_can_follow_it(start: Start) -> None:
    server = start(ONE_LIMIT.format(most=1))
    for number in range(2):
        server.ask(**recipient("a@example.com", number), queue_id="4abcDEF")
    wait_until(lambda: len(server.log_lines("request")) == 2, "two lines")
    passed, deferred = server.log_lines("request")
    assert (passed["action"], passed["login"], passed["stage"]) == ("dunno", "a@example.com", "RCPT")
    assert (deferred["action"], deferred["limit"], deferred["level"]) == ("defer", "few", "info")
    assert int(deferred["clears"]) > 0
    wait_until(lambda: bool(server.log_lines("incident-opened")), "the incident")


def test_whom_an_account_writes_to_is_a_correspondent_for_greylisting(start: Start) -> None:
    server = start("[policyd.incidents]\nmail_to = []")
    server.ask(**{**recipient("a@example.com"), "recipient": "Bob+list@Example.org"})
    server.ask(**{**recipient(""), "recipient": "nobody@example.org"})

    def known() -> set[str]:
        store = open_greylist(read_state(server.state).state, Durability.PROCESS, 10.0)
        try:
            return {address for address, _ in store.correspondents()}
        finally:
            store.close()

    wait_until(lambda: correspondent(b"bob+list@example.org") in known(), "the correspondent")
    assert correspondent(b"nobody@example.org") not in known()
    wait_until(lambda: server.metrics()["correspondents_recorded_total"] == 1, "it to be counted, once it is written")


def test_a_tcp_socket_is_served_like_a_unix_one(start: Start) -> None:
    server = start()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    other = PolicyServer(server.folder, "", name="over-tcp")
    other.configuration.write_text(
        other.configuration.read_text().replace(f"unix:{other.socket_path}", f"inet:127.0.0.1:{port}")
    )
    other.start()
    try:
        request = "".join(f"{name}={value}\n" for name, value in recipient("a@example.com").items())
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(f"request=smtpd_access_policy\n{request}\n".encode())
            assert connection.recv(4096) == b"action=DUNNO\n\n"
    finally:
        other.stop()


def test_while_redis_is_away_limits_hold_by_what_is_counted_here_and_it_is_told_when_it_is_back() -> None:
    with open_folder() as folder, ExitStack() as stack:
        redis = Redis(folder)
        redis.start()
        stack.callback(redis.stop)
        server = PolicyServer(folder, ONE_LIMIT.format(most=3), state=redis.address)
        server.start()
        stack.callback(server.stop)
        numbers = count()

        def ask() -> str:
            return server.ask(**recipient("a@example.com", next(numbers))).partition(" ")[0]

        assert [ask() for _ in range(4)] == ["DUNNO"] * 3 + ["DEFER"]
        redis.stop()
        assert [ask() for _ in range(5)] == ["DUNNO"] * 3 + ["DEFER"] * 2, "once more, and no more"
        wait_until(lambda: server.metrics()['breakers_open{breaker="store-away"}'] == 1, "the breaker")
        server.wait_for_log("store-away")
        redis.start()
        wait_until(lambda: server.metrics()['breakers_open{breaker="store-away"}'] == 0, "the breaker to close")
        wait_until(
            lambda: server.amounts("sasl_username=a@example.com") == {"few": 3}, "what was counted here to be charged"
        )
        assert ask() == "DEFER"
        assert server.metrics()["store_counted_here_total"] >= 5
