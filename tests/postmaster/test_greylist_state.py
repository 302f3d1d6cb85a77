"""`mailward greylist` as a program on real state: beside writers, as root, as nobody, with the state away."""

from __future__ import annotations

import json
import os
import pty
import pwd
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailward.adapters.stores import open_greylist
from mailward.model.greylist import Memory, OriginRecord, Triplet, TripletRecord
from mailward.model.state import Durability, SqliteState
from mailward.settings.state import read_state
from postmaster.greylist.records_file import header
from postmaster.opening import name_of
from tests.postmaster.greylisting import DAY, WINDOWS, Greylisting
from tests.support.processes import free_port, open_folder, require_root, wait_until

EX_TEMPFAIL, EX_NOPERM = 75, 77
ROOT = Path(__file__).parent.parent.parent
NET = "192.0.2.0/24"


# The interpreter of a virtual environment may lie where no other account may read.
_AS_ACCOUNT = """
import os
import mailward.adapters.sqlite_greylist
from postmaster.__main__ import main
os.setgroups([]), os.setgid({1}), os.setuid({0})
main(["greylist", *__import__("sys").argv[2:]])
"""


class Installation:
    """A state folder that belongs to the daemons' account, and a configuration that names it."""

    def __init__(self, folder: Path, owner: str = "nobody") -> None:
        self.state = folder / "state"
        self.state.mkdir(0o750)
        self.owner = pwd.getpwnam(owner)
        os.chown(self.state, self.owner.pw_uid, self.owner.pw_gid)
        self.config = folder / "mailward.toml"
        self.config.write_text(f'state = "sqlite:{self.state}"\n')
        self.folder = folder

    def command(self, *arguments: str | Path) -> list[str]:
        words = [str(argument) for argument in arguments]
        return [sys.executable, "-m", "postmaster", "greylist", words[0], "--config", str(self.config), *words[1:]]

    def run(self, *arguments: str | Path, account: pwd.struct_passwd | None = None) -> subprocess.CompletedProcess[str]:
        """Run the program, as an account if one is given."""
        command = self.command(*arguments)
        if account is not None:
            command[1:3] = ["-c", _AS_ACCOUNT.format(account.pw_uid, account.pw_gid)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)

    def succeed(self, *arguments: str | Path) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def installation() -> Iterator[Installation]:
    require_root()
    with open_folder() as folder:
        yield Installation(folder)


def test_what_root_makes_is_the_daemons(installation: Installation) -> None:
    installation.succeed("allow", "192.0.2.7")
    exported = installation.folder / "export"
    installation.succeed("export", exported)
    assert exported.stat().st_uid == 0
    installation.succeed("import", exported)
    made = list(installation.state.iterdir())
    assert made
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {
        (installation.owner.pw_uid, installation.owner.pw_gid)
    }
    assert installation.run("deny", "192.0.2.8", account=installation.owner).returncode == 0


def test_files_that_live_beside_the_database_are_the_daemons_while_root_works(installation: Installation) -> None:
    """-wal and -shm are there while somebody has the database open: a daemon that comes then must be able to write."""
    lines = "".join(
        json.dumps(
            {
                "record": "origin",
                "origin": f"10.{n >> 8}.{n & 255}.0/24",
                "passes": 1,
                "counted_at": 1,
                "expires": 2**40,
            }
        )
        + "\n"
        for n in range(200)
    )
    pipe = installation.folder / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(installation.command("import", pipe), cwd=ROOT, stdout=subprocess.DEVNULL) as running:
        with pipe.open("w") as writer:
            writer.write(header(time.time()) + lines)
            writer.flush()
            wait_until((installation.state / "greylist.sqlite-wal").exists, "the database")
            owners = {path.stat().st_uid for path in installation.state.iterdir()}
            assert installation.run("allow", "192.0.2.8", account=installation.owner).returncode == 0
        assert running.wait(60) == 65, "the pipe had no last line"
    assert owners == {installation.owner.pw_uid}


def test_who_may_not_is_told_who_may(installation: Installation) -> None:
    installation.state.chmod(0o700)
    done = installation.run("list", account=pwd.getpwnam("daemon"))
    assert done.returncode == EX_NOPERM
    assert done.stderr == f"mailward: sqlite:{installation.state}: permission denied; run as root or nobody\n"
    assert done.stdout == ""


