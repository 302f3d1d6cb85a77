"""The machine: what it is, what a bare RSA signature costs on it, and what a process tree's memory is."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from bench.keys import bare_signature_microseconds, openssl_version
from tests.support.processes import ProgramError, require_binary, run

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "opendkim",
    "opendmarc",
    "rspamd",
    "dkimpy-milter",
    "openssl",
    "postgrey",
    "redis-server",
    "postfix",
    "policyd-rate-limit",
    "postfix-policyd-spf-python",
)
LIBRARIES = ("pymilter", "cryptography", "dkimpy", "dnspython", "pyspf", "authres", "redis")
RSA_LINE = re.compile(r"^rsa\s+2048 bits\s+[0-9.]+s\s+[0-9.]+s\s+([0-9.]+)", re.MULTILINE)  # signatures a second


@dataclass(frozen=True, slots=True)
class BareRsa:
    """What RSA-2048 signatures alone cost: CPU microseconds each, and how many all cores make in a second."""

    openssl_microseconds: float
    cryptography_microseconds: float
    limit_per_second: float


def bare_rsa() -> BareRsa:
    """Measure for about ten seconds."""
    cores = os.cpu_count() or 1
    return BareRsa(
        openssl_microseconds=1e6 / _openssl_speed("-seconds", "2"),
        cryptography_microseconds=bare_signature_microseconds(),
        limit_per_second=_openssl_speed("-seconds", "1", "-multi", str(cores)),
    )


def description() -> list[str]:
    """Return what a reader must know of the machine and the programs, a fact a line."""
    mask = os.environ.get("OPENSSL_ia32cap")  # noqa: SIM112 - this is how OpenSSL spells it
    return [
        f"{_cpu_model()}, {os.cpu_count()} cores, {_memory_gigabytes():.1f} GB; {_system()}",
        f"Mailward {_revision()}, Python {platform.python_version()}, " + ", ".join(_library_versions()),
        ", ".join(_package_versions()) + f"; cryptography's {openssl_version()}",
        *([f"OPENSSL_ia32cap={mask}: OpenSSL does without some of the CPU's instructions"] if mask else []),
    ]


def process_tree(root: int) -> list[int]:
    """Return the pids of a process and all below it."""
    parents = {int(path.name): _parent(path) for path in Path("/proc").iterdir() if path.name.isdigit()}
    tree = [root]
    for pid in tree:  # grows while it is walked
        tree.extend(child for child, parent in parents.items() if parent == pid)
    return tree


def memory_kilobytes(pids: Sequence[int]) -> int:
    """Return the proportional set size of these processes: what they share is counted once."""
    return sum(_pss(pid) for pid in pids)


def _openssl_speed(*options: str) -> float:
    """Return signatures a second, of all processes together."""
    found = RSA_LINE.search(run([require_binary("openssl", "openssl"), "speed", *options, "rsa2048"]))
    if found is None:
        raise ProgramError("openssl speed printed no line for rsa 2048")
    return float(found.group(1))


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0  # it has ended meanwhile


def _pss(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")


def _memory_gigabytes() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3


def _system() -> str:
    distribution = platform.freedesktop_os_release().get("PRETTY_NAME", "unknown distribution")
    return f"{distribution}, Linux {platform.release()}"


def _revision() -> str:
    """Return the checkout's commit, or "(no git revision)"."""
    command = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty"]
    try:
        return run(command).strip()
    except (ProgramError, FileNotFoundError):  # no repository, no commit yet, or no git
        return "(no git revision)"


def _library_versions() -> list[str]:
    return [f"{name} {metadata.version(name)}" for name in LIBRARIES]


def _package_versions() -> list[str]:
    command = ["dpkg-query", "-W", "-f", "${Package} ${Version}\\n", *PACKAGES]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)  # fails if one is not installed
    except FileNotFoundError:
        return ["no dpkg to tell the versions of packages"]
    return done.stdout.splitlines()
