"""What `mailward setup` would change, as values: one setting, one file, and what it saw and leaves alone.

A plan is made of what was read (facts) and what is wanted; showing, applying and undoing it are other files' work.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class MainSetting:
    """A parameter of main.cf. `old` and `new` are its text there; None: it is not set there."""

    name: str
    old: str | None
    new: str | None
    why: str


@dataclass(frozen=True, slots=True)
class ServiceSetting:
    """A `-o name=value` of a service in master.cf; `service` is as `postconf -P` writes it: "submission/inet"."""

    service: str
    name: str
    old: str | None
    new: str | None
    why: str


@dataclass(frozen=True, slots=True)
class FileText:
    """A file of ours, whole. `old` None: it is not there; `new` None: it goes away. `is_secret`: its text is never shown.

    `then` is a command (without a shell) that is run once the file is written, and once an old text is given back: it makes the
    files `makes` of it, which go away with it. Folders that are missing are made.
    """

    path: Path
    old: bytes | None
    new: bytes | None
    why: str
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"
    is_secret: bool = False
    then: tuple[str, ...] = ()
    makes: tuple[Path, ...] = ()


Change = MainSetting | ServiceSetting | FileText


class Weight(enum.Enum):
    """How much a finding matters: NOTE, seen and left alone; WARNING, mail goes past Mailward; REFUSAL, nothing is applied."""

    NOTE = "note"
    WARNING = "warning"
    REFUSAL = "refused"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was seen and is not changed: what it is, and what the operator may do."""

    weight: Weight
    text: str


@dataclass(frozen=True, slots=True)
class Plan:
    """All of it, in the order it is shown and applied. `reloads` are services by the names of their units ("postfix").

    `restarts` are those for which a reload is not enough; they are started anew before the others reload.
    """

    changes: tuple[Change, ...] = ()
    findings: tuple[Finding, ...] = ()
    reloads: tuple[str, ...] = field(default=())
    restarts: tuple[str, ...] = field(default=())

    def __add__(self, other: Plan) -> Plan:
        """Return both plans as one; a service is reloaded or restarted once, and never both."""
        restarts = dict.fromkeys((*self.restarts, *other.restarts))
        reloads = dict.fromkeys(each for each in (*self.reloads, *other.reloads) if each not in restarts)
        return Plan(self.changes + other.changes, self.findings + other.findings, tuple(reloads), tuple(restarts))


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which daemons are to be asked ("dkim-sign", "auth-verify", "greylist", "policyd"), and where they listen.

    `sockets` has each daemon's `socket` as mailward.toml writes it, "unix:/var/spool/postfix/mailward/policyd.sock";
    `dovecot` where policyd's auth-policy server listens, "127.0.0.1:9465"; empty: logins are not to be reported. `doveadm` where
    Dovecot's own HTTP API is to listen for policyd; empty: it is not wanted, or there is one. Their keys are secrets. With
    `is_replacing` other programs that do the same are taken out.
    """

    daemons: tuple[str, ...]
    sockets: dict[str, str]
    dovecot: str = ""
    doveadm: str = ""
    dovecot_key: str = field(default="", repr=False)
    doveadm_key: str = field(default="", repr=False)
    is_replacing: bool = False
