"""What is told of an incident: in words for a person who is woken by it, in JSON and variables for a program. No I/O.

Nothing of it is trusted: a login is what its owner's mail program, or whoever stole the password, has typed. What a person may
paste into a shell is quoted for it, and what is no plain character is shown as its number.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from mailward.model.accounts import Account, Incident, Suspension
from mailward.policy.incidents import LOGIN_NETWORKS

MAX_SHOWN = 320  # characters of a name or a reason: as long as an address may be


class News(Enum):
    """What has happened. The words that programs get to see."""

    OPENED = "incident-opened"  # it may be suspended already
    SUSPENDED = "account-suspended"  # after it had been told that the incident is open
    CLOSED = "incident-closed"


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to tell: the news, and how things stand with the account."""

    news: News
    account: str
    incident: Incident
    suspension: Suspension | None
    is_tightened: bool
    machine: str  # the authserv_id of who tells


def make_notice(account: Account, what: str, machine: str) -> Notice:
    """Return what is told where mailward.policy.incidents says that `what` has to be."""
    assert account.incident is not None
    if what == "closed":
        news = News.CLOSED
    else:
        news = News.SUSPENDED if account.incident.told else News.OPENED
    return Notice(news, account.name, account.incident, account.suspension, account.is_tightened, machine)


def subject(notice: Notice) -> str:
    """Return the notice in one line."""
    name = shown(notice.account)
    if notice.news is News.CLOSED:
        return f"[mailward] {name}: incident over"
    if notice.suspension is not None:
        return f"[mailward] {name} is SUSPENDED"
    return f"[mailward] {name} {_what_was_done(notice.incident)}"


def text(notice: Notice) -> str:
    """Return the notice for somebody who has never heard of it before, and what to do about it."""
    return "\n\n".join(part for part in (_headline(notice), _facts(notice), _what_to_do(notice)) if part) + "\n"


def as_json(notice: Notice) -> bytes:
    """Return the notice for programs; ASCII, one line. Times are seconds since the epoch, and 0 where there is none."""
    incident, suspension = notice.incident, notice.suspension
    return json.dumps(
        {
            "event": notice.news.value,
            "account": _encodable(notice.account),
            "limit": _encodable(incident.cause),
            "hits": incident.hits,
            "refused": incident.refused,
            "opened_at": incident.opened_at,
            "last_hit_at": incident.last_hit_at,
            "closed_at": incident.closed_at,
            "suspended": suspension is not None,
            "suspended_at": suspension.at if suspension else 0.0,
            "suspended_by": _encodable(suspension.by) if suspension else "",
            "suspended_because": _encodable(suspension.why) if suspension else "",
            "tightened": notice.is_tightened,
            "machine": notice.machine,
            "subject": subject(notice),
            "text": text(notice),
        }
    ).encode("ascii")


def as_variables(notice: Notice) -> Mapping[str, str]:
    """Return the notice as variables of a program's environment."""
    return {
        "MAILWARD_EVENT": notice.news.value,
        "MAILWARD_ACCOUNT": _encodable(notice.account).replace("\0", ""),
        "MAILWARD_LIMIT": _encodable(notice.incident.cause).replace("\0", ""),
        "MAILWARD_HITS": str(notice.incident.hits),
        "MAILWARD_OPENED_AT": f"{notice.incident.opened_at:.0f}",
        "MAILWARD_CLOSED_AT": f"{notice.incident.closed_at:.0f}",
        "MAILWARD_SUSPENDED": "yes" if notice.suspension is not None else "no",
        "MAILWARD_MACHINE": notice.machine,
        "MAILWARD_SUBJECT": subject(notice),
    }


def shown(value: str) -> str:
    r"""Return a stranger's text so that it can neither break a line nor turn one round.

    >>> shown("a\r\nBcc: everybody")
    'a\\x0d\\x0aBcc: everybody'
    """
    escaped = "".join(one if one.isprintable() else _number(one) for one in value[:MAX_SHOWN])
    return escaped + ("..." if len(value) > MAX_SHOWN else "")


def _number(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _encodable(value: str) -> str:
    """Return text without what no octets can stand for: a login that was no UTF-8 came as surrogates."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8")


def _headline(notice: Notice) -> str:
    name = shown(notice.account)
    if notice.news is News.CLOSED:
        return f"The incident of {name} is over: it has reached no limit since {_time(notice.incident.last_hit_at)}."
    done = f"{name} {_what_was_done(notice.incident)}."
    if notice.suspension is None:
        return done + " It is NOT suspended: it may log in, and send within its limits."
    return done + " It is SUSPENDED: it can neither send nor log in."


def _what_was_done(incident: Incident) -> str:
    if incident.cause == LOGIN_NETWORKS:
        return "logs in from more networks than one person has"
    return f"has reached the limit {shown(incident.cause)}"


def _facts(notice: Notice) -> str:
    incident, suspension = notice.incident, notice.suspension
    facts = [
        ("account", shown(notice.account)),
        ("limit", shown(incident.cause)),
        ("reached", "once" if incident.hits == 1 else f"{incident.hits} times"),
        ("since", _time(incident.opened_at)),
        ("last time", _time(incident.last_hit_at)),
    ]
    if incident.closed_at:
        facts.append(("over since", _time(incident.closed_at)))
    if suspension is None:
        facts.append(("suspended", "no"))
    else:
        facts.append(("suspended", f"{_time(suspension.at)}, by {shown(suspension.by)}"))
        facts.append(("because", shown(suspension.why)))
    if notice.is_tightened:
        facts.append(("limits", "tightened until the incident is over"))
    facts.append(("seen by", notice.machine))
    return "\n".join(f"  {name + ':':<12}{value}" for name, value in facts)


def _what_to_do(notice: Notice) -> str:
    if notice.news is News.CLOSED:
        return "Nothing is left to do."
    account = shlex.quote(shown(notice.account))
    account = f"-- {account}" if account.startswith("-") else account
    steps = [("See what it did", f"mailward limits show {account}")]
    if notice.suspension is None:
        steps.append(("Stop it, if its password is stolen", f"mailward limits suspend {account}"))
        # Ten minutes: that raises the window of account-surge, too, which an hour would not.
        steps.append(("Let it send more, if all is well", f"mailward limits raise {account} 1000/10m --for 2d"))
    else:
        steps.append(("Give it back, once it has a new password", f"mailward limits resume {account}"))
    return "\n".join(f"{why}:\n  {command}" for why, command in steps)


def _time(at: float) -> str:
    """Return a time as UTC, which is the same on every machine; a clock that was wrong must not keep it from being told."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{at:.0f}"
