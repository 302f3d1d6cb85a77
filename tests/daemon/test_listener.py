"""The listening socket: permissions, whose path it is, and what stands there already."""

from __future__ import annotations

import gc
import grp
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailward.daemon.listener import BACKLOG, Listener, bind, listen
from mailward.model.errors import ConfigError
from mailward.settings.values import SocketAddress
from tests.support.processes import answers_on, answers_on_socket, free_port, open_folder

LONGEST_PATH = 100  # what mailward.settings.load allows


@pytest.fixture
def path() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder / "x.sock"


def bind_unix(path: Path, mode: int = 0o660, group: str = "") -> Listener:
    return bind(SocketAddress(str(path), "", 0), mode, group, "test.socket")


def complaint(address: SocketAddress, group: str = "") -> str:
    """Return why nothing can be bound there."""
    with pytest.raises(ConfigError) as caught:
        bind(address, 0o660, group, "test.socket")
    (mistake,) = caught.value.mistakes
    assert mistake.where == "test.socket"
    return mistake.expected


def files_beside(path: Path) -> list[str]:
    return sorted(found.name for found in path.parent.iterdir())


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000], ids=oct)
@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666], ids=oct)
def test_a_unix_socket_has_the_permissions_asked_for(path: Path, mode: int, umask: int) -> None:
    before = os.umask(umask)
    try:
        bound = bind_unix(path, mode)
    finally:
        os.umask(before)
    with bound.socket:
        assert stat.S_IMODE(path.stat().st_mode) == mode
        assert answers_on_socket(path)


def test_a_unix_socket_has_the_group_asked_for(path: Path) -> None:
    group = next(entry for entry in grp.getgrall() if entry.gr_gid not in (0, os.getegid()))
    with bind_unix(path, group=group.gr_name).socket:
        assert path.stat().st_gid == group.gr_gid
        assert path.stat().st_uid == os.geteuid()


def test_the_socket_never_blocks_in_accept(path: Path) -> None:
    with bind_unix(path).socket as bound, pytest.raises(BlockingIOError):
        bound.accept()


def test_renaming_leaves_no_temporary_file(path: Path) -> None:
    with bind_unix(path).socket:
        assert files_beside(path) == ["x.sock"]


def test_a_group_that_does_not_exist_is_named(path: Path) -> None:
    assert 'there is no group "no-such-group"' in complaint(SocketAddress(str(path), "", 0), "no-such-group")
    assert files_beside(path) == []


def test_nothing_stays_open_where_nothing_can_be_bound(path: Path) -> None:
    gc.collect()
    open_before = len(os.listdir("/proc/self/fd"))
    for address in (SocketAddress(str(path), "", 0), SocketAddress("", "192.0.2.1", 8891)):
        with pytest.raises(ConfigError):
            bind(address, 0o660, "no-such-group", "test.socket")
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_a_missing_folder_is_named(path: Path) -> None:
    address = SocketAddress(str(path.parent / "missing" / "x.sock"), "", 0)
    assert complaint(address) == f"cannot listen at {address.path}: No such file or directory"


def test_a_folder_in_the_way_is_named_and_stays(path: Path) -> None:
    path.mkdir()
    assert f"cannot listen at {path}: " in complaint(SocketAddress(str(path), "", 0))
    assert path.is_dir()
    assert files_beside(path) == ["x.sock"]


def test_a_file_that_is_no_socket_is_left_alone(path: Path) -> None:
    path.write_text("the operator's")
    assert str(path) in complaint(SocketAddress(str(path), "", 0))
    assert path.read_text() == "the operator's"
    assert files_beside(path) == ["x.sock"]


def test_a_second_process_that_listens_is_left_alone(path: Path) -> None:
    with bind_unix(path).socket as first:
        inode = path.stat().st_ino
        assert "another process is listening there" in complaint(SocketAddress(str(path), "", 0))
        assert path.stat().st_ino == inode
        first.accept()[0].close()  # the probe
        assert answers_on_socket(path)


