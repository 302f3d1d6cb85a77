"""An account's way through an incident, and what an operator does to it: values in, values and audit entries out. Pure.

    first hit -> open -> (more hits) -> suspended -> resumed by an operator -> quiet for a while -> closed -> told -> forgotten

Every function returns the account as it is afterwards and what goes into the audit log; nothing where nothing changes.
"""

from __future__ import annotations

from dataclasses import replace

from mailward.model.accounts import AUTOMATIC, Account, AuditEntry, Incident, Raise, Suspension

LOGIN_NETWORKS = "login-networks"  # the cause of an incident: logged in from more networks than one person has

TELLING_SECONDS = 120.0  # whoever took it upon itself to tell has told, or failed, by then
MAX_TAKEN = 1800.0  # one that is taken for longer was taken by a clock that was wrong: nobody would ever tell
MAX_RAISES = 20  # of an account

Step = tuple[Account, tuple[AuditEntry, ...]]


def hit(account: Account, cause: str, hits: int, suspend_after: int, now: float) -> Step:
    """Count requests that reached a limit: the first one opens an incident.

    `suspend_after` is above 0 where the limit refused them and suspends: so many of those together suspend the account. Hits of
    other limits (which only log or hold, or suspend nobody) bring it no nearer to that.
    """
    incident, entries = account.incident, []
    if incident is None or incident.closed_at:
        # One whose closing has not been told goes on, for those who were told; whoever is telling it just now still is.
        told, telling_until = (incident.told, incident.telling_until) if incident is not None else ("", 0.0)
        incident = Incident(now, cause, 0, now, told=told, telling_until=telling_until)
        entries.append(AuditEntry(now, AUTOMATIC, "incident-opened", account.name, f"limit {cause} reached"))
    refused = incident.refused + (hits if suspend_after else 0)
    last_hit_at = max(now, incident.last_hit_at)
    incident = replace(incident, hits=incident.hits + hits, refused=refused, last_hit_at=last_hit_at)
    account = replace(account, incident=incident)
    if suspend_after and refused >= suspend_after and account.suspension is None:
        account, more = suspend(account, AUTOMATIC, f"limit {cause} reached, {refused} refused", now)
        entries += more
    return account, tuple(entries)


def many_networks(account: Account, networks: int, now: float) -> Step:
    """Tighten the limits of an account that logs in from more networks than one person has."""
    was_tightened = account.is_tightened
    account, entries = hit(account, LOGIN_NETWORKS, 0, 0, now)
    if not was_tightened:
        why = f"logged in from {networks} networks"
        entries = (*entries, AuditEntry(now, AUTOMATIC, "tighten", account.name, why, "", "limits tightened"))
    return replace(account, is_tightened=True), entries


def step(account: Account, quiet_seconds: float, now: float) -> Step:
    """Do what time asks for: close an incident that has been quiet, end raises that are over."""
    entries: list[AuditEntry] = []
    raises = tuple(one for one in account.raises if one.until > now)
    for over in (one for one in account.raises if one.until <= now):
        entries.append(AuditEntry(now, AUTOMATIC, "raise-ended", account.name, "its time is over", shown_raise(over)))
    account = replace(account, raises=raises)
    incident = account.incident
    if incident is None or incident.closed_at or account.suspension is not None:
        return account, tuple(entries)
    if abs(now - incident.last_hit_at) < quiet_seconds:  # a hit far in the future was written by a clock that was wrong
        return account, tuple(entries)
    why = f"quiet for {quiet_seconds:.0f} s after {incident.hits} hits"
    entries.append(
        AuditEntry(now, AUTOMATIC, "incident-closed", account.name, why, f"open, {incident.cause}", "closed")
    )
    return replace(account, incident=replace(incident, closed_at=now), is_tightened=False), tuple(entries)


