"""Ending the sessions of an account, over Dovecot's HTTP API (doveadm): the daemon is unprivileged, and anvil's socket is root's.

What Dovecot remembers of the account's password is forgotten, then its connections are closed, so that who comes back is asked
for. Dovecot 2.4 forgets nothing: its API ends with a panic when it is told to (2.4.1), so that it is asked what it is first.
"""

from __future__ import annotations

import base64
import json
import re
import socket
from dataclasses import dataclass
from enum import Enum

from mailward.policy.owners import is_escaped
from policyd.http_client import HttpError, HttpTimeout, get, post_json

KICK_SECONDS = 10.0
NOBODY_THERE = 68  # doveadm's exit status where nothing matched (EX_NOHOST), in Dovecot 2.3
NONE_KICKED = [{"count": "0"}]  # what 2.4 answers there


class Kicked(Enum):
    """What became of it. The words of the log and of the counter's label."""

    KICKED = "kicked"
    NOBODY = "nobody"  # it had no session
    REFUSED = "refused"  # its name would mean others to Dovecot, too, or nobody: the login's own is another


class KickError(Exception):
    """It is not known to have happened: it should be tried again. The text says why."""


@dataclass(frozen=True, slots=True)
class Doveadm:
    """Dovecot's HTTP API: `url` is that of its listener; `key` is doveadm_api_key."""

    url: str
    key: str
    seconds: float = KICK_SECONDS

    async def kick(self, account: str) -> Kicked:
        """Make Dovecot forget what it remembers of an account's password, and end its sessions. Raises KickError."""
        if is_escaped(account):
            return Kicked.REFUSED
        can_flush = _can_flush(await self._send(None))
        is_refused = means_others(account)
        commands: list[object] = []
        if can_flush:
            commands.append(["authCacheFlush", {"user": [account]}, "flush"])
        if not is_refused:
            commands.append(["kick", {"mask": [account]}, "kick"])
        results = _read_results(await self._send(commands)) if commands else {}
        if can_flush:
            _take_flush(results.get("flush"))
        return Kicked.REFUSED if is_refused else _take_kick(results.get("kick"))

    async def _send(self, commands: list[object] | None) -> list[object]:
        """Run commands and return the list that Dovecot answers; without any, that of the commands it has."""
        key = base64.b64encode(self.key.encode("utf-8", "surrogateescape")).decode("ascii")
        url = self.url if "/doveadm/" in self.url else self.url.rstrip("/") + "/doveadm/v1"
        headers = {"Authorization": f"X-Dovecot-API {key}"}
        try:
            if commands is None:
                reply = await get(url, headers, self.seconds)
            else:
                reply = await post_json(url, json.dumps(commands).encode("ascii"), headers, self.seconds)
        except HttpTimeout as error:
            raise KickError(f"{error}; Dovecot answers a wrong key so: is it doveadm_api_key?") from None
        except HttpError as error:
            raise KickError(str(error)) from None
        if reply.status != 200:
            why = "doveadm_api_key is another" if reply.status in (401, 403) else f"HTTP status {reply.status}"
            raise KickError(why)
        return _read_list(reply.content)


def means_others(account: str) -> bool:
    """Say whether `doveadm kick` would take a name for more than one account: a mask, or a client's address or network.

    >>> means_others("alice@example.com"), means_others("*@example.com"), means_others("0.0.0.0/0")
    (False, True, True)
    """
    if not account or re.search(r"[*?\s\0]", account):
        return True
    address, _, _ = account.partition("/")
    return _is_address(address.strip("[]"))


def _is_address(text: str) -> bool:
    """Say whether Dovecot's C library takes a text for an address, as "10.1" or "0x7f000001" are ones."""
    try:
        socket.inet_pton(socket.AF_INET6, text.partition("%")[0])
    except (OSError, ValueError):
        try:
            socket.inet_aton(text)
        except (OSError, ValueError):
            return False
    return True


def _read_list(content: bytes) -> list[object]:
    try:
        rows = json.loads(content)
    except (ValueError, RecursionError):
        raise KickError("a reply that is no JSON") from None
    if not isinstance(rows, list):
        raise KickError("a reply that is no list")
    return rows


def _can_flush(commands: list[object]) -> bool:
    """Say whether authCacheFlush is safe: in the list of commands of Dovecot 2.3 `kick` has `force`, in that of 2.4 not."""
    for command in commands:
        if isinstance(command, dict) and command.get("command") == "kick":
            parameters = command.get("parameters")
            return isinstance(parameters, list) and any(
                isinstance(each, dict) and each.get("name") == "force" for each in parameters
            )
    raise KickError("a Dovecot that cannot kick")


def _read_results(rows: list[object]) -> dict[str, tuple[str, object]]:
    """Return, by the commands' tags, the word and the value each was answered with."""
    results = {}
    for row in rows:
        if isinstance(row, list) and len(row) == 3 and isinstance(row[0], str) and isinstance(row[2], str):
            results[row[2]] = (row[0], row[1])
    return results


def _take_flush(result: tuple[str, object] | None) -> None:
    """Raise KickError unless it was done; without a cache there is nothing to forget."""
    if result is None or result[0] != "doveadmResponse":
        raise KickError(f"the authentication cache was not flushed: {_error_of(result)}")


def _take_kick(result: tuple[str, object] | None) -> Kicked:
    if result is not None and result[0] == "doveadmResponse":
        return Kicked.NOBODY if result[1] == NONE_KICKED else Kicked.KICKED
    if result is not None and isinstance(result[1], dict) and result[1].get("exitCode") == NOBODY_THERE:
        return Kicked.NOBODY
    raise KickError(f"no session was ended: {_error_of(result)}")


def _error_of(result: tuple[str, object] | None) -> str:
    if result is None:
        return "no result"
    value = result[1]
    words = (
        [f"{name} {value[name]}" for name in ("type", "exitCode") if name in value] if isinstance(value, dict) else []
    )
    return ", ".join(words)[:200] or "an error"