def test_a_second_process_that_is_stuck_with_a_full_queue_holds_up_nothing(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stuck:
        stuck.bind(str(path))
        stuck.listen(0)
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(str(path))
        found: list[BaseException] = []

        def try_to_bind() -> None:
            try:
                bind_unix(path).socket.close()
            except ConfigError as error:
                found.append(error)

        thread = threading.Thread(target=try_to_bind, daemon=True)
        thread.start()
        thread.join(10)
        is_held_up = thread.is_alive()
        for client in waiting:
            client.close()
    thread.join(10)
    assert not is_held_up
    assert len(found) == 1


def test_a_stale_socket_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
        stale.listen()
    assert not answers_on_socket(path)
    with bind_unix(path).socket:
        assert answers_on_socket(path)


def test_a_temporary_file_of_a_process_that_was_killed_is_in_nobodys_way(path: Path) -> None:
    Path(f"{path}.{os.getpid()}").write_text("left behind")
    with bind_unix(path).socket:
        assert files_beside(path) == ["x.sock"]


@pytest.mark.parametrize("pid", [7, 4_194_303], ids=["small", "Linux's largest"])
def test_the_longest_path_can_be_bound_whatever_the_pid(path: Path, monkeypatch: pytest.MonkeyPatch, pid: int) -> None:
    monkeypatch.setattr("os.getpid", lambda: pid)
    longest = path.parent / "x".ljust(LONGEST_PATH - len(str(path.parent)) - 1, "x")
    assert len(str(longest)) == LONGEST_PATH
    with bind_unix(longest).socket:
        assert answers_on_socket(longest)


def test_remove_takes_the_path_away(path: Path) -> None:
    bound = bind_unix(path)
    bound.remove()
    assert files_beside(path) == []
    bound.remove()
    bound.socket.close()


def test_remove_leaves_anothers_socket_alone(path: Path) -> None:
    ours = bind_unix(path)
    with socket.socket(socket.AF_UNIX) as another:
        another.bind(f"{path}.new")
        another.listen()
        os.rename(f"{path}.new", path)
        ours.remove()
        assert answers_on_socket(path)
    ours.socket.close()


def test_remove_does_not_mind_that_the_path_is_gone(path: Path) -> None:
    bound = bind_unix(path)
    path.unlink()
    bound.remove()
    bound.socket.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_inet_sockets_listen(host: str) -> None:
    port = free_port()
    bound = bind(SocketAddress("", host, port), 0o660, "", "test.socket")
    with bound.socket:
        assert answers_on(port, host)
        bound.remove()
        assert answers_on(port, host)


def test_an_inet_address_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert complaint(SocketAddress("", "127.0.0.1", port)) == (
            f"cannot listen at 127.0.0.1:{port}: Address already in use"
        )


def test_an_address_of_another_machine_is_named() -> None:
    assert "Cannot assign requested address" in complaint(SocketAddress("", "192.0.2.1", 8891))


def test_as_many_connections_wait_as_the_queue_holds(path: Path) -> None:
    queue = min(BACKLOG, int(Path("/proc/sys/net/core/somaxconn").read_text()))
    with bind_unix(path).socket as bound:
        assert bound.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        clients = [socket.socket(socket.AF_UNIX) for _ in range(queue // 4)]
        for client in clients:
            client.setblocking(False)
        assert {client.connect_ex(str(path)) for client in clients} == {0}
        for client in clients:
            client.close()


INHERITING = """
import os, socket
from mailward.daemon.listener import take_inherited
bound = socket.create_server(("127.0.0.1", 0))
os.dup2(bound.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str({pid}), LISTEN_FDNAMES="x")
found = take_inherited()
left = [name for name in os.environ if name.startswith("LISTEN")]
print([(name, one.getsockname() == bound.getsockname(), os.get_inheritable(one.fileno())) for name, one in found], left)
"""


@pytest.mark.parametrize(
    ("pid", "printed"),
    [
        pytest.param("os.getpid()", "[('x', True, False)] []", id="ours"),
        pytest.param("os.getppid()", "[] []", id="another process's"),
    ],
)
def test_systemds_socket_is_taken_and_hidden_from_children(pid: str, printed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INHERITING.format(pid=pid)], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout.strip(), done.returncode) == (printed, 0), done.stderr


MISTAKEN = """
import os, socket
from mailward.daemon.listener import take_inherited
from mailward.model.errors import ConfigError
{made}
if made is not None:
    os.dup2(made.fileno(), 3)
else:
    os.closerange(3, 10)
os.environ.update(LISTEN_FDS={said!r}, LISTEN_PID=str(os.getpid()))
try:
    print(len(take_inherited()))
except ConfigError as error:
    print(error)
"""
NO_LISTENER = "LISTEN_FDS: expected listening stream sockets (ListenStream=, Accept=no); descriptor 3 is none"


@pytest.mark.parametrize(
    ("made", "said", "printed"),
    [
        pytest.param("made = socket.socket(type=socket.SOCK_DGRAM)", "1", NO_LISTENER, id="ListenDatagram="),
        pytest.param(
            "made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\nmade.bind('')\nmade.listen()",
            "1",
            NO_LISTENER,
            id="ListenSequentialPacket=",
        ),
        pytest.param("one, made = socket.socketpair()", "1", NO_LISTENER, id="Accept=yes"),
        pytest.param("made = socket.socket(socket.AF_UNIX)", "1", NO_LISTENER, id="nobody listens"),
        pytest.param("made = open('/dev/null')", "1", NO_LISTENER, id="a file"),
        pytest.param("made = None", "1", NO_LISTENER, id="fewer than said"),
        pytest.param("made = socket.create_server(('127.0.0.1', 0))", "\u00b2", "0", id="a digit that is no number"),
    ],
)
def test_what_systemd_hands_over_and_is_no_listener_is_told(made: str, said: str, printed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MISTAKEN.format(made=made, said=said)], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout.strip(), done.returncode) == (printed, 0), done.stderr


def handed(name: str) -> tuple[str, socket.socket]:
    return name, socket.create_server(("127.0.0.1", 0))


ANYWHERE = SocketAddress("", "127.0.0.1", 0)


def test_what_systemd_names_after_a_setting_is_for_that_setting() -> None:
    first, second = handed("dovecot"), handed("policyd.socket")
    found = listen({"socket": ANYWHERE, "dovecot": ANYWHERE}, [first, second], 0o660, "", "policyd")
    try:
        assert {name: listener.socket for name, listener in found.items()} == {"dovecot": first[1], "socket": second[1]}
    finally:
        for listener in found.values():
            listener.socket.close()


def test_what_systemd_does_not_hand_over_is_bound_here() -> None:
    first = handed("whatever")
    found = listen({"socket": ANYWHERE, "dovecot": ANYWHERE}, [first], 0o660, "", "policyd")
    try:
        assert found["socket"].socket is first[1]
        assert found["dovecot"].socket.getsockname()[1] > 0
    finally:
        for listener in found.values():
            listener.socket.close()


def test_a_socket_of_systemds_that_is_left_over_is_told() -> None:
    one, other = handed("a"), handed("b")
    with one[1], other[1], pytest.raises(ConfigError, match="FileDescriptorName"):
        listen({"socket": ANYWHERE}, [one, other], 0o660, "", "policyd")