def suspend(account: Account, who: str, why: str, now: float) -> Step:
    """Stop an account: it may neither send nor log in."""
    if account.suspension is not None:
        return account, ()
    entry = AuditEntry(now, who, "suspend", account.name, why, "active", "suspended")
    return replace(account, suspension=Suspension(now, who, why)), (entry,)


def resume(account: Account, who: str, why: str, now: float) -> Step:
    """Give a suspended account back; its hits are forgotten, and the incident is over once it stays quiet."""
    if account.suspension is None:
        return account, ()
    incident = account.incident
    if incident is not None:
        told_before = "opened" if incident.told == "suspended" else incident.told  # the next suspension is told again
        incident = replace(incident, hits=0, refused=0, last_hit_at=now, told=told_before)
    before = f"suspended by {account.suspension.by}: {account.suspension.why}"
    entry = AuditEntry(now, who, "resume", account.name, why, before, "active")
    return replace(account, suspension=None, incident=incident, is_tightened=False), (entry,)


def raise_limit(account: Account, raised: Raise, who: str, why: str, now: float) -> Step:
    """Let an account do more for a time, in place of a raise of the same limit and window. ValueError beyond MAX_RAISES."""
    same = [one for one in account.raises if (one.limit, one.seconds) == (raised.limit, raised.seconds)]
    others = tuple(one for one in account.raises if one not in same)
    if len(others) >= MAX_RAISES:
        raise ValueError(f"there are {MAX_RAISES} raises of this account already")
    before = shown_raise(same[0]) if same else ""
    entry = AuditEntry(now, who, "raise", account.name, why, before, shown_raise(raised))
    return replace(account, raises=(*others, raised)), (entry,)


def end_raises(account: Account, who: str, why: str, now: float) -> Step:
    """Take back every raise of an account."""
    entries = (AuditEntry(now, who, "raise-ended", account.name, why, shown_raise(one)) for one in account.raises)
    return replace(account, raises=()), tuple(entries)


def shown_raise(raised: Raise) -> str:
    """Return a raise in words.

    >>> shown_raise(Raise(1000, 3600.0, 1767225600.0))
    'every limit: 1000 in 3600 s, until 1767225600'
    """
    return f"{raised.limit or 'every limit'}: {raised.most} in {raised.seconds:.0f} s, until {raised.until:.0f}"


def to_tell(account: Account, settle_seconds: float, now: float) -> str:
    """Return what of an incident somebody has to tell now: what is untold, where nobody has taken it."""
    incident = account.incident
    if incident is None or 0 < incident.telling_until - now <= MAX_TAKEN:
        return ""
    return untold(account, settle_seconds, now)


def untold(account: Account, settle_seconds: float, now: float) -> str:
    """Return what of an incident is still to be told: "opened", "suspended", "closed", or nothing ("").

    An opening is told once it has settled: the suspension that follows within seconds is told with it. What was never told to
    be open is told so before its closing.
    """
    incident = account.incident
    if incident is None:
        return ""
    if account.suspension is not None:
        return "suspended" if incident.told != "suspended" else ""
    if not incident.told:
        has_settled = bool(incident.closed_at) or abs(now - incident.opened_at) >= settle_seconds
        return "opened" if has_settled else ""
    return "closed" if incident.closed_at else ""


def take_telling(account: Account, now: float) -> Account:
    """Take the telling upon oneself."""
    assert account.incident is not None
    return replace(account, incident=replace(account.incident, telling_until=now + TELLING_SECONDS))


def told(account: Account, what: str) -> Account:
    """Note that it has been told; an incident whose closing has been told is forgotten.

    One that was hit again while its closing was told is new to those who were told so.
    """
    incident = account.incident
    if incident is None:
        return account
    if what == "closed":
        reopened = None if incident.closed_at else replace(incident, told="", telling_until=0.0)
        return replace(account, incident=reopened)
    if what == "suspended" and account.suspension is None:
        what = "opened"  # it was resumed meanwhile: the next suspension is told again
    return replace(account, incident=replace(incident, told=what, telling_until=0.0))
