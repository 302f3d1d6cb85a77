"""The supervisor with real workers under load: whatever happens to them, mail is answered and nothing is counted twice."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.programs.load import Tally, at_once, send_one, under_load
from tests.programs.signer import FIELDS, Signer, children
from tests.support.milter_client import MilterSession
from tests.support.processes import ProgramError, wait_until

Start = Callable[..., Signer]


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter where it goes between open() and read()
        return True


def settle(tally: Tally, more: int = 50) -> None:
    """Wait until the load has signed some more: the service is well again."""
    target = tally.signed + more
    wait_until(lambda: tally.signed >= target, "messages signed again")


def test_a_killed_worker_is_replaced_and_its_mail_is_signed_by_others(start_signer: Start) -> None:
    signer = start_signer()
    with under_load(signer) as tally:
        settle(tally)
        victim = signer.workers()[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: victim not in signer.workers() and len(signer.workers()) == 3, "a replacement")
        settle(tally)
    assert (tally.refused, tally.other) == (0, [])
    assert tally.dropped <= 8  # what the victim had in hand, at most one session a client
    metrics = signer.metrics()
    assert metrics['worker_restarts_total{reason="died"}'] == 1
    assert metrics['messages_total{verdict="signed"}'] >= tally.signed
    wait_until(lambda: signer.metrics()["sessions"] == 0, "the sessions to end")


def test_a_stopped_worker_is_killed_and_replaced(start_signer: Start) -> None:
    signer = start_signer('worker_timeout = "2s"')
    with under_load(signer) as tally:
        settle(tally)
        victim = signer.workers()[0]
        os.kill(victim, signal.SIGSTOP)
        wait_until(lambda: is_gone(victim) and len(signer.workers()) == 3, "a replacement")
        settle(tally)
    assert (tally.refused, tally.other) == (0, [])
    assert signer.metrics()['worker_restarts_total{reason="silent"}'] == 1
    assert "worker-silent" in signer.output()


def test_ten_reloads_in_a_row_drop_nothing(start_signer: Start) -> None:
    signer = start_signer()
    with under_load(signer) as tally:
        settle(tally)
        for _ in range(10):
            signer.signal(signal.SIGHUP)
            settle(tally, 10)
            assert len(signer.log_lines("reloaded")) <= 10
        wait_until(lambda: signer.metrics().get("generations_draining") == 0, "the old generations to leave")
        settle(tally)
    assert (tally.dropped, tally.refused, tally.other) == (0, 0, [])
    assert signer.metrics()['reloads_total{result="done"}'] >= 1
    assert signer.metrics()["generation"] >= 2
    # The last reload may have begun only after the generations before it had left.
    wait_until(lambda: len(signer.workers()) == 3, "only the last generation's workers to be left")


def test_reload_brings_the_new_configuration(start_signer: Start, folder: Path) -> None:
    signer = start_signer()
    assert len(signer.sign()) == 2
    signer.configure(folder, 'expire = "1h"')
    signer.signal(signal.SIGHUP)
    wait_until(lambda: bool(signer.log_lines("reloaded")), "the reload")
    wait_until(lambda: signer.metrics()["generations_draining"] == 0, "the old workers to leave")
    assert all(b" x=" in value for value in signer.sign())


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        pytest.param("workers = nonsense", "mailward.toml", id="no TOML"),
        pytest.param('workers = "many"', "dkim-sign.workers", id="a wrong value"),
        pytest.param('table = "/nowhere/table"', "/nowhere/table", id="a file that is not there"),
    ],
)
def test_a_broken_configuration_leaves_the_old_generation_serving(
    start_signer: Start, folder: Path, broken: str, said: str
) -> None:
    signer = start_signer()
    workers = sorted(signer.workers())
    signer.config.write_text(signer.config.read_text().replace("workers = 3", broken))
    with under_load(signer) as tally:
        signer.signal(signal.SIGHUP)
        wait_until(lambda: bool(signer.log_lines("reload-refused")), "the refusal")
        settle(tally)
    assert (tally.dropped, tally.refused, tally.other) == (0, 0, [])
    assert said in signer.log_lines("reload-refused")[0]
    assert sorted(signer.workers()) == workers
    assert signer.metrics()['reloads_total{result="refused"}'] == 1


def test_a_key_that_everybody_can_read_is_refused_at_reload(start_signer: Start, folder: Path) -> None:
    signer = start_signer()
    (folder / "rsa.pem").chmod(0o644)
    signer.signal(signal.SIGHUP)
    wait_until(lambda: bool(signer.log_lines("reload-refused")), "the refusal")
    assert "0644" in signer.log_lines("reload-refused")[0]
    assert len(signer.sign()) == 2


@contextmanager
def systemd_socket(path: str) -> Iterator[socket.socket]:
    """Hold a listening socket as systemd does, through the restarts of the service."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(1024)
        os.set_inheritable(listening.fileno(), True)
        yield listening


