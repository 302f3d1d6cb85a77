"""What the packages say of the daemons is so: no daemon at work does what its unit forbids, versions agree, shells complete."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

import mailward
from tests.packages.unit_file import Unit
from tests.programs.signer import FIELDS, Signer
from tests.support.greylister import Greylister
from tests.support.milter_client import MilterSession
from tests.support.nameserver import Nameserver
from tests.support.policy_server import PolicyServer
from tests.support.processes import Program, free_port, open_folder, read_text, require_binary, run, wait_until
from tests.support.verifier import Verifier

ROOT = Path(__file__).parents[1]
DEBIAN = ROOT / "debian"
MESSAGES = 20
ZONES = {
    "example.com": '@ TXT "v=spf1 ip4:192.0.2.0/24 -all"\n_dmarc TXT "v=DMARC1; p=reject"\nrsa._domainkey TXT "v=DKIM1; p="\n'
}

# What a unit forbids by its arguments: MemoryDenyWriteExecute=, RestrictNamespaces=, RestrictSUIDSGID=, LockPersonality=.
BY_ARGUMENT = {
    "mmap": r"PROT_WRITE\|PROT_EXEC",
    "mprotect": "PROT_EXEC",
    "pkey_mprotect": "PROT_EXEC",
    "shmat": "SHM_EXEC",
    "clone": "CLONE_NEW",
    "clone3": "CLONE_NEW",
    "unshare": "CLONE_NEW",
    "setns": ".",
    "personality": "^(?!0xffffffff)",
    **dict.fromkeys(("chmod", "fchmod", "fchmodat", "mkdir", "mkdirat"), r"\b0[2-7][0-7]{3}\b"),
}
SOCKETS = ("socket", "socketpair")
# Tests run as root, and there what is made is given to the folder's owner, which a daemon's account neither may nor has to.
ROOTS_OWN = re.compile(r"fchown\(\d+, 0, 0\b") if os.geteuid() == 0 else re.compile("(?!)")


class Watched:
    """A daemon under strace, which stops it only at calls that its unit forbids, or may forbid for their arguments."""

    def __init__(self, name: str, daemon: Program) -> None:
        self.daemon = daemon
        self.log = daemon.folder / f"{name}.calls"
        text = read_text(DEBIAN / f"mailward-{name}.service")
        self._unit = Unit(f"mailward-{name}.service", [text])
        untraced = sorted(self._allowed() - {*BY_ARGUMENT, *SOCKETS})
        traced = "!" + ",".join(f"?{call}" for call in untraced)  # "?": strace need not know it
        strace = [require_binary("strace", "strace"), "-DDD", "-f", "--seccomp-bpf", "-qqq", "-o", str(self.log)]
        daemon.command = [*strace, "-e", f"trace={traced}", "-e", "signal=none", "--", *daemon.command]

    def forbidden(self) -> list[str]:
        """Return the calls that the unit forbids, once the daemon has ended."""
        families = self._unit.words("Service.RestrictAddressFamilies")
        assert families
        allowed = self._allowed()
        return [
            f"{name}({arguments}"
            for name, arguments in re.findall(r"^\d+ +(\w+)\((.*)", read_text(self.log), re.MULTILINE)
            if (name not in allowed and not ROOTS_OWN.match(f"{name}({arguments}"))
            or (name in SOCKETS and arguments.split(",")[0] not in families)
            or (name in BY_ARGUMENT and re.search(BY_ARGUMENT[name], arguments))
        ]

    def _allowed(self) -> set[str]:
        """Return the system calls of SystemCallFilter=: the first line allows, those with a tilde take away."""
        allowed: set[str] = set()
        for value in self._unit.all("Service.SystemCallFilter"):
            calls = {call for word in value.removeprefix("~").split() for call in calls_of(word)}
            allowed = allowed - calls if value.startswith("~") else allowed | calls
        assert allowed
        return allowed


@cache
def calls_of(word: str) -> frozenset[str]:
    """Return the system calls of a word of SystemCallFilter=, a call's name or a set of them."""
    if not word.startswith("@"):
        return frozenset({word})
    lines = run([require_binary("systemd-analyze", "systemd"), "--no-pager", "syscall-filter", word]).split("\n")
    names = [line.strip() for line in lines if line.startswith("    ") and not line.strip().startswith("#")]
    return frozenset(call for name in names for call in calls_of(name))


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with open_folder() as made:
        yield made


@pytest.fixture(scope="module")
def nameserver(folder: Path) -> Iterator[Nameserver]:
    with Nameserver(folder / "dns", ZONES, port=free_port()) as running:
        yield running


def signer(folder: Path, nameserver: Nameserver) -> tuple[Program, Callable[[], None]]:
    daemon = Signer(folder)
    daemon.config.write_text(daemon.config.read_text().replace("127.0.0.1:1", nameserver.endpoint))

    def work() -> None:
        for _ in range(MESSAGES):
            assert daemon.sign()

    return daemon, work


