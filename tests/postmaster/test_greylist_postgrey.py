"""postgrey's database, as a real postgrey writes it and leaves it, taken by `mailward greylist import`."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailward.model.greylist import Memory, OriginRecord, Triplet, TripletRecord
from mailward.policy.greylist_key import compared_recipient, compared_sender, network_of
from postmaster.greylist import postgrey
from postmaster.greylist.postgrey import HASHED, UNREADABLE, DumpFailed, open_database, read_database
from postmaster.greylist.records import Item, Skipped
from tests.postmaster.greylisting import WINDOWS, Greylisting
from tests.support.processes import Program, answers_on_socket, open_folder, require_binary, require_root, wait_until

EX_DATAERR, EX_UNAVAILABLE = 65, 69
PREFIXES = (24, 64)

# Client, sender, recipient: as Postfix tells them to postgrey.
MAIL = [
    ("192.0.2.7", "Alice@Example.com", "bob@example.org"),
    ("2001:db8:1::5", "alice+tag/1\\y@example.com", "b/c@example.org"),
    ("198.51.100.9", "", "bob@example.org"),
    ("198.51.100.9", "bounce-123-4@lists.example", "dora+x@example.org"),
]


class Postgrey:
    """A real postgrey on a database of its own, which lets pass after a second."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.database = folder / "db"
        self.database.mkdir(exist_ok=True)
        account = pwd.getpwnam("postgrey")
        for path in (folder, self.database):
            os.chown(path, account.pw_uid, account.pw_gid)
        self._socket = folder / "socket"
        self.program = Program(
            "postgrey",
            [
                require_binary("postgrey", "postgrey"),
                f"--unix={self._socket}",
                f"--dbdir={self.database}",
                "--delay=1",
                *options,
            ],
            folder,
            is_ready=lambda: answers_on_socket(self._socket),
        )

    def ask(self, client: str, mail_from: str, rcpt_to: str) -> str:
        with socket.socket(socket.AF_UNIX) as policy:
            policy.settimeout(20)
            policy.connect(str(self._socket))
            request = (
                f"request=smtpd_access_policy\nclient_address={client}\nclient_name=unknown\n"
                f"sender={mail_from}\nrecipient={rcpt_to}\n\n"
            )
            policy.sendall(request.encode())
            return policy.recv(1000).decode()

    def stop(self) -> None:
        """End it in order. A TERM that comes while it begins to wait is seen when something wakes it."""
        pid = self.program.pid

        def has_ended() -> bool:
            answers_on_socket(self._socket)
            return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None

        self.program.signal(signal.SIGTERM)
        wait_until(has_ended, "the end of postgrey")

    def learn(self) -> None:
        """Let every mail come, come again and pass; and one more that has not come again."""
        for mail in MAIL:
            assert "DEFER_IF_PERMIT" in self.ask(*mail)
        began = int(time.time())
        while time.time() < began + 2:  # postgrey counts whole seconds
            time.sleep(0.05)
        for mail in MAIL:
            assert "PREPEND X-Greylist" in self.ask(*mail)
        self.ask("203.0.113.5", "once@example.com", "bob@example.org")


@contextmanager
def running_postgrey(*options: str) -> Iterator[Postgrey]:
    require_root()
    with open_folder("postgrey-") as folder:
        postgrey = Postgrey(folder, *options)
        postgrey.program.start()
        try:
            yield postgrey
            postgrey.stop()
        finally:
            postgrey.program.stop()


@pytest.fixture(scope="module")
def real_postgrey() -> Iterator[Postgrey]:
    with running_postgrey() as postgrey:
        postgrey.learn()
        yield postgrey


def quick(greylisting: Greylisting) -> None:
    """Let Mailward's delay be as short as that of the postgrey in these tests."""
    greylisting.config.write_text(greylisting.config.read_text() + '[greylist]\ndelay = "1s"\n')


