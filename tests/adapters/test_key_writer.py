"""A new key on disk: whole or not at all, never over another, readable by the signer alone."""

from __future__ import annotations

import errno
import grp
import os
import stat
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path

import pytest

from mailward.adapters.key_files import SIGNER, read_key
from mailward.adapters.key_writer import KeyExists, write_key
from mailward.auth.keys import generate_ed25519

PEM = generate_ed25519().to_pem()
SIGNERS_GID = 61_234


@pytest.fixture
def signer_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the signer's group exist, as after the packages' installation."""

    def getgrnam(name: str) -> grp.struct_group:
        assert name == SIGNER
        return grp.struct_group((name, "x", SIGNERS_GID, []))

    monkeypatch.setattr("grp.getgrnam", getgrnam)


@pytest.fixture
def no_signer_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the signer's group absent, as on a machine without the packages."""

    def getgrnam(name: str) -> grp.struct_group:
        raise KeyError(name)

    monkeypatch.setattr("grp.getgrnam", getgrnam)


@pytest.fixture(params=[0o022, 0o077, 0o000], ids=["umask 022", "umask 077", "umask 000"])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def access(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.usefixtures("no_signer_group", "umask")
def test_without_the_signers_group_only_the_owner_reads_the_key(folder: Path) -> None:
    path = folder / "keys" / "example.com" / "2026a.pem"
    assert write_key(path, PEM) == "0600, its owner alone"
    assert access(path) == (0o600, os.geteuid(), os.getegid())
    assert not access(path.parent)[0] & 0o007
    assert not access(path.parent.parent)[0] & 0o007
    assert path.read_bytes() == PEM
    assert read_key(path).to_pem() == PEM
    assert names(path.parent) == ["2026a.pem"]


@pytest.mark.usefixtures("signer_group", "umask")
def test_the_signers_group_reads_the_key_and_walks_through_its_folders(folder: Path) -> None:
    path = folder / "keys" / "example.com" / "2026a.pem"
    assert write_key(path, PEM) == f"0640 root:{SIGNER}"
    assert access(path) == (0o640, 0, SIGNERS_GID)
    assert access(path.parent) == (0o750, 0, SIGNERS_GID)
    assert access(path.parent.parent) == (0o750, 0, SIGNERS_GID)
    assert names(path.parent) == ["2026a.pem"]


@pytest.mark.usefixtures("signer_group")
def test_folders_that_are_there_stay_as_they_are(folder: Path) -> None:
    before = access(folder)
    write_key(folder / "2026a.pem", PEM)
    assert access(folder) == before


def a_file(path: Path) -> None:
    path.write_text("old")


def a_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def a_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [a_file, a_dangling_link, a_folder])
def test_what_has_the_name_already_stays(folder: Path, make: Callable[[Path], None]) -> None:
    path = folder / "2026a.pem"
    make(path)
    before = path.lstat()
    with pytest.raises(KeyExists):
        write_key(path, PEM)
    assert (path.lstat().st_ino, path.lstat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert names(folder) == ["2026a.pem"]


@pytest.mark.parametrize("call", ["fchown", "fchmod", "fsync", "link"])
@pytest.mark.usefixtures("signer_group")
def test_nothing_is_left_after_a_failure(folder: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"os.{call}", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        write_key(folder / "2026a.pem", PEM)
    assert not isinstance(caught.value, FileExistsError)
    assert names(folder) == []


def test_a_full_disk_leaves_nothing(folder: Path) -> None:
    def write_beyond_the_limit() -> None:
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))
        with pytest.raises(OSError, match="File too large"):
            write_key(folder / "2026a.pem", PEM)

    child = get_context("fork").Process(target=write_beyond_the_limit)
    child.start()
    child.join()
    assert child.exitcode == 0
    assert names(folder) == []


def test_a_temporary_file_of_a_process_that_was_killed_is_in_nobodys_way(folder: Path) -> None:
    (folder / f".2026a.pem.{os.getpid()}").write_bytes(PEM[:10])
    write_key(folder / "2026a.pem", PEM)
    assert (folder / "2026a.pem").read_bytes() == PEM


@pytest.mark.parametrize("folders", ["", "keys/example.com"], ids=["the folder is there", "each makes the folders"])
def test_of_writers_at_the_same_time_exactly_one_wins(folder: Path, folders: str) -> None:
    context, count = get_context("fork"), 6
    for round_number in range(15):
        path = folder / str(round_number) / folders / "2026a.pem"
        (folder / str(round_number)).mkdir()
        barrier, outcomes = context.Barrier(count), context.SimpleQueue()

        def write(number: int, path: Path = path, barrier: object = barrier, outcomes: object = outcomes) -> None:
            barrier.wait(30)  # type: ignore[attr-defined]
            try:
                write_key(path, PEM + b"%d" % number)
                outcome = str(number)
            except KeyExists:
                outcome = "exists"
            except Exception as error:  # whatever else it is, the parent shall name it
                outcome = repr(error)
            outcomes.put(outcome)  # type: ignore[attr-defined]

        writers = [context.Process(target=write, args=(number,)) for number in range(count)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        found = sorted(outcomes.get() for _ in range(count))
        winner = next(outcome for outcome in found if outcome.isdigit())
        assert found == [winner] + ["exists"] * (count - 1)
        assert path.read_bytes() == PEM + winner.encode()
        assert names(path.parent) == ["2026a.pem"]