def verifier(folder: Path, nameserver: Nameserver) -> tuple[Program, Callable[[], None]]:
    daemon = Verifier(folder, nameservers=[nameserver.endpoint], authserv_id="mx.example.net")
    return daemon, lambda: send(daemon.socket_path, "a")


def greylister(folder: Path, nameserver: Nameserver) -> tuple[Program, Callable[[], None]]:
    daemon = Greylister(folder, nameservers=[nameserver.endpoint])
    return daemon, lambda: send(daemon.socket_path, "y")


def policy_server(folder: Path, _nameserver: Nameserver) -> tuple[Program, Callable[[], None]]:
    """Return a daemon of whose account an incident is told by a command and by mail that nobody takes."""
    incidents = (
        f'[policyd.incidents]\ncommand = ["/bin/true"]\nmail_to = ["a@example.com"]\nsmtp = "127.0.0.1:{free_port()}"\n'
    )
    limit = '[[policyd.limit]]\nname = "few"\nper = "sasl_username"\ncount = "recipients"\nlimit = "5/1h"\nsuspend_after = 3\n'
    daemon = PolicyServer(folder, incidents + limit)

    def work() -> None:
        for number in range(MESSAGES):
            daemon.ask(
                sasl_username="joe", sender="joe@example.com", recipient=f"{number}@example.net", instance=str(number)
            )
        daemon.wait_for_log("notification-sent", channel="command")
        daemon.wait_for_log("notification-failed", channel="mail")

    return daemon, work


def send(socket_path: str, reply: str) -> None:
    for number in range(MESSAGES):
        session = MilterSession(socket_path)
        session.connect()
        session.helo()
        outcome = session.message(FIELDS, mail_from=f"{number}@example.com".encode())
        session.close()
        assert outcome.reply == reply, outcome


@pytest.mark.parametrize(
    ("name", "made"),
    [("dkim-sign", signer), ("auth-verify", verifier), ("greylist", greylister), ("policyd", policy_server)],
)
def test_a_daemon_at_work_calls_nothing_that_its_unit_forbids(
    folder: Path,
    nameserver: Nameserver,
    name: str,
    made: Callable[[Path, Nameserver], tuple[Program, Callable[[], None]]],
) -> None:
    daemon, work = made(folder, nameserver)
    watched = Watched(name, daemon)
    daemon.start()
    try:
        work()
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: "event=reloaded" in daemon.output(), f"{name} to reload")
        work_again = work if name != "policyd" else lambda: None  # its account is suspended by now
        work_again()
    finally:
        daemon.stop()
    assert "socket(AF_UNIX" in read_text(watched.log) or "socketpair(AF_UNIX" in read_text(watched.log)  # strace saw it
    assert watched.forbidden() == []


def test_a_call_that_a_unit_forbids_is_seen(folder: Path) -> None:
    does = "import mmap, os, socket; mmap.mmap(-1, 4096, prot=7); os.nice(1); socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)"
    program = Program("forbidden", [sys.executable, "-c", does], folder, is_ready=lambda: True)
    watched = Watched("greylist", program)
    subprocess.run(program.command, check=True)
    wait_until(lambda: "AF_NETLINK" in read_text(watched.log), "strace to write")
    found = " ".join(watched.forbidden())
    assert "PROT_EXEC" in found
    assert "AF_NETLINK" in found
    assert re.search(r"\b(nice|setpriority)\(", found)


@pytest.mark.parametrize("name", ["dkim-sign", "auth-verify", "greylist", "policyd"])
def test_starts_in_vain_end_on_a_slow_machine_and_those_after_a_crash_never_do(name: str) -> None:
    """A connection starts a daemon with a wrong configuration again at once; after a crash systemd waits."""
    unit = Unit(f"mailward-{name}.service", [read_text(DEBIAN / f"mailward-{name}.service")])
    interval, burst, pause = (
        int(unit.one(key).removesuffix("s"))
        for key in ("Unit.StartLimitIntervalSec", "Unit.StartLimitBurst", "Service.RestartSec")
    )
    assert interval / burst >= 5  # seconds that a start may take
    assert burst * pause >= interval


@pytest.mark.parametrize(
    ("version", "is_built"),
    [
        (mailward.__version__, True),
        (f"{mailward.__version__}~bpo12+1", True),
        (f"{mailward.__version__}+nmu1", True),
        (f"{mailward.__version__}.1", False),
        ("99.0", False),
    ],
)
def test_the_build_refuses_another_version_than_the_code_says(tmp_path: Path, version: str, is_built: bool) -> None:
    require_binary("dpkg-parsechangelog", "dpkg-dev")
    (tmp_path / "mailward").mkdir()
    (tmp_path / "debian").mkdir()
    shutil.copy(ROOT / "mailward/__init__.py", tmp_path / "mailward")
    shutil.copy(DEBIAN / "rules", tmp_path / "debian")
    old = read_text(DEBIAN / "changelog")
    (tmp_path / "debian/changelog").write_text(old.replace(f"({mailward.__version__})", f"({version})", 1))
    rules = ["make", "-s", "-f", "debian/rules", "override_dh_auto_configure"]
    done = subprocess.run(rules, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode == 0) is is_built, done.stderr
    assert is_built or version in done.stderr


