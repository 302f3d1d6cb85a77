"""`mailward setup`, our own part: what mailward.toml does not say yet, in conf.d, and the keys that Dovecot and policyd share.

What the operator has configured stays, and wins: only what neither mailward.toml nor another file of conf.d says is written.
Nothing is changed here; files are read, and ports of loopback looked at.
"""

from __future__ import annotations

import errno
import re
import secrets
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mailward.settings.auth_verify import Settings as AuthVerifySettings
from mailward.settings.common import Service
from mailward.settings.dkim_sign import Settings as DkimSignSettings
from mailward.settings.greylist import Settings as GreylistSettings
from mailward.settings.load import Sections, read_sections, structure
from mailward.settings.policyd import Policyd
from mailward.settings.policyd import Settings as PolicydSettings
from mailward.settings.secrets import read_key_file
from mailward.settings.values import SocketAddress
from postmaster.setup.change import FileText, Plan, Wanted
from postmaster.setup.dovecot import DovecotFacts, can_ask, can_listen

FILE = "50-setup.toml"
DOVECOT_KEY, DOVEADM_KEY = "dovecot-policy.key", "doveadm.key"
UNIT = "mailward-policyd"
GROUP = "mailward"  # the account that runs policyd, and mailward-sign, which reads conf.d

# Where policyd listens for Dovecot, and doveadm for policyd; the next ones where somebody else has the first.
DOVECOT_PORTS = (9465, 9475, 9485)
DOVEADM_PORTS = (9466, 9476, 9486)
DOVEADM_URL = "http://{place}/doveadm/v1"