def test_where_a_damaged_file_was_set_aside_the_next_call_works(installation: Installation) -> None:
    installation.succeed("allow", "192.0.2.7")
    installation.succeed("allow", "192.0.2.8")
    file = installation.state / "greylist.sqlite"
    file.write_bytes(b"no database" * 1000)
    done = installation.run("list")
    assert done.returncode == EX_TEMPFAIL
    assert done.stderr.endswith("a fresh one is begun; the same command works now\n"), done.stderr
    installation.succeed("list")


def test_a_folder_that_is_not_there_is_not_made(installation: Installation) -> None:
    installation.config.write_text(f'state = "sqlite:{installation.state}/none"\n')
    done = installation.run("allow", "192.0.2.7")
    assert done.returncode == EX_TEMPFAIL
    assert "there is no such folder" in done.stderr
    assert list(installation.state.iterdir()) == []


def test_a_redis_that_is_away_is_named_without_its_password(installation: Installation) -> None:
    port = free_port()
    installation.config.write_text(f'state = "redis://:secret@127.0.0.1:{port}"\n')
    done = installation.run("list")
    assert done.returncode == EX_TEMPFAIL, done.stderr
    assert done.stderr.startswith(f"mailward: redis://127.0.0.1:{port}: away: ")
    assert len(done.stderr.splitlines()) == 1
    assert "secret" not in done.stderr


@pytest.mark.parametrize(
    "written",
    [
        "sqlite:/var/lib/mailward",
        "redis://192.0.2.1:6379",
        "redis:///run/redis/redis.sock",
        "redis://[2001:db8::1]:6379/3",
        "rediss://192.0.2.1:6379",
        "redis+sentinel://192.0.2.1:26379,[::1]:26379/mx",
        "redis+cluster://192.0.2.1:6379,192.0.2.2:6379",
    ],
)
def test_a_state_is_named_as_the_configuration_has_it(written: str) -> None:
    assert name_of(read_state(written).state) == written
    scheme, _, rest = written.partition("://")
    if rest and not rest.startswith("/"):
        assert name_of(read_state(f"{scheme}://:secret@{rest}").state) == written


def test_everything_works_beside_daemons_that_write(installation: Installation) -> None:
    """Four threads sight triplets all the time; each command ends, and no sighting waits for one."""
    state, stopping = SqliteState(installation.state), threading.Event()
    store = open_greylist(state, Durability.PROCESS, 5.0)
    sighted: list[int] = []
    errors: list[Exception] = []

    def sight(writer: int) -> None:
        number = 0
        try:
            while not stopping.is_set():
                number += 1
                triplet = Triplet(f"10.{writer}.{number % 200}.0/24", f"a{number}@example.com", "bob@example.org")
                store.sight(triplet, WINDOWS)
                stopping.wait(0.001)
        except Exception as error:
            errors.append(error)
        sighted.append(number)

    writers = [threading.Thread(target=sight, args=(writer,)) for writer in range(4)]
    for writer in writers:
        writer.start()
    try:
        installation.succeed("off", "1h")
        wait_until(lambda: store.orders().off_until > time.time(), "the switch")
        installation.succeed("on")
        assert store.orders().off_until == 0.0
        installation.succeed("deny", "10.1.0.0/16", "--note", "beside writers")
        assert [entry.subject for entry in store.orders().entries] == ["10.1.0.0/16"]
        exported = installation.folder / "export"
        installation.succeed("export", exported)
        assert "0 taken" in installation.succeed("import", exported)
        assert "waiting" in installation.succeed("stats")
        installation.succeed("list", "--triplets", "--limit", "5")
        installation.succeed("forget", "10.2.0.0/16")
    finally:
        stopping.set()
        for writer in writers:
            writer.join()
        store.close()
    assert not errors
    assert sum(sighted) > 100