@contextmanager
def signer_on(folder: Path, listening: socket.socket) -> Iterator[Signer]:
    """Run a signer on a socket that is handed over."""
    signer = Signer(folder, listening=listening)
    signer.start()
    try:
        yield signer
    finally:
        signer.stop()


def test_connections_wait_in_systemds_socket_through_a_restart(folder: Path) -> None:
    with systemd_socket(str(folder / "dkim-sign.sock")) as listening:
        with signer_on(folder, listening) as signer, under_load(signer) as tally:
            settle(tally)
            first = signer.pid
            signer.restart()
            assert is_gone(first)
            settle(tally)
        assert Path(signer.socket_path).exists()  # systemd's path is not ours to remove
    assert (tally.dropped, tally.refused, tally.other) == (0, 0, [])


def test_a_supervisor_that_dies_takes_its_workers_with_it_and_drops_no_message(folder: Path) -> None:
    with systemd_socket(str(folder / "dkim-sign.sock")) as listening, signer_on(folder, listening) as signer:
        workers = signer.workers()
        with under_load(signer) as tally:
            settle(tally)
            os.kill(workers[0], signal.SIGSTOP)  # even one that can do nothing
            signer.signal(signal.SIGSTOP)  # and it dies with the workers' signs of life unread
            time.sleep(1.5)
            os.kill(signer.pid, signal.SIGKILL)
            wait_until(lambda: all(is_gone(worker) for worker in workers), "the workers to leave")
            signer.stop()
            signer.start()
            settle(tally)
    assert (tally.dropped, tally.refused, tally.other) == (0, 0, [])


def test_term_finishes_the_open_session_and_removes_the_socket(start_signer: Start) -> None:
    signer = start_signer()
    session = MilterSession(signer.socket_path)
    session.connect()
    signer.signal(signal.SIGTERM)
    wait_until(lambda: not Path(signer.socket_path).exists(), "the socket's path to go")
    time.sleep(0.5)  # the workers have been told by now
    assert len(session.message(FIELDS).inserted()) == 2
    session.close()
    wait_until(lambda: is_gone(signer.pid), "the supervisor to end")
    assert signer.output().count("drain-deadline") == 0


def test_a_session_outlives_a_reload_by_far(start_signer: Start) -> None:
    signer = start_signer('drain_timeout = "1s"')
    session = MilterSession(signer.socket_path)
    session.connect()
    signer.signal(signal.SIGHUP)
    wait_until(lambda: bool(signer.log_lines("reloaded")), "the reload")
    time.sleep(2.5)  # longer than the stop would wait
    assert len(session.message(FIELDS).inserted()) == 2
    session.close()
    wait_until(lambda: signer.metrics()["generations_draining"] == 0, "the old workers to leave")


def test_term_ends_what_a_reload_left_behind(start_signer: Start) -> None:
    signer = start_signer('drain_timeout = "1s"')
    session = MilterSession(signer.socket_path)
    session.connect()
    signer.signal(signal.SIGHUP)
    wait_until(lambda: bool(signer.log_lines("reloaded")), "the reload")
    signer.signal(signal.SIGTERM)
    wait_until(lambda: is_gone(signer.pid), "the supervisor to end", seconds=10)
    session.close()


def test_term_waits_no_longer_than_the_deadline_for_an_idle_client(start_signer: Start) -> None:
    signer = start_signer('drain_timeout = "1s"')
    session = MilterSession(signer.socket_path)
    session.connect()
    signer.signal(signal.SIGTERM)
    wait_until(lambda: is_gone(signer.pid), "the supervisor to end", seconds=10)
    session.close()
    assert "drain-deadline" in signer.output()


def test_two_hundred_connections_at_once_are_all_served(start_signer: Start) -> None:
    signer = start_signer()
    tally = Tally()
    at_once(200, lambda: send_one(signer.socket_path, tally, 2))
    assert (tally.signed, tally.dropped, tally.refused, tally.other) == (400, 0, 0, [])


def test_more_sessions_than_allowed_are_told_to_come_back(start_signer: Start) -> None:
    signer = start_signer("max_sessions = 1")
    sessions = [MilterSession(signer.socket_path) for _ in range(30)]
    for session in sessions:
        session.connect()
    outcomes = [session.message(FIELDS) for session in sessions]
    for session in sessions:
        session.close()
    replies = {outcome.reply for outcome in outcomes}
    assert "a" in replies
    assert any(outcome.text.startswith("451 4.3.2") for outcome in outcomes)


def test_readiness_follows_the_workers(start_signer: Start) -> None:
    signer = start_signer()
    assert signer.get("/healthz") == (200, "ok\n")
    assert signer.get("/readyz") == (200, "ready\n")
    assert signer.get("/nowhere")[0] == 404
    assert signer.get("/metrics", method="POST")[0] == 405
    assert "dkim-sign" in signer.get("/")[1]


