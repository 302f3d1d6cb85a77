"""Roots of Debian 12 and 13, made by debootstrap and kept under .venv/roots/: the next run finds them there.

Each release has three: `mail` is a plain Postfix and Dovecot as Debian installs them, a nameserver, and in apt's cache
whatever Mailward depends on, so that installing it needs no network; `ready` is the same with that installed; `build` is what
Debian builds packages with. Nothing runs in them, and nothing is ever changed: a machine (machine.py) lives in a layer of its
own above. `python -m tests.packages.roots` makes them, for whoever has no network later.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.processes import ProgramError, require_binary, require_root

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDER = CHECKOUT / ".venv" / "roots"
RELEASES = ("bookworm", "trixie")  # Debian 12 and 13

# systemd, as every Debian has it: its sysusers, tmpfiles and analyze; it does not run here.
# Every installed Debian has procps, too, which debootstrap's smallest variant leaves out.
BASE_PACKAGES = ("ca-certificates", "procps", "python3", "systemd")
MAIL_PACKAGES = ("postfix", "dovecot-imapd", "dovecot-lmtpd", "dovecot-sieve", "nsd", "iproute2", "openssl")
BUILD_PACKAGES = ("build-essential", "lintian")
SECONDS = 2400.0  # with the rest of the tests beside it
# For what mounts: it ends with its processes, and they with us, however we end.
APART = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
APT = ("apt-get", "--yes", "--quiet", "--no-install-recommends")

QUICK = "force-unsafe-io\n"
LEAN = "path-exclude=/usr/share/locale/*\n"
NO_START = "#!/bin/sh\nexit 101\n"
POSTFIX_ANSWERS = """\
postfix postfix/main_mailer_type select Internet Site
postfix postfix/mailname string example.com
"""


def prepare() -> None:
    """Make what is not there yet, both releases at once. A second run that comes meanwhile waits."""
    with ThreadPoolExecutor() as pool:
        for made in [pool.submit(make, release) for release in RELEASES]:
            made.result()


def make(release: str) -> None:
    """Make a release's roots, all three."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{release}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _remove_abandoned(release)
        mail_root(release)
        ready_root(release)
        build_root(release)


def mail_root(release: str) -> Path:
    """Return the root with Postfix and Dovecot; made if it is not there."""
    packages = (*MAIL_PACKAGES, *dependencies("Depends"))

    def fill(root: Path) -> None:
        inside(root, ["debconf-set-selections"], standard_input=POSTFIX_ANSWERS)
        inside(root, [*APT, "install", *MAIL_PACKAGES])
        inside(root, [*APT, "install", "--download-only", *dependencies("Depends")])

    return _kept(release, "mail", packages, fill, begin=base_root)


def ready_root(release: str) -> Path:
    """Return the `mail` root with all that Mailward depends on installed; made if it is not there."""
    packages = (*MAIL_PACKAGES, *dependencies("Depends"))

    def fill(root: Path) -> None:
        inside(root, [*APT, "install", *dependencies("Depends")])

    return _kept(release, "ready", packages, fill, begin=mail_root)


def build_root(release: str) -> Path:
    """Return the root that builds the source package and lints it; made if it is not there."""
    packages = (*BUILD_PACKAGES, *dependencies("Build-Depends"))

    def fill(root: Path) -> None:
        inside(root, [*APT, "install", *packages])
        inside(root, ["apt-get", "clean"])

    return _kept(release, "build", packages, fill, begin=base_root)


def dependencies(field: str) -> list[str]:
    """Return the names of Debian's own packages in all the fields of that name in debian/control."""
    text = (CHECKOUT / "debian" / "control").read_text()
    fields = re.findall(rf"^{field}:((?:.|\n[ \t])*)", text, re.MULTILINE)
    items = re.sub(r"#.*|\([^)]*\)|<[^>]*>|\$\{[^}]*\}", " ", ",".join(fields)).replace("\n", " ").split(",")
    names = {item.partition("|")[0].strip() for item in items}
    return sorted(name.partition(":")[0] for name in names if name and not name.startswith("mailward"))


def inside(root: Path, command: Sequence[str], *, standard_input: str = "") -> str:
    """Run a command in a root while it is made; return its output, ProgramError with all of it if it fails."""
    script = 'mount -t proc proc "$1/proc"; mount --rbind /dev "$1/dev"\n'
    script += 'root=$1; shift; exec chroot "$root" "$@"'
    return _run([*APART, "sh", "-euc", script, "sh", str(root), *command], standard_input=standard_input)