def read(folder: Path) -> list[Item]:
    with open_database(folder) as database:
        return list(read_database(database, WINDOWS, PREFIXES, lambda _amount: None))


def test_what_a_running_postgrey_lets_pass_passes(greylisting: Greylisting, real_postgrey: Postgrey) -> None:
    quick(greylisting)
    told = greylisting.succeed("import", real_postgrey.database)
    # Four that passed, three of them with a sender's domain, and one that waits; three clients.
    assert "triplets        8 taken, 0 skipped" in told
    assert "origins         3 taken, 0 skipped" in told
    for client, mail_from, rcpt_to in MAIL:
        sender, recipient = compared_sender(mail_from.encode()), compared_recipient(rcpt_to.encode())
        domain = mail_from.rpartition("@")[2].lower()
        for origin in filter(None, (network_of(client, *PREFIXES), domain)):
            triplet = Triplet(origin, sender, recipient)
            assert greylisting.store.sight(triplet, WINDOWS).memory is Memory.PASSED
    waits = Triplet("203.0.113.0/24", "once@example.com", "bob@example.org")
    assert not greylisting.store.recalls(waits, WINDOWS)
    assert waits in greylisting.triplets()
    assert greylisting.origins()["192.0.2.0/24"].passes == 1


def test_a_second_import_changes_nothing(greylisting: Greylisting, real_postgrey: Postgrey) -> None:
    quick(greylisting)
    greylisting.succeed("import", real_postgrey.database)
    before = (greylisting.triplets(), greylisting.origins())
    told = greylisting.succeed("import", real_postgrey.database)
    assert "0 taken, 8 skipped" in told
    assert (greylisting.triplets(), greylisting.origins()) == before


def test_the_database_keeps_its_owner_and_postgrey_goes_on(greylisting: Greylisting, real_postgrey: Postgrey) -> None:
    before = {path.name: path.stat().st_uid for path in real_postgrey.database.iterdir()}
    greylisting.succeed("import", real_postgrey.database)
    assert {path.name: path.stat().st_uid for path in real_postgrey.database.iterdir()} == before
    assert "DUNNO" in real_postgrey.ask(*MAIL[0])


def test_a_copy_of_the_files_of_a_postgrey_that_ended_can_be_taken(greylisting: Greylisting) -> None:
    quick(greylisting)
    with running_postgrey() as postgrey:
        postgrey.learn()
        postgrey.stop()
        copy = greylisting.folder / "copy"
        copy.mkdir()
        for name in ("postgrey.db", "postgrey_clients.db"):
            shutil.copy(postgrey.database / name, copy)
    assert "triplets        8 taken" in greylisting.succeed("import", copy)
    assert sorted(os.listdir(copy)) == ["postgrey.db", "postgrey_clients.db"]
    assert "triplets        0 taken" in greylisting.succeed("import", copy / "postgrey.db")


def test_keys_that_privacy_hashed_are_told(greylisting: Greylisting) -> None:
    with running_postgrey("--privacy") as postgrey:
        postgrey.learn()
        told = greylisting.succeed("import", postgrey.database)
    assert "triplets        0 taken, 5 skipped" in told
    assert HASHED in told
    assert not greylisting.triplets()
    assert not greylisting.origins()