@pytest.mark.parametrize(
    "accept", ["text/plain;version=x", "application/openmetrics-text;version=9.9.9", "\x01;;=,", "*/*"], ids=repr
)
def test_no_accept_field_ends_the_daemon(start_signer: Start, accept: str) -> None:
    signer = start_signer()
    request = f"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", signer.port), timeout=5) as client:
        client.sendall(request.encode())
        assert client.recv(64).startswith(b"HTTP/1.1 200 ")
    assert signer.get("/readyz")[0] == 200


def test_a_log_nobody_reads_stops_no_mail(folder: Path) -> None:
    signer = Signer(folder)
    process = subprocess.Popen(signer.command, cwd=signer.working_folder, stderr=subprocess.PIPE)
    try:
        wait_until(signer.is_serving, "the signer")
        tally = Tally()
        send_one(signer.socket_path, tally, 600)  # 64 kB of log fill the pipe long before
        assert (tally.signed, tally.dropped) == (600, 0)
        assert signer.get("/healthz")[0] == 200
    finally:
        process.kill()
        assert process.stderr is not None
        process.stderr.close()
        process.wait()


def test_the_log_level_changes_with_a_reload(start_signer: Start, folder: Path) -> None:
    signer = start_signer()
    signer.configure(folder, 'log_level = "error"')
    signer.signal(signal.SIGHUP)
    wait_until(lambda: signer.metrics()["generation"] == 2, "the reload")
    wait_until(lambda: signer.metrics()["generations_draining"] == 0, "the old workers to leave")
    before = len(signer.log_lines("message"))
    assert len(signer.sign()) == 2
    assert len(signer.log_lines("message")) == before


def test_systemd_is_told_and_the_watchdog_is_fed(folder: Path) -> None:
    address = str(folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        systemd.settimeout(10)
        signer = Signer(folder)
        signer.environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "600000"}
        signer.start()
        heard = [systemd.recv(4096).decode() for _ in range(4)]
        signer.signal(signal.SIGHUP)
        while not any(message.startswith("RELOADING=1\nMONOTONIC_USEC=") for message in heard):
            heard.append(systemd.recv(4096).decode())
        while heard[-1].split("\n")[0] != "READY=1":
            heard.append(systemd.recv(4096).decode())
        signer.stop()
        while not heard[-1].startswith("STOPPING=1\n"):
            heard.append(systemd.recv(4096).decode())
    assert any(message.startswith("READY=1") for message in heard[:4])
    assert "WATCHDOG=1" in heard
    assert heard[-1] == "STOPPING=1\nEXTEND_TIMEOUT_USEC=27200000"  # drain_timeout is 20 seconds


def test_the_socket_file_survives_every_worker(start_signer: Start) -> None:
    signer = start_signer()
    inode = os.stat(signer.socket_path).st_ino
    for worker in signer.workers():
        os.kill(worker, signal.SIGTERM)  # libmilter takes this as an order to stop and to remove its socket
    wait_until(lambda: signer.metrics()['worker_restarts_total{reason="died"}'] == 3, "three replacements")
    wait_until(lambda: signer.metrics()["workers"] == 3, "three workers")
    assert os.stat(signer.socket_path).st_ino == inode
    assert len(signer.sign()) == 2


def test_an_inet_socket_serves_and_drains_too(folder: Path) -> None:
    from tests.support.processes import free_port

    signer = Signer(folder)
    port = free_port()
    signer.config.write_text(signer.config.read_text().replace(f"unix:{signer.socket_path}", f"inet:127.0.0.1:{port}"))
    signer.start()
    address = ("127.0.0.1", port)
    tally = Tally()
    send_one(address, tally)
    signer.signal(signal.SIGHUP)
    wait_until(lambda: bool(signer.log_lines("reloaded")), "the reload")
    send_one(address, tally)
    signer.stop()
    assert (tally.signed, tally.dropped, tally.refused) == (2, 0, 0)


def test_wrong_configuration_ends_with_78_and_every_mistake(folder: Path) -> None:
    signer = Signer(folder, "typo = 1\nworkrs = 2")
    with pytest.raises(ProgramError, match="status 78"):
        signer.start()
    assert "dkim-sign.typo" in signer.output()
    assert 'did you mean "workers"' in signer.output()


def test_check_says_whether_the_configuration_is_good(folder: Path) -> None:
    signer = Signer(folder)
    command = [*signer.command, "--check"]
    good = subprocess.run(command, cwd=signer.working_folder, capture_output=True, text=True)
    assert (good.returncode, "good" in good.stdout) == (0, True)
    assert "1024 bits" in good.stderr  # weak keys sign, with a warning
    (folder / "ed.pem").write_text("nonsense")
    bad = subprocess.run(command, cwd=signer.working_folder, capture_output=True, text=True)
    assert bad.returncode == 78
    assert "ed.pem" in bad.stderr


def test_no_process_is_left_behind(start_signer: Start) -> None:
    signer = start_signer()
    supervisor, workers = signer.pid, signer.workers()
    assert children(supervisor) == workers
    signer.stop()
    assert all(is_gone(pid) for pid in [supervisor, *workers])
