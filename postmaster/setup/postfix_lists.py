"""Postfix's lists as text: milters and restrictions, separated by commas and white space, with groups in braces. No I/O."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

POLICY_CALL = "check_policy_service"
_ENDS = re.compile("permit|reject|defer")  # each answers for everybody
_ENDS_OR_PERMITS = re.compile(f"{_ENDS.pattern}|permit_[a-z_]+")
# Where Dovecot's quota-status listens: by its usual name, and at the ports of its manual and of docker-mailserver.
_QUOTA = re.compile(r"quota-status|:(?:12340|65265)\b")
_SEPARATORS = " \t\r\n,"
_SPACE_AT_SIGNS = re.compile(r"\s*([{},=])\s*")
_SPACE = re.compile(r"\s+")


class Token(NamedTuple):
    """A piece of a list, and where in its text it begins."""

    text: str
    start: int


def tokens(value: str) -> list[Token]:
    """Cut a list; a group in braces is one token, or is in one, and what stands in it is not cut.

    >>> [token.text for token in tokens("a, { unix:b, c=d }  $e, inline:{ f=g }")]
    ['a', '{ unix:b, c=d }', '$e', 'inline:{ f=g }']
    """
    found, at = [], 0
    while at < len(value):
        if value[at] in _SEPARATORS:
            at += 1
            continue
        end = _end_of(value, at)
        found.append(Token(value[at:end], at))
        at = end
    return found


def words(value: str) -> list[str]:
    """Return a list's tokens, without the white space that means nothing: what two lists are compared by."""
    return [_SPACE_AT_SIGNS.sub(r"\1", token.text) for token in tokens(value)]


def first_word(token: str) -> str:
    """Return what a token is about: of a group in braces its first word.

    >>> first_word("{ unix:b, c=d }")
    'unix:b'
    """
    inner = tokens(token[1:-1]) if token.startswith("{") and token.endswith("}") else []
    return inner[0].text if inner else token


def names(value: str, parameter: str) -> bool:
    """Tell whether a value has a parameter's name.

    >>> names("a, $mailward_policyd_submission", "mailward_policyd")
    False
    """
    return bool(re.search(rf"\$[({{]?{parameter}\b", value))


def compact(value: str) -> str | None:
    """Return a list without white space, as master.cf takes it; None: it means something in there.

    >>> compact("permit_mynetworks, check_policy_service { unix:a, timeout=3s }, reject")
    'permit_mynetworks,check_policy_service,{unix:a,timeout=3s},reject'
    """
    joined = ",".join(words(value))
    return None if _SPACE.search(joined) else joined


def without_calls(value: str, is_meant: Callable[[str], bool]) -> str:
    """Return a list of restrictions without the policy calls whose server is meant; the rest of its text stays.

    >>> without_calls("a, check_policy_service unix:b, c", lambda server: server == "unix:b")
    'a, c'
    """
    found = tokens(value)
    for at in reversed(range(len(found) - 1)):
        if found[at].text == POLICY_CALL and is_meant(found[at + 1].text):
            after = found[at + 2].start if at + 2 < len(found) else len(value)
            value = value[: found[at].start] + value[after:]
    return value.rstrip(_SEPARATORS)


def called_servers(value: str) -> list[str]:
    """Return the policy servers that a list of restrictions asks, in order."""
    found = [token.text for token in tokens(value)]
    return [server for call, server in itertools.pairwise(found) if call == POLICY_CALL]


def with_call(value: str, server: str, *, before_permits: bool, expanded: Callable[[str], str]) -> str:
    """Return a list of restrictions that asks a policy server: before the first permit, or as late as it can be asked.

    >>> with_call("permit_sasl_authenticated, reject", "$p", before_permits=True, expanded=str)
    'check_policy_service $p, permit_sasl_authenticated, reject'
    >>> with_call("permit_mynetworks, reject_unauth_destination", "$p", before_permits=False, expanded=str)
    'permit_mynetworks, reject_unauth_destination, check_policy_service $p'
    """
    found = tokens(value)
    stops = _ENDS_OR_PERMITS if before_permits else _ENDS
    for at, token in enumerate(found):
        is_end = any(stops.fullmatch(word.text) for word in tokens(expanded(token.text)))
        if is_end or _asks_quota(found, at, expanded):
            start = found[at - 1].start if at and found[at - 1].text == "warn_if_reject" else token.start
            return f"{value[:start]}{POLICY_CALL} {server}, {value[start:]}"
    return f"{value.rstrip(_SEPARATORS)}, {POLICY_CALL} {server}".removeprefix(", ")


def joined(items: Iterable[str]) -> str:
    """Return a list of milters as main.cf has it."""
    return ", ".join(items)


def _asks_quota(found: list[Token], at: int, expanded: Callable[[str], str]) -> bool:
    """Tell whether Dovecot's quota-status is asked here: it answers OK by default, which ends the list."""
    is_call = found[at].text == POLICY_CALL and at + 1 < len(found)
    return is_call and bool(_QUOTA.search(expanded(found[at + 1].text)))


def _end_of(value: str, at: int) -> int:
    """Return where a token ends: at a separator outside of braces, as Postfix has it."""
    depth = 0
    for place in range(at, len(value)):
        if depth == 0 and value[place] in _SEPARATORS:
            return place
        depth = max(depth + {"{": 1, "}": -1}.get(value[place], 0), 0)
    return len(value)
