"""A machine of its own for a test: a root's files with a layer in memory above, and its own processes and network.

All its mounts are in its mount namespace, and all its processes below its first one: when that ends, both are gone, and
the root is as before.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import Program, ProgramError, open_folder, require_binary, require_root

HERE = Path(__file__).resolve().parent
BROUGHT = ("__init__.py", "first_process.py", "sockets.py", "unit_file.py", "systemctl.py")
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "TERM": "dumb",
    "DEBIAN_FRONTEND": "noninteractive",
}
COMMAND_SECONDS = 1200.0

# The layer is a tmpfs: whatever is installed costs no disk. /run/systemd/system says to maintainer scripts that systemd runs.
BOOT = """
lower=$1 layer=$2
mount -t tmpfs -o mode=755 tmpfs "$layer"
mkdir "$layer/upper" "$layer/work" "$layer/root"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$layer/upper,workdir=$layer/work" "$layer/root"
root=$layer/root
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null zero full random urandom tty; do
    touch "$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
for name in fd:/proc/self/fd stdin:/proc/self/fd/0 stdout:/proc/self/fd/1 stderr:/proc/self/fd/2; do
    ln -s "${name#*:}" "$root/dev/${name%%:*}"
done
mkdir -p "$root/run/systemd/system" "$root/run/lock"
rm -f "$root/usr/sbin/policy-rc.d"
echo mail.example.com > "$root/etc/hostname"
printf '127.0.0.1 localhost\\n192.0.2.1 mail.example.com mail\\n' > "$root/etc/hosts"
hostname mail.example.com
mv "$root/usr/bin/systemctl" "$root/usr/local/lib/systemctl-of-systemd"
cp -a "$3/tests" "$root/usr/local/lib/"
ln -s /usr/local/lib/tests/packages/systemctl.py "$root/usr/bin/systemctl"
exec env -i PATH=/usr/sbin:/usr/bin PYTHONPATH=/usr/local/lib chroot "$root" python3 -B -m tests.packages.first_process
"""


class Machine:
    """One that runs. Commands in it see its files, its processes and its network, which is loopback alone."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.root = Path(f"/proc/{pid}/root")

    def run(
        self,
        command: Sequence[str],
        *,
        folder: str = "/root",
        environment: Mapping[str, str] | None = None,
        seconds: float = COMMAND_SECONDS,
    ) -> str:
        """Run a command in it as root and return its output; ProgramError with all of it if it fails."""
        enter = ["nsenter", f"--target={self._pid}", "--all", f"--root={self.root}", "--"]
        variables = [f"{name}={value}" for name, value in {**ENVIRONMENT, **(environment or {})}.items()]
        done = subprocess.run(
            [*enter, "env", "-i", f"--chdir={folder}", *variables, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
        )
        output = done.stdout.decode("utf-8", "replace")
        if done.returncode != 0:
            raise ProgramError(f"{' '.join(command)} ended with {done.returncode}\n{output[-12000:]}")
        return output

    def copy_in(self, sources: Sequence[Path], folder: str) -> None:
        """Copy files and folders into one of its folders, which is made."""
        target = self.root / folder.lstrip("/")
        target.mkdir(parents=True, exist_ok=True)
        for source in sources:
            if source.is_dir():
                shutil.copytree(source, target / source.name, symlinks=True)
            else:
                shutil.copy(source, target)


@contextmanager
def open_machine(root: Path, addresses: Sequence[str] = ()) -> Iterator[Machine]:
    """Start a machine on a root, with these addresses on its loopback interface. It ends with the block."""
    require_root()
    unshare = require_binary("unshare", "util-linux")
    with open_folder("mailward-root-") as folder:
        brought = folder / "brought" / "tests" / "packages"
        brought.mkdir(parents=True)
        for name in BROUGHT:
            shutil.copy(HERE / name, brought)
        (brought / "systemctl.py").chmod(0o755)
        (folder / "layer").mkdir()
        apart = ["--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child"]
        words = ["sh", "-euc", BOOT, "sh", str(root), str(folder / "layer"), str(folder / "brought")]
        # unshare ignores INT and TERM: nothing else ends it if we are ended.
        mortal = ["setpriv", "--pdeathsig", "KILL"]
        command = [*mortal, unshare, *apart, *words]
        program = Program("machine", command, folder, is_ready=lambda: _serves(program))
        program.start()
        try:
            machine = Machine(_child_of(program.pid))
            if addresses:
                machine.run(["ip", "link", "set", "lo", "up"])
            for address in addresses:
                machine.run(["ip", "address", "add", f"{address}/32", "dev", "lo"])
            yield machine
        finally:
            if pid := _child_of(program.pid):
                os.kill(pid, signal.SIGKILL)
            program.stop()


def _serves(program: Program) -> bool:
    """Tell whether the first process takes requests."""
    pid = _child_of(program.pid)
    return bool(pid) and Path(f"/proc/{pid}/root/run/first-process").is_socket()


def _child_of(pid: int) -> int:
    """Return the one child of a process; 0 while it has none."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    return int(children[0]) if children else 0