def test_lookup_by_host_is_taken_by_our_networks() -> None:
    with running_postgrey("--lookup-by-host") as real:
        real.learn()
        items = read(real.database)
    origins = {item.triplet.origin for item in items if isinstance(item, TripletRecord)}
    assert {"192.0.2.0/24", "2001:db8:1::/64", "198.51.100.0/24"} <= origins
    assert not [item for item in items if isinstance(item, Skipped)]


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        pytest.param(b"192.0.2.0/a@x.example/b@y.example", (b"192.0.2.0", b"a@x.example", b"b@y.example"), id="plain"),
        pytest.param(b"192.0.2.0//b@y.example", (b"192.0.2.0", b"", b"b@y.example"), id="the null sender"),
        pytest.param(
            b"192.0.2.0/a/b@x.example/c@y.example", (b"192.0.2.0", b"a/b@x.example", b"c@y.example"), id="a slash"
        ),
        pytest.param(
            b"192.0.2.7/32/a@x.example/b@y.example", (b"192.0.2.7", b"a@x.example", b"b@y.example"), id="by host"
        ),
        pytest.param(b"2001:db8::1/128//b@y.example", (b"2001:db8::1", b"", b"b@y.example"), id="by host, null sender"),
        pytest.param(
            b"192.0.2.0/a@x.example/postmaster", (b"192.0.2.0", b"a@x.example", b"postmaster"), id="postmaster"
        ),
        pytest.param(b"192.0.2.0/a@x/b@y/c@z", None, id="two ways to part it"),
        pytest.param(b"192.0.2.0/a@x.example", None, id="no recipient"),
        pytest.param(b"", None, id="nothing"),
        pytest.param(b"\xff\x00/a@x/b@y", None, id="no network"),
    ],
)
def test_a_key_is_parted_where_that_can_be_told(key: bytes, parts: tuple[bytes, bytes, bytes] | None) -> None:
    assert postgrey._split_key(key) == parts


LOADS = [
    pytest.param(b"192.0.2.0/a@x.example/b@y.example", b"garbage", UNREADABLE, id="no times"),
    pytest.param(b"192.0.2.0/a@x.example/b@y.example", b"9" * 500 + b",1", UNREADABLE, id="a time without end"),
    pytest.param(b"999.0.2.0/a@x.example/b@y.example", b"1,2", UNREADABLE, id="no address"),
    pytest.param(b"/" * 5000, b"1,2", UNREADABLE, id="nothing but slashes"),
    pytest.param(b"a" * 40, b"1,2", HASHED, id="hashed"),
]


@pytest.mark.parametrize(("key", "value", "reason"), LOADS)
def test_what_postgrey_never_wrote_is_counted(key: bytes, value: bytes, reason: str) -> None:
    with made_database([(key, value)], [(key, value)]) as folder:
        assert [item.reason for item in read(folder) if isinstance(item, Skipped)] == [reason, reason]


def test_a_database_of_any_octets_is_read() -> None:
    every_octet = bytes(range(1, 256)).replace(b"/", b"")
    key = b"192.0.2.0/" + every_octet + b"@x.example/b@y.example"
    with made_database([(key, b"1700000000,1700000100")], [(b"192.0.2.7", b"3,1700000100")]) as folder:
        items = read(folder)
    (origin,) = [item for item in items if isinstance(item, OriginRecord)]
    assert (origin.origin, origin.passes, origin.counted_at) == ("192.0.2.0/24", 3, 1700000100)
    records = [item for item in items if isinstance(item, TripletRecord)]
    assert {record.triplet.mail_from for record in records} == {compared_sender(every_octet + b"@x.example")}
    assert {record.triplet.origin for record in records} == {"192.0.2.0/24", "x.example"}


@contextmanager
def made_database(triplets: list[tuple[bytes, bytes]], clients: list[tuple[bytes, bytes]]) -> Iterator[Path]:
    """Make the two files with db_load, from the form that db_dump prints."""
    loader = require_binary("db5.3_load", "db5.3-util")
    with open_folder("postgrey-") as folder:
        for name, pairs in ((postgrey.TRIPLETS, triplets), (postgrey.CLIENTS, clients)):
            lines = [b"VERSION=3", b"format=bytevalue", b"type=btree", b"HEADER=END"]
            lines += [b" " + octets.hex().encode() for pair in pairs for octets in pair]
            text = b"\n".join((*lines, b"DATA=END", b""))
            subprocess.run([loader, str(folder / name)], input=text, check=True, timeout=60)
        yield folder


