"""The state that the configuration names, opened for the postmaster beside a daemon; and what is said where it is away."""

from __future__ import annotations

import contextlib
import os
import pwd
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn, Protocol, TypeVar

import click

from mailward.model.errors import ConfigError, Mistake, StoreError, StoreFailure
from mailward.model.state import MemoryState, SqliteState, State
from mailward.model.state import name_of as state_name
from mailward.settings.load import DEFAULT_PATH, read_sections, structure
from postmaster.explain.layout import printable

EX_TEMPFAIL = 75
EX_NOPERM = 77
STORE_SECONDS = 10.0  # of one call: an operator waits longer than mail does
ACCOUNT = "mailward"
MAX_DETAIL = 300

_ADVICE = {
    StoreFailure.AWAY: "see that it runs, and what `state` says",
    StoreFailure.TIMEOUT: "somebody else holds it, or it is slow; try again",
    StoreFailure.FULL: "make room",
    StoreFailure.READ_ONLY: "see how it is mounted, or which server is the master",
    StoreFailure.REFUSED: f"run as root or {ACCOUNT}, or see the password in `state`",
    StoreFailure.DAMAGED: "stop {daemon} and move what is damaged away: {anew}",
    StoreFailure.SCHEMA: "it was written by a newer Mailward: install that one",
    StoreFailure.OTHER: "see the log of {daemon}",
}


class Closed(Protocol):
    """What is closed in the end."""

    def close(self) -> None:
        """Let go of files and connections."""


Store = TypeVar("Store", bound=Closed)
Settings = TypeVar("Settings")


def read_settings(kind: type[Settings], path: Path | None) -> Settings:
    """Read the configuration; None is that at its usual place, or the defaults where there is none. Raises ConfigError."""
    if path is None and not DEFAULT_PATH.exists():
        return kind()
    return structure(read_sections(path or DEFAULT_PATH), kind)


@contextlib.contextmanager
def opened_store(state: State, open_store: Callable[[], Store], daemon: str, anew: str) -> Iterator[Store]:
    """Yield a program's state; leave the program with a line on stderr where it is away.

    `daemon` is the program whose state this is, and `anew` says what happens where its file is moved away.
    """
    # Before the account is changed, which may not read the modules that are loaded here; it touches no file yet.
    store = open_store()
    try:
        with _as_owner_of(state, daemon):
            try:
                yield store
            finally:
                store.close()
    except StoreError as error:
        detail = f": {printable(error.detail[:MAX_DETAIL])}" if error.detail else ""
        advice = _ADVICE[error.failure].format(daemon=daemon, anew=anew)
        if error.is_begun_anew:
            advice = "the same command works now"
        leave(EX_TEMPFAIL, f"{name_of(state)}: {error.failure.value}{detail}; {advice}")


def name_of(state: State) -> str:
    """Return a state as the configuration writes it, without its passwords."""
    return printable(state_name(state))


def leave(status: int, why: str) -> NoReturn:
    """End the program with a line on stderr; the parts of `why` that came from outside are escaped by the caller."""
    click.echo(f"mailward: {why}", err=True)
    sys.exit(status)


@contextlib.contextmanager
def _as_owner_of(state: State, daemon: str) -> Iterator[None]:
    """Be the account that owns the state's folder, where root runs this.

    Files that root made there would be root's, and lock the daemons out of their own state.
    """
    if isinstance(state, MemoryState):
        raise ConfigError([Mistake("", "state", "is the daemons' own memory, which no other program sees")])
    if not isinstance(state, SqliteState):
        yield
        return
    try:
        owner = state.folder.stat()
    except FileNotFoundError:
        leave(EX_TEMPFAIL, f"{name_of(state)}: there is no such folder; {daemon} has it once it is installed")
    except OSError as error:
        _refuse(state, error.strerror or "cannot be reached", ACCOUNT)
    if os.geteuid() != 0 or owner.st_uid == 0:
        if not os.access(state.folder, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
            _refuse(state, "permission denied", _account(owner.st_uid))
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def _refuse(state: State, why: str, account: str) -> NoReturn:
    leave(EX_NOPERM, f"{name_of(state)}: {why}; run as " + ("root" if account == "root" else f"root or {account}"))


def _account(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"account {number}"