def test_the_changelog_has_the_version_of_the_code() -> None:
    first = read_text(DEBIAN / "changelog").partition("\n")[0]
    assert f"({mailward.__version__})" in first


def test_a_folder_of_keys_that_is_somewhere_else_stays_where_it_is(tmp_path: Path) -> None:
    """A link to a disk that is not mounted just now."""
    keys = tmp_path / "etc/keys"
    keys.parent.mkdir()
    keys.symlink_to(tmp_path / "not-mounted")
    maintain(tmp_path, "postinst", "configure")
    assert keys.is_symlink()
    keys.unlink()
    maintain(tmp_path, "postinst", "configure")
    assert keys.stat().st_mode & 0o777 == 0o750
    keys.chmod(0o700)
    maintain(tmp_path, "postinst", "configure")
    assert keys.stat().st_mode & 0o777 == 0o700


def test_a_purge_ends_where_the_state_is_a_disk_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "etc/conf.d").mkdir(parents=True)
    for name in ("doveadm.key", "conf.d/50-setup.toml", "conf.d/dkim-example.com.toml"):
        (tmp_path / "etc" / name).touch()
    busy = tmp_path / "bin/rm"
    busy.parent.mkdir()
    busy.write_text('#!/bin/sh\n/bin/rm "$@"\n[ "$1" != -rf ]\n')
    busy.chmod(0o755)
    maintain(tmp_path, "postrm", "purge", PATH=f"{busy.parent}:{os.environ['PATH']}")
    assert [path.name for path in (tmp_path / "etc").rglob("*.*") if path.is_file()] == ["dkim-example.com.toml"]


@pytest.mark.parametrize("has_key", [False, True])
def test_a_purge_leaves_the_folder_of_keys_only_with_keys(tmp_path: Path, has_key: bool) -> None:
    keys = tmp_path / "etc/keys"
    (keys / "example.com" if has_key else keys).mkdir(parents=True)
    maintain(tmp_path, "postrm", "purge")
    assert keys.exists() is has_key


def test_removal_takes_the_socket_that_was_masked_while_it_listened(tmp_path: Path) -> None:
    """Of a masked unit systemd does not know that its file has to go."""
    left = tmp_path / "spool/mailward/policyd.sock"
    left.parent.mkdir(parents=True)
    left.touch()
    maintain(tmp_path, "postrm", "remove")
    assert not left.parent.exists()


def maintain(folder: Path, script: str, argument: str, **environment: str) -> None:
    """Run a maintainer script of mailward-common on a folder in the machine's place, as dpkg would."""
    text = read_text(DEBIAN / f"mailward-common.{script}")
    for there, here in (("/etc/mailward", "etc"), ("/var/lib/mailward", "lib"), ("/var/spool/postfix", "spool")):
        text = text.replace(there, str(folder / here))
    text = text.replace("-o root -g mailward-sign ", "")
    subprocess.run(["sh", "-c", text, script, argument], env={**os.environ, **environment}, check=True)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [(["gre"], ["greylist"]), (["keys", "n"], ["new"]), (["limits", "list", "--j"], ["--json"])],
    ids=["command", "subcommand", "option"],
)
def test_bash_completes_what_the_command_knows(folder: Path, typed: Sequence[str], offered: list[str]) -> None:
    made = completions(folder)
    words = " ".join(["mailward", *typed])
    asked = f"COMP_WORDS=({words}); COMP_CWORD={len(typed)}; _mailward_completion mailward"
    script = f". {made}/mailward; {asked}; echo ${{COMPREPLY[@]}}"
    environment = {**os.environ, "PATH": f"{made}/bin:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == offered, done.stderr


def test_zsh_completes_at_the_first_tab(folder: Path) -> None:
    """It loads the file as a function at that Tab: to define another function there would complete nothing yet."""
    text = read_text(completions(folder) / "_mailward")
    assert text.startswith("#compdef mailward\n")
    assert "loadautofunc" in text.split("\n}\n")[-1]


def completions(folder: Path) -> Path:
    """Return a folder with the shells' completions, and in its bin/ the command."""
    made = folder / "completions"
    if not made.exists():
        (made / "bin").mkdir(parents=True)
        command = made / "bin/mailward"
        text = read_text(DEBIAN / "bin/mailward").replace("#!/usr/bin/python3 ", f"#!{sys.executable} ")
        command.write_text(text.replace("/usr/share/mailward", str(ROOT)))
        command.chmod(0o755)
        run([sys.executable, "-m", "tools.completion", str(made)])
    return made