def _kept(
    release: str, name: str, packages: Sequence[str], fill: Callable[[Path], None], begin: Callable[[str], Path]
) -> Path:
    """Return `<release>-<name>-<hash of what it is made of>`; a root of that name is complete, as it is renamed to it."""
    require_root()
    root = FOLDER / f"{release}-{name}-{_hash(BASE_PACKAGES, packages, MAIL_PACKAGES)}"
    if not root.exists():
        _remove_outdated(release, name)
        unfinished = FOLDER / f"{root.name}.unfinished-{os.getpid()}"
        _run(["cp", "-a", "--reflink=auto", str(begin(release)), str(unfinished)])
        fill(unfinished)
        unfinished.rename(root)
    return root


def base_root(release: str) -> Path:
    """Return the root that debootstrap made, with the machine's own way to its package registry."""
    root = FOLDER / f"{release}-base-{_hash(BASE_PACKAGES)}"
    if not root.exists():
        _remove_outdated(release, "base")
        unfinished = FOLDER / f"{root.name}.unfinished-{os.getpid()}"
        debootstrap = require_binary("debootstrap", "debootstrap")
        mirror = _mirror()
        words = ["--variant=minbase", f"--include={','.join(BASE_PACKAGES)}", release, str(unfinished), mirror]
        _run([*APART, debootstrap, *words])
        _set_up(unfinished, release, mirror)
        inside(unfinished, [*APT, "update"])
        unfinished.rename(root)
    return root


def _remove_abandoned(release: str) -> None:
    """Remove what a run was making that has been killed."""
    for unfinished in FOLDER.glob(f"{release}-*.unfinished-*"):
        if not Path("/proc", unfinished.name.rpartition("-")[2]).exists():
            _remove(unfinished)


def _remove_outdated(release: str, name: str) -> None:
    for outdated in FOLDER.glob(f"{release}-{name}-*"):
        _remove(outdated)


def _remove(root: Path) -> None:
    """Remove a root, and nothing that may be mounted in it."""
    _run(["rm", "-rf", "--one-file-system", str(root)])


def _set_up(root: Path, release: str, mirror: str) -> None:
    etc = root / "etc"
    for path in Path("/etc/apt/apt.conf.d").iterdir():
        if not path.name.startswith(
            ("docker-", "20packagekit", "50appstream")
        ):  # these throw away, or call, what is not here
            shutil.copy(path, etc / "apt" / "apt.conf.d")
    for path in (Path("/etc/resolv.conf"), Path("/etc/ssl/certs/ca-certificates.crt")):
        if path.exists():
            (root / path.relative_to("/")).unlink(missing_ok=True)
            shutil.copy(path, root / path.relative_to("/"))
    (etc / "apt" / "sources.list").write_text(f"deb {mirror} {release} main\n")
    (etc / "dpkg" / "dpkg.cfg.d" / "quick").write_text(QUICK + LEAN)
    policy = root / "usr" / "sbin" / "policy-rc.d"
    policy.write_text(NO_START)
    policy.chmod(0o755)
    _run(["sh", "-c", f"rm -f '{root}'/var/cache/apt/archives/*.deb"])


def _mirror() -> str:
    """Return where the machine's own apt gets Debian from."""
    wanted = "$(REPO_URI) $(ORIGIN) $(CODENAME) $(COMPONENT)"
    for line in _run(["apt-get", "indextargets", "--format", wanted, "Created-By: Packages"]).splitlines():
        address, *kind = line.split()
        if len(kind) == 3 and kind[0] == "Debian" and "-" not in kind[1] and kind[2] == "main":  # no bookworm-updates
            return address
    raise ProgramError("apt knows no Debian mirror: give it one, and run apt-get update")


def _hash(*parts: Sequence[str]) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:10]


def _run(command: Sequence[str], *, standard_input: str = "") -> str:
    done = subprocess.run(
        command,
        input=standard_input,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=SECONDS,
        env={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "DEBIAN_FRONTEND": "noninteractive",
            "LC_ALL": "C.UTF-8",
            "HOME": "/root",
        },
    )
    if done.returncode != 0:
        raise ProgramError(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout[-6000:]}")
    return done.stdout


if __name__ == "__main__":
    prepare()