def test_the_whole_way_on_every_store(greylisting_anywhere: Greylisting) -> None:
    greylisting = greylisting_anywhere
    greylisting.learn(
        greylisting.waiting(NET, "alice@example.com", "bob@example.org"),
        greylisting.passed("example.com", "alice@example.com", "bob@example.org"),
        greylisting.origin(NET, 5),
    )
    greylisting.store.record(["carol@example.com"], 30 * DAY)
    greylisting.succeed("deny", "bob@example.org", "--recipient", "--for", "30d", "--note", "likes to wait")
    greylisting.succeed("off", "2h")
    assert "switched off" in greylisting.succeed("show", "bob@example.org")
    greylisting.succeed("on")
    assert "is delayed until its own retry" in greylisting.succeed("show", "bob@example.org")
    assert "passes at once: whitelisted" in greylisting.succeed("show", "192.0.2.7")
    assert "likes to wait" in greylisting.succeed("list")
    assert len(greylisting.json("list", "--triplets")["triplets"]) == 2
    assert greylisting.json("stats")["origins"]["whitelisted"] == 1
    path = greylisting.folder / "export"
    greylisting.succeed("export", path)
    for subject in (["192.0.2.7"], ["example.com"], ["bob@example.org"]):
        greylisting.succeed("forget", *subject)
    assert not greylisting.triplets()
    assert "triplets        2 taken, 0 skipped" in greylisting.succeed("import", path)
    assert "triplets        0 taken, 2 skipped" in greylisting.succeed("import", path)
    triplet = Triplet("example.com", "alice@example.com", "bob@example.org")
    assert greylisting.store.sight(triplet, WINDOWS).memory is Memory.PASSED
    assert greylisting.entries() == {"bob@example.org": False}


def fill(installation: Installation, count: int) -> None:
    now = time.time()
    store = open_greylist(SqliteState(installation.state), Durability.PROCESS, 60.0)
    store.put_origins([OriginRecord(NET, 5, now, now + DAY)])
    store.put_triplets(
        TripletRecord(Triplet(NET, f"a{number}@example.com", "bob@example.org"), now, 0.0, now + DAY)
        for number in range(count)
    )
    store.close()


def test_what_takes_long_shows_a_bar_on_a_terminal_and_nowhere_else(installation: Installation) -> None:
    fill(installation, 21_000)
    assert installation.run("export", installation.folder / "export").stderr.startswith("21001 records written")
    shown = in_terminal(installation.command("import", installation.folder / "export"))
    assert re.search(r"import +\[#", shown)
    assert "triplets        0 taken, 21000 skipped" in shown


@pytest.mark.parametrize(
    ("words", "last"),
    [
        (("list", "--triplets", "--limit", "1"), "... and 20999 more triplets"),
        (("show", "bob@example.org", "--limit", "1"), "... and 20999 more triplets"),
        (("forget", "bob@example.org", "--dry-run"), "Would forget 0 entries, 0 origins, 21000 triplets."),
        (("forget", "bob@example.org"), "Forgot 0 entries, 0 origins, 21000 triplets."),
        (("stats",), "21000 waiting"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_whoever_walks_through_all_triplets_shows_a_bar_and_then_speaks(
    installation: Installation, words: tuple[str, ...], last: str
) -> None:
    fill(installation, 21_000)
    shown = in_terminal(installation.command(*words))
    walked, end, said = shown.rpartition("100%")
    assert re.search(r"triplets +\[#", walked + end)
    assert last in said
    assert "\n" not in walked, "one bar, however often it is walked"
    assert "triplet:" not in walked, "nothing is said while the bar moves"
    assert "triplets  [" not in installation.run(*words).stderr, "and none is shown where there is no terminal"


def in_terminal(command: list[str]) -> str:
    """Run a command on a terminal of its own, and return what it showed."""
    terminal, side = pty.openpty()
    shown = b""
    with subprocess.Popen(command, cwd=ROOT, stdin=side, stdout=side, stderr=side, start_new_session=True) as running:
        os.close(side)
        try:
            while select.select([terminal], [], [], 60)[0]:
                chunk = os.read(terminal, 65536)
                if not chunk:
                    break
                shown += chunk
        except OSError:  # a terminal whose other side has been closed says so
            pass
        finally:
            os.close(terminal)
        assert running.wait(60) == 0, shown
    return shown.decode()


def test_an_import_that_is_interrupted_leaves_a_state_that_works(installation: Installation) -> None:
    pipe = installation.folder / "pipe"
    os.mkfifo(pipe)
    now = time.time()
    sighted = {"record": "triplet", "origin": NET, "rcpt_to": "b@example.org", "first_seen": now, "passed_at": 0}
    lines = (
        json.dumps({**sighted, "mail_from": f"a{number}@example.com", "expires": now + DAY}) for number in range(50_001)
    )
    command = installation.command("import", pipe)
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    with running, pipe.open("w") as writer:  # opens once the command reads it
        writer.write(header(now) + "\n".join(lines) + "\n")
        writer.flush()
        store = open_greylist(SqliteState(installation.state), Durability.PROCESS, 60.0)
        wait_until(lambda: store.count_triplets() > 0, "the first batch")
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "takes the rest" in errors
    kept = store.count_triplets()
    assert 0 < kept <= 50_000
    assert len(list(store.triplets())) == kept
    store.close()
