"""What Dovecot's auth-policy client says: a command and a JSON object in, a login attempt out. No I/O.

Which keys there are is the operator's choice (`auth_policy_request_attributes`): login, pwhash and remote are what is decided by,
others are ignored, whatever is in them. A value that cannot be what its key says is a ProtocolError, whose text has nothing of
the request in it.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from mailward.model.errors import ProtocolError
from mailward.policy.logins import Attempt, Result

ALLOW, REPORT = "allow", "report"

# Behind a URL that ends in "&" Dovecot puts no "?" before its command: without one in the URL, the command is in the path.
_IN_PATH = re.compile(r"&command=([a-z]{1,20})\Z")

# Dovecot 2.4 says why a login failed; what is not here is the client's fault. With 2.3 a database that is away looks like wrong
# passwords: each login's own, which counts once.
_RESULT_OF_FAIL_TYPE = {"policy": Result.REFUSED, "internal": Result.BROKEN}


@dataclass(frozen=True, slots=True)
class LoginRequest:
    """One request. `result` is None before a login. `protocol` and `session` are for the log, and anybody's."""

    attempt: Attempt
    result: Result | None
    protocol: str
    session: str


def read_command(path: str, commands: list[str]) -> str:
    """Return what is asked: by the last `command` of the query, which is Dovecot's own, or by the path. Raises ProtocolError.

    >>> read_command("/", ["allow"]), read_command("/&command=report", [])
    ('allow', 'report')
    """
    match = _IN_PATH.search(path)
    command = commands[-1] if commands else match.group(1) if match else ""
    if command not in (ALLOW, REPORT):
        raise ProtocolError("expected command=allow or command=report in the URL")
    return command


def read_request(command: str, octets: bytes) -> LoginRequest:
    """Read a request's JSON. Raises ProtocolError.

    >>> read_request("allow", b'{"login": "a", "pwhash": "01ab", "remote": "192.0.2.1"}').attempt
    Attempt(login='a', password='01ab', remote='192.0.2.1')
    """
    try:
        values = json.loads(octets.decode("utf-8"))
    except (ValueError, RecursionError):  # no UTF-8, no JSON, a number of thousands of digits, nested without end
        raise ProtocolError("expected a JSON object in UTF-8") from None
    if not isinstance(values, dict):
        raise ProtocolError("expected a JSON object")
    if "login" not in values:
        raise ProtocolError('expected "login" in auth_policy_request_attributes')
    # Without a hash no two passwords can be told to be the same: each counts.
    password = _text(values, "pwhash") or secrets.token_hex(8)
    return LoginRequest(
        Attempt(_text(values, "login"), password, _text(values, "remote")),
        _result(values) if command == REPORT else None,
        _text(values, "protocol"),
        _text(values, "session_id"),
    )


def _result(values: Mapping[str, object]) -> Result:
    if "success" not in values:
        raise ProtocolError('expected "success" in a report')
    if _boolean(values, "success"):
        return Result.SUCCEEDED
    if _boolean(values, "policy_reject"):
        return Result.REFUSED
    return _RESULT_OF_FAIL_TYPE.get(_text(values, "fail_type"), Result.FAILED)


def _text(values: Mapping[str, object], key: str) -> str:
    value = values.get(key, "")
    if not isinstance(value, str):
        raise ProtocolError(f'expected a string for "{key}"')
    return value


def _boolean(values: Mapping[str, object], key: str) -> bool:
    value = values.get(key, False)
    if not isinstance(value, bool):
        raise ProtocolError(f'expected true or false for "{key}"')
    return value
