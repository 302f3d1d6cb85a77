"""Who gives an order, as the audit log has it."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping

from postmaster.explain.layout import printable

MAX_NAME = 64


def acting(environment: Mapping[str, str]) -> str:
    """Return who runs this command, and as what: "alice (uid 0)" for what alice does as root.

    `environment` is the process's: sudo says there who called it. Only root's is believed, for anybody can write into his own.
    """
    number = os.getuid()
    name = environment.get("SUDO_USER", "") if number == 0 else ""
    return f"{printable(name[:MAX_NAME]) or _login_name(number)} (uid {number})"


def _login_name(number: int) -> str:
    """Return who has logged in here; without a terminal, the account's own name."""
    try:
        return printable(os.getlogin()[:MAX_NAME])
    except OSError:
        pass
    try:
        return printable(pwd.getpwuid(number).pw_name[:MAX_NAME])
    except KeyError:
        return "?"
