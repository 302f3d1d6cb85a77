"""Unit files of systemd, as far as the packages of a mail server use them: read, and their command lines made.

Runs in a root, on its own Python, and so imports the standard library alone.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

FOLDERS = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")


class Unit:
    """A unit: its settings with all their values, later files' after earlier ones'; an empty value forgets those before."""

    def __init__(self, name: str, texts: Sequence[str]) -> None:
        self.name = name
        self._instance = name.partition("@")[2].rpartition(".")[0]
        self._values: dict[str, list[str]] = {}
        for text in texts:
            self._read(text)

    def all(self, key: str) -> list[str]:
        """Return every value of a setting, `Section.Key`."""
        return self._values.get(key, [])

    def one(self, key: str, default: str = "") -> str:
        """Return the last value of a setting."""
        values = self.all(key)
        return values[-1] if values else default

    def words(self, key: str) -> list[str]:
        """Return the words of all values of a setting."""
        return [word for value in self.all(key) for word in value.split()]

    def is_set(self, key: str) -> bool:
        """Tell whether a boolean setting is on; not set counts as off."""
        return self.one(key).lower() in ("yes", "true", "on", "1")

    def _read(self, text: str) -> None:
        section = ""
        for line in text.replace("\\\n", " ").splitlines():
            line = line.strip()
            if line.startswith("["):
                section = line.strip("[]")
            elif line and line[0] not in "#;":
                key, _, value = line.partition("=")
                values = self._values.setdefault(f"{section}.{key.strip()}", [])
                value = value.strip().replace("%i", self._instance).replace("%%", "%")
                if value:
                    values.append(value)
                else:
                    values.clear()


def find_unit(name: str) -> Unit | None:
    """Return the unit of that name with its drop-ins; None if there is no such file."""
    template = f"{name.partition('@')[0]}@.{name.rpartition('.')[2]}" if "@" in name else name
    found = next((path for folder in FOLDERS for path in [Path(folder, template)] if path.exists()), None)
    if found is None:
        return None
    drop_ins = [path for folder in FOLDERS for path in sorted(Path(folder, f"{template}.d").glob("*.conf"))]
    return Unit(name, [path.read_text() for path in [found, *drop_ins]])


def is_enabled(name: str) -> bool:
    """Tell whether some target wants the unit."""
    return any(Path("/etc/systemd/system").glob(f"*.wants/{name}"))


def command_of(unit: Unit, key: str) -> list[list[str]]:
    """Return the commands of ExecStart= and its like, without their prefixes."""
    return [shlex.split(value.lstrip("-+!@:")) for value in unit.all(f"Service.{key}")]


def confined(unit: Unit, command: Sequence[str]) -> list[str]:
    """Return the command as the unit's account, without capabilities, and where it may write only what the unit allows."""
    account = unit.one("Service.User")
    if not account:
        return list(command)
    group = unit.one("Service.Group", account)
    become = ["setpriv", f"--reuid={account}", f"--regid={group}", "--init-groups", "--bounding-set=-all"]
    become += ["--inh-caps=-all", "--ambient-caps=-all"]
    if extra := unit.words("Service.SupplementaryGroups"):
        become[3] = "--groups=" + ",".join([*_groups_of(account), *extra])
    if unit.is_set("Service.NoNewPrivileges"):
        become.append("--no-new-privs")
    if unit.one("Service.ProtectSystem") == "strict":
        return ["unshare", "--mount", "sh", "-euc", _mounts(unit) + 'exec "$@"', "sh", *become, *command]
    return [*become, *command]


def state_folders(unit: Unit) -> list[tuple[Path, int]]:
    """Return the folders that systemd makes for the service, each with its mode."""
    return [
        (Path(parent, name), int(unit.one(f"Service.{key}Mode", "0755"), 8))
        for key, parent in (("StateDirectory", "/var/lib"), ("RuntimeDirectory", "/run"))
        for name in unit.words(f"Service.{key}")
    ]


def _groups_of(account: str) -> list[str]:
    """Return the numbers of the groups that the account is in."""
    import grp
    import pwd

    entry = pwd.getpwnam(account)
    return [str(number) for number in os.getgrouplist(account, entry.pw_gid) if grp.getgrgid(number)]


def _mounts(unit: Unit) -> str:
    """Return the shell lines for ProtectSystem=strict, ReadWritePaths=, ProtectHome= and PrivateTmp=."""
    writable = [str(path) for path, _ in state_folders(unit)]
    lines = []
    for word in unit.words("Service.ReadWritePaths"):
        path = word.lstrip("-+")
        if word.startswith("-") and not os.path.exists(path):
            continue
        writable.append(path)
    lines += [f"mount --bind {shlex.quote(path)} {shlex.quote(path)}" for path in writable]
    lines.append("mount -o remount,bind,ro /")
    if unit.is_set("Service.PrivateTmp"):
        lines += ["mount -t tmpfs -o mode=1777 tmpfs /tmp", "mount -t tmpfs -o mode=1777 tmpfs /var/tmp"]
    if unit.one("Service.ProtectHome") in ("yes", "true", "tmpfs"):
        lines += [f"mount -t tmpfs -o mode=000 tmpfs {path}" for path in ("/root", "/home")]
    return "\n".join(lines) + "\n"
