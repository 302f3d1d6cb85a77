"""What is there of Dovecot, and of ours in it: read from `dovecot --version` and `doveconf -n`, and nothing is changed.

doveconf is asked of a copy of the configuration without Mailward's files, made of symbolic links: so the plan follows from what
the operator wants, and a second run finds what the first one found.
"""

from __future__ import annotations

import re
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from mailward.model.errors import ConfigError, Mistake
from postmaster.setup.dovecot_text import Block, parse_configuration
from postmaster.setup.programs import ProgramFailed, find_program, output_of

CONFIG = Path("/etc/dovecot/dovecot.conf")
EXAMPLES = (
    Path(__file__).parents[2] / "examples" / "dovecot"
)  # beside the package, in a checkout and where it is installed
SCRIPT = "mailward-quarantine"  # .sieve, and .svbin beside it
MAX_FILE = 1024 * 1024
_VERSION = re.compile(r"(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Ours:
    """Where Mailward's files are in Dovecot's folder."""

    folder: Path

    @property
    def sasl(self) -> Path:
        """The socket for Postfix's SASL."""
        return self.folder / "conf.d" / "95-mailward-sasl.conf"

    @property
    def logins(self) -> Path:
        """The questions to policyd."""
        return self.folder / "conf.d" / "96-mailward-auth-policy.conf"

    @property
    def doveadm(self) -> Path:
        """The listener of doveadm."""
        return self.folder / "conf.d" / "97-mailward-doveadm.conf"

    @property
    def sieve(self) -> Path:
        """Where the script runs."""
        return self.folder / "conf.d" / "98-mailward-sieve.conf"

    @property
    def secrets(self) -> Path:
        """Nonce and keys; root's alone."""
        return self.folder / "mailward-keys.conf"

    @property
    def script(self) -> Path:
        """The Sieve script."""
        return self.folder / "sieve" / f"{SCRIPT}.sieve"

    @property
    def compiled(self) -> Path:
        """The script as sievec has made it."""
        return self.script.with_suffix(".svbin")

    def all(self) -> tuple[Path, ...]:
        """Return all of them."""
        return (self.secrets, self.sasl, self.logins, self.doveadm, self.script, self.compiled, self.sieve)


@dataclass(frozen=True, slots=True)
class DovecotFacts:
    """Dovecot as the operator has it, without what is ours; and what is ours, octet by octet.

    `version` is (2, 3) or (2, 4), or another that is not known here; `reads_conf_d` that dovecot.conf reads those of conf.d
    that are ours, as by conf.d/*.conf. `pigeonhole` is the version of its Sieve and `sievec` the compiler's path, empty where
    there is none. `files` are those of ours that are there, `examples` the shipped configuration by the names of its files, and
    `nonce` a fresh one. `listeners` are the sockets that our file for SASL has, as far as their folder is there.
    """

    version: tuple[int, int]
    config: Path
    settings: Block
    reads_conf_d: bool = True
    pigeonhole: str = ""
    sievec: str = ""
    files: Mapping[Path, bytes] = field(default_factory=dict, repr=False)
    examples: Mapping[str, str] = field(default_factory=dict, repr=False)
    nonce: str = field(default="", repr=False)
    listeners: tuple[Path, ...] = ()

    @property
    def ours(self) -> Ours:
        """Where our files are."""
        return Ours(self.config.parent)


def read_dovecot(config: Path | None) -> DovecotFacts | None:
    """Return what is there, or None where no Dovecot is installed. Raises ConfigError where Dovecot does not read its files.

    `config` is dovecot.conf; None: where Debian has it.
    """
    dovecot, doveconf = (find_program(name) for name in ("dovecot", "doveconf"))
    config = config or CONFIG
    if dovecot is None or doveconf is None or not config.is_file():
        return None
    match = _VERSION.search(_output([dovecot, "--version"], config))
    version = (int(match.group(1)), int(match.group(2))) if match is not None else (0, 0)
    ours = Ours(config.parent)
    with tempfile.TemporaryDirectory(prefix="mailward-setup-") as folder:
        copy = _without_ours(config, Path(folder) / "dovecot")
        printed = _output([doveconf, "-n", "-c", str(copy)], config, copy.parent)
    pigeonhole = re.search(r"^# Pigeonhole version (\S+)", printed, re.MULTILINE)
    return DovecotFacts(
        version,
        config,
        parse_configuration(printed),
        _reads_conf_d(config),
        pigeonhole.group(1) if pigeonhole is not None else "",
        find_program("sievec") or "",
        {path: _read(path) for path in ours.all() if path.is_file()},
        {path.name: _read(path).decode() for path in sorted(EXAMPLES.glob("*"))},
        secrets.token_hex(32),
        listeners_in(ours.sasl),
    )


def _without_ours(config: Path, folder: Path) -> Path:
    """Make a folder that is Dovecot's but for our files; return the configuration in it."""
    left_out = set(Ours(config.parent).all())
    for source, made in ((config.parent, folder), (config.parent / "conf.d", folder / "conf.d")):
        if not source.is_dir():
            continue
        made.mkdir()
        for entry in source.iterdir():
            if entry not in {*left_out, config} and entry.name != "conf.d":
                (made / entry.name).symlink_to(entry)
    # A whole path would lead out of the copy, to our files.
    whole = re.compile(rb"^(\s*!include(?:_try)?\s+)" + re.escape(bytes(config.parent)) + b"/", re.MULTILINE)
    copy = folder / config.name
    copy.write_bytes(whole.sub(rb"\1", _read(config)))
    return copy


def listeners_in(sasl: Path) -> tuple[Path, ...]:
    """Return the sockets that our file for SASL has, as far as Dovecot can make them."""
    text = _read(sasl).decode("utf-8", "replace") if sasl.is_file() else ""
    found = (Path(each) for each in re.findall(r"^\s*unix_listener (/\S+) \{", text, re.MULTILINE))
    return tuple(path for path in found if path.parent.is_dir())  # where there is no folder Dovecot would not start


def _reads_conf_d(config: Path) -> bool:
    text = _read(config).decode("utf-8", "replace")
    included = re.findall(r"^\s*!include(?:_try)?\s+(\S+)", text, re.MULTILINE)
    ours = [path for path in Ours(config.parent).all() if path.suffix == ".conf" and path.parent.name == "conf.d"]
    return any(all(fnmatchcase(str(path), str(config.parent / each)) for path in ours) for each in included)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE)
    except PermissionError:
        raise ConfigError([Mistake(str(path), "", "cannot be read; run it as root")]) from None


def _output(command: list[str], config: Path, copy: Path | None = None) -> str:
    """Run a program of Dovecot's and return what it prints. Raises ConfigError with what it complains of, in `copy` or not."""
    try:
        return output_of(command)[0]
    except ProgramFailed as error:
        said = str(error).strip().splitlines()[-1].partition(": ")[2]
        said = said.replace(str(copy), str(config.parent)) if copy is not None else said
        raise ConfigError([Mistake(str(config), "", f"Dovecot does not read it: {ascii(said[:300])[1:-1]}")]) from None