def test_without_db_dump_the_package_is_named(greylisting: Greylisting, monkeypatch: pytest.MonkeyPatch) -> None:
    with made_database([], []) as folder:
        monkeypatch.setenv("PATH", "/nonexistent")
        done = greylisting.run("import", folder)
    assert done.exit_code == EX_UNAVAILABLE
    assert "apt-get install db-util" in done.output


@pytest.mark.parametrize(
    ("name", "why"),
    [("postgrey.db", "postgrey.db: db"), ("other.db", "has no postgrey.db")],
    ids=["a file that is no database", "a folder without one"],
)
def test_a_folder_that_is_none_of_postgreys_is_refused(greylisting: Greylisting, name: str, why: str) -> None:
    (greylisting.folder / name).write_bytes(b"garbage\n" * 1000)
    done = greylisting.run("import", greylisting.folder)
    assert done.exit_code == EX_DATAERR
    assert why in done.output


def test_a_dump_that_stalls_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgrey, "STALL_SECONDS", 0.2)
    stalling = write_dumper(b"#!/bin/sh\necho VERSION=3\nexec sleep 600\n", monkeypatch)
    with stalling as folder, pytest.raises(DumpFailed, match="has said nothing"):
        read(folder)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        pytest.param(b"#!/bin/sh\nexec tr '\\0' x </dev/zero\n", "line without end", id="a line without end"),
        pytest.param(b"#!/bin/sh\necho HEADER=END; echo ' key'\n", "status 0", id="an end that is missing"),
        pytest.param(b"#!/bin/sh\necho no >&2; exit 3\n", "postgrey_clients.db: no", id="its own words"),
        pytest.param(b"#!/bin/sh\nprintf 'HEADER=END\\n key\\nDATA=END\\n'\n", "without a value", id="half a pair"),
    ],
)
def test_a_dump_that_fails_is_told(monkeypatch: pytest.MonkeyPatch, script: bytes, why: str) -> None:
    with write_dumper(script, monkeypatch) as folder, pytest.raises(DumpFailed, match=why):
        read(folder)


@contextmanager
def write_dumper(script: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Let another program stand for db_dump."""
    with open_folder("postgrey-") as folder:
        for name in (postgrey.TRIPLETS, postgrey.CLIENTS):
            (folder / name).touch()
        program = folder / "db_dump"
        program.write_bytes(script)
        program.chmod(0o755)
        monkeypatch.setattr(postgrey, "PROGRAMS", (str(program),))
        yield folder


def test_what_steers_db_dump_is_read_with_no_more_rights_than_the_folders_owner_has() -> None:
    require_root()
    nobody = pwd.getpwnam("nobody")
    with open_folder("postgrey-") as folder, pytest.MonkeyPatch.context() as patched:
        with write_dumper(b"#!/bin/sh\necho $(id -u) $(id -G) >&2; exit 1\n", patched) as dumping:
            os.chown(dumping, nobody.pw_uid, nobody.pw_gid)
            with pytest.raises(DumpFailed, match=f"{nobody.pw_uid} {nobody.pw_gid}$"):
                read(dumping)
        assert folder.exists()


def test_a_child_that_is_not_read_to_its_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    script = b"#!/bin/sh\necho $$ >pid-$4\necho HEADER=END\nexec sleep 600\n"
    with write_dumper(script, monkeypatch) as folder:
        monkeypatch.chdir(folder)
        folder.chmod(0o777)
        with open_database(folder):
            names = [folder / f"pid-{name}" for name in (postgrey.TRIPLETS, postgrey.CLIENTS)]
            deadline = time.monotonic() + 30
            while not all(name.exists() and name.read_text().strip() for name in names):
                assert time.monotonic() < deadline
                time.sleep(0.02)
        for name in names:
            with pytest.raises(ProcessLookupError):
                os.kill(int(name.read_text()), signal.SIGCONT)