HEAD = """\
# Written by `mailward setup`, which writes it anew; `mailward setup --undo` takes it away. Settings of your own belong into
# mailward.toml: what stands there is left out here the next time.
"""
_DOVECOT_LINE = re.compile(r'^dovecot = "(127\.0\.0\.1:\d{1,5})"$', re.MULTILINE)
_DOVEADM_LINE = re.compile(r'^doveadm = "http://(127\.0\.0\.1:\d{1,5})/doveadm/v1"$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Key:
    """A file with a key: what is in it, or will be; None where it is not there."""

    path: Path
    old: str | None
    text: str


def plan_own(wanted: Wanted, config: Path, dovecot: DovecotFacts | None) -> tuple[Wanted, Plan]:
    """Return `wanted` with what the configuration says, and the plan. Raises ConfigError where the configuration is wrong.

    Filled in are where each daemon listens, where Dovecot asks policyd, where doveadm is to listen, and both keys; they are what
    they will be once the plan is applied. `dovecot` is None where there is none.
    """
    ours = config.parent / "conf.d" / FILE
    sections = read_sections(config, without=ours)
    wanted = replace(wanted, sockets={daemon: _socket_of(daemon, sections) for daemon in wanted.daemons})
    if "policyd" not in wanted.daemons:
        return wanted, Plan()
    policyd = structure(sections, PolicydSettings).policyd
    old = ours.read_text("utf-8") if ours.is_file() else ""
    wanted, keys, text = _logins(wanted, policyd, dovecot, config.parent, old)
    changes = (*_key_changes(keys, config.parent, policyd), *_text_change(ours, old, text))
    return wanted, Plan(changes, restarts=(UNIT,) if changes else ())


_SETTINGS_OF: Mapping[str, Callable[[Sections], Service]] = {
    "dkim-sign": lambda sections: structure(sections, DkimSignSettings).dkim_sign,
    "auth-verify": lambda sections: structure(sections, AuthVerifySettings).auth_verify,
    "greylist": lambda sections: structure(sections, GreylistSettings).greylist,
    "policyd": lambda sections: structure(sections, PolicydSettings).policyd,
}


def _socket_of(daemon: str, sections: Sections) -> str:
    """Return where a daemon listens, as mailward.toml writes it."""
    return socket_text(_SETTINGS_OF[daemon](sections).socket)


def socket_text(address: SocketAddress) -> str:
    """Return an address as mailward.toml writes it.

    >>> socket_text(SocketAddress("", "::1", 8891)), socket_text(SocketAddress("/run/x.sock", "", 0))
    ('inet:[::1]:8891', 'unix:/run/x.sock')
    """
    return f"unix:{address.path}" if address.path else f"inet:{_place(address.host, address.port)}"


def _place(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _logins(
    wanted: Wanted, policyd: Policyd, dovecot: DovecotFacts | None, folder: Path, old: str
) -> tuple[Wanted, list[_Key], str]:
    """Say where Dovecot and policyd meet: `wanted` with it, the keys that are ours, and the text of our file."""
    if dovecot is None or not can_ask(dovecot):
        return wanted, [], ""
    keys, lines = [], []
    if policyd.dovecot is not None and policyd.dovecot_api_key_file is not None:
        place = _place(*policyd.dovecot)
        wanted = replace(wanted, dovecot=place, dovecot_key=read_key_file(policyd.dovecot_api_key_file))
    else:
        place = _place_of(_DOVECOT_LINE, old, DOVECOT_PORTS)
        keys.append(_key(folder / DOVECOT_KEY))
        lines += ["[policyd]", f'dovecot = "{place}"', f'dovecot_api_key_file = "{folder / DOVECOT_KEY}"']
        wanted = replace(wanted, dovecot=place, dovecot_key=keys[-1].text)
    if not policyd.incidents.doveadm and can_listen(dovecot):
        place = _place_of(_DOVEADM_LINE, old, DOVEADM_PORTS)
        keys.append(_key(folder / DOVEADM_KEY))
        url = DOVEADM_URL.format(place=place)
        lines += ["", "[policyd.incidents]", f'doveadm = "{url}"', f'doveadm_key_file = "{folder / DOVEADM_KEY}"']
        wanted = replace(wanted, doveadm=place, doveadm_key=keys[-1].text)
    return wanted, keys, HEAD + "\n".join([*lines, ""]).lstrip("\n") if lines else ""


def _place_of(line: re.Pattern[str], old: str, ports: Iterable[int]) -> str:
    """Return the place that our file has, or the first port of loopback that nobody listens at."""
    match = line.search(old)
    return match.group(1) if match is not None else _place("127.0.0.1", _free_port(tuple(ports)))


def _free_port(ports: tuple[int, ...]) -> int:
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
            return port
    return ports[0]  # the daemon will say that it is taken


def _key(path: Path) -> _Key:
    """Return the key in a file, or a new one for it. Raises ConfigError where there is a file that cannot be one."""
    if not path.exists():
        return _Key(path, None, secrets.token_hex(32))
    key = read_key_file(path)
    return _Key(path, key, key)


def _key_changes(keys: list[_Key], folder: Path, policyd: Policyd) -> list[FileText]:
    """Write the keys that are new, and take away those that nobody uses any more."""
    changes = [
        FileText(
            key.path,
            None,
            f"{key.text}\n".encode("ascii"),
            _WHY[key.path.name],
            mode=0o640,
            group=GROUP,
            is_secret=True,
        )
        for key in keys
        if key.old is None
    ]
    kept = {*(key.path for key in keys), policyd.dovecot_api_key_file, policyd.incidents.doveadm_key_file}
    for path in (folder / DOVECOT_KEY, folder / DOVEADM_KEY):
        if path not in kept and path.is_file():
            why = "nobody asks for this key any more"
            changes.append(FileText(path, path.read_bytes(), None, why, mode=0o640, group=GROUP, is_secret=True))
    return changes


_WHY = {
    DOVECOT_KEY: "the key that Dovecot shows policyd: who may report logins can lock accounts out",
    DOVEADM_KEY: "the key that policyd shows doveadm",
}


def _text_change(ours: Path, old: str, text: str) -> list[FileText]:
    if old == text:
        return []
    why = "policyd answers Dovecot about logins, and ends the sessions of suspended accounts"
    return [FileText(ours, old.encode() or None, text.encode() or None, why)]
