"""Private keys on disk: who may read them before we do, and that each is read once."""

from __future__ import annotations

import os
import pwd
import threading
from pathlib import Path

import pytest

from mailward.adapters import key_files
from mailward.adapters.key_files import MAX_KEY_FILE, KeyCache, KeyFileError, check_access, read_key
from mailward.auth.keys import PrivateKey, generate_ed25519

KEY = generate_ed25519()
OWN, ROOT, STRANGER = os.geteuid(), 0, 61_234  # accounts and groups by number; the last is nobody's


def write(path: Path, mode: int = 0o600, owner: int = OWN, group: int = ROOT) -> Path:
    path.write_bytes(KEY.to_pem())
    os.chown(path, owner, group)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("mode", "owner", "group", "fault"),
    [
        pytest.param(0o600, OWN, ROOT, "", id="0600"),
        pytest.param(0o400, OWN, ROOT, "", id="0400"),
        pytest.param(0o640, ROOT, os.getegid(), "", id="0640 and our own group"),
        pytest.param(0o440, ROOT, os.getegid(), "", id="0440 and our own group"),
        pytest.param(0o600, OWN, STRANGER, "", id="0600: the group does not matter"),
        pytest.param(0o640, OWN, STRANGER, "group 61234 can open it", id="0640 and a group we are not in"),
        pytest.param(0o610, OWN, STRANGER, "group 61234 can open it", id="0610 and a group we are not in"),
        pytest.param(0o644, OWN, ROOT, "everyone can open it (mode 0644)", id="0644"),
        pytest.param(0o604, OWN, ROOT, "everyone can open it (mode 0604)", id="0604"),
        pytest.param(0o602, OWN, ROOT, "everyone can open it (mode 0602)", id="0602"),
        pytest.param(0o777, OWN, STRANGER, "everyone can open it (mode 0777)", id="0777"),
        pytest.param(0o660, OWN, os.getegid(), "its group can write it", id="0660"),
        pytest.param(0o620, OWN, os.getegid(), "its group can write it", id="0620"),
        pytest.param(0o600, STRANGER, ROOT, "it belongs to account 61234", id="another account's"),
    ],
)
def test_who_else_may_open_a_key(folder: Path, mode: int, owner: int, group: int, fault: str) -> None:
    path = write(folder / "key.pem", mode, owner, group)
    if not fault:
        check_access(path)
        assert read_key(path).public_key == KEY.public_key
        return
    for look in (check_access, read_key):
        with pytest.raises(KeyFileError) as caught:
            look(path)
        assert fault in str(caught.value)


def test_a_key_may_be_the_signers_whoever_looks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(folder / "key.pem", 0o600, pwd.getpwnam("daemon").pw_uid)
    with pytest.raises(KeyFileError, match="expected root, mailward-sign or"):
        check_access(path)
    monkeypatch.setattr(key_files, "SIGNER", "daemon")
    key_files._trusted_accounts.cache_clear()
    check_access(path)
    key_files._trusted_accounts.cache_clear()


def test_what_is_no_regular_file_is_refused_and_not_opened(folder: Path) -> None:
    (folder / "folder").mkdir(mode=0o700)
    os.mkfifo(folder / "pipe", 0o600)
    for path in (folder / "folder", folder / "pipe", Path("/dev/null")):
        with pytest.raises(KeyFileError, match="is no regular file"):
            read_key(path)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("missing", "No such file or directory"),
        ("key.pem/x", "Not a directory"),
        ("loop", "Too many levels"),
        ("x" * 300, "too long"),
    ],
)
def test_what_cannot_be_found_says_why_without_the_name(folder: Path, name: str, why: str) -> None:
    write(folder / "key.pem")
    (folder / "loop").symlink_to("loop")
    with pytest.raises(KeyFileError, match=f"^cannot be read: .*{why}"):
        read_key(folder / name)


def test_a_link_is_as_good_as_the_key_it_leads_to(folder: Path) -> None:
    (folder / "good").symlink_to(write(folder / "a.pem"))
    (folder / "bad").symlink_to(write(folder / "b.pem", 0o644))
    assert read_key(folder / "good").public_key == KEY.public_key
    with pytest.raises(KeyFileError, match="everyone"):
        read_key(folder / "bad")


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", b"\n" * MAX_KEY_FILE + KEY.to_pem()],
    ids=["empty", "garbage", "a key behind more than a key file holds"],
)
def test_what_is_no_key_is_refused(folder: Path, content: bytes) -> None:
    write(folder / "key.pem").write_bytes(content)
    with pytest.raises(KeyFileError, match="PEM"):
        read_key(folder / "key.pem")


def test_an_account_that_may_not_read_the_key_is_told_before_any_mail_comes(folder: Path) -> None:
    path = write(folder / "key.pem", 0o600, ROOT, ROOT)
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.setgroups([])
            os.setresgid(STRANGER, STRANGER, STRANGER)
            os.setresuid(STRANGER, STRANGER, STRANGER)
            check_access(path)
        except KeyFileError as error:
            status = 0 if str(error) == "cannot be read: Permission denied" else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


class Reads:
    """Stands in for read_key() and remembers what was read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths: list[str] = []
        monkeypatch.setattr(key_files, "read_key", self.read)

    def read(self, path: Path) -> PrivateKey:
        self.paths.append(path.name)
        return read_key(path)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


def test_the_cache_reads_a_key_once(folder: Path, reads: Reads) -> None:
    path, cache = str(write(folder / "key.pem")), KeyCache(2)
    first = cache.get(path)
    os.unlink(path)
    assert cache.get(path) is first
    assert reads.paths == ["key.pem"]


def test_the_cache_is_bounded_and_the_first_to_come_leaves_first(folder: Path, reads: Reads) -> None:
    paths, cache = [str(write(folder / name)) for name in "abc"], KeyCache(2)
    for path in (*paths, paths[1], paths[2], paths[0], paths[2]):
        cache.get(path)
    assert "".join(reads.paths) == "abc" + "a"


def test_a_key_that_cannot_be_read_is_tried_again(folder: Path, reads: Reads) -> None:
    path, cache = write(folder / "key.pem", 0o644), KeyCache(2)
    with pytest.raises(KeyFileError):
        cache.get(str(path))
    path.chmod(0o600)
    assert cache.get(str(path)).public_key == KEY.public_key
    assert len(reads.paths) == 2


def test_threads_that_want_many_keys_keep_the_bound(folder: Path) -> None:
    paths, cache = [str(write(folder / str(number))) for number in range(8)], KeyCache(3)
    found: list[bytes] = []

    def take_all(start: int) -> None:
        found.extend(cache.get(paths[(start + number) % 8]).public_key for number in range(40))

    threads = [threading.Thread(target=take_all, args=(start,)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [KEY.public_key] * 320
    assert len(cache._keys) <= 3
